"""``easeml bench``: how fast this machine decides."""

from __future__ import annotations

from typing import Any

import click

from easeml_core.cli.output import example, json_option, show_json


@click.group(epilog=example("easeml bench select --tenants 100"))
def bench() -> None:
    """Measure speed on made-up installations."""


@bench.command(epilog=example("easeml bench select --tenants 100 --candidates 50 --decisions 500"))
@click.option("--tenants", default=1000, show_default=True, help="Active studies, one of each tenant.")
@click.option("--candidates", default=179, show_default=True, help="Candidates of each study.")
@click.option("--observations", default=20, show_default=True, help="Finished trials of each study.")
@click.option("--policy", default="default", show_default=True, help="How the next trial is chosen.")
@click.option("--decisions", default=3000, show_default=True, help="Decisions in memory that are timed.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
# Not from the environment: that names the installation, on which nothing is measured.
@click.option("--database", metavar="URL", help="An empty database, as easeml_owner; default: a temporary server.")
@json_option
def select(as_json: bool, **settings: Any) -> None:
    """Time decisions: in memory, against refitting all models, and committed to PostgreSQL."""
    from easeml_core.services.bench import bench_select

    report = bench_select(**settings)
    if as_json:
        show_json(report)
    else:
        _show(report)


def _show(report: dict[str, Any]) -> None:
    memory, committed = report["decision_microseconds"], report["committed_decision_milliseconds"]
    protocol = report["protocol"]
    refitted = f"extrapolated from {protocol['refitted_tenants']} tenants"
    for label, value in (
        ("decision in memory", f"{memory['median']:,.1f} us (95 %: {memory['p95']:,.1f} us)"),
        ("refit of all by scikit-learn", f"{report['refit_all_seconds']:,.1f} s, {refitted}"),
        ("times as long", f"{report['ratio']:,.0f}"),
        ("cold start to a decision", f"{report['cold_start_seconds']:,.2f} s"),
        ("committed decision", f"{committed['median']:,.2f} ms (95 %: {committed['p95']:,.2f} ms)"),
    ):
        click.echo(f"{label:>28}  {value}")
    click.echo(f"{'database':>28}  {protocol['database']}")
