"""What else a plan offers: only what differs and is allowed, each with the size that its own plan has."""

from __future__ import annotations

import pytest

from easeml_core.errors import ConfigError
from easeml_core.formats.encoding import row_of
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.offline.planned import alternatives_to
from easeml_core.gate.planner import PlannedFor, plan_gate

PATTERN = "n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01"
DEFAULTS = {"reliability": 0.9999, "steps": 32, "adaptivity": "full", "mode": "fp-free"}


def others(source=PATTERN, **asked):
    found = alternatives_to(parse_condition(source), PlannedFor(**DEFAULTS | asked))
    return {each.change.split(":")[0] if "upTo" not in each.change else "with upTo": each.labels for each in found}


def size(source=PATTERN, **asked):
    return plan_gate(parse_condition(source), **(DEFAULTS | asked))


def test_what_a_full_gate_could_do_instead():
    found = others()
    fresh = "with fresh labels for every submission, whatever the developer learns"
    none = size(adaptivity="none")
    assert found == {
        "with recycling, for the set until its first pass": none.labels,
        "with upTo": size(adaptivity="upTo:3").labels,
        "with firstChange, for a set that is retired at its first pass": none.labels,
        "with tolerances 0.015, 0.015": size("n - o > 0.02 +/- 0.015 /\\ d < 0.1 +/- 0.015").labels,
        "with power 0.9": size(power=0.9).labels,
        fresh: none.labels_per_submission,
        f"{fresh}, and power 0.9": size(adaptivity="none", power=0.9).labels_per_submission,
        "with the paper's published sizes": 67_706,
    }
    # Spec: about 2,023 labels on disagreements with fresh labels, 844 with power 0.9.
    assert found[fresh] == pytest.approx(2_023, rel=0.003)
    assert found[f"{fresh}, and power 0.9"] == pytest.approx(844, rel=0.006)


@pytest.mark.parametrize(
    ("asked", "absent", "present"),
    [
        ({"adaptivity": "recycle", "changes": 2}, "recycling", "upTo"),
        ({"adaptivity": "upTo:3"}, "upTo", "recycling"),
        ({"adaptivity": "firstChange"}, "firstChange", "recycling"),
        ({"adaptivity": "hybrid"}, "firstChange", "recycling"),
        ({"steps": 2}, "upTo", "recycling"),
        ({"power": 0.9}, "with power", "and"),
        ({"power": 0.9}, "and power", "fresh"),
        ({"estimator": "paper"}, "power", "exact tests"),
        ({"target": "estimate"}, "power", "published"),
    ],
)
def test_what_is_asked_or_not_allowed_is_left_out(asked, absent, present):
    changes = list(others(**asked))
    assert not any(absent in change for change in changes)
    assert any(present in change for change in changes) or present == "and"


def test_fails_count_under_fn_free():
    assert any("until its first fail" in change for change in others("n > 0.9 +/- 0.05", mode="fn-free"))


def test_a_condition_without_labels_says_so():
    found = alternatives_to(parse_condition("d < 0.1 +/- 0.01"), PlannedFor(**DEFAULTS))
    assert {each.labels for each in found} == {0}
    assert "no labels, 16,669 unlabelled examples" in found[0].change
    sizes = {"labels": 0, "unlabelled": 16_669, "examples": 16_669, "labels_per_submission": 0, "steps": 32}
    assert row_of(found[0]) == {"change": found[0].change} | sizes


def test_every_row_has_the_sizes_of_its_own_plan_and_says_how_many_submissions_they_serve():
    found = {
        each.change.partition(":")[0]: each
        for each in alternatives_to(parse_condition(PATTERN), PlannedFor(**DEFAULTS))
    }
    fresh, none = (
        found["with fresh labels for every submission, whatever the developer learns"],
        size(adaptivity="none"),
    )
    assert (fresh.steps, fresh.labels) == (1, none.labels_per_submission)
    paper, published = found["with the paper's published sizes"], size(estimator="paper")
    assert (paper.steps, paper.labels) == (32, published.labels)
    for row, plan in ((fresh, none), (paper, published)):
        assert (row.examples, row.unlabelled) == (plan.examples, plan.unlabelled)
        assert row.labels_per_submission == plan.labels_per_submission


def test_a_wrong_request_has_no_alternatives():
    with pytest.raises(ConfigError, match="reliability"):
        others(reliability=2.0)


@pytest.mark.parametrize(
    ("condition", "change", "words"),
    [
        (PATTERN, {}, "on average at most"),
        (PATTERN, {"mode": "fn-free"}, "on average where the models differ on at most 10 %"),
        ("n - o > 0.02 +/- 0.01", {"assume_disagreement": 0.25}, "on average where the models differ on at most 25 %"),
    ],
)
def test_of_what_labels_are_an_average_is_said(condition, change, words):
    """Under fn-free a model may differ on more than the clause on d allows, and be asked about."""
    found = alternatives_to(parse_condition(condition), PlannedFor(**DEFAULTS | change))
    assert any(each.change.endswith(f" of them labelled {words}") for each in found)
