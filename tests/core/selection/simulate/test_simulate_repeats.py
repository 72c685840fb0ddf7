"""All repeats: the same outcomes on any number of processes, reports as JSON, and what goes wrong on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from easeml_core.errors import ConfigError, NumericalError, StateError
from easeml_core.formats.encoding import row_of, to_json
from easeml_core.selection.simulate import repeats
from easeml_core.selection.simulate.compare import KNOBS, fairness_curve, points_of
from easeml_core.selection.simulate.protocol import Protocol
from easeml_core.selection.simulate.repeats import run_repeats
from easeml_core.selection.simulate.report import (
    Curve,
    FirstModel,
    LossPrice,
    Regret,
    SimulatedPolicy,
    Simulation,
    percent_to_loss,
    worst_loss,
)

PROTOCOL = Protocol(served=3, repeats=4, seed=5, devices=2, losses=(0.3, 0.1))


def timeless(answer):
    """JSON without the measured times."""
    text = json.dumps(answer, allow_nan=False)
    return json.loads(text, object_hook=lambda d: {k: v for k, v in d.items() if k != "decision_microseconds"})


@pytest.fixture
def simulate(make_table, contest):
    def run(*names, protocol=PROTOCOL, **how):
        table = make_table(gaps=0.2)
        outcomes = run_repeats(table, protocol, contest(*names, table=table), **how)
        simulation = Simulation(protocol, outcomes)
        return to_json({"protocol": protocol, "policies": simulation.figures()})

    return run


def test_the_report_has_the_promised_form(simulate):
    answer = simulate("hybrid@0.05", "clairvoyant", processes=1)
    assert list(answer) == ["protocol", "policies"]
    assert list(answer["policies"]) == ["hybrid@0.05", "clairvoyant"]
    assert answer["protocol"] == {
        **{"served": 3, "repeats": 4, "seed": 5, "history": None, "devices": 2, "cost_mode": "known"},
        **{"until": 100.0, "losses": [0.3, 0.1], "drive": "stream"},
    }
    figures = answer["policies"]["clairvoyant"]
    assert list(figures) == [
        *["percent_to_loss", "worst_loss", "regret", "first_model_percent", "compute_share", "decision_microseconds"]
    ]
    assert list(figures["percent_to_loss"]) == ["0.3", "0.1"]
    assert list(figures["percent_to_loss"]["0.1"]) == ["median", "p10", "p90", "mean_curve", "reached"]
    assert list(figures["worst_loss"]) == ["1", "10", "50"]
    assert list(figures["regret"]) == ["total", "worst_tenant", "p10_tenant"]
    assert list(figures["first_model_percent"]) == ["median", "worst"]
    assert figures["decision_microseconds"] > 0


def test_same_seed_same_report_on_any_number_of_processes(simulate):
    names = ("hybrid", "random", "mm-gp-ei", "clairvoyant")
    one, two = (timeless(simulate(*names, processes=n)) for n in (1, 2))
    assert one == two
    other = timeless(simulate(*names, protocol=Protocol(served=3, repeats=4, seed=6, losses=(0.3, 0.1)), processes=1))
    assert other["policies"] != one["policies"]


def test_a_policy_does_not_depend_on_the_others(simulate):
    alone, together = simulate("random", processes=1), simulate("hybrid", "random", processes=1)
    assert timeless(alone)["policies"]["random"] == timeless(together)["policies"]["random"]


def test_progress_is_reported(make_table, contest):
    table, reported = make_table(), []
    contestants = contest("fcfs", "clairvoyant", table=table)
    run_repeats(table, PROTOCOL, contestants, processes=1, on_done=lambda done, of: reported.append((done, of)))
    assert reported == [(i, 8) for i in range(1, 9)]


def test_a_table_with_too_few_tenants(simulate):
    with pytest.raises(ConfigError, match="served must be from 1 to 8"):
        simulate("fcfs", protocol=Protocol(served=9), processes=1)


def _fail(*arguments):
    message = "no covariance"
    raise NumericalError(message)


def test_a_policy_that_cannot_go_on_is_named(simulate, monkeypatch):
    monkeypatch.setattr(repeats, "run_repeat", _fail)
    with pytest.raises(NumericalError, match="policy 'fcfs', repeat 0: no covariance"):
        simulate("fcfs", processes=1)


def wait_until_no_process_is_left():
    """Processes that were signalled may take a moment; one that does not end runs into the test's time limit."""
    while multiprocessing.active_children():
        time.sleep(0.01)


def test_a_killed_process_is_an_error_and_leaves_nobody_behind(simulate):
    def kill(done, of):
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(StateError, match="was killed, perhaps for want of memory; try again with fewer processes"):
        simulate("hybrid", protocol=Protocol(served=8, repeats=200), processes=2, on_done=kill)
    wait_until_no_process_is_left()


def test_whoever_stops_listening_ends_the_processes(simulate):
    def interrupted(done, of):
        raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        simulate("fcfs", "hybrid", processes=2, on_done=interrupted)
    assert set(threading.enumerate()) <= before  # the pool's thread, where it is alive at exit, may print a traceback
    wait_until_no_process_is_left()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_ctrl_c_that_another_thread_hears_while_processes_start_is_not_lost(simulate, monkeypatch):
    class Pool(repeats.ProcessPoolExecutor):
        def submit(self, *task):
            started = super().submit(*task)
            os.kill(os.getpid(), signal.SIGINT)
            return started

    done, reported = threading.Event(), []
    bystander = threading.Thread(target=done.wait)  # does not block the signal
    bystander.start()
    monkeypatch.setattr(repeats, "ProcessPoolExecutor", Pool)
    try:
        with pytest.raises(KeyboardInterrupt):
            simulate("fcfs", "hybrid", processes=2, on_done=lambda *numbers: reported.append(numbers))
    finally:
        done.set()
        bystander.join()
    assert reported == []
    wait_until_no_process_is_left()


# Figures


def curve(*steps):
    percent, loss = zip((0.0, 0.9), *steps, strict=True)
    return Curve(np.array(percent), np.array(loss))


def test_prices_by_hand():
    """Reached at 10, at 20, and never, which counts as 100. The mean is 0.9, then 0.6, then 0.3."""
    curves = [curve((10.0, 0.0)), curve((20.0, 0.0)), curve()]
    prices = percent_to_loss(curves, (0.5, 0.01))
    assert row_of(prices["0.5"]) == pytest.approx(
        {"median": 20.0, "p10": 12.0, "p90": 84.0, "mean_curve": 20.0, "reached": 2 / 3}
    )
    assert prices["0.01"].mean_curve == 100.0


def test_worst_loss_by_hand():
    curves = [curve((0.5, 0.5), (10.0, 0.2)), curve((5.0, 0.4), (60.0, 0.0))]
    assert worst_loss(curves, until=100) == {"1": 0.9, "10": 0.4, "50": 0.4}
    assert worst_loss(curves, until=10) == {"1": 0.9, "10": 0.4, "50": None}


# Efficiency against fairness


def test_a_curve_over_a_knob(make_table, contest):
    table = make_table()
    points = points_of(contest("roundrobin", "default", "default:blend=0", table=table), "guard")
    names = [point.contestant.name for point in points]
    assert names[:3] == ["roundrobin", "default:guard=0", "default:guard=0.05"]
    assert names[-1] == "default:blend=0,guard=0.8"
    assert [point.value for point in points] == [None, *KNOBS["guard"], *KNOBS["guard"]]
    for point in points[1:]:
        assert point.contestant.config.guard == point.value
    assert points[-1].contestant.config.blend == 0
    with pytest.raises(ValueError, match="needs the policy default, which alone has one; add --policy default"):
        points_of(contest("hybrid", table=table), "objective")
    with pytest.raises(ValueError, match="says its guard already"):
        points_of(contest("default:guard=0", table=table), "guard")


def test_the_curve_as_json(make_table, contest):
    table = make_table()
    [point] = points_of(contest("roundrobin", "default", table=table), "guard")[:1]
    figures = SimulatedPolicy(
        percent_to_loss={"0.1": LossPrice(4.0, 3.0, 5.0, 4.5, 1.0)},
        worst_loss={},
        regret=Regret(3.0, 2.0, 1.5),
        first_model_percent=FirstModel(5.0, 9.0),
        compute_share={},
        decision_microseconds=1.0,
    )
    assert to_json(fairness_curve("guard", [point], {"roundrobin": figures})) == {
        "knob": "guard",
        "points": [
            {
                "policy": "roundrobin",
                "value": None,
                "total_regret": 3.0,
                "worst_tenant_regret": 2.0,
                "p10_tenant_regret": 1.5,
                "first_model_worst_percent": 9.0,
                "percent_to_loss": {"0.1": 4.0},
            }
        ],
    }
