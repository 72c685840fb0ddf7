"""An attempt that its living worker gives up before its end: it was stopped from outside, or its caller's time is over.

A stop hands the trial back, and does not count. The end of the caller's time counts where the attempt has trained and
has recorded no checkpoint: what hangs is tried ``max_attempts`` times, each of which goes on from the last checkpoint,
and is a failure of its task then, which may be tried again. No candidate is used up by it.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.entities import FailureKind, TrialState
from easeml_core.errors import EasemlError
from easeml_core.services.trials.execution import STOP_SECONDS, record_failure
from easeml_core.store.database import notify, notify_pages
from easeml_core.store.tables import leases, trials
from easeml_core.store.tables.leases import MOST_EXCUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from easeml_core.services.trials.lease import Lease
    from easeml_core.store.database import Store


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """Time of the caller, at whose end an exception is raised anywhere in its main thread, once.

    Attributes:
        error: Class of the exception.
        seconds: Wall seconds from the caller's beginning, > 0; waiting for room or for a device is a part of them.
        name: What messages call it, such as ``the task's execution_timeout``.
    """

    error: type[BaseException]
    seconds: float
    name: str

    def __str__(self) -> str:
        """Name it with its seconds."""
        return f"{self.name} ({self.seconds:,.0f} s)"


def hand_back(store: Store, *, trial_id: int, request_key: str, token: str | None = None, counts: bool = False) -> bool:
    """Give up an open trial of this key, so that the next caller gets it; False when this key has lost it.

    The attempt keeps its number, so that the next one can fence it off. A role that claims with a token shows it, and
    can lock no trial of another lease.

    Args:
        store: Role ``easeml_worker``.
        trial_id: The trial.
        request_key: The key that it was claimed with.
        token: Of the lease, where the role reports with one.
        counts: Whether the attempt counts as a lost one.
    """
    with store.begin() as tx:
        leases.show(tx, token)
        trial = trials.get_trial(tx, trial_id, lock=token is None)
        ours = trial.lease_key == request_key if trial.state == TrialState.RUNNING else True
        if trial.state not in (TrialState.SUGGESTED, TrialState.RUNNING) or not ours:
            return False
        if trial.cancel_requested:  # no other caller gets it
            leases.give_up(tx, trial_id)
        else:
            leases.release_lease(tx, trial_id, alive=not counts)
        notify(tx, f"trial:{trial_id}")
        notify_pages(tx, trial.study)
    return True


@contextlib.contextmanager
def handing_back(
    lease: Lease, request_key: str, should_stop: Callable[[], bool], *, time_limit: TimeLimit | None = None
) -> Iterator[None]:
    """Check from a thread whether to stop, and then hand the trial back; also when any exception is raised.

    The database comes first: the ended attempt can then record nothing, not even a failure. The exception of the time
    limit is passed on, unless the trial has ended: its result is the caller's then, as after any other end.

    Args:
        lease: Of the attempt within the block; ``handed_back`` says afterwards whether it was handed back.
        request_key: The key that the lease was claimed with.
        should_stop: Asked five times a second from the thread.
        time_limit: Of the caller; None for none.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(STOP_SECONDS):
            if should_stop() and _give(lease, request_key):
                return

    if time_limit is not None:
        _compare(lease, time_limit)
    watcher = threading.Thread(target=watch, name="easeml-stop", daemon=True)
    watcher.start()
    try:
        yield
    except EasemlError:
        raise
    except BaseException as error:
        if time_limit is None or not isinstance(error, time_limit.error) or should_stop():
            _give(lease, request_key)
            raise
        _end(lease, request_key, time_limit)
        if not lease.ended:
            raise
    finally:
        done.set()
        watcher.join()


def _give(lease: Lease, request_key: str, *, counts: bool = False) -> bool:
    number = lease.trial.id
    try:
        if hand_back(lease.store, trial_id=number, request_key=request_key, token=lease.token, counts=counts):
            lease.handed_back = True
            lease.log(f"trial {number} is handed back: it is free for the next one that asks")
    except EasemlError as error:
        lease.log(f"trial {number} could not be handed back, its lease will run out instead: {error}")
        return False
    lease.lost = True
    return True


def _compare(lease: Lease, limit: TimeLimit) -> None:
    """Log where the study allows a training longer than the caller's time; a function has no limit but that."""
    if lease.trial.function is None and lease.time_limit_seconds > limit.seconds:
        lease.log(
            f"trial {lease.trial.id}: its study allows it {lease.time_limit_seconds:,.0f} s (time_limit_seconds), and "
            f"{limit} is shorter: a longer training is interrupted, and goes on from its last checkpoint if it has one"
        )


def _end(lease: Lease, request_key: str, limit: TimeLimit) -> None:
    """End the attempt at the end of the caller's time, or the trial where it was the last one that counts."""
    if not lease.ended:
        lease.beat()  # this process lives, and learns whether the trial is still its own
    if lease.ended or lease.lost:
        return
    why = f"attempt {lease.attempt} was ended after {lease.age_seconds:,.0f} s by {limit}"
    counts = (lease.begun and not lease.saved) or lease.trial.excused >= MOST_EXCUSED
    if lease.cancelled or (counts and lease.is_last_attempt):
        remedy = f"raise {limit.name} above the time of the training and of what it waits for"
        if lease.trial.function is None:
            remedy += f"; its study allows a training {lease.config.time_limit_seconds:,.0f} s (time_limit_seconds)"
        try:
            record_failure(lease.store, lease, f"{why}, and no attempt is left; {remedy}", kind=FailureKind.TASK)
        except EasemlError as error:
            lease.log(f"trial {lease.trial.id} could not be ended, its lease will run out instead: {error}")
        return
    counted = "it has recorded a checkpoint" if lease.begun else "its training had not begun"
    lease.log(f"trial {lease.trial.id}: {why}; " + ("it counts" if counts else f"it does not count, since {counted}"))
    _give(lease, request_key, counts=counts)
