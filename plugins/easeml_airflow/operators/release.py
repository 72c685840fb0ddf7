"""Releases the best models of many studies in one task; shows one that was rejected as a separate task."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from easeml_airflow import settings
from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_plain, whole
from easeml_airflow.hooks.easeml import key_of_all
from easeml_airflow.hooks.lineage import EmitsLineage, lineage_of_models
from easeml_airflow.links import SUBMISSIONS, page_url
from easeml_airflow.operators.base import AnswerOperator, EasemlOperator
from easeml_airflow.version_compat import AirflowException, AirflowFailException, AirflowSkipException
from easeml_core.formats.encoding import to_json
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from easeml_airflow.hooks.lineage import Lineage
    from easeml_core.entities import JsonObject
    from easeml_core.services.referee.release import Release, ReleaseCandidate
    from easeml_core.store.database import Store

_MOST_NAMED = 10
"""Studies named in the message of a failed task; the log and XCom have all."""


class ReleaseModelsOperator(EmitsLineage, AnswerOperator):
    """Judges the best models of many studies: asks the gate, promotes what passes, and takes a reading of the meter.

    One task does what a group of ``GateOperator``, ``PromoteModelOperator`` and ``MeterOperator`` does for one study,
    and waits in the triggerer for all its requests together. Made to be mapped over the chunks of
    ``BestModelsOperator(chunk_size=...)``. A study that is rejected or refused stops no other: what passed is promoted
    as soon as no further answer comes, and the task ends when all are answered.

    The list of what came of each study is in XCom before the task fails, and the log has a line for each. A further try
    asks nothing again, whatever chunk a study is in by then.

    Args:
        models: Entries ``{"study", "model_id"}``, such as one chunk of ``BestModelsOperator(chunk_size=...)``.
        on_fail: What a study that was rejected or refused, or whose reading was refused, does to the task once all are
            answered: ``fail`` it, or ``ignore``.
        kwargs: As of ``AnswerOperator``.
    """

    page_of_study = SUBMISSIONS
    template_fields: Sequence[str] = ("models", *EasemlOperator.template_fields)

    def __init__(self, *, models: Sequence[Mapping[str, Any]] | str, on_fail: str = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.models = models
        self.on_fail = on_fail

    @property
    def span(self) -> str:
        """First and last study and their number, as a label of a mapped task."""
        names = [str(model["study"]) for model in self.models if isinstance(model, dict)]
        return f"{names[0]} … {names[-1]} ({len(names)})" if names else ""

    def execute(self, context: Context) -> list[JsonObject]:
        """File the requests, take the release as far as answers allow, and wait for those that are missing."""
        with airflow_outcome():
            require(self.on_fail in ("fail", "ignore"), "on_fail", self.on_fail, "fail or ignore")
            releases, patience = self._advance(context)
        if patience is None:
            return self._finish(context, releases)
        waiting = [number for release in releases for number in release.waits_for]
        if not self.deferrable:
            raise AirflowException(self._too_long())
        self.log.info("%s; %d requests are open, their answers will wake this task", _counts(releases), len(waiting))
        from easeml_airflow.triggers.answers import AnswersTrigger

        trigger = AnswersTrigger(
            request_ids=waiting, easeml_conn_id=self.easeml_conn_id, poll_interval=self._poll_seconds()
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=patience))

    def execute_complete(self, context: Context, event: Any = None) -> list[JsonObject]:
        """Go on where the trigger ended: with the answers that are in the database."""
        from easeml_airflow.triggers.easeml import facts_of

        facts_of(event)
        return self.execute(context)

    def _advance(self, context: Context) -> tuple[list[Release], float | None]:
        """Take step after step while answers come.

        Returns:
            What came of each, and how many seconds the missing answers may take; None where none is missing.
        """
        from easeml_core.services.referee.release import AnswerWatch, release_models

        store, models, key = self.hook.get_store(), self._models(), key_of_all(context)
        while True:
            releases = release_models(store, models=models, request_key=key)
            self._tell(context, releases)
            waiting = [number for release in releases for number in release.waits_for]
            if not waiting:
                return releases, None
            patience, here = self._patience(store, max(waiting))
            watch = AnswerWatch(store, waiting)
            if self._wait_here(store, watch, here, poll_seconds=watch.quiet_seconds) is None:
                return releases, patience

    def _models(self) -> list[ReleaseCandidate]:
        from easeml_core.services.referee.release import ReleaseCandidate

        given = optional_plain(self.models, "models")
        allowed = "a list of entries with study and model_id, such as a chunk of BestModelsOperator"
        require(isinstance(given, list | tuple) and all(isinstance(m, dict) for m in given), "models", given, allowed)
        found = [ReleaseCandidate(str(m.get("study")), whole(m.get("model_id"), "model_id")) for m in given]
        require(len({m.study for m in found}) == len(found), "models", given, "one model a study")
        return found

    def _tell(self, context: Context, releases: Sequence[Release]) -> None:
        """Push what is known so far: a task that fails or is killed must still tell it."""
        context["ti"].xcom_push(key="released", value=[_public(release) for release in releases])

    def _finish(self, context: Context, releases: Sequence[Release]) -> list[JsonObject]:
        self._note_lineage(lambda: _lineage(self.hook.get_store(), releases))
        noticed = [release for release in releases if release.needs_look]
        for release in releases:
            if release.needs_look:
                where = f"{settings.own_address() or ''}{page_url(release.study, below=SUBMISSIONS)}"
                self.log.error("%s: %s", release, where)
            else:
                self.log.info("%s", release)
        self.log.info("%s", _counts(releases))
        if noticed and self.on_fail == "fail":
            named = "; ".join(map(str, noticed[:_MOST_NAMED]))
            more = len(noticed) - _MOST_NAMED
            rest = f"; and {more:,} more, which the log and the XCom `released` name" if more > 0 else ""
            message = f"{len(noticed):,} of {len(releases):,} studies need a look: {named}{rest}"
            raise AirflowFailException(message)
        return [_public(release) for release in releases]

    def _timeout(self) -> float:
        """People may have to give labels first."""
        return settings.label_timeout_seconds()


class RejectedModelOperator(EasemlOperator):
    """Fails with what came of one study that needs a look: red under its own name, with a link to its page.

    For those who want the first rejected studies in Airflow's grid beside the red chunk: mapped over the places 0 to
    K - 1, it shows K of them, for K more starts of tasks a night. A place beyond the last such study is skipped.

    Args:
        released: The XCom ``released`` of ``ReleaseModelsOperator``, of one task or of all chunks, such as
            ``release.output["released"]``.
        place: Which of the studies that need a look, in the order of the chunks; >= 0.
        kwargs: As of ``EasemlOperator``.
    """

    page_of_study = SUBMISSIONS
    template_fields: Sequence[str] = ("released", "place", *EasemlOperator.template_fields)

    def __init__(self, *, released: Any, place: int | str = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.released = released
        self.place = place
        self.study = ""

    def execute(self, context: Context) -> None:
        """Fail with the study's line, or skip."""
        with airflow_outcome():
            place = whole(self.place, "place")
            require(place >= 0, "place", place, ">= 0")
            noticed = [release for release in _read(self.released) if release.needs_look]
        if place >= len(noticed):
            message = f"{len(noticed):,} studies need a look; there is none at place {place}"
            raise AirflowSkipException(message)
        self.study = noticed[place].study
        raise AirflowFailException(str(noticed[place]))


def _read(released: Any) -> list[Release]:
    """Read the entries of one task, or of all chunks.

    Raises:
        ConfigError: They are none of ``ReleaseModelsOperator``.
    """
    from easeml_core.services.referee.release import Release

    found = []
    entries = optional_plain(released, "released") if isinstance(released, str) else released
    for entry in entries or ():
        for one in (entry,) if isinstance(entry, dict) else entry:
            allowed = "the XCom `released` of ReleaseModelsOperator"
            require(isinstance(one, dict) and set(one) == _FIELDS, "released", one, allowed)
            found.append(Release(**one, waits_for=()))
    return found


def _lineage(store: Store, releases: Sequence[Release]) -> Lineage:
    """Return the event of a chunk: its models, those that were promoted, and outcome and symbol as XCom has them."""
    names = ("study", "model_id", "outcome", "symbol")
    entries = [{name: to_json(getattr(release, name)) for name in names} for release in releases]
    return lineage_of_models(store, entries, promoted={r.model_id for r in releases if r.outcome == "promoted"})


_FIELDS = {"study", "model_id", "outcome", "symbol", "signal", "alert", "message", "meter_refusal"}
"""Of an entry of the XCom ``released``."""


def _public(release: Release) -> JsonObject:
    """Return the entry without the numbers of open requests."""
    return {name: value for name, value in to_json(release).items() if name in _FIELDS}


def _counts(releases: Sequence[Release]) -> str:
    counted = Counter(str(release.outcome) for release in releases)
    return ", ".join(f"{number:,} {outcome}" for outcome, number in counted.most_common()) or "no model"
