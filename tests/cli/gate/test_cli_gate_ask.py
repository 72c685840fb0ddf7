"""``easeml gate ask``: the answer of the referee about a model that is there, as one exit status."""

from __future__ import annotations

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


def test_a_pass_a_fail_and_a_refusal_are_three_answers(hand_in: Any, ask: Any, referee: Any) -> None:
    bad, good = hand_in(), hand_in("predict.py")
    failed = ask("gate", "ask", "cancer", bad, "--json")
    assert failed.status == 1
    assert (failed.json["answer"]["symbol"], failed.json["answer"]["model_id"]) == ("fail", int(bad))
    passed = ask("gate", "ask", "cancer", good)
    assert (passed.status, passed.err) == (0, "")
    assert f"promote it with `easeml model promote cancer {good}`" in passed.text
    assert "is in production" in ask("model", "promote", "cancer", good).text
    other = ask("gate", "ask", "cancer", bad, "--condition", "n > 0.5 +/- 0.25")  # the set plans no answers for such
    assert (other.status, "leave the condition out" in other.out, "model promote" in other.out) == (1, True, False)
    refused = ask("gate", "ask", "cancer", good)
    assert (refused.status, "is the one that stands now" in refused.out) == (1, True)


def test_a_key_brings_the_same_request_back(hand_in: Any, ask: Any) -> None:
    bad = hand_in()
    found = ask("gate", "ask", "cancer", bad, "--request-key", "k", "--wait", "0", "--json").json
    assert found.pop("place").items() >= {"ahead": 0, "request_id": found["request_id"]}.items()
    assert found == {"study": "cancer", "request_id": found["request_id"], "request_key": "k"}
    again = ask("gate", "ask", "cancer", "--request-key", "k", "--wait", "0")
    assert again.text.startswith(f"the gate is asked, request {found['request_id']} (0 requests ahead")
    assert again.text.endswith("; the same call with --request-key k shows its answer")
    late = ask("gate", "ask", "cancer", bad, "--wait", "0.1")
    assert late.status == 2
    assert "within 0.1 s" in late.err
    assert "the same call with --request-key cli/" in late.err


ERRORS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("nobody",), "there is no study 'nobody'"),
    (("cancer", "99"), "there is no model of this study with id 99"),
    (("cancer",), "has no trained model yet"),
    (("cancer", "--condition", "n >"), "condition: "),
    (("cancer", "--wait", "-1"), "--wait"),
    (("cancer", "first"), "is not a valid integer"),
)


def test_an_error_has_a_status_of_its_own(make_study: Any, ask: Any) -> None:
    make_study()
    for given, words in ERRORS:
        answer = ask("gate", "ask", *given)
        assert (answer.status, words in answer.err) == (2, True), (given, answer.err)


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
    assert "waiting at most 600 s for its answer; later the same call with --request-key cli/" in answer.out
