"""``easeml gate ask``: the answer of the referee about a model that is there, as one exit status."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.models.formats import save_constant

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "import numpy as np\nprint(*np.where(np.load('inputs.npy')[:, 20] < 16.8, 1, 0))"


@pytest.fixture
def hand_in(ask: Any, artifacts: Any, make_study: Any, nowhere: Path) -> Any:
    """Hand a model in for the study ``cancer`` without asking the gate; its number."""
    make_study()
    save_constant(nowhere / "rare", 0)
    (nowhere / "predict.py").write_text(GOOD)

    def run(name: str = "rare", study: str = "cancer") -> str:
        form = ("constant",) if name == "rare" else ("command", "--command", "python predict.py")
        given = ("--study", study, "--no-gate", "--json", "--artifacts", str(artifacts.root), "--message", "news")
        return str(ask("submit", name, "--format", *form, *given).json["model_id"])

    return run


def test_a_pass_a_fail_and_a_refusal_are_three_answers(hand_in: Any, ask: Any, referee: Any, recorded: Any) -> None:
    bad, good = hand_in(), hand_in("predict.py")
    failed = ask("gate", "ask", "cancer", bad, "--json")
    assert failed.status == 1
    assert (failed.json["answer"]["symbol"], failed.json["answer"]["model_id"]) == ("fail", int(bad))
    passed = ask("gate", "ask", "cancer", good)
    assert (passed.status, passed.err) == (0, "")
    recorded(re.sub(r"cli/[-0-9a-f]+", "cli/(key)", passed.out), "gate_ask_pass")
    assert ask("model", "promote", "cancer", good, "--json").json["promoted"]
    other = ask("gate", "ask", "cancer", bad, "--condition", "n > 0.5 +/- 0.25")  # the set plans no answers for such
    assert (other.status, "--other-conditions" in other.out, "model promote" in other.out) == (1, True, False)
    assert "leave the condition out" in " ".join(other.out.split())
    refused = ask("gate", "ask", "cancer", good, "--json")
    assert (refused.status, refused.json["answer"]["refused"]) == (1, True)
    assert "the one that stands now" in refused.json["answer"]["message"]


def test_a_key_brings_the_same_request_back(hand_in: Any, ask: Any, recorded: Any) -> None:
    bad = hand_in()
    found = ask("gate", "ask", "cancer", bad, "--request-key", "k", "--wait", "0", "--json").json
    assert found.pop("place").items() >= {"ahead": 0, "request_id": found["request_id"]}.items()
    assert found == {"study": "cancer", "request_id": found["request_id"], "request_key": "k"}
    again = ask("gate", "ask", "cancer", "--request-key", "k", "--wait", "0")
    assert f"request {found['request_id']} " in again.text
    recorded(again.out, "gate_ask_without_waiting")
    late = ask("gate", "ask", "cancer", bad, "--wait", "0.1")
    assert late.status == 2
    assert "within 0.1 s" in late.err
    assert "--request-key cli/" in late.err


ERRORS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("nobody",), "'nobody'"),
    (("cancer", "99"), "with id 99"),
    (("cancer",), "no trained model"),
    (("cancer", "--condition", "n >"), "condition: "),
    (("cancer", "--wait", "-1"), "--wait"),
    (("cancer", "first"), "'first'"),
)


def test_an_error_has_a_status_of_its_own(make_study: Any, ask: Any) -> None:
    make_study()
    for given, words in ERRORS:
        answer = ask("gate", "ask", *given)
        assert (answer.status, words in answer.err) == (2, True), (given, answer.err)


@pytest.mark.usefixtures("breaks")
@pytest.mark.parametrize(("ending", "status"), [(KeyboardInterrupt, 130), (ZeroDivisionError, 2)])
def test_neither_an_interruption_nor_a_bug_looks_like_a_fail(
    ending: type[BaseException], status: int, hand_in: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise ending

    bad = hand_in()
    monkeypatch.setattr("easeml_core.services.referee.requests.answer_of", interrupted)
    answer = ask("gate", "ask", "cancer", bad)
    assert answer.status == status
    assert "--request-key cli/" in answer.out
