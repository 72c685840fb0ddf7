"""What competed with a trial: the runner-up, and all others where they could be worked out again.

Nobody reads the name of a study that they may not see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.formats import number_text, unit_of
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.entities import Study
    from easeml_core.services.hindsight import Hindsight

UNSEEN = "a study that you may not see"


@dataclass(frozen=True, slots=True)
class Rival:
    """The runner-up: its names where they may be seen, its worth, and the worth of what was chosen over it."""

    study: str
    candidate: str
    worth: str
    share: float
    is_better: bool


@dataclass(frozen=True, slots=True)
class Competitor:
    """A bar: whose candidate, which, its worth in words, its length in per cent, and what became of it."""

    study: str
    candidate: str
    worth: str
    length: float
    tag: str = ""


def is_priced(chosen: Mapping[str, Any]) -> bool:
    """Whether a cost was predicted; 1 stands for all while nothing was ever measured."""
    return bool(chosen["policy"] == "default" and chosen["predicted_cost_seconds"] != 1.0)


def is_rate(chosen: Mapping[str, Any]) -> bool:
    """Whether the policy's worth is a gain per second: not where costs are unknown, or told to have no part in it."""
    return is_priced(chosen) and bool(chosen["settings"]["cost_aware"])


def rival_of(chosen: Mapping[str, Any], sees: Callable[[str], bool]) -> Rival | None:
    """The runner-up; None where nothing else was left."""
    found = chosen["runner_up"]
    if not found:
        return None
    may = sees(str(found.get("study") or ""))
    worth, own = float(found["acquisition"]), float(chosen["acquisition"])
    share = 100 * worth / own if own > 0 else 100.0
    return Rival(
        study=str(found["study"]) if may else UNSEEN,
        candidate=str(found["candidate"]) if may else "",
        worth=worth_text(chosen, worth),
        share=share,
        is_better=worth > own,
    )


def bars_of(
    chosen: Mapping[str, Any], study: Study, candidate: str, again: Hindsight | None, sees: Callable[[str], bool]
) -> list[Competitor]:
    """The choice and the runner-up, among the best of all where they could be worked out again."""
    own, rival = (study.name, candidate), chosen["runner_up"]
    second = (rival["study"], rival["candidate"]) if rival and "study" in rival else None
    worths = {(c.study, c.candidate): c.worth for c in (again.ranking if again else ())}
    worths[own] = chosen["acquisition"]
    if second is not None:
        worths[second] = rival["acquisition"]
    most = max(max(worths.values()), 1e-300)
    tags = {second: "runner-up"} | {own: "chosen"}
    return [
        Competitor(
            study=name if sees(name) else UNSEEN,
            candidate=which if sees(name) else "",
            worth=worth_text(chosen, worth),
            length=round(100 * max(worth, 0.0) / most, 2),
            tag=tags.get((name, which), ""),
        )
        for (name, which), worth in sorted(worths.items(), key=lambda item: -item[1])
    ]


def bars_note(again: Hindsight | None, chosen: Mapping[str, Any] | None) -> str:
    """What the bars are, and of how many."""
    per = ""
    if chosen is not None and is_rate(chosen):
        per = f" per {unit_of(chosen['predicted_cost_seconds'])[1]}"
    what = f"Weighted gain{per}." if chosen is not None and chosen["policy"] == "default" else "Worth to the policy."
    if again is None:
        return f"{what} Only the runner-up is stored; the others cannot be worked out again exactly."
    over = counted(again.studies, "study", "studies")
    shown = "all" if again.competing <= len(again.ranking) else "the best"
    return f"{what} {counted(again.competing, 'candidate')} of {over} could have run; {shown} are shown."


def hybrid_of(again: Hindsight | None, study: Study, candidate: str, sees: Callable[[str], bool]) -> str:
    """What the published policy would have run; empty where that cannot be told."""
    if again is None or again.hybrid is None:
        return ""
    instead = again.hybrid
    if (instead.study, instead.candidate) == (study.name, candidate):
        return "the same trial"
    return f"{instead.study} {instead.candidate}" if sees(instead.study) else UNSEEN


def worth_text(chosen: Mapping[str, Any], acquisition: float) -> str:
    """In the unit of the formula, where the policy's worth is a rate."""
    if not is_rate(chosen):
        return number_text(acquisition)
    return number_text(unit_of(chosen["predicted_cost_seconds"])[0] * acquisition)
