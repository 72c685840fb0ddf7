"""One sealed set for gate and meter: one ledger, one log weight, one end; through the real store and services."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve
from joint_lab import LN2, Shared, costs, parked, register

from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import InvalidInputError, StateError
from easeml_core.meter.shared_ledger import joint_plan
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request
from easeml_core.services.reports.overview import live_sets
from easeml_core.services.test_sets import answers
from easeml_core.services.test_sets.answers import study_ledger
from easeml_core.services.test_sets.lifecycle import SystemSteps, list_test_sets
from easeml_core.services.test_sets.planning import examples_for_joint_gate, plan_joint
from easeml_core.settings.config import GateConfig, JointConfig
from easeml_core.store.database import Store
from easeml_core.store.tables import referee_claims, releases

DELTA_GATE, DELTA_METER = 0.1 * 0.25, 0.1 * 0.75


def test_one_part_is_sealed_for_both_with_their_own_parts_of_delta(shared: Shared) -> None:
    lab = shared.lab
    ((purpose, rows, steps, plan),) = lab.rows("SELECT purpose, rows, steps, plan FROM work.test_sets")
    assert (purpose, steps) == ("joint", 3 + 4)
    config = JointConfig.from_json(plan)
    assert (config.gate.condition, config.gate.steps, config.meter.steps) == ("n - o > 0 +/- 0.2", 3, 4)
    assert 1 - config.gate.reliability == pytest.approx(DELTA_GATE, rel=1e-9)
    assert 1 - config.meter.reliability == pytest.approx(DELTA_METER, rel=1e-9)
    assert (1 - config.gate.reliability) + (1 - config.meter.reliability) <= 1 - 0.9
    assert rows >= plan_joint(config).labels
    parts = dict(lab.rows("SELECT part, rows FROM work.data_parts"))
    assert set(parts) == {"train", "validation", "joint"}
    assert sum(parts.values()) == 569
    assert set(live_sets(lab.worker, study="shared")) >= {"gate", "meter"}


def test_each_answer_lowers_the_levels_of_both(shared: Shared) -> None:
    parked(shared)
    models = [shared.model(share) for share in (0.0, 0.5, 0.1)]
    said = [shared.meter(models[1]), shared.gate(models[0]), shared.meter(models[0]), shared.gate(models[2])]
    assert [a.refused for a in said] == [False] * 4
    entries = shared.ledger()
    assert [(system, step, own) for system, step, own, *_ in entries] == [
        ("meter", 1, 1),
        ("gate", 2, 1),
        ("meter", 3, 2),
        ("gate", 4, 2),
    ]
    weight, first = 0.0, {"gate": math.log(DELTA_GATE / 3), "meter": math.log(DELTA_METER / 4)}
    for system, _, _, _, log_level, log_cost in entries:
        assert log_level == pytest.approx(first[system] - weight, abs=1e-9)
        assert log_cost == (LN2 if system == "gate" else pytest.approx(LN2 * round(log_cost / LN2, 9), abs=1e-9))
        weight += log_cost
    assert costs(shared)[0] == ("meter", 1.0)  # parked on the boundary: either range could have been answered
    assert weight >= 3 * LN2


def test_the_developer_counts_the_answers_of_one_system_and_the_referee_those_of_both(shared: Shared) -> None:
    shared.meter(shared.model(0.1))
    verdict = shared.gate(shared.model(0.0))
    assert (verdict.step, verdict.steps, verdict.message) == (1, 3, "step 1 of 3: pass")
    used = {"gate": SystemSteps(steps_used=1, steps=3), "meter": SystemSteps(steps_used=1, steps=4)}
    assert [entry.systems for entry in list_test_sets(shared.lab.worker, study="shared")] == [used]
    found = study_ledger(shared.lab.referee, study="shared")
    assert [(e.system, e.purpose, e.step, e.system_step, e.system_steps) for e in found] == [
        ("meter", "joint", 1, 1, 4),
        ("gate", "joint", 2, 1, 3),
    ]
    assert (found[0].verdict, found[1].verdict) == ("1", "PASS")
    assert found[1].log_level == pytest.approx(math.log(DELTA_GATE / 3) - found[0].log_cost, abs=1e-9)
    assert shared.meter(shared.model(0.3)).submissions_left == 2
    sql = "SELECT max(step) FROM work.{}"
    assert [shared.lab.one(sql.format(table)) for table in ("gate_verdicts", "meter_readings")] == [1, 2]


@pytest.mark.parametrize(("system", "other", "steps"), [("gate", "meter", 3), ("meter", "gate", 4)])
def test_the_last_step_of_either_system_ends_the_set_for_both(
    system: str, other: str, steps: int, shared: Shared, recorded: Any
) -> None:
    ask = {"gate": shared.gate, "meter": shared.meter}
    for place in range(steps):
        assert shared.state() == ("live", None)
        ask[system](shared.model(place / 50))
    assert shared.state() == ("retired", "steps")
    assert live_sets(shared.lab.worker, study="shared") == []
    assert f"no live {other} set" in ask[other](shared.model(0.1)).message
    assert len(shared.ledger()) == steps
    (message,) = (a[0] for a in shared.lab.rows("SELECT message FROM work.alerts WHERE kind = 'new-test-set'"))
    recorded(message, f"shared_set_ended_by_{system}")


def test_what_was_answered_is_answered_again_for_nothing(shared: Shared) -> None:
    model = shared.model(0.0)
    first, signal = shared.gate(model), shared.meter(model)
    assert (shared.gate(model).cached, shared.meter(model).cached) == (True, True)
    assert (shared.gate(model).step, shared.meter(model).signal) == (first.step, signal.signal)
    assert len(shared.ledger()) == 2


def test_a_hidden_verdict_costs_nothing_and_pays_for_every_signal(hidden: Shared) -> None:
    parked(hidden)
    for _ in range(2):
        hidden.gate(hidden.model(0.0))
        hidden.meter(hidden.model(0.5))
    assert costs(hidden) == [("gate", 0.0), ("meter", 1.0), ("gate", 0.0), ("meter", 1.0)]
    levels = [level for system, *_, level, _ in hidden.ledger() if system == "gate"]
    assert levels == pytest.approx([math.log(DELTA_GATE / 3), math.log(DELTA_GATE / 3) - LN2], abs=1e-9)


def test_under_none_models_are_compared_with_the_last_judged_whatever_the_meter_read(hidden: Shared) -> None:
    first, read, second = (hidden.model(share) for share in (0.1, 0.2, 0.0))
    hidden.gate(first)
    hidden.meter(read)
    hidden.gate(second)
    named = hidden.lab.rows("SELECT model_id, incumbent_id FROM work.gate_verdicts ORDER BY step")
    assert named[1] == (second, first)


def test_a_meter_that_cannot_answer_ends_the_set_for_both(shared: Shared) -> None:
    shared.lab.as_superuser("UPDATE work.test_sets SET plan = jsonb_set(plan, '{meter,tolerance}', '0.01')")
    assert shared.meter(shared.model(0.1)).signal is None
    assert shared.state() == ("retired", "signals")
    assert "no live gate" in shared.gate(shared.model(0.1)).message


@pytest.mark.parametrize("adaptivity", ["full", "none"])
def test_the_set_ends_when_the_next_verdict_would_need_more_examples(adaptivity: str, bare: Any, tmp_path: Any) -> None:
    shared = register(bare, tmp_path, gate={"adaptivity": adaptivity}, meter={"ambiguous": 0})
    parked(shared)
    ((rows, plan),) = bare.rows("SELECT rows, plan FROM work.test_sets")
    config = JointConfig.from_json(plan)
    bare.as_superuser(
        "UPDATE work.test_sets SET plan = jsonb_set(plan, '{gate,condition}', to_jsonb(%s::text))",
        condition_that_needs(rows, 2.5 * LN2, config),
    )
    shared.gate(shared.model(0.0))
    for _ in range(1 if adaptivity == "full" else 2):  # a hidden verdict was free
        shared.meter(shared.model(0.5))
    assert shared.state() == ("live", None)
    shared.meter(shared.model(0.5))
    assert shared.state() == ("retired", "tolerance")
    assert shared.meter(shared.model(0.1)).refused
    (message,) = [m for (m,) in bare.rows("SELECT message FROM work.alerts WHERE kind = 'new-test-set'")]
    assert "too few examples" in message


def condition_that_needs(examples: int, log_weight: float, config: JointConfig) -> str:
    """The narrowest condition that so many examples suffice for at this log weight."""
    narrowing = (f"n - o > 0 +/- {e / 1000:g}" for e in range(100, 1000))
    return next(
        c for c in narrowing if examples_for_joint_gate(evolve(config.gate, condition=c), log_weight) <= examples
    )


def test_the_planned_answers_fit_into_the_planned_set(shared: Shared) -> None:
    """All verdicts, and as many ambiguous signals as planned, before the last verdict and the last signal."""
    config = JointConfig.from_json(shared.lab.one("SELECT plan FROM work.test_sets"))
    shared.lab.as_superuser("UPDATE work.test_sets SET rows = %s", plan_joint(config).labels)
    parked(shared)
    answers = [shared.meter(shared.model(0.5)), shared.meter(shared.model(0.5))]
    answers += [shared.gate(shared.model(share)) for share in (0.0, 0.1)]
    assert not any(a.refused for a in answers)
    assert shared.state() == ("live", None)
    assert math.fsum(cost for *_, cost in shared.ledger()) == pytest.approx(4 * LN2, abs=1e-9)
    assert plan_joint(config).gate_log_weight == pytest.approx(4 * LN2, abs=1e-9)


@pytest.mark.parametrize("last", ["gate", "meter"])
def test_nobody_is_answered_between_the_last_answer_and_its_publication(last: str, shared: Shared) -> None:
    """The answer that uses the last step is decided and not said; the set is publicly live, and yet has ended."""
    lab = shared.lab
    ask, file, other = {
        "gate": (shared.gate, file_gate_request, file_meter_request),
        "meter": (shared.meter, file_meter_request, file_gate_request),
    }[last]
    for share in (0.1, 0.0, 0.15)[: 2 if last == "gate" else 3]:
        ask(shared.model(share))
    ends, late = shared.model(0.05), shared.model(0.2)
    later = Referee(lab.referee, lab.artifacts, timetable=Timetable(delay_seconds=timedelta(days=1).total_seconds()))
    file(lab.worker, study="shared", model_id=ends, request_key=lab.key())
    later.run_once()
    used = len(shared.ledger())
    asked = other(lab.worker, study="shared", model_id=late, request_key=lab.key())
    lab.answer_all()
    assert shared.state() == ("live", None)
    assert answer_of(lab.worker, asked) is None  # it waits
    assert len(shared.ledger()) == used
    ended = pytest.raises(StateError, match="for both")
    with ended, lab.referee.begin() as tx:
        answers.require_joint_goes_on(tx, releases.live_test_set(tx, 1, SealedSetPurpose.METER))
    lab.as_superuser("UPDATE sealed.outbox SET leaves_at = now() WHERE left_at IS NULL")
    Referee(lab.referee, lab.artifacts).run_once()
    assert shared.state() == ("retired", "steps")
    assert f"no live {'meter' if last == 'gate' else 'gate'} set" in answer_of(lab.worker, asked).message


def test_a_refusal_for_too_few_examples_tells_nothing_of_the_signals(shared: Shared) -> None:
    """What the condition needs is figured at the planned weight: ambiguous signals do not change the answer."""
    bare = shared.lab
    config = JointConfig.from_json(bare.one("SELECT plan FROM work.test_sets"))
    rows = bare.one("SELECT rows FROM work.test_sets")
    fits = next(
        e / 1000
        for e in range(50, 400)
        if examples_for_joint_gate(GateConfig(condition=f"n > 0.5 +/- {e / 1000}", **of(config)), 4 * LN2) <= rows
    )
    parked(shared)
    refused = {}
    plan_condition(shared, f"n > 0.5 +/- {fits - 0.001:g}")
    for signals in range(3):
        refused[signals] = shared.gate(shared.model(0.0)).message
        shared.meter(shared.model(0.5))
    assert len(set(refused.values())) == 1
    assert "needs at least" in refused[0]
    plan_condition(shared, f"n > 0.5 +/- {fits:g}")
    assert "needs at least" not in shared.gate(shared.model(0.0)).message


def plan_condition(shared: Shared, condition: str) -> None:
    """Let the set have been planned for this condition."""
    plan = "UPDATE work.test_sets SET plan = jsonb_set(plan, '{gate,condition}', to_jsonb(%s::text))"
    shared.lab.as_superuser(plan, condition)


def of(config: JointConfig) -> dict[str, Any]:
    return {"reliability": config.gate.reliability, "steps": config.gate.steps}


def test_a_shared_set_answers_about_no_other_condition(shared: Shared) -> None:
    with pytest.raises(InvalidInputError, match="other_conditions 2"):
        joint_plan(JointConfig(gate=GateConfig(other_conditions=2)))
    assert "no other condition" in shared.gate(shared.model(0.0), condition="n > 0.5 +/- 0.4").message


def test_the_reliability_that_can_be_asked_for_is_that_of_both(shared: Shared) -> None:
    assert not shared.gate(shared.model(0.0), reliability=0.9).refused
    assert "0.9, which" in shared.gate(shared.model(0.0), reliability=0.99).message


@pytest.mark.parametrize("kinds", [("gate", "meter"), ("meter", "gate")])
def test_the_steps_follow_the_order_of_the_requests(shared: Shared, kinds: tuple[str, str]) -> None:
    """A request whose model runs, or whose time has not come, is passed over; a later one of either kind waits."""
    file = {"gate": file_gate_request, "meter": file_meter_request}
    asked = {"study": "shared", "model_id": shared.model()}
    first, second = (file[kind](shared.lab.worker, **asked, request_key=kind) for kind in kinds)
    with shared.lab.referee.begin() as tx:
        assert referee_claims.claim_request(tx, skip=[first]) is None
        assert referee_claims.claim_request(tx) == first
    assert not shared.lab.answer(second).refused
    assert [system for system, *_ in shared.ledger()] == list(kinds)


def test_two_referees_answer_one_after_the_other(bare: Any, tmp_path: Any) -> None:
    """Gate and meter are asked at once, many times; the ledger is as if they had been asked in turn."""
    shared = register(
        bare,
        tmp_path,
        gate={"steps": 8, "condition": "n > 0.5 +/- 0.2"},
        meter={"steps": 8, "ambiguous": 4, "tolerance": 0.4},
    )
    parked(shared)
    models = [shared.model(share) for share in (0.0, 0.5, 0.1, 0.45, 0.2, 0.55)]
    asked = []
    for model in models:
        for file in (file_gate_request, file_meter_request):
            asked.append(file(bare.worker, study="shared", model_id=model, request_key=bare.key()))
    start = threading.Barrier(2)

    def work(store: Store) -> None:
        judge = Referee(store, bare.artifacts)
        start.wait()
        for _ in iter(judge.answer_one, None):
            pass

    stores = [Store(bare.url("easeml_referee"), lock_timeout_seconds=20) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, stores))
    for store in stores:
        store.close()
    bare.answer_all()  # what was put off for the other's lock
    assert all(not answer_of(bare.worker, request_id).refused for request_id in asked)
    entries, weight = shared.ledger(), 0.0
    assert [step for _, step, *_ in entries] == list(range(1, 13))
    first = {"gate": math.log(DELTA_GATE / 8), "meter": math.log(DELTA_METER / 8)}
    for system in first:
        assert [own for name, _, own, *_ in entries if name == system] == list(range(1, 7))
    for system, _, _, _, log_level, log_cost in entries:
        assert log_level == pytest.approx(first[system] - weight, abs=1e-9)
        weight += log_cost
