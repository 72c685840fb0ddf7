"""Mirror the database in MLflow, one way.

Runs and versions are found again by their tags, so nothing is stored here: a sync that is repeated, or was killed, adds
what is missing and nothing twice. Training and promotion never wait for it.

A trial is a run, created with its tag, filled, and then ended; one that a kill left unfinished is filled again with
equal values at equal times, which MLflow keeps once. A model that passed the gate or was in production is a version of
the study's registered model, and an alias follows production. Its file is kept as it is, with a page on how to load it:
MLflow's flavours load models by pickle or by running their code, which Ease.ml never does.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from easeml_core.entities import TrialState
from easeml_core.errors import InvalidInputError, StateError, StoreError, StoreUnavailableError
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.settings.config import require
from easeml_core.store.database import lock
from easeml_core.store.queries import external
from easeml_core.store.tables import studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from easeml_core.entities import Parameters
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.queries.external import MirroredStudy, MirroredTrial, ReleasedModel
    from easeml_core.store.tables.trials import CurvePoint

logger = logging.getLogger(__name__)

ADDRESS = "MLFLOW_TRACKING_URI"
"""MLflow's own variable for the address of its server."""

STATUS = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "CANCELLED": "KILLED"}
"""State of a trial -> status of its run."""

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # only the server receives anything
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # about 12 s; its own default is 4 minutes, and the next sync is a retry
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's variables that are set here where the environment does not set them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_RESERVED = re.compile(r"latest|v[0-9]+", re.IGNORECASE)
_PARAMETER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_. -]{0,249}")
"""Names of parameters that MLflow takes; all parameters together are a tag, whatever their names."""

_TAGS = (
    *("data_version", "candidate", "kind", "state", "failure", "failure_kind", "attempt", "device"),
    *("reevaluates", "implementation", "checked"),
)
"""Fields of a trial that are tags of its run."""

_ALL_ENDED = "easeml.ended_trials"
"""Tag of an experiment: how many ended and checked trials its runs show. Trials never vanish, so counts suffice."""
_ALSO_DELETED = 3
"""MLflow's number for existing and deleted runs: a deleted one is not created again."""
_PAGE, _MOST_PARAMETERS, _MOST_METRICS = 1000, 100, 1000  # of one request; MLflow refuses more
_LONGEST_TAG, _LONGEST_SENTENCE = 4000, 500
_MOST_REFUSALS = 10  # of a study's trials in one sync, and in one message: more have one cause

_FOLDER = "model"
_NOTE = "A copy of what easeml's database says. What is changed here changes nothing there."
_LOADED = """
```python
from pathlib import Path
from easeml_core.models.formats import load_predictor

labels = load_predictor(Path("{file}"), "{format}").predict(inputs)  # float32, (rows, features), NaN for missing
```
"""
_README = """# Model {model_id} of study {study}

{file}: format {format}, content {artifact}.
{loaded}
It can be handed in elsewhere: `easeml submit {file} --study STUDY --format {format} --message "from MLflow"`.
"""


@dataclass(frozen=True, slots=True)
class Mirror:
    """The server and the names of a mirror.

    Attributes:
        tracking_uri: ``http(s)://HOST:PORT`` of the MLflow server; None for MLflow's own ``MLFLOW_TRACKING_URI``.
        prefix: Experiments are ``PREFIX/TENANT/STUDY``, registered models ``PREFIX.STUDY``. Two installations that
            share a server need two prefixes.
        alias: Of the version in production.

    Raises:
        ConfigError: MLflow does not allow one of the names.
    """

    tracking_uri: str | None = None
    prefix: str = "easeml"
    alias: str = "production"

    def __post_init__(self) -> None:
        wanted = "1 to 63 of letters, digits, '_', '.', '-', beginning with a letter or digit"
        require(_NAME.fullmatch(self.prefix) is not None, "prefix", self.prefix, wanted)
        free = _NAME.fullmatch(self.alias) is not None and _RESERVED.fullmatch(self.alias) is None
        require(free, "alias", self.alias, f"{wanted}, and neither 'latest' nor 'v1'")


@typed_record
class MirrorReport:
    """What a sync has added for one study: runs, versions, and the version in production; None where none is."""

    study: str
    experiment: str
    runs: int
    versions: int
    production_version: str | None


def sync(
    store: Store, artifacts: ArtifactStore, mirrored: Mirror, *, studies_only: Sequence[str] | None = None
) -> list[MirrorReport]:
    """Add to MLflow what the database has and it lacks.

    What MLflow refuses is tried again at the next sync; it stops nothing else.
    """
    client, refused = open_client(server_address(mirrored.tracking_uri)), list[str]()
    with store.begin() as tx:
        studies.require_studies(tx, studies_only or ())
        wanted = [s.study for s in external.mirrored_studies(tx, studies_only)]
    done = []
    for name in wanted:
        with _refusals(refused, f"study {name}"), store.begin() as tx:
            lock(tx, f"mlflow {name}")  # of two syncs at once the second waits, and finds it done
            (study,) = external.mirrored_studies(tx, [name])
            done.append(_StudyMirror(client, mirrored, study, refused).write(tx, artifacts))
    if refused:
        rest = f"; and {len(refused) - _MOST_REFUSALS} more, see the log" if len(refused) > _MOST_REFUSALS else ""
        message = f"not everything is in MLflow; the next sync tries again: {'; '.join(refused[:_MOST_REFUSALS])}{rest}"
        raise StateError(message)
    return done


def server_address(given: str | None) -> str:
    """Return the address of the server: the given one, else MLflow's own variable."""
    address = given or os.environ.get(ADDRESS, "")
    try:
        parts = urlsplit(address)
        secret, is_server = "@" in parts.netloc, parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        secret, is_server = "@" in address, False
    wanted = "without name and password: MLflow reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN"
    require(not secret, "tracking-uri", "...@...", wanted)
    require(is_server, "tracking-uri", address, f"http(s)://HOST:PORT of an MLflow server, or {ADDRESS} be set")
    return address


def open_client(address: str) -> Any:
    """Return MLflow's client of the server, before any request."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        mlflow = importlib.import_module("mlflow")
    except ModuleNotFoundError as error:
        remedy = "pip install 'easeml-airflow[mlflow]'"
        message = f"the mirror in MLflow needs the package mlflow-skinny ({error}): {remedy}"
        raise InvalidInputError(message) from error
    return mlflow.MlflowClient(tracking_uri=address)


@contextmanager
def _refusals(refused: list[str], what: str) -> Iterator[None]:
    """Confine an error to one item: append a sentence to ``refused``."""
    exceptions = importlib.import_module("mlflow.exceptions")
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # the store of files behind MLflow may be any, and raises what its library does
        if isinstance(error, exceptions.MlflowException) and not isinstance(error, exceptions.RestException):
            message = (
                f"the MLflow server cannot be used: {error}; start it, correct its address, or give MLflow's own "
                "variables what it asks for. Nothing else waits for it, and the next sync goes on from here"
            )
            raise StoreUnavailableError(message) from error
        logger.error("%s is not in MLflow: %s", what, error)
        refused.append(f"{what}: {error}"[:_LONGEST_SENTENCE])


def _pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """Yield every item of a search of MLflow's, page by page."""
    page = search(None)
    yield from page
    while page.token:
        page = search(page.token)
        yield from page


class _StudyMirror:
    """One study in MLflow.

    Args:
        client: MLflow's.
        mirrored: Names.
        study: The study.
        refused: Gets a sentence for each thing that MLflow refused.
    """

    def __init__(self, client: Any, mirrored: Mirror, study: MirroredStudy, refused: list[str]) -> None:
        self._client, self._mirrored, self._study, self._refused = client, mirrored, study, refused
        self._experiment = f"{mirrored.prefix}/{study.tenant}/{study.study}"
        self._model = f"{mirrored.prefix}.{study.study}"
        self._experiment_id = ""

    def write(self, tx: Connection, artifacts: ArtifactStore) -> MirrorReport:
        """Write runs first, since versions point to them, and the alias last."""
        done = MirrorReport(self._study.study, self._experiment, 0, 0, None)
        models = external.models_let_out(tx, self._study.id)
        if not models and not self._study.ended:
            return done
        experiment = self._find_experiment()
        self._experiment_id = experiment.experiment_id
        if experiment.tags.get(_ALL_ENDED) != self._study.progress:
            done = replace(done, runs=self._write_trials(tx))
        if models:
            versions = self._write_versions(models, artifacts.of_tenant(self._study.tenant))
            done = replace(done, versions=versions, production_version=self._point_alias())
        logger.info("%s: %d runs and %d versions added", done.experiment, done.runs, done.versions)
        return done

    def _find_experiment(self) -> Any:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            return self._client.get_experiment(self._client.create_experiment(self._experiment))
        if found.lifecycle_stage == "deleted":
            message = f"{self._experiment} was deleted in MLflow; restore it there, or give another prefix"
            raise StateError(message)
        return found

    def _runs(self, wanted: str = "") -> Iterator[Any]:
        where = ([self._experiment_id], wanted, _ALSO_DELETED, _PAGE)
        return _pages(lambda token: self._client.search_runs(*where, page_token=token))

    def _write_trials(self, tx: Connection) -> int:
        """Write the runs that are missing, page by page; return how many were written."""
        tag, written, last, refused = "easeml.trial_id", 0, 0, list[str]()
        known = {run.data.tags[tag]: run for run in self._runs() if tag in run.data.tags}
        while (page := external.ended_trials(tx, self._study.id, after_id=last)) and len(refused) < _MOST_REFUSALS:
            for trial in page:
                if _is_whole(found := known.get(str(trial.trial_id)), trial):
                    continue
                with _refusals(refused, f"trial {trial.trial_id}"):
                    self._write_run(_run_of_trial(trial), found, trials.curve_of(tx, trial.trial_id))
                    written += 1
                if len(refused) >= _MOST_REFUSALS:
                    break
            last = page[-1].trial_id
        if not refused:
            self._client.set_experiment_tag(self._experiment_id, _ALL_ENDED, self._study.progress)
        self._refused += refused
        return written

    def _write_run(self, run: _Run, found: Any, curve: Sequence[CurvePoint] = ()) -> str:
        """Create the run unless it was found, fill it, end it, and return its id."""
        begun, ended = (int(at.timestamp() * 1000) for at in (run.started_at, run.finished_at))
        if found is None:
            found = self._client.create_run(self._experiment_id, begun, {run.key: run.id}, run.name)
        run_id: str = found.info.run_id
        entities = importlib.import_module("mlflow.entities")
        whole = json.dumps(run.parameters, sort_keys=True, ensure_ascii=False)
        study = self._study
        tags: dict[str, object] = {"study": study.study, "tenant": study.tenant, "metric": study.metric}
        tags |= {**run.tags, "parameters": whole}
        all_tags = [entities.RunTag(f"easeml.{n}", _text(v)[:_LONGEST_TAG]) for n, v in tags.items() if v is not None]
        self._client.log_batch(run_id, tags=all_tags)
        plain = [entities.Param(n, _text(v)) for n, v in run.parameters.items() if _PARAMETER.fullmatch(n)]
        for begin in range(0, len(plain), _MOST_PARAMETERS):
            self._client.log_batch(run_id, params=plain[begin : begin + _MOST_PARAMETERS])
        figures: list[tuple[str, float | None, int, int]]
        figures = [("quality", run.quality, ended, 0), ("cost_seconds", run.cost_seconds, ended, 0)]
        if run.corrected is not None:  # MLflow takes the point of the last step as the metric's value
            figures.append(("quality", run.corrected[0], int(1000 * run.corrected[1].timestamp()), 1))
        for point in curve:
            at = begun + int(1000 * point.seconds), point.step
            figures += [("curve/quality", point.quality, *at), ("curve/loss", point.loss, *at)]
        points = [entities.Metric(*figure) for figure in figures if figure[1] is not None]
        for begin in range(0, len(points), _MOST_METRICS):
            self._client.log_batch(run_id, metrics=points[begin : begin + _MOST_METRICS])
        self._client.set_terminated(run_id, STATUS[run.state], ended)
        return run_id

    def _versions(self) -> dict[str, Any]:
        """The registered model's versions by the text of the model's id."""
        tag, where = "easeml.model_id", (f"name = '{self._model}'", _PAGE)
        found = _pages(lambda token: self._client.search_model_versions(*where, page_token=token))
        return {version.tags[tag]: version for version in found if tag in version.tags}

    def _write_versions(self, models: Sequence[ReleasedModel], artifacts: ArtifactStore) -> int:
        """Add the versions that are missing; return how many were added."""
        if not self._client.search_registered_models(f"name = '{self._model}'"):
            self._client.create_registered_model(self._model, {"easeml.study": self._study.study}, _NOTE)
        known, added = self._versions(), 0
        for model in models:
            with _refusals(self._refused, f"model {model.model_id}"):
                version = known.get(str(model.model_id))
                if version is None:
                    self._add_version(model, artifacts)
                    added += 1
                elif model.passed and "easeml.gate" not in version.tags:
                    self._client.set_model_version_tag(self._model, version.version, "easeml.gate", "pass")
        return added

    def _add_version(self, model: ReleasedModel, artifacts: ArtifactStore) -> None:
        """Store the file with its run, then create the version: a sync that is killed between does both again."""
        run_id = self._run_of(model)
        with artifacts.copy(model.artifact) as copy:
            file = copy.rename(copy.with_name(f"model.{model.format}"))
            words = {"study": self._study.study, "file": file.name, **row_of(model)}
            loaded = "It is a program, packed.\n" if model.format == "command" else _LOADED.format(**words)
            (file.parent / "README.md").write_text(_README.format(loaded=loaded, **words), encoding="utf-8")
            self._client.log_artifacts(run_id, str(file.parent), _FOLDER)
        tags = {"easeml.model_id": str(model.model_id), "easeml.artifact": model.artifact}
        tags |= {"easeml.format": model.format} | ({"easeml.gate": "pass"} if model.passed else {})
        self._client.create_model_version(
            self._model,
            f"runs:/{run_id}/{_FOLDER}",
            run_id,
            tags=tags,
            description=f"{model.format}; README.md beside the file says how it is loaded",
            await_creation_for=0,
        )

    def _run_of(self, model: ReleasedModel) -> str:
        """Return the run of the model's trial, or a separate one for a submitted model or a baseline."""
        key, number = ("model_id", model.model_id) if model.trial_id is None else ("trial_id", model.trial_id)
        found: Any = next(self._runs(f"tags.`easeml.{key}` = '{number}'"), None)
        if _is_whole(found):
            return str(found.info.run_id)
        if model.trial_id is not None:
            message = f"its trial {model.trial_id} is not in MLflow yet"
            raise StateError(message)
        return self._write_run(_run_of_model(model), found)

    def _point_alias(self) -> str | None:
        """Let the alias name the version of the model in production; return that version, None where there is none."""
        standing = self._versions().get(str(self._study.production_model_id))
        if standing is None:
            return None
        alias = self._mirrored.alias
        if self._client.get_registered_model(self._model).aliases.get(alias) != standing.version:
            self._client.set_registered_model_alias(self._model, alias, standing.version)
        return str(standing.version)


@dataclass(frozen=True, slots=True)
class _Run:
    """The contents of a run in MLflow, which the tag ``key`` with the value ``id`` finds again.

    ``tags`` come without the prefix ``easeml.``, and those that are None are left out. Quality is in [0, 1];
    ``corrected`` is what the referee has measured, and when, where the stated quality did not hold.
    """

    key: str
    id: str
    name: str
    state: str
    started_at: datetime
    finished_at: datetime
    parameters: Parameters
    tags: Mapping[str, object]
    quality: float | None
    cost_seconds: float | None = None
    corrected: tuple[float, datetime] | None = None


def _run_of_trial(trial: MirroredTrial) -> _Run:
    corrected = None
    if trial.checked == "not held" and trial.measured is not None and trial.checked_at is not None:
        corrected = trial.measured, trial.checked_at
    return _Run(
        key="easeml.trial_id",
        id=str(trial.trial_id),
        name=trial.candidate,
        state=trial.state if corrected is None else TrialState.FAILED,
        started_at=trial.started_at,
        finished_at=trial.finished_at,
        parameters=trial.parameters,
        tags={name: getattr(trial, name) for name in _TAGS} | dict(trial.executor_details or {}),
        quality=trial.quality,
        cost_seconds=trial.cost_seconds,
        corrected=corrected,
    )


def _run_of_model(model: ReleasedModel) -> _Run:
    return _Run(
        key="easeml.model_id",
        id=str(model.model_id),
        name=f"model {model.model_id}, not of a trial",
        state=TrialState.SUCCEEDED,
        started_at=model.created_at,
        finished_at=model.created_at,
        parameters={},
        tags={"data_version": model.data_version, "format": model.format},
        quality=model.quality,
    )


def _is_whole(run: Any, trial: MirroredTrial | None = None) -> bool:
    """Return whether nothing is left to do for the run: it has ended and shows the trial's check, or was deleted."""
    if run is None or run.info.lifecycle_stage == "deleted":
        return run is not None
    return run.info.status != "RUNNING" and (trial is None or run.data.tags.get("easeml.checked") == trial.checked)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
