"""A user's policy: a function that chooses the next trial from what has been seen.

A simulation takes any function of an installed module, ``module:function``. A live installation takes only entry points
of the group ``easeml.policies``, ``plugin:NAME``: who installs a distribution beside the scheduler decides which code
runs there, and no request can name other code.

    chosen = policy(Seen)      one tenant's index, and one of its arms that are free

``default.py`` has the scheduler that asks it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeAlias

from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.settings.limits import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from easeml_core.selection.surrogate.posterior import Array

    UserPolicy: TypeAlias = "Callable[[Seen], tuple[int, int]]"
    Asked: TypeAlias = "Callable[[Seen], tuple[int, int] | str]"

GROUP = "easeml.policies"
"""The group of entry points whose functions may choose in a live installation."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a policy knows when a device is free; one array for each tenant, shapes ``(n_arms,)``.

    Attributes:
        quality: Result of each finished trial in [0, 1]; NaN where there is none yet.
        cost: Cost of each trial, > 0: the known one in a simulation, the predicted one in a live installation; all are
            1 where costs are not known.
        free: Which arms may run now: not started yet, and within the limits of study, tenant and device.
        candidates: Names of the arms.
        seed: Whole numbers, for a policy that draws: ``numpy.random.default_rng(seed)``.
    """

    quality: tuple[Array, ...]
    cost: tuple[Array, ...]
    free: tuple[NDArray[np.bool_], ...]
    candidates: tuple[tuple[str, ...], ...]
    seed: tuple[int, ...]


def policy_function(name: str) -> UserPolicy:
    """Return the function of ``plugin:NAME`` or ``module:function``; imports its module."""
    found = _installed(name) if name.startswith(PLUGIN) else _imported(name)
    if not callable(found):
        message = f"policy {name!r} is no function, but a {type(found).__name__}"
        raise InvalidInputError(message)
    function: UserPolicy = found
    return function


def _imported(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        kind, remedy = "policy", f"importing it said: {error}; a policy is named module:function or plugin:NAME"
        raise NotFoundError(kind, name, remedy=remedy) from error


def _installed(name: str) -> Any:
    points = {f"{PLUGIN}{point.name}": point for point in entry_points(group=GROUP)}
    if name not in points:
        remedy = (
            f"install its distribution, with an entry point of the group {GROUP}, in the environment of this process "
            "and of each one that decides (docs/bring-your-own.md)"
        )
        raise NotFoundError(kind="installed policy", name=name, known=points, remedy=remedy)
    try:
        return points[name].load()
    except (Exception, SystemExit) as error:  # a module of another distribution
        remedy = f"its entry point is there, but loading it raised {type(error).__name__}: {error}"
        raise NotFoundError(kind="usable policy", name=name, remedy=remedy) from error


def choice_of(function: UserPolicy, seen: Seen, *, policy: str) -> tuple[int, int]:
    """Return what a policy chooses, whatever it does to its argument."""
    free = tuple(mask.copy() for mask in seen.free)
    return checked_choice(function(seen), free, policy=policy)


def checked_choice(chosen: Any, free: Sequence[NDArray[np.bool_]], *, policy: str) -> tuple[int, int]:
    """Return what a policy has chosen."""
    try:
        tenant, arm = (int(part) for part in chosen)
        same = (tenant, arm) == tuple(chosen)
    except (TypeError, ValueError):
        same, tenant, arm = False, 0, 0
    known = same and 0 <= tenant < len(free) and 0 <= arm < free[tenant].size
    if not known or not free[tenant][arm]:
        what = f"{chosen!r:.100}, which was started already" if known else f"{chosen!r:.100}"
        message = f"policy {policy!r} chose {what}; it must return (tenant, arm) of an arm that is free"
        raise InvalidInputError(message)
    return tenant, arm
