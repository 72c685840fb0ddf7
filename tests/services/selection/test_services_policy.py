"""The installation's settings of the scheduler: stored once, obeyed at once, changed by the owner alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import ConfigError, InvalidInputError, StateError, StoreError
from easeml_core.formats.encoding import row_of
from easeml_core.services.selection.policy import current_config, policy_history, set_policy, show_policy
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.settings.config import SelectionConfig
from easeml_core.store.database import Store, lock
from easeml_core.store.tables.decisions import add_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def owner(lab: Any) -> Iterator[Store]:
    """The laboratory's database in the role of its owner."""
    store = Store(lab.url("easeml_owner"))
    yield store
    store.close()


def config_now(lab: Any, policy: str | None = None) -> SelectionConfig:
    with lab.worker.begin() as tx:
        return current_config(tx, policy)


def batch(lab: Any, policy: str | None = None, **changes: Any) -> tuple[str, int | None]:
    """Policy and settings of a new batch, as stored."""
    asked = {"count": 1, "policy": policy, "request_key": lab.key()} | changes
    answer = suggest_trials(lab.worker, **asked)
    ((name, settings),) = lab.rows(
        f"SELECT policy, settings_id FROM work.suggestion_batches WHERE request_key = '{asked['request_key']}'"
    )
    assert answer.policy == name
    return name, settings


def test_without_any_the_programs_own_hold(lab: Any) -> None:
    shown = show_policy(lab.worker)
    assert (shown.id, shown.policy, shown.reason) == (None, "default", None)
    assert SelectionConfig.from_json(shown.config) == SelectionConfig() == config_now(lab)
    assert policy_history(lab.worker) == []
    assert batch(lab) == ("default", None)


def test_what_is_set_holds_from_the_next_decision_on(lab: Any, owner: Store) -> None:
    before = batch(lab)
    answer = set_policy(owner, changes={"policy": "hybrid", "beta_multiplier": 0.05}, reason=" equal costs ")
    assert (answer.policy, answer.reason, answer.changed) == ("hybrid", "equal costs", True)
    assert answer.created_by == "easeml_owner"
    assert config_now(lab) == SelectionConfig(policy="hybrid", beta_multiplier=0.05)
    assert batch(lab) == ("hybrid", answer.id)
    assert before == ("default", None)
    later = set_policy(owner, changes={"guard": 0.3}, reason="complaints")
    assert config_now(lab) == SelectionConfig(policy="hybrid", beta_multiplier=0.05, guard=0.3)
    assert batch(lab) == ("hybrid", later.id)
    assert [h.reason for h in policy_history(lab.worker)] == ["complaints", "equal costs"]
    assert {**row_of(show_policy(lab.worker)), "changed": True} == row_of(later)


def test_a_named_policy_keeps_the_other_settings(lab: Any, owner: Store) -> None:
    changes = {"policy": "order", "guard": 0.5, "order": ("decision_tree", "nearest_centroid")}
    answer = set_policy(owner, changes=changes, reason="habit")
    assert config_now(lab).order == ("decision_tree", "nearest_centroid")
    assert config_now(lab, "default") == SelectionConfig(guard=0.5, order=changes["order"])
    assert batch(lab, "default") == ("default", answer.id)
    reasons = lab.one("SELECT reasons FROM work.suggestions ORDER BY batch_id DESC LIMIT 1")
    assert (reasons["policy"], reasons["guard"]) == ("default", 0.5)
    assert batch(lab) == ("order", answer.id)
    with pytest.raises(ConfigError, match="policy must be one of"):
        config_now(lab, "luck")


def test_the_price_of_compute_stops_everybody_and_a_retry_still_gets_its_answer(lab: Any, owner: Store) -> None:
    key = lab.key()
    first = suggest_trials(lab.worker, count=1, request_key=key)
    assert len(first.trials) == 1
    set_policy(owner, changes={"price_per_second": 1e9}, reason="too dear")
    assert suggest_trials(lab.worker, count=5, request_key=lab.key()).trials == ()
    assert suggest_trials(lab.worker, count=1, request_key=key) == first


def test_a_repetition_stores_nothing(lab: Any, owner: Store) -> None:
    once = {"changes": {"guard": 0.2}, "reason": "r", "report": {"ratio": 0.1 + 0.2, "losses": [0.05, 1e-7]}}
    first, again = set_policy(owner, **once), set_policy(owner, **once)
    assert (first.changed, again.changed, again.id) == (True, False, first.id)
    assert set_policy(owner, **once | {"report": None}).changed  # other evidence is news
    assert set_policy(owner, **once | {"reason": "s", "report": None}).changed
    back = set_policy(owner, changes={}, reason="back", from_defaults=True)
    assert SelectionConfig.from_json(back.config) == SelectionConfig()
    assert len(policy_history(lab.worker)) == 4


def test_eight_at_once_with_one_thought_store_it_once(lab: Any) -> None:
    together = Barrier(8)

    def change(_: int) -> Any:
        store = Store(lab.url("easeml_owner"))
        together.wait()
        answer = set_policy(store, changes={"guard": 0.2}, reason="the same")
        store.close()
        return answer.id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(change, range(8)))) == 1
    assert len(policy_history(lab.worker)) == 1


def test_a_change_waits_for_the_decision_under_way(lab: Any, owner: Store) -> None:
    done = Event()

    def change() -> None:
        set_policy(owner, changes={"policy": "random"}, reason="now")
        done.set()

    thread = Thread(target=change)
    with lab.worker.begin() as tx:
        lock(tx, "suggest")
        thread.start()
        assert not done.wait(0.3)
        assert current_config(tx).policy == "default"
    thread.join(60)
    assert done.is_set()
    assert config_now(lab).policy == "random"


def test_a_change_that_was_thought_out_under_other_settings_is_refused(lab: Any, owner: Store) -> None:
    first = set_policy(owner, changes={"guard": 0.2}, reason="a", instead_of=0)
    with pytest.raises(StateError, match="the settings were changed meanwhile; look with `easeml policy show`"):
        set_policy(owner, changes={"guard": 0.3}, reason="b", instead_of=0)
    assert config_now(lab).guard == 0.2
    assert set_policy(owner, changes={"guard": 0.2}, reason="a", instead_of=0).changed is False
    assert set_policy(owner, changes={"guard": 0.3}, reason="b", instead_of=first.id).changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "luck"}, "policy must be one of default"),
        ({"guard": 1.0}, "guard must be >= 0 and < 1, got 1.0"),
        ({"guard": float("nan")}, "guard must be"),
        ({"objective": 2.0}, "objective must be >= 0 and <= 1"),
        ({"price_per_second": float("inf")}, "price_per_second must be >= 0 and finite"),
        ({"beta_multiplier": 0.0}, "beta_multiplier must be > 0"),
    ],
)
def test_what_is_out_of_range_is_not_stored(lab: Any, owner: Store, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        set_policy(owner, changes=changes, reason="r")
    assert policy_history(lab.worker) == []


@pytest.mark.parametrize("reason", ["", " \n", "x" * 2001])
def test_a_reason_is_needed(lab: Any, owner: Store, reason: str) -> None:
    with pytest.raises(InvalidInputError, match="a reason of 1 to 2000 characters is needed"):
        set_policy(owner, changes={"guard": 0.2}, reason=reason)


@pytest.mark.parametrize("role", ["worker", "referee"])
def test_only_the_owner_chooses_for_everybody(lab: Any, role: str) -> None:
    with pytest.raises(StoreError, match="this role may not do that"):
        set_policy(getattr(lab, role), changes={"policy": "order"}, reason="mine first")
    assert policy_history(lab.worker) == []


def test_settings_of_a_version_that_knew_more_stop_decisions_and_can_still_be_read(lab: Any, owner: Store) -> None:
    """A setting that is silently ignored would be worse than a decision that is not made."""
    with owner.begin() as tx:
        add_settings(tx, config={"policy": "hybrid", "magic": 7}, reason="from the future")
    with pytest.raises(InvalidInputError, match="has no setting 'magic'"):
        suggest_trials(lab.worker, count=1, request_key=lab.key())
    assert show_policy(lab.worker).config["magic"] == 7
    assert policy_history(lab.worker)[0].policy == "hybrid"
    set_policy(owner, changes={}, reason="back", from_defaults=True)
    assert batch(lab)[0] == "default"
