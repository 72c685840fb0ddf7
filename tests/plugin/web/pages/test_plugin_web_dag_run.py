"""The tabs on Airflow's runs and tasks: a run lists what it did, a task leads to it; each sees what is theirs."""

from __future__ import annotations

import itertools
from html import escape
from urllib.parse import urlencode

import pytest
from device_rows import add_study, add_trial

from easeml_airflow.web.pages.dag_run import Place
from easeml_airflow.web.server.formats import REFUSED, WAITS
from easeml_core.entities import Executor, RequestKind, TrialState
from easeml_core.store.queries import timeline
from easeml_core.store.rows import change, rows, scalar
from easeml_core.store.tables import leases, models, requests, studies, trials

DAG = "night ly+1"
RUN = "manual__2026-01-02T03:04:05+00:00 a/b&c=%d"
"""Characters that mean something in an address, and a slash."""

KEY = f"{DAG}/{RUN}"
_numbers = itertools.count()


def of_lab(_study, tenant, *, write):
    return tenant == "lab"


def address(task="", index="{MAP_INDEX}", *, dag=DAG, run=RUN):
    """What Airflow's page asks: each name quoted, the index as it is, also where there is none."""
    if not task:
        return "/of-run?" + urlencode({"dag": dag, "run": run})
    return "/of-task?" + urlencode({"dag": dag, "run": run, "task": task}) + f"&index={index}"


def waiting(database, study="mine"):
    """A trial that nobody has begun."""
    return add_trial(database, study, waits=True)


def suggest(database, key, *trials):
    """Let a task with this key have handed out these trials."""
    with database.owner.begin() as tx:
        query = "INSERT INTO work.suggestion_batches (request_key, policy, requested) VALUES (:key, 'x', 9)"
        batch = scalar(tx, f"{query} RETURNING id", key=key)
        for place, trial in enumerate(trials):
            query = "INSERT INTO work.suggestions (batch_id, position, trial_id, reasons) VALUES (:b, :p, :t, '{}')"
            change(tx, query, b=batch, p=place, t=trial)


def train(database, key, trial):
    """Let a task with this key train the trial."""
    with database.worker.begin() as tx:
        attempt = leases.start_trial(
            tx,
            trial_id=trial,
            lease_key=key,
            lease_seconds=60,
            executor=Executor(trials.get_trial(tx, trial).implementation, "test"),
        )
        ended = {"attempt": attempt, "state": TrialState.SUCCEEDED, "cost_seconds": 3600.0}
        assert leases.finish_trial(tx, trial_id=trial, **ended)
        models.add_observation(tx, trial_id=trial, quality=0.9, cost_seconds=3600.0)


def ask(database, key, kind, study="mine", model=None):
    """Let a task with this key have asked the referee; the id of the request."""
    with database.worker.begin() as tx:
        study_id = studies.get_study(tx, study).id
        asked = {"kind": kind, "study_id": study_id, "model_id": model, "arguments": {}}
        return requests.file_request(tx, **asked, request_key=key)


@pytest.fixture
def done(database):
    """A run that handed out four trials of two tenants' studies and trained them in a mapped task."""
    add_study(database, "mine")
    add_study(database, "theirs", tenant="rivals")
    made = [waiting(database, study) for study in ("mine", "mine", "theirs", "mine")]
    suggest(database, f"{KEY}/suggest/-1", *made)
    for index, trial in enumerate(made):
        train(database, f"{KEY}/train/{index}", trial)
    return made


def here(page):
    """What was done with each trial, and what it reached."""
    return [(row["Here"], row["Quality"]) for row in page.table]


TRAINED, SUGGESTED = ("suggested and trained", "0.9000"), ("suggested", "0.9000")


def test_a_run_lists_its_trials_to_whoever_may_see_them(done, ask_as):
    page = ask_as("ada", "operator").page(address())
    assert page.lead.startswith("4 trials")
    assert page.part("p.now").text.endswith("2 studies.")
    for trial, row in zip(reversed(done), page.table, strict=True):
        study = "theirs" if trial == done[2] else "mine"
        assert (row["Study"], row["State"], row["Cost"]) == (study, "Succeeded", "60.0 min")
        assert page.links[row["Trial, candidate"]] == f"/studies/{study}/decisions/{trial}"
    assert here(page) == [TRAINED] * 4
    mine = ask_as("vic", rights=of_lab)
    assert mine.page(address()).lead.startswith("3 trials")
    assert mine.page(address()).part("p.now").text.endswith("study mine.")
    assert "theirs" not in mine.get(address()).text


def test_the_wrong_person_is_told_the_same_as_of_a_run_that_did_nothing(done, ask_as):
    eve = ask_as("eve", rights=lambda *_, write: False)
    hidden, unknown = (eve.get(address(run=run)) for run in (RUN, "manual__none"))
    assert "This run asked" in eve.page(address()).lead
    told = [page.text.partition("<main")[2] for page in (hidden, unknown)]
    assert told[0].replace(escape(RUN), "manual__none") == told[1]
    for task in ("suggest", "train"):
        assert "This task asked" in eve.page(address(task, "2")).lead
    vic = ask_as("vic", rights=of_lab)
    assert vic.get(address("train", "2")).status_code == 200
    assert vic.get(address("train", "3")).headers["location"] == f"/studies/mine/decisions/{done[3]}"


def test_a_task_leads_to_its_one_trial_mapped_or_not(done, database, ask_as):
    ada = ask_as("ada", "operator")
    for index, trial in enumerate(done):
        answer = ada.get(address("train", str(index)))
        study = "theirs" if index == 2 else "mine"
        assert (answer.status_code, answer.headers["location"]) == (303, f"/studies/{study}/decisions/{trial}")
    listed = ada.page(address("suggest"))
    assert "this task" in listed.headings[0]
    assert here(listed) == [SUGGESTED] * 4
    assert ada.get(address("train", "4")).status_code == ada.get(address("train")).status_code == 200
    alone = waiting(database)
    suggest(database, f"{KEY}/one/-1", alone)
    assert ada.get(address("one")).headers["location"].endswith(f"/decisions/{alone}")
    assert ada.get(address("one", "-1")).headers["location"].endswith(f"/decisions/{alone}")


def test_names_that_begin_alike_are_not_taken_for_each_other(done, ask_as):
    ada = ask_as("ada", "operator")
    for asked in (address(run=RUN[:-1]), address(run=RUN + "x"), address(dag=DAG[:-1]), address(dag="%", run="%")):
        assert "asked nothing" in ada.page(asked).lead, asked
    assert "asked nothing" in ada.page(address("trai", "1")).lead
    assert "asked nothing" in ada.page(address("train", "11")).lead


def test_a_stream_has_its_trials_behind_the_key_of_its_task(done, database, ask_as):
    for number, trial in enumerate([waiting(database), waiting(database)]):
        suggest(database, f"{KEY}/device/-1/{number}", trial)
        train(database, f"{KEY}/device/-1", trial)
    assert here(ask_as("ada", "operator").page(address("device"))) == [TRAINED] * 2


def test_a_trial_of_another_run_is_of_the_run_that_trained_it(done, database, ask_as):
    late = waiting(database)
    suggest(database, f"{KEY}/more/-1", late)
    train(database, "other/run/again/-1", late)
    ada = ask_as("ada", "operator")
    assert ada.get(address("again", dag="other", run="run")).headers["location"].endswith(f"/decisions/{late}")
    assert here(ada.page(address())) == [SUGGESTED, *[TRAINED] * 4]


def test_the_newest_trials_are_looked_through_and_no_more(done, database, monkeypatch):
    """Who trains what another run has asked for is found without an index: of that many."""
    assert f"max(id) FROM work.trials) - {timeline.NEWEST}" in timeline._TRIALS
    monkeypatch.setattr(timeline, "_TRIALS", timeline._TRIALS.replace(str(timeline.NEWEST), "2"))
    late = [waiting(database) for _ in range(3)]
    for index, trial in enumerate(late):
        train(database, f"other/run/again/{index}", trial)
    with database.worker.begin() as tx:
        found = timeline.trials_of(tx, run="other/run", key="other/run", studies=None)
        assert [trial.trial_id for trial in found] == [late[2], late[1]]
        assert len(timeline.trials_of(tx, run=KEY, key=KEY, studies=None)) == 4


def plan_of(tx, query, **values):
    return "\n".join(r[0] for r in rows(tx, f"EXPLAIN {query}", names=None, most=9, **values))


def test_what_was_asked_is_found_by_indexes(database):
    with database.owner.begin() as tx:
        change(tx, "SET LOCAL enable_seqscan = off")
        asked, trials = plan_of(tx, timeline._ASKED, key=KEY), plan_of(tx, timeline._TRIALS, run=KEY, key=KEY)
    for plan, index in (
        *((asked, name) for name in ("requests_request_key", "submissions_request_key", "feeds_request_key")),
        (trials, "suggestion_batches_request_key"),
    ):
        assert f"Bitmap Index Scan on {index}" in plan, plan


@pytest.fixture
def model(database):
    """A model of the study ``mine`` that somebody handed in, as a row."""

    def add():
        with database.worker.begin() as tx:
            study = studies.get_study(tx, "mine")
            version = studies.latest_data_version(tx, study.id).id
            told = {"study_id": study.id, "data_version_id": version, "submitted": True, "validation_loss": 0.1}
            artifact = f"sha256:{next(_numbers):064d}"
            return models.add_model(tx, trial_id=None, format="constant", artifact=artifact, **told)

    return add


def answer(database, request, *, refused=False):
    with database.owner.begin() as tx:
        told = {"id": request, "refused": refused}
        change(tx, "INSERT INTO work.answers (request_id, refused, message) VALUES (:id, :refused, 'told')", **told)


def test_what_a_run_asked_for_is_told_as_far_as_it_is_public(done, database, model, ask_as, recorded):
    number = model()
    for task, kind in (("gate", RequestKind.GATE), ("meter", RequestKind.METER)):
        ask(database, f"{KEY}/{task}/-1", kind, model=number)
    answer(database, ask(database, f"{KEY}/fresh/-1", RequestKind.REFRESH))
    answer(database, ask(database, f"{KEY}/promote/-1", RequestKind.PROMOTE, model=number), refused=True)
    vic = ask_as("vic", rights=of_lab)
    page = vic.page(address())
    named = f"baseline, model {number}"
    assert {row["What"]: (row["Study"], row["Model"], row["Result"]) for row in page.section("Asked for").table} == {
        "Gate asked": ("mine", named, WAITS.word),
        "Meter asked": ("mine", named, WAITS.word),
        "Refresh asked": ("mine", "none", "Refreshed"),
        "Promotion asked": ("mine", named, REFUSED.word),
    }
    recorded(page.recorded(), "of_run")
    for task, developers, referees in (
        ("gate", "/studies/mine/submissions", "/studies/mine/gate"),
        ("meter", "/studies/mine/submissions", "/studies/mine/meter"),
        ("fresh", "/studies/mine/data", "/studies/mine/data"),
    ):
        assert vic.get(address(task)).headers["location"] == developers
        assert ask_as("rita", "referee").get(address(task)).headers["location"] == referees
    ask(database, f"{KEY}/release/all/mine/{number}/gate", RequestKind.GATE, model=number)  # of whatever chunk
    assert vic.get(address("release", "3")).headers["location"] == "/studies/mine/submissions"


def test_a_model_that_was_handed_in_leads_to_the_submissions(done, database, model, ask_as):
    number = model()
    with database.worker.begin() as tx:
        told = {"study_id": studies.get_study(tx, "mine").id, "study": "mine", "model_id": number, "message": "new"}
        bundle = {"kind": "artifact", "bundle": None, "bundle_version": None}
        models.add_submission(tx, **told, **bundle, request_key=f"{KEY}/submit/-1")
    vic = ask_as("vic", rights=of_lab)
    assert vic.get(address("submit")).headers["location"] == "/studies/mine/submissions"
    assert "asked nothing" in ask_as("eve", rights=lambda *_, write: False).get(address("submit")).text


@pytest.mark.parametrize(
    "path",
    [
        *("/of-run?dag=..&run=r", "/of-run?dag=d&run=.", "/of-run?dag=&run=r", "/of-task?dag=d&run=r&task="),
        "/of-task?dag=d&run=r&task=..&index=1",
    ],
)
def test_no_run_has_such_a_name(database, ask_as, path):
    answer = ask_as("ada", "operator").get(path)
    assert answer.status_code in (200, 404)
    assert answer.status_code == 404 or "asked nothing" in answer.text


@pytest.mark.parametrize("path", ["/of-run", "/of-run?dag=d", "/of-task?dag=d&run=r", f"/of-run?dag={'d' * 251}&run=r"])
def test_an_address_that_airflow_has_not_filled_in(database, ask_as, path):
    assert ask_as("ada", "operator").get(path).status_code == 400


def test_an_address_may_hold_anything(database, ask_as):
    for name in ("%00", "%ED%A0%80", "<script>", "{RUN_ID}", "'; DROP TABLE work.trials; --"):
        page = ask_as("ada", "operator").page(f"/of-run?dag={name}&run={name}")
        assert not page.has("script:not([src])"), name


@pytest.mark.parametrize(
    ("index", "taken"),
    [
        *((index, "-1") for index in ("", "{MAP_INDEX}", "-1", "x", "٣", "1e3", "9" * 10)),
        *(("0", "0"), ("007", "7"), ("123456789", "123456789")),
    ],
)
def test_what_is_no_index_is_that_of_a_task_that_is_not_mapped(index, taken):
    assert Place.of("d", "r", "t", index).key == f"d/r/t/{taken}"
