"""A study of a Parquet file that is not held in memory: sealed, trained on, and not to be registered twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from registering import register_study

from easeml_core.data import mapped, parts
from easeml_core.data.sources import parquet_files
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.sealing import part_sizes, planned_sets
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.test_sets.row_registry import OWN_WORDS
from easeml_core.services.trials.execution import run_trial

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ROWS = 4_000


def register(bare: Any, folder: Path, study: str, columns: dict[str, Any]) -> Any:
    path = folder / "lab" / f"{study}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=500)
    filed = register_study(
        bare.worker, study=study, tenant="lab", source=f"parquet:{study}.parquet", target="y", request_key=study,
        candidates=[{"name": kind, "kind": kind} for kind in ("decision_tree", "nearest_centroid")],
    )  # fmt: skip
    Referee(bare.referee, bare.artifacts, data=folder).answer_one()
    return answer_of(bare.worker, filed.request_id)


def test_a_table_in_a_file_is_sealed_trained_on_and_known_again(
    bare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "MAPPED_BLOCK_CELLS", 1_000)
    monkeypatch.setattr(parquet_files, "MAX_BYTES", 1_000)
    monkeypatch.setattr(parts, "LARGE_CELLS", 1_000)
    monkeypatch.setattr("easeml_core.data.mapped._LEAST_MAPPED", 1_000)
    monkeypatch.setattr("easeml_core.services.test_sets.compared_rows._MOST_TOKENS", 1)
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"x{i}": rng.normal(size=ROWS) for i in range(8)}
    columns["y"] = np.where(columns["x0"] > 0, "high", "low")
    assert not register(bare, tmp_path, "one", columns).refused
    (trial,) = suggest_trials(bare.worker, count=1, request_key="k").trials
    assert run_trial(bare.worker, bare.artifacts, trial_id=trial.trial_id, request_key="w").state == "SUCCEEDED"

    renamed = {f"other {name}" if name != "y" else name: column for name, column in columns.items()}
    again = register(bare, tmp_path, "two", renamed | {"y": np.where(columns["x1"] > 0, "high", "low")})
    assert again.refused
    assert OWN_WORDS in again.message


def test_the_shares_of_a_large_table_are_bounded_and_those_of_others_are_as_they_were() -> None:
    plans = planned_sets({"gate": {}, "meter": {}})
    assert part_sizes(100_000, plans, features=1_000) == part_sizes(100_000, plans)
    sizes = part_sizes(2_500_000, plans, features=1_000)
    assert {size for size in sizes.values() if size} == {30_000}
    needed = part_sizes(2_500_000, plans, features=10_000_000)
    assert all(0 < needed[name] <= sizes[name] for name in sizes)
