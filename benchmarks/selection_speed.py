"""Time decisions of the scheduler: in memory, against refitting all models, and committed to PostgreSQL.

    python benchmarks/selection_speed.py --tenants 1000 --candidates 179 --observations 20 --json
    python benchmarks/selection_speed.py --tenants 10000 --candidates 14 --observations 50 --process --json

With ``--process`` decisions are those of a new process on a filled database, with its processor seconds and memory.
The database is a temporary one on its own server, or an empty one that is given; the rows written there are deleted.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
import uuid
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import made_up_installation as installation
import numpy as np
from made_up_installation import make_world

from easeml_core.entities import Executor, TrialState
from easeml_core.errors import StateError
from easeml_core.selection.suggestion import scheduler_for
from easeml_core.services.selection.scheduler import LiveScheduler, uncollected
from easeml_core.settings.config import SelectionConfig, TrainingConfig, require
from easeml_core.store import schema
from easeml_core.store.database import Store, lock
from easeml_core.store.server.server import Server
from easeml_core.store.tables import leases, models

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from made_up_installation import World


REFITTED = 50
"""Tenants whose models scikit-learn refits; what all would take is extrapolated from them."""

WARM_UP = 100
COMMITTED, COMMITTED_SECONDS, COMMITTED_AT_LEAST = 300, 20.0, 3
"""Committed decisions that are measured: so many, or what fits into so many seconds, but never less than the last."""

AFTER_COLD = 50
"""Decisions of a new process that are measured after its first one."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 95th percentile."""

    median: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float], unit: float) -> Spread:
        """Of times in seconds, in a unit of so many seconds."""
        return cls(statistics.median(values) / unit, float(np.quantile(values, 0.95)) / unit)


def bench_select(
    *,
    tenants: int = 1000,
    candidates: int = 179,
    observations: int = 20,
    policy: str = "default",
    decisions: int = 3000,
    seed: int = 0,
    database: str | None = None,
) -> dict[str, Any]:
    """Measure what a decision takes.

    Args:
        tenants: Active studies, one of each tenant.
        candidates: Candidates of each study.
        observations: Finished trials of each study, below ``candidates``.
        policy: One of ``easeml_core.settings.config.POLICIES``.
        decisions: Decisions in memory that are timed, >= 1.
        seed: Of everything random.
        database: Address, as the role that owns the schemas, of an empty database with the current schema; None for a
            separate server.

    Returns:
        ``{"decision_microseconds": {"median", "p95"}, "refit_all_seconds", "ratio", "cold_start_seconds",
        "committed_decision_milliseconds": {"median", "p95"}, "protocol"}``; the protocol says what was done.

    Raises:
        InvalidInputError: A number or the policy is not allowed.
        StateError: The database holds an installation.
    """
    require(decisions >= 1, "decisions", decisions, ">= 1")
    config = SelectionConfig(policy=policy, seed=seed)
    world = make_world(tenants=tenants, candidates=candidates, observations=observations, seed=seed)
    times = time_decisions(world, config=config, decisions=decisions)
    refit, refitted = time_refits(world)
    with _store(database) as (store, place):
        cold, committed = time_database(store, world, policy=policy)
    decision = Spread.of(times, 1e-6)
    return {
        "decision_microseconds": asdict(decision),
        "refit_all_seconds": refit,
        "ratio": refit / (decision.median * 1e-6),
        "cold_start_seconds": cold,
        "committed_decision_milliseconds": asdict(Spread.of(committed, 1e-3)),
        "protocol": {
            "tenants": tenants,
            "candidates": candidates,
            "observations": observations,
            "policy": policy,
            "seed": seed,
            "decisions": len(times),
            "refitted_tenants": refitted,
            "committed_decisions": len(committed),
            "database": place,
            "notes": list(_NOTES),
        },
    }


_NOTES = (
    "decision: take in the last result, choose, take in that the choice is under way; costs are learnt",
    "refit: scikit-learn's GaussianProcessRegressor, kernel fitted by its default optimiser, predictions for all "
    "candidates; the time of refitted_tenants is extrapolated to all tenants",
    "cold start: a new connection, everything loaded, one decision committed",
    "committed decision: one suggestion stored with its reasons, after the trial before it has ended",
)


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """Decisions of one process.

    Attributes:
        cold_seconds: Wall seconds of its first decision: connect, load everything, decide, commit; without imports.
        cold_processor_seconds: Processor seconds of the process for it; the database's are not in it.
        next_milliseconds: Wall milliseconds of each later decision, after the trial before it has ended.
        next_processor_milliseconds: Processor milliseconds of the process for it.
        resident_mb: Largest resident memory of the process, the imports in it.
    """

    cold_seconds: float
    cold_processor_seconds: float
    next_milliseconds: Spread
    next_processor_milliseconds: Spread
    resident_mb: float


def bench_process(
    *, tenants: int, candidates: int, observations: int, policy: str = "default", seed: int = 0, database: str | None
) -> dict[str, Any]:
    """Measure the decisions of a new process on a filled database; arguments as of ``bench_select``.

    Raises:
        InvalidInputError: A number or the policy is not allowed.
        StateError: The database holds an installation.
    """
    SelectionConfig(policy=policy)
    world = make_world(tenants=tenants, candidates=candidates, observations=observations, seed=seed)
    key = f"bench-{uuid.uuid4().hex[:12]}"
    with _store(database) as (store, place):
        _fill(store, key, world)
        runs = len(world.runs)
        del world
        try:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                found = pool.submit(decide, store.dsn, policy=policy, key=key).result()
        finally:
            if database is not None:  # a separate server goes as a whole
                with store.begin() as tx:
                    installation.clear(tx, key=key)
    return asdict(found) | {
        "protocol": {
            "tenants": tenants,
            "candidates": candidates,
            "observations": observations,
            "trials": runs,
            "policy": policy,
            "seed": seed,
            "load": os.getloadavg()[0],
            "database": place,
        }
    }


def decide(database: str, *, policy: str, key: str) -> ProcessReport:
    """Make the first decision of this process and some more, in each of which one more trial has ended."""
    store = Store(database)
    scheduler = LiveScheduler(store, policy=policy)
    rng = np.random.default_rng(0)
    wall, processor = [], []
    for number in range(AFTER_COLD + 1):
        begun, used = time.perf_counter(), time.process_time()
        found = scheduler.ask(request_key=f"{key}-{number}").trials
        wall.append(time.perf_counter() - begun)
        processor.append(time.process_time() - used)
        if not found:
            break
        _end(store, found[0].trial_id, quality=float(rng.uniform(0.5, 1)), cost=float(rng.lognormal()))
    store.close()
    return ProcessReport(
        wall[0],
        processor[0],
        Spread.of(wall[1:], 1e-3),
        Spread.of(processor[1:], 1e-3),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def time_decisions(world: World, *, config: SelectionConfig, decisions: int) -> list[float]:
    """Seconds of each decision in memory, after a few that are not counted; fewer where nothing more is left to run."""
    scheduler = scheduler_for(world.problem(), config=config)
    last: tuple[int, int] | None = None
    times = []
    gc.collect()
    with uncollected():
        for _ in range(WARM_UP + decisions):
            begun = time.perf_counter()
            if last is not None:
                scheduler.record(*last, float(world.qualities[last]), float(world.costs[last]))
            choice = scheduler.choose(seed=(config.seed,))
            if choice is None:
                break
            last = choice.chosen.tenant, choice.chosen.arm
            scheduler.start(*last)
            times.append(time.perf_counter() - begun)
    return times[min(WARM_UP, len(times) // 2) :]


def time_refits(world: World, *, at_least: int = REFITTED) -> tuple[float, int]:
    """Seconds that scikit-learn takes to refit a Gaussian process for every tenant, and how many were refitted.

    On the true traits of the candidates, which no installation knows: the comparison is about time only.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel

    run: dict[int, list[int]] = {}
    for tenant, candidate in world.runs:
        run.setdefault(tenant, []).append(candidate)
    chosen = list(run)[:at_least]
    begun = time.perf_counter()
    gc.collect()
    with warnings.catch_warnings(), uncollected():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for tenant in chosen:
            process = GaussianProcessRegressor(1.0 * RBF() + WhiteKernel(1e-3), normalize_y=True)
            process.fit(world.features[run[tenant]], world.qualities[tenant, run[tenant]])
            process.predict(world.features, return_std=True)
    taken = time.perf_counter() - begun
    return (taken / len(chosen) * len(world.rows) if chosen else 0.0), len(chosen)


def time_database(store: Store, world: World, *, policy: str) -> tuple[float, list[float]]:
    """Seconds of the first decision on a filled database, and of each later one.

    Raises:
        StateError: The database holds an installation.
    """
    key = f"bench-{uuid.uuid4().hex[:12]}"
    _fill(store, key, world)
    store.close()  # the first decision connects, as that of a new process does
    scheduler = LiveScheduler(store, policy=policy)
    try:
        times: list[float] = []
        ended = time.perf_counter() + COMMITTED_SECONDS
        for number in range(COMMITTED + 1):
            begun = time.perf_counter()
            found = scheduler.ask(request_key=f"{key}-{number}").trials
            if not found:
                break
            times.append(time.perf_counter() - begun)
            if time.perf_counter() > ended and number >= COMMITTED_AT_LEAST:
                break
            place = int(found[0].study.rsplit("-", 1)[1]), world.names.index(found[0].candidate)
            _end(store, found[0].trial_id, quality=float(world.qualities[place]), cost=float(world.costs[place]))
    finally:
        with store.begin() as tx:
            installation.clear(tx, key=key)
    return times[0], times[1:]


def _fill(store: Store, key: str, world: World) -> None:
    ended = [(i, k, float(world.qualities[i, k]), float(world.costs[i, k])) for i, k in world.runs]
    settings = {"training": TrainingConfig().to_json()}
    with store.begin() as tx:
        lock(tx, "suggest")  # no registration or suggestion between the check and the first rows
        if installation.holds_anything(tx):
            message = (
                "this database holds an installation; speed is measured on an empty one only, give another address"
            )
            raise StateError(message)
        installation.fill(tx, key=key, candidates=world.names, config=settings, trials=ended, rows=world.rows)
        installation.analyse(tx)


def _end(store: Store, number: int, *, quality: float, cost: float) -> None:
    """Let a trial succeed with this quality and cost in seconds."""
    with store.begin() as tx:
        executor = Executor("trainer:decision_tree", "bench")
        attempt = leases.start_trial(tx, trial_id=number, lease_key="bench", lease_seconds=60.0, executor=executor)
        assert attempt is not None  # of the kind that ``installation.fill`` has given every candidate
        leases.finish_trial(tx, trial_id=number, attempt=attempt, state=TrialState.SUCCEEDED, cost_seconds=cost)
        models.add_observation(tx, trial_id=number, quality=quality, cost_seconds=cost)


@contextmanager
def _store(database: str | None) -> Iterator[tuple[Store, str]]:
    """A database to measure on, and what it is in words."""
    if database is not None:
        store = Store(database)
        try:
            yield store, "the given one"
        finally:
            store.close()
        return
    # On a disk and with durable commits, unlike the servers of tests: a commit that may be lost costs nothing.
    with tempfile.TemporaryDirectory(prefix="easeml-bench-") as folder:
        Path(folder).chmod(0o711)
        server = Server(Path(folder) / "home")
        try:
            with server.owned():
                server.ensure_installation()
                store = Store(server.url("easeml_owner", "easeml"))
                schema.upgrade(store)
                flush = f"one flush of this disk takes {1000 * _flush_seconds(folder):.2f} ms"
                yield store, f"a temporary server with durable commits, its files in {tempfile.gettempdir()}; {flush}"
                store.close()
        finally:
            shutil.rmtree(server.place, ignore_errors=True)


def _flush_seconds(folder: str) -> float:
    """Median seconds until the disk says that a page is safe, which every durable commit waits for."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(50):
            file.write(bytes(8192))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--tenants", default=1000, show_default=True, help="Active studies, one of each tenant.")
@click.option("--candidates", default=179, show_default=True, help="Candidates of each study.")
@click.option("--observations", default=20, show_default=True, help="Finished trials of each study.")
@click.option("--policy", default="default", show_default=True, help="How the next trial is chosen.")
@click.option("--decisions", default=3000, show_default=True, help="Decisions in memory that are timed.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
# Not from the environment: that names the installation, on which nothing is measured.
@click.option("--database", metavar="URL", help="An empty database, as easeml_owner; default: a temporary server.")
@click.option("--process", "of_process", is_flag=True, help="The decisions of a new process alone, with its memory.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(as_json: bool, of_process: bool, **settings: Any) -> None:
    """Measure and print."""
    if of_process:
        del settings["decisions"]
        click.echo(json.dumps(bench_process(**settings), indent=2))
        return
    report = bench_select(**settings)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    memory, committed = report["decision_microseconds"], report["committed_decision_milliseconds"]
    protocol = report["protocol"]
    refitted = f"extrapolated from {protocol['refitted_tenants']} tenants"
    for label, value in (
        ("decision in memory", f"{memory['median']:,.1f} us (95 %: {memory['p95']:,.1f} us)"),
        ("refit of all by scikit-learn", f"{report['refit_all_seconds']:,.1f} s, {refitted}"),
        ("times as long", f"{report['ratio']:,.0f}"),
        ("cold start to a decision", f"{report['cold_start_seconds']:,.2f} s"),
        ("committed decision", f"{committed['median']:,.2f} ms (95 %: {committed['p95']:,.2f} ms)"),
        ("database", protocol["database"]),
    ):
        click.echo(f"{label:>28}  {value}")


if __name__ == "__main__":
    main()
