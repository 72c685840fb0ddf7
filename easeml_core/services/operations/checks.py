"""The checks of what decides (referee, scheduler, policy), and the form of a check of ``easeml doctor``."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from easeml_core.display import span
from easeml_core.encoding import typed_record
from easeml_core.entities import RequestKind
from easeml_core.errors import EasemlError, counted
from easeml_core.limits import PLUGIN
from easeml_core.services.referee.place_in_queue import referee_text
from easeml_core.services.selection.custom_policy import require_policy
from easeml_core.services.selection.policy import current_config
from easeml_core.store.queries import health
from easeml_core.store.tables import referee_claims, scheduler_requests
from easeml_core.store.tables.decisions import may_look, replaced_lately

if TYPE_CHECKING:
    from sqlalchemy import Connection

State = Literal["ok", "warning", "failed", "skipped"]

SLOW_SECONDS, DEAD_SECONDS = 60.0, 600.0
_MAY_WAIT = {RequestKind.GATE, RequestKind.METER}
"""Requests whose answers may be delayed on purpose: for labels, or until the hour of publication."""


@typed_record
class Check:
    """The result of one check.

    Attributes:
        name: Short; the same from run to run.
        state: ``failed`` must be repaired before the installation works as promised, ``warning`` later, ``skipped`` was
            not checked, and ``found`` says why.
        found: The observation, as part of a sentence.
        remedy: What to do; empty where there is nothing.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


def check_referee(tx: Connection) -> Check:
    """Check that the referee answers its requests."""
    waiting = health.waiting_requests(tx)
    now = health.who_and_when(tx).now
    life = referee_claims.referee_life(tx)
    if not life.alive and life.beat_seconds is not None:
        said = f"{referee_text(life.beat_seconds)}; nothing is sealed, judged or promoted until then"
        return Check("referee", "failed" if waiting else "warning", said, "trials train on meanwhile")
    remedy = "see that `easeml referee` runs, and what its log says; it answers what waits as soon as it starts"
    ages = {kind: (many, (now - since).total_seconds()) for kind, (many, since) in waiting.items()}
    late = {kind: (many, age) for kind, (many, age) in ages.items() if age >= SLOW_SECONDS}
    if not late:
        many = sum(many for many, _ in ages.values())
        said = f"{counted(many, 'request waits', 'requests wait')}, none for long" if many else "nothing waits for it"
        return Check("referee", "ok", said)
    found = "; ".join(
        f"{counted(many, f'{kind} request')}, the oldest {age / 60:,.0f} min" for kind, (many, age) in late.items()
    )
    if any(age >= DEAD_SECONDS and kind not in _MAY_WAIT for kind, (_, age) in late.items()):
        return Check("referee", "failed", f"unanswered: {found}", remedy)
    held = " (labels may be missing, or answers leave at an hour of the day)" if set(late) <= _MAY_WAIT else ""
    return Check("referee", "warning", f"unanswered: {found}{held}", remedy)


def check_policy(tx: Connection) -> Check:
    """Check that an installed policy that is set is installed here, and that it chose in the last day."""
    if not may_look(tx):
        return Check("policy", "skipped", "the address of easeml_worker is needed to look")
    policy = current_config(tx).policy
    if not policy.startswith(PLUGIN):
        return Check("policy", "ok", f"{policy} chooses")
    try:
        require_policy(policy)
    except EasemlError as error:
        return Check("policy", "warning", str(error), "where it decides without it, the default policy chooses instead")
    chosen, replaced, why = replaced_lately(tx)
    if replaced:
        found = f"the default policy chose {replaced} of {counted(chosen, 'trial')} of the last day: {why}"
        return Check("policy", "warning", found, "see the log of the process that decides; correct the policy")
    return Check("policy", "ok", f"{policy} chooses; {counted(chosen, 'trial')} in the last day")


def check_scheduler(tx: Connection, logins: int) -> Check:
    """Check that a process decides what the logins of tenants ask for.

    Args:
        tx: Any role that reads the requests.
        logins: How many logins of tenants there are.
    """
    name, life = "scheduler", scheduler_requests.scheduler_life(tx)
    if not logins and not life.waiting and not life.alive:
        return Check(name, "ok", "`easeml scheduler` is not needed: no tenant has a login")
    waiting = counted(life.waiting, "request for suggestions waits", "requests for suggestions wait")
    remedy = "start `easeml scheduler` with the address of easeml_scheduler; what waits is decided as soon as it starts"
    if not life.alive:
        since = "" if life.beat_seconds is None else f" since {span(timedelta(seconds=life.beat_seconds))}"
        return Check(name, "failed" if life.waiting else "warning", f"no scheduler runs{since}; {waiting}", remedy)
    if life.oldest_seconds is not None and life.oldest_seconds >= SLOW_SECONDS:
        found = f"{waiting}, the oldest {span(timedelta(seconds=life.oldest_seconds))}"
        return Check(name, "warning", found, "see what the log of `easeml scheduler` says")
    return Check(name, "ok", f"{counted(life.alive, 'process', 'processes')} of `easeml scheduler` at work; {waiting}")
