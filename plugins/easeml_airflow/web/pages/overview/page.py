"""The overview: needs, and shares of the compute. Operators and referees see all studies, other viewers their own.

A request selects studies, an order, and a page.

What needs a person has a line each while there are few, else one line for all of a kind.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request

from easeml_airflow.web.components.action_items import Need, forced_steps, need_of, remember, visible
from easeml_airflow.web.pages.overview import charts
from easeml_airflow.web.pages.overview.charts import map_of, scale_of, spark_of
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.formats import STEPS, VERDICTS, Mark, age_text, gain_text, mark_of, percent_text
from easeml_airflow.web.server.site import Tab, path_of_study
from easeml_core.errors import counted
from easeml_core.services.reports.overview import FEW, MOST_DRAWN, MOST_LINES, MOST_LISTED, Asked, board
from easeml_core.services.reports.recommendations import Severity, Standing, StepKind
from easeml_core.services.studies.archive import archived_studies
from easeml_core.store.queries.assessments import KindOfNeed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fastapi.responses import HTMLResponse

    from easeml_airflow.web.components.charts import Plot
    from easeml_airflow.web.pages.overview.charts import Figures, StudyMap
    from easeml_airflow.web.server.site import Site
    from easeml_core.services.reports.next_steps import NextStep
    from easeml_core.services.reports.overview import Board
    from easeml_core.services.reports.recommendations import Assessment
    from easeml_core.store.queries.assessments import Crowd
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


LONGEST_COMPARED = 40
"""Characters of a name that are compared with what was looked for."""


def nearest(likely: Sequence[str], text: str) -> str:
    """Return the one of these names that is nearly what was looked for; empty where none is."""
    names = {name.casefold(): name for name in likely}
    found = difflib.get_close_matches(text.casefold()[:LONGEST_COMPARED], list(names), n=1, cutoff=0.5)
    return names[found[0]] if found else ""


def rows_of(board: Board) -> list[Row]:
    """The rows of the table, with small charts that share both scales."""
    entries, totals, improvements = board.entries, board.totals, board.improvements
    most = 1.15 * max([*(e.used_share(totals) for e in entries), *(e.due_share(totals) for e in entries), 1e-9])
    drawn = {e.facts.study: improvements[e.facts.study] for e in entries if e.facts.study in improvements}
    scale = scale_of(board.read_at, drawn)
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


def now_words(crowd: Crowd) -> tuple[str, str]:
    """What is going on, in one sentence: first the part in bold, then the rest."""
    tenants = counted(crowd.tenants, "tenant")
    training = counted(crowd.training, "device is", "devices are") if crowd.training else "No device is"
    first = f"{training} training now; {tenants} registered."
    wait = (
        f"{counted(crowd.needs, 'study waits', 'studies wait')} for a person"
        if crowd.needs
        else "nothing waits for a person"
    )
    return first, f"Best quality rose in {counted(crowd.risen, 'study', 'studies')} since yesterday; {wait}."


def is_large(crowd: Crowd) -> bool:
    """Whether there are too many for small charts."""
    return crowd.studies > MOST_DRAWN


NAMED = 5


def lines_of(board: Board, forced: Sequence[NextStep], viewer: Viewer, *, is_whole: bool = False) -> list[Need]:
    """The lines, worst first; forced promotions that wait in Airflow come after the worst and before all else."""
    steps = sorted((*forced, *board.steps), key=lambda step: step.severity != Severity.BAD)
    if is_whole or board.needs_total + len(forced) <= MOST_LINES:
        return [need_of(step, viewer) for step in steps][:MOST_LISTED]
    lines = []
    for kind in _with_forced(board.needs, forced):
        own = [step for step in steps if step.kind == kind.kind]
        if kind.kind == StepKind.REFEREE:
            kind = replace(kind, studies=1)
        lines += [need_of(s, viewer) for s in own] if kind.studies <= FEW else [_together(kind, viewer)]
    return lines


def _with_forced(kinds: Sequence[KindOfNeed], forced: Sequence[NextStep]) -> list[KindOfNeed]:
    """The kinds with the promotions that wait in Airflow among them, before what else has to be decided."""
    if not forced:
        return list(kinds)
    own = next((kind for kind in kinds if kind.kind == StepKind.PROMOTE), None)
    times = [t for t in (*(step.since for step in forced), own.since if own else None) if t is not None]
    asked = {step.study for step in forced if step.study} - set(own.names if own else ())
    named = [*dict.fromkeys(step.study for step in forced if step.study in asked), *(own.names if own else [])]
    titles = {forced[0].title, own.title if own else forced[0].title}
    both = KindOfNeed(
        kind=str(StepKind.PROMOTE),
        severity=str(Severity.WARN),
        studies=len(asked) + (own.studies if own else 0),
        since=min(times, default=None),
        title=titles.pop() if len(titles) == 1 else None,
        names=named,
        oldest=named[0] if named else "",
    )
    worst = [kind for kind in kinds if kind.severity == Severity.BAD]
    return [*worst, both, *(kind for kind in kinds if kind not in worst and kind is not own)]


def kinds_of(board: Board) -> list[tuple[str, str, str, int]]:
    """How many studies need what, worst first: kind, its word, its colour and the number."""
    return [
        (k.kind, STEPS[StepKind(k.kind)][1], k.severity, 1 if k.kind == StepKind.REFEREE else k.studies)
        for k in board.needs
    ]


def _together(kind: KindOfNeed, viewer: Viewer) -> Need:
    """One line for many of a kind, which leads to them; it is as old as the oldest."""
    what = StepKind(kind.kind)
    more = f" and {kind.studies - NAMED:,} more" if kind.studies > NAMED else ""
    age = "" if kind.since is None else age_text((datetime.now(UTC) - kind.since).total_seconds())
    return Need(
        title=f"{counted(kind.studies, 'study', 'studies')}: {kind.title or STEPS[what][1].lower()}",
        why=", ".join(kind.names[:NAMED]) + more,
        colour=kind.severity,
        shape=STEPS[what][0],
        age=age,
        href="/?" + urlencode({"show": "needs", "kind": kind.kind}),
        act="Show them",
    )


TAB = Tab("/", "Overview")

UNASKED = ""
"""The view where the address names none: what needs a person among very many studies, all of few."""

SHOWS = {
    "all": "All",
    Standing.NEEDS: "Needs you",
    Standing.SEARCHING: "Searching",
    Standing.PAUSED: "Paused",
    Standing.FINISHED: "Finished",
}


def routes(site: Site) -> APIRouter:
    """``/``, and the studies that are not in it any more."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/")
    def show(
        request: Request,
        show: str = "",
        q: str = "",
        sort: str = "",
        page: str = "1",
        needs: str = "",
        study: str = "",
        kind: str = "",
        viewer: Viewer = who,
    ) -> HTMLResponse:
        store = site.open_store()
        written = {"show": show, "q": q, "sort": sort, "page": page, "kind": kind}
        query = Query.of(written, shows=SHOWS, sorts=SORTS, usual="all" if study else UNASKED)
        asked = _asked(query, marked=study, is_whole=needs == "all")
        found = board(store, asked, names=visible(store, viewer))
        query = replace(query, show=found.standing or "all")
        forced = forced_steps(viewer)
        total = found.needs_total + len(forced)
        remember(store, viewer, total)
        needs_shown = lines_of(found, forced, viewer, is_whole=asked.is_whole)
        links = [tab.path for tab in site.tabs]
        shown = _page(found, query, total=total, needs=needs_shown, is_whole=asked.is_whole, marked=study, links=links)
        return site.page(request, viewer, "overview.html", shown=shown)

    @router.get("/archived")
    def archived(request: Request, viewer: Viewer = who) -> HTMLResponse:
        found = archived_studies(site.open_store())
        seen = [one for one in found if viewer.sees(one.study.partition("@")[0], one.tenant)]
        return site.page(request, viewer, "archived.html", archived=seen)

    return router


def _asked(query: Query, *, marked: str, is_whole: bool) -> Asked:
    return Asked(
        standing=None if query.show == UNASKED else "" if query.show == "all" else query.show,
        kind=query.kind,
        text=query.text,
        order=query.sort,
        first=(query.page - 1) * PAGE_SIZE,
        size=PAGE_SIZE,
        marked=marked,
        is_whole=is_whole,
    )


@dataclass(frozen=True, slots=True)
class Page:
    """What the template reads.

    Attributes:
        needs: Lines of what needs a person, worst first.
        needs_total: How many things need a person.
        needs_left: How many of them have no line; ``is_whole`` says whether all were asked for.
        marked: The study that a task's link has named; empty for none.
        links: Paths of the pages that exist.
        total: Studies that the viewer may see.
        now: What is going on: the part in bold, then the rest.
        figures: The numbers beside what needs a person.
        chips: Key, word and number of each filter.
        rows: The lines of the table.
        span: How far back the small charts go.
        query: What is asked for.
        sorts: Key and word of each order.
        first: How many studies are before the page.
        found: Studies that the filter and the search let through.
        page_size: Lines of a page.
        elsewhere: Studies that the search finds without the filter, where it finds none with it.
        near: A name that is nearly what was searched for.
        map: The map of very many studies; None where there are few.
        kinds: How many studies need what; empty where there are few.
        held_to: What the table is held to, in words; empty for nothing.
    """

    needs: Sequence[Need]
    needs_total: int
    needs_left: int
    is_whole: bool
    marked: str
    links: Sequence[str]
    total: int
    now: tuple[str, str]
    figures: Figures
    chips: Sequence[tuple[str, str, int]]
    rows: Sequence[Row]
    span: str
    query: Query
    sorts: Mapping[str, str]
    first: int
    found: int
    page_size: int
    elsewhere: int
    near: str
    map: StudyMap | None
    kinds: Sequence[tuple[str, str, str, int]]
    held_to: str


def _page(
    found: Board, query: Query, *, total: int, needs: Sequence[Need], is_whole: bool, marked: str, links: Sequence[str]
) -> Page:
    crowd = found.crowd
    has_map = is_large(crowd)
    rows = rows_of(found)
    counts = {
        "all": crowd.studies,
        Standing.NEEDS: crowd.needs,
        Standing.SEARCHING: crowd.searching,
        Standing.PAUSED: crowd.paused,
        Standing.FINISHED: crowd.finished,
    }
    return Page(
        needs=needs,
        needs_total=total,
        needs_left=max(total - len(needs), 0),
        is_whole=is_whole,
        marked=marked,
        links=links,
        total=crowd.studies,
        now=now_words(crowd),
        figures=charts.figures_of(found),
        chips=[(key, word, counts[key]) for key, word in SHOWS.items()],
        rows=rows,
        span=charts.span_text([row.spark for row in rows]),
        query=query,
        sorts=SORTS,
        first=found.first,
        found=found.found,
        page_size=PAGE_SIZE,
        elsewhere=found.elsewhere,
        near=nearest(found.likely, query.text),
        map=map_of(crowd, found.on_map) if has_map else None,
        kinds=kinds_of(found) if has_map else [],
        held_to=STEPS[StepKind(query.kind)][1] if query.kind else "",
    )
