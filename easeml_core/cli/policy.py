"""``easeml policy`` and ``scheduler``: how trials are chosen, and the process that chooses them for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from easeml_core.cli.connection import OWNER, asked_to_end, open_store, store_options
from easeml_core.cli.output import example, process_options, show_json, show_table
from easeml_core.errors import InvalidInputError, counted, reason_of
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.settings.config import OBJECTIVES, POLICIES, SelectionConfig
from easeml_core.settings.limits import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from easeml_core.entities import JsonObject
    from easeml_core.services.selection.policy import PolicyReport


HELP = {
    "policy": f"One of {', '.join(POLICIES)}, or {PLUGIN}NAME for an installed policy of yours.",
    "delta": "Probability that the bounds of GP-UCB fail, in (0, 1).",
    "noise_variance": "Variance of an observed quality, > 0.",
    "beta_multiplier": "Factor on the theoretical beta of GP-UCB, > 0.",
    "freeze_rounds": "Rounds without change before HYBRID turns to round robin, >= 1.",
    "greedy_gap_per_cost": "Divide a tenant's gap by the cost of the run that it would get, in GREEDY and HYBRID.",
    "greedy_from_best": "Estimate a tenant's regret from its best result, not its last, in GREEDY and HYBRID.",
    "cost_aware": "Let costs count.",
    "kernel": "Covariance of the published policies' prior: empirical or squared-exponential.",
    "pseudo_studies": "How many past studies the exchangeable prior counts as, > 0; default: what suits the policy.",
    "order": "File that names candidates in the order in which the policy `order` tries them, one a line.",
    "seed": "Seed of the random policies.",
    "guard": "Share of the compute that goes to the least-served tenant, in [0, 1).",
    "objective": "mean, maxmin, or a dial in [0, 1] from the mean to the worst-served tenant.",
    "price_per_second": "Least improvement of quality that a second of compute must promise, >= 0.",
    "link": "Scale on which qualities are taken as normal: logit or identity.",
    "blend": "Share in [0, 1] of the squared-exponential kernel in the prior covariance.",
    "tenant_scale": "Scale each tenant's uncertainty by how surprising its own results were.",
    "believe": "Let trials under way count as if they had returned their mean.",
    "cold_start": "Join a short history with the results of the live tenants.",
}


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every field of ``SelectionConfig``."""
    kinds: dict[str, Any] = {"objective": str, "order": click.Path(path_type=Path), "pseudo_studies": float}
    for field in reversed(attrs.fields(SelectionConfig)):
        name = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            option = click.option(f"{name}/--no-{name[2:]}", field.name, default=None, help=HELP[field.name])
        else:
            kind = kinds.get(field.name, type(field.default))
            option = click.option(name, field.name, type=kind, help=HELP[field.name])
        command = option(command)
    return command


@click.group(epilog=example("easeml policy show"))
def policy() -> None:
    """The scheduler's policy and its settings, in the whole installation."""


@policy.command(epilog=example("easeml policy show"))
@store_options
def show(database: str | None, as_json: bool) -> None:
    """Show the settings that hold now, and why they were chosen."""
    from easeml_core.services.selection.policy import show_policy

    _show_policy(show_policy(open_store(database)), as_json)


@policy.command("set", epilog=example("easeml policy set --policy hybrid --reason 'the backtest says so'"))
@_settings_options
@click.option("--defaults", "from_defaults", is_flag=True, help="Settings that are not named become the defaults.")
@click.option("--reason", required=True, help="Why; shown in the history.")
@store_options
def set_(reason: str, from_defaults: bool, database: str | None, as_json: bool, **given: Any) -> None:
    """Change the settings; what is not named stays. The address must be that of easeml_owner.

    The next decision uses them. Trials under way go on; a task that names a policy keeps that one, with these settings.
    """
    from easeml_core.services.selection.policy import set_policy

    changes = {name: value for name, value in given.items() if value is not None}
    if "order" in changes:
        changes["order"] = _read_order(changes["order"])
    if "objective" in changes:
        changes["objective"] = _dial(changes["objective"])
    if not changes and not from_defaults:
        message = "nothing to change; name at least one option, see --help"
        raise click.UsageError(message)
    store = open_store(database, role=OWNER)
    _show_policy(set_policy(store, changes=changes, reason=reason, from_defaults=from_defaults), as_json)


@policy.command(epilog=example("easeml policy history"))
@store_options
def history(database: str | None, as_json: bool) -> None:
    """List the latest changes, newest first."""
    from easeml_core.services.selection.policy import policy_history

    found = policy_history(open_store(database))
    if as_json:
        show_json(found)
        return
    entries = [
        row_of(entry)
        | {"settings": _differences(entry.config), "when": _minute(entry.created_at), "tested": _tested(entry)}
        for entry in found
    ]
    columns = {"When": "when", "By": "created_by", "Policy": "policy", "Settings": "settings"}
    show_table("Changes of the settings", columns | {"Backtest": "tested", "Reason": "reason"}, entries)


def _dial(text: str) -> float:
    """Return the objective as a number; ``SelectionConfig`` checks its range."""
    try:
        return OBJECTIVES[text] if text in OBJECTIVES else float(text)
    except ValueError:
        message = f"--objective must be mean, maxmin or a number in [0, 1]; got {text!r}"
        raise InvalidInputError(message) from None


def _read_order(path: Path) -> tuple[str, ...]:
    """Return the candidates that a file names, one a line."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        message = f"--order: {path} cannot be read as text: {reason_of(error)}; name candidates in order, one a line"
        raise InvalidInputError(message) from error
    names = tuple(line for line in lines if line)
    if not names or len(set(names)) < len(names):
        message = f"--order: {path} must name candidates in order, one a line, at least one, each once"
        raise InvalidInputError(message)
    return names


def _differences(config: JsonObject) -> str:
    """Return the settings that are not the defaults."""
    own = SelectionConfig().to_json() | {"order": []}
    return ", ".join(f"{k}={_text(v)}" for k, v in config.items() if k != "policy" and v != own[k])


def _text(value: Any) -> str:
    """Format a setting; a price of 1e-7 is not 0."""
    if isinstance(value, list):
        return counted(len(value), "candidate") if value else "-"
    return "-" if value is None else str(value)


def _tested(entry: PolicyReport) -> str:
    return f"{entry.report['tenants']} tenants" if entry.report else ""


def _minute(at: datetime | None) -> str:
    """Format a time to the minute; the database answers in UTC."""
    return "" if at is None else f"{at:%Y-%m-%dT%H:%M}"


def _show_policy(found: PolicyReport, as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    own = SelectionConfig().to_json() | {"order": []}
    for name, value in found.config.items():
        mark = "" if value == own[name] else f"   (default: {_text(own[name])})"
        click.echo(f"{name:>20}  {_text(value)}{mark}")
    if found.id is None:
        click.echo("\nThe default settings: none were set here.")
    else:
        click.echo(f"\n{found.reason}\n({found.created_by}, {_minute(found.created_at)} UTC, change {found.id})")


@typed_record
class DecidedRequests:
    """The answer of ``easeml scheduler --once``: the number of requests that were decided."""

    decided: int


@click.command(epilog=example("easeml scheduler", "easeml scheduler --once --json"))
@click.option("--once", is_flag=True, help="Decide the requests there are, then stop.")
@click.option("--policy", help="How to choose, as in `easeml policy set`; default: the installation's policy.")
@click.option("--poll", default=10.0, show_default=True, help="Seconds between two looks when nothing is notified.")
@process_options("writes that it lives")
@store_options
def scheduler(
    once: bool,
    policy: str | None,
    poll: float,
    health_port: int | None,
    metrics_port: int | None,
    log_format: str,
    database: str | None,
    as_json: bool,
) -> None:
    """Decide which trials run next, for tasks and devices whose role may not.

    An installation of one team needs no such process: its role easeml_worker suggests by itself. The address is that of
    the role easeml_scheduler; give it to no component of Airflow.
    """
    from easeml_core.services.operations.monitoring import answering, exporting, health_of, metrics_of
    from easeml_core.services.selection.scheduler_process import SchedulerProcess, require_scheduler
    from easeml_core.services.telemetry import start_log

    start_log(as_json=log_format == "json")
    store = open_store(database, role="easeml_scheduler", lock_timeout_seconds=60)
    process = SchedulerProcess(store, policy=policy, poll_seconds=poll)
    if once:
        require_scheduler(store)
        decided = 0
        while found := process.decide_open():
            decided += found
        show_json(DecidedRequests(decided)) if as_json else click.echo(f"{counted(decided, 'request')} decided")
        return
    stop = asked_to_end()
    require_scheduler(store)
    with (
        exporting("easeml-scheduler", for_prometheus=metrics_port is not None) as metrics,
        answering("health-port", health_port, health_of(lambda: process.is_alive)),
        answering("metrics-port", metrics_port, metrics_of(metrics)),
    ):
        process.run(stop)
