"""A tenant's login registers, trains and asks; the scheduler's role suggests, and a device trains for all tenants."""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from registering import register_study

from easeml_core.errors import NotFoundError, WrongRoleError
from easeml_core.services.operations.monitoring import installation_figures
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.overview import overview
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.selection.scheduler_process import FiledSuggester, SchedulerProcess
from easeml_core.services.studies.archive import archive_study, restore_study
from easeml_core.services.studies.limits import set_study
from easeml_core.services.trials import execution
from easeml_core.services.trials.execution import cancel_trial, run_trial
from easeml_core.store import logins
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
from easeml_core.store.rows import row
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.own_database

CANDIDATES = [{"name": f"tree-{k}", "kind": "decision_tree", "parameters": {"max_depth": k}} for k in range(1, 7)]
GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}


@pytest.fixture
def stores(database: Any) -> Iterator[dict[str, Store]]:
    """The scheduler, a device, and a login for each of two tenants."""
    found = {role: Store(database.url(f"easeml_{role}")) for role in ("scheduler", "device")}
    administrator = Store(database.url("postgres"))
    with administrator.begin() as tx:
        for name in ("garden", "mill"):
            login = logins.login_of(name)
            tx.exec_driver_sql(f"DROP ROLE IF EXISTS {login}")
            logins.run(tx, logins.statements(tx, login, name))
            logins.map_login(tx, login, [studies.add_tenant(tx, name=name)])
            found[name] = Store(database.owner.address_of(login, name))
    yield found
    for store in (*found.values(), administrator):
        store.close()


def register(store: Store, referee: Referee, tenant: str, **more: Any) -> str:
    """Register a study of the tenant, named as it is, and let the referee seal it."""
    filed = register_study(
        store,
        tenant=tenant,
        study=tenant,
        source="sklearn:digits" if tenant == "mill" else "sklearn:breast_cancer",
        candidates=CANDIDATES,
        gate=GATE,
        meter=METER,
        request_key="dag/run/register/-1",  # the same in the DAGs of both tenants
        **more,
    )
    while answer_of(store, filed.request_id) is None:
        if referee.answer_one() is None:
            time.sleep(0.02)
    return tenant


def test_the_life_of_two_tenants(database: Any, artifacts: Any, stores: dict[str, Store]) -> None:
    referee = Referee(database.referee, artifacts)
    for tenant in ("garden", "mill"):
        register(stores[tenant], referee, tenant)
    garden = stores["garden"]
    found = installation_figures(garden).tenants  # before any other role has looked, whose rows it would read
    assert [(figures.tenant, figures.studies) for figures in found] == [("garden", 1)]
    assert {entry.study for entry in overview(database.worker).tenants} == {"garden", "mill"}

    overview(database.worker)  # a tenant reads what a look of another role has written
    assert {entry.study for entry in overview(garden).tenants} == {"garden"}
    for number in range(4):
        (suggested,) = suggest_trials(stores["scheduler"], count=1, request_key=f"s/{number}").trials
        own = stores[suggested.study]
        trains = own if number < 2 else stores["device"]
        other = stores["mill" if suggested.study == "garden" else "garden"]
        with pytest.raises(NotFoundError):
            run_trial(other, artifacts, trial_id=suggested.trial_id, request_key="other")
        report = run_trial(trains, artifacts, trial_id=suggested.trial_id, request_key=f"t/{number}")
        assert (report.state, report.study) == ("SUCCEEDED", suggested.study)
        assert report.quality is not None

    with garden.begin() as tx:
        assert [s.name for s in studies.list_studies(tx)] == ["garden"]
        with pytest.raises(NotFoundError):
            studies.get_study(tx, "mill")
    process, stop = SchedulerProcess(stores["scheduler"], poll_seconds=0.2), threading.Event()
    thread = threading.Thread(target=process.run, args=(stop,))
    thread.start()
    try:
        (asked,) = FiledSuggester(garden).ask(request_key="dag/run/suggest/-1").trials
        assert asked.study == "garden"
        given = FiledSuggester(stores["device"]).ask(request_key="dag/run/suggest/-1").trials  # the same key
        assert asked.trial_id not in {trial.trial_id for trial in given}
        assert run_trial(garden, artifacts, trial_id=asked.trial_id, request_key="t/5").state == "SUCCEEDED"
        (left,) = suggest_trials(stores["scheduler"], count=1, request_key="last").trials
        assert cancel_trial(stores[left.study], trial_id=left.trial_id).state == "CANCELLED"
        assert pause_study(garden, study="garden", paused=True).state == "PAUSED"
        assert archive_study(garden, study="garden", why="over").state == "ARCHIVED"
        assert restore_study(garden, study="garden").state == "PAUSED"
        with pytest.raises(NotFoundError):
            archive_study(garden, study="mill", why="a rival")
    finally:
        stop.set()
        thread.join(30)
    with database.worker.begin() as tx:
        assert row(tx, "SELECT state FROM work.studies WHERE name = 'mill'")[0] == "ACTIVE"


def test_what_the_provider_shares_out_is_not_a_tenants(database: Any, artifacts: Any, stores: dict[str, Store]) -> None:
    referee = Referee(database.referee, artifacts)
    for more in ({"weight": 2.0}, {"priority": 1}, {"deadline": "2999-01-01T00:00:00+00:00"}):
        with pytest.raises(WrongRoleError, match="row-level security"):
            register(stores["garden"], referee, "garden", **more)
    with pytest.raises(WrongRoleError):
        register_study(stores["garden"], tenant="mill", study="x", source="sklearn:iris", request_key="k")
    register(stores["garden"], referee, "garden", budget_seconds=1000.0)
    with pytest.raises(WrongRoleError):
        set_study(stores["garden"], study="garden", weight=1e6)
    with pytest.raises(WrongRoleError):
        suggest_trials(stores["garden"], count=1, request_key="mine")
    with pytest.raises(WrongRoleError):
        suggest_trials(stores["device"], count=1, request_key="mine")


def test_a_login_that_claims_with_a_token_hands_its_trial_back_while_its_disk_is_full(
    database: Any, artifacts: Any, stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(stores["garden"], Referee(database.referee, artifacts), "garden")
    (found,) = suggest_trials(stores["scheduler"], count=1, request_key="s").trials
    full = [OSError(errno.ENOSPC, "No space left on device")]
    put = ArtifactStore._put

    def full_once(store: Any, path: Path) -> str:
        if full:
            raise full.pop()
        return put(store, path)

    monkeypatch.setattr(execution, "PAUSES", (0.0,))
    monkeypatch.setattr(ArtifactStore, "_put", full_once)
    assert run_trial(stores["garden"], artifacts, trial_id=found.trial_id, request_key="t").state == "SUCCEEDED"
    with database.worker.begin() as tx:
        assert tuple(row(tx, "SELECT attempt, excused FROM work.trials")) == (2, 1)
