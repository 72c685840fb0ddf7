"""``easeml model`` and ``easeml ledger``: what is there, who may move it, and what the referee sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.entities import Executor, SealedSetPurpose, TrialState
from easeml_core.models.formats import save_constant
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.store.tables import leases, models, releases, sealed, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def as_referee(run: Any, database: Any) -> Callable[..., Any]:
    """Run a command with the referee's address."""
    return lambda *arguments, **more: run(*arguments, "--database", database.url("easeml_referee"), **more)


@pytest.fixture
def handed_in(database: Any, artifacts: Any, make_study: Any, tmp_path: Path) -> int:
    """A study ``cancer`` with one model, which always names class 0, of a trial that has ended."""
    make_study(candidates=[{"name": "tree", "kind": "decision_tree"}])
    save_constant(tmp_path / "zero", 0)
    artifact = artifacts.put(tmp_path / "zero")
    with database.worker.begin() as tx:
        study = studies.get_study(tx, "cancer")
        ids = {"study_id": study.id, "data_version_id": studies.latest_data_version(tx, study.id).id}
        (candidate,) = studies.list_candidates(tx, study.id)
        trial = trials.add_trial(tx, candidate_id=candidate.id, **ids)
        attempt = leases.start_trial(
            tx,
            trial_id=trial,
            lease_key="k",
            lease_seconds=60,
            executor=Executor(trials.get_trial(tx, trial).implementation, "test"),
        )
        leases.finish_trial(tx, trial_id=trial, attempt=attempt, state=TrialState.SUCCEEDED, cost_seconds=1.0)
        return models.add_model(tx, trial_id=trial, format="constant", artifact=artifact, validation_loss=0.6, **ids)


def judged(database: Any, artifacts: Any, model_id: int) -> int:
    asked = file_gate_request(database.worker, study="cancer", model_id=model_id, request_key="g")
    assert Referee(database.referee, artifacts).run_once() == 1
    return int(asked)


def test_who_holds_the_referees_address_forces_at_once_and_is_named(
    as_referee: Any, ask: Any, handed_in: int, recorded: Any
) -> None:
    words = ("--who", "Ada Lovelace", "--why", "holidays")
    done = as_referee("model", "promote", "cancer", str(handed_in), "--force", *words)
    recorded(done.out, "model_promote_forced")
    listed = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d", "(day and minute)", ask("model", "list", "cancer").out)
    recorded(re.sub(r"0\.\d{4}", "(part)", listed), "model_list")
    first, second = ask("model", "list", "cancer", "--json").json
    assert (first["model_id"], first["in_production"], first["validation_quality"]) == (handed_in, True, 0.4)
    assert (first["moved_by"], first["who"], first["why"]) == ("force", "Ada Lovelace", "holidays")
    assert (second["origin"], second["in_production"]) == ("baseline", False)
    assert (first["data_version"], second["data_version"]) == (1, 1)


def test_a_quality_is_reported_with_the_data_that_it_was_measured_on(ask: Any, database: Any, handed_in: int) -> None:
    with database.worker.begin() as tx:
        study = studies.get_study(tx, "cancer")
        first = studies.latest_data_version(tx, study.id)
        model = models.get_model(tx, study.id, handed_in)
    with database.referee.begin() as tx:
        newer = studies.add_data_version(
            tx, study_id=study.id, content_hash="b" * 64, artifact=first.artifact, features=first.features,
            class_names=studies.class_names(tx, first.id), parts={"train": 10, "validation": 10},
        )  # fmt: skip
        again = models.add_model(
            tx, study_id=study.id, data_version_id=newer, trial_id=None, format="constant",
            artifact=model.artifact, validation_loss=0.5,
        )  # fmt: skip
    versions = {entry["model_id"]: entry["data_version"] for entry in ask("model", "list", "cancer", "--json").json}
    assert (versions[handed_in], versions[again]) == (1, 2)
    assert "Data" in ask("model", "list", "cancer").text


def test_a_developers_address_asks_the_referee_who_refuses(ask: Any, handed_in: int, referee: None) -> None:
    words = ("--force", "--who", "Ada", "--why", "holidays", "--timeout", "30")
    answer = ask("model", "promote", "cancer", str(handed_in), *words)
    assert answer.status == 2
    assert "--allow-forced" in answer.err


def test_without_a_referee_the_command_says_so(ask: Any, handed_in: int) -> None:
    given = ("--force", "--who", "Ada", "--why", "holidays", "--timeout", "0")
    answer = ask("model", "promote", "cancer", str(handed_in), *given)
    assert answer.status == 2
    assert "within 0 s" in answer.err
    assert "the request stands" in answer.err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "no verdict on"),
        (("--force", "--request", "4"), "without --request"),
        (("--force", "--why", "x"), "say who"),
    ],
)
def test_a_promotion_needs_one_ground(given: tuple[str, ...], words: str, as_referee: Any, handed_in: int) -> None:
    answer = as_referee("model", "promote", "cancer", str(handed_in), *given)
    assert answer.status == 2
    assert words in answer.err


def test_a_model_of_another_study_has_no_verdict_to_stand_on(as_referee: Any, handed_in: int) -> None:
    answer = as_referee("model", "promote", "cancer", str(handed_in + 1000))
    assert (answer.status, f"no model {handed_in + 1000}" in answer.err) == (2, True)
    assert "easeml model list cancer" in answer.err


def test_a_fail_of_the_gate_promotes_nothing_not_even_for_the_referee(
    as_referee: Any, database: Any, artifacts: Any, handed_in: int
) -> None:
    asked = judged(database, artifacts, handed_in)
    for request in (("--request", str(asked)), ()):  # the last verdict is taken where none is named
        answer = as_referee("model", "promote", "cancer", str(handed_in), *request)
        assert (answer.status, f"'fail' for model {handed_in}" in answer.err) == (2, True)


def test_a_rollback_needs_something_to_go_back_to(as_referee: Any, handed_in: int, recorded: Any) -> None:
    words = ("--force", "--who", "Ada", "--why", "holidays")
    assert as_referee("model", "promote", "cancer", str(handed_in), *words, "--json").json["promoted"]
    answer = as_referee("model", "rollback", "cancer", "--why", "worse")
    assert (answer.status, "to put back" in answer.err) == (2, True)
    baseline = str(handed_in - 1)
    assert as_referee("model", "promote", "cancer", baseline, *words).status == 0
    back = as_referee("model", "rollback", "cancer", "--why", "worse")
    assert f"model {handed_in} " in back.text
    recorded(back.out, "model_rollback")
    forth = as_referee("model", "rollback", "cancer", "--to", baseline, "--why", "no", "--json").json
    assert (forth["kind"], forth["promoted"], str(forth["model_id"])) == ("rollback", True, baseline)


def test_the_ledger_shows_step_level_price_and_verdict(
    as_referee: Any, ask: Any, database: Any, artifacts: Any, handed_in: int
) -> None:
    judged(database, artifacts, handed_in)
    (entry,) = as_referee("ledger", "cancer", "--json").json
    assert {k: entry[k] for k in ("step", "steps", "model_id", "released", "is_change", "set_state")} == {
        "step": 1,
        "steps": 3,
        "model_id": handed_in,
        "released": "fail",
        "is_change": False,
        "set_state": "live",
    }
    assert entry["verdict"] in ("FAIL", "UNKNOWN")  # every installation splits its data otherwise
    assert entry["level"] == pytest.approx(0.1 / 2**2)  # delta / 2^(H - 1)
    assert entry["log_cost"] == pytest.approx(0.6931471805599453)  # ln 2: under full both answers were possible
    assert "nats" not in entry
    assert entry["isolation"] is None  # a constant runs nothing
    assert entry["answered_at"] is not None
    lines = as_referee("ledger", "cancer", COLUMNS="80").out.splitlines()
    assert max(map(len, lines)) <= 80
    row = [cell.strip() for cell in lines[-2].split("\u2502")[1:-1]]  # one line, nothing is folded
    models_ = f"{handed_in} vs {handed_in - 1}"
    assert row == [str(entry["test_set_id"]), "gate 1", models_, entry["verdict"], "fail", "0.69", "-"]
    refused = ask("ledger", "cancer")
    assert refused.status == 2
    assert "permission denied" in refused.err
    assert "db url --role easeml_referee" in refused.err


@pytest.mark.parametrize(
    ("kept", "shown", "ran"),
    [
        ({"account": "nobody", "kept_from": ["network", "processes", "files"], "reasons": []}, ..., "cut off"),
        ({"account": None, "kept_from": ["network", "files"], "reasons": ["processes: no"]}, ..., "the referee's"),
        (
            {"account": "nobody", "network": False, "processes": False, "files": True, "reasons": ["files: no"]},
            {"account": "nobody", "kept_from": ["network", "processes"], "reasons": ["files: no"]},
            "reaches files",
        ),
    ],
    ids=["all", "two parts", "of an earlier version"],
)
def test_the_ledger_names_what_a_model_was_kept_from(
    kept: dict[str, Any], shown: Any, ran: str, as_referee: Any, database: Any, artifacts: Any, handed_in: int
) -> None:
    with database.referee.begin() as tx:
        study = studies.get_study(tx, "cancer")
        identity = models.get_model(tx, study.id, handed_in).identity
        live = releases.live_test_set(tx, study.id, SealedSetPurpose.GATE)
        assert live is not None
        set_id = live.id
        labels = np.zeros(len(sealed.sealed_inputs(tx, set_id)), dtype=np.int64)
        sealed.keep_predictions(tx, set_id, identity, labels=labels, failure=None, isolation=kept)
    judged(database, artifacts, handed_in)
    (entry,) = as_referee("ledger", "cancer", "--json").json
    assert entry["isolation"] == (kept if shown is ... else shown)
    assert ran in as_referee("ledger", "cancer").text


def test_the_ledger_of_an_unknown_study(as_referee: Any, handed_in: int) -> None:
    answer = as_referee("ledger", "cancr")
    assert (answer.status, "'cancr'; known: 'cancer'" in answer.err) == (2, True)


def test_a_model_is_shown_with_what_trained_it(ask: Any, handed_in: int, recorded: Any) -> None:
    shown = ask("model", "show", "cancer", str(handed_in)).out
    recorded(re.sub(r"created at  .*", "created at  (time)", shown), "model_show")
    found = ask("model", "show", "cancer", str(handed_in), "--json").json
    assert (found["trained_by"]["kind"], found["trained_by"]["parameters"]) == ("decision_tree", {})
    assert (found["candidate"], found["trained_by"]["code_version"]) == ("tree", "test")
    baseline = next(m for m in ask("model", "list", "cancer", "--json").json if m["origin"] == "baseline")
    assert ask("model", "show", "cancer", str(baseline["model_id"]), "--json").json["trained_by"] is None
