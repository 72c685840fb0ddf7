"""How ``easeml simulate`` shows its progress and its figures."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.output import show_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@contextlib.contextmanager
def progress(what: str = "repeats") -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while repeats, or whatever it is, are done; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def show_report(answer: Mapping[str, Any]) -> None:
    """The report as tables for people; ``answer`` is its JSON."""
    protocol, policies = answer["protocol"], answer["policies"]
    devices = "1 device" if protocol["devices"] == 1 else f"{protocol['devices']} devices"
    click.echo(
        f"{protocol['repeats']} repeats, {protocol['served']} of {protocol['tenants']} tenants served, "
        f"{protocol['candidates']} candidates, {devices}, costs {protocol['cost_mode']}\n"
    )
    if "curve" in answer:
        _show_curve(answer["curve"])
    else:
        _show_policies(policies)


def _show_policies(policies: Mapping[str, Any]) -> None:
    """Prices of losses, then how the tenants fared."""
    losses = next(iter(policies.values()))["percent_to_loss"]
    show_table(
        "Percent of the cost to an average loss of ...: median (10th to 90th percentile)",
        {"Policy": "policy", **{loss: loss for loss in losses}, "Worst": "worst"},
        [_prices(name, figures) for name, figures in policies.items()],
    )
    if any(n["reached"] < 1 for figures in policies.values() for n in figures["percent_to_loss"].values()):
        click.echo("[share of the repeats that got there; the others count as 100]")
    click.echo("Worst: largest loss of a repeat when 10 % are spent.\n")
    show_table(
        "Fairness",
        {"Policy": "policy", "Regret": "total", "Worst": "worst", "First %": "first", "Least": "least", "us": "us"},
        [_fairness(name, figures) for name, figures in policies.items()],
    )
    click.echo(
        "Regret: loss x cost, of all tenants; Worst: of the worst-off one. First %: cost at which the last tenant of\n"
        "all repeats got its first model. Least: compute of the least-served tenant over its due when 10 % are spent.\n"
        "us: microseconds of a decision. Medians over the repeats, but for First %."
    )


def _prices(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What losses cost under one policy."""
    prices = {loss: _price(needed) for loss, needed in figures["percent_to_loss"].items()}
    return {"policy": name, **prices, "worst": figures["worst_loss"]["10"]}


def _fairness(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """How the tenants fared under one policy."""
    share = figures["compute_share"]["10"]
    return {
        "policy": name,
        "total": _three(figures["regret"]["total"]),
        "worst": _three(figures["regret"]["worst_tenant"]),
        "first": _three(figures["first_model_percent"]["worst"]),
        "least": None if share is None else f"{share['least']:.2f}",
        "us": f"{figures['decision_microseconds']:.0f}",
    }


def _price(needed: Mapping[str, float]) -> str:
    """Median and range of a price, and how many repeats paid it where not all did."""
    text = f"{_three(needed['median'])} ({needed['p10']:.2g}-{needed['p90']:.2g})"
    return text if needed["reached"] == 1 else f"{text} [{100 * needed['reached']:.0f} %]"


def _three(value: float) -> str:
    """Three figures, without an exponent where that can be read.

    Example:
        >>> [_three(value) for value in (0.02634, 2.5, 12345.6, 1.5e9)]
        ['0.0263', '2.5', '12,346', '1.5e+09']
    """
    return f"{value:,.0f}" if 100 <= value < 1e8 else f"{value:.3g}"


def _show_curve(curve: Mapping[str, Any]) -> None:
    """Efficiency against fairness."""
    losses = curve["points"][0]["percent_to_loss"]
    columns = {"Policy": "policy", "Value": "value", **{f"to {loss}": loss for loss in losses}}
    columns |= {"Regret": "total", "Worst": "worst", "p10": "p10", "First %": "first"}
    entries = [
        {
            "policy": point["policy"],
            "value": None if point["value"] is None else f"{point['value']:g}",
            **{loss: _three(needed) for loss, needed in point["percent_to_loss"].items()},
            "total": _three(point["total_regret"]),
            "worst": _three(point["worst_tenant_regret"]),
            "p10": _three(point["p10_tenant_regret"]),
            "first": _three(point["first_model_worst_percent"]),
        }
        for point in curve["points"]
    ]
    show_table(f"Efficiency against fairness over the {curve['knob']}, medians over the repeats", columns, entries)
    click.echo(
        "to LOSS: percent of the cost. Regret: loss x cost, of all tenants; Worst: of the worst-off one; p10: a tenth\n"
        "of the tenants fare worse. First %: cost at which the last tenant of all repeats got its first model."
    )
