"""A row that is sealed in one study opens in no other, whatever was done to the table; each case is an attack.

The referee is the real one; tables come as the public interface takes them. The chance that unrelated rows of these
tables match is bounded by 2 % a row (``training/row_matching.py``) and is 0 for these seeds.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.services import row_registry
from easeml_core.services.referee import Referee
from easeml_core.services.registration import register_study
from easeml_core.services.requests import answer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SETTINGS = {
    "gate": {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"},
    "meter": {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4},
}
ROWS = 600
Table = dict[str, list[Any]]


def table(seed: int = 1, rows: int = ROWS) -> Table:
    """Columns of every kind, and two that may be predicted: y and z."""
    rng = np.random.default_rng(seed)
    days = rng.integers(0, 50_000_000, rows)
    return {
        "id": list(range(rows)),
        "age": rng.integers(18, 90, rows).tolist(),
        "dose": np.round(rng.uniform(1, 9, rows), 4).tolist(),
        "weight": np.round(rng.normal(70, 9, rows), 3).tolist(),
        "region": rng.choice(["south", "west", "north"], rows).tolist(),
        "seen": [str(np.datetime64("2020-01-01T00:00:00") + int(day)) for day in days],
        "y": rng.choice(["no", "yes"], rows).tolist(),
        "z": rng.choice(["low", "high"], rows).tolist(),
    }


def write_csv(path: Path, content: Table, quoting: int = csv.QUOTE_MINIMAL) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=quoting)
        writer.writerow(content)
        writer.writerows(zip(*content.values(), strict=True))


@pytest.fixture
def register(bare: Any, tmp_path: Path) -> Callable[..., Any]:
    """Write a table into the tenant's folder and register it; the referee's answer."""

    def make(study: str, content: Table, target: str, tenant: str = "lab", **asked: Any) -> Any:
        folder = tmp_path / "data" / tenant
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / f"{study}.csv", content, asked.pop("quoting", csv.QUOTE_MINIMAL))
        return file_study(bare, tmp_path, study, tenant, f"csv:{study}.csv", target=target, **asked)

    return make


def file_study(lab: Any, folder: Path, study: str, tenant: str, source: str, **asked: Any) -> Any:
    settings = SETTINGS | {"tenant": tenant, "source": source, "request_key": lab.key()} | asked
    filed = register_study(lab.worker, study=study, **settings)
    while Referee(lab.referee, lab.artifacts, data=folder / "data").answer_one() is not None:
        pass
    return answer_of(lab.worker, filed["request_id"])


def without(content: Table, *names: str) -> Table:
    return {name: cells for name, cells in content.items() if name not in names}


def renamed(content: Table) -> Table:
    return {f"c{i}": cells for i, (_, cells) in enumerate(reversed(without(content, "y").items()))} | {
        "y": content["y"]
    }


def reordered_rows(content: Table) -> Table:
    order = np.random.default_rng(0).permutation(len(content["y"])).tolist()
    return {name: [cells[i] for i in order] for name, cells in content.items()}


def duplicated(content: Table) -> Table:
    twice = {name: cells + cells for name, cells in content.items()}
    return twice | {"copy": [0] * len(content["y"]) + [1] * len(content["y"])}


def encoded(content: Table) -> Table:
    """The same values written otherwise."""
    times = [str(np.datetime64(cell) + np.timedelta64(2, "h")) + "+02:00" for cell in content["seen"]]
    regions = [f" '{cell.upper()}' " for cell in content["region"]]
    return content | {
        "age": [f"{cell}.0" for cell in content["age"]],
        "dose": [f"{cell:.7e}" for cell in content["dose"]],
        "seen": times,
        "region": regions,
    }


def noisy(content: Table) -> Table:
    """Two columns shuffled, two added."""
    rng = np.random.default_rng(0)
    return content | {
        "region": rng.permutation(content["region"]).tolist(),
        "age": rng.permutation(content["age"]).tolist(),
        "extra": rng.normal(size=len(content["y"])).tolist(),
        "more": rng.choice(["a", "b"], len(content["y"])).tolist(),
    }


SAME_ROWS: Mapping[str, Callable[[Table], Table]] = {
    "as it is": lambda content: content,
    "dropped": lambda content: without(content, "id", "weight", "seen", "z"),
    "added": lambda content: content | {"new": np.random.default_rng(5).normal(size=len(content["y"])).tolist()},
    "renamed and reordered": renamed,
    "rows reordered": reordered_rows,
    "rows duplicated": duplicated,
    "re-encoded": encoded,
    "shuffled and added": noisy,
    "half of the rows": lambda content: (
        {name: cells[::2] for name, cells in content.items()} | {"other": list(range(len(content["y"]) // 2))}
    ),
}


@pytest.mark.parametrize("tenant", ["lab", "rival"])
@pytest.mark.parametrize("target", ["y", "z"])
def test_a_table_is_refused_for_another_target_and_another_tenant(register: Any, target: str, tenant: str) -> None:
    assert not register("one", table(), "y")["refused"]
    answer = register("two", table(), target, tenant)
    assert answer["refused"]
    assert ("'one'" in answer["message"]) == (tenant == "lab")
    assert ("rows?part=1/2" in answer["message"]) == (tenant == "lab")


@pytest.mark.parametrize("change", SAME_ROWS.values(), ids=SAME_ROWS)
def test_a_changed_table_is_the_same_table(register: Any, change: Callable[[Table], Table]) -> None:
    assert not register("one", table(), "y")["refused"]
    changed = change(table())
    answer = register("two", changed, "z" if "z" in changed else "y", quoting=csv.QUOTE_ALL)
    assert answer["refused"]
    assert row_registry.OWN_WORDS in answer["message"]


def test_other_rows_of_the_same_kind_are_another_table(register: Any) -> None:
    assert not register("one", table(1), "y")["refused"]
    assert not register("two", table(2), "z")["refused"]


def test_a_few_known_rows_keep_their_side(bare: Any, register: Any) -> None:
    """A share that chance could explain is let in: what is sealed lies in sealed parts, what is open is trained on."""
    assert not register("one", table(1), "y")["refused"]
    mixed = {
        name: cells[:12] + other[12:] for (name, cells), other in zip(table(1).items(), table(2).values(), strict=True)
    }
    state = dict(bare.rows("SELECT id, state FROM sealed.registry"))
    answer = register("two", mixed, "z")
    assert not answer["refused"], answer["message"]
    opened, dose = bare.open_parts("two"), np.float32(table(1)["dose"][:12])
    names = bare.one("SELECT feature_names FROM work.data_versions ORDER BY id DESC LIMIT 1")
    seen = np.isin(dose, np.concatenate([opened.train_inputs, opened.validation_inputs])[:, names.index("dose")])
    trained = np.isin(dose, opened.train_inputs[:, names.index("dose")])
    shown = np.isin(dose, bare.open_parts("one").train_inputs[:, 2])
    validated = np.isin(dose, bare.open_parts("one").validation_inputs[:, 2])
    assert seen.tolist() == (shown | validated).tolist()
    assert 0 < seen.sum() < 12
    assert trained[shown].all()
    assert bare.one("SELECT count(*) FROM sealed.row_holds") >= 12 - seen.sum()
    assert {row: now for row, now in bare.rows("SELECT id, state FROM sealed.registry") if row in state} == state


def test_one_in_two_studies_divide_a_table(bare: Any, register: Any) -> None:
    content = table(rows=1200)
    assert not register("one", content, "y", split="rows?part=1/2")["refused"]
    assert not register("two", content, "z", split="rows?part=2/2")["refused"]
    ids = [np.concatenate([p.train_inputs, p.validation_inputs])[:, 0] for p in map(bare.open_parts, ("one", "two"))]
    assert not np.isin(*ids).any()
    assert (
        1150 < bare.one("SELECT count(*) FROM sealed.registry") <= 1200
    )  # a few match one of the first half by chance
    answer = register("three", content, "z", split="rows?part=2/2")
    assert answer["refused"]
