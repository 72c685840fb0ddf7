"""Handing models in: tried on open data in a sandbox, kept once a key, and judged by the gate like any other model."""

from __future__ import annotations

import threading
import time
from socket import gethostname
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from property_sizes import at_night
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError, StateError
from easeml_core.models.formats import save_constant, save_model
from easeml_core.models.skops_format import PipelinePredictor
from easeml_core.services.models import submission
from easeml_core.services.models.inference import infer
from easeml_core.services.models.submission import Submitted, list_submissions, submit_model
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.registration.register import pause_study
from easeml_core.store.tables import models, studies
from easeml_core.store.tables.models import list_submissions as rows_of_submissions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VERSION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hand_in(lab: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Hand something in for the study ``full``; a constant by default, which needs the least time."""
    save_constant(tmp_path / "constant", 1)

    def hand(**changes: Any) -> dict[str, Any]:
        given = {"study": "full", "path": tmp_path / "constant", "format": "constant", "message": "all benign"}
        return submit_model(lab.worker, lab.artifacts, **{"request_key": lab.key()} | given | changes)

    return hand


def submissions_and_models(lab: Any) -> tuple[int, int]:
    return lab.one("SELECT count(*) FROM work.submissions"), lab.one("SELECT count(*) FROM work.models")


def program(tmp_path: Path, code: str) -> Path:
    folder = tmp_path / "program"
    folder.mkdir(exist_ok=True)
    (folder / "predict.py").write_text(code)
    return folder


THRESHOLD = """
import numpy as np
print(*np.where(np.load("inputs.npy")[:, 20] < 16.8, 1, 0))  # worst radius: larger ones are malignant
"""


def test_a_model_is_tried_on_open_data_and_kept(hand_in: Any, lab: Any, tmp_path: Path) -> None:
    fitted = lab.fit(LogisticRegression(random_state=1), tmp_path / "fitted")
    found = hand_in(path=fitted, format="skops", message="  a line  ")
    parts = lab.open_parts()
    with lab.worker.begin() as tx:
        study = studies.get_study(tx, "full")
        model = models.get_model(tx, study.id, found.model_id)
        assert models.baseline_model(tx, study.id).id != model.id
        assert models.best_model(tx, study.id).id != model.id
    from easeml_core.models.formats import load_predictor

    labels = load_predictor(lab.artifacts.path(model.artifact), "skops").predict(parts.validation_inputs)
    quality = float(np.mean(labels == parts.validation_labels))
    assert found == Submitted(1, model.id, "full", quality)
    assert quality > 0.9
    assert (model.trial_id, model.format) == (None, "skops")
    (entry,) = list_submissions(lab.worker, study="full")
    assert (entry.message, entry.kind, entry.state) == ("a line", "artifact", "handed in")
    assert entry.submitted_by == "easeml_worker"


def test_a_program_is_judged_promoted_and_asked(hand_in: Any, lab: Any, tmp_path: Path) -> None:
    """The whole way of a model that no library of ours knows."""
    found = hand_in(path=program(tmp_path, THRESHOLD), format="command", command="python predict.py")
    assert found.validation_quality > 0.85
    asked = file_gate_request(lab.worker, study="full", model_id=found.model_id, request_key="gate/1")
    (entry,) = list_submissions(lab.worker, study="full")
    assert (entry.state, entry.kind, entry.format) == ("waiting", "command", "command")
    answer = lab.answer(asked)
    assert answer.symbol == "pass"
    (entry,) = list_submissions(lab.worker)
    assert (entry.state, entry.in_production) == ("pass", False)
    assert lab.promote(asked, found.model_id).promoted
    (entry,) = list_submissions(lab.worker)
    assert (entry.state, entry.in_production) == ("in production", True)
    later = file_gate_request(lab.worker, study="full", model_id=found.model_id, request_key="gate/2")
    assert lab.answer(later).refused  # it stands: nothing to ask
    assert list_submissions(lab.worker)[0].state == "in production"
    rows = lab.open_parts().validation_inputs[:5]
    labels = infer(lab.worker, lab.artifacts, study="full", inputs=rows.tolist()).labels
    assert labels == [("malignant", "benign")[int(row[20] < 16.8)] for row in rows]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print(*[1] * 10_000)", "cannot be run .*'full': .*nothing"),
        (
            "import numpy as np\nprint(*[1] * (len(np.load('inputs.npy')) - 1))",
            r"whole numbers.* gave int64 of shape \(\d+,\)",
        ),
        ("raise SystemExit('no luck')", "status 1: no luck;"),
        ("import numpy as np\nprint(*[-1] * len(np.load('inputs.npy')))", "classes from 0 to 1; row 0 .* got -1"),
        at_night("import numpy as np\nn = len(np.load('inputs.npy'))\nprint(*[1] * (n - 1), 2)", "from 0 to 1; row"),
    ],
)
def test_what_cannot_be_run_on_open_data_is_refused(
    code: str, words: str, hand_in: Any, lab: Any, tmp_path: Path
) -> None:
    before = submissions_and_models(lab), sum(1 for _ in lab.artifacts.root.rglob("*"))
    with pytest.raises(InvalidInputError, match=words):
        hand_in(path=program(tmp_path, code), format="command", command="python predict.py")
    assert (submissions_and_models(lab), sum(1 for _ in lab.artifacts.root.rglob("*"))) == before
    assert lab.one("SELECT count(*) FROM sealed.ledger") == 0


WANTED = "0 = malignant, 1 = benign"


def test_of_a_failure_the_last_line_is_shown(hand_in: Any, tmp_path: Path, recorded: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        hand_in(path=program(tmp_path, "rows = {}\nrows['dose']"), format="command", command="python predict.py")
    recorded(str(caught.value), "program_that_fails")


def test_words_for_classes_are_answered_with_the_numbers(hand_in: Any, lab: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"answered 'benign'; .*{WANTED};"):
        hand_in(path=program(tmp_path, "print('benign')"), format="command", command="python predict.py")
    parts = lab.open_parts()
    words = np.array(["malignant", "benign"])[parts.train_labels]
    pipeline = make_pipeline(GaussianNB()).fit(parts.train_inputs, words)
    save_model(PipelinePredictor(pipeline), tmp_path / "words")
    with pytest.raises(InvalidInputError, match=rf"answered '\w+'; .*{WANTED};"):
        hand_in(path=tmp_path / "words", format="skops")


@pytest.mark.parametrize(
    "answers",
    ["x[:, 20] < np.median(x[:, 20])", at_night("np.random.default_rng().integers(0, 2, len(x))")],
    ids=["ranks", "chance"],
)
def test_answers_by_the_other_rows_are_refused_with_what_to_do(
    answers: str, hand_in: Any, lab: Any, tmp_path: Path
) -> None:
    before = submissions_and_models(lab)
    code = f"import numpy as np\nx = np.load('inputs.npy')\nprint(*({answers}).astype(int), sep='\\n')"
    with pytest.raises(InvalidInputError, match=r"cannot be judged .*: \d+ of \d+ .* own row"):
        hand_in(path=program(tmp_path, code), format="command", command="python predict.py")
    assert submissions_and_models(lab) == before


def test_who_fails_among_fewer_rows_is_refused(hand_in: Any, lab: Any, tmp_path: Path) -> None:
    n = len(lab.open_parts().validation_inputs)
    code = f"import numpy as np\nn = len(np.load('inputs.npy'))\nassert n == {n}\nprint(*[1] * n)"
    with pytest.raises(InvalidInputError, match=r"(?s)cannot be run .*AssertionError"):
        hand_in(path=program(tmp_path, code), format="command", command="python predict.py")


def test_a_constant_is_tried_once(hand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, ran = submission.predict_in_child, list[int]()

    def predict(path: Any, form: str, inputs: Any, **named: Any) -> Any:
        ran.append(len(inputs))
        return real(path, form, inputs, **named)

    monkeypatch.setattr(submission, "predict_in_child", predict)
    hand_in()
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"study": "fool"}, NotFoundError, "study 'fool'"),
        ({"format": "pickle"}, ConfigError, "format must .*safetensors, constant"),
        ({"message": " \n"}, ConfigError, "message must .*2,000"),
        ({"message": "x" * 2001}, ConfigError, "message must .*2,000"),
        ({"command": "python x"}, ConfigError, "command must be"),
        ({"bundle": "dags"}, ConfigError, "bundle_version .*together with"),
        ({"bundle_version": VERSION}, ConfigError, "bundle_version .*together with"),
        ({"bundle": "../dags", "bundle_version": VERSION}, ConfigError, "bundle must .*letters"),
        ({"bundle": "dags", "bundle_version": "main"}, ConfigError, "bundle_version .*git commit"),
        ({"request_key": ""}, ConfigError, "request_key must"),
        ({"path": "absent"}, InvalidInputError, f"no such .*{gethostname()};"),
        ({"path": "/dev/zero"}, ConfigError, "plain file of"),
        ({"path": "/tmp"}, InvalidInputError, "plain file|Is a directory"),
        ({"path": "/etc/hostname"}, InvalidInputError, "no constant model"),
        ({"path": "/etc/hostname", "format": "command"}, InvalidInputError, "is no archive"),
    ],
)
def test_what_is_not_allowed_is_named(changes: dict[str, Any], error: Any, words: str, hand_in: Any, lab: Any) -> None:
    before = submissions_and_models(lab)
    with pytest.raises(error, match=words):
        hand_in(**changes)
    assert submissions_and_models(lab) == before


def test_a_study_that_does_not_take_part_takes_no_models(hand_in: Any, lab: Any) -> None:
    pause_study(lab.worker, study="full", paused=True)
    with pytest.raises(StateError, match="'full' is PAUSED"):
        hand_in()


def test_the_same_key_hands_in_once(hand_in: Any, lab: Any, tmp_path: Path) -> None:
    first = hand_in(request_key="k")
    before = submissions_and_models(lab)
    pause_study(lab.worker, study="full", paused=True)  # what was done stays done
    assert hand_in(request_key="k") == first
    assert submissions_and_models(lab) == before
    save_constant(tmp_path / "other", 0)
    others = (
        {"path": tmp_path / "other"}, {"message": "else"}, {"study": "first"},
        {"bundle": "dags", "bundle_version": VERSION},
    )  # fmt: skip
    for changes in others:
        with pytest.raises(InvalidInputError, match=r"'k' .*else \(submission 1 "):
            hand_in(request_key="k", **changes)
    assert submissions_and_models(lab) == before


def test_the_same_key_at_once_hands_in_once(hand_in: Any, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    met = threading.Barrier(4)
    keep, add = submission._keep, models.add_model

    def keep_together(*given: Any) -> None:
        keep(*given)
        met.wait()

    def add_slowly(*given: Any, **named: Any) -> int:
        time.sleep(0.3)
        return int(add(*given, **named))

    monkeypatch.setattr(submission, "_keep", keep_together)
    monkeypatch.setattr(models, "add_model", add_slowly)
    threads = [threading.Thread(target=lambda: found.append(hand_in(request_key="k"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 4
    assert lab.one("SELECT count(*) FROM work.submissions") == 1
    assert lab.one("SELECT count(*) FROM work.models WHERE submitted") == 1


def test_a_bundle_version_is_judged_by_its_model(hand_in: Any, lab: Any) -> None:
    found = hand_in(bundle="dags", bundle_version=VERSION)
    with lab.worker.begin() as tx:
        (entry,) = rows_of_submissions(tx)
    expected = {
        "submission_id": found.submission_id, "study": "full", "model_id": found.model_id, "kind": "bundle",
        "message": "all benign", "bundle": "dags", "bundle_version": VERSION,
    }  # fmt: skip
    assert {key: getattr(entry, key) for key in expected} == expected


def test_a_refused_question_shows_as_refused(hand_in: Any, lab: Any) -> None:
    found = hand_in()
    asked = file_gate_request(
        lab.worker, study="full", model_id=found.model_id, reliability=0.5, request_key="other plan"
    )
    assert lab.answer(asked).refused
    assert list_submissions(lab.worker)[0].state == "refused"


def test_a_refusal_takes_no_verdict_back(hand_in: Any, lab: Any, tmp_path: Path) -> None:
    save_constant(tmp_path / "rare", 0)  # the other one is the baseline, and nothing is asked about that
    found = hand_in(path=tmp_path / "rare")
    asked = {"study": "full", "model_id": found.model_id}
    lab.answer(file_gate_request(lab.worker, **asked, request_key="first"))
    (verdict,) = {entry.state for entry in list_submissions(lab.worker)}
    assert verdict in ("pass", "fail")
    again = file_gate_request(lab.worker, **asked, reliability=0.5, request_key="other plan")
    assert list_submissions(lab.worker)[0].state == "waiting"
    assert lab.answer(again).refused
    assert list_submissions(lab.worker)[0].state == verdict


def test_a_hidden_verdict_shows_as_withheld(hand_in: Any, lab: Any, tmp_path: Path) -> None:
    save_constant(tmp_path / "rare", 0)  # the other one is the baseline, and nothing is asked about that
    found = hand_in(study="hidden", path=tmp_path / "rare")
    asked = file_gate_request(lab.worker, study="hidden", model_id=found.model_id, request_key="gate/1")
    lab.answer(asked)
    assert list_submissions(lab.worker, study="hidden")[0].state == "withheld"
    assert list_submissions(lab.worker, study="full") == []
    with pytest.raises(NotFoundError, match="study 'fool'"):
        list_submissions(lab.worker, study="fool")
