"""What our operators share: the connection, the link to the page, and the wait for the referee's answer."""

from __future__ import annotations

import time
from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import BaseOperator

from easeml_airflow import settings
from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.easeml import EasemlHook
from easeml_airflow.hooks.request_key import request_key
from easeml_airflow.links import EasemlPageLink
from easeml_airflow.triggers.questions import look
from easeml_airflow.version_compat import AirflowException, AirflowFailException, TaskDeferralTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_airflow.triggers.questions import Facts
    from easeml_core.store.database import Store


class EasemlOperator(BaseOperator):
    """Base of our operators.

    Args:
        easeml_conn_id: Connection of type ``easeml``; None means the installation's ``[easeml] conn_id``.
    """

    template_fields: Sequence[str] = ("easeml_conn_id",)
    operator_extra_links = (EasemlPageLink(),)
    page_of_study: ClassVar[str] = ""
    """Which page of its study the task's link leads to; empty for the study's own."""
    ui_color = "#e6f0fa"
    ui_fgcolor = "#131d2c"

    def __init__(self, *, easeml_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.easeml_conn_id = easeml_conn_id

    @property
    def hook(self) -> EasemlHook:
        """The way to the store; nothing is connected before it is used."""
        return EasemlHook(self.easeml_conn_id)


class RefereeOperator(EasemlOperator):
    """Base of operators that file a request with the referee and wait for its answer.

    The request is filed under the task's request key, so a retry asks for the answer to the same request.

    Args:
        deferrable: Wait in the triggerer, where it costs no worker; False waits here, looking now and then.
        poll_interval: Seconds between two looks when no notification comes; None means the installation's.
        answer_timeout: Seconds until the task gives up waiting; None means the installation's.
        kwargs: As of ``EasemlOperator``.
    """

    def __init__(
        self,
        *,
        deferrable: bool = True,
        poll_interval: float | None = None,
        answer_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.answer_timeout = answer_timeout

    @abstractmethod
    def file_request(self, store: Store, key: str) -> int:
        """File the request under this request key and give its id."""

    def settle(self, facts: Facts) -> None:
        """Raise when the answer, already pushed to XCom, must fail or skip the task."""

    def execute(self, context: Context) -> Facts:
        """File the request; finish at once when it is answered already, else wait."""
        with airflow_outcome():
            store = self.hook.get_store()
            request_id = self.file_request(store, request_key(context))
            context["ti"].xcom_push(key="request_id", value=request_id)
            facts = look(store, "answer", str(request_id))
            if facts is None and not self.deferrable:
                facts = self._poll(store, request_id)
        if facts is not None:
            return self._finish(context, facts)
        self.log.info("request %d is filed; the referee's answer will wake this task", request_id)
        return self._defer(request_id)

    def execute_complete(self, context: Context, event: Any = None) -> Facts:
        """Go on where the trigger ended."""
        from easeml_airflow.triggers.easeml import facts_of

        return self._finish(context, facts_of(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Say in plain words what a wait that took too long means."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            raise AirflowException(self._too_long()) from error

    def _defer(self, request_id: int) -> NoReturn:
        from easeml_airflow.triggers.easeml import EasemlTrigger

        trigger = EasemlTrigger(
            question="answer",
            subject=str(request_id),
            easeml_conn_id=self.easeml_conn_id,
            poll_interval=self._poll_seconds(),
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self._patience()))

    def _poll(self, store: Store, request_id: int) -> Facts:
        deadline = time.monotonic() + self._patience()
        while time.monotonic() < deadline:
            time.sleep(self._poll_seconds())
            if (facts := look(store, "answer", str(request_id))) is not None:
                return facts
        raise AirflowException(self._too_long())

    def _finish(self, context: Context, facts: Facts) -> Facts:
        """Push every fact first: a task that fails below must still tell them."""
        for name, value in facts.items():
            context["ti"].xcom_push(key=name, value=value)
        self.log.info("the referee answered request %s: %s", facts["request_id"], facts["message"])
        if facts["refused"]:
            raise AirflowFailException(str(facts["message"]))
        self.settle(facts)
        return facts

    def _poll_seconds(self) -> float:
        return settings.poll_interval_seconds() if self.poll_interval is None else self.poll_interval

    def _patience(self) -> float:
        return settings.answer_timeout_seconds() if self.answer_timeout is None else self.answer_timeout

    def _too_long(self) -> str:
        return (
            f"no answer of the referee within {self._patience():g} s; is the process `easeml referee` running? "
            "The request stays filed: a further try of this task waits for the same answer"
        )
