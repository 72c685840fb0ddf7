"""The scheduler's policy and settings for the whole installation, and the call of a policy that is installed.

Each change is a new row with its reason, and every batch of suggestions names the row that it was made under. A change
waits for a decision that is under way; the next one uses it.

A decision holds a lock that every other decision waits for. So the function of an installed policy
(``selection/policies/user_policy.py``) is called in a thread, with a limit of time: where it raises, chooses what is
not free, or gives no answer, the default policy chooses, the trial's reasons say why, and the log has the details. The
reasons, which the tenant of the trial reads, name the fault without its text, which may hold another tenant's data.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING

from attrs import evolve

from easeml_core.entities import JsonObject, Parameters
from easeml_core.errors import InvalidInputError, NotFoundError, StateError
from easeml_core.formats.encoding import row_of, to_json, typed_record
from easeml_core.selection.policies.user_policy import choice_of, policy_function
from easeml_core.settings.config import SelectionConfig
from easeml_core.settings.limits import LONGEST_TEXT, PLUGIN
from easeml_core.store.database import lock
from easeml_core.store.tables.decisions import add_settings, list_settings, newest_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.selection.policies.user_policy import Asked, Seen, UserPolicy
    from easeml_core.store.database import Store
    from easeml_core.store.tables.decisions import StoredSettings


logger = logging.getLogger(__name__)


def current_config(tx: Connection, policy: str | None = None) -> SelectionConfig:
    """Return the present settings."""
    stored = newest_settings(tx)
    config = SelectionConfig() if stored is None else SelectionConfig.from_json(stored.config)
    return config if policy is None else evolve(config, policy=policy)


@typed_record
class PolicyReport:
    """Settings of the scheduler.

    Attributes:
        id: Of the change; it and what follows ``config`` are None while the program's own settings hold.
        policy: One of ``easeml_core.settings.config.POLICIES``.
        config: All settings, whatever version stored them.
        reason: Why they were changed.
        created_at: When, by the database's clock.
        created_by: Role of the database that wrote them.
        report: The backtest that the change rests on.
    """

    id: int | None
    policy: str
    config: JsonObject
    reason: str | None
    created_at: datetime | None
    created_by: str | None
    report: JsonObject | None


@typed_record
class PolicyChange(PolicyReport):
    """The settings after a change; ``changed`` says whether anything was stored."""

    changed: bool


def show_policy(store: Store) -> PolicyReport:
    """Return the settings that hold now."""
    with store.begin() as tx:
        return _shown(newest_settings(tx))


def policy_history(store: Store) -> list[PolicyReport]:
    """Return the latest hundred changes of the settings, newest first."""
    with store.begin() as tx:
        return [_shown(stored) for stored in list_settings(tx)]


def set_policy(
    store: Store,
    *,
    changes: Parameters,
    reason: str,
    report: JsonObject | None = None,
    from_defaults: bool = False,
    instead_of: int | None = None,
) -> PolicyChange:
    """Change the settings of the whole installation; what is not named stays.

    A repetition changes nothing: the same settings with the same reason and report as the newest are not stored anew.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= LONGEST_TEXT:
        message = f"a reason of 1 to {LONGEST_TEXT} characters is needed, got {len(reason)}; say why, others will ask"
        raise InvalidInputError(message)
    with store.begin() as tx:
        lock(tx, "suggest")
        newest = newest_settings(tx)
        base = SelectionConfig() if newest is None or from_defaults else SelectionConfig.from_json(newest.config)
        config = evolve(base, **changes).to_json()
        require_policy(config["policy"])
        if newest is not None and _is_repetition(newest, config, reason, report):
            return PolicyChange(**row_of(_shown(newest)), changed=False)
        if instead_of is not None and instead_of != (newest.id if newest else 0):
            message = "the settings were changed meanwhile; look with `easeml policy show`, then try again"
            raise StateError(message)
        add_settings(tx, config=config, reason=reason, report=report)
        return PolicyChange(**row_of(_shown(newest_settings(tx))), changed=True)


def _is_repetition(newest: StoredSettings, config: JsonObject, reason: str, report: JsonObject | None) -> bool:
    return (_plain(newest.config), newest.reason, newest.report) == (_plain(config), reason, report)


def _plain(config: JsonObject) -> JsonObject:
    """Return settings of any version as JSON; what they do not name is the program's own."""
    whole: JsonObject = to_json({**SelectionConfig().to_json(), **config})
    return whole


def _shown(stored: StoredSettings | None) -> PolicyReport:
    config = _plain(stored.config if stored else {})
    policy: str = config["policy"]
    if stored is None:
        return PolicyReport(None, policy, config, None, None, None, None)
    return PolicyReport(stored.id, policy, config, stored.reason, stored.created_at, stored.created_by, stored.report)


ANSWER_SECONDS = 2.0
"""How long a decision waits for the function."""

SUSPENDED_SECONDS = 600.0
"""How long a function that gave no answer in time is not called again by this process; its call may go on for ever."""

MESSAGE_SECONDS = 60.0
"""Shortest time between two messages of the log about one policy: each trial of a large batch may meet the fault."""

_rests_until: dict[str, float] = {}
_quiet_until: dict[str, float] = {}


def require_policy(policy: str) -> None:
    """Check that a policy exists, and if it is an installed one, that this process can load it."""
    SelectionConfig(policy=policy)
    if policy.startswith(PLUGIN):
        policy_function(policy)


def asker_of(policy: str) -> Asked | None:
    """Return the call of an installed policy, for ``scheduler_for``; None for a policy of this package.

    The function is loaded now, since an import may take longer than a decision waits for it.
    """
    if not policy.startswith(PLUGIN):
        return None
    try:
        function = _loaded(policy)
    except (NotFoundError, InvalidInputError) as error:
        _report(policy, "policy %s cannot be used, so the default policy chooses: %s", policy, error)
        return _unusable
    return partial(_ask, policy, function)


@cache
def _loaded(policy: str) -> UserPolicy:
    return policy_function(policy)


def _unusable(_: Seen) -> str:
    return "is not installed in the process that decided"


def _ask(policy: str, function: UserPolicy, seen: Seen) -> tuple[int, int] | str:
    """Return what the function chooses, or in a few words why it chooses nothing."""
    if time.monotonic() < _rests_until.get(policy, -math.inf):
        return f"gave no answer within {ANSWER_SECONDS:g} s a while ago"
    chosen: list[tuple[int, int]] = []
    faults: list[BaseException] = []

    def call() -> None:
        try:
            chosen.append(choice_of(function, seen, policy=policy))
        except BaseException as fault:  # also SystemExit: no other tenant's decision may fail for it
            faults.append(fault)

    thread = threading.Thread(target=call, name=f"easeml {policy}", daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if chosen:
        return chosen[0]
    if faults:
        _report(policy, "policy %s failed, so the default policy chooses", policy, error=faults[0])
        is_ours = isinstance(faults[0], InvalidInputError)
        return "chose no trial that may run" if is_ours else f"raised {type(faults[0]).__name__}"
    _rests_until[policy] = time.monotonic() + SUSPENDED_SECONDS
    text = "policy %s gave no answer within %g s, so the default policy chooses for %g s"
    _report(policy, text, policy, ANSWER_SECONDS, SUSPENDED_SECONDS)
    return f"gave no answer within {ANSWER_SECONDS:g} s"


def _report(policy: str, text: str, *arguments: object, error: BaseException | None = None) -> None:
    """Write to the log, unless it has just said something of this policy."""
    now = time.monotonic()
    if now >= _quiet_until.get(policy, -math.inf):
        _quiet_until[policy] = now + MESSAGE_SECONDS
        logger.error(text, *arguments, exc_info=error)
