"""A real Airflow on Celery: two workers on hosts of their own, and what becomes of trials when a host fails.

One stack for the file. The clock of the host ``cpu`` is 90 s ahead where the machine has a C compiler. Leases of the
slow studies are 5 s here instead of 60, so that a loss is seen early.
"""

import os
import shutil
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from demo_night.runs import await_dag, follow
from registering import register_study
from rich.console import Console
from stack.failures import StackError
from stack.hosts import CELERY, EXECUTORS, WORKERS, Hosts, broker_program
from stack.launcher import Stack
from stack.places import Places
from stack.progress import Progress

from easeml_core.services.referee.requests import answer_of
from easeml_core.services.reports.overview import overview, study_details
from easeml_core.services.studies.candidates import bring_program
from easeml_core.services.trials.execution import trial_details
from easeml_core.store.artifacts.remote import artifact_store
from easeml_core.store.database import Store
from easeml_core.store.server.server import Server, throwaway_folder

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]

NIGHT = Path(__file__).resolve().parents[2] / "dags" / "easeml_nightly_retraining.py"
LEASE_SECONDS, AWAY_SECONDS, AHEAD_SECONDS = 5.0, 30, 90
STEP_SECONDS, LOST_STEPS = 0.25, 24
GATE = {"condition": "n > 0.5 +/- 0.2", "steps": 4}
METER = {"ranges": [0.4], "tolerance": 0.2, "reliability": 0.95, "steps": 4}
DAGS = '''
"""One trial on the host gpu, a stream on the host cpu, and what a task of each host sees."""
import os, time
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.sdk import DAG, Param, task
from easeml_airflow.operators import RunDeviceOperator, SuggestTrialsOperator, TrainTrialOperator

COMMON = dict(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), max_active_runs=4,
              default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
              params={"studies": Param([], type="array")}, render_template_as_native_obj=True)
STUDIES = "{{ params.studies }}"

with DAG("train_on_gpu", **COMMON):
    suggest = SuggestTrialsOperator(task_id="suggest", count=1, studies=STUDIES)
    TrainTrialOperator.partial(task_id="train", queue="gpu").expand(trial=suggest.output)

with DAG("stream_on_cpu", **COMMON):
    RunDeviceOperator(task_id="device", queue="cpu", device="cpu", studies=STUDIES)

with DAG("look", **COMMON):
    for name in ("gpu", "cpu"):
        @task(task_id=name, queue=name)
        def look(name=name):
            others = [path for other in ("gpu", "cpu", "store", "broker", "referee") if other != name
                      for path in [Path(os.environ["HOME"]).with_name(other) / "tmp"] if os.access(path, os.R_OK)]
            return {"home": os.environ["HOME"], "tmp": os.environ["TMPDIR"], "uid": os.getuid(), "time": time.time(),
                    "others": list(map(str, others)), "environment": str(dict(os.environ))}
        look()
'''
TRAIN = f"""
import argparse, json, os, time
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("data", "parameters", "output", "resume"):
    parser.add_argument(f"--{{name}}")
given = parser.parse_args()
parameters = json.loads(Path(given.parameters).read_text())
steps = parameters["steps"]
done = int((Path(given.resume) / "step").read_text()) if given.resume else 0
for step in range(done + 1, steps + 1):
    time.sleep({STEP_SECONDS})
    told = {{"step": step, "of": steps, "quality": 0.5}}
    if step % 4 == 0:
        kept = Path(given.output) / "checkpoints" / f"{{step}}"
        kept.mkdir(parents=True)
        (kept / "step").write_text(str(step))
        told["checkpoint"] = kept.name
    print(json.dumps(told), flush=True)
while "until" in parameters and not Path(parameters["until"]).exists():
    time.sleep({STEP_SECONDS})
(Path(given.output) / "learnt").write_text("1")
"""
PREDICT = "import numpy as np; print(*[1] * len(np.load('inputs.npy')), sep='\\n')"
CLOCK = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *t) {{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, t);
    if (!status && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += {AHEAD_SECONDS};
    return status;
}}
int gettimeofday(struct timeval *t, void *zone) {{
    struct timespec now; int status = clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000; return status;
}}
time_t time(time_t *t) {{
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}}
"""


def until(condition, seconds=240.0, pause=0.1):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)
    return found


def shifted_clock(folder):
    """A library that puts the clock of a process ahead; None without a C compiler."""
    compiler, source, library = shutil.which("cc"), folder / "clock.c", folder / "clock.so"
    if compiler is None:
        print("there is no cc: all hosts have the same clock")
        return None
    source.write_text(CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def clock():
    with throwaway_folder() as folder:
        folder.chmod(0o755)
        yield shifted_clock(folder)


@pytest.fixture(scope="module", autouse=True)
def broker():
    """The program that every stack here needs: with Python 3.13 there is no wheel of it."""
    try:
        return broker_program()
    except StackError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def stack(clock):
    made, patch = Hosts.workers, pytest.MonkeyPatch()

    def workers(self, environment, accounts):
        components = made(self, environment, accounts)
        if clock is not None:
            for component in components:
                if component.name.endswith("cpu"):
                    component.environment["LD_PRELOAD"] = str(clock)
        return components

    patch.setattr(Hosts, "workers", workers)
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        (dags / "hosts.py").write_text(DAGS)
        shutil.copy(NIGHT, dags)
        places = Places.of(folder / "home-of-hosts", dags)
        with Stack(places, Progress(Console(quiet=True)), executor=CELERY) as running:
            for name, value in running.hosts.of_store().items():
                patch.setenv(name, value)
            yield running
        Server(places.database).stop()
    patch.undo()


@pytest.fixture(scope="module")
def store(stack):
    return Store(stack.access.worker_url)


@pytest.fixture(scope="module")
def rest(stack):
    return stack.access.rest()


def begin(stack, rest, dag_id, *studies):
    await_dag(rest, dag_id, stack.check)
    rest.pause(dag_id, False)
    return rest.trigger(dag_id, {"studies": list(studies)} if studies else None)


def end(stack, rest, dag_id, run_id):
    """The tasks of a run that has ended."""
    *_, (state, tasks) = follow(rest, dag_id, run_id, stack.check)
    found = [(t["task_id"], t["state"], t["try_number"]) for t in tasks]
    assert state == "success", (
        state,
        found,
        [
            rest.log(dag_id, run_id, t["task_id"], map_index=t["map_index"])[-12:]
            for t in tasks
            if t["state"] == "failed"
        ],
    )
    return tasks


def register(stack, store, training=None, **studies):
    """Register studies, each with a candidate of these parameters, or of each of them in a list."""
    with throwaway_folder() as folder:
        (folder / "train.py").write_text(TRAIN)
        (folder / "predict.py").write_text(PREDICT)
        place = artifact_store(stack.hosts.artifacts if stack.hosts else stack.places.artifacts)
        commands = {"train": "python train.py", "command": "python predict.py"}
        program = bring_program(place.of_tenant("lab"), folder, **commands)
    requests = {}
    for study, parameters in studies.items():
        each = parameters if isinstance(parameters, list) else [parameters]
        candidates = [
            {"name": f"sleeper-{number}", "kind": "command", "parameters": {"program": program, **one}}
            for number, one in enumerate(each)
        ]
        settings = {"checkpoint_seconds": 0} | (training or {"lease_seconds": LEASE_SECONDS})
        given = {"gate": GATE, "meter": METER, "candidates": candidates, "training": settings}
        filed = register_study(
            store, tenant="lab", study=study, source="sklearn:breast_cancer", request_key=study, **given
        )
        requests[study] = filed.request_id
    for study, request_id in requests.items():
        answer = until(lambda number=request_id: answer_of(store, number))
        assert not answer.refused, (study, answer.message)


def trial_of(store, study):
    """The one trial of a study; None before there is one."""
    found = study_details(store, study=study).trials
    assert len(found) <= 1
    return found[0] if found else None


def facts(stack, study):
    """Attempt, progress that is kept, seconds that were not lost, and how many results and models there are."""
    with closing(stack.server.connect(database="easeml")) as opened, opened.cursor() as cursor:
        cursor.execute(
            "SELECT t.state, t.attempt, t.checkpoint_progress, t.resumed_seconds, "
            "(SELECT count(*) FROM work.observations o WHERE o.trial_id = t.id), "
            "(SELECT count(*) FROM work.models m WHERE m.trial_id = t.id) "
            "FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.name = %s",
            (study,),
        )
        found = cursor.fetchone() or (None,) * 6
    return dict(zip(("state", "attempt", "kept", "resumed", "results", "models"), found, strict=True))


def part(stack, name):
    """What the supervisor knows of a part."""
    (found,) = [life for life in stack.supervisor.all() if life.part.name == name]
    return found


def worker(stack, name):
    (found,) = [running for running in stack.processes.running if running.name == name]
    return psutil.Process(found.process.pid)


def kill_tree(process):
    """SIGKILL of a process and all below it; none of them can start another meanwhile."""
    family = [process, *process.children(recursive=True)]
    for sign in (signal.SIGSTOP, signal.SIGKILL):
        for one in family:
            try:
                one.send_signal(sign)
            except psutil.NoSuchProcess:
                continue


def test_each_host_has_a_home_of_its_own_and_no_address_of_airflows_database(stack, rest, clock):
    run_id = begin(stack, rest, "look")
    tasks = {t["task_id"]: t for t in end(stack, rest, "look", run_id)}
    seen = {name: rest.xcom("look", run_id, name) for name in WORKERS}
    password = stack.server.url("airflow", "airflow").split(":")[2].split("@")[0]
    for name, address in WORKERS.items():
        assert tasks[name]["hostname"] == address
        assert (seen[name]["home"], seen[name]["others"]) == (str(stack.places.host(name)), [])
        assert seen[name]["tmp"].startswith(seen[name]["home"])
        for secret in (password, stack.hosts.keys.jwt, stack.hosts.keys.fernet):
            assert secret not in seen[name]["environment"] + str(worker(stack, f"worker-{name}").environ())
    assert any("DAG bundles loaded" in line for line in rest.log("look", run_id, "gpu"))  # from that host's log server
    if os.geteuid() == 0:
        assert seen["gpu"]["uid"] != seen["cpu"]["uid"]
    if clock is not None:
        assert seen["cpu"]["time"] > time.time() + AHEAD_SECONDS / 3


def test_a_night_is_green_and_promotes(stack, rest, store):
    candidates = [{"name": name, "kind": name, "parameters": {}} for name in ("gaussian_naive_bayes", "decision_tree")]
    given = {"gate": GATE, "meter": METER, "candidates": candidates}
    filed = register_study(
        store, tenant="lab", study="night", source="sklearn:breast_cancer", request_key="night", **given
    )
    assert not until(lambda: answer_of(store, filed.request_id)).refused
    await_dag(rest, NIGHT.stem, stack.check)
    rest.pause(NIGHT.stem, False)
    end(stack, rest, NIGHT.stem, rest.trigger(NIGHT.stem, {"trials_per_round": 2}))
    assert [t.state for t in study_details(store, study="night").trials] == ["SUCCEEDED"] * 2
    (standing,) = overview(store).tenants
    assert standing.production_candidate in ("gaussian_naive_bayes", "decision_tree")


@pytest.fixture(scope="module")
def late(stack, rest, store):
    """The run whose worker is killed in the middle of its trial, long before Airflow takes note."""
    lost = {"steps": LOST_STEPS, "until": str(stack.places.dags / "let-go")}
    register(stack, store, lost=lost, other={"steps": 8}, away={"steps": 40}, drained={"steps": 40})
    run_id = begin(stack, rest, "train_on_gpu", "lost")
    until(lambda: (facts(stack, "lost")["kept"] or 0) > 0)
    return run_id


@pytest.fixture(scope="module")
def taken_up(stack, rest, late):
    """The run that takes the trial up once its worker is killed and its lease is over."""
    kill_tree(worker(stack, "worker-gpu"))
    began = time.monotonic()
    time.sleep(LEASE_SECONDS)
    run_id = begin(stack, rest, "stream_on_cpu", "lost")
    until(lambda: facts(stack, "lost")["attempt"] == 2)
    print(f"\nthe trial of a killed worker runs again after {time.monotonic() - began:.1f} s")
    return run_id


def test_a_host_whose_clock_is_ahead_takes_no_trial_whose_lease_runs(stack, rest, store, late):
    run_id = begin(stack, rest, "stream_on_cpu", "lost", "other")
    end(stack, rest, "stream_on_cpu", run_id)
    assert [t["trial_id"] for t in rest.xcom("stream_on_cpu", run_id, "device")["trials"]] == [
        trial_of(store, "other").trial_id
    ]
    assert (facts(stack, "lost")["state"], facts(stack, "lost")["attempt"]) == ("RUNNING", 1)


def test_an_object_store_that_is_away_for_half_a_minute_costs_no_trial(stack, rest, store, taken_up):
    run_id = begin(stack, rest, "stream_on_cpu", "away")
    until(lambda: facts(stack, "away")["state"] == "RUNNING")
    (server,) = [running for running in stack.processes.running if running.name == "object-store"]
    with stack.supervisor._looking:  # nobody starts it meanwhile
        server.process.kill()
        time.sleep(AWAY_SECONDS)
    end(stack, rest, "stream_on_cpu", run_id)
    found = facts(stack, "away")
    assert (found["state"], found["results"], found["models"]) == ("SUCCEEDED", 1, 1)


def test_a_worker_that_is_asked_to_end_lets_its_trial_end_first(stack, rest, store, taken_up):
    until(stack.hosts.workers_ready)  # the one that was killed, too
    run_id = begin(stack, rest, "train_on_gpu", "drained")
    until(lambda: facts(stack, "drained")["state"] == "RUNNING")
    restarts = part(stack, "worker-gpu").restarts
    worker(stack, "worker-gpu").terminate()
    (train,) = [t for t in end(stack, rest, "train_on_gpu", run_id) if t["task_id"] == "train"]
    found = facts(stack, "drained")
    assert (train["try_number"], found["state"], found["attempt"]) == (1, "SUCCEEDED", 1)
    until(lambda: part(stack, "worker-gpu").restarts > restarts)


def test_the_late_task_finds_its_trial_taken_and_is_skipped(stack, rest, store, late, taken_up):
    """Airflow gives a silent task up after ``task_instance_heartbeat_timeout``, then tries it again."""
    (train,) = [t for t in end(stack, rest, "train_on_gpu", late) if t["task_id"] == "train"]
    assert (train["state"], train["try_number"]) == ("skipped", 2)
    assert (facts(stack, "lost")["state"], facts(stack, "lost")["attempt"]) == ("RUNNING", 2)


def test_a_trial_whose_host_was_killed_has_lost_nothing_and_counts_once(stack, rest, store, taken_up):
    (stack.places.dags / "let-go").touch()
    end(stack, rest, "stream_on_cpu", taken_up)
    found = facts(stack, "lost")
    assert (found["state"], found["attempt"], found["results"], found["models"]) == ("SUCCEEDED", 2, 1, 1)
    assert found["resumed"] > 0
    curve = trial_details(store, trial_id=trial_of(store, "lost").trial_id).curve
    assert [point.step for point in curve] == list(range(1, LOST_STEPS + 1))
    assert "SIGKILL" in part(stack, "worker-gpu").failure or part(stack, "worker-gpu").restarts == 2


def test_what_a_killed_task_has_left_in_its_hosts_folder_is_swept(stack, taken_up):
    left = list((stack.places.host("gpu") / "tmp").glob("easeml-trial-*"))
    assert left == []


def killed_at(stack):
    """The database's time, once every worker that trains is killed with all below it."""
    if stack.hosts:
        victims = [worker(stack, "worker-gpu")]
    else:
        below = worker(stack, "scheduler").children(recursive=True)
        titles = [(process, " ".join(process.cmdline())) for process in below]
        victims = [
            p for p, title in titles if title.startswith("airflow worker -- LocalExecutor") and "idle" not in title
        ]
    for victim in victims:
        kill_tree(victim)
    return scalar(stack, "SELECT clock_timestamp()")


def scalar(stack, query, *values):
    with closing(stack.server.connect(database="easeml")) as opened, opened.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchone()[0]


@pytest.mark.nightly
@pytest.mark.parametrize("executor", EXECUTORS)
def test_seconds_until_a_trial_of_a_lost_worker_runs_again(executor, monkeypatch):
    """With the lease of 60 s that studies have by default; docs/production.md has what it prints."""
    started = (
        "SELECT t.attempt_started_at FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.name = %s"
    )
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        (dags / "hosts.py").write_text(DAGS)
        places, go = Places.of(folder / "home-of-losses", dags), {"until": str(dags / "let-go")}
        with Stack(places, Progress(Console(quiet=True)), executor=executor) as stack:
            for name, value in (stack.hosts.of_store() if stack.hosts else {}).items():
                monkeypatch.setenv(name, value)
            store, rest, lost = Store(stack.access.worker_url), stack.access.rest(), {"steps": 8, **go}
            register(stack, store, {"seed": 0}, alone=lost, shared=lost, busy=[{"steps": 8}] * 60)
            runs = {study: begin(stack, rest, "train_on_gpu", study) for study in ("alone", "shared")}
            until(lambda: all((facts(stack, study)["kept"] or 0) > 0 for study in runs))
            before = killed_at(stack)
            begin(stack, rest, "stream_on_cpu", "shared", "busy")
            for study, how in (("shared", "a stream is at work"), ("alone", "its own task alone")):
                until(lambda name=study: facts(stack, name)["attempt"] == 2)
                print(f"\n{executor}, {how}: {(scalar(stack, started, study) - before).total_seconds():.0f} s")
            (dags / "let-go").touch()
            end(stack, rest, "train_on_gpu", runs["alone"])
            for study in runs:
                until(lambda name=study: facts(stack, name)["state"] == "SUCCEEDED")
                found = facts(stack, study)
                print(f"{executor}, {study}: {found}")
                assert (found["results"], found["models"]) == (1, 1)
                assert found["resumed"] > 0
        Server(places.database).stop()
