"""From a developer's model to production and back: handed in, judged by itself, promoted, forced, rolled back."""

import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from task_doubles import Instance

from easeml_airflow import operators
from easeml_airflow.assets import submissions
from easeml_airflow.operators.promotion import question, referees_asked
from easeml_airflow.version_compat import TaskAwaitingInput, TaskDeferred
from easeml_core.store.rows import scalar
from easeml_core.store.tables import model_life, studies

NOW = {"deferrable": False, "poll_interval": 0.05}
EASY = {"condition": "n > 0.2 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 6}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 6}


class Event:
    """What a task adds to an asset."""

    def __init__(self, told):
        self.told = told

    def add(self, asset, extra):
        self.told.append((asset.uri, extra))


class Events:
    """The events of a task, by alias."""

    def __init__(self):
        self.told = []

    def __getitem__(self, alias):
        return Event(self.told)


def context(task_id):
    return {"ti": Instance(task_id), "outlet_events": Events()}


@pytest.fixture
def study(connected, make_study):
    return make_study("cancer", gate=EASY, meter=METER)


@pytest.fixture
def strict(connected, make_study):
    """A study whose gate nothing passes."""
    return make_study("cancer", gate=EASY | {"condition": "n > 0.9 +/- 0.2"})


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    """Files of two models that somebody has trained elsewhere."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier
    from skops.io import dump

    inputs, labels = load_breast_cancer(return_X_y=True)
    paths = [tmp_path_factory.getbasetemp() / f"tree_{depth}.skops" for depth in (2, 4)]
    for depth, path in zip((2, 4), paths, strict=True):
        tree = DecisionTreeClassifier(max_depth=depth, random_state=0)
        dump(make_pipeline(tree).fit(inputs[::2], labels[::2]), path)
    return [str(path) for path in paths]


@pytest.fixture
def model(tmp_path):
    """A model that always says 0, which is wrong more often than not."""
    path = tmp_path / "zero.json"
    path.write_text('{"label": 0}')
    return str(path)


def submit(path, task_id="submit", **more):
    format = "skops" if path.endswith(".skops") else "constant"
    given = {"study": "cancer", "message": "a new one", "format": format} | more
    ctx = context(task_id)
    return operators.SubmitModelOperator(task_id=task_id, path=path, **given).execute(ctx), ctx


def test_a_model_is_handed_in_once_and_its_asset_is_told(study, trees, model):
    first, ctx = submit(trees[0])
    assert submit(trees[0])[0] == first  # a retry hands in nothing new
    assert 0.85 < first["validation_quality"] <= 1  # all right, by the luck of the split, is possible
    assert ctx["ti"].pushed == first
    told = {name: first[name] for name in ("submission_id", "study", "model_id")}
    assert ctx["outlet_events"].told == [("easeml://submissions/cancer", told)]
    assert submit(model, task_id="again")[0]["submission_id"] > first["submission_id"]


def test_the_asset_that_is_told_is_the_one_of_the_connection(study, model, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", os.environ["AIRFLOW_CONN_EASEML_DEFAULT"])
    _, ctx = submit(model, easeml_conn_id="elsewhere")
    ((address, _),) = ctx["outlet_events"].told
    assert address == submissions("cancer", easeml_conn_id="elsewhere").uri != submissions("cancer").uri


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": "nowhere"}, "there is no study 'nowhere'"),
        ({"message": " "}, "message must be words"),
        ({"format": "pickle"}, "format must be one of"),
        ({"bundle_version": "abcdef1"}, "^bundle_version must be"),
        ({"bundle": "models"}, "^bundle must .* 'models'"),
        ({"bundle": "models", "bundle_version": "v1"}, "bundle_version must be a git commit"),
    ],
)
def test_what_cannot_be_handed_in_is_told_and_not_tried_again(study, model, changes, message):
    with pytest.raises(AirflowFailException, match=message):
        submit(model, **changes)
    with pytest.raises(AirflowFailException, match="handed in"):
        submit(f"{model}.gone")


def kept(store):
    from easeml_core.services.models.submission import list_submissions

    return [(s.kind, s.bundle, s.bundle_version) for s in list_submissions(store)]


def test_the_version_that_a_task_runs_from_is_handed_in_with_its_model(study, model, store):
    class Bundle:
        name, version = "models", "0123456789abcdef0123456789abcdef01234567"

    def run(task_id, **more):
        operator = operators.SubmitModelOperator(
            task_id=task_id, study="cancer", path=model, format="constant", message="a commit", **more
        )
        ctx = context(task_id)
        ctx["ti"].bundle_instance = Bundle
        return operator.execute(ctx)

    run("own", bundle="models")
    run("named", bundle="models", bundle_version="fedcba9")
    run("none", bundle="None", bundle_version="None")
    assert kept(store) == [
        ("artifact", None, None),
        ("bundle", "models", "fedcba9"),
        ("bundle", "models", Bundle.version),
    ]
    with pytest.raises(AirflowFailException, match=r"^bundle must be"):
        run("other", bundle="others")
    Bundle.version = None
    with pytest.raises(AirflowFailException, match="has no versions"):
        run("without", bundle="models")


def judge(model_id, task_id="gate", *, study="cancer", **more):
    gate = operators.GateOperator(task_id=task_id, study=study, model_id=model_id, **NOW, **more)
    return gate.execute(context(task_id))


def promote(task_id, *, study="cancer", **more):
    ctx = context(task_id)
    return operators.PromoteModelOperator(task_id=task_id, study=study, **NOW, **more).execute(ctx), ctx


def rollback(task_id, **more):
    ctx = context(task_id)
    return operators.RollbackModelOperator(task_id=task_id, study="cancer", **NOW, **more).execute(ctx), ctx


def standing(store):
    with store.begin() as tx:
        return model_life.history(tx, studies.get_study(tx, "cancer").id)[-1]


@pytest.mark.journey
def test_promotion_and_rollback_move_what_is_in_production_and_leave_the_telling_to_the_watcher(
    study, trees, store, referee
):
    handed_in = [submit(path, task_id=f"s{n}")[0]["model_id"] for n, path in enumerate(trees)]
    for number, model_id in enumerate(handed_in):
        passed = judge(model_id, task_id=f"g{number}")
        facts, ctx = promote(f"p{number}", model_id=model_id, gate_request_id=passed["request_id"])
        assert (facts["study"], facts["model_id"], facts["kind"]) == ("cancer", model_id, "promote")
        assert ctx["outlet_events"].told == []
    facts, ctx = rollback("r1", why="it is slow")
    assert (facts["model_id"], facts["kind"]) == (handed_in[0], "rollback")
    assert ctx["outlet_events"].told == []
    assert (standing(store).model_id, standing(store).why) == (handed_in[0], "it is slow")
    rollback("r2", model_id=str(handed_in[1]), why="it was not")
    assert standing(store).model_id == handed_in[1]
    for wrong, message in (
        ({"why": " "}, "why must be 1 to 500 characters"),
        ({"why": "x", "model_id": handed_in[1]}, "in production for study 'cancer' already"),
        ({"why": "x", "model_id": "first"}, "model_id must be a whole number"),
    ):
        with pytest.raises(AirflowFailException, match=message):
            rollback("r3", **wrong)


def test_a_refused_promotion_fails(study, model, referee):
    model_id = submit(model)[0]["model_id"]
    with pytest.raises(AirflowFailException, match=r"^gate request 9 "):
        promote("p", model_id=model_id, gate_request_id=9)


def test_under_adaptivity_none_nothing_may_hang_on_the_verdict(make_study, connected, model, referee):
    """A model that holds the condition and one that does not: the same facts, and both may be promoted."""
    facts = []
    for study, condition in (("easy", "n > 0.2 +/- 0.2"), ("hard", "n > 0.9 +/- 0.2")):
        make_study(study, gate=EASY | {"condition": condition, "adaptivity": "none"})
        model_id = submit(model, task_id=study, study=study)[0]["model_id"]
        for on_fail in ("fail", "skip"):  # what follows would tell the verdict
            with pytest.raises(AirflowFailException, match=f"study '{study}'.*none"):
                judge(model_id, study=study, on_fail=on_fail)
        judged = judge(model_id, task_id=f"gate_{study}", study=study)
        promoted, _ = promote(study, study=study, model_id=model_id, gate_request_id=judged["request_id"])
        assert promoted["promoted"] is True
        facts.append({name: said for name, said in judged.items() if name not in ("request_id", "study", "model_id")})
    assert facts[0] == facts[1]
    assert facts[0]["symbol"] == "withheld"


def test_a_failure_fails_unless_told_to_skip(strict, model, referee):
    model_id = submit(model)[0]["model_id"]
    for on_fail, raised in (
        (None, AirflowFailException),
        ("fail", AirflowFailException),
        ("skip", AirflowSkipException),
    ):
        with pytest.raises(raised, match=f"model {model_id} did not") as caught:
            judge(model_id, task_id=f"gate_{on_fail}", on_fail=on_fail)
        assert type(caught.value) is raised


# In a DAG: the assets reach Airflow's own tables, and the question is Airflow's.


def events(uri):
    """Extras of the events that Airflow has recorded for an asset, in order."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        asked = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return list(session.scalars(asked.where(AssetModel.uri == uri).order_by(AssetEvent.id)))


def our_dag(root, name):
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(root / "dags" / f"{name}.py")).dags[name]


def states(run):
    return {(ti.task_id, ti.map_index): str(ti.state) for ti in run.get_task_instances()}


@pytest.mark.journey
def test_what_is_handed_in_is_judged_and_promoted_by_the_commit_gate(study, trees, run_dag, root, referee, store):
    with DAG("hand_in", schedule=None) as dag:
        operators.SubmitModelOperator(task_id="submit", study="cancer", path=trees[0], message="run {{ run_id }}")
    (handed_in,) = run_dag(dag).get_task_instances()
    assert str(handed_in.state) == "success"
    submission = handed_in.xcom_pull(task_ids="submit")
    assert events("easeml://submissions/cancer")[-1] == {
        name: submission[name] for name in ("submission_id", "study", "model_id")
    }

    judged = states(run_dag(our_dag(root, "easeml_commit_gate")))
    assert {state for task, state in judged.items() if task[0].startswith("judge.")} == {"success"}
    assert standing(store).model_id == submission["model_id"]
    assert events("easeml://production/cancer") == []  # the watcher tells of it, and no task

    again = states(run_dag(our_dag(root, "easeml_commit_gate")))  # an event that came twice
    assert {state for task, state in again.items() if task[0].startswith("judge.")} == {"skipped"}


WAITS = (TaskAwaitingInput, TaskDeferred)
WHY = "the old one crashes"
ANSWER = {
    "chosen_options": ["Approve"],
    "params_input": {"why": f" {WHY} "},
    "responded_at": datetime(2026, 1, 1, tzinfo=UTC),
    "responded_by_user": {"id": "7", "name": "ada"},
}


@pytest.fixture
def force(study, model, run_dag, root, monkeypatch):
    """Run the DAG of forced promotions with this answer of a person; states, and the promotion's message."""
    model_id = submit(model)[0]["model_id"]
    monkeypatch.setenv("AIRFLOW__EASEML__REFEREES", "eve, ada")
    ask = operators.ForcePromotionOperator.execute

    def run(_read_anew=None, **changes):
        def answered(self, context):
            """What Airflow does: keep the wait's arguments, read the templates anew, go on with the answer."""
            with pytest.raises(WAITS) as wait:
                ask(self, context)
            vars(self).update(_read_anew or {})
            event = {"event": ANSWER | changes}
            try:
                return self.resume_execution(wait.value.method_name, (wait.value.kwargs or {}) | event, context)
            except AirflowFailException as error:
                run.refusal = str(error)
                raise

        monkeypatch.setattr(operators.ForcePromotionOperator, "execute", answered)
        done = run_dag(our_dag(root, "easeml_forced_promotion"), run_conf={"study": "cancer", "model": model_id})
        (promote,) = [ti for ti in done.get_task_instances() if ti.task_id == "promote"]
        return states(done)["promote", -1], promote.xcom_pull(task_ids="promote", key="message"), model_id

    return run


def test_a_person_may_pass_the_gate_by_and_is_named(force, forcible_referee, store):
    state, message, model_id = force()
    assert state == "success"
    found = standing(store)
    assert (found.kind, found.model_id, found.who, found.why) == ("force", model_id, "ada (7)", WHY)
    assert (found.who in message, found.why in message) == (True, True)


@pytest.mark.parametrize("template", ["study", "model_id", "easeml_conn_id"])
def test_an_answer_is_to_the_question_that_was_asked(
    force, trees, make_study, forcible_referee, store, monkeypatch, template
):
    """Airflow reads the templates anew when the task goes on, by then of an XCom that somebody else has written."""
    make_study("cards", gate=EASY)
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", os.environ["AIRFLOW_CONN_EASEML_DEFAULT"])
    another = submit(trees[0], task_id="another")[0]["model_id"]
    read = {"study": "cards", "model_id": str(another), "easeml_conn_id": "elsewhere"}[template]
    state, message, model_id = force({template: read})
    assert (state, message) == ("failed", None)
    told = {"study": "cancer", "model_id": model_id, "easeml_conn_id": "easeml_default"}
    now = another if template == "model_id" else read
    assert f"{template} was {told[template]!r} then and is {now!r} now" in force.refusal
    with store.begin() as tx:
        assert model_life.history(tx, studies.get_study(tx, "cancer").id) == []
        assert scalar(tx, "SELECT count(*) FROM work.requests WHERE kind = 'force'") == 0


def test_a_question_that_is_read_anew_as_text_is_the_same(force, model, forcible_referee, store):
    state, _, model_id = force({"model_id": str(submit(model)[0]["model_id"])})
    assert (state, standing(store).model_id) == ("success", model_id)


@pytest.mark.parametrize("kept", [{}, {"asked": None}, {"asked": {"study": "cancer"}}])
def test_an_answer_without_its_question_promotes_nothing(study, store, monkeypatch, kept):
    """As of a task that has asked before questions were kept."""
    monkeypatch.setenv("AIRFLOW__EASEML__REFEREES", "ada")
    operator = operators.ForcePromotionOperator(task_id="f", study="cancer", model_id=1)
    with pytest.raises(AirflowFailException, match="nothing was promoted; trigger it again"):
        operator.execute_complete(context("f"), ANSWER, **kept)


def test_a_person_whose_number_is_the_name_is_named_once(force, forcible_referee, store):
    force(responded_by_user={"id": "ada", "name": "ada"})
    assert standing(store).who == "ada"


REFUSALS = [
    ({"chosen_options": ["Reject"]}, "skipped"),
    ({"responded_by_user": None}, "failed"),  # a time-out's default
    ({"responded_by_user": {"id": "", "name": " "}}, "failed"),
    ({"responded_by_user": {"id": "7", "name": ""}}, "failed"),
    ({"responded_by_user": {"id": "ada", "name": "bob"}}, "failed"),  # no referee, whatever number Airflow gave him
    ({"params_input": {"why": "  "}}, "failed"),
    ({"params_input": {}}, "failed"),
]


def test_without_a_person_and_a_reason_nothing_is_forced(force, forcible_referee, store):
    assert [force(**changes)[0] for changes, _ in REFUSALS] == [state for _, state in REFUSALS]
    with store.begin() as tx:
        assert model_life.history(tx, studies.get_study(tx, "cancer").id) == []


def test_a_referee_that_was_not_told_to_refuses(force, referee):
    state, message, _ = force()
    assert state == "failed"
    assert "--allow-forced" in message


def test_nobody_is_asked_for_a_model_that_is_not_there(study, connected, run_dag, root, store):
    done = run_dag(our_dag(root, "easeml_forced_promotion"), run_conf={"study": "cancer", "model": 999})
    (ended,) = done.get_task_instances()
    assert str(ended.state) == "failed"
    with store.begin() as tx:
        assert model_life.history(tx, studies.get_study(tx, "cancer").id) == []


def test_a_time_out_promotes_nothing_and_asks_nobody_again(study):
    operator = operators.ForcePromotionOperator(task_id="f", study="cancer", model_id=1, **NOW)
    with pytest.raises(AirflowFailException, match="within 3 days"):
        operator.execute_complete(context("f"), {"error": "too late", "error_type": "timeout"})


def test_an_airflow_operator_without_a_response_timeout_waits_as_long(monkeypatch):
    """As of the standard provider before 1.12.2, whose ``execution_timeout`` limits the wait."""

    def of_1_12_1(self, *, subject, options, params=None, multiple=False, **kwargs):
        BaseOperator.__init__(self, **kwargs)
        self.hitl_summary_extra = {}  # the newer ApprovalOperator above it adds to them

    monkeypatch.setattr(HITLOperator, "__init__", of_1_12_1)
    short = {"execution_timeout": timedelta(hours=1)}  # of the DAG's other tasks
    operator = operators.ForcePromotionOperator(task_id="f", study="cancer", model_id=1, default_args=short, **NOW)
    assert (operator.execution_timeout, operator.response_timeout) == (timedelta(days=3), timedelta(days=3))


def test_only_referees_are_asked_where_airflow_knows_them_by_name(monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__REFEREES", "eve, ada")
    assert referees_asked() == [{"id": "ada", "name": "ada"}, {"id": "eve", "name": "eve"}]
    monkeypatch.setenv("AIRFLOW__EASEML__REFEREES", "nobody")
    assert referees_asked() == [{"id": "nobody", "name": "nobody"}]  # an empty list would be everybody
    numbers = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", numbers)
    assert referees_asked() is None


def test_what_the_referee_reads_cannot_be_dressed_up(recorded):
    """The reason is somebody else's, and Airflow draws Markdown."""
    failed, reason = SimpleNamespace(model_id=7, verdict="fail"), "it burns\r\r# It passed\u2028"
    told = question("cancer", failed, 3, "bob", reason)
    assert "\n\n        it burns # It passed\n\n" in told
    recorded(told, "forced_promotion")
    recorded(question("cancer", SimpleNamespace(model_id=7, verdict=None), None, None, "  "), "forced_by_a_program")
