"""Several devices of one trial in Airflow: a task takes all slots of its pool at once, so no two tasks deadlock."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow.sdk import DAG
from sqlalchemy import update
from task_doubles import context

from easeml_airflow.operators import ListDevicesOperator, RunDeviceOperator, SuggestTrialsOperator, TrainTrialOperator
from easeml_core.errors import ConfigError
from easeml_core.store.tables.capacity import Device, announce_device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

POOL = "gang_of_three"


def test_a_device_that_is_several_takes_as_many_slots_or_is_refused() -> None:
    assert RunDeviceOperator(task_id="run", device="gpu:4").pool_slots == 4
    assert RunDeviceOperator(task_id="run", device="gpu/4").pool_slots == 1
    assert RunDeviceOperator(task_id="run", device="{{ params.device }}", pool_slots=8).pool_slots == 8
    assert RunDeviceOperator(task_id="run").pool_slots == 1
    with pytest.raises(ConfigError, match="pool_slots must be >= 4: a trial for gpu:4 holds 4 devices at once, got 2"):
        RunDeviceOperator(task_id="run", device="gpu:4", pool_slots=2)
    rendered = RunDeviceOperator(task_id="run", device="{{ params.device }}")
    rendered.device = "gpu:2"
    with pytest.raises(Exception, match="pool_slots must be >= 2"):
        rendered.execute({"ti": None})


def test_a_task_asks_for_as_many_trials_as_live_devices_can_take(connected: Any, make_study: Any) -> None:
    make_study("cancer", candidates=[{"name": f"tree-{d}", "kind": "decision_tree"} for d in range(9)])

    def suggested(run: str, device: str, **given: Any) -> int:
        operator = SuggestTrialsOperator(task_id="suggest", count=None, device=device, trainers=True, **given)
        return len(operator.execute(context("suggest", run_id=run)))

    with connected.worker.begin() as tx:
        announce_device(tx, Device("a", "cpu", "cpu", None, None, None, slots=5, held=2), holder="stream")
    assert suggested("first", "cpu") == 3
    assert suggested("second", "gpu") == 1  # none is live: the host announces itself when its task starts
    assert suggested("third", "cpu", at_least=5) == 5


def test_streams_are_mapped_over_the_slots_of_live_devices_unless_the_form_names_some(connected: Any) -> None:
    def listed(**given: Any) -> list[str]:
        return ListDevicesOperator(task_id="devices", **given).execute({})

    assert listed(devices=[], otherwise=["cpu", "cpu"]) == ["cpu", "cpu"]  # none is live yet
    assert listed(devices='["gpu:2"]') == ["gpu:2"]
    with connected.worker.begin() as tx:
        for name, kind, slots in (("cpu", "cpu", 300), ("cuda:0", "gpu", 4), ("cuda:1", "l4", 1)):
            announce_device(tx, Device("a", name, kind, None, None, None, slots=slots, held=1), holder="stream")
    assert listed(devices=None) == [*["gpu/4"] * 4, "l4", *["cpu"] * 251]
    with pytest.raises(Exception, match="devices must be a kind of device"):
        listed(devices=["GPU"])


@pytest.fixture
def gang(airflow_db: Any) -> Iterator[Any]:
    """A run of two tasks that each train on two devices, in a pool of three slots."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dag import DagModel
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    with DAG("gang", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as dag:
        for name in ("first", "second"):
            RunDeviceOperator(task_id=name, device="cpu:2", pool=POOL)
        TrainTrialOperator(task_id="single", trial=1, pool=POOL, priority_weight=-1)
    bag = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"], collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    with create_session() as session:
        session.add(Pool(pool=POOL, slots=3, include_deferred=True))
        session.get(DagModel, "gang").is_paused = False
    yield dag
    with create_session() as session:
        session.query(Pool).filter(Pool.pool == POOL).delete()


def test_two_trials_of_two_devices_on_three_slots_run_one_after_the_other(gang: Any) -> None:
    """By Airflow's own scheduler: nobody holds one slot and waits for another; the free one is for who needs one."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, TaskInstanceState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    with create_session() as session:
        stored = SerializedDagModel.get_dag("gang", session=session)
        run = stored.create_dagrun(
            run_id="manual__gang",
            run_type=DagRunType.MANUAL,
            state=DagRunState.RUNNING,
            triggered_by=DagRunTriggeredByType.TEST,
            run_after=pendulum.datetime(2026, 1, 2, tz="UTC"),
            session=session,
        )
        runner = SchedulerJobRunner(job=Job())

        def set_state(names: Iterable[str], state: TaskInstanceState) -> None:
            of_run = (TaskInstance.run_id == run.run_id, TaskInstance.task_id.in_(names))
            session.execute(update(TaskInstance).where(*of_run).values(state=state))

        def begun() -> set[str]:
            found = runner._executable_task_instances_to_queued(max_tis=16, session=session)
            return {task.task_id for task in found}

        set_state(("first", "second", "single"), TaskInstanceState.SCHEDULED)
        one = begun()
        assert len(one & {"first", "second"}) == 1
        assert one | begun() == one | {"single"}
        assert begun() == set()
        set_state(one, TaskInstanceState.SUCCESS)
        assert one | begun() == {"first", "second", "single"}
        session.rollback()
