"""Settings refuse a value of a wrong type with its name, read what earlier versions stored, and keep their order."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from easeml_core.errors import ConfigError
from easeml_core.formats.encoding import to_json
from easeml_core.settings.config import GateConfig, JointConfig, MeterConfig, SelectionConfig, TrainingConfig

KINDS = (SelectionConfig, TrainingConfig, GateConfig, MeterConfig, JointConfig)


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (MeterConfig, "ranges", (0.5, None, {}, "0.2", ["a"], [True])),
        (MeterConfig, "tolerances", (0, None, {}, False)),
        (MeterConfig, "automaton", (0, None, {}, [1])),
        (MeterConfig, "budget", (None, {}, "signal above range 2", [1])),
        (GateConfig, "slices", (None, {}, "", 5, ["ab"])),
        (GateConfig, "mail", (None, 5)),
        (GateConfig, "condition", (None, 5)),
        (SelectionConfig, "order", (None, 5, "tree", [5])),
        (TrainingConfig, "rungs", (None, 0.1, {}, ["a"])),
        (JointConfig, "gate", (None, 5)),
        (JointConfig, "meter", (None, "full")),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_with_its_name(kind: type[Any], name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=f"^{name} must be "):
            kind.from_json({name: value})


def test_lists_of_any_kind_are_tuples_to_any_depth() -> None:
    assert GateConfig(slices={"young": "n > 0.5 +/- 0.1"}.items()).slices == (("young", "n > 0.5 +/- 0.1"),)  # type: ignore[arg-type]  # what users give
    assert hash(MeterConfig(ranges=np.array([0.1, 0.3]))) == hash(MeterConfig(ranges=(0.1, 0.3)))  # type: ignore[arg-type]  # likewise


def test_numbers_that_were_allowed_are_read() -> None:
    assert SelectionConfig(blend=np.float32(0.5)).blend == 0.5
    assert MeterConfig(ambiguous=10**400).ambiguous == 10**400  # larger than any float


@pytest.mark.parametrize("kind", KINDS)
def test_json_has_the_fields_in_their_order(kind: type[Any]) -> None:
    assert list(to_json(kind())) == [field.name for field in attrs.fields(kind)]
