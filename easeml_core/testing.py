"""Conformance checks for metrics, training functions, policies, notification functions and data sources of a user.

Each function here tries one extension as the product does, and raises AssertionError with a sentence where the product
would go wrong. Call them from any test:

    from easeml_core import testing

    def test_profit_is_a_metric():
        testing.check_metric("shop.metrics:profit")

What the extensions are and where they are named: docs/bring-your-own.md.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.data.parts import OpenParts
    from easeml_core.selection.problem import Problem

__all__ = ["check_metric", "check_notifier", "check_policy", "check_source", "check_trainer"]

_ROWS = 300
_CLASSES = 3


def check_metric(name: str) -> None:
    """Check a metric of the form ``module:function``.

    It is installed and marked with ``user_metric``; its score is a finite number in the stated range, the same for the
    same rows in any order; and perfect predictions have no lower quality than shuffled ones.

    Raises:
        AssertionError: One of these does not hold.

    Example:
        >>> check_metric("accuracy")
    """
    from easeml_core.metrics.metric import metric_of

    metric = _tried(f"metric {name!r}", lambda: metric_of(name))
    rng = np.random.default_rng(0)
    targets = rng.integers(0, _CLASSES, _ROWS) if metric.needs != "numbers" else rng.normal(5.0, 2.0, _ROWS)
    order = rng.permutation(_ROWS)
    shuffled = targets[order]

    def quality(true: Any, given: Any) -> float:
        scale = _tried(f"the scale of {name!r}", lambda: metric.scale_of(true))
        arrays = _scored(metric.needs, given)
        score = _tried(f"metric {name!r}", lambda: metric.score(true, *arrays))
        again = metric.score(true, *arrays)
        _require(score == again, f"metric {name!r} gave {score!r} and then {again!r} for the same rows")
        return float(metric.quality(score, scale))

    right, wrong = quality(targets, targets), quality(targets, shuffled)
    moved = quality(targets[order], shuffled[order])
    _require(math.isclose(wrong, moved, abs_tol=1e-9), f"metric {name!r} depends on the order of the rows")
    _require(
        right >= wrong,
        f"metric {name!r}: perfect predictions have quality {right:.4f}, shuffled ones {wrong:.4f}; state its "
        "direction with higher_is_better",
    )


def _scored(needs: str, given: Any) -> tuple[Any, Any]:
    """Return predictions and probabilities, as a metric is given them."""
    if needs != "probabilities":
        return given, None
    chances = np.full((len(given), _CLASSES), 0.1)
    chances[np.arange(len(given)), given] = 1.0 - 0.1 * (_CLASSES - 1)
    return None, chances


def check_trainer(function: Callable[..., Any], parameters: Mapping[str, Any] | None = None) -> None:
    """Check a training function ``(data, parameters, report)``, as ``@trial`` takes it.

    It returns a model of a kind that is kept; the model written to a file and read again gives the same answers, each
    one class of the data; and the data stay as they are. ``data`` are 300 rows of 4 columns with missing values, in 3
    classes.

    Args:
        function: The function, without the decorator.
        parameters: What a candidate would name; None for none.

    Raises:
        AssertionError: One of these does not hold.
    """
    from easeml_core.models.formats import load_predictor, save_model
    from easeml_core.training.function_models import predictor_of

    data = _open_parts()
    before, reports = copy.deepcopy(data), []
    name = getattr(function, "__name__", type(function).__name__)

    def report(step: float, quality: float | None = None) -> None:
        reports.append((float(step), None if quality is None else float(quality)))

    try:
        returned = function(data, dict(parameters or {}), report)
    except Exception as error:  # a function of a user: whatever it raises ends a trial
        message = f"training function {name!r} raised {type(error).__name__}: {error}"
        raise AssertionError(message) from error
    for field in ("train_inputs", "train_labels", "validation_inputs", "validation_labels"):
        same = _equal(getattr(before, field), getattr(data, field))
        _require(same, f"training function {name!r} changed data.{field}; work on a copy")
    with tempfile.TemporaryDirectory() as folder:
        predictor = _tried(f"what {name!r} returned", lambda: predictor_of(returned, data, Path(folder)))
        answers = _tried(f"the model of {name!r}", lambda: predictor.predict(data.validation_inputs))
        path = Path(folder) / "model"
        kept = _tried(f"the model of {name!r}", lambda: load_predictor(path, save_model(predictor, path)))
        again = _tried(f"the kept model of {name!r}", lambda: kept.predict(data.validation_inputs))
    _require(np.shape(answers) == (len(data.validation_inputs),), f"the model of {name!r} must give one class a row")
    inside = np.isin(answers, np.arange(_CLASSES)).all()
    _require(bool(inside), f"the model of {name!r} gives classes other than those of the data: 0, 1 and 2")
    _require(_equal(answers, again), f"the model of {name!r} gives other answers after it was saved and loaded")


def _open_parts() -> OpenParts:
    from easeml_core.data.layout import table_layout
    from easeml_core.data.parts import OpenParts

    rng = np.random.default_rng(0)
    labels = rng.integers(0, _CLASSES, 2 * _ROWS)
    inputs = (rng.normal(size=(2 * _ROWS, 4)) + labels[:, None]).astype(np.float32)
    inputs[rng.random(inputs.shape) < 0.02] = np.nan
    train, validation = slice(0, _ROWS), slice(_ROWS, None)
    return OpenParts(
        inputs[train], labels[train], inputs[validation], labels[validation], classes=_CLASSES, layout=table_layout(4)
    )


def check_policy(name: str) -> None:
    """Check a policy: ``plugin:NAME`` of an entry point of the group ``easeml.policies``, or ``module:function``.

    In simulations on small tables, with one device and with three, it chooses a free arm each time until nothing is
    left, and makes the same choices for the same seed. It does so too where it decides for a live installation: studies
    with limits, priorities and failed trials, candidates for one kind of device, costs that are not known at first; and
    a scheduler that is built anew from the trials so far goes on as the one before.

    Args:
        name: Of a function that takes ``easeml_core.selection.Seen`` and returns ``(tenant, arm)``.

    Raises:
        AssertionError: One of these does not hold.
    """
    from easeml_core.selection.simulate.protocol import Protocol, parse_contestants
    from easeml_core.selection.simulate.run import run_repeat
    from easeml_core.selection.simulate.tables import results_table
    from easeml_core.settings.config import SelectionConfig

    (contestant,) = _tried(f"policy {name!r}", lambda: parse_contestants([name], base=SelectionConfig(), candidates=()))
    rng = np.random.default_rng(0)
    quality, cost = rng.random((4, 5)), rng.uniform(1.0, 9.0, (4, 5))
    quality[0, 2] = np.nan
    table = results_table(quality, cost)
    for devices, mode in ((1, "known"), (3, "known"), (1, "unit")):
        protocol = Protocol(served=3, repeats=1, devices=devices, cost_mode=mode)
        courses = [_tried(f"policy {name!r}", lambda: run_repeat(table, protocol, contestant, 0)) for _ in range(2)]  # noqa: B023 - called at once
        first, second = ([*zip(c.tenant.tolist(), c.arm.tolist(), strict=True)] for c in courses)
        _require(first == second, f"policy {name!r} makes other choices for the same seed; draw from Seen.seed alone")
    _check_live_policy(name)


def _check_live_policy(name: str) -> None:
    """Let a policy decide as in a live installation, once by a scheduler that lives on and once by new ones."""
    from easeml_core.selection.policies.user_policy import choice_of, policy_function
    from easeml_core.selection.problem import Pull
    from easeml_core.selection.suggestion import scheduler_for
    from easeml_core.settings.config import SelectionConfig
    from easeml_core.settings.limits import PLUGIN

    function = _tried(f"policy {name!r}", lambda: policy_function(name))

    def ask(seen: Any) -> tuple[int, int]:
        try:
            return choice_of(function, seen, policy=name)
        except EasemlError:
            raise
        except Exception as error:  # a function of a user: the default policy would choose in its place
            message = f"policy {name!r} raised {type(error).__name__}: {error}"
            raise AssertionError(message) from error

    problem, config = _live_problem(), SelectionConfig(policy=f"{PLUGIN}checked")
    lasting = scheduler_for(problem, config=config, ask=ask)
    pulls: list[Pull] = []
    for number in range(40):
        anew = scheduler_for(replace(problem, pulls=tuple(pulls)), config=config, ask=ask)
        device = ("cpu", "gpu")[number % 2]
        chosen, again = (_tried(f"policy {name!r}", lambda: s.choose(device=device)) for s in (lasting, anew))  # noqa: B023 - called at once
        _require(chosen == again, f"policy {name!r} chooses otherwise once its scheduler is built anew: keep no state")
        if chosen is None:
            continue
        tenant, arm = chosen.chosen.tenant, chosen.chosen.arm
        quality = None if number % 5 == 4 else (number * 7 % 10) / 10
        pulls.append(Pull(problem.studies[tenant].study_id, arm, quality, 1.0 + number % 3, number, device))
        lasting.start(tenant, arm, device=device)
        lasting.record(tenant, arm, quality, 1.0 + number % 3, device=device)


def _live_problem() -> Problem:
    """Return four studies that differ in everything that limits what may run."""
    from easeml_core.selection.problem import Arms, Problem

    names = tuple("abcde")
    return Problem(
        (
            Arms(1, 1.0, names, study="plain"),
            Arms(2, 2.0, names, study="small", budget_seconds=4.0, tenant="lab"),
            Arms(3, 1.0, names, study="first", priority=1, max_parallel=1),
            Arms(4, 1.0, names, study="on a GPU", devices=(frozenset({"gpu"}),) * len(names)),
        )
    )


def check_notifier(tell: Callable[[dict[str, Any]], object]) -> None:
    """Check a function that receives events, as ``FunctionNotifier`` calls it.

    It takes every kind of event, with and without what only some have, also one that comes again, and leaves the event
    as it is. Give it a stand-in for the network: it is called for each event.

    Raises:
        AssertionError: It raised, or changed an event.
    """
    from easeml_core.services.operations.notifications import EventKind

    for kind in EventKind:
        event = {
            "kind": kind.value,
            "study": "churn",
            "message": "A sentence; with <b> and \u00fc.",
            "key": f"{kind}/1",
        }
        whole = {**event, "tenant": "lab", "model": 7, "purpose": "gate", "at": "2026-01-02T03:04:05Z", "page": None}
        for one in (event, whole, whole):
            given = json.loads(json.dumps(one))
            try:
                tell(given)
            except Exception as error:  # a function of a user: the task would send the event again and again
                message = f"the function raised {type(error).__name__} for an event of kind {kind.value!r}: {error}"
                raise AssertionError(message) from error
            _require(given == one, f"the function changed an event of kind {kind.value!r}; work on a copy")


def check_source(spec: str, target: str | None = None, task: str | None = None) -> None:
    """Check a data source, such as ``plugin:NAME`` of an entry point of the group ``easeml.sources``.

    It can be read, twice with the same rows, and has enough rows for a study with the settings of a new one.

    Args:
        spec: The source.
        target: The column to predict, where the source needs one.
        task: ``classification`` or ``regression``; None for classes.

    Raises:
        AssertionError: One of these does not hold.

    Example:
        >>> check_source("sklearn:digits")
    """
    from easeml_core.data.sources.load import load_source
    from easeml_core.services.registration.sealing import part_sizes, planned_sets
    from easeml_core.settings.config import GateConfig, MeterConfig

    tables = [_tried(f"source {spec!r}", lambda: load_source(spec, target, task)) for _ in range(2)]
    first, second = tables
    same = _equal(first.inputs, second.inputs) and _equal(first.labels, second.labels)
    _require(same, f"source {spec!r} gives other rows when it is read again: sort them, and fix every seed")
    plans = planned_sets({"gate": GateConfig().to_json(), "meter": MeterConfig().to_json()})
    _tried(f"source {spec!r} with the settings of a new study", lambda: part_sizes(len(first.inputs), plans))


def _tried(what: str, call: Callable[[], Any]) -> Any:
    """Return what a call gives; an error of ours becomes a failed check."""
    try:
        return call()
    except EasemlError as error:
        message = f"{what}: {error}"
        raise AssertionError(message) from error


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _equal(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f"))
