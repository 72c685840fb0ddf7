"""From the request for a job to its first line of code: a new interpreter, and a fork of a server (ADR 0031).

The job imports what a training of that library imports, writes the time, and ends. Processor seconds are the job's up
to that line, and the server's for each job. With ``--jobs`` a server starts that many jobs, and its memory and
descriptors are read in between: both must be flat.

    python benchmarks/child_start.py --save
    python benchmarks/child_start.py --jobs 10000 --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from result_files import FOLDER, write_rows

from easeml_core.sandbox.child_start import COLD, OWN, SWITCH, own_fork_server
from easeml_core.sandbox.process import Limits, run_child
from easeml_core.training.trainers import TRAINERS

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = FOLDER / "child_start.csv"
KINDS = {"scikit-learn": "nearest_neighbors", "PyTorch": "torch_mlp"}
CODE = """
import importlib, json, sys, time
for module in json.loads(sys.argv[2]):
    importlib.import_module(module)
print(time.monotonic(), time.process_time())
"""


@dataclass(frozen=True, slots=True)
class Start:
    """Medians of the starts of one kind of process.

    Attributes:
        library: What a job imports.
        start: ``new process`` or ``fork``.
        wall_seconds: From the request to the job's first line.
        processor_seconds: Of the job until then, and of the server for it.
    """

    library: str
    start: str
    wall_seconds: float
    processor_seconds: float


def first_line(folder: Path, modules: Sequence[str]) -> tuple[float, float]:
    """Run one job; wall and processor seconds to its first line."""
    output = bytearray()
    began = time.monotonic()
    run_child(
        "first_line", [json.dumps(modules)], cwd=folder, limits=Limits(120, 4096), on_output=output.extend,
        on_poll=lambda: None, loads=modules,
    )  # fmt: skip
    wall, processor = map(float, output.split())
    return wall - began, processor


def servers() -> list[psutil.Process]:
    """Return the fork servers of this process."""
    return [p for p in psutil.Process().children() if "easeml_core.sandbox.fork_server" in p.cmdline()]


def measure(folder: Path, library: str, repeats: int) -> list[Start]:
    """Measure new processes and forks, one after the other; the first fork, which waits for imports, is left out."""
    modules = TRAINERS[KINDS[library]].modules
    os.environ[SWITCH] = COLD
    first_line(folder, modules)  # compiles what is not compiled yet
    cold = [first_line(folder, modules) for _ in range(max(3, repeats // 10))]
    os.environ[SWITCH] = OWN
    with own_fork_server():
        first_line(folder, modules)
        (server,) = servers()
        before = sum(server.cpu_times()[:2])
        warm = [first_line(folder, modules) for _ in range(repeats)]
        of_server = (sum(server.cpu_times()[:2]) - before) / repeats
    return [
        Start(library, "new process", *(statistics.median(column) for column in zip(*cold, strict=True))),
        Start(
            library,
            "fork",
            statistics.median(wall for wall, _ in warm),
            statistics.median(processor for _, processor in warm) + of_server,
        ),
    ]


def watch(folder: Path, jobs: int) -> list[dict[str, float]]:
    """Let one server start many jobs; its resident megabytes and descriptors at ten points."""
    modules = TRAINERS[KINDS["scikit-learn"]].modules
    os.environ[SWITCH] = OWN
    found = []
    with own_fork_server():
        for job in range(jobs + 1):
            first_line(folder, modules)
            if job % max(1, jobs // 10) == 0:
                (server,) = servers()
                memory = server.memory_info().rss / 2**20
                found.append({"jobs": job, "resident_mb": round(memory, 1), "descriptors": server.num_fds()})
    return found


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=50, help="forks of each library (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=0, help="watch one server over so many jobs instead")
    parser.add_argument("--save", action="store_true", help="keep the starts in benchmarks/results/child_start.csv")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="easeml-start-") as name:
        folder = Path(name)
        (folder / "first_line.py").write_text(CODE)
        os.environ["PYTHONPATH"] = os.pathsep.join([name, os.environ.get("PYTHONPATH", "")])
        if asked.jobs:
            rows = watch(folder, asked.jobs)
        else:
            rows = [asdict(start) for library in KINDS for start in measure(folder, library, asked.repeats)]
    if asked.save and not asked.jobs:
        write_rows(RESULTS, rows, [*rows[0]])
    if asked.json:
        print(json.dumps(rows, indent=1))
        return
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))


if __name__ == "__main__":
    main()
