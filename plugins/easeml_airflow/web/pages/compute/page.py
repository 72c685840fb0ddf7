"""Compute: what runs where, who waits, and is the policy earning its keep? Others than operators see their own rows.

Trials that wait should begin as the devices that train now become free, in the order in which they wait.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response

from easeml_airflow.web.components.action_items import visible
from easeml_airflow.web.pages.compute.backtest import COMMAND, Backtests, backtest_of, report_of
from easeml_airflow.web.pages.compute.charts import SHOWN, Bar, Board, board_of, busy_plot, gains_plot, place_text
from easeml_airflow.web.pages.compute.price import pricing_of
from easeml_airflow.web.server.airflow_runs import places, task_address
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.formats import age_text, percent_text, seconds_text
from easeml_airflow.web.server.site import HEADERS, Reason, Tab, moved, path_of_study
from easeml_core.errors import counted
from easeml_core.formats.encoding import to_json
from easeml_core.services.reports.audit import hourly_text
from easeml_core.services.reports.compute import WINDOWS, compute
from easeml_core.services.selection.beliefs import stopping_prices
from easeml_core.services.selection.policy import show_policy
from easeml_core.services.studies.limits import list_tenants, set_tenant
from easeml_core.services.trials.execution import expire_leases
from easeml_core.store.callers import because

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.components.charts import Plot
    from easeml_airflow.web.server.airflow_runs import Place
    from easeml_airflow.web.server.site import Site
    from easeml_core.services.reports.compute import ComputeReport, Lane, Share
    from easeml_core.services.selection.policy import PolicyReport
    from easeml_core.services.studies.limits import TenantReport
    from easeml_core.store.queries.compute import DeviceTotals, WaitingTrial
    from easeml_core.store.tables.capacity import RegisteredDevice


MOST_DEVICES = 200
"""Of the devices that are listed; the provider's come first."""

LONGEST_SECONDS = 1e7
"""Of a prediction that is believed: 116 days."""


def expected_starts(
    lanes: Sequence[Lane], waits: Sequence[WaitingTrial], *, free: Mapping[str, int] | None = None, now: datetime
) -> list[datetime | None]:
    """Return about when each should begin; None where it is unknown.

    A device that trains is taken to go on with the next trial of its kind when its present one should end, by the
    predicted cost. One that has taken longer than predicted may be free at any moment, and is left out; what comes
    after a trial without a predicted cost is left open. A free slot of the registry takes a trial now.
    """
    ends = {kind: [now] * min(slots, len(waits)) for kind, slots in (free or {}).items() if slots}
    for lane in lanes:
        end = lane.jobs[-1].expected
        if end is not None:
            heapq.heappush(ends.setdefault(lane.device, []), end)
    return [_start(wait, ends) for wait in waits]


def _start(wait: WaitingTrial, free: dict[str, list[datetime]]) -> datetime | None:
    """The first end of a device that it may have, which it takes."""
    kinds = [kind for kind, ends in free.items() if ends and wait.device in (None, kind)]
    if not kinds:
        return None
    ends = free[min(kinds, key=lambda kind: free[kind][0])]
    start = heapq.heappop(ends)
    if wait.seconds and 0 < wait.seconds <= LONGEST_SECONDS:
        heapq.heappush(ends, start + timedelta(seconds=wait.seconds))
    return start


SHARES_SHOWN = 8
TENANTS_SHOWN = 10
SILENT_SHOWN = 5
OTHERS = "other tenants"


@dataclass(frozen=True, slots=True)
class Wait:
    """A trial that waits for a device."""

    study: str
    path: str
    candidate: str
    gain: str
    is_guarded: bool
    is_held: bool
    age: str
    start: datetime | None
    is_far: bool


@dataclass(frozen=True, slots=True)
class Registered:
    """A live device of the registry."""

    host: str
    name: str
    kind: str
    model: str
    memory: str
    driver: str
    slots: int
    free: int
    age: str


@dataclass(frozen=True, slots=True)
class Silent:
    """A trial whose device fell silent."""

    study: str
    path: str
    candidate: str
    since: datetime
    place: str
    log: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """What the template names."""

    window: str
    windows: Mapping[str, str]
    now: tuple[str, str]
    badge: str
    lost: tuple[str, str, str] | None
    silent: Sequence[Silent]
    board: Board
    waits: Sequence[Wait]
    waiting: int
    pairs: Sequence[tuple[str, str]]
    busy: Plot
    busy_pairs: Sequence[tuple[str, str]]
    shares: Sequence[Bar]
    shares_title: str
    shares_note: str
    gains: Plot | None
    policy: Sequence[tuple[str, str]]
    policy_since: datetime | None
    devices: Sequence[Registered] | None
    unlisted: int
    free: str


def keys_of(report: ComputeReport) -> list[str]:
    """Request keys of who holds a trial now, or did when it fell silent."""
    runs = [lane.jobs[-1].run for lane in report.lanes]
    return [run.lease_key for run in runs if run.lease_key]


def page_of(report: ComputeReport, policy: PolicyReport, places: Mapping[str, Place], *, is_all: bool) -> Page:
    """The page."""
    totals, now = report.totals, report.now
    window = SHOWN[report.window]
    bars, title, note = _shares(report.shares, window.word)
    busy, busy_pairs = busy_plot(report.busy, window, is_all=is_all)
    return Page(
        window=report.window,
        windows={key: one.word for key, one in SHOWN.items()},
        now=_now(totals, now, is_all=is_all),
        badge=f"{totals.running if is_all else totals.own_running} training",
        lost=_lost(totals, now),
        silent=_silent(report, places),
        board=board_of(report, places),
        waits=_waits(report, is_all=is_all),
        waiting=totals.waiting,
        pairs=_pairs(report),
        busy=busy,
        busy_pairs=busy_pairs,
        shares=bars,
        shares_title=title,
        shares_note=note,
        gains=gains_plot(report),
        policy=_policy(policy),
        policy_since=policy.created_at,
        devices=None if report.devices is None else [_registered(device) for device in report.devices[:MOST_DEVICES]],
        unlisted=max(0, len(report.devices or ()) - MOST_DEVICES),
        free=", ".join(f"{slots:,} of kind {kind}" for kind, slots in report.free.items()),
    )


def _now(totals: DeviceTotals, now: datetime, *, is_all: bool) -> tuple[str, str]:
    running = totals.running if is_all else totals.own_running
    head = f"{counted(running, 'device trains', 'devices train')}{'' if is_all else ' for you'}"
    if totals.waiting_since is not None:
        age = age_text((now - totals.waiting_since).total_seconds())
        waits = f"{counted(totals.waiting, 'trial waits', 'trials wait')}"
        first = f"{head}, {waits}, the longest for {age}."
    else:
        first = f"{head}, nothing waits."
    others = totals.running - totals.own_running
    if not is_all:
        return first, f"{counted(others, 'device trains', 'devices train')} for other tenants."
    return first, f"{counted(totals.ended, 'trial')} ended in this time, {totals.failed} of them failed."


def _lost(totals: DeviceTotals, now: datetime) -> tuple[str, str, str] | None:
    if totals.lost_since is None:
        return None
    several = totals.lost > 1
    title = f"{counted(totals.lost, 'device does', 'devices do')} not answer"
    why = (
        f"{'Their leases are' if several else 'Its lease is'} over and no heartbeat came. "
        f"{'The trials go' if several else 'The trial goes'} back to wait for another device, with the attempt counted."
    )
    return title, why, age_text((now - totals.lost_since).total_seconds())


def _silent(report: ComputeReport, places: Mapping[str, Place]) -> list[Silent]:
    """Those that have been silent longest, first."""
    runs = [lane.jobs[-1].run for lane in report.lanes]
    lost = sorted(((run.lease_until, run) for run in runs if run.is_lost and run.lease_until), key=itemgetter(0))
    return [
        Silent(
            run.study,
            path_of_study(run.study),
            run.candidate,
            since,
            place_text(run.lease_key, places),
            task_address(run.lease_key),
        )
        for since, run in lost[:SILENT_SHOWN]
    ]


def _waits(report: ComputeReport, *, is_all: bool) -> list[Wait]:
    """Return the waiting trials, with their start for viewers who see all devices; others see too few of them."""
    rows = report.waits
    starts: list[datetime | None] = [None] * len(rows)
    if is_all:
        starts = expected_starts(report.lanes, rows, free=report.free, now=report.now)
    return [_wait(row, start, report.now) for row, start in zip(rows, starts, strict=True)]


def _wait(row: WaitingTrial, start: datetime | None, now: datetime) -> Wait:
    return Wait(
        study=row.study,
        path=path_of_study(row.study),
        candidate=row.candidate,
        gain=f"{3600 * row.gain / row.seconds:.4f}" if row.gain is not None and row.seconds else "",
        is_guarded=row.guarded,
        is_held=row.is_held,
        age=age_text((now - row.suggested_at).total_seconds()),
        start=start,
        is_far=start is not None and start - now > timedelta(hours=20),
    )


def _registered(device: RegisteredDevice) -> Registered:
    memory = "" if device.memory_mb is None else f"{device.memory_mb / 1024:,.1f} GiB"
    return Registered(
        host=device.host,
        name=device.name,
        kind=device.kind,
        model=device.model or "",
        memory=memory,
        driver=device.driver or "",
        slots=device.slots,
        free=device.free,
        age=age_text(device.silent_seconds),
    )


def _pairs(report: ComputeReport) -> list[tuple[str, str]]:
    totals = report.totals
    seconds = sum(s.seconds for s in report.shares if s.tenant is not None)
    at_once = report.at_once
    pairs = [
        (f"Device time in {SHOWN[report.window].word}", seconds_text(seconds)),
        ("Trials ended", f"{totals.ended:,}"),
        ("Devices at once, while any trains", None if at_once is None else f"{at_once:.1f}"),
        ("Starts of processes, of trials that succeeded", seconds_text(totals.start_seconds)),
        ("Lost with devices that fell silent", seconds_text(totals.lost_seconds)),
    ]
    return [(term, value) for term, value in pairs if value is not None]


def _shares(shares: Sequence[Share], words: str) -> tuple[list[Bar], str, str]:
    """Bars of the most served, beside what is due by weight; the title names who is furthest from it."""
    own = [s for s in shares if s.tenant is not None]
    due = [(s.share / s.due, s.tenant) for s in own if s.due > 0]
    title = "No device has trained in this time"
    if due and any(s.seconds for s in shares):
        (least, poorest), (most, richest) = min(due), max(due)
        title = f"{richest} gets {100 * most:.0f} % of its due share"
        title = (
            f"{poorest} gets {100 * least:.0f} % of its due share, {richest} {100 * most:.0f} %"
            if len(due) > 1
            else title
        )
    shown = [*own[:SHARES_SHOWN], *(s for s in shares if s.tenant is None)]
    longest = max((max(s.share, s.due) for s in shown), default=0) * 1.04 or 1.0
    of_all = f"{min(len(own), SHARES_SHOWN)} of {counted(len(own), 'tenant')}"
    note = f"Share of the device time of {words}; tick: due by weight. {of_all}."
    return [_share(s, longest) for s in shown], title, note


def _share(entry: Share, longest: float) -> Bar:
    return Bar(
        name=entry.tenant or OTHERS,
        width=round(100 * entry.share / longest, 2),
        tick=round(100 * entry.due / longest, 2),
        value=percent_text(entry.share),
        more=f"of {100 * entry.due:.1f}",
        look="hi" if entry.tenant and entry.share >= entry.due else "",
    )


def _policy(policy: PolicyReport) -> list[tuple[str, str]]:
    config = policy.config
    price = config["price_per_second"]
    return [
        ("Policy", policy.policy),
        ("Price of compute", hourly_text(price) if price else "none: a study goes on while it gains"),
        ("Guard for the least-served tenant", percent_text(config["guard"]) + " of the compute"),
        ("Chosen by", policy.created_by or "no user: the program's own settings"),
        ("Because", policy.reason or "none is set here"),
    ]


# ---- limits of tenants, for operators


@dataclass(frozen=True, slots=True)
class TenantRow:
    """What one tenant may use; ``used_bar`` is in per cent of its quota. ``flag`` says that results did not hold."""

    tenant: str
    weight: float
    open_trials: int
    max_parallel: int | None
    charged: str
    quota_hours: float | None
    used_bar: float | None
    flag: str


@dataclass(frozen=True, slots=True)
class Tenants:
    """A page of the tenants with their limits."""

    rows: Sequence[TenantRow]
    total: int
    text: str
    page: int
    first: int

    @property
    def has_more(self) -> bool:
        """Whether others come after these."""
        return self.first + len(self.rows) < self.total


def tenants_of(tenants: Sequence[TenantReport], *, text: str, page: int) -> Tenants:
    """Those whose name holds the text, ``TENANTS_SHOWN`` a page."""
    wanted = text.strip().lower()
    found = [t for t in tenants if wanted in t.tenant]
    last = max(0, (len(found) - 1) // TENANTS_SHOWN)
    first = min(page - 1, last) * TENANTS_SHOWN
    rows = [_limits(t) for t in found[first : first + TENANTS_SHOWN]]
    return Tenants(rows, len(found), text.strip(), first // TENANTS_SHOWN + 1, first)


def _limits(tenant: TenantReport) -> TenantRow:
    used, quota = tenant.used_seconds + tenant.reserved_seconds, tenant.quota_seconds
    return TenantRow(
        tenant=tenant.tenant,
        weight=tenant.weight,
        open_trials=tenant.open_trials,
        max_parallel=tenant.max_parallel,
        charged=seconds_text(used),
        quota_hours=None if quota is None else quota / 3600,
        used_bar=None if quota is None else round(min(100.0, 100 * used / quota), 1),
        flag=f"{counted(tenant.unacknowledged, 'result')} did not hold" if tenant.unacknowledged else "",
    )


TAB = Tab("/compute", "Compute")


def routes(site: Site) -> APIRouter:
    """``/compute`` and what an operator may change there."""
    router, who = APIRouter(prefix="/compute"), Depends(site.viewer)
    _looks(router, site, who)
    _changes(router, site, who)
    return router


def _looks(router: APIRouter, site: Site, who: Any) -> None:
    @router.get("")
    def show(
        request: Request,
        window: str = "6h",
        q: Annotated[str, Query(max_length=200)] = "",
        page: Annotated[int, Query(ge=1, le=10_000)] = 1,
        price: Annotated[float | None, Query(ge=0, le=1e9, allow_inf_nan=False)] = None,
        viewer: Viewer = who,
    ) -> HTMLResponse:
        store = site.open_store()
        names = visible(store, viewer)
        facts = compute(store, window=window if window in WINDOWS else "6h", studies=names)
        where = places(keys_of(facts)) if viewer.is_operator else {}  # a worker may name any task
        policy = show_policy(store)
        tenants = list_tenants(store) if viewer.is_operator else []
        return site.page(
            request,
            viewer,
            "compute.html",
            shown=page_of(facts, policy, where, is_all=names is None),
            pricing=pricing_of(stopping_prices(store, studies=names), price),
            backtest=backtest_of(site.one(Backtests).last(), policy) if names is None else None,
            tenants=tenants_of(tenants, text=q, page=page),
            command=COMMAND,
        )

    @router.get("/backtest.json")
    def report(viewer: Viewer = who) -> Response:
        """The backtest of the page, whole, for viewers who see all studies."""
        store = site.open_store()
        if visible(store, viewer) is not None:
            viewer.require(Role.OPERATOR)
        found = report_of(site.one(Backtests).last(), show_policy(store))
        if found is None:
            raise HTTPException(status_code=404, detail="there is no backtest yet")
        headers = HEADERS | {"Content-Disposition": 'attachment; filename="easeml-backtest.json"'}
        return JSONResponse(to_json(found), headers=headers)


def _changes(router: APIRouter, site: Site, who: Any) -> None:
    @router.post("/tenants/{tenant}")
    def limit(
        request: Request,
        tenant: str,
        weight: Annotated[float, Form()],
        max_parallel: Annotated[int | None, Form()] = None,
        quota_hours: Annotated[float | None, Form()] = None,
        reason: Reason = "",
        viewer: Viewer = who,
    ) -> RedirectResponse:
        """What is left empty is no limit."""
        viewer.require(Role.OPERATOR)
        quota = None if quota_hours is None else 3600 * quota_hours
        with because(reason):
            set_tenant(site.open_store(), tenant=tenant, weight=weight, max_parallel=max_parallel, quota_seconds=quota)
        return moved(request, "/compute#limits")

    @router.post("/release")
    def release(request: Request, viewer: Viewer = who) -> RedirectResponse:
        """The trials of workers that fell silent go back; the next suggestion does the same by itself."""
        viewer.require(Role.OPERATOR)
        expire_leases(site.open_store())
        return moved(request, "/compute")

    @router.post("/backtest")
    def replay(request: Request, viewer: Viewer = who) -> RedirectResponse:
        viewer.require(Role.OPERATOR)
        site.one(Backtests).run(site.open_store())
        return moved(request, "/compute#backtest")
