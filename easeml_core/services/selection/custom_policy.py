"""Calls an installed policy (``selection/policies/user_policy.py``) in a live installation, and contains its faults.

A decision holds a lock that every other decision waits for. So the function is called in a thread, with a limit of
time: where it raises, chooses what is not free, or gives no answer, the default policy chooses, the trial's reasons say
why, and the log has the details. The reasons, which the tenant of the trial reads, name the fault without its text,
which may hold another tenant's data.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from functools import cache, partial
from typing import TYPE_CHECKING

from easeml_core.config import SelectionConfig
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.limits import PLUGIN
from easeml_core.selection.policies.user_policy import choice_of, policy_function

if TYPE_CHECKING:
    from easeml_core.selection.policies.user_policy import Asked, Seen, UserPolicy

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 2.0
"""How long a decision waits for the function."""

SUSPENDED_SECONDS = 600.0
"""How long a function that gave no answer in time is not called again by this process; its call may go on for ever."""

MESSAGE_SECONDS = 60.0
"""Shortest time between two messages of the log about one policy: each trial of a large batch may meet the fault."""

_rests_until: dict[str, float] = {}
_quiet_until: dict[str, float] = {}


def require_policy(policy: str) -> None:
    """Check that a policy exists, and if it is an installed one, that this process can load it.

    Args:
        policy: One of ``easeml_core.config.POLICIES``, or ``plugin:NAME``.

    Raises:
        ConfigError: It is neither.
        NotFoundError: It is not installed, or cannot be loaded; the message lists those that are.
        InvalidInputError: Its entry point leads to something that cannot be called.
    """
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
