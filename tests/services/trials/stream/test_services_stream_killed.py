"""Real devices, killed or told to end in the middle of a training: nothing is trained twice, and no trial is lost."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from property_sizes import at_night

from easeml_core.sandbox.process import is_alive
from easeml_core.services.trials.worker import run_device

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

pytestmark = pytest.mark.journey

BUSY = (
    "SELECT c.name, t.state, t.attempt, (SELECT count(*) FROM work.observations o WHERE o.trial_id = t.id), "
    "(SELECT count(*) FROM work.models m WHERE m.trial_id = t.id) FROM work.trials t "
    "JOIN work.candidates c ON c.id = t.candidate_id JOIN work.studies s ON s.id = t.study_id "
    "WHERE s.name = 'busy' ORDER BY c.name"
)


@pytest.fixture
def device(lab: Any, start: Any) -> Callable[..., subprocess.Popen[str]]:
    """Start `easeml device run` on the study."""

    def launch(key: str = "night/run/device/0") -> subprocess.Popen[str]:
        place = ("--database", lab.url("easeml_worker"), "--artifacts", str(lab.artifacts.root), "--json")
        return start("-m", "easeml_core.cli", "device", "run", "--study", "busy", "--request-key", key, *place)

    return launch


def states(lab: Any) -> list[tuple[Any, ...]]:
    return list(lab.rows(BUSY))


def trees(count: int) -> list[dict[str, Any]]:
    return [{"name": f"tree-{d}", "kind": "decision_tree", "parameters": {"max_depth": d}} for d in range(1, count + 1)]


@pytest.mark.nightly  # by day test_services_checkpoints.py kills a device, and test_services_stream.py repeats numbers
def test_a_killed_device_takes_over_its_own_lease_and_goes_on(
    lab: Any, device: Any, child_of: Any, wait_for: Any
) -> None:
    """Killed in its second training; its next try, under the same key, repeats that one alone."""
    lab.register("busy", candidates=trees(3))
    first = device()
    wait_for(lambda: [s for s in states(lab) if s[1] == "SUCCEEDED"])
    trainer = wait_for(lambda: child_of(first))
    first.send_signal(signal.SIGKILL)
    first.wait(30)
    wait_for(lambda: not is_alive(trainer))  # a trainer does not outlive its device
    running = [s for s in states(lab) if s[1] == "RUNNING"]
    assert [attempt for _, _, attempt, *_ in running] == [1]  # and its lease is far from over

    again = device()
    out, log = again.communicate(timeout=120)
    summary = json.loads(out)
    assert again.returncode == 0, log
    assert (summary["reason"], len(summary["trials"])) == ("nothing left", 3)
    killed = running[0][0]
    assert states(lab) == [(f"tree-{d}", "SUCCEEDED", 2 if f"tree-{d}" == killed else 1, 1, 1) for d in (1, 2, 3)]


@pytest.mark.parametrize("ending", [signal.SIGTERM, at_night(signal.SIGINT)], ids=lambda s: s.name)
def test_a_device_that_is_asked_to_end_hands_its_trial_to_the_next(
    ending: signal.Signals, lab: Any, device: Any, child_of: Any, wait_for: Any
) -> None:
    lab.register("busy", candidates=trees(1))
    first = device()
    trainer = wait_for(lambda: child_of(first))
    first.send_signal(ending)
    out, log = first.communicate(timeout=60)
    summary = json.loads(out)
    assert first.returncode == 0, log
    assert not is_alive(trainer)
    assert (summary["reason"], summary["trials"]) == ("stopped", [])
    assert f"trial {summary['handed_back']} is handed back" in log
    assert states(lab) == [("tree-1", "SUGGESTED", 1, 0, 0)]

    other = run_device(lab.worker, lab.artifacts, device=None, request_key="another", studies_only=["busy"])
    assert [t.trial_id for t in other.trials] == [summary["handed_back"]]
    assert states(lab) == [("tree-1", "SUCCEEDED", 2, 1, 1)]


@pytest.mark.nightly
def test_three_devices_share_what_there_is(lab: Any, device: Any) -> None:
    """Three processes on one database: every candidate is trained once, by one of them."""
    lab.register("busy", candidates=trees(5))
    devices = [device(key=f"device/{n}") for n in range(3)]
    answer = [json.loads(one.communicate(timeout=200)[0]) for one in devices]
    assert {t["reason"] for t in answer} == {"nothing left"}
    trained = [t["candidate"] for summary in answer for t in summary["trials"]]
    assert sorted(trained) == [f"tree-{d}" for d in range(1, 6)]
    assert states(lab) == [(f"tree-{d}", "SUCCEEDED", 1, 1, 1) for d in range(1, 6)]
