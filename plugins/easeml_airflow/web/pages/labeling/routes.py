"""The labelling desk: which batches wait, and one example after another; for labelers and referees only.

The page is fed by the referee's address, but shows what a labeler may see: examples, classes, and their own progress.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import Response

from easeml_airflow import settings
from easeml_airflow.web.pages.labeling.view import KEYS, specimen_of
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import HEADERS, Tab, desk_path, moved
from easeml_airflow.web.server.uploads import Intake, file_of, on_disk
from easeml_core.config import require
from easeml_core.errors import InvalidInputError
from easeml_core.files import scratch_folder
from easeml_core.services.labeling import adjudication
from easeml_core.services.labeling import desk as labelling
from easeml_core.services.labeling.requests import give_labels, wanted_labels
from easeml_core.store.database import Store  # noqa: TC001 - FastAPI reads annotations while the app runs
from easeml_core.store.tables.labels import REFEREE

if TYPE_CHECKING:
    from fastapi.responses import HTMLResponse, RedirectResponse
    from starlette.datastructures import FormData

    from easeml_airflow.web.server.site import Site

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
    """The name under which their labels are kept; the name that settles conflicts is a referee's.

    Raises:
        HTTPException: 403 for a user who is no labeler.
    """
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
