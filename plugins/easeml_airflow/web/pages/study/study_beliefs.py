"""What would run next of a study, and why, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.server.formats import chance_text, expected_text, number_text, seconds_text, unit_of
from easeml_airflow.web.server.marks import Mark
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.services.selection.beliefs import Beliefs, Expected

TIMES = "\N{MULTIPLICATION SIGN}"

WHY = {
    "acquisition": "adds the most per device-second of everything that any study could run.",
    "guard": "is next: the study was served least, and is owed a trial.",
    "learning": "is next: it is the cheapest trial there is, and teaches what the others may bring.",
}


@dataclass(frozen=True, slots=True)
class NextTrial:
    """What would run next of the study, in words.

    Attributes:
        candidate: Its name.
        state: Whether it is the next of all, or waits for its turn.
        why: The rest of the sentence that begins with its name.
        pairs: Label, number and whether the number matters most.
        cost: Predicted device time; None where nothing was ever measured.
        gain: Expected gain, with its sign.
        price: Whether the search is worth it, and where it stands in the queue.
    """

    candidate: str
    state: Mark
    why: str
    pairs: Sequence[tuple[str, str, bool]]
    cost: str | None
    gain: str
    price: str


def next_trial_of(believed: Beliefs | None, study: Any) -> NextTrial | None:
    """What would run next, or None."""
    chosen = believed.next if believed else None
    if believed is None or chosen is None:
        return None
    first = believed.best <= 0
    cost = seconds_text(chosen.predicted_cost_seconds) if believed.costs_known else None
    gain = f"an expected {study.metric} of {chosen.mean:.4f}" if first else expected_text(chosen.expected_improvement)
    return NextTrial(
        candidate=chosen.candidate,
        state=Mark("busy", "queue", "Next of all") if believed.chosen_by else Mark("idle", "wait", "Waits its turn"),
        why=_why(believed),
        pairs=_pairs(believed, chosen, cost),
        cost=cost,
        gain=gain,
        price=f"{_price_text(believed, chosen)} {_place(believed)}".strip(),
    )


def _why(believed: Beliefs) -> str:
    if believed.chosen_by == "acquisition" and believed.policy != "default":
        return f"is what the policy {believed.policy} would run first."
    if believed.chosen_by == "acquisition" and not (believed.cost_aware and believed.costs_known):
        return "promises most of everything that any study could run."
    return WHY.get(believed.chosen_by or "", "is what the study would run in its turn.")


def _pairs(believed: Beliefs, chosen: Expected, cost: str | None) -> list[tuple[str, str, bool]]:
    size, per = unit_of(chosen.predicted_cost_seconds)
    pairs = [
        ("Expected quality, 80 %", f"{chosen.low:.4f} to {chosen.high:.4f}", False),
        ("Chance to beat the best", chance_text(chosen.chance) if believed.best > 0 else "no result yet", False),
        ("Expected gain", expected_text(chosen.expected_improvement), False),
        ("Predicted cost", cost or "nothing measured yet", False),
    ]
    if cost and believed.policy == "default":
        worth = number_text((size if believed.cost_aware else 1.0) * (chosen.acquisition or 0.0))
        gain = f"Gain per {per}" if believed.cost_aware else "Gain"
        pairs.append((f"{gain} {TIMES} weight {believed.weight:g}", worth, True))
        price = number_text(size * believed.price_per_second) if believed.price_per_second else "none set"
        pairs.append((f"Price of a {per}, in gain without weight", price, False))
    elif believed.policy != "default":
        pairs.append((f"Worth to the policy {believed.policy}", number_text(chosen.acquisition or 0.0), True))
    return pairs


def _price_text(believed: Beliefs, chosen: Expected) -> str:
    if believed.policy != "default":
        return ""
    if not believed.price_per_second:
        return "Compute has no price here, so the search goes on while anything may gain."
    times = chosen.expected_improvement / (believed.price_per_second * chosen.predicted_cost_seconds)
    if times < 1:
        return "With what it brings to studies that share it, it is worth the price, so the search goes on."
    return f"Without weight its gain is {times:.1f} times the price, so the search goes on."


def _place(believed: Beliefs) -> str:
    rivals, among = counted(believed.competing, "candidate"), counted(believed.studies, "study", "studies")
    over = f"of {rivals} of {among} that could run now"
    if believed.chosen_by:
        return f"It is the first {over}."
    if believed.position is None:
        return "The policy chooses whose turn it is before it looks at candidates."
    return f"By its worth it is number {believed.position:,} {over}."
