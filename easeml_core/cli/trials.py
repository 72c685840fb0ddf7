"""``easeml trial``, ``explain`` and ``device``: trials, how they were chosen, and what trains them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    STUDY,
    asked_to_end,
    installation_options,
    new_key,
    open_installation,
    open_store,
    store_options,
)
from easeml_core.cli.output import cell, example, plain, short, show_json, show_table
from easeml_core.formats.encoding import row_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.services.reports.decision import Chosen, TrialEnding, TrialExplanation
    from easeml_core.store.tables.trials import CurvePoint, TrialReport


_MOST_LINES = 50


@click.group(epilog=example("easeml trial show 12"))
def trial() -> None:
    """Trials: one run of one candidate each."""


@trial.command(epilog=example("easeml trial show 12"))
@click.argument("trial_id", type=int)
@store_options
def show(trial_id: int, database: str | None, as_json: bool) -> None:
    """Show one trial: its result, its attempts, the decisions at its rungs, and its learning curve."""
    from easeml_core.services.trials.execution import trial_details
    from easeml_core.services.trials.rungs import sentence_of

    details = trial_details(open_store(database), trial_id=trial_id)
    if as_json:
        show_json(details)
        return
    news, shown = details.progress or {}, row_of(details)
    for name in ("curve", "rungs", "progress"):
        del shown[name]
    _lines({**shown, "last_news": news.get("note"), "peak_mb": news.get("peak_mb")})
    for decision in details.rungs:
        click.echo(f"It {sentence_of(decision)}.")
    if details.curve:
        columns = {"Step": "step", "Of": "of", "Quality": "quality", "Loss": "loss", "Seconds": "seconds"}
        show_table("Learning curve", columns, _thinned(details.curve))


@trial.command(epilog=example("easeml trial cancel 12"))
@click.argument("trial_id", type=int)
@store_options
def cancel(trial_id: int, database: str | None, as_json: bool) -> None:
    """Cancel a trial: at once when it waits, within two seconds when it runs."""
    from easeml_core.services.trials.execution import cancel_trial

    _print(cancel_trial(open_store(database), trial_id=trial_id), as_json)


@trial.command(epilog=example("easeml trial retry 12"))
@click.argument("trial_id", type=int)
@store_options
def retry(trial_id: int, database: str | None, as_json: bool) -> None:
    """Replace a trial that failed because of its task, after a repair of the task.

    A trial failed because of its task where a package, a program, a column or a file was missing, and not because of
    its parameters. The new trial waits for the next task that can execute it. Repeating the command adds none.
    """
    from easeml_core.services.selection.retry import retry_trial

    _print(retry_trial(open_store(database), trial_id=trial_id), as_json)


def _thinned(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Return at most 50 points or so of a long curve, and always its last one; ``--json`` has all of them."""
    every = -(-len(curve) // _MOST_LINES)
    return [point for number, point in enumerate(curve, start=1) if number % every == 0 or number == len(curve)]


def _print(report: TrialReport, as_json: bool) -> None:
    if as_json:
        show_json(report)
    else:
        _lines(row_of(report))


def _lines(shown: Mapping[str, object]) -> None:
    for key, value in shown.items():
        click.echo(f"{key:>19}  {cell(value)}")


_CHOSEN = {
    "acquisition": "it was worth most to the policy",
    "guard": "the guard: its study was served least and was owed a trial",
    "learning": "the learning share: the cheapest trial, while there was hardly any past to learn from",
    "left over": "it existed already: it had not been started, or its worker was lost",
}


@click.command(epilog=example("easeml explain 12"))
@click.argument("trial_id", type=int)
@store_options
def explain(trial_id: int, database: str | None, as_json: bool) -> None:
    """Explain a trial: its prediction, the runner-up, and its result."""
    from easeml_core.services.reports.decision import explain_trial

    found = explain_trial(open_store(database), trial_id=trial_id)
    if as_json:
        show_json(found)
    else:
        _show(found)


def _show(found: TrialExplanation) -> None:
    from easeml_core.services.reports.decision import Chosen

    click.echo(plain(f"{found.sentence}."))
    for batch in found.batches:
        own = "the program's own settings" if batch.settings_id is None else f"settings {batch.settings_id}"
        place = f"{batch.position + 1} of {batch.requested} asked for"
        click.echo(f"\nSuggested {batch.suggested_at[:19]} UTC in batch {batch.batch_id}, {place}")
        chosen = f"default, since {batch.instead_of}" if batch.instead_of else batch.policy
        _line("policy", f"{chosen}, {own}")
        _line("chosen by", _CHOSEN[batch.chosen_by])
        if isinstance(batch, Chosen):
            _show_figures(batch)
    _show_outcome(found.outcome)


def _show_figures(batch: Chosen) -> None:
    from easeml_core.selection.suggestion import OF_OTHER_TENANT

    _line("expected quality", f"{batch.mean:.4f} +/- {batch.std:.4f} (std)")
    interval = batch.predicted_cost_interval_seconds
    within = f", with 80 % between {interval[0]:.3g} and {interval[1]:.3g} s" if interval else ""
    _line("predicted cost", f"{batch.predicted_cost_seconds:.3g} s{within}")
    _line("expected gain", f"{batch.expected_improvement:.4f} over the best, {batch.best:.4f}")
    _line("acquisition", f"{batch.acquisition:.4g}")
    rival = batch.runner_up
    if rival is None:
        none = "the policy names none" if batch.has_no_ranking else "nothing else was left"
        _line("runner-up", OF_OTHER_TENANT if batch.of_other_tenant is True else none)
    else:
        names = f"{rival.study}/{rival.candidate}" if rival.candidate else f"study id {rival.study_id}"
        _line("runner-up", f"{names}, {rival.acquisition:.4g}")
    _line("guard's share", f"{batch.guard or 0:.0%}")


def _show_outcome(outcome: TrialEnding) -> None:
    click.echo("\nOutcome")
    for name in ("state", "device", "quality", "cost_seconds", "best_before", "improvement"):
        _line(name.replace("_", " "), cell(getattr(outcome, name)))
    if outcome.surprise is not None:
        _line("surprise", f"{outcome.surprise:+.2f} std")
    if outcome.cost_ratio is not None:
        _line("cost / predicted", f"{outcome.cost_ratio:.2f}")
    if outcome.failure:
        _line("failure", outcome.failure.partition("\n")[0])


def _line(name: str, text: str) -> None:
    click.echo(f"{name:>18}  {plain(text)}")


@click.group(epilog=example("easeml device run --study flowers"))
def device() -> None:
    """Devices: what trains, one trial at a time."""


_EXAMPLE = """\b
Examples:
  easeml device run
  easeml device run --study flowers --max-trials 5
"""


@device.command(epilog=_EXAMPLE)
@click.option(
    "--device", "kind", help="As candidates name it: KIND, KIND:N for N at once, KIND/N for a part; default: any."
)
@click.option("--slot", metavar="cpu|cuda|cuda:N", help="What it is on this machine; default: a GPU if there is one.")
@click.option("--policy", help="How the next trial is chosen; default: the installation's, see `easeml policy`.")
@click.option("--study", "studies", type=STUDY, multiple=True, help="Of this study only; may be given several times.")
@click.option("--until", type=float, metavar="SECONDS", help="Begin no further trial after so many seconds.")
@click.option("--max-trials", type=int, help="End after so many trials; default: no limit.")
@click.option("--poll", default=60.0, show_default=True, help="Seconds between two asks while there is nothing to do.")
@click.option("--request-key", help="Give it again to go on after a crash; default: a new one, which is logged.")
@installation_options
def run(
    kind: str | None, studies: tuple[str, ...], poll: float, request_key: str | None, artifacts: str | None,
    database: str | None, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Train one trial after the other until nothing is left; progress goes to standard error.

    SIGINT and SIGTERM end a running training and hand its trial back. Exit status 1: the device failed too often, or
    candidates are left and it could run none of them; they are named with what each needs.
    """
    from easeml_core.services.operations.monitoring import exporting
    from easeml_core.services.trials.worker import Reason, run_device

    stop = asked_to_end()
    key = new_key(request_key)
    _tell(f"request key {key}")
    with exporting("easeml-device"):
        summary = run_device(
            *open_installation(database, artifacts),
            **given,
            device=kind,
            request_key=key,
            studies_only=studies or None,
            log=_tell,
            should_stop=stop.is_set,
            poll_seconds=poll,
        )
    if as_json:
        show_json(summary)
    else:
        columns = {"Trial": "trial_id", "Study": "study", "Candidate": "candidate", "State": "state"}
        columns |= {"Quality": "quality", "Cost s": "cost_seconds", "Failure": "failure"}
        show_table("Trials", columns, [replace(t, failure=short(t.failure)) for t in summary.trials])
        click.echo(summary.message)
    if summary.reason in (Reason.DEVICE_FAILS, Reason.NOTHING_RUNNABLE):
        raise SystemExit(1)


@device.command("list", epilog=example("easeml device list --kind gpu"))
@click.option("--kind", help="Of this kind only, as candidates name it.")
@store_options
def list_devices(kind: str | None, database: str | None, as_json: bool) -> None:
    """Show the live devices: host, kind, memory, and how many slots are free.

    A device is listed while a task, a stream or `easeml device announce` on its host announces it, and for 90 seconds
    after the last heartbeat. A tenant's login sees the devices of its tenants.
    """
    from easeml_core.services.trials import devices

    found = devices.list_devices(open_store(database), kind=kind)
    if as_json:
        show_json(found)
        return
    columns = {"Host": "host", "Device": "name", "Kind": "kind", "Model": "model", "Memory MiB": "memory_mb"}
    columns |= {"Driver": "driver", "Slots": "slots", "Held": "held", "Silent s": "silent_seconds"}
    show_table("Devices", columns, found)
    kinds = {one.kind: sum(d.free for d in found if d.kind == one.kind) for one in found}
    free = ", ".join(f"{count} of kind {name}" for name, count in sorted(kinds.items()))
    click.echo(
        f"free slots: {free}" if free else "no device is live: one announces itself when a task or stream starts"
    )


@device.command(epilog=example("easeml device announce --device gpu"))
@click.option("--device", "kind", help="Kind of the devices, or KIND/N where N trials share each; default: gpu or cpu.")
@click.option("--slot", metavar="cpu|cuda|cuda:N", help="Which of this machine; default: its GPUs, else its processor.")
@store_options
def announce(kind: str | None, slot: str | None, database: str | None, as_json: bool) -> None:
    """Announce the devices of this host until SIGINT or SIGTERM, so that they are listed also while nothing trains."""
    from easeml_core.services.trials.devices import announce_host

    stop = asked_to_end()
    found = announce_host(open_store(database), device=kind, slot=slot, should_stop=stop.wait, log=_tell)
    if as_json:
        show_json(found)
    else:
        click.echo("the announcements have ended; the devices are listed until they were silent for 90 s")


def _tell(line: str) -> None:
    click.echo(line, err=True)
