"""Hands models in, predicts with them, lists those that wait for the gate, and mirrors them in MLflow."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import AssetAlias

from easeml_airflow.assets import SUBMITTED, submissions, tell
from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_plain, optional_text, optional_whole
from easeml_airflow.hooks.easeml import request_key
from easeml_airflow.links import SUBMISSIONS
from easeml_airflow.operators.base import EasemlOperator
from easeml_core.formats.encoding import row_of, to_json
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context


class SubmitModelOperator(EasemlOperator):
    """Hands in a model that something else has trained: a file, or a command that predicts.

    The referee runs it on the sealed inputs, which this task does not see. DAGs that are scheduled on
    ``submissions()`` start. The submission, its message and its author are kept for ever.

    With ``bundle`` the model stands for a version of a DAG bundle: the version whose run has made it. When the model is
    promoted, so is that version: the referee moves the tag that the bundle of production follows.

    Args:
        study: For which study.
        path: The model's file, or the folder of a command, on this worker; may be another task's output.
        format: ``skops``, ``lightgbm``, ``xgboost``, ``safetensors`` or ``command``.
        command: For the format ``command``: how it is run; None where the folder says it.
        message: What is new about it; people read it beside the verdict.
        bundle: Name of the DAG bundle whose version is handed in; None for the model alone.
        bundle_version: The version, a git commit; None means the version that this very task runs from.
        kwargs: As of ``EasemlOperator``.
    """

    page_of_study = SUBMISSIONS
    template_fields: Sequence[str] = (
        "study",
        "path",
        "format",
        "command",
        "message",
        "bundle",
        "bundle_version",
        *EasemlOperator.template_fields,
    )

    def __init__(
        self,
        *,
        study: str,
        path: str,
        message: str,
        format: str = "skops",
        command: str | None = None,
        bundle: str | None = None,
        bundle_version: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.path = path
        self.format = format
        self.command = command
        self.message = message
        self.bundle = bundle
        self.bundle_version = bundle_version
        self.outlets = [*self.outlets, AssetAlias(SUBMITTED)]

    def execute(self, context: Context) -> dict[str, object]:
        """Hand in; a retry gives the first try's submission."""
        from easeml_core.services.models.submission import submit_model

        with airflow_outcome():
            bundle, version = self._version(context)
            hook = self.hook
            handed = submit_model(
                hook.get_store(),
                hook.get_artifacts(),
                study=self.study,
                path=self.path,
                format=self.format,
                message=self.message,
                command=optional_text(self.command),
                bundle=bundle,
                bundle_version=version,
                request_key=request_key(context),
            )
        submitted = row_of(handed)
        for name, value in submitted.items():
            context["ti"].xcom_push(key=name, value=value)
        extra = {name: submitted[name] for name in ("submission_id", "study", "model_id")}
        tell(context, SUBMITTED, submissions(self.study, easeml_conn_id=self.easeml_conn_id), extra)
        self.log.info("submission %(submission_id)s: model %(model_id)s of study %(study)s", submitted)
        return submitted

    def _version(self, context: Context) -> tuple[str | None, str | None]:
        """The bundle and the version that are handed in with the model."""
        bundle, version = optional_text(self.bundle), optional_text(self.bundle_version)
        if bundle is None:
            require(version is None, "bundle_version", version, "given together with bundle")
            return None, None
        if version is None:
            own = getattr(context["ti"], "bundle_instance", None)
            name, version = getattr(own, "name", None), getattr(own, "version", None)
            require(name == bundle, "bundle", bundle, f"this task's own ({name!r}), or given with bundle_version")
            require(bool(version), "bundle_version", version, f"given: bundle {bundle!r} has no versions")
        return bundle, version


class InferOperator(EasemlOperator):
    """Gives the answer to each row, and names the model that has answered.

    Rows given as ``inputs`` travel through XCom, so they should be few. A CSV or Parquet file may be larger than memory
    with ``answers``, into which it is answered in blocks of 2 million cells; all else is held in memory: tables of at
    most 64 MB, 100 million numbers of arrays or images. A process with 120 s and 4 GB answers each block, or all.

    Args:
        study: Whose model answers.
        inputs: Rows: numbers, one per feature of the study's data, or ``{column: value}``.
        path: Instead of them a file on this worker: CSV or Parquet (of at most 2,000 columns), ``.npy``, an image, or a
            folder or zip file of one of the last two.
        answers: A CSV file for the answers, there whole or not at all; they are left out of the result then.
        model: ``production``, ``best`` or the id of a model of the study.
        probabilities: Give the probability of each class too.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("study", "inputs", "path", "answers", "model", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        study: str,
        inputs: Sequence[Sequence[float] | Mapping[str, Any]] | str | None = None,
        path: str | None = None,
        answers: str | None = None,
        model: str | int = "production",
        probabilities: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.inputs = inputs
        self.path = path
        self.answers = answers
        self.model = model
        self.probabilities = probabilities

    def execute(self, context: Context) -> Any:
        """Predict."""
        from msgspec import UNSET

        from easeml_core.services.models.inference import (
            InferenceResult,
            infer,
            infer_into,
            public_answers,
            write_answers,
        )

        path, file = optional_text(self.path), optional_text(self.answers)
        with airflow_outcome():
            require(type(self.probabilities) is bool, "probabilities", self.probabilities, "True or False")
            place = self.hook.get_store(), self.hook.get_artifacts()
            asked: dict[str, Any] = {"study": self.study, "model": self.model, "probabilities": self.probabilities}
            inputs = optional_plain(self.inputs, "inputs")
            if path is not None and file is not None and inputs is None:
                result = infer_into(*place, path=Path(path), answers=Path(file), **asked)
            else:
                answers = infer(*place, inputs=inputs, path=None if path is None else Path(path), **asked)
                public = public_answers(answers)
                if file is not None:
                    write_answers(Path(file), answers)
                    public = replace(public, labels=UNSET, probabilities=UNSET)
                result = InferenceResult(**row_of(public), rows=len(answers.labels), answers=file)
        self.log.info("model %s of study %s answered %d rows", result.model_id, self.study, result.rows)
        return to_json(result)


class BestModelsOperator(EasemlOperator):
    """Gives one entry ``{"study", "model_id", "quality"}`` a study whose best model waits for a verdict of the gate.

    Left out are models in production, and models that the live gate set has rejected in comparison with what stands
    now. Made to map a group of gate, promotion and meter over, or with ``chunk_size`` ``ReleaseModelsOperator``. An
    empty list skips what is mapped over it.

    Args:
        studies: Names of the studies to look at; None means all.
        chunk_size: Give lists of at most so many entries, of about the same length, in place of the entries; None means
            not to. Airflow maps over 1,024 entries at most.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("studies", "chunk_size", *EasemlOperator.template_fields)

    def __init__(
        self, *, studies: Sequence[str] | str | None = None, chunk_size: int | str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.studies = studies
        self.chunk_size = chunk_size

    def execute(self, context: Context) -> list[dict[str, object]] | list[list[dict[str, object]]]:
        """Look, log, hand on."""
        from easeml_core.services.models.submission import best_models

        with airflow_outcome():
            size = optional_whole(self.chunk_size, "chunk_size")
            require(size is None or size >= 1, "chunk_size", size, "at least 1, or None")
            found = best_models(self.hook.get_store(), studies_only=optional_plain(self.studies, "studies"))
        for best in found:
            self.log.info("%s: model %s with quality %.4f waits for the gate", best.study, best.model_id, best.quality)
        if not found:
            self.log.info("every study's best model is in production, or was rejected by the present test set")
        entries = [row_of(best) for best in found]
        return entries if size is None else _chunks(entries, size)


def _chunks(entries: list[dict[str, object]], size: int) -> list[list[dict[str, object]]]:
    """As few lists of at most ``size`` entries as there can be, whose lengths differ by one at most.

    Example:
        >>> [len(chunk) for chunk in _chunks([{}] * 10, 4)], _chunks([], 4)
        ([3, 3, 4], [])
    """
    number = -(-len(entries) // size)
    ends = [len(entries) * i // number for i in range(number + 1)] if entries else []
    return [entries[a:b] for a, b in pairwise(ends)]


class WaitingSubmissionsOperator(EasemlOperator):
    """Gives one entry ``{"submission_id", "study", "model_id"}`` a submission that no gate was asked about.

    Made to map a gate over, in a DAG that is scheduled on ``submissions()``. It asks the database and not the event
    that started the run, so a forged event judges nothing and a lost one loses nothing.

    Args:
        study: The study; None means all.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("study", *EasemlOperator.template_fields)

    def __init__(self, *, study: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.study = study

    def execute(self, context: Context) -> list[dict[str, object]]:
        """Look, log, hand on."""
        from easeml_core.services.models.submission import waiting_submissions

        with airflow_outcome():
            found = waiting_submissions(self.hook.get_store(), study=optional_text(self.study))
        for submission in found:
            about = submission.study, submission.model_id, submission.submission_id
            self.log.info("%s: model %s, submission %s, waits for the gate", *about)
        if not found:
            self.log.info("no submission waits for the gate")
        return [row_of(submission) for submission in found]


class MlflowSyncOperator(EasemlOperator):
    """Adds to MLflow what it has not yet: a run a trial, a version a model that was let out, the alias of production.

    It may be run as often as one likes. Nothing waits for it, so where MLflow is away only this task fails.

    Args:
        tracking_uri: The server; None means MLflow's own ``MLFLOW_TRACKING_URI``. Credentials are MLflow's own
            variables, in the environment of the workers.
        studies: Names of the studies to mirror; None means all.
        prefix: Experiments are ``PREFIX/TENANT/STUDY``, registered models ``PREFIX.STUDY``.
        alias: Of the version in production.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("tracking_uri", "studies", "prefix", "alias", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        studies: Sequence[str] | str | None = None,
        prefix: str = "easeml",
        alias: str = "production",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tracking_uri = tracking_uri
        self.studies = studies
        self.prefix = prefix
        self.alias = alias

    def execute(self, context: Context) -> Any:
        """Sync, log, hand on."""
        from easeml_core.services.operations.mlflow_sync import Mirror, sync

        with airflow_outcome():
            mirrored = Mirror(optional_text(self.tracking_uri), str(self.prefix), str(self.alias))
            wanted = optional_plain(self.studies, "studies")
            done = sync(self.hook.get_store(), self.hook.get_artifacts(), mirrored, studies_only=wanted)
        for entry in done:
            self.log.info("%s: %d runs and %d versions added", entry.experiment, entry.runs, entry.versions)
        return to_json(done)
