"""Simulated days of a large installation: real decisions and rows, made-up trials, and a clock that jumps to each end.

    python benchmarks/at_scale/scale.py --studies 100 --studies 300 --studies 1000 --candidates 1000 --devices 100
    python benchmarks/at_scale/scale.py --fit benchmarks/results/scale.jsonl

Each size gets a server that waits for its disk and a process with one scheduler, as ``easeml scheduler`` is. Every
device asks, trains for its simulated time and reports; studies come and go, devices fall away with their trial and
come back. Measured: the first decision of a process, later ones, memory, bytes and messages a trial, and what waits for
locks while four threads ask and report without pause. ``--fit`` fits powers of the number of arms (studies times
candidates) to all results of a file and says what they give for the sizes of ``--at``, which were not run.
"""

from __future__ import annotations

import heapq
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import made_up_installation
from made_up_installation import make_world
from selection_speed import Spread

from easeml_core.entities import Executor, TrialState
from easeml_core.services.registration.register import pause_study
from easeml_core.services.selection.scheduler import LiveScheduler
from easeml_core.services.trials.attempts import hand_back
from easeml_core.settings.config import TrainingConfig
from easeml_core.store import schema
from easeml_core.store.database import (
    CHANNEL,
    DECISIONS_CHANNEL,
    NEWS_CHANNEL,
    REFEREE_CHANNEL,
    SCHEDULER_CHANNEL,
    Store,
)
from easeml_core.store.rows import scalar
from easeml_core.store.server.server import Server
from easeml_core.store.tables import leases, models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from made_up_installation import World

RESULTS = Path(__file__).resolve().parents[1] / "results" / "scale.jsonl"
KEY = "scale"
EXECUTOR = Executor("trainer:decision_tree", KEY)
MEAN_SECONDS, LEAST_SECONDS = 3600.0, 900.0
"""Simulated seconds of a trial, on average over all candidates before the shortest are made longer, and at least."""

THREADS, SAMPLE_SECONDS = 4, 0.02
FITTED = ("cold_seconds", "resident_mb", "decision_milliseconds", "filled_mb")


@dataclass(frozen=True, slots=True)
class Size:
    """What is simulated: studies of one tenant each, candidates and finished trials of each, devices, ends.

    Attributes:
        change_every: Ends between two changes: a study pauses or goes on, a device falls away or comes back.
    """

    studies: int
    candidates: int
    devices: int
    observations: int
    ends: int
    seed: int
    change_every: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One size.

    Attributes:
        cold_seconds: First decision of a process: connect, load everything, decide, commit.
        resident_mb: Largest resident memory of that process, its imports in it.
        decision_milliseconds: Of later decisions, each after an end.
        changed_milliseconds: Of the first decision after a study has paused or gone on.
        report_milliseconds: Of recording an end.
        filled_mb: Database before the first decision.
        bytes_a_trial: Growth of the database for each trial of the simulation.
        log_bytes_a_trial: Of write-ahead log.
        messages_a_trial: Notifications; None where they were not counted.
        simulated_days: Between the first start and the last end.
        busy: Share of device time that trained.
        trials_a_second: Of ``THREADS`` threads that ask and report without pause.
        waiting: Sessions that wait for a lock then, on average.
        load: Of the machine when it began.
    """

    size: Size
    cold_seconds: float
    resident_mb: float
    decision_milliseconds: Spread
    changed_milliseconds: Spread
    report_milliseconds: Spread
    filled_mb: float
    bytes_a_trial: float
    log_bytes_a_trial: float
    messages_a_trial: float | None
    simulated_days: float
    busy: float
    trials_a_second: float
    waiting: float
    load: float


@dataclass
class Simulation:
    """Devices of one installation under a simulated clock.

    Attributes:
        now: Simulated seconds.
        running: (end, device, trial, simulated seconds, request key) of what trains.
        worked: Simulated seconds of finished trials.
    """

    store: Store
    scheduler: LiveScheduler
    costs: np.ndarray
    names: Sequence[str]
    rng: np.random.Generator
    now: float = 0.0
    worked: float = 0.0
    running: list[tuple[float, int, int, float, str]] = field(default_factory=list)
    decisions: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    reports: list[float] = field(default_factory=list)
    _asked: int = 0
    _paused: list[str] = field(default_factory=list)
    _away: list[int] = field(default_factory=list)
    _is_changed: bool = False

    def start(self, device: int) -> bool:
        """Let a device ask and begin; False where nothing is left."""
        self._asked += 1
        key = f"{KEY}-{self._asked}"
        begun = time.perf_counter()
        found = self.scheduler.ask(request_key=key).trials
        (self.changed if self._is_changed else self.decisions).append(time.perf_counter() - begun)
        self._is_changed = False
        if not found:
            return False
        begin(self.store, found[0].trial_id, key)
        cost = float(self.costs[int(found[0].study.rsplit("-", 1)[1]), self.names.index(found[0].candidate)])
        heapq.heappush(self.running, (self.now + cost, device, found[0].trial_id, cost, key))
        return True

    def step(self) -> None:
        """Jump to the next end, report it, and let its device ask again."""
        before, (self.now, device, trial, cost, _) = self.now, heapq.heappop(self.running)
        self.worked += (self.now - before) * (len(self.running) + 1)
        begun = time.perf_counter()
        end(self.store, trial, quality=float(self.rng.uniform(0.5, 1)), cost=cost)
        self.reports.append(time.perf_counter() - begun)
        self.start(device)

    def change(self, study: str) -> None:
        """Let a study pause, or the paused one go on, and a device fall away, or the one that is away come back."""
        if self._paused:
            pause_study(self.store, study=self._paused.pop(), paused=False)
            self.start(self._away.pop())
        else:
            pause_study(self.store, study=study, paused=True)
            self._paused.append(study)
            _, device, trial, _, key = self.running.pop(int(self.rng.integers(len(self.running))))
            heapq.heapify(self.running)
            hand_back(self.store, trial_id=trial, request_key=key)
            self._away.append(device)
        self._is_changed = True


def begin(store: Store, trial: int, key: str) -> None:
    """Take a trial, as its device does."""
    with store.begin() as tx:
        leases.start_trial(tx, trial_id=trial, lease_key=key, lease_seconds=86_400.0, executor=EXECUTOR)


def end(store: Store, trial: int, *, quality: float, cost: float) -> None:
    """Report that a trial has succeeded."""
    with store.begin() as tx:
        attempt = int(scalar(tx, "SELECT attempt FROM work.trials WHERE id = :id", id=trial))
        leases.finish_trial(tx, trial_id=trial, attempt=attempt, state=TrialState.SUCCEEDED, cost_seconds=cost)
        models.add_observation(tx, trial_id=trial, quality=quality, cost_seconds=cost)


def measure(size: Size) -> Measured:
    """Fill a new server, and simulate; the scheduler lives in a new process, whose memory is its own."""
    world = make_world(tenants=size.studies, candidates=size.candidates, observations=size.observations, seed=size.seed)
    # On a disk and with durable commits: a commit that may be lost costs nothing.
    with tempfile.TemporaryDirectory(prefix="easeml-scale-") as folder:
        Path(folder).chmod(0o711)
        server = Server(Path(folder) / "home")
        with server.owned():
            server.ensure_installation()
            store = Store(server.url("easeml_owner", "easeml"))
            schema.upgrade(store)
            _fill(store, world)
            store.close()
            costs = np.maximum(world.costs * (MEAN_SECONDS / world.costs.mean()), LEAST_SECONDS)
            names = world.names
            del world
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                return pool.submit(simulate, server.url("easeml_owner", "easeml"), size, costs, names).result()


def _fill(store: Store, world: World) -> None:
    ended = [(i, k, float(world.qualities[i, k]), float(world.costs[i, k])) for i, k in world.runs]
    settings = {"training": TrainingConfig().to_json()}
    with store.begin() as tx:
        made_up_installation.fill(tx, key=KEY, candidates=world.names, config=settings, trials=ended, rows=world.rows)
        made_up_installation.analyse(tx)


def simulate(database: str, size: Size, costs: np.ndarray, names: Sequence[str]) -> Measured:
    """Let the devices work, and measure."""
    load, store = os.getloadavg()[0], Store(database)
    scheduler, rng = LiveScheduler(store, policy="default"), np.random.default_rng(size.seed)
    world = Simulation(store, scheduler, costs, names, rng)
    with store.begin() as tx:
        filled = _bytes(tx)
    world.start(0)
    cold = world.decisions.pop()
    for device in range(1, size.devices):
        world.start(device)
    world.decisions.clear()
    with store.begin() as tx:
        before = _bytes(tx), _log_position(tx)
    with Messages(database) as heard:
        for number in range(1, size.ends + 1):
            world.step()
            if number % size.change_every == 0:
                world.change(f"{KEY}-{int(rng.integers(size.studies))}")
    with store.begin() as tx:
        grown, log = _bytes(tx) - before[0], _log_position(tx) - before[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate, waiting = _saturated(store, scheduler, seconds=10.0)
    store.close()
    return Measured(
        size=size,
        cold_seconds=cold,
        resident_mb=memory,
        decision_milliseconds=Spread.of(world.decisions, 1e-3),
        changed_milliseconds=Spread.of(world.changed, 1e-3),
        report_milliseconds=Spread.of(world.reports, 1e-3),
        filled_mb=filled / 2**20,
        bytes_a_trial=grown / size.ends,
        log_bytes_a_trial=log / size.ends,
        messages_a_trial=heard.count / size.ends,
        simulated_days=world.now / 86_400,
        busy=world.worked / (world.now * size.devices),
        trials_a_second=rate,
        waiting=waiting,
        load=load,
    )


def _saturated(store: Store, scheduler: LiveScheduler, *, seconds: float) -> tuple[float, float]:
    """Trials a second of threads that ask and report at once, and how many sessions wait for a lock meanwhile."""
    until, done, waiting = time.monotonic() + seconds, [0] * THREADS, []

    def work(thread: int) -> None:
        rng = np.random.default_rng(thread)
        while time.monotonic() < until:
            key = f"{KEY}-{thread}-{done[thread]}"
            found = scheduler.ask(request_key=key).trials
            if not found:
                return
            begin(store, found[0].trial_id, key)
            end(store, found[0].trial_id, quality=float(rng.uniform(0.5, 1)), cost=60.0)
            done[thread] += 1

    def sample() -> None:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while time.monotonic() < until:
            with store.begin() as tx:
                waiting.append(int(scalar(tx, asked)))
            time.sleep(SAMPLE_SECONDS)

    with ThreadPoolExecutor(THREADS + 1) as pool:
        for task in [pool.submit(work, thread) for thread in range(THREADS)] + [pool.submit(sample)]:
            task.result()
    return sum(done) / seconds, statistics.mean(waiting)


class Messages:
    """Counts the notifications of all channels."""

    def __init__(self, database: str) -> None:
        self.count = 0
        self._database = database

    def __enter__(self) -> Messages:
        """Listen over a separate connection."""
        import psycopg2

        self._connection = psycopg2.connect(self._database.replace("postgresql+psycopg2", "postgresql"))
        self._connection.autocommit = True
        for channel in (CHANNEL, REFEREE_CHANNEL, SCHEDULER_CHANNEL, DECISIONS_CHANNEL, NEWS_CHANNEL):
            self._connection.cursor().execute(f"LISTEN {channel}")
        return self

    def __exit__(self, *_: object) -> None:
        """Count what has come: the answer to a statement comes after all that waits, however much that is."""
        self._connection.cursor().execute("SELECT")
        self.count = len(self._connection.notifies)
        self._connection.close()


def _bytes(tx: Any) -> int:
    return int(scalar(tx, "SELECT pg_database_size(current_database())"))


def _log_position(tx: Any) -> int:
    return int(scalar(tx, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))


@dataclass(frozen=True, slots=True)
class Fit:
    """measure = base + factor x arms ^ power.

    Attributes:
        largest_error: Of the logarithm, over what was measured.
        at: What it gives, by number of arms.
    """

    measure: str
    base: float
    factor: float
    power: float
    largest_error: float
    at: dict[int, float]


def fitted(results: Sequence[dict[str, Any]], at: Sequence[int]) -> list[Fit]:
    """Fit measure = base + factor x arms ^ power to the medians, and say what it gives for other numbers of arms.

    The base is below the smallest measure; of 20 bases, that with the least error in logarithms is taken.
    """
    arms = np.array([row["size"]["studies"] * row["size"]["candidates"] for row in results], float)
    found = []
    for name in FITTED:
        values = np.array([row[name]["median"] if isinstance(row[name], dict) else row[name] for row in results])
        best: tuple[float, float, float, float] | None = None
        for base in np.linspace(0, 0.95, 20) * values.min():
            power, constant = np.polyfit(np.log(arms), np.log(values - base), 1)
            guess = np.log(base + np.exp(constant) * arms**power)
            error = float(np.abs(guess - np.log(values)).max())
            if best is None or error < best[0]:
                best = error, float(base), float(np.exp(constant)), float(power)
        assert best is not None
        error, base, factor, power = best
        curve = {number: base + factor * float(number) ** power for number in at}
        found.append(Fit(name, base, factor, power, error, curve))
    return found


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--studies", multiple=True, type=int, default=(100, 300, 1000), show_default=True)
@click.option("--candidates", multiple=True, type=int, default=(1000,), show_default=True, help="Of each study.")
@click.option("--devices", multiple=True, type=int, default=(100,), show_default=True)
@click.option("--observations", default=10, show_default=True, help="Finished trials of each study.")
@click.option("--ends", default=1500, show_default=True, help="Trials that end in the simulation.")
@click.option("--change-every", default=25, show_default=True, help="Ends between two changes of studies and devices.")
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Lines of JSON, appended.")
@click.option("--fit", type=click.Path(path_type=Path, exists=True), help="Fit the results of this file; run nothing.")
@click.option("--at", multiple=True, type=int, default=(10**8,), show_default=True, help="Arms, with --fit.")
def main(
    studies: tuple[int, ...],
    candidates: tuple[int, ...],
    devices: tuple[int, ...],
    observations: int,
    ends: int,
    change_every: int,
    seed: int,
    results: Path,
    fit: Path | None,
    at: tuple[int, ...],
) -> None:
    """Measure every combination, and print and keep each as a line of JSON."""
    if fit is not None:
        kept = [json.loads(line) for line in fit.read_text(encoding="utf-8").splitlines()]
        for row in fitted(kept, at):
            click.echo(json.dumps(asdict(row)))
        return
    for number in studies:
        for arms in candidates:
            for count in devices:
                size = Size(number, arms, count, observations, ends, seed, change_every)
                line = json.dumps(asdict(measure(size)))
                click.echo(line)
                with results.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
