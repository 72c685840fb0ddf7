"""``easeml policy``, ``backtest`` and ``costs``: the scheduler's settings, replays, and cost predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import example, json_option, plot_option, progress, show_json, show_table, write_plot
from easeml_core.config import COST_MODES, POLICIES, SelectionConfig
from easeml_core.encoding import row_of
from easeml_core.errors import InvalidInputError, counted, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from easeml_core.entities import JsonObject
    from easeml_core.selection.costs.report import CostReport
    from easeml_core.selection.simulate.backtest import CostToLoss, PolicyFigures
    from easeml_core.selection.simulate.calibration import CalibrationReport
    from easeml_core.services.selection.backtest import Backtest, BacktestAnswer
    from easeml_core.services.selection.policy import PolicyReport


OBJECTIVES = {"mean": 0.0, "maxmin": 1.0}
HELP = {
    "policy": f"One of {', '.join(POLICIES)}.",
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
@database_option
@json_option
def show(database: str | None, as_json: bool) -> None:
    """Show the settings that hold now, and why they were chosen."""
    from easeml_core.services.selection.policy import show_policy

    _show_policy(show_policy(open_store(database)), as_json)


@policy.command("set", epilog=example("easeml policy set --policy hybrid --reason 'the backtest says so'"))
@_settings_options
@click.option("--defaults", "from_defaults", is_flag=True, help="Settings that are not named become the defaults.")
@click.option("--reason", required=True, help="Why; shown in the history.")
@database_option
@json_option
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
    store = open_store(database, role="easeml_owner")
    _show_policy(set_policy(store, changes=changes, reason=reason, from_defaults=from_defaults), as_json)


@policy.command(epilog=example("easeml policy history"))
@database_option
@json_option
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


FILE = click.Path(path_type=Path)


@click.command(
    epilog=example(
        "easeml backtest --repeats 20", "easeml backtest --quality quality.csv --cost cost.csv --plot backtest.png"
    )
)
@click.option("--served", type=int, help="Tenants served in each draw. Default: a third of them, at most 10.")
@click.option("--repeats", type=int, default=30, show_default=True, help="Draws of tenants.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed and same past, same answer.")
@click.option("--apply", is_flag=True, help="Follow the winner from now on; the address must be that of easeml_owner.")
@click.option("--quality", type=FILE, metavar="FILE", help="Judge a CSV of tenants x candidates, not the database.")
@click.option("--cost", type=FILE, metavar="FILE", help="CSV of the same shape: costs > 0. Without it all are 1.")
@click.option(
    "--cost-mode",
    type=click.Choice(COST_MODES),
    help="What policies know of the costs of a file; the installation's are predicted, as they are live.",
)
@plot_option
@click.option("--processes", type=click.IntRange(min=1), help="Default: one for each core.")
@database_option
@json_option
def backtest(as_json: bool, plot: Path | None, database: str | None, **options: Any) -> None:
    """Replay the past under several policies, show what each would have saved, and which one to follow.

    Each study is a tenant. In each draw some are served, the others are history. `default` stays unless another policy
    needs less compute by more than the standard error of the difference, or there is too little history.
    """
    from easeml_core.selection.simulate.plot import draw_losses

    asked = _Asked(**options)
    _check(asked)
    found = _run(asked, database)
    if plot is not None and found.simulation is not None:
        write_plot(draw_losses(found.simulation), plot)
    if as_json:
        show_json(found.answer)
    else:
        _show_backtest(found.answer)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options of a backtest without those of its output."""

    served: int | None
    repeats: int
    seed: int
    apply: bool
    quality: Path | None
    cost: Path | None
    cost_mode: str | None
    processes: int | None


def _check(options: _Asked) -> None:
    """Check that the options fit together, before the long work."""
    if options.quality is None and (options.cost is not None or options.cost_mode is not None):
        message = "--cost and --cost-mode go with --quality FILE; the installation's own costs are in its database"
        raise InvalidInputError(message)
    if options.quality is not None and options.apply:
        message = "--apply goes by the installation's own history; leave out --quality, or use `easeml policy set`"
        raise InvalidInputError(message)


def _run(options: _Asked, database: str | None) -> Backtest:
    from easeml_core.services.selection.backtest import Replay, backtest_installation, backtest_table

    with progress() as on_done:
        replay = Replay(options.served, options.repeats, options.seed, options.processes, on_done=on_done)
        if options.quality is not None:
            return backtest_table(options.quality, options.cost, replay, cost_mode=options.cost_mode)
        store = open_store(database, role="easeml_owner" if options.apply else "easeml_worker")
        return backtest_installation(store, replay, apply=options.apply)


def _show_backtest(answer: BacktestAnswer) -> None:
    """Print the answer for people."""
    results, tenants = counted(answer.results, "result"), counted(answer.tenants, "tenant")
    left_out = counted(answer.left_out, "tenant has", "tenants have")
    click.echo(f"{results} of {tenants} with {counted(answer.candidates, 'candidate')}; {left_out} too few results\n")
    if answer.enough:
        _show_policies(answer)
    click.echo(answer.message)
    if answer.applied is not None:
        click.echo(f"applied: change {answer.applied}, see `easeml policy show`")
    elif answer.winner != "default" and answer.source == "installation":
        click.echo("not applied; --apply follows the winner from now on")


def _show_policies(answer: BacktestAnswer) -> None:
    """Print what losses cost: as percentages, and in the unit of the past for the tenants of one draw."""
    assert answer.protocol is not None  # there is one where there are policies
    policies, served = answer.policies, answer.protocol.served
    losses = {loss: loss for loss in answer.policies["default"].to_loss}
    show_table(
        "Percent of the cost of everything to an average loss of ...: median (10th to 90th percentile)",
        {"Policy": "policy", **losses, "Against default": "ratio"},
        [
            {"policy": name, "ratio": _ratio(figures)} | {loss: _price(figures.to_loss[loss]) for loss in losses}
            for name, figures in policies.items()
        ],
    )
    unit = answer.cost_unit
    show_table(
        f"The same in {'device time' if unit == 'seconds' else unit}, for {served} tenants: median",
        {"Policy": "policy", **losses},
        [
            {"policy": name} | {loss: _amount(figures.to_loss[loss].cost, unit) for loss in losses}
            for name, figures in policies.items()
        ],
    )
    click.echo("Against default: how many times as much, and one standard error on either side.\n")
    if answer.calibration is not None:
        _show_calibration(answer.calibration)


def _show_calibration(report: CalibrationReport) -> None:
    """Print the calibration of the posterior of ``default``."""
    entries = [entry for entry in report.entries if entry.tenant_scale]
    if not entries:
        return
    columns = {"Own results": "own", "z std": "z_std", "In interval": "interval_coverage"}
    title = f"Calibration of default on tenants left out; intervals of {report.coverage:.0%}"
    show_table(title, columns | {"Improvement expected / seen": "improvement_ratio"}, entries)


def _price(needed: CostToLoss) -> str:
    return f"{needed.percent:.3g} ({_two(needed.p10)}-{_two(needed.p90)})"


def _two(percent: float) -> str:
    """Format two figures, without an exponent for a hundred."""
    return f"{percent:.2g}" if percent < 99.5 else f"{percent:.0f}"


def _ratio(figures: PolicyFigures) -> str:
    against = figures.against_default
    if against is None:
        return ""
    high = "?" if against.high is None else f"{against.high:.2f}"
    return f"x {against.ratio:.2f} ({against.low:.2f}-{high})"


def _amount(cost: float, unit: str) -> str:
    """Format a cost: hours or minutes for many seconds, plain figures otherwise.

    Example:
        >>> _amount(11520.0, "seconds"), _amount(14.0, "trials")
        ('3.2 h', '14')
    """
    if unit != "seconds":
        return f"{cost:,.4g}"
    for size, name in ((3600.0, "h"), (60.0, "min")):
        if cost >= size:
            return f"{cost / size:,.1f} {name}"
    return f"{cost:.2g} s"


_COLUMNS = {
    "Own trials": "own",
    "Half within x": "factor",
    "RMSE of ln": "rmse_log",
    "R2 of ln": "r2",
    "In interval": "interval_coverage",
    "Right order": "right_order",
}


@click.command(epilog=example("easeml costs --json"))
@click.option(
    "--history",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV of costs in seconds, tenants x candidates, instead of the database.",
)
@database_option
@json_option
def costs(history: Path | None, database: str | None, as_json: bool) -> None:
    """Report the error of predicted costs, for tenants that the model has not seen.

    Each tenant is predicted from the others alone, then after 1, 2 and 5 of its finished trials.
    """
    from easeml_core.services.selection.costs import report_cost_table, report_costs

    report = report_cost_table(history) if history else report_costs(open_store(database))
    if as_json:
        show_json(report)
    elif report.errors:
        _show_cost_report(report)
    else:
        click.echo(
            f"{counted(report.trials, 'measured trial')} of {counted(report.tenants, 'study', 'studies')}: too few, it "
            "takes two studies or more"
        )


def _show_cost_report(report: CostReport) -> None:
    counts = ", ".join(counted(getattr(report, f"{what}s"), what) for what in ("tenant", "candidate", "trial"))
    entries = [row_of(e) | {"factor": 10**e.median_absolute_log10} for e in report.errors]
    show_table(f"{counts}; intervals of {report.coverage:.0%}", _COLUMNS, entries)
