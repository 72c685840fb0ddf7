"""What a study is good for: ask its models, feed it, refine what it learns from; by hand, by file, and by program.

All of it goes through the same service as programs use, with its bounds and its turns.
"""

from __future__ import annotations

import re
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from easeml_airflow.settings import base_path, own_address
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.request_limits import Intake, file_of, on_disk, text_of
from easeml_airflow.web.server.site import HEADERS, Tab, moved, path_of_study
from easeml_core.data.columns import text_column_of
from easeml_core.data.sources.files import unpack_upload
from easeml_core.data.sources.images import require_few_pixels
from easeml_core.errors import EasemlError, InvalidInputError
from easeml_core.files.local import scratch_folder
from easeml_core.services.reports.study import use_of_study
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fastapi.responses import RedirectResponse
    from starlette.datastructures import FormData, UploadFile

    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Study
    from easeml_core.services.datasets.refine import PairList, SuspiciousPairs
    from easeml_core.services.models.inference import Inferred


MOST_FIELDS = 60
"""A wider row is pasted as numbers."""

CELL = "cell:"
"""Before the name of a column in the name of its field."""

MOST_SHOWN = 50
"""Answers that the page shows; a file has all of them."""


@dataclass(frozen=True, slots=True)
class RowField:
    """A field for one column of the data.

    Attributes:
        name: The column.
        words: What stands in it, where that is one of a few words; empty otherwise.
        is_text: Whether it is free text.
    """

    name: str
    words: tuple[str, ...] = ()
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model has answered.

    Attributes:
        labels: The first answers, in the order of the rows.
        chances: For each of them class and probability, the likeliest first; empty if not requested.
        columns: What the rows came with, by name, as many as the labels.
        rows: How many were asked about.
        model: Which model answered: its number, and what it is.
        total_ms: How long it took, in milliseconds.
    """

    labels: Sequence[str]
    chances: Sequence[Sequence[tuple[str, float]]]
    columns: Mapping[str, Sequence[str]]
    rows: int
    model: str
    total_ms: float


def row_fields(columns: Sequence[str] | None) -> list[RowField]:
    """The fields of a row, in the order of the data; none where its columns have no names, or are too many.

    A model is given ``COLUMN=WORD`` of 0 and 1 for each word of a column, and ``text_COLUMN_NUMBER`` for free text; a
    person gives the column itself.

    Example:
        >>> row_fields(["size", "colour=red", "colour=blue", "text_note_0", "text_note_1"])[1].words
        ('red', 'blue')
    """
    found: dict[str, list[str]] = {}
    for column in columns or ():
        name, _, word = column.partition("=")
        found.setdefault(text_column_of(column) or (name if word else column), []).append(column)
    fields = []
    for name, made_of in found.items():
        is_words = len(made_of) > 1 and all(column.startswith(f"{name}=") for column in made_of)
        is_text = not is_words and all(text_column_of(column) for column in made_of)
        if is_words:
            fields.append(RowField(name, tuple(column[len(name) + 1 :] for column in made_of)))
        elif is_text:
            fields.append(RowField(name, is_text=True))
        else:
            fields += [RowField(column) for column in made_of]
    return fields if len(fields) <= MOST_FIELDS else []


def inputs_of(values: Mapping[str, str]) -> Any:
    """The row in a form: its fields by column, or the pasted numbers."""
    cells = {name[len(CELL) :]: text for name, text in values.items() if name.startswith(CELL)}
    if cells:
        return cells
    pasted = values.get("numbers", "").strip().strip("[]")
    require(bool(pasted), "row", pasted, "given: fill in its fields, or paste its numbers")
    return [_number(part) for part in re.split(r"[\s,;]+", pasted) if part]


def answers_of(found: Inferred, *, with_columns: bool) -> Answers:
    """What the model has answered, as the page shows it; ``with_columns`` where the rows came in a file."""
    columns = list(found.columns.items())[:8] if with_columns else []
    return Answers(
        labels=[_label(label) for label in found.labels[:MOST_SHOWN]],
        chances=[
            sorted(row.items(), key=lambda pair: -pair[1])[:5] for row in (found.probabilities or [])[:MOST_SHOWN]
        ],
        columns={name: cells[:MOST_SHOWN] for name, cells in columns},
        rows=len(found.labels),
        model=f"model {found.model_id}, {found.candidate or 'handed in'}, of data version {found.data_version}",
        total_ms=found.latency.total_ms,
    )


def _label(label: object) -> str:
    if isinstance(label, list):
        shown = ", ".join(map(str, label[:8]))
        return f"[{shown}{', ...' if len(label) > 8 else ''}]"
    return f"{label:g}" if isinstance(label, float) else str(label)


def _number(text: str) -> float | str | None:
    """A number, or nothing for a missing one; anything else is refused by the model's own check, with its words."""
    if text.lower() in ("null", "none", "nan"):
        return None
    try:
        return float(text)
    except ValueError:
        return text


STUDY_TAB = Tab("/use", "Use")

CLIENT = Path(__file__).parents[1] / "easeml_client.py"
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
