"""Limits and kinds of device: checked by the names that users type, and changed while the installation runs.

Every change is repeatable: it gives the new value, not a difference. It waits for a decision of the scheduler that is
under way, and the next one uses it. The database refuses a limit below what is used and reserved.

A budget is spent in leases of a device. A trial of a study with a budget, or of a tenant with a quota, reserves enough
to finish in most cases, and little enough to let others run beside it:

    limit = min(left, min(n * time_limit, max(4 * predicted, left / 8, n * 10 s)) + n * grace)

device seconds for all its attempts together, where it holds n devices, or a part n of one; what it does not take is
returned when it ends. Where nothing was ever measured there is no prediction, and the trial reserves its full time
limit. The grace is for the start, checks and stop of the process. No lease outlasts the reservation, so a worker that
freezes, or is stopped too late, loses the trial; a lost attempt is charged with the time its lease held the device.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from easeml_core.errors import ConfigError, NotFoundError
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.settings.config import TrainingConfig, require
from easeml_core.settings.device_requests import stored_devices
from easeml_core.settings.limits import MAX_PARALLEL, PRIORITY, SECONDS, TARGET_QUALITY, WEIGHT
from easeml_core.store.database import lock, notify_pages
from easeml_core.store.tables import capacity, studies
from easeml_core.training.candidates import MOST_CANDIDATES
from easeml_core.training.trainers import TRAINERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import Parameters, Study, Tenant
    from easeml_core.settings.limits import Limit
    from easeml_core.store.database import Store


GRACE_SECONDS = 1.0
"""Wall seconds beside the training itself."""

_FACTOR = 4.0  # a prediction of the log-linear cost model is rarely off by more
_SHARE = 1 / 8
_LEAST_SECONDS = 10.0  # starting Python and loading its libraries alone may take that on a busy machine
_MILLISECOND = 1e-3
_MICROSECOND = 1e-6


def reservation(
    *, left: float, time_limit_seconds: float, predicted_seconds: float | None, devices: float = 1.0
) -> float | None:
    """Return the device seconds to reserve for a trial, or None when the rest is too little to finish it.

    Example:
        >>> reservation(left=3600.0, time_limit_seconds=600.0, predicted_seconds=30.0)
        451.0
        >>> reservation(left=100.0, time_limit_seconds=600.0, predicted_seconds=5.0)
        21.0
        >>> reservation(left=3.0, time_limit_seconds=600.0, predicted_seconds=5.0) is None
        True
        >>> reservation(left=3600.0, time_limit_seconds=600.0, predicted_seconds=None, devices=4.0)
        2404.0
    """
    longest, least = devices * time_limit_seconds, devices * _LEAST_SECONDS
    expected = 0.0 if predicted_seconds is None else min(predicted_seconds, longest)
    generous = max(_FACTOR * expected, _SHARE * left, least) if predicted_seconds is not None else math.inf
    wanted = min(longest, generous) + devices * GRACE_SECONDS
    limit = wanted if wanted < left else math.floor(1000 * (left - _MILLISECOND)) / 1000
    is_enough = limit >= 2 * _MILLISECOND and devices * training_seconds(limit / devices) >= expected - _MICROSECOND
    return limit if is_enough else None


def renewal(
    *,
    limit: float,
    lost: float,
    left: float,
    time_limit_seconds: float,
    devices: float = 1.0,
    before: float | None = None,
) -> float | None:
    """Return the reservation of a trial that is suggested again, lost attempts included; None when it is not worth it.

    Another attempt gets as much as the trial had from the beginning, as far as that is left.

    Example:
        >>> renewal(limit=100.0, lost=40.0, left=1000.0, time_limit_seconds=600.0)
        140.0
        >>> renewal(limit=100.0, lost=40.0, left=10.0, time_limit_seconds=600.0)
        109.999
        >>> renewal(limit=100.0, lost=99.0, left=0.0, time_limit_seconds=600.0) is None
        True
        >>> renewal(limit=100.0000004, lost=40.0, left=0.0, time_limit_seconds=600.0)
        100.0000004
        >>> renewal(limit=601.0, lost=0.0, left=1000.0, time_limit_seconds=600.0, devices=2.0, before=1.0)
        1202.0
    """
    scale = 1.0 if before is None else devices / before
    if lost == 0 and scale == 1:
        return limit
    wanted = min(limit * scale, devices * (time_limit_seconds + GRACE_SECONDS))
    attempt = min(wanted, limit - lost if left <= _MILLISECOND else limit - lost + left - _MILLISECOND)
    if attempt < min(wanted, 2 * devices * GRACE_SECONDS):
        return None
    renewed = round(lost + attempt, 6)
    return limit if abs(renewed - limit) <= _MICROSECOND else renewed


def training_seconds(limit_seconds: float) -> float:
    """Return the longest training within a reservation: all but the grace, and at least half of a short one.

    Both are wall seconds.
    """
    return max(limit_seconds - GRACE_SECONDS, limit_seconds / 2)


MOST_REASON = 500
"""Characters of the reason with which a result is acknowledged."""

_NOT_SHARED = (
    "left out: every study's data are split and sealed by themselves, so a model that was trained for one study has "
    "seen rows that another study's gate keeps sealed, and no trial can serve both"
)


def trainable(candidates: Sequence[Parameters]) -> list[Any]:
    """Return the candidates without ``devices``, and without the refused ``shared``, as trainers check them."""
    return [
        {k: v for k, v in c.items() if k not in ("devices", "shared")} if hasattr(c, "items") else c for c in candidates
    ]


def check_candidate_count(count: int) -> None:
    """Limit the candidates of a study, since every tenant waits for the scheduler's decision over them."""
    require(count <= MOST_CANDIDATES, "candidates", f"{count} of them", f"at most {MOST_CANDIDATES} in one study")


def check_candidate_limits(candidates: Sequence[Parameters]) -> None:
    """Check their number, and ``devices`` of each; ``shared``, which the simulator knows, is refused.

    Every study's data are split separately, by a secret, before parts of them are sealed. So no two studies train on
    the same rows, and a model of one study has seen rows that another study's gate keeps sealed: used there, it would
    break that gate's promise.
    """
    check_candidate_count(len(candidates))
    for candidate in candidates:
        owner = f"candidate {candidate.get('name')!r}"
        devices = stored_devices(owner, candidate.get("devices"))
        if any(":" in device for device in devices or ()):
            trainer = TRAINERS.get(str(candidate.get("kind")))
            several = "one device at a time: networks, commands, containers and functions take several at once"
            field = f"{owner}: devices of {candidate.get('kind')}"
            require(trainer is None or trainer.distributes, field, devices, several)
        if candidate.get("shared") is not None:
            require(False, f"{owner}: shared", candidate["shared"], _NOT_SHARED)


def checked_study_limits(given: Parameters) -> Parameters:
    """Return the given limits of a study as they are stored."""
    checked = dict(given)
    _check(given, weight=WEIGHT, priority=PRIORITY, budget_seconds=SECONDS, target_quality=TARGET_QUALITY)
    if given.get("deadline") is not None:
        checked["deadline"] = deadline_of(given["deadline"])
    return checked


def checked_tenant_limits(given: Parameters) -> Parameters:
    """Return the given limits of a tenant as they are stored."""
    _check(given, weight=WEIGHT, max_parallel=MAX_PARALLEL, quota_seconds=SECONDS)
    return dict(given)


def _check(given: Parameters, **limits: Limit) -> None:
    for name, limit in limits.items():
        if name in given:
            limit.check(name, given[name])


def deadline_of(value: object) -> datetime:
    """Return a point in time, from one or from ISO 8601 text; without a time zone it is UTC.

    A deadline may lie in the past: the study then gets no further trial.

    Example:
        >>> deadline_of("2026-08-01T18:00").isoformat()
        '2026-08-01T18:00:00+00:00'
    """
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        name, allowed = "deadline", "a point in time such as 2026-08-01T18:00 (UTC) or 2026-08-01T18:00+02:00, or None"
        raise ConfigError(name, value, allowed) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


_TIME_LIMIT = TrainingConfig().time_limit_seconds


@typed_record
class StudyLimits:
    """Limits of a study; a budget, a deadline or a target that is None does not hold."""

    study: str
    weight: float
    priority: int
    budget_seconds: float | None
    deadline: datetime | None
    target_quality: float | None


@typed_record
class TenantReport:
    """A tenant with its limits, and what it uses now.

    Attributes:
        tenant: Its name.
        weight: Weight in sharing the devices, > 0.
        max_parallel: Open trials at once, over all its studies; None for no limit.
        quota_seconds: Device seconds, over all its studies; None for no limit.
        used_seconds: Device seconds that ended trials took.
        reserved_seconds: Device seconds that open trials may still take.
        open_trials: Trials that wait or run.
        studies: How many it has.
        checked_results: Results that the referee has measured anew.
        not_held: Those of them that its tasks had stated otherwise than measured.
        unacknowledged: Those of the latter that no operator has acknowledged; the tenant is flagged from the first.
        unmeasurable: Those of them whose models cannot be run on the referee's machine.
        archived_at: Since when it is archived; None where it is not.
    """

    tenant: str
    weight: float
    max_parallel: int | None
    quota_seconds: float | None
    used_seconds: float
    reserved_seconds: float
    open_trials: int
    studies: int
    checked_results: int
    not_held: int
    unacknowledged: int
    unmeasurable: int
    archived_at: datetime | None


def set_study(store: Store, *, study: str, **changes: Any) -> StudyLimits:
    """Change limits of a study; those that are not named stay."""
    _check_names(changes, studies.SETTABLE)
    checked = checked_study_limits(changes)
    with store.begin() as tx:
        lock(tx, "suggest")
        found = studies.get_study(tx, study)
        if checked.get("budget_seconds") is not None:
            capacity.reserve_open(tx, study_id=found.id, time_limit=_TIME_LIMIT, grace=GRACE_SECONDS)
        studies.change_study(tx, found.id, checked)
        return _study_limits(studies.get_study(tx, study), studies.own_weight(tx, found.id))


def _study_limits(study: Study, weight: float) -> StudyLimits:
    return StudyLimits(study.name, weight, study.priority, study.budget_seconds, study.deadline, study.target_quality)


def set_tenant(store: Store, *, tenant: str, **changes: Any) -> TenantReport:
    """Change limits of a tenant; those that are not named stay."""
    _check_names(changes, studies.TENANT_SETTINGS)
    checked = checked_tenant_limits(changes)
    with store.begin() as tx:
        lock(tx, "suggest")
        found = studies.get_tenant(tx, tenant)
        if checked.get("quota_seconds") is not None:
            capacity.reserve_open(tx, tenant_id=found.id, time_limit=_TIME_LIMIT, grace=GRACE_SECONDS)
        studies.change_tenant(tx, found.id, checked)
        return _shown(studies.get_tenant(tx, tenant))


@typed_record
class Acknowledged:
    """Results of a tenant that did not hold, and that an operator has acknowledged now.

    Attributes:
        tenant: Its name.
        trials: Their trials, ascending.
        unacknowledged: How many are left.
        why: The reason that the audit has.
    """

    tenant: str
    trials: list[int]
    unacknowledged: int
    why: str


def acknowledge_results(store: Store, *, tenant: str, why: str, trials: Sequence[int] = ()) -> Acknowledged:
    """Acknowledge results of a tenant that did not hold: they stay unused, and flag the tenant no longer."""
    why = why.strip()
    require(1 <= len(why) <= MOST_REASON, "why", why, f"a reason of 1 to {MOST_REASON} characters")
    with store.begin() as tx:
        found = studies.get_tenant(tx, tenant)
        done, names = studies.acknowledge_results(tx, found.id, trials=list(trials), why=why)
        missing = sorted({*trials} - {*done})
        if missing or not done:
            kind, named = ("trial", missing[0]) if missing else ("outcome", "not held")
            raise NotFoundError(owner=f"tenant {tenant}", kind=f"unacknowledged result of {kind}", name=named)
        for name in names:
            notify_pages(tx, name)
        return Acknowledged(tenant, done, studies.get_tenant(tx, tenant).unacknowledged, why)


def list_tenants(store: Store) -> list[TenantReport]:
    """Return all tenants by name, with their limits and what they use now."""
    with store.begin() as tx:
        return [_shown(t) for t in studies.list_tenants(tx)]


def _shown(tenant: Tenant) -> TenantReport:
    values = row_of(tenant)
    del values["id"]
    return TenantReport(tenant=values.pop("name"), **values)


def _check_names(changes: Parameters, allowed: Sequence[str]) -> None:
    require(bool(changes), "changes", changes, "at least one of " + ", ".join(allowed))
    for name in changes:
        require(name in allowed, name, changes[name], "absent; what may be changed: " + ", ".join(allowed))
