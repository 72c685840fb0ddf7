"""A version of a DAG is promoted like a model, on a whole stack: push, run, hand in, gate, promotion, tag, production.

Two git bundles of a real Airflow over one repository: developers push to ``main``, and production follows the tag that
promotions move. Nothing is done by hand but git push and the run of what was pushed.
"""

import time

import numpy as np
import pytest
from demo_night.runs import follow
from pushed_dags import BAD, CANDIDATE, GOOD, PRODUCTION, TAG, git
from registering import register_study

from easeml_core.services.models.dag_bundles import tag_target
from easeml_core.services.models.submission import list_submissions
from easeml_core.services.reports.overview import overview, study_state
from easeml_core.store.database import Store

GATE, STUDY, TENANT = "easeml_commit_gate", "tumours", "clinic"
ROWS, NOISE = 600, 0.08
"""The versions of the DAG are right on 92 % of the rows and on 39 %; the gate takes 140 or so, of which 70 % must be
right: either is judged otherwise with a chance below 1e-10."""
SECONDS = 120
"""Longer than any step here takes on a slow machine."""


class Lab:
    """A running stack, and what the test asks of it; every wait ends when a component has died."""

    def __init__(self, stack, repository):
        self.stack, self.repository = stack, repository
        self.rest, self.store = stack.access.rest(), Store(stack.access.worker_url)

    def until(self, what, look):
        """What the look finds, as soon as it finds something."""
        deadline = time.monotonic() + SECONDS
        while not (found := look()):
            self.stack.check()
            assert time.monotonic() < deadline, f"{what}: not within {SECONDS} s\n{self.told()}"
            time.sleep(0.25)
        return found

    def told(self):
        """What is known of the reason: what the referee did, and what went wrong with the DAG files."""
        logs = self.stack.places.logs
        wrong = [line for line in (logs / "dag-processor.log").read_text().splitlines() if "rror" in line]
        return "\n".join([str(self.rest.import_errors()), (logs / "referee.log").read_text(), *wrong[-15:]])

    def switch_on(self, dag_id):
        """Let a DAG run. Its watcher starts when its file is read again, which else happens half a minute later."""
        self.until(f"the DAG {dag_id}", lambda: self.rest.has_dag(dag_id))
        self.rest.pause(dag_id, False)
        if dag_id == GATE:
            self.rest.call("PUT", f"/parseDagFile/{self.rest.call('GET', f'/dags/{dag_id}')['file_token']}")

    def await_served(self, dag_id, bundle, commit):
        """Wait until the version of a DAG that Airflow runs next is this one."""

        def served():
            dag = self.rest.call("GET", f"/dags/{dag_id}")
            return (dag["bundle_name"], dag["bundle_version"]) == (bundle, commit)

        self.until(f"{dag_id} at {commit}", served)

    def run(self, dag_id, commit, cut):
        """Run a DAG, which must be of this version, to its good end; id of the run."""
        run_id = self.rest.trigger(dag_id)
        *_, (state, tasks) = follow(self.rest, dag_id, run_id, self.stack.check)
        failed = [t["task_id"] for t in tasks if t["state"] == "failed"]
        assert state == "success", {name: self.rest.log(dag_id, run_id, name)[-20:] for name in failed}
        assert self.rest.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["bundle_version"] == commit
        assert self.rest.xcom(dag_id, run_id, "cut") == cut  # the code itself, not only what Airflow calls it
        return run_id

    def hand_in(self, commit, cut):
        """Run what was pushed as soon as Airflow has it, and wait for the gate's answer; the submission."""
        self.await_served(CANDIDATE, "candidates", commit)
        run_id = self.run(CANDIDATE, commit, cut)
        number = self.rest.xcom(CANDIDATE, run_id, "hand_in")["submission_id"]

        def judged():
            (found,) = [s for s in list_submissions(self.store) if s.submission_id == number]
            return found if found.state not in ("handed in", "waiting") else None

        found = self.until("a verdict", judged)
        assert (found.kind, found.bundle, found.bundle_version) == ("bundle", "candidates", commit)
        return found

    def gate_runs(self):
        """The gate's runs, all of which submissions have started."""
        runs = self.rest.call("GET", f"/dags/{GATE}/dagRuns")["dag_runs"]
        assert {run["run_type"] for run in runs} <= {"asset_triggered"}
        return runs

    def gate_runs_ended(self, count):
        """Wait until there are so many runs of the gate, and all have ended."""

        def ended():
            runs = self.gate_runs()
            return len(runs) == count and all(run["state"] in ("success", "failed") for run in runs)

        self.until(f"{count} runs of the gate", ended)

    def production(self):
        """The model in production, or None."""
        (found,) = [study for study in overview(self.store).tenants if study.study == STUDY]
        return found.production_model_id


@pytest.fixture
def lab(shared_stack, developer):
    """The stack, with data of which a threshold tells all but the noise."""
    rng = np.random.default_rng(0)
    size = rng.uniform(0.0, 30.0, ROWS)
    label = (size < GOOD) ^ (rng.random(ROWS) < NOISE)
    lines = [f"{value:.6f},{int(is_one)}" for value, is_one in zip(size, label, strict=True)]
    folder = shared_stack.places.data / TENANT
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tumours.csv").write_text("\n".join(["size,benign", *lines]))
    return Lab(shared_stack, developer.repository)


@pytest.mark.timeout(900)
@pytest.mark.nightly
@pytest.mark.journey
def test_a_version_of_a_dag_is_judged_promoted_and_served(lab, developer):
    first, worse = developer.first, developer.push(BAD, "worse")
    gate = {"condition": "n > 0.6 +/- 0.1", "reliability": 0.9, "steps": 4}
    source = {"source": "csv:tumours.csv", "target": "benign"}
    register_study(lab.store, tenant=TENANT, study=STUDY, gate=gate, request_key=STUDY, **source)
    lab.until("an active study", lambda: study_state(lab.store, study=STUDY) == "ACTIVE")
    earlier = len(lab.gate_runs()) if lab.rest.has_dag(GATE) else 0  # of other stories
    for dag_id in (GATE, CANDIDATE, PRODUCTION):
        lab.switch_on(dag_id)
    lab.await_served(PRODUCTION, "production", first)
    lab.run(PRODUCTION, first, BAD)

    incumbent = lab.production()
    assert lab.hand_in(worse, BAD).state == "fail"
    better = developer.push(GOOD, "better")
    lab.gate_runs_ended(earlier + 1)
    assert (lab.production(), tag_target(lab.repository, TAG)) == (incumbent, first)

    submission = lab.hand_in(better, GOOD)
    lab.gate_runs_ended(earlier + 2)
    assert submission.state in ("pass", "in production")
    assert lab.production() == submission.model_id
    lab.until("the tag", lambda: tag_target(lab.repository, TAG) == better)
    lab.await_served(PRODUCTION, "production", better)
    lab.run(PRODUCTION, better, GOOD)

    moves = git("-C", lab.repository, "reflog", "show", "--format=%H %gs", f"refs/tags/{TAG}").splitlines()
    assert [move.split()[0] for move in moves] == [better, first]  # never at the one that failed, not for a moment
    assert moves[0] == f"{better} model {submission.model_id} of study {STUDY} is in production"
    for dag_id in (GATE, CANDIDATE, PRODUCTION):
        lab.rest.pause(dag_id, True)
