"""A new study, for a tenant without a line of code: bring data, see its program, set what matters, and submit.

Works as plain forms. Between two steps the server keeps nothing but the file, by the hash of its content; all else is
in the form. Data are looked at in a child process with limits, a few at a time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from easeml_airflow.web.pages.new_study.form import (
    ADAPTIVITIES,
    LONGEST,
    Draft,
    checks_of,
    draft_of,
    metrics_of,
)
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import Tab, moved, path_of_study
from easeml_airflow.web.server.throttling import Turns
from easeml_airflow.web.server.uploads import DayLimit, Intake, file_of, on_disk, text_of
from easeml_core.config import require
from easeml_core.data.sources.spec import known_sources
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, StateError
from easeml_core.limits import NAME
from easeml_core.services.registration.preview import look_at_data
from easeml_core.services.registration.register import register_study
from easeml_core.services.studies.limits import list_tenants
from easeml_core.services.studies.uploads import KEPT_DAYS, keep_upload

if TYPE_CHECKING:
    from fastapi.responses import Response
    from starlette.datastructures import UploadFile

    from easeml_airflow.web.server.site import Site
    from easeml_core.data.inference.result import DataPreview
    from easeml_core.store.artifacts.local import ArtifactStore

TAB = Tab("/new", "New study")

MOST_UPLOAD_BYTES = 256_000_000
MOST_FORM_BYTES = 2_000_000
MOST_UPLOADS = 50
"""Files of one tenant, and of one person, that a server takes in a day, so that none fills the place of artifacts."""

MOST_NAMES = 200
_REMEMBERED = 32


class Looks:
    """What data look like, remembered for a while: a file under its hash looks the same each time.

    Args:
        turns: Who may look now.
    """

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self._known: OrderedDict[tuple[str, ...], DataPreview | None] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, artifacts: ArtifactStore, draft: Draft, *, who: str) -> DataPreview | None:
        """Return ``look_at_data`` of a draft; one at a time for each user, since some users may name many tenants."""
        asked = draft.asked
        key = draft.tenant, draft.source, *asked.values()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        with self.turns.taken(f"new/{who}"):
            found = look_at_data(artifacts, tenant=draft.tenant, source=draft.source, asked=asked)
        with self._lock:
            self._known[key] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found


def routes(site: Site) -> APIRouter:
    """``/new`` and its steps."""
    router, who = APIRouter(prefix="/new"), Depends(site.viewer)
    pages, intake = _Pages(site), Intake()

    @router.get("")
    def begin(request: Request, viewer: Viewer = who) -> Response:
        draft = _draft(FormData(dict(request.query_params)))
        if draft.source:
            return pages.second(request, viewer, draft, adopts=True)
        return pages.first(request, viewer, draft)

    @router.post("/data")
    async def bring(request: Request, viewer: Viewer = who) -> Response:
        work = partial(pages.brought, request, viewer)
        return await intake.answer(request, work, who=viewer.name, most_bytes=MOST_UPLOAD_BYTES)

    @router.post("/look")
    async def look(request: Request, viewer: Viewer = who) -> Response:
        draft = _draft(await intake.form(request, who=viewer.name, most_bytes=MOST_FORM_BYTES))
        return await run_in_threadpool(pages.second, request, viewer, replace(draft, program=""), adopts=True)

    @router.post("/check")
    async def check(request: Request, viewer: Viewer = who) -> Response:
        draft = _draft(await intake.form(request, who=viewer.name, most_bytes=MOST_FORM_BYTES))
        return await run_in_threadpool(pages.second, request, viewer, draft)

    @router.post("/register")
    async def register(request: Request, viewer: Viewer = who) -> Response:
        draft = _draft(await intake.form(request, who=viewer.name, most_bytes=MOST_FORM_BYTES))
        return await run_in_threadpool(pages.registered, request, viewer, draft)

    for path in ("/data", "/look", "/check", "/register"):  # a user reloads the answer to a form
        router.add_api_route(path, _again, methods=["GET"])
    return router


def _again(request: Request) -> Response:
    return moved(request, TAB.path)


class _Pages:
    """What the routes do, in a thread."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @property
    def _looks(self) -> Looks:
        return self._site.one(Looks, lambda: Looks(Turns()))

    def first(self, request: Request, viewer: Viewer, draft: Draft, *, problem: str = "") -> Response:
        """Who, what it is called, and which data."""
        shown = {
            "draft": draft,
            "problem": problem,
            "tenants": self._tenants(viewer),
            "forms": known_sources(),
            "most_mb": MOST_UPLOAD_BYTES // 1_000_000,
            "kept_days": KEPT_DAYS,
            "name_form": NAME.rule,
        }
        return self._site.page(request, viewer, "new_study.html", status=400 if problem else 200, **shown)

    def brought(self, request: Request, viewer: Viewer, form: FormData) -> Response:
        """Keep the file that came, and go on with its name."""
        draft = _draft(form)
        _require_may(viewer, draft)
        file, points = file_of(form, "file"), text_of(form, "points", most=LONGEST["source"])
        try:
            require((file is None) != (points == ""), "data", points or "a file", "a file, or the name of a source")
            source = points if file is None else self._kept(viewer.name, draft.tenant, file)
        except InvalidInputError as error:
            return self.first(request, viewer, replace(draft, source=points), problem=str(error))
        named = {"study": draft.study, "tenant": draft.tenant, "source": source}
        return moved(request, f"{TAB.path}?{urlencode(named)}")

    def second(self, request: Request, viewer: Viewer, draft: Draft, *, adopts: bool = False) -> Response:
        """What the data look like, and what else is to be said; with ``adopts`` the draft takes over what they say."""
        _require_may(viewer, draft)
        try:
            found = self._looks.at(self._site.open_artifacts(), draft, who=viewer.name)
        except InvalidInputError as error:
            return self.first(request, viewer, draft, problem=str(error))
        return self._settings(request, viewer, _adopted(draft, found) if adopts else draft, found)

    def registered(self, request: Request, viewer: Viewer, draft: Draft) -> Response:
        """Register the study, and show its page; or what is wrong."""
        _require_may(viewer, draft)
        try:
            arguments = draft.arguments(may_weigh=viewer.is_operator)
            key = f"page/{viewer.name}/{draft.request_key}"
            register_study(self._site.open_store(), **{**arguments, "request_key": key})
        except (InvalidInputError, StateError) as error:
            found = self._looks.at(self._site.open_artifacts(), draft, who=viewer.name)
            return self._settings(request, viewer, draft, found, problem=str(error))
        return moved(request, path_of_study(draft.study))

    def _settings(
        self, request: Request, viewer: Viewer, draft: Draft, found: DataPreview | None, *, problem: str = ""
    ) -> Response:
        rows = None if found is None else found.rows
        with self._looks.turns.taken(f"new/{viewer.name}"):
            checks = checks_of(draft, rows=rows, plans=True)
        shown = {
            "draft": draft,
            "upload": draft.upload,
            "found": found,
            "checks": checks,
            "problem": problem,
            "metrics": metrics_of(draft.task),
            "usual": "r2" if draft.task == Task.REGRESSION else "accuracy",
            "adaptivities": ADAPTIVITIES,
            "longest_program": LONGEST["program"],
        }
        return self._site.page(request, viewer, "new_study_settings.html", status=400 if problem else 200, **shown)

    def _kept(self, who: str, tenant: str, file: UploadFile) -> str:
        with on_disk(file, takes_parquet=True) as path:
            require(path.stat().st_size > 0, "file", path.name, "not empty")
            today = datetime.now(UTC).date()
            self._site.one(DayLimit, lambda: DayLimit(MOST_UPLOADS)).take(who, tenant, today)
            upload = keep_upload(self._site.open_artifacts(), path, tenant=tenant, file=path.name, today=today)
        return f"{'images' if upload.file.endswith('.zip') else 'csv'}:{upload}"

    def _tenants(self, viewer: Viewer) -> list[str]:
        """Tenants there are for whom they may register; a new one may be named as well."""
        names = [tenant.tenant for tenant in list_tenants(self._site.open_store())]
        return [name for name in names if viewer.changes("", name)][:MOST_NAMES]


def _draft(form: FormData) -> Draft:
    values = {name: text_of(form, name, most=LONGEST.get(name, 1000)) for name in form if isinstance(form[name], str)}
    return draft_of(values)


def _adopted(draft: Draft, found: DataPreview | None) -> Draft:
    """Return the draft with the data's values in the fields that the user left empty."""
    if found is None:
        return draft
    source, target = found.source, found.target or ""
    return replace(draft, source=source, target=target, task=found.task, program=draft.program or found.text)


def _require_may(viewer: Viewer, draft: Draft) -> None:
    """Refuse names that cannot be, and tenants that they may do nothing for.

    Raises:
        ConfigError: Study or tenant cannot have that name.
        HTTPException: 403.
    """
    for name in ("study", "tenant"):
        NAME.check(name, getattr(draft, name)[:80])
    if not viewer.changes(draft.study, draft.tenant):
        message = (
            f"you may not register studies of tenant {draft.tenant!r}; this needs the right to trigger the DAG of its "
            "studies ([easeml] api_dag of Airflow's configuration)"
        )
        raise HTTPException(status_code=403, detail=message)
