"""The rungs of a network's training: at each it is decided by the ended trials of all tenants whether it goes on.

A decision is stored before it takes effect, once for each rung: an attempt that repeats the rung, after a crash, is
bound by it. A trial that is stopped ends as any other: with its model, its quality and its cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.errors import ConcurrentUpdateError, StoreUnavailableError, counted
from easeml_core.selection.pruning import Reached, decide, rung_step
from easeml_core.services.trials.lease import point_of
from easeml_core.store.tables import trials
from easeml_core.store.tables.trials import RungDecision
from easeml_core.training.trainers import TRAINERS

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.entities import JsonObject
    from easeml_core.services.trials.lease import Lease
    from easeml_core.store.tables.trials import CurvePoint


NETWORKS = tuple(kind for kind, trainer in TRAINERS.items() if trainer.takes_run and "epochs" in trainer.rules)
"""Kinds that are trained by epochs of this package. Other programs' reports are not comparable between tenants."""


LEAST_LEFT_SECONDS = 5.0
"""Least remaining time for a decision: the training process takes two seconds to start, and receives it late."""


class Ladder:
    """The rungs of one attempt at a trial.

    Args:
        lease: The attempt; it receives all progress, too.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._shares = lease.config.rungs if lease.trial.kind in NETWORKS else ()
        self._passed = 0
        self._is_over = False

    def progress(self, news: JsonObject) -> None:
        """Pass progress on, and decide if it is of a rung."""
        self._lease.progress(news)
        point = point_of(news, seconds=0.0)
        if point is None or point.of is None or point.quality is None or point.step == point.of:
            return
        rung = sum(rung_step(share, point.of) <= point.step for share in self._shares)
        if rung > self._passed and not self._is_over:
            self._passed = rung
            if news.get("seconds_left", LEAST_LEFT_SECONDS) >= LEAST_LEFT_SECONDS:
                self._decide(rung, point, of=point.of, quality=point.quality)

    def is_over(self) -> bool:
        """Whether the rest of the epochs is not worth it."""
        return self._is_over

    def _decide(self, rung: int, point: CurvePoint, *, of: int, quality: float) -> None:
        lease = self._lease
        try:
            with lease.begin() as tx:
                decided = trials.decision_at(tx, lease.trial.id, rung)
                decided = decided or self._decided(tx, rung, point.step, of=of, quality=quality)
        except (StoreUnavailableError, ConcurrentUpdateError) as error:
            lease.log(f"trial {lease.trial.id}: rung {rung} is passed without a decision, training goes on ({error})")
            return
        self._is_over = not decided.goes_on
        lease.log(f"trial {lease.trial.id}: {sentence_of(decided)}")

    def _decided(self, tx: Connection, rung: int, step: int, *, of: int, quality: float) -> RungDecision:
        """Decide by the trials that have ended, and store the decision."""
        trial = self._lease.trial
        ended = trials.ended_after(tx, study_id=trial.study_id, kinds=NETWORKS, share=self._shares[rung - 1])
        best = trials.best_of_study(tx, study_id=trial.study_id, data_version_id=trial.data_version_id)
        found = decide(quality, [Reached(*trial) for trial in ended], best)
        decision = RungDecision(rung=rung, step=step, of=of, quality=quality, **found._asdict())
        trials.add_decision(tx, trial_id=trial.id, attempt=self._lease.attempt, decision=decision)
        return decision


def sentence_of(decision: RungDecision) -> str:
    """Describe the decision at a rung, after the name of its trial.

    Example:
        >>> from dataclasses import replace
        >>> stop = RungDecision(
        ...     rung=1, step=3, of=27, quality=0.41, hoped=0.62, needed=0.93, known=12, rule="gains", goes_on=False
        ... )
        >>> print(sentence_of(stop))
        was stopped at rung 1, epoch 3 of 27, at 0.4100: by what 12 trials gained it may reach 0.6200, and needs 0.9300
        >>> print(sentence_of(replace(stop, rule="median", goes_on=True, needed=0.39, known=4)))
        goes on at rung 1, epoch 3 of 27, at 0.4100: the median of 4 trials up to there is 0.3900
        >>> print(sentence_of(replace(stop, rule="median", goes_on=True, hoped=None, known=2)))
        goes on at rung 1, epoch 3 of 27, at 0.4100: there are too few trials to tell
    """
    verb = "goes on" if decision.goes_on else "was stopped"
    place = f"{verb} at rung {decision.rung}, epoch {decision.step} of {decision.of}, at {decision.quality:.4f}"
    if decision.hoped is None or decision.needed is None:
        return f"{place}: there are too few trials to tell"
    known = counted(decision.known, "trial")
    if decision.rule == "median":
        return f"{place}: the median of {known} up to there is {decision.needed:.4f}"
    return f"{place}: by what {known} gained it may reach {decision.hoped:.4f}, and needs {decision.needed:.4f}"
