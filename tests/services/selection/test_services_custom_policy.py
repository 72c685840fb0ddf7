"""An installed policy decides for a live installation, and no fault of it stops a decision for another tenant."""

from __future__ import annotations

import json
import threading
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from example_distribution import install_example

from easeml_core.errors import NotFoundError
from easeml_core.selection.policies import user_policy
from easeml_core.services.operations.checks import check_policy
from easeml_core.services.reports.decision import explain_trial
from easeml_core.services.selection import policy
from easeml_core.services.selection.policy import set_policy, show_policy
from easeml_core.services.selection.scheduler import LiveScheduler, suggest_trials
from easeml_core.services.selection.scheduler_process import FiledSuggester, SchedulerProcess
from easeml_core.store.tables import decisions, scheduler_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHEAPEST = "plugin:cheapest"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Each test finds what its distribution has, and a policy that has not rested."""
    for remembered in (policy._loaded.cache_clear, policy._rests_until.clear):
        remembered()
    policy._quiet_until.clear()
    yield
    policy._loaded.cache_clear()


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_example(tmp_path, monkeypatch)


def install(monkeypatch: pytest.MonkeyPatch, function: Callable[[Any], Any]) -> None:
    class Point:
        name = "cheapest"

        def load(self) -> Any:
            return function

    monkeypatch.setattr(user_policy, "entry_points", lambda group: [Point()])


def checked(installation: Any) -> Any:
    with installation.store.begin() as tx:
        return check_policy(tx)


def default_choice(installation: Any) -> tuple[str, str]:
    with installation.store.begin() as tx:
        memory = LiveScheduler(installation.store, policy="default").load(tx, decisions.glance(tx))
    found = memory.suggest(None)
    assert found is not None
    return memory.active[found.study_id].name, memory.menus[found.study_id].names[found.arm]


@pytest.mark.usefixtures("example")
def test_the_example_decides_for_the_whole_installation(installation: Any) -> None:
    set_policy(installation.owner, changes={"policy": CHEAPEST}, reason="ours")
    process, stop = SchedulerProcess(installation.owner, poll_seconds=3600), threading.Event()
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    try:
        first, second = FiledSuggester(installation.store).ask(count=2, request_key="night").trials
    finally:
        stop.set()
        thread.join(30)
    # h-4 alone has no result, so its best quality is the lowest; no cost is measured there, and all are predicted.
    assert (first.study, second.study) == ("h-4", "h-4")
    assert first.reason.endswith(f"of {first.candidate}; policy {CHEAPEST} chose it")
    explained = explain_trial(installation.store, trial_id=first.trial_id)
    assert explained.chosen is not None
    assert (explained.chosen.policy, explained.chosen.has_no_ranking) == (CHEAPEST, True)
    assert checked(installation).found == f"{CHEAPEST} chooses; 2 trials in the last day"


@pytest.mark.usefixtures("example")
def test_its_choices_are_those_of_a_scheduler_that_is_started_now(installation: Any, loads: list[int]) -> None:
    live = LiveScheduler(installation.store, policy=CHEAPEST)
    for count in (3, 1, 2):
        for trial in live.ask(count=count, request_key=next(installation.keys)).trials:
            installation.end(trial)
        assert installation.agrees(live, 4, policy=CHEAPEST)
    assert len(loads) < 3 + 3  # the scheduler of this process has gone on from memory


def test_a_policy_that_is_not_installed_is_refused_by_name(
    installation: Any, example: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match=r"no installed policy 'plugin:cheap'; known: 'plugin:cheapest'; install"):
        set_policy(installation.owner, changes={"policy": "plugin:cheap"}, reason="a slip")
    assert show_policy(installation.store).id is None
    set_policy(installation.owner, changes={"policy": CHEAPEST}, reason="ours")
    monkeypatch.setattr(user_policy, "entry_points", lambda group: metadata.EntryPoints())
    with pytest.raises(NotFoundError, match="no installed policy 'plugin:cheapest'; install its distribution"):
        LiveScheduler(installation.store, policy=CHEAPEST)
    (trial,) = suggest_trials(installation.store, count=1, request_key="elsewhere").trials
    why = f"policy {CHEAPEST} is not installed in the process that decided, so the default policy chose"
    assert why in trial.reason
    assert checked(installation).state == "warning"


def test_a_policy_whose_module_ends_the_process_is_one_that_cannot_be_loaded(
    installation: Any, example: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_policy(installation.owner, changes={"policy": CHEAPEST}, reason="ours")

    def load() -> Any:
        raise SystemExit(1)

    monkeypatch.setattr(user_policy, "entry_points", lambda group: [SimpleNamespace(name="cheapest", load=load)])
    policy._loaded.cache_clear()
    assert len(suggest_trials(installation.store, count=1, request_key="still").trials) == 1


def raises(_: Any) -> Any:
    message = "h-3 has reached 0.87"
    raise ValueError(message)


def ends(_: Any) -> Any:
    raise SystemExit(1)


FREE = threading.Event()
FAULTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "raises": (raises, "raised ValueError"),
    "ends": (ends, "raised SystemExit"),
    "chooses what ran": (lambda _: (0, 0), "chose no trial that may run"),
    "opens what ran": (lambda seen: (bool(seen.free[0].fill(True)), 0), "chose no trial that may run"),
    "says nothing": (lambda _: None, "chose no trial that may run"),
    "never answers": (lambda _: FREE.wait(60), "gave no answer within 0.2 s"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_it_fails_the_default_policy_chooses_and_says_so(
    fault: str, installation: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    function, why = FAULTS[fault]
    monkeypatch.setattr(policy, "ANSWER_SECONDS", 0.2)
    install(monkeypatch, function)
    set_policy(installation.owner, changes={"policy": CHEAPEST}, reason="ours")
    usual = default_choice(installation)
    with installation.store.begin() as tx:
        given = {"device": None, "studies": None, "functions": {}, "trainers": True, "runtimes": None}
        scheduler_requests.file_suggestion_request(tx, request_key="night", requested=3, **given)
    assert SchedulerProcess(installation.owner).decide_open() == 1
    FREE.set()
    FREE.clear()
    stored = installation.reasons()
    assert [reasons["policy"] for reasons in stored] == ["default"] * 3
    assert stored[0]["instead_of"] == f"policy {CHEAPEST} {why}"
    assert f"; policy {CHEAPEST} {why}, so the default policy chose; next best was" in stored[0]["sentence"]
    assert "0.87" not in json.dumps(stored)
    assert sum("plugin:cheapest" in record.getMessage() for record in caplog.records) == 1
    assert checked(installation).found.startswith("the default policy chose 3 of 3 trials of the last day: policy")
    assert (stored[0]["study"], stored[0]["candidate"]) == usual
