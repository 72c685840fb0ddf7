"""Replay the past: which policy would have cost least, and how well costs are predicted from other studies.

In the replay of this installation's finished trials each study is a tenant, its candidates those that ran, and costs
are predicted as in the live service. Losses are distances to the best candidate that ran: results of a policy's own
choices are biased in its favour, the less the more candidates ran.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve

from easeml_core.entities import TrialState
from easeml_core.errors import InvalidInputError, StoreError
from easeml_core.formats.csv_text import numbered_rows, read_text
from easeml_core.formats.encoding import from_json, row_of, to_stored_json, typed_record
from easeml_core.selection.blas_threads import one_thread
from easeml_core.selection.costs.learn import CostReport, Measured, cost_report
from easeml_core.selection.simulate.backtest import (
    LEAST_RESULTS,
    LEAST_TENANTS,
    OWN,
    CalibrationReport,
    PolicyFigures,
    calibration_report,
    contestants_of,
    figures_of,
    past_of,
    protocol_of,
    rule,
    telling,
    totals_of,
)
from easeml_core.selection.simulate.protocol import Protocol
from easeml_core.selection.simulate.repeats import run_repeats
from easeml_core.selection.simulate.report import Simulation
from easeml_core.selection.simulate.tables import Table, read_table
from easeml_core.services.selection.policy import current_config, set_policy
from easeml_core.settings.config import SelectionConfig
from easeml_core.store.tables import studies, trials
from easeml_core.store.tables.decisions import may_set, newest_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from easeml_core.entities import JsonObject
    from easeml_core.selection.simulate.backtest import Ruling
    from easeml_core.store.database import Store


@dataclass(frozen=True, slots=True)
class Replay:
    """Settings of a replay.

    Attributes:
        served: Tenants served in each repeat; None for a third of them, at most 10.
        repeats: Draws of tenants.
        seed: The same seed gives the same answer.
        processes: How many at most; None for one on each core.
        on_done: Called after each repeat of each policy with the number done and the total.
    """

    served: int | None = None
    repeats: int = 30
    seed: int = 0
    processes: int | None = None
    on_done: Callable[[int, int], None] = lambda done, of: None


@typed_record
class BacktestSettings:
    """The settings that a backtest chooses."""

    policy: str
    beta_multiplier: float


@typed_record
class BacktestReport:
    """The result of a backtest, stored with settings that rest on it.

    Attributes:
        source: ``installation``, or the file of qualities.
        cost_unit: Unit of costs, such as ``seconds``.
        tenants: Tenants with enough results.
        candidates: Candidates of these tenants.
        results: Known results of these tenants.
        left_out: Tenants with too few results.
        enough: Whether there are enough tenants to compare policies.
        protocol: How the past was replayed; None without enough tenants, as what follows.
        calibration: How far the posterior of ``default`` can be believed.
        policies: Figures of each policy; empty without enough tenants.
        winner: ``default`` without enough tenants.
        settings: Of the winner.
        message: The choice and its ground in one sentence.
    """

    source: str
    cost_unit: str
    tenants: int
    candidates: int
    results: int
    left_out: int
    enough: bool
    protocol: Protocol | None
    calibration: CalibrationReport | None
    policies: dict[str, PolicyFigures]
    winner: str
    settings: BacktestSettings | None
    message: str


def stored_backtest(report: JsonObject | None) -> BacktestReport | None:
    """Decode a report that settings were stored with; None where another version wrote it in another form."""
    try:
        return None if report is None else from_json(report, BacktestReport)
    except ValueError:
        return None


@typed_record
class BacktestAnswer(BacktestReport):
    """The answer of ``easeml backtest``; ``applied`` is the id of the settings that the winner is stored as."""

    applied: int | None = None


@dataclass(frozen=True, slots=True)
class Backtest:
    """A backtest with the curves behind it, for a plot; these are None without enough results."""

    answer: BacktestAnswer
    simulation: Simulation | None


def backtest_installation(store: Store, replay: Replay, *, apply: bool = False) -> Backtest:
    """Replay the installation's own past; follow the winner from now on if asked to.

    The same past gives the same answer, so that a repetition after a crash applies nothing twice.
    """
    with store.begin() as tx:
        if apply and not may_set(tx):
            message = "this role may not choose the policy; give the address of easeml_owner, see docs/security.md"
            raise StoreError(message)
        table, base, newest = history_table(tx), current_config(tx), newest_settings(tx)
    found = _backtest(table, base, replay, source="installation", cost_mode="predicted", cost_unit="seconds")
    applied = None
    if apply and found.answer.settings is not None:
        report = to_stored_json(found.answer)
        del report["applied"]  # not known before it is stored
        applied = set_policy(
            store,
            changes=row_of(found.answer.settings),
            reason=f"backtest: {found.answer.message}",
            report=report,
            instead_of=newest.id if newest else 0,
        ).id
    return replace(found, answer=replace(found.answer, applied=applied))


def backtest_table(quality: Path, cost: Path | None, replay: Replay, *, cost_mode: str | None = None) -> Backtest:
    """Replay tables of known results: see ``easeml_core.selection.simulate.tables.read_table``."""
    mode = cost_mode or ("unit" if cost is None else "known")
    unit = "trials" if cost is None or mode == "unit" else "units of the cost table"
    return _backtest(
        read_table(quality, cost), SelectionConfig(), replay, source=str(quality), cost_mode=mode, cost_unit=unit
    )


def history_table(tx: Connection) -> Table:
    """Return all succeeded trials as a table: a row for each study, a column for each name of a candidate.

    A study counts with its newest data version that has LEAST_RESULTS results, or else with the newest that has any.
    A model that was evaluated again counts there too, at the cost of its training.
    """
    names = {study.id: study.name for study in studies.list_studies(tx)}
    by_version: dict[tuple[int, int], dict[str, tuple[float, float]]] = {}
    for o in trials.outcomes(tx):
        if o.state == TrialState.SUCCEEDED and o.quality is not None and o.cost_seconds is not None:
            version = by_version.setdefault((o.study_id, o.data_version_id), {})
            version[o.candidate] = o.quality, o.cost_seconds
    chosen: dict[int, dict[str, tuple[float, float]]] = {}
    for (study_id, _), results in sorted(by_version.items()):
        if len(results) >= LEAST_RESULTS or len(chosen.get(study_id, ())) < LEAST_RESULTS:
            chosen[study_id] = results
    candidates = sorted({name for results in chosen.values() for name in results})
    quality = np.full((len(chosen), len(candidates)), math.nan)
    cost = np.ones_like(quality)
    for row, results in enumerate(chosen.values()):
        for column, name in enumerate(candidates):
            if name in results:
                quality[row, column], cost[row, column] = results[name]
    return Table(tuple(names[study_id] for study_id in chosen), tuple(candidates), quality, cost)


def _backtest(
    table: Table, base: SelectionConfig, replay: Replay, *, source: str, cost_mode: str, cost_unit: str
) -> Backtest:
    used = telling(table)
    answer = BacktestAnswer(
        source=source,
        cost_unit=cost_unit,
        tenants=len(used.tenants),
        candidates=len(used.candidates),
        results=int((~np.isnan(used.quality)).sum()),
        left_out=len(table.tenants) - len(used.tenants),
        enough=len(used.tenants) >= LEAST_TENANTS,
        protocol=None,
        calibration=None,
        policies={},
        winner="default",
        settings=None,
        message=(
            f"too little history: {len(used.tenants)} of {len(table.tenants)} tenants have {LEAST_RESULTS} results or "
            f"more, it takes {LEAST_TENANTS} to tell one policy from another; default stays"
        ),
    )
    if not answer.enough:
        return Backtest(answer, None)
    protocol = protocol_of(
        len(used.tenants), cost_mode=cost_mode, served=replay.served, repeats=replay.repeats, seed=replay.seed
    )
    rivals = contestants_of(base)
    outcomes = run_repeats(used, protocol, rivals, processes=replay.processes, on_done=replay.on_done)
    curves = {name: [outcome.curve for outcome in mine] for name, mine in outcomes.items()}
    ruling, totals = rule(curves, protocol, len(used.tenants)), totals_of(used, protocol)
    winner = ruling.winner if base.objective == 0 else "default"
    settings = next(rival.config for rival in rivals if rival.name == winner and rival.config is not None)
    answer = replace(
        answer,
        protocol=protocol,
        calibration=_calibration(used, base, replay.seed),
        policies={name: figures_of(name, mine, ruling, totals) for name, mine in curves.items()},
        winner=winner,
        settings=BacktestSettings(settings.policy, settings.beta_multiplier),
        message=_message(winner, ruling, protocol, len(used.tenants), base),
    )
    return Backtest(answer, Simulation(protocol, outcomes))


def _calibration(table: Table, base: SelectionConfig, seed: int) -> CalibrationReport:
    """Return the calibration of the posterior of ``default``, where half of the tenants have more results."""
    typical = np.median((~np.isnan(table.quality)).sum(axis=1))
    own = [number for number in OWN if number < typical]
    with one_thread():
        return calibration_report(past_of(table), evolve(base, policy="default"), own=own, seed=seed)


def _message(winner: str, ruling: Ruling, protocol: Protocol, n_tenants: int, base: SelectionConfig) -> str:
    """The choice and its ground in one sentence."""
    draws = f"over {protocol.repeats} draws of {protocol.served} from {n_tenants} tenants"
    if winner != "default":
        found = ruling.comparisons[winner]
        return (
            f"{winner} instead of default: it costs {found.ratio:.2f} times as much ({found.low:.2f} to "
            f"{found.high:.2f} within one standard error), {draws}"
        )
    if base.objective > 0 and ruling.winner != "default":
        return (
            f"default stays, since the objective {base.objective:g} is a setting of no other policy; for the mean loss "
            f"{ruling.winner} would be cheaper, {draws}"
        )
    return f"default stays: no other policy is cheaper by more than the standard error of the difference, {draws}"


def report_costs(store: Store) -> CostReport:
    """Return the cost model's error on the studies of this installation, each predicted from the others.

    Trials that succeeded count, of all data versions, with the rows of their training part and their kind of device.
    Evaluations of an existing model are left out: they say nothing about the cost of training.
    """
    with store.begin() as tx:
        outcomes, rows = trials.outcomes(tx), studies.training_rows(tx)
    return cost_report(
        Measured(o.study_id, o.candidate, o.cost_seconds, o.device, rows.get(o.data_version_id))
        for o in outcomes
        if o.state == TrialState.SUCCEEDED and o.cost_seconds and o.reevaluates is None
    )


def report_cost_table(path: Path) -> CostReport:
    """Return the cost model's error on a table of costs: see ``read_costs``."""
    return cost_report(read_costs(path))


def read_costs(path: Path) -> list[Measured]:
    """Read costs from a CSV file with one row for each tenant and one column for each candidate.

    The first row names the columns, the first column the tenants; a cell is a number of seconds > 0, or empty where it
    is unknown. A tenant's ``study_id`` is the number of its row, from 0.
    """

    def refused(what: str) -> InvalidInputError:
        return InvalidInputError(f"{path} {what}; give a CSV file in UTF-8 with one row per tenant")

    table = [row for _, row in numbered_rows(read_text(path, refused), refused) if row]
    if len(table) < 2 or len(table[0]) < 2:
        message = f"{path} must have a header row, a column of tenants, and at least one tenant and one candidate"
        raise InvalidInputError(message)
    names = table[0][1:]
    if len(set(names)) < len(names):
        message = f"{path}: every candidate must have one column; these names are repeated: " + ", ".join(
            sorted({name for name in names if names.count(name) > 1})
        )
        raise InvalidInputError(message)
    return [trial for i, row in enumerate(table[1:]) for trial in _read_row(path, i, row, names)]


def _read_row(path: Path, number: int, row: Sequence[str], names: Sequence[str]) -> list[Measured]:
    if len(row) != len(names) + 1:
        message = f"{path}, row {row[0]!r} has {len(row)} cells, the header has {len(names) + 1}"
        raise InvalidInputError(message)
    found = []
    for name, cell in zip(names, row[1:], strict=True):
        if cell.strip():
            found.append(Measured(number, name, _seconds(cell, f"{path}, row {row[0]!r}, column {name!r}")))
    return found


def _seconds(cell: str, place: str) -> float:
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"{place}: a cost must be a number of seconds > 0, or empty where it is unknown; got {cell!r}"
        raise InvalidInputError(message)
    return seconds
