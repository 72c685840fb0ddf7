"""The tab "Ease.ml" on a run of any DAG, and on its tasks: the trials and requests of the run.

A task's tab redirects to the page of its subject, or lists several. A browser may name any run: viewers see what is of
studies that they may see, and otherwise the same as for a run without trials and requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from easeml_airflow.web.components.action_items import allowed, visible
from easeml_airflow.web.pages.study.trials_table import cost_of, result_of, state_of, why_of
from easeml_airflow.web.server.airflow_runs import DOTS
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.formats import REFUSED, VERDICTS, WAITS, Mark, quality_text
from easeml_airflow.web.server.site import moved, path_of_study
from easeml_core.entities import RequestKind, TrialState
from easeml_core.errors import counted
from easeml_core.store.queries import submissions
from easeml_core.store.queries.timeline import MOST, requests_of, trials_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from fastapi.responses import HTMLResponse, Response

    from easeml_airflow.web.server.site import Site
    from easeml_core.store.queries.timeline import DagRunRequest, DagRunTrial


UNMAPPED = "-1"

_KINDS = {
    RequestKind.SEAL: ("Study registered", "", "Sealed"),
    RequestKind.GATE: ("Gate asked", "/gate", "Answered"),
    RequestKind.METER: ("Meter asked", "/meter", "Answered"),
    RequestKind.PROMOTE: ("Promotion asked", "/gate", "Promoted"),
    RequestKind.ROLLBACK: ("Rollback asked", "/gate", "Rolled back"),
    RequestKind.FORCE: ("Promotion without the gate asked", "/gate", "Promoted without the gate"),
    RequestKind.REFRESH: ("Refresh asked", "/data", "Refreshed"),
    "submission": ("Model handed in", "/submissions", "Handed in"),
    "feed": ("Pairs fed", "/data", "Fed"),
}
"""Its words, the page of the study that is about it, and how it ends well."""

_AT_ONCE = ("submission", "feed")
"""What needs no answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """A run of a DAG, or one of its tasks, as Airflow names them.

    Attributes:
        dag: Id of the DAG.
        run: Id of its run.
        task: Id of the task; empty for the whole run.
        index: Of a mapped task; -1 of others.
    """

    dag: str
    run: str
    task: str = ""
    index: str = UNMAPPED

    @classmethod
    def of(cls, dag: str, run: str, task: str = "", index: str = "") -> Place:
        """From an address in which Airflow has filled in its names.

        Airflow leaves ``{MAP_INDEX}`` as it is where a task is not mapped.

        Example:
            >>> Place.of("nightly", "r 1", "train", "{MAP_INDEX}").key, Place.of("nightly", "r 1", "train", "3").key
            ('nightly/r 1/train/-1', 'nightly/r 1/train/3')
        """
        is_mapped = index.isascii() and index.isdecimal() and len(index) < 10
        return cls(dag, run, task, str(int(index)) if is_mapped else UNMAPPED)

    @property
    def run_key(self) -> str:
        """What the request keys of the run's tasks begin with."""
        return f"{self.dag}/{self.run}"

    @property
    def key(self) -> str:
        """The request key of the task, or that of the run."""
        return f"{self.run_key}/{self.task}/{self.index}" if self.task else self.run_key

    @property
    def key_of_all(self) -> str:
        """What the requests of all instances of a mapped task begin with, where they name their study."""
        return f"{self.run_key}/{self.task}/all" if self.task else self.run_key

    @property
    def word(self) -> str:
        """What it is."""
        return "task" if self.task else "run"

    @property
    def is_named(self) -> bool:
        """Whether Airflow could have filled it in: no name is empty, or a folder's."""
        parts = (self.dag, self.run, self.task) if self.task else (self.dag, self.run)
        return all(parts) and DOTS.isdisjoint(parts)

    @property
    def names(self) -> list[tuple[str, str]]:
        """Each name with what it is a name of."""
        mapped = "" if self.index == UNMAPPED else self.index
        names = [("DAG", self.dag), ("run", self.run), ("task", self.task), ("map index", mapped)]
        return [(word, name) for word, name in names if name]


@dataclass(frozen=True, slots=True)
class TrialLine:
    """One trial; ``here`` says what was done about it here."""

    trial_id: int
    candidate: str
    study: str
    href: str
    study_href: str
    state: Mark
    here: str
    why: str
    quality: str
    cost: str


@dataclass(frozen=True, slots=True)
class AskedLine:
    """One thing that was asked for, handed in or fed; ``model`` is what people call it, empty where none is meant."""

    what: str
    study: str
    href: str
    study_href: str
    model: str
    at: datetime
    result: Mark


@dataclass(frozen=True, slots=True)
class Page:
    """What the template names; ``is_cut`` says that there is more than is shown."""

    place: Place
    now: tuple[str, str]
    trials: list[TrialLine]
    asked: list[AskedLine]
    is_cut: bool

    @property
    def paths(self) -> set[str]:
        """The pages about each of it."""
        return {line.href for line in self.trials} | {line.href for line in self.asked}


def page_of(
    place: Place,
    trials: Sequence[DagRunTrial],
    asked: Sequence[DagRunRequest],
    names: Mapping[int, str],
    viewer: Viewer,
) -> Page:
    """The page."""
    return Page(
        place=place,
        now=_now(place, trials, asked),
        trials=[_trial(trial) for trial in trials],
        asked=[_asked(entry, names, viewer) for entry in asked],
        is_cut=max(len(trials), len(asked)) >= MOST,
    )


def _now(place: Place, trials: Sequence[DagRunTrial], asked: Sequence[DagRunRequest]) -> tuple[str, str]:
    if not trials and not asked:
        return f"This {place.word} asked nothing of Ease.ml.", "Nothing here that you may see bears its name."
    studies = {trial.study for trial in trials} | {entry.study for entry in asked}
    about = f"study {studies.pop()}" if len(studies) == 1 else counted(len(studies), "study", "studies")
    ended = sum(trial.state == TrialState.SUCCEEDED for trial in trials)
    parts = [f"{counted(len(trials), 'trial')}, of which {ended} succeeded"] if trials else []
    parts += [f"{counted(len(asked), 'thing')} asked for, handed in or fed"] if asked else []
    return f"{'; '.join(parts)}.", f"All of it is about {about}."


def _trial(trial: DagRunTrial) -> TrialLine:
    path = path_of_study(trial.study)
    done = {"suggested": trial.is_asked, "trained": trial.is_trained}
    return TrialLine(
        trial_id=trial.trial_id,
        candidate=trial.candidate,
        study=trial.study,
        href=f"{path}/decisions/{trial.trial_id}",
        study_href=path,
        state=state_of(trial),
        here=" and ".join(word for word, is_so in done.items() if is_so),
        why=why_of(trial),
        quality="none" if (quality := result_of(trial)) is None else quality_text(quality),
        cost=cost_of(trial),
    )


def _asked(entry: DagRunRequest, names: Mapping[int, str], viewer: Viewer) -> AskedLine:
    what, below, _ = _KINDS[entry.kind]
    path, model = path_of_study(entry.study), entry.model_id
    return AskedLine(
        what=what,
        study=entry.study,
        href=allowed(f"{path}{below}", viewer),
        study_href=path,
        model="" if model is None else f"{names.get(model, 'model')}, model {model}",
        at=entry.at,
        result=_result(entry),
    )


def _result(entry: DagRunRequest) -> Mark:
    """How it ended, as far as every viewer of the study may know."""
    if entry.is_refused:
        return REFUSED
    if entry.symbol:
        return Mark(*VERDICTS[entry.symbol])
    if entry.signal:
        return Mark("busy", "info", f"Signal {entry.signal} of {entry.signals}")
    if entry.is_answered or entry.kind in _AT_ONCE:
        return Mark("ok", "done", _KINDS[entry.kind][2])
    return WAITS


Name = Annotated[str, Query(max_length=250)]
"""Airflow's own limit of its names."""


def routes(site: Site) -> APIRouter:
    """``/of-run`` and ``/of-task``; names are in the query, where a slash in one of them is no folder."""
    router, who = APIRouter(), Depends(site.viewer)

    @router.get("/of-run")
    def of_run(request: Request, dag: Name, run: Name, viewer: Viewer = who) -> HTMLResponse:
        return site.page(request, viewer, "of_run.html", shown=_found(site, viewer, Place.of(dag, run)))

    @router.get("/of-task")
    def of_task(request: Request, dag: Name, run: Name, task: Name, index: Name = "", viewer: Viewer = who) -> Response:
        shown = _found(site, viewer, Place.of(dag, run, task, index))
        if len(shown.paths) == 1:
            return moved(request, shown.paths.pop())
        return site.page(request, viewer, "of_run.html", shown=shown)

    return router


def _found(site: Site, viewer: Viewer, place: Place) -> Page:
    """What was done there, of what this person may see."""
    if not place.is_named:
        raise HTTPException(status_code=404, detail=f"Airflow has no {place.word} of this name")
    store = site.open_store()
    studies = visible(store, viewer)
    with store.begin() as tx:
        trials = trials_of(tx, run=place.run_key, key=place.key, studies=studies)
        asked = requests_of(tx, key=place.key, studies=studies)
        asked = asked or requests_of(tx, key=place.key_of_all, studies=studies)
        names = submissions.names_of(tx, sorted({a.model_id for a in asked if a.model_id is not None}))
    return page_of(place, trials, asked, names, viewer)
