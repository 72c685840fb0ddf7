"""A new study, for a tenant without a line of code: bring data, see its program, set what matters, and submit.

Works as plain forms. Between two steps the server keeps nothing but the file, by the hash of its content; all else is
in the form. Data are looked at in a child process with limits, a few at a time.
"""

from __future__ import annotations

import json
import math
import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from easeml_airflow.web.components.condition_field import Check, check_of, read_condition
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.request_limits import DayLimit, Intake, Turns, file_of, on_disk, text_of
from easeml_airflow.web.server.site import Tab, moved, path_of_study
from easeml_core.actions.action import read, require_may
from easeml_core.actions.studies import RegisterStudy
from easeml_core.data.sources.spec import is_upload, known_sources, parse_source, upload_of
from easeml_core.entities import Adaptivity, Parameters, Task
from easeml_core.errors import EasemlError, InvalidInputError, ProgramError, StateError
from easeml_core.gate.condition import parse_condition
from easeml_core.metrics.metric import METRICS
from easeml_core.services.registration.preview import MatchReport, look_at_data, match_of, planned_parts
from easeml_core.services.registration.register import register_study
from easeml_core.services.studies.limits import list_tenants
from easeml_core.services.studies.uploads import KEPT_DAYS, keep_upload
from easeml_core.settings.config import GateConfig, MeterConfig, require
from easeml_core.settings.limits import LONGEST_TEXT, NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi.responses import Response
    from starlette.datastructures import UploadFile

    from easeml_airflow.web.server.site import Site
    from easeml_core.data.inference.result import DataPreview
    from easeml_core.data.sources.spec import UploadName
    from easeml_core.store.artifacts.local import ArtifactStore


LONGEST = {"program": 200_000, "source": LONGEST_TEXT}
ADAPTIVITIES = {
    str(Adaptivity.FULL): "pass or fail, each time",
    str(Adaptivity.NONE): "nothing; the verdict goes to the referee alone",
    str(Adaptivity.FIRST_CHANGE): "pass or fail; the set ends at the first pass",
    str(Adaptivity.RECYCLE): "pass or fail; each pass costs more",
    "upTo:3": "pass or fail; the set ends at the third pass",
}
"""What a gate may be asked for, and what a developer then learns."""

_GATE, _METER = GateConfig(), MeterConfig()


@dataclass(frozen=True, slots=True)
class Draft:
    """The fields of the form, as text; the server keeps nothing else between two steps."""

    study: str = ""
    tenant: str = ""
    source: str = ""
    target: str = ""
    task: str = ""
    split: str = "rows"
    split_column: str = ""
    id_column: str = ""
    step_column: str = ""
    program: str = ""
    metric: str = ""
    own_metric: str = ""
    hit: str = ""
    budget_hours: str = ""
    target_quality: str = ""
    weight: str = "1"
    condition: str = _GATE.condition
    gate_reliability: str = str(_GATE.reliability)
    gate_steps: str = str(_GATE.steps)
    adaptivity: str = _GATE.adaptivity
    mode: str = _GATE.mode
    ranges: str = ", ".join(map(str, _METER.ranges))
    meter_tolerance: str = str(_METER.tolerance)
    meter_reliability: str = str(_METER.reliability)
    meter_steps: str = str(_METER.steps)
    request_key: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def split_text(self) -> str:
        """How rows are divided, as a study says it."""
        return "rows" if self.split == "rows" or not self.split_column else f"{self.split}:{self.split_column}"

    @property
    def upload(self) -> UploadName | None:
        """The upload that the source names; None for another source."""
        source = parse_source(self.source)
        return upload_of(source.name) if is_upload(source.name) else None

    @property
    def asked(self) -> dict[str, str]:
        """What was said of the data, for ``look_at_data``."""
        named = {"target": self.target, "task": self.task, "split": self.split_text}
        return named | {"id_column": self.id_column, "step_column": self.step_column}

    @property
    def gate(self) -> Parameters:
        """Settings of the gate; a wrong one is refused with its name."""
        return {
            "condition": self.condition,
            "reliability": _number("reliability of the gate", self.gate_reliability),
            "steps": _whole("verdicts", self.gate_steps),
            "adaptivity": self.adaptivity,
            "mode": self.mode,
        }

    @property
    def meter(self) -> Parameters:
        """Likewise of the meter."""
        return {
            "ranges": [_number("edges of the ranges", edge) for edge in self.ranges.split(",")],
            "tolerance": _number("tolerance of the meter", self.meter_tolerance),
            "reliability": _number("reliability of the meter", self.meter_reliability),
            "steps": _whole("submissions", self.meter_steps),
        }

    @property
    def request(self) -> RegisterStudy:
        """The request; a field that is none of what is allowed is refused with what is."""
        hours = _number("budget", self.budget_hours) if self.budget_hours else None
        named = ("study", "tenant", "source", "target", "task", "hit", "program", "target_quality", "weight")
        return read(
            RegisterStudy,
            {name: getattr(self, name) for name in named}
            | {"metric": self.own_metric or self.metric, "split": self.split_text, "gate": self.gate}
            | {"meter": self.meter, "budget_seconds": None if hours is None else 3600 * hours},
        )


@dataclass(frozen=True, slots=True)
class Checks:
    """What is said of a draft.

    Attributes:
        program: Whether the program can be read, and where not; None for an empty one.
        match: The template and its candidates; None where the program cannot be read.
        condition: Of the gate's condition.
        parts: Name of each part and its rows; empty where they are not known.
        problem: Why it cannot be registered so, as far as can be seen; empty for nothing.
    """

    program: Check | None
    match: MatchReport | None
    condition: Check
    parts: Sequence[tuple[str, int, float]] = ()
    problem: str = ""


def draft_of(values: Mapping[str, str]) -> Draft:
    """The draft of a form; what it does not have keeps its default."""
    names = [f.name for f in fields(Draft)]
    return Draft(**{name: values[name] for name in names if values.get(name) is not None and name in values})


def checks_of(draft: Draft, *, rows: int | None, plans: bool) -> Checks:
    """Check a draft."""
    condition, wrong = read_condition(draft.condition)
    checked = check_of(draft.condition, wrong, condition or parse_condition(_GATE.condition))
    program, match = _program(draft)
    problem = "" if checked.is_sound and (program is None or program.is_sound) else "see what is marked above"
    parts: list[tuple[str, int, float]] = []
    if plans and rows and checked.is_sound:
        try:
            sizes = _planned(rows, json.dumps(draft.gate), json.dumps(draft.meter))
            parts = [(name, size, 100 * size / rows) for name, size in sizes.items()]
        except EasemlError as error:
            problem = str(error)
    return Checks(program, match, checked, parts, problem)


def metrics_of(task: str) -> list[tuple[str, str]]:
    """The metrics that suit a task, each as a choice and its word; all where the task is not known."""
    tasks = {True: Task.REGRESSION, False: Task.CLASSIFICATION}
    return [(name, name) for name, metric in METRICS.items() if task in ("", tasks[metric.needs == "numbers"])]


@lru_cache(maxsize=256)
def _planned(rows: int, gate: str, meter: str) -> dict[str, int]:
    """Return ``planned_parts`` of JSON; cached while the user edits another field."""
    return planned_parts(rows, gate=json.loads(gate), meter=json.loads(meter))


def _program(draft: Draft) -> tuple[Check | None, MatchReport | None]:
    if not draft.program.strip():
        return None, None
    try:
        found = match_of(draft.program, task=draft.task or None)
    except ProgramError as error:
        return _pointed(error), None
    except InvalidInputError as error:
        return Check([(draft.program[:200], "")], "", str(error), is_sound=False), None
    said = f"Reads as {'no template' if found.template is None else f'template {found.template}'}"
    return Check([(found.canonical, "")], "", said, is_sound=True), found


def _pointed(error: ProgramError) -> Check:
    """The line in which the mistake is, with carets under it."""
    place = error.source.rfind("\n", 0, error.start) + 1
    line = error.source[place:].partition("\n")[0] if error.source else ""
    begin = max(0, error.start - place - 60)
    shown = "".join(c if c.isprintable() else " " for c in line[begin : begin + 100])
    first = error.start - place - begin
    last = min(max(first + 1, error.end - place - begin), max(len(shown), first + 1))
    pieces = [(shown[:first], ""), (shown[first:last], "wrong"), (shown[last:], "")]
    caret = " " * first + "^" * (last - first)
    where = f"Line {error.line}, column {error.column}: " if error.source else ""
    return Check([p for p in pieces if p[0]], caret, where + error.message, is_sound=False)


def _number(name: str, text: str) -> float:
    try:
        found = float(text.strip()) if len(text) <= 40 else math.nan
    except ValueError:
        found = math.nan
    require(math.isfinite(found), name, text[:40], "a number")
    return found


def _whole(name: str, text: str) -> int:
    text = text.strip()
    require(text.isascii() and text.isdigit() and len(text) <= 9, name, text[:40], "a whole number")
    return int(text)


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
            wanted = draft.request
            require_may(wanted, is_operator=viewer.is_operator)
            register_study(self._site.open_store(), wanted, request_key=f"page/{viewer.name}/{draft.request_key}")
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
    """Refuse names that cannot be, and tenants that they may do nothing for."""
    for name in ("study", "tenant"):
        NAME.check(name, getattr(draft, name)[:80])
    if not viewer.changes(draft.study, draft.tenant):
        message = (
            f"you may not register studies of tenant {draft.tenant!r}; this needs the right to trigger the DAG of its "
            "studies ([easeml] api_dag of Airflow's configuration)"
        )
        raise HTTPException(status_code=403, detail=message)
