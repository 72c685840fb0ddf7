"""Asks the referee whether a model may reach production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow import settings
from easeml_airflow.hooks.arguments import optional_number, optional_text, optional_whole
from easeml_airflow.hooks.lineage import EmitsLineage, lineage_of_models
from easeml_airflow.links import SUBMISSIONS
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator
from easeml_airflow.version_compat import AirflowFailException, AirflowSkipException
from easeml_core.entities import Symbol
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import GivenAnswer
    from easeml_core.store.database import Store


class GateOperator(EmitsLineage, RefereeOperator):
    """Succeeds when the study's condition holds for the model on the sealed test set, with the promised reliability.

    The task learns one symbol and no more: ``pass``, ``fail``, or ``withheld`` under adaptivity ``none``, where the
    task always succeeds and the verdict goes to the referee alone. Symbol, step and request are in XCom before the
    task fails. A condition without a template is read when the DAG is parsed, so that a typing mistake shows at once.

    The verdict may need labels that people give meanwhile. The task waits for them in the triggerer, by default as long
    as the installation's ``[easeml] label_timeout_seconds`` says: a week. Deferred, it holds no worker, and Airflow's
    ``execution_timeout`` does not count that time; a run's ``dagrun_timeout`` does.

    Args:
        study: Whose sealed set judges.
        model_id: The model; None means the study's best.
        condition: Such as ``n - o > 0.02 +/- 0.01``; None means the one that the set was sealed for.
        reliability: 1 - delta, in (0, 1); None means the sealed one.
        adaptivity: ``none``, ``full``, ``firstChange``, ``upTo:K`` or ``recycle``; None means the sealed one.
        on_fail: What the symbol ``fail`` does to the task: ``fail`` it, which blocks all downstream of it, or ``skip``.
            None means ``fail``, and under adaptivity ``none`` nothing. One that is named is refused under ``none``:
            what follows would tell the verdict.
        kwargs: As of ``RefereeOperator``.
    """

    asks_by_subject = True
    page_of_study = SUBMISSIONS
    template_fields: Sequence[str] = (
        "study",
        "model_id",
        "condition",
        "reliability",
        "adaptivity",
        *EasemlOperator.template_fields,
    )

    def __init__(
        self,
        *,
        study: str,
        model_id: int | str | None = None,
        condition: str | None = None,
        reliability: float | str | None = None,
        adaptivity: str | None = None,
        on_fail: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.model_id = model_id
        self.condition = condition
        self.reliability = reliability
        self.adaptivity = adaptivity
        self.on_fail = on_fail
        if isinstance(condition, str) and condition and "{" not in condition:
            from easeml_core.gate.condition import parse_condition

            parse_condition(condition)

    def file_request(self, store: Store, key: str) -> int:
        """File the request for a verdict."""
        from easeml_core.services.referee.requests import file_gate_request

        require(self.on_fail in (None, "fail", "skip"), "on_fail", self.on_fail, "fail, skip or None")
        return file_gate_request(
            store,
            study=self.study,
            model_id=optional_whole(self.model_id, "model_id"),
            condition=optional_text(self.condition),
            reliability=optional_number(self.reliability, "reliability"),
            adaptivity=optional_text(self.adaptivity),
            blocking=self.on_fail is not None,
            request_key=key,
        )

    def note_answer(self, answer: GivenAnswer) -> None:
        """The model, and the symbol that XCom has; nothing else of the verdict."""
        from easeml_core.services.referee.answers import VerdictAnswer

        known: dict[str, Any] = {"study": answer.study, "model_id": answer.model_id}
        if isinstance(answer, VerdictAnswer):
            known["symbol"] = str(answer.symbol)
        self._note_lineage(lambda: lineage_of_models(self.hook.get_store(), [known]))

    def settle(self, answer: GivenAnswer) -> None:
        """The symbol ``fail`` fails the task, without a retry: the same question has the same answer."""
        from easeml_core.services.referee.answers import VerdictAnswer

        if not isinstance(answer, VerdictAnswer) or answer.symbol != Symbol.FAIL:
            return
        message = f"study {answer.study!r}: model {answer.model_id} did not pass the gate"
        raise (AirflowSkipException if self.on_fail == "skip" else AirflowFailException)(message)

    def _timeout(self) -> float:
        """People may have to give labels first."""
        return settings.label_timeout_seconds()

    def _too_long(self) -> str:
        return f"{super()._too_long()}. It may also wait for labels: see `easeml labels wanted`"
