"""The labelling desk: which batches wait, and one example after another; for labelers and referees only.

The page is fed by the referee's address, but shows what a labeler may see: examples, classes, and their own progress.

An example is shown as a picture, as lines over time, or as names with values.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import Response

from easeml_airflow import settings
from easeml_airflow.web.components.charts import Axis, Line, Plot
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.request_limits import Intake, file_of, on_disk
from easeml_airflow.web.server.site import HEADERS, Tab, desk_path, moved
from easeml_core.data.columns import text_column_of
from easeml_core.errors import InvalidInputError
from easeml_core.files.local import scratch_folder
from easeml_core.services.labeling import adjudication
from easeml_core.services.labeling import desk as labelling
from easeml_core.services.labeling.requests import give_labels, wanted_labels
from easeml_core.settings.config import require
from easeml_core.store.database import Store  # noqa: TC001 - FastAPI reads annotations while the app runs
from easeml_core.store.tables.labels import REFEREE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastapi.responses import HTMLResponse, RedirectResponse
    from numpy.typing import NDArray
    from starlette.datastructures import FormData

    from easeml_airflow.web.server.site import Site
    from easeml_core.services.labeling.desk import DeskExample
    from easeml_core.store.tables.labels import ExampleLayout


MOST_PIXELS = 4_000_000
COLOURS = {1: 0, 3: 2, 4: 6}
"""Channels to PNG's kind of colour: grey, red-green-blue, and that with transparency."""


def data_uri(picture: NDArray[np.float32]) -> str:
    """The picture as an address that holds it.

    Values in [0, 1] or [0, 255] keep their brightness; others are stretched from their least to their greatest. Of a
    number of channels that is no colour, the first is shown in grey.

    Example:
        >>> data_uri(np.zeros((1, 1, 1), dtype=np.float32))[:32]
        'data:image/png;base64,iVBORw0KGg'
    """
    height, width, channels = picture.shape
    if height * width > MOST_PIXELS:
        message = f"a picture of {height:,} by {width:,} pixels is too large to be shown; at most {MOST_PIXELS:,} are"
        raise InvalidInputError(message)
    shown = picture if channels in COLOURS else picture[:, :, :1]
    return "data:image/png;base64," + base64.b64encode(encoded(_bytes(shown))).decode()


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of these pixels, shape (height, width, channels) with 1, 3 or 4 channels."""
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, COLOURS[channels], 0, 0, 0)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * channels)], axis=1)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bytes(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    held = picture[np.isfinite(picture)]
    low, high = (float(held.min()), float(held.max())) if held.size else (0.0, 0.0)
    if low >= 0 and (high <= 1 or 64 < high <= 255):
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    values = np.nan_to_num((picture - low) / (high - low or 1.0), nan=0.0, posinf=1.0, neginf=0.0)
    return np.asarray(np.clip(np.rint(values * 255), 0, 255), dtype=np.uint8)


MOST_PAIRS = 200
MOST_LINES = 8
LONG_TEXT = 80
"""Characters from which a cell is text to read, not a value."""

KEYS = 10
"""Classes that have a key: 1 to 9, and 0 for the tenth."""


@dataclass(frozen=True, slots=True)
class Series:
    """One channel of a series: a line, and the range of its values."""

    name: str
    low: str
    high: str
    plot: Plot


@dataclass(frozen=True, slots=True)
class Specimen:
    """One example as people see it; what does not apply is empty.

    Attributes:
        picture: Address that holds the picture.
        sentence: What the picture is, for who cannot see it.
        series: Lines over time.
        texts: Names and texts to read.
        pairs: Names and values.
        left_out: Pairs that there is no room for.
    """

    picture: str = ""
    sentence: str = ""
    series: Sequence[Series] = ()
    texts: Sequence[tuple[str, str]] = ()
    pairs: Sequence[tuple[str, str]] = ()
    left_out: int = 0


def specimen_of(example: DeskExample, layout: ExampleLayout | None) -> Specimen:
    """The example on the desk, by what its numbers stand for."""
    values = np.array([np.nan if value is None else value for value in example.inputs], dtype=np.float32)
    if layout is not None and layout.kind == "image":
        height, width, channels = layout.shape
        sentence = f"Example {example.example}: picture of {height} by {width} pixels"
        return Specimen(picture=data_uri(values.reshape(height, width, channels)), sentence=sentence)
    if layout is not None and layout.kind == "series":
        return Specimen(series=list(_lines(values.reshape(layout.shape))))
    cells = example.cells or _decoded(example.columns, values)
    texts = [(name, text) for name, text in cells if len(text) > LONG_TEXT]
    pairs = [(name, text or "missing") for name, text in cells if len(text) <= LONG_TEXT]
    return Specimen(texts=texts, pairs=pairs[:MOST_PAIRS], left_out=max(0, len(pairs) - MOST_PAIRS))


def _lines(steps: NDArray[np.float32]) -> Iterator[Series]:
    """The channels of a series, shape (steps, channels), without the steps after its end."""
    for channel in range(min(steps.shape[1], MOST_LINES)):
        values = steps[:, channel]
        points = [(float(place), float(value)) for place, value in enumerate(values) if np.isfinite(value)]
        low, high = min((y for _, y in points), default=0.0), max((y for _, y in points), default=0.0)
        axes = Axis(0, max(len(values) - 1, 1)), Axis(low, high if high > low else low + 1)
        plot = Plot("", "", *axes, lines=[Line(points)])
        yield Series(f"channel {channel + 1}, {len(points):,} steps", f"{low:g}", f"{high:g}", plot)


def _decoded(columns: Sequence[str] | None, values: NDArray[np.float32]) -> list[tuple[str, str]]:
    """Names and values as they were before words became columns of 0 and 1.

    Example:
        >>> _decoded(["carat", "color=E", "color=F"], np.array([0.3, 0, 1], dtype=np.float32))
        [('carat', '0.3'), ('color', 'F')]
    """
    names = columns or [f"x{place}" for place in range(1, len(values) + 1)]
    shown = []
    for name, group in groupby(zip(names, values, strict=True), key=lambda pair: _origin(pair[0])):
        cells = list(group)
        if "=" in cells[0][0]:
            shown.append((name, _word(cells)))
        elif text_column_of(cells[0][0]) and len(cells) > 1:
            shown.append((name, "text that was not kept, only numbers made of it"))
        else:
            shown += [(column, "" if np.isnan(value) else f"{value:.6g}") for column, value in cells]
    return shown


def _origin(column: str) -> str:
    """The column of the file that an encoded column was made of."""
    return text_column_of(column) or column.partition("=")[0]


def _word(cells: Sequence[tuple[str, np.float32]]) -> str:
    said = [column.partition("=")[2] for column, value in cells if value == 1]
    return said[0] if said else "missing or rare"


ROLES = (Role.LABELER, Role.REFEREE)
TAB = Tab("/labels", "Labels", frozenset(ROLES))

CANNOT_TELL = "unsure"
MOST_BESIDE = 12
"""Batches that are listed beside the one on the desk; ``/labels`` has all."""
MOST_ROWS = 100_000
MOST_BYTES = 8_000_000
"""Of a file of labels: a hundred thousand lines of eighty characters."""

Place = Annotated[int, Form()]
Word = Annotated[str, Form(max_length=12)]


def routes(site: Site) -> APIRouter:
    """``/labels`` and below: the list, the desk of one study, and what is said there."""
    router, who, intake = APIRouter(), Depends(site.viewer), Intake()

    @router.get("/labels")
    def show(request: Request, viewer: Viewer = who) -> HTMLResponse:
        name, store = _labeler(viewer), site.open_sealed()
        found = labelling.batches(store, labeler=name)
        people = labelling.labelers(store) if viewer.is_referee else []
        referees, labelers = sorted(settings.referees()), sorted(settings.labelers())
        return site.page(
            request, viewer, "labels.html", batches=found, people=people, referees=referees, labelers=labelers
        )

    @router.get("/labels/{study}")
    def desk(
        request: Request,
        study: str,
        at: int | None = None,
        saved: int | None = None,
        settle: int | None = None,
        viewer: Viewer = who,
    ) -> HTMLResponse:
        name, store = _labeler(viewer), site.open_sealed()
        found = labelling.desk(
            store, study=study, labeler=name, at=at, last=saved, decides=viewer.is_referee, settles=settle
        )
        shown = None if found.example is None else specimen_of(found.example, found.layout)
        queue = labelling.batches(store, labeler=name, limit=MOST_BESIDE)
        return site.page(request, viewer, "labels_desk.html", desk=found, specimen=shown, queue=queue, keys=KEYS)

    @router.post("/labels/{study}")
    def say(
        request: Request, study: str, test_set_id: Place, place: Place, label: Word, viewer: Viewer = who
    ) -> RedirectResponse:
        name = _labeler(viewer)
        said = _class(label)
        labelling.say(site.open_sealed(), study=study, test_set_id=test_set_id, labeler=name, place=place, label=said)
        return moved(request, f"{desk_path(study)}?saved={place}")

    @router.post("/labels/{study}/undo")
    def undo(request: Request, study: str, test_set_id: Place, place: Place, viewer: Viewer = who) -> RedirectResponse:
        name = _labeler(viewer)
        labelling.take_back(site.open_sealed(), study=study, test_set_id=test_set_id, labeler=name, place=place)
        return moved(request, f"{desk_path(study)}?at={place}")

    @router.get("/labels/{study}/wanted.csv")
    def wanted(study: str, viewer: Viewer = who) -> Response:
        name, store = _labeler(viewer), site.open_sealed()
        test_set = labelling.set_to_label(store, study=study)
        with scratch_folder("wanted") as folder:
            path = Path(folder) / "wanted.csv"
            wanted_labels(store, study=study, test_set=test_set, labeler=name, limit=MOST_ROWS, to=path)
            content = path.read_bytes()
        named = {"Content-Disposition": 'attachment; filename="wanted.csv"'}
        return Response(content, media_type="text/csv; charset=utf-8", headers=HEADERS | named)

    @router.post("/labels/{study}/file")
    async def file(request: Request, study: str, viewer: Viewer = who) -> Response:
        name = _labeler(viewer)

        def work(form: FormData) -> Response:
            store, labels = site.open_sealed(), file_of(form, "labels")
            require(labels is not None, "labels", None, "a file")
            assert labels is not None
            test_set = labelling.set_to_label(store, study=study)
            with on_disk(labels) as path:
                try:
                    give_labels(store, study=study, test_set=test_set, labeler=name, labels=path)
                except InvalidInputError as error:
                    raise InvalidInputError(str(error).replace(str(path), "the file")) from error
            return moved(request, desk_path(study))

        return await intake.answer(request, work, who=viewer.name, most_bytes=MOST_BYTES)

    _what_the_referee_settles(site, router, who)
    return router


def _what_the_referee_settles(site: Site, router: APIRouter, who: Any) -> None:
    """Add the routes of conflicts and of examples that no labeler can tell: the referee decides, or asks again."""

    def referees(viewer: Viewer = who) -> Store:
        viewer.require(Role.REFEREE)
        return site.open_sealed()

    held = Depends(referees)

    @router.post("/labels/{study}/decide")
    def decide(
        request: Request, study: str, test_set_id: Place, place: Place, label: Word, store: Store = held
    ) -> RedirectResponse:
        said = _class(label)
        require(said is not None, "label", label, "the number of a class")
        assert said is not None
        adjudication.settle(store, study=study, test_set_id=test_set_id, place=place, label=said)
        return moved(request, desk_path(study))

    @router.post("/labels/{study}/again")
    def again(request: Request, study: str, test_set_id: Place, place: Place, store: Store = held) -> RedirectResponse:
        adjudication.ask_again(store, study=study, test_set_id=test_set_id, place=place)
        return moved(request, desk_path(study))


def _labeler(viewer: Viewer) -> str:
    """The name under which their labels are kept; the name that settles conflicts is a referee's."""
    viewer.require(*ROLES)
    name = labelling.labeler_name(viewer.name)
    if name == REFEREE and not viewer.is_referee:
        message = "the labeler 'referee' settles conflicts, and you are no referee; use an account of another name"
        raise HTTPException(status_code=403, detail=message)
    return name


def _class(label: str) -> int | None:
    """Return the number of a class, or None where the labeler cannot tell."""
    if label == CANNOT_TELL:
        return None
    if not label.isascii() or not label.isdecimal():
        message = f"a label is the number of a class, or {CANNOT_TELL!r}; got {label!r}"
        raise InvalidInputError(message)
    return int(label)
