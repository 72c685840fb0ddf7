"""Search spaces for the tests: two that are written out, and a strategy for any."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from easeml_core.programs.search_space.reader import space_of

OPTIMIZER = """
number_of_layers:
  .int: [1, 5]
optimizer:
  .choice:
    - type: sgd
      learning_rate: {.float: [-4, -1], .scale: exp}
      momentum: {.float: [0, 0.5]}
    - type: rmsprop
      learning_rate: {.float: [-5, -2], .scale: exp}
      rho: {.float: [0, 0.3]}
    - type: lbfgs
"""
JOB = {
    "id": "64-digits",
    "model": {
        ".choice": [
            {"kind": "k_neighbors", "n_neighbors": {".choice": [2, 4, 8, 16]}},
            {
                "kind": "mlp",
                "hidden": {".choice": [[128], [128, 128], [256]]},
                "alpha": {".float": [1e-6, 1], ".scale": "log"},
            },
            {
                "kind": "svm",
                "kernel": {".choice": ["linear", {"rbf": {"gamma": {".float": [0.01, 10], ".scale": "log"}}}]},
            },
        ]
    },
}


def fits(data: Any, value: Any) -> Any:
    """Whether a value is of a space, told from the plain data alone."""
    if isinstance(data, list):
        return isinstance(value, list) and len(data) == len(value) and all(map(fits, data, value))
    if not isinstance(data, dict):
        return type(data) is type(value) and data == value
    if ".choice" in data:
        return any(fits(option, value) for option in data[".choice"])
    low, high = data.get(".int") or data.get(".float") or (0, 0)
    if ".int" in data:
        numbers = [10**k for k in range(low, high + 1)] if data.get(".scale") == "exp" else range(low, high + 1)
        return type(value) is int and value in numbers
    if ".float" in data:
        if data.get(".scale") == "exp":
            low, high = 10.0**low, 10.0**high
        return type(value) is float and low <= value <= high
    return isinstance(value, dict) and list(data) == list(value) and all(fits(data[k], value[k]) for k in data)


TEXTS = st.sampled_from(["a", "rbf", "ReLU", "", "ünï", "no", "1e3"])
CONSTANTS = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-9, 9), TEXTS)


@st.composite
def ranges(draw: Any) -> Any:
    kind, scale = draw(st.sampled_from([".int", ".float"])), draw(st.sampled_from(["linear", "log", "exp"]))
    least = {"linear": -20, "log": 1, "exp": 0}[scale]
    numbers = st.integers(least, 15) if kind == ".int" else st.floats(max(least, 0.01) if scale == "log" else -9, 15)
    ends = sorted([draw(numbers), draw(numbers)])
    return {kind: ends} if scale == "linear" and draw(st.booleans()) else {kind: ends, ".scale": scale}


def different(options: Any) -> Any:
    return len({json.dumps(json.loads(str(space_of({"x": o}))), sort_keys=True) for o in options}) == len(options)


NAMES = st.text("abcdef_ .-", min_size=1, max_size=6).filter(lambda s: s.strip() and not s.startswith("."))
NODES = st.recursive(
    CONSTANTS | ranges(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3),
        st.lists(inner, min_size=1, max_size=3).filter(different).map(lambda options: {".choice": options}),
    ),
    max_leaves=12,
)
SPACES = st.dictionaries(NAMES, NODES, max_size=4)
