"""The referee asks a part of the sealed rows again: who answers by the others has failed, and learns nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.models import predict
from easeml_core.models.command_model import pack_command
from easeml_core.models.formats import save_constant
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.evaluation.sealed_runs import at_once, sealed_run_steps
from easeml_core.store.tables import models, sealed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GATE_SET = 1
GOOD = "(x[:, 20] < 16.8)"  # worst radius: larger ones are malignant


@pytest.fixture
def hand_in(lab: Any, tmp_path: Path) -> Callable[[str], int]:
    """Store a program for the study ``full`` as a worker could who does not try it first; its expression answers."""

    def hand(expression: str) -> int:
        code = f"import numpy as np\nx = np.load('inputs.npy')\nprint(*({expression}).astype(int), sep='\\n')\n"
        (tmp_path / "predict.py").write_text(code)
        pack_command(tmp_path / "predict.py", tmp_path / "model", command="python predict.py")
        return int(lab.hand_in("full", "program", tmp_path / "model", kind="command", loss=0.1))

    return hand


def kept(lab: Any, model_id: int) -> tuple[Any, Any]:
    with lab.referee.begin() as tx:
        (found,) = sealed.known_predictions(tx, GATE_SET, models.get_model(tx, 1, model_id).identity).values()
    return found.labels, found.failure


@pytest.mark.parametrize(
    "expression",
    [
        f"{GOOD} ^ (x[:, 20] > np.median(x[:, 20]))",
        f"{GOOD} if len(x) == ROWS else ~{GOOD}",
        f"np.where(np.arange(len(x)) < 5, 0, {GOOD})",
        f"np.random.default_rng().permutation({GOOD})",
    ],
    ids=["ranks", "number of rows", "place", "chance"],
)
def test_answers_by_the_other_rows_are_a_failure_and_look_like_any_other(
    expression: str, hand_in: Any, lab: Any, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the programs runs in the sandbox, the others' expressions are evaluated here."""
    rows = lab.one("SELECT rows FROM work.test_sets WHERE id = :id", id=GATE_SET)
    expression = expression.replace("ROWS", str(rows))
    model_id = hand_in(expression)
    if request.node.callspec.id != "ranks":

        def answer_here(_: Any, __: Any, inputs: Any, **___: Any) -> Any:
            return np.asarray(eval(expression, {"np": np, "x": inputs})).astype(np.int64)

        monkeypatch.setattr(sealed_runs, "predict_in_child", answer_here)
    answer = lab.gate(model_id)
    labels, failure = kept(lab, model_id)
    assert labels is None
    assert failure.startswith("its answers depend on which examples it sees, or change from run to run: ")
    ((report,),) = lab.rows("SELECT report FROM sealed.ledger")
    assert (report["verdict"], report["failure"]) == ("FAIL", failure)
    honest = lab.gate("rare")
    assert honest.symbol == answer.symbol == "fail"
    assert answer.message == "step 1 of 3: fail"
    assert honest.message == "step 2 of 3: fail"
    assert type(answer) is type(honest)
    assert "depend" not in str(answer)


def test_answers_of_single_rows_are_kept(hand_in: Any, lab: Any) -> None:
    model_id = hand_in(GOOD)
    assert lab.gate(model_id).symbol == "pass"
    labels, failure = kept(lab, model_id)
    with lab.referee.begin() as tx:
        inputs = sealed.sealed_inputs(tx, GATE_SET)
    assert failure is None
    assert np.array_equal(labels, (inputs[:, 20] < 16.8).astype(int))


def scripted(monkeypatch: pytest.MonkeyPatch, *answers: Callable[[Any], Any]) -> list[Any]:
    """Let runs give these answers, one after the other; what each was asked."""
    asked: list[Any] = []

    def run(artifacts: Any, model: Any, inputs: Any, *_: Any) -> Any:
        asked.append(inputs)
        return answers[len(asked) - 1](inputs)

    monkeypatch.setattr(sealed_runs, "run_model", run)
    return asked


def zeros(inputs: Any) -> tuple[Any, None]:
    return np.zeros(len(inputs), dtype=np.int64), None


def first_is_one(inputs: Any) -> tuple[Any, None]:
    return (np.arange(len(inputs)) == 0).astype(np.int64), None


def run_good(lab: Any) -> tuple[Any, Any]:
    model_id = lab.models["full"]["good"]
    with lab.referee.begin() as tx:
        model = models.get_model(tx, 1, model_id)
    lab.as_superuser("DELETE FROM sealed.predictions WHERE model = %s", model.identity)
    at_once(sealed_run_steps(lab.referee, lab.artifacts, model, GATE_SET))
    return kept(lab, model_id)


def test_the_first_answers_count(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a change is small enough to be rounding."""
    monkeypatch.setattr(predict, "ROWS_PER_CHANGE", 10)
    asked = scripted(monkeypatch, zeros, first_is_one)
    labels, failure = run_good(lab)
    assert (labels.any(), failure) == (False, None)
    whole, part = ([row.tobytes() for row in rows] for rows in asked)
    assert len(part) == (len(whole) + 1) // 2
    assert set(part) < set(whole)
    assert part != [row for row in whole if row in set(part)]  # in another order


def test_a_single_change_in_a_small_set_is_too_many(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, zeros, first_is_one)
    labels, failure = run_good(lab)
    assert labels is None
    assert ": 1 of " in failure


def test_who_cannot_be_run_again_has_failed(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, zeros, lambda _: (None, "out of time"))
    assert run_good(lab) == (None, "out of time")


def test_who_has_failed_is_not_asked_again(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripted(monkeypatch, lambda _: (None, "no luck"))
    assert run_good(lab) == (None, "no luck")
    assert len(asked) == 1


def test_a_constant_is_not_asked_again(lab: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_constant(tmp_path / "constant", 0)
    model_id = lab.hand_in("full", "never", tmp_path / "constant", kind="constant", loss=0.5)
    with lab.referee.begin() as tx:
        model = models.get_model(tx, 1, model_id)
    lab.as_superuser("DELETE FROM sealed.predictions WHERE model = %s", model.identity)
    asked = scripted(monkeypatch, zeros)
    at_once(sealed_run_steps(lab.referee, lab.artifacts, model, GATE_SET))
    assert len(asked) == 1


def test_which_rows_are_asked_again_depends_on_the_secret_the_set_and_the_model(lab: Any) -> None:
    def keys() -> list[bytes]:
        with lab.referee.begin() as tx:
            both = [models.get_model(tx, 1, lab.models["full"][name]) for name in ("good", "worse")]
            secrets = {set_id: sealed.inputs_and_secret(tx, set_id)[1] for set_id in (1, 2)}
            return [sealed_runs._repetition_key(secrets[n], model, n) for model in both for n in secrets]

    first = keys()
    assert keys() == first
    lab.as_superuser("UPDATE sealed.installation SET secret = gen_random_uuid()")
    assert len({*first, *keys()}) == 8
