"""Compute: what runs where, who waits, and is the policy earning its keep? Others than operators see their own rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response

from easeml_airflow.web.components.action_items import visible
from easeml_airflow.web.pages.compute import view
from easeml_airflow.web.pages.compute.backtest import COMMAND, Backtests, backtest_of, report_of
from easeml_airflow.web.pages.compute.price import pricing_of
from easeml_airflow.web.server.airflow_runs import places
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import HEADERS, Reason, Tab, moved
from easeml_core.encoding import to_json
from easeml_core.services.reports.compute import WINDOWS, compute
from easeml_core.services.selection.beliefs import stopping_prices
from easeml_core.services.selection.policy import show_policy
from easeml_core.services.studies.limits import list_tenants, set_tenant
from easeml_core.services.trials.execution import expire_leases
from easeml_core.store.callers import because

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.server.site import Site

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
        where = places(view.keys_of(facts)) if viewer.is_operator else {}  # a worker may name any task
        policy = show_policy(store)
        tenants = list_tenants(store) if viewer.is_operator else []
        return site.page(
            request,
            viewer,
            "compute.html",
            shown=view.page_of(facts, policy, where, is_all=names is None),
            pricing=pricing_of(stopping_prices(store, studies=names), price),
            backtest=backtest_of(site.one(Backtests).last(), policy) if names is None else None,
            tenants=view.tenants_of(tenants, text=q, page=page),
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
