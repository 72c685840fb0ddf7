"""The trigger forms: every field says what it is, what may be in it, and refuses the rest with a reason; every DAG
explains itself."""

import copy
import json
import re

import pytest
from airflow.sdk import Param, Variable
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from easeml_airflow import params
from easeml_airflow.notifications.base import SUBJECTS
from easeml_core.gate.condition import parse_condition
from easeml_core.services.operations.notifications import EventKind
from easeml_core.settings.config import POLICIES, parse_adaptivity

GOOD = {
    "easeml_commit_gate": {
        "study": "digits",
        "model": 7,
        "condition": "n - o > 0.02 +/- 0.01",
        "reliability": 0.999,
        "adaptivity": "upTo:3",
    },
    "easeml_feed_retraining": {"devices": ["cpu", "a100"]},
    "easeml_forced_promotion": {"study": "digits", "model": 7, "reason": "the old one crashes"},
    "easeml_night_at_scale": {"devices": ["gpu"], "time_limit_minutes": 60, "max_trials": 3, "chunk_size": 50}
    | {"policy": None},
    "easeml_nightly_retraining": {"trials_per_round": 12, "policy": "hybrid"},
    "easeml_notify": {
        "events": ["promotion", "drift"],
        "mail": "ada@lab.org, eve@lab.org",
        "webhook": "easeml_webhook",
    },
    "easeml_overfitting_watch": {"pause": False},
    "easeml_register_study": {
        "tenant": "lab",
        "study": "digits",
        "source": "csv:a.csv",
        "target": "price",
        "task": "regression",
        "metric": "within:0.5",
        "hit": "within:20",
        "program": "{input: {[Tensor[2]], []}, output: {[Tensor[1]], []}}",
        "split": "group:house",
        "grid": "rates",
        "weight": 2.5,
        "budget_seconds": 3600,
        "priority": -3,
        "deadline": "2026-12-24T18:00:00+01:00",
        "target_quality": 0.95,
        "candidates": [{"name": "small", "kind": "torch_mlp"}],
        "gate": {"steps": 4},
        "meter": {"tolerance": 0.1},
        "joint": {"reliability": 0.99},
        "direct": {"share": 0.1},
    },
    "easeml_stream": {"devices": ["cpu"], "time_limit_minutes": 60, "max_trials": 3, "policy": None},
    "easeml_test_set_watch": {"mail": "ada@lab.org"},
}

BAD = [
    ("easeml_commit_gate", "study", "Digits!"),
    ("easeml_commit_gate", "study", "a" * 64),
    ("easeml_commit_gate", "study", 3),
    ("easeml_commit_gate", "model", "seven"),
    ("easeml_commit_gate", "model", 0),
    ("easeml_commit_gate", "condition", "n > 0 +/- 1" * 100),
    ("easeml_commit_gate", "reliability", 0),
    ("easeml_commit_gate", "reliability", 1),
    ("easeml_commit_gate", "adaptivity", "some"),
    ("easeml_commit_gate", "adaptivity", "upTo:0"),
    ("easeml_commit_gate", "adaptivity", "upTo:33"),
    ("easeml_feed_retraining", "devices", ["cpu"] * 257),
    ("easeml_feed_retraining", "devices", ["A100!"]),
    ("easeml_forced_promotion", "study", None),
    ("easeml_forced_promotion", "study", ""),
    ("easeml_forced_promotion", "model", None),
    ("easeml_forced_promotion", "model", 1.5),
    ("easeml_forced_promotion", "model", 0),
    ("easeml_forced_promotion", "reason", "x" * 501),
    ("easeml_night_at_scale", "chunk_size", 0),
    ("easeml_nightly_retraining", "trials_per_round", 0),
    ("easeml_nightly_retraining", "trials_per_round", 257),
    ("easeml_nightly_retraining", "policy", "luck"),
    ("easeml_notify", "events", ["promotion", "party"]),
    ("easeml_notify", "events", ["drift", "drift"]),
    ("easeml_notify", "mail", "ada"),
    ("easeml_notify", "mail", "ada@lab.org\nBcc: eve@lab.org"),
    ("easeml_overfitting_watch", "pause", "yes"),
    ("easeml_register_study", "tenant", "-lab"),
    ("easeml_register_study", "source", ""),
    ("easeml_register_study", "task", "clustering"),
    ("easeml_register_study", "metric", "beauty"),
    ("easeml_register_study", "hit", "0.5"),
    ("easeml_register_study", "split", "columns"),
    ("easeml_register_study", "grid", "huge"),
    ("easeml_register_study", "weight", 0),
    ("easeml_register_study", "budget_seconds", 0),
    ("easeml_register_study", "priority", 101),
    ("easeml_register_study", "deadline", "tomorrow"),
    ("easeml_register_study", "target_quality", 1.1),
    ("easeml_register_study", "candidates", ["small"]),
    ("easeml_register_study", "gate", "steps 4"),
    ("easeml_stream", "devices", [""]),
    ("easeml_stream", "time_limit_minutes", 1441),
    ("easeml_stream", "max_trials", 0),
    ("easeml_test_set_watch", "mail", "ada@lab.org,"),
]
NEEDED = {"easeml_forced_promotion": {"study", "model"}, "easeml_register_study": {"tenant", "study"}}


def form_of(dag_bag, name):
    """A form of one's own: ``resolve`` keeps the value."""
    return copy.deepcopy(dag_bag.dags[name].params)


def forms(dag_bag):
    return [(name, key, dag.params.get_param(key)) for name, dag in dag_bag.dags.items() for key in dag.params]


def test_every_field_says_what_it_is_and_what_may_be_in_it(dag_bag):
    assert len(forms(dag_bag)) > 40
    for name, key, field in forms(dag_bag):
        assert len(field.description) > 10, (name, key)
        assert field.schema["title"], (name, key)
        kinds = field.schema["type"]
        assert set([kinds] if isinstance(kinds, str) else kinds) <= {
            *("null", "string", "integer", "number", "boolean", "array", "object")
        }
        bounded = {"pattern", "maxLength", "enum", "format"} & set(field.schema)
        assert "string" not in kinds or bounded, f"{name}.{key} takes a text of any length"
        optional = "null" in kinds
        assert optional is not (key in NEEDED.get(name, ()) or field.value is not None), (name, key)


def test_a_new_study_s_form_says_in_words_what_its_patterns_want(dag_bag):
    """Airflow's form does not check a pattern, and tells a service's refusal as ``Bad Request``."""
    fields = form_of(dag_bag, "easeml_register_study")
    patterns = {k: f for k in fields if "pattern" in (f := fields.get_param(k)).schema and "format" not in f.schema}
    assert set(patterns) >= {"tenant", "study", "metric", "hit", "split"}
    for key, field in patterns.items():
        assert re.search(r"`[^`]+`|of a-z, 0-9", field.description), key


@pytest.mark.parametrize("name", GOOD)
def test_a_good_form_passes_and_so_do_its_defaults(dag_bag, name):
    form = form_of(dag_bag, name)
    assert set(GOOD[name]) == set(form)
    for key, value in GOOD[name].items():
        assert form.get_param(key).resolve(value) == value
    form = form_of(dag_bag, name)
    for key in set(form) - NEEDED.get(name, set()):
        assert form.get_param(key).resolve() == form.get_param(key).value


@pytest.mark.parametrize(("name", "key", "value"), BAD)
def test_what_cannot_be_is_refused_with_a_reason(dag_bag, name, key, value):
    with pytest.raises(ParamValidationError) as refused:
        form_of(dag_bag, name).get_param(key).resolve(value)
    reason = str(refused.value)
    assert re.search("is not|does not|too long|too short|should be|less than|greater than|non-unique|are not", reason)


@pytest.mark.parametrize("name", GOOD)
def test_the_service_refuses_the_same(dag_bag, name):
    """What the API server checks is the form as it was stored."""
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag_bag.dags[name]))
    assert stored.params.deep_merge(GOOD[name]).validate() == GOOD[name]
    for key, value in [(key, value) for dag, key, value in BAD if dag == name]:
        with pytest.raises(Exception, match="Invalid input for param"):
            stored.params.deep_merge(GOOD[name] | {key: value}).validate()


def test_a_run_with_a_bad_form_does_not_begin(run_dag, dag_bag):
    with pytest.raises(Exception, match="Invalid input for param adaptivity"):
        run_dag(dag_bag.dags["easeml_commit_gate"], run_conf={"adaptivity": "some"})


def test_the_choices_are_those_of_the_product():
    choices = params.adaptivity().schema["enum"]
    assert set(map(str, choices)) == set(params.ADAPTIVITY)
    assert all(parse_adaptivity(choice) for choice in choices if choice is not None)
    assert {"none", "full", "firstChange", "recycle", "upTo:1", "upTo:32"} < set(choices)
    assert params.policy().schema["enum"] == [None, *POLICIES]
    assert tuple(EventKind) == tuple(SUBJECTS) == params.EVENTS == tuple(params.events().value)
    for example in params.condition().schema["examples"]:
        assert parse_condition(example)


@pytest.fixture
def listed(monkeypatch):
    """Let the Variable hold this text."""

    def give(text):
        params.studies_offered.cache_clear()
        monkeypatch.setenv("AIRFLOW_VAR_EASEML_STUDIES", text)
        return params.studies_offered()

    yield give
    params.studies_offered.cache_clear()


def test_studies_are_offered_from_the_list_and_others_may_be_typed(listed):
    assert listed('["digits", "wine"]') == ("digits", "wine")
    field = params.study("Which.", required=True)
    assert field.schema["examples"] == ["digits", "wine"]
    assert field.resolve("brand-new") == "brand-new"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("no JSON", ()),
        ('"digits"', ()),
        ('{"digits": 1}', ()),
        ('["digits", 3, null, "<b>", "a b", "{{ x }}"]', ("digits",)),
        (json.dumps([f"s{n}" for n in range(2000)]), tuple(f"s{n}" for n in range(1000))),
    ],
)
def test_a_list_of_another_hand_offers_what_can_be_a_name(listed, text, names):
    assert listed(text) == names
    assert ("examples" in params.study("Which.").schema) is bool(names)


def test_without_a_list_and_without_airflow_the_form_is_made(listed, monkeypatch):
    params.studies_offered.cache_clear()
    monkeypatch.delenv("AIRFLOW_VAR_EASEML_STUDIES", raising=False)

    def away(*args, **kwargs):
        message = "the server is away"
        raise RuntimeError(message)

    monkeypatch.setattr(Variable, "get", away)
    assert params.studies_offered() == ()
    assert isinstance(params.study("Which."), Param)


@pytest.mark.parametrize("name", GOOD)
def test_every_dag_explains_itself(dag_bag, root, name):
    dag = dag_bag.dags[name]
    text = dag.doc_md
    for word in ("When:", "Afterwards:", "Needs:", "More:", "**The form:**"):
        assert text.count(f"\n{word}") == 1, word
    for key in dag.params:
        assert f"\n* `{key}` (" in text
        assert dag.params.get_param(key).description in text
    pages = re.findall(r"docs/[a-z-]+\.md", text)
    assert len(pages) >= 2 or name == "easeml_notify"
    assert all((root / page).exists() for page in pages)
