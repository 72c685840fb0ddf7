"""How long a reading of the meter takes besides the model's own inference, by the length of the set's ledger.

    .venv/bin/python benchmarks/meter_readings.py [--lengths 1,100,1000] [--readings 200] [--profile] [--json]

One study is sealed, and constant models are handed in one after the other: real requests, answered by the referee on a
PostgreSQL server that waits for its disk. A reading is all that the referee does with a request, from looking for it to
the commit of ledger, reading and answer, without the runs of the model. A window begins at each of the lengths.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest import mock

import click
from installation import STUDY, installation

from easeml_core.services.evaluation.sealed_runs import NotRunError, Preparation
from easeml_core.services.referee.answers import ReadingAnswer
from easeml_core.services.referee.requests import answer_of, file_meter_request

if TYPE_CHECKING:
    from installation import Installation

LIMIT_MS = 20.0
METER = {"ranges": (0.05, 0.13, 0.25), "tolerance": 0.02, "reliability": 0.99}


@dataclass(frozen=True, slots=True)
class Times:
    """Of one reading, in milliseconds.

    Attributes:
        own: Wall time of all that the referee did, without the runs of the model.
        decision: The part of it after the last run: from the claim to the commit.
        processor: Processor time of ``own``, the database's processes included: other load changes it little.
        inference: Wall time of the runs of the model.
    """

    own: float
    decision: float
    processor: float
    inference: float


class Stopwatch:
    """Times readings; what ``Preparation.run`` takes, the model's inference, is kept apart."""

    def __init__(self, bench: Installation) -> None:
        self.bench = bench
        self.runs: list[tuple[float, float, float]] = []
        run = Preparation.run

        def timed(ready: Preparation, missing: NotRunError) -> None:
            start = self._clocks()
            run(ready, missing)
            wall, processor = self._clocks()
            self.runs.append((wall - start[0], processor - start[1], wall))

        mock.patch.object(Preparation, "run", timed).start()

    def read(self) -> Times:
        """One more reading of one more model."""
        model = self.bench.add_constant()
        filed = file_meter_request(self.bench.worker, study=STUDY, model_id=model, request_key=self.bench.key())
        self.runs.clear()
        start = self._clocks()
        self.bench.judge.answer_one()
        end = self._clocks()
        answer = answer_of(self.bench.worker, filed)
        if not isinstance(answer, ReadingAnswer) or answer.retired or answer.cached:
            message = f"this reading does not count: {answer}"
            raise RuntimeError(message)
        walls, processors, ends = zip(*self.runs, strict=True)
        whole, processor = end[0] - start[0], end[1] - start[1]
        return Times(whole - sum(walls), end[0] - ends[-1], processor - sum(processors), sum(walls))

    def _clocks(self) -> tuple[float, float]:
        """Wall and processor milliseconds, from any beginning."""
        return 1e3 * time.perf_counter(), 1e3 * time.process_time() + self.bench.database_processor_ms()


def measure(lengths: list[int], readings: int, *, profile: bool) -> dict[str, Any]:
    """Figures of each window, and the profile of the last one where it is wanted."""
    steps = max(lengths) + readings
    with installation() as bench:
        answer = bench.register(rows=60_000, meter=METER | {"steps": steps})
        watch = Stopwatch(bench)
        times = [watch.read() for _ in range(steps - (readings if profile else 0))]
        if profile:
            profiler = cProfile.Profile()
            profiler.enable()
            times += [watch.read() for _ in range(readings)]
            profiler.disable()
            pstats.Stats(profiler).sort_stats("cumulative").print_stats("easeml_core|execute|fetch|loads", 45)
    windows = [_window(length, times[length - 1 : length - 1 + readings]) for length in lengths]
    return {"sealed": answer.message, "readings": readings, "load": os.getloadavg()[0], "windows": windows}


def _window(length: int, times: list[Times]) -> dict[str, Any]:
    ordered = sorted(t.own for t in times)
    return {
        "ledger": length,
        "least_ms": ordered[0],
        "median_ms": median(ordered),
        "p95_ms": ordered[int(0.95 * len(ordered))],
        "decision_median_ms": median(t.decision for t in times),
        "processor_median_ms": median(t.processor for t in times),
        "inference_median_ms": median(t.inference for t in times),
        "within": median(ordered) < LIMIT_MS,
    }


@click.command(help=__doc__)
@click.option("--lengths", default="1,100,1000", show_default=True, help="Entries of the ledger at which to begin.")
@click.option("--readings", default=200, show_default=True, help="In each window.")
@click.option("--profile", is_flag=True, help="Say where the last window's time goes; it is slower for that.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def main(lengths: str, readings: int, profile: bool, as_json: bool) -> None:
    """Measure and print."""
    found = measure([int(word) for word in lengths.split(",")], readings, profile=profile)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{found['sealed']}; load {found['load']:.1f}; {readings} readings a window, milliseconds")
    click.echo("entries before    least   median     95 %  after the runs  processor  the runs")
    for w in found["windows"]:
        own = f"{w['least_ms']:8.1f} {w['median_ms']:8.1f} {w['p95_ms']:8.1f}"
        rest = f"{w['decision_median_ms']:15.1f} {w['processor_median_ms']:10.1f} {w['inference_median_ms']:9.1f}"
        click.echo(f"{w['ledger']:14,} {own} {rest}{'' if w['within'] else '   above 20 ms'}")


if __name__ == "__main__":
    main()
