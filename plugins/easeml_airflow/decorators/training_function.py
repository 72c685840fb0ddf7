"""``@trial``: a tenant's own training function as an Airflow task, inside the same life of a trial as any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, overload

from easeml_airflow.hooks.trials import FUNCTION, TrainingTask, dag_version_of
from easeml_airflow.links import EasemlPageLink
from easeml_airflow.version_compat import DecoratedOperator, TaskDecorator, task_decorator_factory
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context

    from easeml_core.entities import Parameters


CANDIDATES = "candidates"
"""Where the callable that Airflow sees keeps what may be tried with the function."""

_OF_CANDIDATES = ("space", "count", "seed", "devices")


class TrialFunctionOperator(TrainingTask, DecoratedOperator):
    """Runs one trial with the decorated function, if its candidate names that function; else gives it back.

    Args:
        easeml_conn_id: Connection of type ``easeml``; None means the installation's ``[easeml] conn_id``.
        on_failed: What a FAILED trial does to its task: ``fail``, ``skip`` or ``ignore``.
        kwargs: As of Airflow's decorated operators.
    """

    template_fields: Sequence[str] = ("easeml_conn_id", *DecoratedOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = DecoratedOperator.template_fields_renderers
    custom_operator_name = "@trial"
    operator_extra_links = (EasemlPageLink(),)
    ui_color = "#e6f0fa"
    ui_fgcolor = "#131d2c"

    def __init__(self, *, easeml_conn_id: str | None = None, on_failed: str = "fail", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.easeml_conn_id = easeml_conn_id
        self.on_failed = on_failed

    def execute(self, context: Context) -> Any:
        """Claim the trial, call the function, record what came out; then fail if the trial failed."""
        from easeml_core.services.trials.attempts import run_function_trial

        function, version = self.python_callable.__dict__[FUNCTION], dag_version_of(context["ti"])
        return self.run_trial(context, self._trial(), run_function_trial, function=function, dag_version=version)

    def _trial(self) -> Any:
        return self.op_kwargs["trial"] if "trial" in self.op_kwargs else next(iter(self.op_args))


@overload
def trial(function: Callable[..., Any]) -> TaskDecorator: ...


@overload
def trial(function: None = None, **kwargs: Any) -> Callable[[Callable[..., Any]], TaskDecorator]: ...


def trial(
    function: Callable[..., Any] | None = None, **kwargs: Any
) -> TaskDecorator | Callable[[Callable[..., Any]], TaskDecorator]:
    """Make a training function a task that is called with the trial to run.

    The function gets ``data`` (train and validation inputs and labels), the candidate's ``parameters``, and
    ``report(step, quality)`` for progress; it returns a fitted scikit-learn estimator, a model of LightGBM or XGBoost,
    or the path of a folder with a program that predicts. The lease, its heartbeat, the measured cost and the record of
    quality or failure are as for every other trial.

    What may be tried stands with the function: ``train.candidates`` is what ``RegisterStudyOperator`` takes. The space
    is checked when the DAG is parsed.

    Args:
        function: The training function, where the decorator is written without parentheses.
        kwargs: ``space`` (a search space of the function's parameters, ``docs/studies.md``), ``count`` (how many
            candidates of it), ``seed``, ``devices`` (kinds of device that they may run on); ``on_failed``,
            ``easeml_conn_id``, and whatever Airflow's tasks take (``pool``, ``retries``, ...).

    Raises:
        InvalidInputError: The space is none.

    Example:
        Register a study whose candidates come from the space, and map over what the scheduler suggests::

            @trial(space={"C": {".float": [-3, 3], ".scale": "exp"}}, count=12, pool="easeml_devices")
            def train(data, parameters, report):
                return LogisticRegression(**parameters).fit(data.train_inputs, data.train_labels)


            RegisterStudyOperator(task_id="register", candidates=train.candidates, study="flowers", ...)
            train.expand(trial=SuggestTrialsOperator(task_id="suggest", count=4, studies=["flowers"]).output)

        A task that a function is mapped to trains the candidates of that function alone. Where a study has candidates
        of several functions, or of easeml's own kinds as well, ``TrainTrialOperator(functions=[...])`` routes each
        trial to its implementation.
    """
    if function is None:
        return lambda decorated: _task(decorated, kwargs)
    return _task(function, kwargs)


def _task(function: Callable[..., Any], arguments: Parameters) -> TaskDecorator:
    def training_task(trial: Parameters | int | str) -> None:
        """Stand for the function where Airflow looks at a task's signature: one argument, the trial."""

    training_task.__name__ = function.__name__
    training_task.__qualname__ = function.__qualname__
    training_task.__module__ = function.__module__
    training_task.__doc__ = function.__doc__
    training_task.__dict__[FUNCTION] = function
    training_task.__dict__[CANDIDATES] = _candidates(function.__name__, arguments)
    rest = {name: value for name, value in arguments.items() if name not in _OF_CANDIDATES}
    return task_decorator_factory(python_callable=training_task, decorated_operator_class=TrialFunctionOperator, **rest)


def _candidates(name: str, arguments: Parameters) -> list[Parameters]:
    """The entries of a study that are trained by the function; Airflow's decorator shows them as its own attribute."""
    given = {key: arguments[key] for key in _OF_CANDIDATES if arguments.get(key) is not None}
    entry: Parameters = {"name": name, "kind": "function", **given}
    if "space" not in given:
        if "count" in given or "seed" in given:
            message = f"@trial of {name}: count and seed are about a space; give it too, or leave them out"
            raise InvalidInputError(message)
        return [entry]
    from easeml_core.training.candidates import check_spaces

    check_spaces([entry])
    return [entry]
