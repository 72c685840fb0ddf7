"""The overview as frozen values, made from ``services.reports.overview.board``: what is shown, and in which order.

What needs a person, on the overview: a line each while there are few, else one line for all of a kind.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from easeml_airflow.web.components.action_items import Need, forced_steps, need_of
from easeml_airflow.web.pages.overview.charts import scale_of, spark_of
from easeml_airflow.web.server.formats import gain_text, percent_text
from easeml_airflow.web.server.marks import STEPS, VERDICTS, Mark, mark_of
from easeml_airflow.web.server.site import path_of_study
from easeml_core.errors import counted
from easeml_core.services.reports.overview import MOST_DRAWN
from easeml_core.services.reports.recommendations import Severity, Standing, StepKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from easeml_airflow.web.components.charts import Plot
    from easeml_airflow.web.server.auth import Viewer
    from easeml_core.services.reports.next_steps import NextStep
    from easeml_core.services.reports.recommendations import Assessment
    from easeml_core.store.queries.overview import InstallationTotals


PAGE_SIZE = 50

SORTS = {
    "needs": "Needs a person first",
    "rise": "Largest rise in 24 h",
    "due": "Furthest below its due share",
    "quality": "Best quality first",
    "name": "Name",
}

LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Query:
    """One view of the table; it is in the address, so that it can be kept and passed on.

    Attributes:
        show: ``all``, or a standing.
        text: What a tenant or a study must hold.
        sort: A key of ``SORTS``.
        page: From 1.
        kind: Only studies that need a person for this, a ``StepKind``; empty for all.
    """

    show: str
    text: str = ""
    sort: str = "needs"
    page: int = 1
    kind: str = ""

    @classmethod
    def of(cls, asked: dict[str, str], *, shows: Collection[str], sorts: Collection[str], usual: str) -> Query:
        """From an address; what is none of the allowed values is taken for the usual one."""
        show, sort, page = asked["show"], asked["sort"], asked["page"]
        return cls(
            show if show in shows else usual,
            asked["q"].strip()[:LONGEST_TEXT],
            sort if sort in sorts else "needs",
            max(1, int(page[:9])) if page.isascii() and page.isdigit() else 1,
            asked["kind"] if asked["kind"] in list(StepKind) else "",
        )

    def link(self, **changes: Any) -> str:
        """The address of another view; another choice begins at its first page.

        Example:
            >>> Query("all", "x-ray").link(page=2), Query("all", page=3).link(show="needs")
            ('?show=all&q=x-ray&sort=needs&page=2', '?show=needs&sort=needs')
        """
        other = replace(self, **{"page": 1} | changes)
        query = {"show": other.show, "kind": other.kind, "q": other.text, "sort": other.sort}
        query["page"] = str(other.page) if other.page > 1 else ""
        return "?" + urlencode({name: value for name, value in query.items() if value})


@dataclass(frozen=True, slots=True)
class Row:
    """One study, as one line of the table; texts are empty where there is nothing."""

    tenant: str
    study: str
    path: str
    mark: Mark
    quality: str
    metric: str
    rise: str
    has_risen: bool
    spark: Plot | None
    running: int
    waiting: int
    failed: int
    share: str
    due: str
    share_bar: float
    due_bar: float
    verdict: Mark | None
    signal: int | None
    signals: int
    second: str
    teams: int
    hot: bool


def chosen(entries: Sequence[Assessment], query: Query, totals: InstallationTotals) -> list[Assessment]:
    """Those that the filter and the search let through, in the order asked for."""
    wanted = query.text.casefold()
    found = [
        e
        for e in entries
        if (query.show == "all" or e.standing == query.show)
        and (not query.kind or any(s.kind == query.kind and s.needs_a_person for s in e.steps))
        and (wanted in e.facts.tenant.casefold() or wanted in e.facts.study.casefold())
    ]
    orders: dict[str, Callable[[Assessment], float]] = {
        "needs": _urgency,
        "rise": lambda e: -(e.rise or 0.0),
        "due": lambda e: e.used_share(totals) - e.due_share(totals),
        "quality": lambda e: -(e.facts.best_quality or 0.0),
        "name": lambda e: 0,
    }
    return sorted(found, key=lambda e: (orders[query.sort](e), e.facts.tenant, e.facts.study))


def _urgency(entry: Assessment) -> int:
    """Place of its worst step."""
    step = entry.steps[0]
    return list(StepKind).index(step.kind) if step.needs_a_person else len(StepKind)


MOST_COMPARED, LONGEST_COMPARED = 500, 40
"""Names and characters that are compared with what was looked for: each pair of names takes up to a millisecond."""


def nearest(entries: Sequence[Assessment], text: str) -> str:
    """A name that is nearly what was looked for; empty where none is. Of very many those with the same first letter."""
    wanted = text.casefold()[:LONGEST_COMPARED]
    names = {name.casefold(): name for e in entries for name in (e.facts.study, e.facts.tenant)}
    likely = list(names) if len(names) <= MOST_COMPARED else [name for name in names if name[0] == wanted[:1]]
    found = difflib.get_close_matches(wanted, likely[:MOST_COMPARED], n=1, cutoff=0.5)
    return names[found[0]] if found else ""


def rows_of(
    entries: Sequence[Assessment],
    totals: InstallationTotals,
    improvements: Mapping[str, Sequence[tuple[datetime, float]]],
) -> list[Row]:
    """The rows of the table, with small charts that share both scales."""
    most = 1.15 * max([*(e.used_share(totals) for e in entries), *(e.due_share(totals) for e in entries), 1e-9])
    drawn = {e.facts.study: improvements[e.facts.study] for e in entries if e.facts.study in improvements}
    scale = scale_of(entries, drawn)
    return [_row(e, totals, most, scale and spark_of(e, drawn.get(e.facts.study, ()), *scale)) for e in entries]


def _row(entry: Assessment, totals: InstallationTotals, most: float, spark: Plot | None) -> Row:
    used, due, rise = entry.used_share(totals), entry.due_share(totals), entry.rise
    hot = entry.standing is Standing.NEEDS
    return Row(
        tenant=entry.facts.tenant,
        study=entry.facts.study,
        path=path_of_study(entry.facts.study),
        mark=mark_of(entry.steps, entry.standing),
        quality="" if entry.facts.best_quality is None else f"{entry.facts.best_quality:.4f}",
        metric=entry.facts.metric.replace("_", " "),
        rise=_rise_text(entry, rise),
        has_risen=rise is not None and rise > 0,
        spark=spark,
        running=entry.facts.running,
        waiting=entry.facts.waiting,
        failed=entry.facts.failed,
        share=percent_text(used),
        due=percent_text(due),
        share_bar=round(100 * used / most, 2),
        due_bar=round(100 * due / most, 2),
        verdict=_verdict(entry),
        signal=entry.facts.signal,
        signals=entry.facts.signals or 0,
        second=f"second sample {entry.facts.direct_signal}, drift {entry.facts.drift}" if entry.facts.drift else "",
        teams=entry.facts.teams or 1,
        hot=hot,
    )


def _rise_text(entry: Assessment, rise: float | None) -> str:
    if entry.facts.best_quality is None:
        return ""
    if rise is None:
        return "new in 24 h"
    return "unchanged 24 h" if abs(rise) < 5e-5 else f"{gain_text(rise)} in 24 h"


def _verdict(entry: Assessment) -> Mark | None:
    """The last symbol; where the gate cannot answer, why."""
    kinds = {step.kind for step in entry.steps}
    if StepKind.LABELS in kinds:
        return Mark("idle", "wait", "Labels")
    if entry.facts.judging_at is not None:
        return Mark("idle", "wait", "Waits")
    if StepKind.NO_SET in kinds and not entry.facts.gate_set_live:
        return Mark("idle", "wait", "No set")
    return None if entry.facts.verdict is None else Mark(*VERDICTS[entry.facts.verdict])


# -- words ------------------------------------------------------------------------------------------------------------


def now_words(entries: Sequence[Assessment]) -> tuple[str, str]:
    """What is going on, in one sentence: first the part in bold, then the rest."""
    running = sum(e.facts.running - e.facts.lost for e in entries)  # a device that fell silent trains nothing
    tenants = counted(len({e.facts.tenant for e in entries}), "tenant")
    first = f"{counted(running, 'device is', 'devices are')} training for {tenants}."
    if not running:
        first = f"No trial is training now; {tenants} registered."
    risen = sum(1 for e in entries if (e.rise or 0) > 0 or (e.rise is None and e.facts.best_quality is not None))
    waiting = sum(e.standing is Standing.NEEDS for e in entries)
    wait = (
        f"{counted(waiting, 'study waits', 'studies wait')} for a person" if waiting else "nothing waits for a person"
    )
    return first, f"Best quality rose in {counted(risen, 'study', 'studies')} since yesterday; {wait}."


def is_large(entries: Sequence[Assessment]) -> bool:
    """Whether there are too many for small charts."""
    return len(entries) > MOST_DRAWN


MOST_LINES = 6
"""So many lines are shown one by one; a link shows all of them."""

FEW = 2
"""So many of a kind have a line each among very many others."""

NAMED = 5


def with_forced(steps: Sequence[NextStep], viewer: Viewer) -> list[NextStep]:
    """The steps, and for a referee the forced promotions that wait in Airflow: after the worst, before all else."""
    return sorted((*forced_steps(viewer), *steps), key=lambda step: step.severity != Severity.BAD)


def lines_of(steps: Sequence[NextStep], viewer: Viewer, *, is_whole: bool = False) -> list[Need]:
    """The lines, worst first.

    Args:
        steps: As of ``services.reports.next_steps``, worst first.
        viewer: Who looks.
        is_whole: Whether each has a line, however many there are.
    """
    if is_whole or len(steps) <= MOST_LINES:
        return [need_of(step, viewer) for step in steps]
    lines = []
    for of_kind in _by_kind(steps).values():
        lines += [need_of(s, viewer) for s in of_kind] if len(of_kind) <= FEW else [_together(of_kind, viewer)]
    return lines


def kinds_of(steps: Sequence[NextStep]) -> list[tuple[str, str, str, int]]:
    """How many studies need what, worst first: kind, its word, its colour and the number."""
    return [
        (str(kind), STEPS[kind][1], _colour(of_kind), len({s.study for s in of_kind}))
        for kind, of_kind in _by_kind(steps).items()
    ]


def _by_kind(steps: Sequence[NextStep]) -> dict[StepKind, list[NextStep]]:
    found: dict[StepKind, list[NextStep]] = {}
    for step in steps:
        found.setdefault(step.kind, []).append(step)
    return found


def _together(steps: Sequence[NextStep], viewer: Viewer) -> Need:
    """One line for many of a kind, which leads to them; it is as old as the oldest."""
    kind = steps[0].kind
    times = [step.since for step in steps if step.since is not None]
    first = need_of(replace(steps[0], since=min(times, default=None)), viewer)
    titles = {step.title for step in steps}
    names = list(dict.fromkeys(step.study for step in steps if step.study))
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


def _colour(steps: Sequence[NextStep]) -> str:
    return "bad" if any(step.severity == Severity.BAD for step in steps) else "warn"
