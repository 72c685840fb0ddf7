"""One study of an installation: its trials and models, submissions, the gate, the meter, and predictions.

A request to the referee is awaited in a thread, or on an event loop.
"""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError, StateError
from easeml_core.formats.display import data_frame, data_series, frame_of_records, html_table

if TYPE_CHECKING:
    from easeml_core.entities import GivenAnswer
    from easeml_core.services.models.promotion import ShownModel
    from easeml_core.services.models.submission import Submitted
    from easeml_core.services.referee.place_in_queue import QueuePlace
    from easeml_core.services.reports.decision import TrialExplanation
    from easeml_core.services.reports.overview import StudyDetails
    from easeml_core.services.studies.archive import ChangedStudy, WithdrawnCandidate
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store


MAY_WAIT = "labels may be missing, or answers leave at an hour of the day; the same request key gives its answer later"
"""Why the gate may have no answer yet, beside the queue; which reason holds is not public."""


class RefereeRequest:
    """A request that was filed; it stays when the program ends, and its key finds it again.

    ``await request`` waits for its answer on an event loop.

    Attributes:
        request_id: Its number.
        request_key: The same call with this key gives the same request, and the same answer.
        study: Name of the study.
    """

    def __init__(self, store: Store, request_id: int, request_key: str, study: str) -> None:
        self._store = store
        self.request_id, self.request_key, self.study = request_id, request_key, study
        self._answer: GivenAnswer | None = None

    def answer(self) -> GivenAnswer | None:
        """Return the referee's answer, or None while there is none; a verdict has its ``symbol``.

        Raises:
            StoreError: The database cannot be reached.
        """
        from easeml_core.services.referee.requests import answer_of

        if self._answer is None:
            self._answer = answer_of(self._store, self.request_id)
        return self._answer

    def place(self) -> QueuePlace | None:
        """Return its place in the referee's queue; None where it waits no more."""
        from easeml_core.services.referee.place_in_queue import place_of

        return place_of(self._store, self.request_id)

    def wait(self, seconds: float = 600.0) -> GivenAnswer:
        """Return the answer once it is there.

        Args:
            seconds: Longest wait, >= 0.

        Raises:
            StateError: There is no answer in time; says how many requests are ahead, and whether a referee runs.
            StoreError: The database cannot be reached.
        """
        from easeml_core.services.referee.requests import wait_for_answer

        if self._answer is None:
            self._answer = wait_for_answer(self._store, self.request_id, timeout=seconds, hint=MAY_WAIT)
        return self._answer

    async def wait_async(self, seconds: float = 600.0) -> GivenAnswer:
        """Return the answer once it is there, without blocking the event loop; arguments and errors as of ``wait``."""
        from easeml_core.services.referee.place_in_queue import late_text, place_of
        from easeml_core.store.listen import until

        if self._answer is None:
            topic = f"answer:{self.request_id}"
            try:
                async with asyncio.timeout(seconds):
                    self._answer = await until(self._store.dsn, topic, self.answer, poll_seconds=5.0)
            except TimeoutError:
                place = await asyncio.to_thread(place_of, self._store, self.request_id)
                late = late_text(place)
                message = f"no answer to request {self.request_id} within {seconds:g} s: {late} ({MAY_WAIT})"
                raise StateError(message) from None
        return self._answer

    def __await__(self) -> Any:
        return self.wait_async().__await__()

    def __repr__(self) -> str:
        told = "no answer seen yet" if self._answer is None else self._answer.message
        return f"<{type(self).__name__} {self.request_id} about study {self.study!r}: {told}>"

    def _repr_html_(self) -> str:
        row = {
            "request": self.request_id,
            "study": self.study,
            "key": self.request_key,
            "answer": "" if self._answer is None else self._answer.message,
        }
        return html_table("", {name.capitalize(): name for name in row}, [row])


class Opened(Protocol):
    """What a study needs of its installation, which is a ``Client``."""

    store: Store

    @property
    def artifacts(self) -> ArtifactStore:
        """Models and data; opened on first use."""


class StudyClient:
    """A study; made by ``Client.study``. Every method reads the present state.

    Attributes:
        name: Of the study.
    """

    def __init__(self, client: Opened, name: str) -> None:
        self._client = client
        self.name = name

    def details(self) -> StudyDetails:
        """Return the public facts that ``easeml study show`` prints: goal, limits, candidates, trials, open alerts."""
        from easeml_core.services.reports.overview import study_details

        return study_details(self._client.store, study=self.name)

    def trials(self) -> Any:
        """Return a pandas DataFrame of all trials, one row each, in the order of their suggestion; none is left out.

        Raises:
            InvalidInputError: pandas is not installed.
        """
        from easeml_core.store.tables.trials import TrialEntry

        return frame_of_records(self.details().trials, TrialEntry)

    def models(self) -> Any:
        """Return a pandas DataFrame of the models with their released verdicts, the newest first."""
        from easeml_core.services.models.promotion import model_list
        from easeml_core.store.tables.model_life import ListedModel

        return frame_of_records(model_list(self._client.store, study=self.name), ListedModel)

    def submissions(self) -> Any:
        """Return a pandas DataFrame of the submissions with their states, the newest first; at most 1,000."""
        from easeml_core.services.models.submission import ListedSubmission, list_submissions

        return frame_of_records(list_submissions(self._client.store, study=self.name), ListedSubmission)

    def best(self) -> ShownModel:
        """Return the best model so far by validation quality, with the trial that trained it.

        Raises:
            StateError: There is none; says how many trials are in which state.
        """
        from easeml_core.services.models.promotion import best_record

        return best_record(self._client.store, study=self.name)

    def archive(self, *, why: str, withdraw: bool = False, dry_run: bool = False) -> ChangedStudy:
        """Archive the study: its open trials end, its open requests are refused, and its history stays readable.

        Args:
            why: The reason, 1 to 500 characters; the audit has it.
            withdraw: Archive it also with a model in production, which answers no rows until the study is restored.
            dry_run: Check it, and change nothing.

        Raises:
            StateError: A model is in production, and ``withdraw`` was not given.
        """
        from easeml_core.services.studies.archive import archive_study

        return archive_study(self._client.store, study=self.name, why=why, withdraw=withdraw, dry_run=dry_run)

    def restore(self, *, why: str = "", dry_run: bool = False) -> ChangedStudy:
        """Restore the archived study to the state that it had.

        Raises:
            AlreadyExistsError: Another study has its name.
        """
        from easeml_core.services.studies.archive import restore_study

        return restore_study(self._client.store, study=self.name, why=why, dry_run=dry_run)

    def delete(self, *, why: str, dry_run: bool = False) -> ChangedStudy:
        """Delete the study where it has no sealed data, trials or models; arguments as of ``archive``.

        Raises:
            StateError: It has, or the referee works on it.
        """
        from easeml_core.services.studies.archive import delete_study

        return delete_study(self._client.store, study=self.name, why=why, dry_run=dry_run)

    def withdraw(self, candidate: str, *, why: str) -> WithdrawnCandidate:
        """Leave a candidate out of all further suggestions and retries; its results and models stay.

        Raises:
            NotFoundError: The study has no such candidate.
        """
        from easeml_core.services.studies.archive import withdraw_candidate

        return withdraw_candidate(self._client.store, study=self.name, candidate=candidate, why=why)

    def explain(self, trial: int) -> TrialExplanation:
        """Return why a trial was chosen, and how it turned out.

        Args:
            trial: Its number, the column ``trial_id`` of ``trials``.

        Raises:
            NotFoundError: The study has no such trial.
        """
        from easeml_core.services.reports.decision import explain_trial

        number = _whole("trial", trial)
        found = explain_trial(self._client.store, trial_id=number)
        if found.study != self.name.partition("@")[0]:
            kind, owner = "trial", f"study {self.name!r}"
            raise NotFoundError(kind, number, owner=owner)
        return found

    def submit(
        self,
        model: Any,
        *,
        message: str,
        format: str | None = None,
        command: str | None = None,
        request_key: str | None = None,
    ) -> Submitted:
        """Submit a model; the gate is asked with ``gate``.

        It is run on the open validation part first; what cannot run there is refused and spends nothing. A submission
        cannot be withdrawn.

        Args:
            model: A fitted scikit-learn estimator or pipeline, or a fitted model of LightGBM or XGBoost, whose classes
                are the labels 0, 1, 2, ...; or the path of a file or folder.
            message: What is new about it, 1 to 2000 characters; kept for ever.
            format: Of a path, such as ``skops`` or ``command``; left out for a fitted model.
            command: For the format ``command``: the command line; None where the folder has it.
            request_key: The same key with the same content gives the same submission; None for a new one.

        Raises:
            InvalidInputError: The model cannot be read or run, or the key was used for other content.
            StateError: The study is not active.
        """
        from easeml_core.files.local import scratch_folder
        from easeml_core.services.models.submission import submit_model
        from easeml_core.training.function_models import save_fitted

        client, key = self._client, request_key or _new_key()
        handed: dict[str, Any] = {"study": self.name, "message": message, "command": command, "request_key": key}
        if isinstance(model, str | Path):
            if format is None:
                what = "given with a path, such as skops or command"
                raise ConfigError(field="format", value=format, allowed=what)
            return submit_model(client.store, client.artifacts, path=Path(model), format=format, **handed)
        if format is not None or command is not None:
            given = "format" if format is not None else "command"
            raise ConfigError(field=given, value=format or command, allowed="left out for a fitted model")
        with scratch_folder("submit") as folder:
            path = Path(folder) / "model"
            saved = save_fitted(model, path)
            return submit_model(client.store, client.artifacts, path=path, format=saved, **handed)

    def gate(
        self,
        model: int | Submitted | ShownModel | None = None,
        *,
        condition: str | None = None,
        request_key: str | None = None,
    ) -> RefereeRequest:
        """Ask the gate whether a model may be promoted; each answer about another model uses one step of the set.

        Args:
            model: Its number, or what ``submit`` or ``best`` returned; None for the best model that was trained.
            condition: Another condition than the set's, where its plan has answers for such.
            request_key: The same key gives the same request and the same answer; None for a new one.

        Returns:
            The request; ``wait()`` or ``await`` gives its answer, of which the ``symbol`` is all that is released.

        Raises:
            NotFoundError: The study has no such model.
            StateError: It has no trained model yet.
        """
        from easeml_core.services.referee.requests import file_gate_request

        key = request_key or _new_key()
        request_id = file_gate_request(
            self._client.store, study=self.name, model_id=_model_id(model), condition=condition, request_key=key
        )
        return RefereeRequest(self._client.store, request_id, key, self.name)

    def meter(
        self, model: int | Submitted | ShownModel | None = None, *, team: int = 1, request_key: str | None = None
    ) -> RefereeRequest:
        """Ask in which range the overfitting of a model lies; arguments and errors as of ``gate``.

        Args:
            model: As of ``gate``.
            team: Whose submission it is, where several teams share a set.
            request_key: As of ``gate``.
        """
        from easeml_core.services.referee.requests import file_meter_request

        key = request_key or _new_key()
        request_id = file_meter_request(
            self._client.store, study=self.name, model_id=_model_id(model), team=team, request_key=key
        )
        return RefereeRequest(self._client.store, request_id, key, self.name)

    def promote(self, model: int | Submitted | ShownModel, *, request_key: str | None = None) -> RefereeRequest:
        """Ask the referee to put a model into production, on the last verdict of the gate on it.

        Raises:
            NotFoundError: The study has no such model.
            StateError: The gate has given no verdict on it.
        """
        from easeml_core.services.models.promotion import last_verdict
        from easeml_core.services.referee.requests import file_promotion

        key, model_id = request_key or _new_key(), _whole("model", _model_id(model))
        store = self._client.store
        verdict = last_verdict(store, study=self.name, model_id=model_id)
        request_id = file_promotion(store, study=self.name, model_id=model_id, gate_request_id=verdict, request_key=key)
        return RefereeRequest(store, request_id, key, self.name)

    def predict(self, rows: Any, *, model: str | int = "production", probabilities: bool = False) -> Any:
        """Return the answers of a model to rows.

        Args:
            rows: A DataFrame with the study's columns; or rows of numbers in their order, or mappings of column to
                value, None or NaN for a missing value.
            model: ``production``, ``best``, or the number of a model.
            probabilities: Return the probability of each class in place of the class.

        Returns:
            Of a DataFrame, a Series (with ``probabilities`` a DataFrame) with its index; else a list.

        Raises:
            StateError: No model is in production, or trained, yet.
            InvalidInputError: The rows do not fit the study, or the study predicts numbers and has no probabilities.
            TrainingError: The model cannot be run.
        """
        from easeml_core.services.models.inference import infer

        framed = hasattr(rows, "columns") and hasattr(rows, "to_dict")
        found = infer(
            self._client.store,
            self._client.artifacts,
            study=self.name,
            inputs=_mappings(rows) if framed else _rows(rows),
            model=model,
            probabilities=probabilities,
        )
        answers = found.labels if found.probabilities is None else found.probabilities
        if not framed:
            return answers
        if found.probabilities is None:
            return data_series(found.labels, index=rows.index, name="answer")
        return data_frame(found.probabilities).set_axis(rows.index, axis=0)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self._client!r}>"


def _new_key() -> str:
    return f"python/{uuid.uuid4()}"


def _model_id(model: Any) -> int | None:
    found = getattr(model, "model_id", model)
    return None if found is None else _whole("model", found)


def _whole(name: str, value: Any) -> int:
    """Return a whole number, also one of NumPy's, as a cell of a DataFrame is."""
    number = value.item() if hasattr(value, "item") and not isinstance(value, int) else value
    if type(number) is not int:
        raise ConfigError(field=name, value=value, allowed="a whole number, its id")
    return number


def _mappings(frame: Any) -> list[dict[str, Any]]:
    """Return the rows of a DataFrame as mappings of Python's own values; a missing value is None."""
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        message = "rows have a column name twice; give every column its own name"
        raise InvalidInputError(message)
    cells = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return [dict(zip(names, row, strict=True)) for row in cells]


def _rows(rows: Any) -> Any:
    """Return an array as lists; everything else is checked by ``infer``."""
    return rows.tolist() if hasattr(rows, "tolist") else rows
