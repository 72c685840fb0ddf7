"""All repeats of all policies, on all cores: the same outcomes in the same order, whatever the number of processes.

Processes are started with ``spawn``, since numerical libraries do not survive a fork of a process with threads. Each
process limits its linear algebra to one thread, so results do not depend on the number of cores. The contestant
``backtested`` is chosen in each repeat by a backtest on the history that the repeat's schedulers know.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from easeml_core.errors import EasemlError, NumericalError, StateError
from easeml_core.selection.blas_threads import one_thread
from easeml_core.selection.simulate.backtest import LEAST_TENANTS, protocol_of, rule, telling
from easeml_core.selection.simulate.protocol import scene
from easeml_core.selection.simulate.report import (
    PERCENTAGES,
    Outcome,
    compute_shares,
    first_models,
    loss_curve,
    regret,
)
from easeml_core.selection.simulate.run import run_repeat
from easeml_core.selection.simulate.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from concurrent.futures import Future

    from easeml_core.selection.problem import Past
    from easeml_core.selection.simulate.protocol import Contestant, Protocol

REPEATS = 8
"""Fewer than a separate backtest has: all of them are run in each repeat of a simulation."""


def chosen_by_backtest(table: Table, protocol: Protocol, contestant: Contestant, repeat: int) -> Contestant:
    """The rival that a backtest on the repeat's history chooses, under the name of the contestant.

    The tenants served are not looked at. Too short a history chooses the first rival.
    """
    history = telling(table_of(scene(table, protocol, repeat).problem.history))
    first = replace(contestant.rivals[0], name=contestant.name)
    if len(history.tenants) < LEAST_TENANTS:
        return first
    seed = int(np.random.default_rng([protocol.seed, repeat, 1]).integers(2**62))
    inner = protocol_of(len(history.tenants), cost_mode=protocol.cost_mode, repeats=REPEATS, seed=seed)
    inner = replace(inner, devices=protocol.devices, drive=protocol.drive)
    curves = {
        rival.name: [loss_curve(run_repeat(history, inner, rival, r)) for r in range(inner.repeats)]
        for rival in contestant.rivals
    }
    winner = rule(curves, inner, len(history.tenants)).winner
    return next(replace(rival, name=contestant.name) for rival in contestant.rivals if rival.name == winner)


def table_of(history: Sequence[Past]) -> Table:
    """Past results as a table, one row for each past tenant; without trials that failed or have no cost.

    Example:
        >>> from easeml_core.selection.problem import Past
        >>> table = table_of([Past(7, ("knn", "svm"), (0.9, None), (2.0, 1.0)), Past(8, ("svm",), (0.8,), (3.0,))])
        >>> table.candidates, table.quality.tolist()
        (('knn', 'svm'), [[0.9, nan], [nan, 0.8]])
    """
    names = sorted({name for past in history for name in past.names})
    column = {name: k for k, name in enumerate(names)}
    quality = np.full((len(history), len(names)), math.nan)
    cost = np.ones_like(quality)
    for row, past in enumerate(history):
        for name, reached, seconds in zip(past.names, past.qualities, past.costs, strict=True):
            if reached is not None and seconds is not None:
                quality[row, column[name]], cost[row, column[name]] = reached, seconds
    return Table(tuple(str(past.study_id) for past in history), tuple(names), quality, cost)


def outcome(table: Table, protocol: Protocol, contestant: Contestant, repeat: int) -> Outcome:
    """Run one repeat and measure it."""
    try:
        chosen = chosen_by_backtest(table, protocol, contestant, repeat) if contestant.rivals else contestant
        course = run_repeat(table, protocol, chosen, repeat)
    except EasemlError as error:  # others may not survive the way back from a worker process
        message = f"policy {contestant.name!r}, repeat {repeat}: {error}"
        raise NumericalError(message) from None
    shares = [compute_shares(course, percent) for percent in PERCENTAGES]
    return Outcome(
        loss_curve(course),
        regret(course),
        first_models(course),
        np.array([(share.min(), share.max()) for share in shares]),
        course.decision_seconds,
    )


def run_repeats(
    table: Table,
    protocol: Protocol,
    contestants: Sequence[Contestant],
    *,
    processes: int | None = None,
    on_done: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, tuple[Outcome, ...]]:
    """The outcomes of all repeats of all policies, by name of the policy, in the order of the repeats."""
    protocol.check(table)
    tasks = [(which, repeat) for repeat in range(protocol.repeats) for which in range(len(contestants))]
    processes = min(processes or os.cpu_count() or 1, len(tasks))
    results: dict[tuple[int, int], Outcome] = {}
    with contextlib.closing(_outcomes(table, protocol, contestants, tasks, processes)) as done:
        for task, result in done:
            results[task] = result
            on_done(len(results), len(tasks))
    return {
        contestant.name: tuple(results[which, repeat] for repeat in range(protocol.repeats))
        for which, contestant in enumerate(contestants)
    }


def _outcomes(
    table: Table,
    protocol: Protocol,
    contestants: Sequence[Contestant],
    tasks: Sequence[tuple[int, int]],
    processes: int,
) -> Generator[tuple[tuple[int, int], Outcome], None, None]:
    """Outcomes as they come."""
    if processes > 1:
        yield from _in_processes(table, protocol, contestants, tasks, processes)
        return
    with one_thread():
        for which, repeat in tasks:
            yield (which, repeat), outcome(table, protocol, contestants[which], repeat)


def _in_processes(
    table: Table,
    protocol: Protocol,
    contestants: Sequence[Contestant],
    tasks: Sequence[tuple[int, int]],
    processes: int,
) -> Generator[tuple[tuple[int, int], Outcome], None, None]:
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_equip,
        initargs=(table, protocol, tuple(contestants)),
    )
    try:
        with _deaf():
            futures: dict[Future[Outcome], tuple[int, int]] = {pool.submit(_work, *task): task for task in tasks}
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
        pool.shutdown()
    except BaseException as error:  # Ctrl-C, or an error of a policy: the other repeats are cancelled
        ours = set(multiprocessing.active_children()) - others
        for process in ours:
            process.terminate()
        pool.shutdown(cancel_futures=True)  # waits for the pool's thread: one alive at exit prints a traceback
        for process in ours:
            process.join()
        if isinstance(error, BrokenProcessPool):
            message = (
                "a simulating process was killed, perhaps for want of memory; try again with fewer processes. A Python "
                'script that asks for several must do so below `if __name__ == "__main__":`'
            )
            raise StateError(message) from error
        raise


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Start processes with SIGINT blocked: this process handles it afterwards, and ends them.

    Processes inherit the blocked signals of the thread that starts them. Another thread, such as those of the linear
    algebra, may still take the signal, and Python would interrupt this one while it starts a process, which would then
    be lost: so the signal is recorded and raised afterwards.
    """
    heard: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()  # Python interrupts no other
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number)) if is_main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if is_main:
            signal.signal(signal.SIGINT, handler)
    if heard:
        raise KeyboardInterrupt


_equipment: list[tuple[Table, Protocol, tuple[Contestant, ...]]] = []
"""What a worker process works on: one entry, sent once."""


def _equip(table: Table, protocol: Protocol, contestants: tuple[Contestant, ...]) -> None:
    threadpool_limits(limits=1)
    _equipment[:] = [(table, protocol, contestants)]


def _work(which: int, repeat: int) -> Outcome:
    table, protocol, contestants = _equipment[0]
    return outcome(table, protocol, contestants[which], repeat)
