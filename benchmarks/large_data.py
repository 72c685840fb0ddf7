"""Peak memory of a study of a large Parquet file, part by part: reading, registration with sealing, and trials.

A made-up table of normal numbers (float32, uncompressed) and two classes is written in row groups of 64 MB to a
temporary folder, registered with an embedded installation, and each kind trains on it once. *Own* is what a process
holds by itself (RssAnon and RssShmem, proc_pid_status(5)); *resident* has the pages of mapped files besides, which the
kernel takes back when memory is short. Both are read twenty times a second: of this process, which is the referee and
the worker, and of the processes of a trial. Room for four times the table is needed in TMPDIR.

    python benchmarks/large_data.py --gigabytes 1 --json
    python benchmarks/large_data.py --gigabytes 10 --columns 1900 --kinds torch_mlp
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import psutil
from installation import TENANT, Installation, installation

from easeml_core.data.sources.load import load_source
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import register_study
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import run_trial

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = 1_000
GROUP_BYTES = 64 << 20
EVERY_SECONDS = 0.05
KINDS: dict[str, dict[str, Any]] = {
    "torch_mlp": {"epochs": 1, "batch_size": 1024},
    "gaussian_naive_bayes": {},
    "decision_tree": {"max_depth": 2},
    "xgboost": {"n_estimators": 5},
    "lightgbm": {"n_estimators": 5},
    "nearest_neighbors": {},
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One part.

    Attributes:
        gigabytes: The inputs of the table as float32, in 10^9 bytes.
        part: What was done.
        seconds: Wall time.
        own_mb: Most megabytes that the processes held by themselves.
        resident_mb: The same with pages of files.
        outcome: What became of it.
    """

    gigabytes: float
    part: str
    seconds: float
    own_mb: float
    resident_mb: float
    outcome: str


def memory_mb(pid: int) -> tuple[float, float]:
    """Own and resident megabytes of a process; zeros once it is gone."""
    with contextlib.suppress(OSError):
        found = dict(re.findall(r"^(Rss\w+):\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
        own = int(found.get("RssAnon", 0)) + int(found.get("RssShmem", 0))
        return own / 1024, (own + int(found.get("RssFile", 0))) / 1024
    return 0.0, 0.0


class Peak:
    """The most memory of this process, or of the processes that train."""

    def __init__(self, *, trains: bool) -> None:
        self.own = self.resident = 0.0
        self._trains, self._ends = trains, threading.Event()

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ends.wait(EVERY_SECONDS):
            family = psutil.Process().children(recursive=True) if self._trains else []
            pids = [one.pid for one in family if not _is_server(one)] if self._trains else [os.getpid()]
            looked = [memory_mb(pid) for pid in pids]
            self.own = max(self.own, sum(own for own, _ in looked))
            self.resident = max(self.resident, sum(resident for _, resident in looked))


def _is_server(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "postgres" in process.name()
    return True


def write_table(path: Path, *, gigabytes: float, columns: int) -> int:
    """Write the table; its number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = int(gigabytes * 1e9 / 4 / columns)
    at_once = max(1, GROUP_BYTES // (4 * columns))
    names = [f"x{i}" for i in range(columns)]
    schema = pa.schema([*((name, pa.float32()) for name in names), ("y", pa.int8())])
    drawn = np.random.default_rng(0).standard_normal((columns, at_once), dtype=np.float32)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for group, start in enumerate(range(0, rows, at_once)):
            block = drawn[:, : rows - start] * np.float32(1 + group / 4096)  # other numbers in each group, of one draw
            labels = (block[0] + block[1] > 0).astype(np.int8)
            writer.write_table(pa.Table.from_arrays([*map(pa.array, block), pa.array(labels)], schema=schema))
    return rows


def measured(bench: Installation, gigabytes: float, columns: int, kinds: list[str]) -> Iterator[Measured]:
    """Yield the parts, one after the other."""
    path = bench.folder / "data" / TENANT / "large.parquet"
    began = time.monotonic()
    with Peak(trains=False) as peak:
        rows = write_table(path, gigabytes=gigabytes, columns=columns)
    yield Measured(gigabytes, "write", time.monotonic() - began, peak.own, peak.resident, f"{rows:,} rows")
    began = time.monotonic()
    with Peak(trains=False) as peak:
        table = load_source(f"parquet:{path}", "y")
        outcome = f"{len(table.labels):,} rows"
        del table
    yield Measured(gigabytes, "read", time.monotonic() - began, peak.own, peak.resident, outcome)
    began = time.monotonic()
    candidates = [{"name": kind, "kind": kind, "parameters": KINDS[kind]} for kind in kinds]
    training = {"memory_limit_mb": 14_000, "time_limit_seconds": 3600.0, "max_attempts": 1}
    with Peak(trains=False) as peak:
        filed = register_study(
            bench.worker, study="large", tenant=TENANT, source="parquet:large.parquet", target="y",
            candidates=candidates, training=training, request_key=bench.key(),
        )  # fmt: skip
        bench.judge.answer_one()
        answer = answer_of(bench.worker, filed.request_id)
    outcome = "no answer" if answer is None else str(getattr(answer, "message", answer))[:120]
    yield Measured(gigabytes, "register and seal", time.monotonic() - began, peak.own, peak.resident, outcome)
    path.unlink()
    for _ in kinds:
        (trial,) = suggest_trials(bench.worker, count=1, request_key=bench.key()).trials
        began = time.monotonic()
        with Peak(trains=True) as peak:
            done = run_trial(bench.worker, bench.artifacts, trial_id=trial.trial_id, request_key=bench.key())
        took = time.monotonic() - began
        why = f"{done.state} {getattr(done, 'reason', None) or ''}".strip()[:120]
        yield Measured(gigabytes, f"trial {trial.candidate}", took, peak.own, peak.resident, why)


@click.command()
@click.option("--gigabytes", type=float, default=1.0, show_default=True, help="Of the inputs as float32.")
@click.option("--columns", type=int, default=COLUMNS, show_default=True)
@click.option("--kinds", default="torch_mlp,gaussian_naive_bayes", show_default=True, help="That train, with commas.")
@click.option("--json", "as_json", is_flag=True, help="Print lines of JSON.")
def main(gigabytes: float, columns: int, kinds: str, as_json: bool) -> None:
    """Print the peak memory of each part."""
    os.environ["EASEML_FORK_SERVER"] = "off"  # a trial's processes are then children of this one
    with installation() as bench:
        for one in measured(bench, gigabytes, columns, kinds.split(",") if kinds else []):
            line = f"{one.part:32} {one.seconds:8.1f} s {one.own_mb:9,.0f} MB {one.resident_mb:9,.0f} MB  {one.outcome}"
            click.echo(json.dumps(asdict(one)) if as_json else line)


if __name__ == "__main__":
    main()
