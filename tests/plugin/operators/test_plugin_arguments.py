"""Arguments after a template has turned them into text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_airflow.hooks import arguments
from easeml_core.errors import ConfigError


@settings(deadline=None, max_examples=examples(50))
@given(st.integers())
def test_a_whole_number_survives_being_text(number):
    assert arguments.whole(number, "count") == arguments.whole(str(number), "count") == number


@pytest.mark.parametrize("value", ["3.0", "three", "", "None", None, 2.5, True, "--3", "1e3"])
def test_anything_else_is_no_whole_number(value):
    with pytest.raises(ConfigError, match="count must be a whole number"):
        arguments.whole(value, "count")


@settings(deadline=None, max_examples=examples(50))
@given(st.floats(allow_nan=False))
def test_a_number_survives_being_text(number):
    assert arguments.optional_number(str(number), "weight") == number


@pytest.mark.parametrize("value", ["much", [], {}])
def test_anything_else_is_no_number(value):
    with pytest.raises(ConfigError, match="weight must be a number"):
        arguments.optional_number(value, "weight")


@pytest.mark.parametrize("truth", [True, False])
def test_true_and_false_survive_being_text(truth):
    texts = (truth, str(truth), str(truth).lower())
    assert [arguments.optional_truth(value, "trainers") for value in texts] == [truth] * 3
    for value in ("yes", 1, 0, 1.0, []):
        with pytest.raises(ConfigError, match="trainers must be true, false or None"):
            arguments.optional_truth(value, "trainers")


@pytest.mark.parametrize("value", arguments.EMPTY)
def test_an_unset_field_is_none(value):
    assert arguments.optional_truth(value, "trainers") is None
    assert arguments.optional_text(value) is None
    assert arguments.optional_whole(value, "model_id") is None
    assert arguments.optional_number(value, "weight") is None
    assert arguments.optional_plain(value, "gate") is None


@pytest.mark.parametrize("value", [["a"], {"steps": 3}, [[1.0, 2.5]]])
def test_a_list_or_an_object_survives_being_text(value):
    assert arguments.optional_plain(value, "gate") == arguments.optional_plain(json.dumps(value), "gate") == value


@pytest.mark.parametrize("value", ["digits", "{'steps': 3}", "3", 3, '"a"'])
def test_anything_else_is_no_list_or_object(value):
    with pytest.raises(ConfigError, match="gate must be a list or an object"):
        arguments.optional_plain(value, "gate")


def test_a_trial_is_known_by_itself_or_by_its_id():
    assert arguments.trial_id({"trial_id": 7, "study": "digits"}) == arguments.trial_id("7") == arguments.trial_id(7)
    with pytest.raises(ConfigError, match="trial must be a whole number"):
        arguments.trial_id({"study": "digits"})
