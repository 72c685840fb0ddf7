"""From the errors of the driver to ours: what a violated constraint means, and why the database is not reached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from easeml_core.errors import (
    AlreadyExistsError,
    BudgetExhaustedError,
    ConcurrentUpdateError,
    DatabaseFault,
    EasemlError,
    InvalidInputError,
    StateError,
    StoreError,
    StoreExhaustedError,
    StoreUnavailableError,
    WrongRoleError,
    database_fault,
)
from easeml_core.settings.limits import (
    ATTEMPTS,
    COST_SECONDS,
    DURATION,
    LABELER,
    LONGEST_CANDIDATE,
    LONGEST_TARGET,
    LONGEST_TEXT,
    MAX_PARALLEL,
    MOST_DEVICES,
    MOST_JSON_BYTES,
    NAME,
    PRIORITY,
    SECONDS,
    TARGET_QUALITY,
    WEIGHT,
    Limit,
)
from easeml_core.store import logins

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2 import OperationalError as OperationalDriverError
    from sqlalchemy import URL, Engine

AWAY_ERRORS = (OperationalError, InterfaceError, PoolTimeoutError)
"""Errors of the driver, and of the pool, where a database is away: also of databases that others open."""

LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE of a wait for a lock that has reached its limit."""

INSUFFICIENT_PRIVILEGE = "42501"
"""SQLSTATE of what a role may not do."""

_NO_ENTRY = "permission denied for database"
"""PostgreSQL's message to a role that may not connect; the driver gives no SQLSTATE of a refused connection."""

_REFUSED_LOGIN = "password authentication failed"
"""PostgreSQL's message to a role with another password, or none."""

NEEDS, SOURCE = "easeml_needs", "easeml_source"
"""Execution options of an engine: what the error of a refused role names."""


_NAME_RULE = f"must be {NAME.rule}"
_MAPPING = f"a mapping of at most {MOST_JSON_BYTES} bytes as JSON"
_JSON_RULE = f"must be {_MAPPING}, with all numbers written out"
_DISJOINT = "gate and meter need disjoint sets; seal other examples"


_Values: TypeAlias = Mapping[str, Any]
"""The values of a statement by the names of its parameters, and the database's own words as ``said`` and ``detail``."""


def _value(values: _Values, *names: str) -> str:
    return next((f", got {values[n]!r}" for n in names if n in values), "")


def _outside(values: _Values, name: str, limit: Limit, column: str = "") -> EasemlError:
    return InvalidInputError(f"{name} must be {limit.allowed}{_value(values, column or name)}")


def _live_already(values: _Values, system: str) -> EasemlError:
    return AlreadyExistsError(
        f"live sealed set of this study for the {system}",
        values.get("study_id"),
        remedy="retire it before sealing another",
    )


def _exceeded(values: _Values, what: str, remedy: str) -> EasemlError:
    """A limit that the database keeps; a trial without a bound met a limit that was set in the same moment."""
    found = json.loads(values["detail"])
    if found["taken"] is None:
        return ConcurrentUpdateError(f"the {what} {found['owner']!r} has just been set; try again")
    return BudgetExhaustedError(f"{what} {found['owner']!r}", found["taken"], found["allowed"], remedy)


MEANING: dict[str, Callable[[_Values], EasemlError]] = {
    "studies_name_key": lambda v: AlreadyExistsError("study", v.get("name"), remedy="choose another name"),
    "tenants_name_check": lambda v: InvalidInputError(f"a tenant's name {_NAME_RULE}{_value(v, 'name')}"),
    "studies_name_check": lambda v: InvalidInputError(f"a study's name {_NAME_RULE}{_value(v, 'name')}"),
    "tenants_weight_check": lambda v: _outside(v, "weight", WEIGHT),
    "studies_weight_check": lambda v: _outside(v, "weight", WEIGHT),
    "tenants_max_parallel_check": lambda v: _outside(v, "max_parallel", MAX_PARALLEL),
    "tenants_quota_check": lambda v: _outside(v, "quota_seconds", SECONDS),
    "studies_budget_check": lambda v: _outside(v, "budget_seconds", SECONDS),
    "studies_priority_check": lambda v: _outside(v, "priority", PRIORITY),
    "studies_deadline_check": lambda v: InvalidInputError(
        f"deadline must be a point in time of the years 2000 to 2999{_value(v, 'deadline')}"
    ),
    "candidates_name_check": lambda v: InvalidInputError(
        f"a candidate's name must be 1 to {LONGEST_CANDIDATE} characters without control characters{_value(v, 'name')}"
    ),
    "data_sets_source_check": lambda v: InvalidInputError(
        f"a source must be at most {LONGEST_TEXT} characters, and its target at most {LONGEST_TARGET}"
    ),
    "studies_config_check": lambda _: InvalidInputError(
        f"a study's settings must be {_MAPPING}, with max_attempts {ATTEMPTS.rule}, "
        f"and time_limit_seconds {DURATION.rule}"
    ),
    "studies_target_check": lambda v: _outside(v, "target_quality", TARGET_QUALITY),
    "candidates_devices_check": lambda v: InvalidInputError(
        f"the devices of candidate {v.get('name')!r} must be 1 to {MOST_DEVICES} names, such as gpu, gpu:2 or gpu/4; "
        f"each kind {_NAME_RULE}"
        f"{_value(v, 'devices')}"
    ),
    "trials_device_check": lambda v: InvalidInputError(f"a device's kind {_NAME_RULE}{_value(v, 'device')}"),
    "studies_budget_kept": lambda v: _exceeded(
        v,
        "compute budget of study",
        "raise it with `easeml study set`, or wait for what open trials give back",
    ),
    "tenants_quota_kept": lambda v: _exceeded(
        v, "quota of tenant", "raise it with `easeml tenant set`, or wait for what open trials give back"
    ),
    "tenants_parallel_kept": lambda v: _exceeded(
        v, "open trials of tenant", "wait until some have ended, cancel some, or raise --max-parallel"
    ),
    "observations_quality_check": lambda v: InvalidInputError(
        f"quality must be a number in [0, 1], which NaN is not{_value(v, 'quality')}"
    ),
    "observations_cost_check": lambda v: _outside(v, "cost_seconds", COST_SECONDS, "cost"),
    "trials_cost_check": lambda v: _outside(v, "cost_seconds", COST_SECONDS, "cost"),
    "trials_once_per_data_key": lambda v: AlreadyExistsError(
        "trial of this candidate on this data version",
        v.get("candidate_id"),
        remedy="no candidate runs twice on it, and one trial at most takes the same place",
    ),
    "candidates_parameters_check": lambda v: InvalidInputError(
        f"the parameters of candidate {v.get('name')!r} {_JSON_RULE}"
    ),
    "requests_arguments_check": lambda _: InvalidInputError(f"a request's arguments {_JSON_RULE}"),
    "studies_forward_check": lambda v: StateError(
        f"{v['said']}; only the referee activates or refuses a new study, and nothing makes it new again"
    ),
    "studies_name_archived": lambda v: AlreadyExistsError(
        "study", v.get("name"), remedy="choose another name: one of another tenant had it, and is archived"
    ),
    "archived_closed": lambda v: StateError(
        f"{v['said']} and takes nothing new; restore it first (`easeml study restore`, `easeml tenant restore`)"
    ),
    "studies_production_kept": lambda v: StateError(
        f"{v['said']}, which answers no rows any more once the study is archived; say so with --withdraw "
        "(`withdraw=True` in Python)"
    ),
    "studies_kept": lambda v: StateError(
        f"{v['said']}, which its evidence rests on; archive it instead of deleting it"
    ),
    "studies_counted": lambda v: StateError(
        f"{v['said']}; such refusals of a tenant are counted, so it is deleted after that time; archive it until then"
    ),
    "studies_worked_on": lambda v: StateError(f"{v['said']} right now; ask again once its request has an answer"),
    "test_sets_served": lambda v: StateError(
        f"{v['said']}: its ledger and the evidence of its answers rest on it; retire it, and release it where its rows "
        "shall be public (`easeml test-set release`)"
    ),
    "test_sets_in_use": lambda v: StateError(
        f"{v['said']}; a live set is retired first (`easeml test-set retire`), and a released one is public"
    ),
    "tenants_kept": lambda v: StateError(
        f"{v['said']}; delete or archive its studies, end its logins (`easeml tenant logout`), or archive the tenant"
    ),
    "requests_file_check": lambda v: StateError(f"{v['said']}; train it again, or submit it again"),
    "trials_forward_check": lambda v: StateError(f"{v['said']}; states only move forward, start from its present one"),
    "test_sets_fingerprint_key": lambda v: AlreadyExistsError("sealed set", "with these examples", remedy=_DISJOINT),
    "examples_pkey": lambda v: AlreadyExistsError("sealed set", "with some of these examples", remedy=_DISJOINT),
    "test_sets_live_gate_key": lambda v: _live_already(v, "gate"),
    "test_sets_live_meter_key": lambda v: _live_already(v, "meter"),
    "test_sets_live_direct_key": lambda v: _live_already(v, "second meter"),
    "test_sets_name_key": lambda v: AlreadyExistsError(
        "test set of this study", v.get("name"), remedy="choose another name"
    ),
    "suggestion_requests_open_check": lambda v: StateError(
        f"{v['said']}; see that `easeml scheduler` runs with this database, and ask again once it has decided"
    ),
    "change_requests_open_check": lambda v: StateError(
        f"{v['said']}; see that `easeml scheduler` runs with this database, and ask again once it has made some"
    ),
    "rows_of_tenants_check": lambda v: StateError(
        f"{v['said']}; wait until the referee has answered what is open, or ask the provider for another tenant"
    ),
    "audit_rate_check": lambda v: StateError(f"{v['said']}; the rest is made in an hour, or by another login"),
    "test_sets_name_check": lambda v: InvalidInputError(f"a test set's name {_NAME_RULE}{_value(v, 'name')}"),
    "test_sets_forward_check": lambda v: StateError(
        f"{v['said']}; a set goes from planned over sealed, live and retired to released, and never back"
    ),
    "labels_labeler_check": lambda v: InvalidInputError(
        f"a labeler's name must be {LABELER.rule}{_value(v, 'labeler')}"
    ),
    "ledger_step_check": lambda v: BudgetExhaustedError(
        "steps of the sealed set", v.get("step", 1) - 1, v.get("steps", 0), "the referee must seal a new set"
    ),
    "ledger_system_step_check": lambda v: BudgetExhaustedError(
        f"{v.get('system', 'system')} steps of the sealed set",
        v.get("system_step", 1) - 1,
        v.get("system_steps", 0),
        "the referee must seal a new set",
    ),
    "promotions_verdict_fkey": lambda v: StateError(
        f"there is no recorded pass of this model{_value(v, 'model_id')}; ask the gate first, promote after a pass"
    ),
}
"""Violations whose cause is the caller's input: the name of the constraint to our error (of archives: ADR 0035)."""


def shown(url: URL) -> str:
    """The address for messages: without its password, and without options, since one of them may be the password."""
    return url.set(query={}).render_as_string(hide_password=True)


def translate(error: DBAPIError, engine: Engine) -> EasemlError:
    """Our error for a driver's error; the meaning of a violated constraint lies in its name."""
    code, address = getattr(error.orig, "pgcode", None), shown(engine.url)
    if code == INSUFFICIENT_PRIVILEGE or (code is None and _NO_ENTRY in str(error.orig)):
        given = engine.get_execution_options()
        return _wrong_role(_first_line(error), engine.url, given.get(NEEDS), given.get(SOURCE, ""))
    if isinstance(error, IntegrityError):
        return _refusal(error)
    fault = database_fault(code)
    if code == LOCK_NOT_AVAILABLE:
        return ConcurrentUpdateError(_lock_message(error))
    if fault is DatabaseFault.CONCURRENT:
        return ConcurrentUpdateError("another transaction was in the way; try again")
    if fault is DatabaseFault.EXHAUSTED:
        return StoreExhaustedError(
            f"the database at {address} cannot do this now ({_first_line(error)}); "
            "give it what it lacks (disk, memory, time, the right to write), and try again"
        )
    if code is None and _REFUSED_LOGIN in str(error.orig):
        return StoreUnavailableError(
            f"the database at {address} refuses the login ({_first_line(error)}); correct the password where the "
            f"address stands ({engine.get_execution_options().get(SOURCE) or 'EASEML_DATABASE_URL or --database'})"
        )
    if fault is DatabaseFault.AWAY or (code is None and isinstance(error, OperationalError | InterfaceError)):
        return StoreUnavailableError(
            f"the database at {address} cannot be reached ({_first_line(error)}); "
            "start it with `make up` or `easeml db start`, or correct the address"
        )
    return StoreError(f"the database failed: {_first_line(error)}")


def _lock_message(error: DBAPIError) -> str:
    """Say which lock was waited for; who holds it only an administrator of the server may see."""
    context = str(getattr(getattr(error.orig, "diag", None), "context", "") or "").split("\n")[0]
    return (
        f"another transaction was in the way; try again. It holds a lock{f' ({context})' if context else ''} for "
        "longer than this may wait; where that stays so, an administrator of the server finds its session with "
        "pg_blocking_pids() and pg_stat_activity, and ends it with pg_terminate_backend()"
    )


def refused_connection(error: OperationalDriverError, dsn: str) -> StoreError:
    """Our error for a connection of the listener that the server did not open."""
    if _NO_ENTRY in str(error):
        return _wrong_role(str(error).strip(), make_url(dsn), None, "")
    return StoreUnavailableError(str(error).strip())


def _wrong_role(said: str, url: URL, needed: str | None, source: str) -> StoreError:
    if _NO_ENTRY in said and logins.is_login(url.username or ""):  # `schema.upgrade` closes the database to them
        return StoreUnavailableError(f"{said}; an upgrade may be under way: try again")
    return WrongRoleError(said, role=url.username or "", address=shown(url), source=source, needed=needed)


def _refusal(error: IntegrityError) -> EasemlError:
    meaning = MEANING.get(violated(error))
    if meaning is not None:
        values = error.params if isinstance(error.params, dict) else {}
        detail = getattr(getattr(error.orig, "diag", None), "message_detail", None)
        return meaning({**values, "said": _first_line(error), "detail": detail})
    return StoreError(
        f"the database refuses this, and nothing was written: {_first_line(error)}; correct what was given, "
        "or report it as a fault of easeml with this line"
    )


def violated(error: IntegrityError) -> str:
    """Name of the constraint that was violated, or the empty string."""
    return str(getattr(getattr(error.orig, "diag", None), "constraint_name", "") or "")


def _first_line(error: DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or ["no reason given"])[0]
