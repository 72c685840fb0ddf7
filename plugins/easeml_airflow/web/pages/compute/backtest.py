"""Backtests that users start on the page: one at a time, bounded, and cached while the history stays the same.

They run in the server's process, so a history that takes too long is refused, and replayed on the command line instead.
The page shows what other policies would have needed, beside the one in force.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from easeml_airflow.web.pages.compute.charts import Bar
from easeml_airflow.web.server.formats import MINUS
from easeml_airflow.web.server.request_limits import Turns
from easeml_core.errors import StateError, counted
from easeml_core.formats.display import with_unit
from easeml_core.services.selection.backtest import Replay, backtest_installation, stored_backtest
from easeml_core.store import callers
from easeml_core.store.queries.compute import history_stamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.entities import JsonObject
    from easeml_core.services.selection.backtest import BacktestAnswer, BacktestReport
    from easeml_core.services.selection.policy import PolicyReport
    from easeml_core.store.database import Store
    from easeml_core.store.queries.compute import HistoryStamp


LONGEST_SECONDS = 10.0
REPEATS = 10
"""Draws of tenants: fewer than on the command line, for a first look."""

COMMAND = "easeml backtest"


@dataclass(frozen=True, slots=True)
class Kept:
    """A backtest that was made here.

    Attributes:
        stamp: Of the history that it replayed.
        made_at: When.
        answer: None where it would have taken too long.
    """

    stamp: HistoryStamp
    made_at: datetime
    answer: BacktestAnswer | None


@dataclass
class Backtests:
    """The backtests of one server."""

    longest_seconds: float = field(default_factory=lambda: LONGEST_SECONDS)
    _turns: Turns = field(default_factory=lambda: Turns(at_once=1, waiting=0))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: Kept | None = None

    def last(self) -> Kept | None:
        """The newest, whatever has happened since; None for a person who may not see all rows."""
        if not callers.reaches_all():
            return None
        with self._lock:
            return self._kept

    def run(self, store: Store) -> None:
        """Replay the installation's past, unless the last one was of the same."""
        if not callers.reaches_all():
            message = "a backtest replays the studies of all tenants; ask an operator for it"
            raise StateError(message)
        with store.begin() as tx:
            stamp = history_stamp(tx)
        last = self.last()
        if last is None or last.stamp != stamp:
            with self._turns.taken("backtest"):
                last = Kept(stamp, datetime.now(UTC), self._answer(store))
            with self._lock:
                self._kept = last
        if last.answer is None:
            message = f"this history takes longer than {self.longest_seconds:g} s to replay; run `{COMMAND}` instead"
            raise StateError(message)

    def _answer(self, store: Store) -> BacktestAnswer | None:
        ends = time.monotonic() + self.longest_seconds

        def go_on(done: int, of: int) -> None:
            if done < of and time.monotonic() > ends:
                raise _TooLong

        try:
            return backtest_installation(store, Replay(repeats=REPEATS, processes=1, on_done=go_on)).answer
        except _TooLong:
            return None


class _TooLong(Exception):
    """The replay has taken all of its time."""


@dataclass(frozen=True, slots=True)
class BacktestView:
    """What a backtest says, or why there is none."""

    title: str
    note: str
    bars: Sequence[Bar]
    pairs: Sequence[tuple[str, str]]
    message: str
    made_at: datetime | None
    is_too_long: bool = False
    has_report: bool = False


LOSS = "0.02"


def backtest_of(kept: Kept | None, policy: PolicyReport) -> BacktestView:
    """The newest backtest of this page, or else the one that the policy in force rests on."""
    if kept is not None:
        if kept.answer is not None:
            return _backtest(kept.answer, kept.made_at, policy)
        return BacktestView("This history is too long for a page", "", (), (), "", kept.made_at, is_too_long=True)
    stored = stored_backtest(policy.report)
    if stored is not None and policy.created_at is not None:
        return _backtest(stored, policy.created_at, policy)
    return BacktestView("What would other policies have needed?", "", (), (), "", None)


def report_of(kept: Kept | None, policy: PolicyReport) -> BacktestAnswer | JsonObject | None:
    """Return the whole backtest that is shown, as of ``easeml backtest --json``; None without one."""
    return policy.report if kept is None else kept.answer


def _backtest(answer: BacktestReport, made_at: datetime, policy: PolicyReport) -> BacktestView:
    costs = {name: figures.to_loss[LOSS].cost for name, figures in answer.policies.items()}
    protocol = answer.protocol
    if not costs or protocol is None:
        return BacktestView("Too little history to tell", "", (), (), answer.message, made_at, has_report=True)
    used = policy.policy if policy.policy in costs else "default"
    ordered = sorted(costs, key=lambda name: (costs[name], name))
    bars = [_policy_bar(name, costs, used) for name in ordered]
    past = counted(answer.tenants, "past study", "past studies")
    repeats = counted(protocol.repeats, "repeat")
    note = f"Device-hours to reach a mean loss of {LOSS}, replayed on {past}, median of {repeats}"
    title, pairs = _title(costs, used, ordered), _believed(answer)
    return BacktestView(title, note, bars, pairs, answer.message, made_at, has_report=True)


def _title(costs: Mapping[str, float], used: str, ordered: Sequence[str]) -> str:
    rival = next((name for name in ordered if "round" in name), ordered[-1])
    saved = (costs[rival] - costs[used]) / 3600
    if rival == used or abs(saved) < 1e-9:
        return f"{used} needs what {rival} needs"
    hours = with_unit(f"{abs(saved):,.3g}", "device-hour")
    verdict = f"saved {hours} against" if saved > 0 else f"cost {hours} more than"
    return f"The policy in use {verdict} {rival}"


def _policy_bar(name: str, costs: Mapping[str, float], used: str) -> Bar:
    more = (costs[name] - costs[used]) / 3600
    return Bar(
        name=name,
        width=round(100 * costs[name] / (max(costs.values()) or 1.0), 2),
        value=f"{costs[name] / 3600:,.3g}",
        more="in use" if name == used else f"{more:+,.3g}".replace("-", MINUS),
        look="hi" if name == used else "",
    )


def _believed(answer: BacktestReport) -> list[tuple[str, str]]:
    """What stands beside the bars: the choice, how much was replayed."""
    return [
        ("Chosen", answer.winner),
        ("Results that were replayed", f"{answer.results:,} of {counted(answer.candidates, 'candidate')}"),
        ("Studies with too few results", f"{answer.left_out:,}"),
    ]
