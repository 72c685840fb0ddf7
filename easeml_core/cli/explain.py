"""``easeml explain``: why a trial was suggested, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import cell, example, json_option, plain, show_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHOSEN = {
    "acquisition": "it was worth most to the policy",
    "guard": "the guard: its study was served least and was owed a trial",
    "learning": "the learning share: the cheapest trial, while there was hardly any past to learn from",
    "left over": "it was there already: nobody had started it, or its worker was lost",
}


@click.command(epilog=example("easeml explain 12"))
@click.argument("trial_id", type=int)
@database_option
@json_option
def explain(trial_id: int, database: str | None, as_json: bool) -> None:
    """Explain a trial: what was expected of it, what it was preferred to, and what came of it."""
    from easeml_core.services.reports.decision import explain_trial

    found = explain_trial(open_store(database), trial_id=trial_id)
    if as_json:
        show_json(found)
    else:
        _show(found)


def _show(found: Mapping[str, Any]) -> None:
    click.echo(plain(f"{found['sentence']}."))
    for batch in found["batches"]:
        own = "the program's own settings" if batch["settings_id"] is None else f"settings {batch['settings_id']}"
        place = f"{batch['position'] + 1} of {batch['requested']} asked for"
        click.echo(f"\nSuggested {batch['suggested_at'][:19]} UTC in batch {batch['batch_id']}, {place}")
        _line("policy", f"{batch['policy']}, {own}")
        _line("chosen by", _CHOSEN[batch["chosen_by"]])
        if batch["chosen_by"] != "left over":
            _show_figures(batch)
    _show_outcome(found["outcome"])


def _show_figures(batch: Mapping[str, Any]) -> None:
    _line("expected quality", f"{batch['mean']:.4f} +/- {batch['std']:.4f} (std)")
    interval = batch["predicted_cost_interval_seconds"]
    within = f", with 80 % between {interval[0]:.3g} and {interval[1]:.3g} s" if interval else ""
    _line("predicted cost", f"{batch['predicted_cost_seconds']:.3g} s{within}")
    _line("expected gain", f"{batch['expected_improvement']:.4f} over the best, {batch['best']:.4f}")
    _line("acquisition", f"{batch['acquisition']:.4g}")
    rival = batch["runner_up"]
    if rival is None:
        _line("runner-up", "nothing else was left")
    else:
        names = f"{rival['study']}/{rival['candidate']}" if "candidate" in rival else f"study id {rival['study_id']}"
        _line("runner-up", f"{names}, {rival['acquisition']:.4g}")
    _line("guard's share", f"{batch['guard'] or 0:.0%}")


def _show_outcome(outcome: Mapping[str, Any]) -> None:
    click.echo("\nOutcome")
    for name in ("state", "device", "quality", "cost_seconds", "best_before", "improvement"):
        _line(name.replace("_", " "), cell(outcome[name]))
    if outcome["surprise"] is not None:
        _line("surprise", f"{outcome['surprise']:+.2f} std")
    if outcome["cost_ratio"] is not None:
        _line("cost / predicted", f"{outcome['cost_ratio']:.2f}")
    if outcome["failure"]:
        _line("failure", outcome["failure"].partition("\n")[0])


def _line(name: str, text: str) -> None:
    click.echo(f"{name:>18}  {plain(text)}")
