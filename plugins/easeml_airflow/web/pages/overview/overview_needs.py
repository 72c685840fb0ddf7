"""What needs a person, on the overview: a line each while there are few, else one line for all of a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from easeml_airflow.web.components.action_items import Need, forced_steps, need_of
from easeml_airflow.web.server.marks import STEPS
from easeml_core.errors import counted
from easeml_core.services.reports.recommendations import Severity, StepKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_airflow.web.server.auth import Viewer

    Steps = Sequence[Mapping[str, Any]]

MOST_LINES = 6
"""So many lines are shown one by one; a link shows all of them."""

FEW = 2
"""So many of a kind have a line each among very many others."""

NAMED = 5


def with_forced(steps: Steps, viewer: Viewer) -> list[Mapping[str, Any]]:
    """The steps, and for a referee the forced promotions that wait in Airflow: after the worst, before all else."""
    return sorted((*forced_steps(viewer), *steps), key=lambda step: step["severity"] != Severity.BAD)


def lines_of(steps: Steps, viewer: Viewer, *, is_whole: bool = False) -> list[Need]:
    """The lines, worst first.

    Args:
        steps: As of ``services.next_steps``, worst first.
        viewer: Who looks.
        is_whole: Whether each has a line of its own, however many there are.
    """
    if is_whole or len(steps) <= MOST_LINES:
        return [need_of(step, viewer) for step in steps]
    lines = []
    for of_kind in _by_kind(steps).values():
        lines += [need_of(s, viewer) for s in of_kind] if len(of_kind) <= FEW else [_together(of_kind, viewer)]
    return lines


def kinds_of(steps: Steps) -> list[tuple[str, str, str, int]]:
    """How many studies need what, worst first: kind, its word, its colour and the number."""
    return [
        (str(kind), STEPS[kind][1], _colour(of_kind), len({s["study"] for s in of_kind}))
        for kind, of_kind in _by_kind(steps).items()
    ]


def _by_kind(steps: Steps) -> dict[StepKind, list[Mapping[str, Any]]]:
    found: dict[StepKind, list[Mapping[str, Any]]] = {}
    for step in steps:
        found.setdefault(StepKind(step["kind"]), []).append(step)
    return found


def _together(steps: Steps, viewer: Viewer) -> Need:
    """One line for many of a kind, which leads to them; it is as old as the oldest."""
    kind = StepKind(steps[0]["kind"])
    times = [step["since"] for step in steps if step["since"] is not None]
    first = need_of({**steps[0], "since": min(times, default=None)}, viewer)
    titles = {step["title"] for step in steps}
    names = list(dict.fromkeys(step["study"] for step in steps if step["study"]))
    title = titles.pop() if len(titles) == 1 else STEPS[kind][1].lower()
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return Need(
        title=f"{counted(len(names), 'study', 'studies')}: {title}",
        why=", ".join(names[:NAMED]) + more,
        colour=_colour(steps),
        shape=first.shape,
        age=first.age,
        href="/?" + urlencode({"show": "needs", "kind": kind}),
        act="Show them",
    )


def _colour(steps: Steps) -> str:
    return "bad" if any(step["severity"] == Severity.BAD for step in steps) else "warn"
