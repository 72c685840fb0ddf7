"""``easeml trial`` and ``explain``: show, cancel and retry trials, and explain how they were chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import cell, example, json_option, plain, show_json, show_table
from easeml_core.encoding import row_of

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
@database_option
@json_option
def show(trial_id: int, database: str | None, as_json: bool) -> None:
    """Show one trial: its result, its attempts, the decisions at its rungs, and its learning curve."""
    from easeml_core.services.trials.execution import trial_details
    from easeml_core.services.trials.pruning import sentence_of

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
@database_option
@json_option
def cancel(trial_id: int, database: str | None, as_json: bool) -> None:
    """Cancel a trial: at once when it waits, within two seconds when it runs."""
    from easeml_core.services.trials.execution import cancel_trial

    _print(cancel_trial(open_store(database), trial_id=trial_id), as_json)


@trial.command(epilog=example("easeml trial retry 12"))
@click.argument("trial_id", type=int)
@database_option
@json_option
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
@database_option
@json_option
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
