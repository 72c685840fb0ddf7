"""What a study is good for: ask its models, feed it, refine what it learns from; by hand, by file, and by program.

All of it goes through the same service as programs use, with its bounds and its turns.
"""

from __future__ import annotations

import threading
import uuid
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from easeml_airflow.settings import base_path, own_address
from easeml_airflow.web.pages.use.view import answers_of, inputs_of, row_fields
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import HEADERS, Tab, moved, path_of_study
from easeml_airflow.web.server.uploads import Intake, file_of, on_disk, text_of
from easeml_core.config import require
from easeml_core.data.sources.images import require_few_pixels
from easeml_core.data.sources.zip_upload import unpack_upload
from easeml_core.errors import EasemlError, InvalidInputError
from easeml_core.files import scratch_folder
from easeml_core.services.reports.study import use_of_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi.responses import RedirectResponse
    from starlette.datastructures import FormData, UploadFile

    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Study
    from easeml_core.services.datasets.refine import PairList, SuspiciousPairs
    from easeml_core.services.models.inference import Inferred

STUDY_TAB = Tab("/use", "Use")

CLIENT = Path(__file__).parents[2] / "client" / "easeml_client.py"
MOST_FILE_BYTES = 16_000_000
MOST_UNPACKED_BYTES = 2 * MOST_FILE_BYTES
MOST_PIXELS = 500_000_000
"""Seconds of decoding: files are read in the server's own process, and little of a zip file can stand for very much."""

MOST_ROWS = 200
ROWS = 20
_REMEMBERED = 32

Word = Annotated[str, Form(max_length=500)]
Choice = Annotated[list[str], Form(max_length=MOST_ROWS)]


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/use`` and what is done there; ``/client/easeml_client.py``."""
    router, who = APIRouter(), Depends(site.viewer)
    desk = _Desk(site, Intake())
    _asks(router, desk, who)
    _feeds(router, desk, who)
    _refines(router, desk, who)
    router.add_api_route("/client/easeml_client.py", _client, methods=["GET"])
    return router


class _Rankings:
    """The rows whose labels look wrong, of the versions of data that were ranked last."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], SuspiciousPairs] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> SuspiciousPairs | None:
        """Return the ranking of a study and version of its data, or None."""
        return self._kept.get(key)

    def keep(self, key: tuple[int, int], found: SuspiciousPairs) -> None:
        """Keep a ranking, and forget the oldest."""
        with self._lock:
            self._kept[key] = found
            for old in list(self._kept)[:-_REMEMBERED]:
                del self._kept[old]


class _Desk:
    """What the routes share."""

    def __init__(self, site: Site, intake: Intake) -> None:
        self.site, self.intake = site, intake

    def suspicious(self, study: Study, limit: int) -> SuspiciousPairs:
        """Rows whose labels look wrong; found once for each version of the data, however many are shown."""
        data = use_of_study(self.site.open_store(), study.name).data
        key = study.id, data.version if data else 0
        rankings = self.site.one(_Rankings)
        found = rankings.get(key)
        if found is None:
            found = self.site.service.suspicious(study.name, limit=MOST_ROWS)
            rankings.keep(key, found)
        return replace(found, pairs=found.pairs[:limit])

    def page(self, request: Request, viewer: Viewer, study: Study, **shown: Any) -> Response:
        """The page; ``shown`` may have ``answers``, ``rows`` or ``given`` (what was asked, to stay in the fields)."""
        facts = use_of_study(self.site.open_store(), study.name)
        data = facts.data
        page = {"answers": None, "rows": None, "given": {}, "list_of": ""} | shown
        return self.site.page(
            request,
            viewer,
            "use.html",
            study=study,
            facts=facts,
            fields=row_fields(data.columns) if data else [],
            may_change=viewer.changes(study.name, study.tenant),
            key=str(uuid.uuid4()),
            most_mb=MOST_FILE_BYTES // 1_000_000,
            server=f"{own_address() or _as_asked(request)}{base_path()}",
            **page,
        )

    async def form(self, request: Request, viewer: Viewer, work: Callable[[FormData], Response]) -> Response:
        """Read a form that may have a file, and work on it in a thread."""
        return await self.intake.answer(request, work, who=viewer.name, most_bytes=MOST_FILE_BYTES)


def _asks(router: APIRouter, desk: _Desk, who: Any) -> None:
    site = desk.site

    @router.get("/studies/{study}/use")
    def show(
        request: Request,
        study: str,
        of: Annotated[str, Query(pattern="^(suspicious|newest|off|)$")] = "",
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = ROWS,
        viewer: Viewer = who,
    ) -> Response:
        found = site.study(viewer, study)
        rows: SuspiciousPairs | PairList | None = None
        if of == "suspicious":
            rows = desk.suspicious(found, limit)
        elif of:
            rows = site.service.rows(found.name, off=of == "off", limit=limit)
        return desk.page(request, viewer, found, rows=rows, list_of=of)

    @router.post("/studies/{study}/use")
    async def infer(request: Request, study: str, viewer: Viewer = who) -> Response:
        def work(form: FormData) -> Response:
            found = site.study(viewer, study)
            file, model = file_of(form, "file"), text_of(form, "number") or text_of(form, "model") or "production"
            wants = bool(text_of(form, "probabilities"))
            given = {name: text_of(form, name, most=100_000) for name in form if isinstance(form[name], str)}
            if file is not None:
                with _brought(file) as path:
                    answers = site.service.infer_file(found.name, path, model=model, probabilities=wants)
                if text_of(form, "as") == "csv":
                    return _csv(answers)
            else:
                body = {"inputs": [inputs_of(given)], "model": model, "probabilities": wants}
                answers = site.service.infer(found.name, viewer.name, body)
            return desk.page(
                request, viewer, found, answers=answers_of(answers, with_columns=file is not None), given=given
            )

        return await desk.form(request, viewer, work)


def _feeds(router: APIRouter, desk: _Desk, who: Any) -> None:
    site = desk.site

    @router.post("/studies/{study}/use/feed")
    async def feed(request: Request, study: str, viewer: Viewer = who) -> Response:
        def work(form: FormData) -> Response:
            found = site.study(viewer, study, change=True)
            file, key = file_of(form, "file"), text_of(form, "request_key")
            if file is None:
                values = {name: text_of(form, name, most=100_000) for name in form if isinstance(form[name], str)}
                pair = {"inputs": inputs_of(values), "label": text_of(form, "label")}
                site.service.feed(found.name, viewer.name, {"pairs": [pair], "request_key": key})
            else:
                column = text_of(form, "column") or "label"
                with _brought(file) as path:
                    site.service.feed_file(found.name, viewer.name, path, label=column, request_key=key)
            return moved(request, f"{path_of_study(found.name)}{STUDY_TAB.path}#fed")

        return await desk.form(request, viewer, work)


def _refines(router: APIRouter, desk: _Desk, who: Any) -> None:
    site = desk.site

    @router.post("/studies/{study}/use/switch")
    def switch(
        request: Request,
        study: str,
        to: Annotated[str, Form(pattern="^(on|off)$")],
        row: Choice,
        request_key: Word,
        reason: Word = "",
        viewer: Viewer = who,
    ) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        site.service.refine(found.name, viewer.name, {to: row, "reason": reason, "request_key": request_key})
        return moved(request, f"{path_of_study(found.name)}{STUDY_TAB.path}#refine")

    @router.post("/studies/{study}/use/apply")
    def apply(request: Request, study: str, request_key: Word, viewer: Viewer = who) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        site.service.refine(found.name, viewer.name, {"apply": True, "request_key": request_key})
        return moved(request, f"{path_of_study(found.name)}{STUDY_TAB.path}#fed")


@contextmanager
def _brought(file: UploadFile) -> Iterator[Path]:
    """The file that came, or the folder that it packs; errors tell its name and not where it lies meanwhile."""
    with on_disk(file) as path, scratch_folder("unpacked") as folder:
        require(path.stat().st_size > 0, "file", path.name, "not empty")
        try:
            yield _unpacked(path, Path(folder)) if path.suffix == ".zip" else path
        except EasemlError as error:
            message = str(error)
            for place in (str(path), str(path.parent), folder):
                message = message.replace(place, path.name)
            if message == str(error):
                raise
            raise InvalidInputError(message) from error


def _unpacked(path: Path, folder: Path) -> Path:
    found = unpack_upload(path, folder, most_bytes=MOST_UNPACKED_BYTES)
    require_few_pixels(found, MOST_PIXELS)
    return found


def _as_asked(request: Request) -> str:
    """How this server was reached; behind a proxy that ends TLS that is another scheme than a person's."""
    return f"{request.url.scheme}://{request.url.netloc}"


def _csv(answers: Inferred) -> Response:
    """All answers of a file, as ``easeml infer --output`` writes them, but without formulas."""
    import io

    from easeml_core.services.models.inference import write_answers_to

    text = io.StringIO()
    write_answers_to(text, answers, guard=True)
    named = {"Content-Disposition": 'attachment; filename="answers.csv"', "X-Model-Id": str(answers.model_id)}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=HEADERS | named)


def _client() -> Response:
    """The client for programs, as one file."""
    named = {"Content-Disposition": 'attachment; filename="easeml_client.py"'}
    return Response(CLIENT.read_text(encoding="utf-8"), media_type="text/x-python", headers=HEADERS | named)
