"""What our operators share: the connection, the link to the page, and the wait for the referee's answer."""

from __future__ import annotations

import inspect
import math
import types
from abc import abstractmethod
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from airflow.sdk import BaseOperator

from easeml_airflow import settings
from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_whole
from easeml_airflow.hooks.easeml import EasemlHook, request_key
from easeml_airflow.links import EasemlPageLink
from easeml_airflow.triggers.questions import look
from easeml_airflow.version_compat import AirflowException, AirflowFailException, TaskDeferralTimeout
from easeml_core.actions.action import action_of, arguments_text, options_of, parameters_of, perform, read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context

    from easeml_airflow.triggers.questions import Facts
    from easeml_core.entities import GivenAnswer
    from easeml_core.store.database import Store

T = TypeVar("T")

FEW_AHEAD = 8
"""Unanswered requests ahead of a task's own up to which an answer may come while the task waits on its worker."""


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


class AnswerOperator(EasemlOperator):
    """Base of operators that wait for answers of the referee.

    A deferrable task waits on its worker first for ``[easeml] answer_wait_seconds``, unless many requests are ahead of
    its own.

    Args:
        deferrable: Wait in the triggerer, where it costs no worker; False waits here.
        poll_interval: Seconds between two looks when no notification comes; None means the installation's.
        answer_timeout: Seconds until the task gives up waiting; None means the installation's, which grow with the
            number of requests ahead.
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

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Say in plain words what a wait that took too long means."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            raise AirflowException(self._too_long()) from error

    def _wait_here(
        self, store: Store, one_look: Callable[[], T | None], seconds: float, *, poll_seconds: float = math.inf
    ) -> T | None:
        """Wait on the worker: notifications wake at once."""
        from easeml_core.store.database import CHANNEL
        from easeml_core.store.listen import wait_here

        poll_seconds = min(poll_seconds, self._poll_seconds())
        return wait_here(store.dsn, CHANNEL, one_look, seconds=seconds, poll_seconds=poll_seconds)

    def _poll_seconds(self) -> float:
        return settings.poll_interval_seconds() if self.poll_interval is None else self.poll_interval

    def _timeout(self) -> float:
        """Seconds that an answer may take where no request is ahead."""
        return settings.answer_timeout_seconds()

    def _patience(self, store: Store, request_id: int) -> tuple[float, float]:
        """Seconds that the answer may take in all, and those of them that are spent on the worker."""
        from easeml_core.services.referee.place_in_queue import place_of, place_text

        place = place_of(store, request_id)
        ahead = 0 if place is None else place.ahead
        if place is not None:
            self.log.info("request %d waits for the referee: %s", request_id, place_text(place))
        longer = ahead * settings.answer_timeout_seconds_ahead()
        patience = self._timeout() + longer if self.answer_timeout is None else self.answer_timeout
        if not self.deferrable:
            return patience, patience
        here = settings.answer_wait_seconds() if ahead <= FEW_AHEAD else 0.0
        return patience, min(here, patience)

    def _too_long(self) -> str:
        if self.answer_timeout is None:
            ahead = f", and {settings.answer_timeout_seconds_ahead():g} s more for each request that was ahead of it"
            limit = f"{self._timeout():g} s{ahead}"
        else:
            limit = f"{self.answer_timeout:g} s"
        return (
            f"no answer of the referee within {limit}: {self._referee_life()}. "
            "The request stays filed: a further try of this task waits for the same answer"
        )

    def _referee_life(self) -> str:
        from easeml_core.errors import EasemlError
        from easeml_core.services.referee.place_in_queue import life_text

        try:
            return life_text(self.hook.get_store())
        except EasemlError as error:
            return f"whether `easeml referee` runs cannot be read ({error})"


class RefereeOperator(AnswerOperator):
    """Base of operators that file a request with the referee and wait for its answer.

    The request is filed under the task's request key, so a retry asks for the answer to the same request.

    Args:
        kwargs: As of ``AnswerOperator``.
    """

    asks_by_subject: ClassVar[bool] = False
    """Whether a task that was cleared may ask about another ``study`` or ``model_id`` than before (``key_about``)."""

    @abstractmethod
    def file_request(self, store: Store, key: str) -> int:
        """File the request under this request key and give its id."""

    def settle(self, answer: GivenAnswer) -> None:
        """Raise when the answer, already pushed to XCom, must fail or skip the task."""

    def note_answer(self, answer: GivenAnswer) -> None:
        """Collect what the answer says of datasets and models, before it can fail the task."""

    def execute(self, context: Context) -> Facts:
        """File the request; finish at once when it is answered already, else wait."""
        with airflow_outcome():
            store = self.hook.get_store()
            request_id = self.file_request(store, self._key(store, context))
            context["ti"].xcom_push(key="request_id", value=request_id)
            one_look = partial(look, store, "answer", str(request_id))
            if (facts := one_look()) is None:
                patience, here = self._patience(store, request_id)
                facts = self._wait_here(store, one_look, here)
        if facts is not None:
            return self._finish(context, facts)
        if not self.deferrable:
            raise AirflowException(self._too_long())
        self.log.info("request %d is filed; the referee's answer will wake this task", request_id)
        return self._defer(request_id, patience)

    def execute_complete(self, context: Context, event: Any = None) -> Facts:
        """Go on where the trigger ended."""
        from easeml_airflow.triggers.easeml import facts_of

        return self._finish(context, facts_of(event))

    def _key(self, store: Store, context: Context) -> str:
        """The task's request key; below it another one where its place was about another subject."""
        from easeml_core.services.referee.requests import key_about

        key = request_key(context)
        if not self.asks_by_subject:
            return key
        about: Any = self
        model = optional_whole(getattr(self, "model_id", None), "model_id")
        return key_about(store, study=about.study, model_id=model, request_key=key)

    def _defer(self, request_id: int, patience: float) -> NoReturn:
        from easeml_airflow.triggers.easeml import EasemlTrigger

        trigger = EasemlTrigger(
            question="answer",
            subject=str(request_id),
            easeml_conn_id=self.easeml_conn_id,
            poll_interval=self._poll_seconds(),
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=patience))

    def _finish(self, context: Context, facts: Facts) -> Facts:
        """Push every fact first: a task that fails below must still tell them."""
        from easeml_core.services.referee.answers import answer_from_json

        for name, value in facts.items():
            context["ti"].xcom_push(key=name, value=value)
        answer = answer_from_json(facts)
        self.log.info("the referee answered request %d: %s", answer.request_id, answer.message)
        if answer.refused:
            raise AirflowFailException(answer.message)
        self.note_answer(answer)
        self.settle(answer)
        return facts


_REST = "kwargs: As of ``RefereeOperator``."


class ActionOperator(RefereeOperator):
    """Base of operators that carry out an action; ``action_operator`` makes one from the action's request."""

    action: ClassVar[type[Any]]
    """The class of the request, whose options are the operator's arguments."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add the arguments of the action to the docstring of an operator."""
        super().__init_subclass__(**kwargs)
        if cls.__doc__ and "action" not in vars(cls):
            cls.__doc__ = f"{inspect.cleandoc(cls.__doc__)}\n\n{arguments_text(cls.action, _REST)}"

    def request(self) -> Any:
        """Return the request, from the arguments as Airflow has rendered them."""
        return read(self.action, {one.name: getattr(self, one.name) for one in options_of(self.action)})

    def file_request(self, store: Store, key: str) -> int:
        """Carry out the action; the rest of it is the referee's."""
        done = perform(store, self.request(), request_key=key)
        self.note(done)
        found: int = done.request_id
        return found

    def note(self, done: Any) -> None:
        """Log what was done."""
        self.log.info("%s: request %d is filed", action_of(self.action).name, done.request_id)


def action_operator(action: type[Any]) -> type[ActionOperator]:
    """Return a base class whose arguments and template fields are the options of an action.

    The constructor has a real signature, which Airflow checks and ``help`` shows; editors and type checkers read the
    same signature in a stub that ``scripts/reference.py`` makes.
    """
    options = options_of(action)

    def __init__(self: ActionOperator, **kwargs: Any) -> None:
        given = {one.name: kwargs.pop(one.name, one.default) for one in options}
        super(base, self).__init__(**kwargs)
        for name, value in given.items():
            setattr(self, name, value)

    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    parameters = [first, *parameters_of(action, is_templated=True), rest]
    __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by Airflow and inspect
    __init__.__doc__ = arguments_text(action, _REST)
    fields = (*[one.name for one in options if one.kind != "boolean"], *EasemlOperator.template_fields)
    namespace = {"__init__": __init__, "action": action, "template_fields": fields, "__module__": __name__}
    base: type[ActionOperator] = types.new_class(
        f"{action.__name__}Base", (ActionOperator,), exec_body=lambda body: body.update(namespace)
    )
    return base
