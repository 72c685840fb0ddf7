"""``easeml submit`` and ``easeml submissions``: hand in, ask the gate, wait, and see how far everything is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.models.formats import save_constant

if TYPE_CHECKING:
    from pathlib import Path

BOTH = ("--study", "cancer", "--format")


@pytest.fixture
def submit(ask: Any, artifacts: Any, make_study: Any, nowhere: Path) -> Any:
    """Hand a model in for a study; a constant that always names the rarer class."""
    make_study()
    save_constant(nowhere / "rare", 0)

    def run(*arguments: str) -> Any:
        given = ("--artifacts", str(artifacts.root), "--message", "news")
        return ask("submit", *(arguments or ("rare", *BOTH, "constant")), *given)

    return run


def test_a_model_is_handed_in_and_the_gate_is_asked(submit: Any, ask: Any, database: Any) -> None:
    found = submit("rare", *BOTH, "constant", "--json", "--request-key", "k").json
    assert sorted(found) == ["model_id", "place", "request_id", "study", "submission_id", "validation_quality"]
    assert (found["place"]["request_id"], found["place"]["ahead"]) == (found["request_id"], 0)
    again = submit("rare", *BOTH, "constant", "--json", "--request-key", "k").json
    assert again | {"place": None} == found | {"place": None}  # a place has the age of the referee's last sign
    with database.worker.begin() as tx:
        rows = tx.exec_driver_sql("SELECT id, kind, model_id FROM work.requests WHERE kind = 'gate'").all()
    assert [tuple(r) for r in rows] == [(found["request_id"], "gate", found["model_id"])]
    (entry,) = ask("submissions", "--json").json
    assert (entry["state"], entry["message"], entry["model_id"]) == ("waiting", "news", found["model_id"])


def test_people_read_a_line(submit: Any, ask: Any, recorded: Any) -> None:
    submit()
    recorded(re.sub(r"0\.\d{4}", "(part)", submit().out), "submit")
    recorded(re.sub(r"0\.\d{4}", "(part)", ask("submissions", "--study", "cancer").out), "submissions")
    assert "'fool'" in ask("submissions", "--study", "fool").err


def test_the_gate_need_not_be_asked(submit: Any, ask: Any) -> None:
    found = submit("rare", *BOTH, "constant", "--no-gate", "--json").json
    assert "request_id" not in found
    assert ask("submissions", "--json").json[0]["state"] == "handed in"
    assert "leave out --no-gate" in submit("rare", *BOTH, "constant", "--no-gate", "--wait").err


def test_waiting_ends_with_the_answer(submit: Any, referee: Any, nowhere: Path, ask: Any) -> None:
    answer = submit("rare", *BOTH, "constant", "--wait", "--json")
    assert (answer.status, answer.json["answer"]["symbol"]) == (1, "fail")
    (nowhere / "predict.py").write_text(
        "import numpy as np\nprint(*np.where(np.load('inputs.npy')[:, 20] < 16.8, 1, 0))"
    )
    answer = submit("predict.py", *BOTH, "command", "--command", "python predict.py", "--wait")
    assert answer.status == 0, answer.err
    assert "step 2 of 3: pass" in answer.text
    assert f"model promote cancer {ask('submissions', '--json').json[0]['model_id']}`" in answer.text
    assert [e["state"] for e in ask("submissions", "--json").json] == ["pass", "fail"]
    save_constant(nowhere / "baseline", 1)
    refused = submit("baseline", *BOTH, "constant", "--wait")
    assert (refused.status, "the one that stands now" in refused.out) == (1, True)


@pytest.mark.usefixtures("breaks")
@pytest.mark.parametrize(("ending", "status"), [(KeyboardInterrupt, 130), (ZeroDivisionError, 2)])
def test_neither_an_interruption_nor_a_bug_looks_like_a_fail(
    ending: type[BaseException], status: int, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise ending

    monkeypatch.setattr("easeml_core.services.referee.requests.answer_of", interrupted)
    answer = submit("rare", *BOTH, "constant", "--wait")
    assert answer.status == status
    assert "request 2; waiting" in answer.out


def test_waiting_has_an_end(submit: Any) -> None:
    answer = submit("rare", *BOTH, "constant", "--wait", "--timeout", "0.1")
    assert (answer.status, "request 2 within 0.1 s" in answer.err) == (2, True)


def test_a_bundle_and_a_refusal(submit: Any, ask: Any) -> None:
    version = "0123456789abcdef0123456789abcdef01234567"
    assert submit("rare", *BOTH, "constant", "--bundle", "dags", "--bundle-version", version).status == 0
    (entry,) = ask("submissions", "--json").json
    assert (entry["kind"], entry["bundle"], entry["bundle_version"]) == ("bundle", "dags", version)
    refused = submit("absent", *BOTH, "skops")
    assert (refused.status, "absent cannot" in refused.err) == (2, True)
    assert len(ask("submissions", "--json").json) == 1
