"""The database as it answers over the address: reach, clock, roles, schema, and whether a referee is at work."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from easeml_core.entities import RequestKind
from easeml_core.errors import EasemlError, counted
from easeml_core.services.artifact_places import installed_place
from easeml_core.services.checks import Check, State
from easeml_core.services.put_offs import list_put_off, sentence
from easeml_core.services.row_registry import overlapping_sets
from easeml_core.store import health, requests, schema
from easeml_core.store.database import Store
from easeml_core.store.remote_artifacts import artifact_store
from easeml_core.store.roles import REFEREE, WORKER

if TYPE_CHECKING:
    from sqlalchemy import Connection

SKEW_SECONDS, BAD_SKEW_SECONDS = 5.0, 300.0
SLOW_SECONDS, DEAD_SECONDS = 60.0, 600.0
_MAY_WAIT = {RequestKind.GATE, RequestKind.METER}
"""Requests whose answers may be held back on purpose: for labels, or for the hour at which answers leave."""
_NAMES = ("clock", "roles", "sealed sets", "schema", "referee")
STATEMENT_SECONDS = 10.0


def check_database(url: str | None, url_from: str) -> list[Check]:
    """Everything that is asked over the address.

    Args:
        url: The address, password included; None where there is none.
        url_from: Where it came from, for people.
    """
    if url is None:
        remedy = "set EASEML_DATABASE_URL or give --database; `make up` or `easeml db start` starts an embedded server"
        return [Check("database", "failed", f"no address: {url_from}", remedy), *_skipped("there is no database")]
    try:
        store = Store(url, statement_timeout_seconds=STATEMENT_SECONDS)
        try:
            with store.begin(check_schema=False) as tx:
                return _asked(tx, url_from)
        finally:
            store.close()
    except EasemlError as error:
        return [Check("database", "failed", f"{url_from}: {error}"), *_skipped("the database does not answer")]


def _skipped(why: str) -> list[Check]:
    return [Check(name, "skipped", why) for name in _NAMES]


def _asked(tx: Connection, url_from: str) -> list[Check]:
    before = datetime.now(UTC)
    told = health.who_and_when(tx)
    after = datetime.now(UTC)
    reach = f"{url_from}: PostgreSQL {told['version']}, database {told['database']} as {told['role']}"
    revision = health.revision(tx)
    is_ready = revision == schema.REVISION
    referee = check_referee(tx) if is_ready else Check("referee", "skipped", "the schema must be upgraded first")
    skew = (told["now"] - before - (after - before) / 2).total_seconds()
    missing = health.missing_roles(tx)
    return [
        Check("database", "ok", reach),
        check_clock(skew),
        _roles(told["role"], missing),
        Check("sealed sets", "skipped", "roles are missing") if missing else check_sealed(health.rights_of_worker(tx)),
        check_schema(revision),
        referee,
    ]


def check_artifacts(url: str | None, place: str) -> Check:
    """Whether a place is the artifact store of the installation, which all of its parts must use."""
    name = "artifacts"
    if url is None:
        return Check(name, "skipped", "there is no database")
    try:
        store = Store(url, statement_timeout_seconds=STATEMENT_SECONDS)
        try:
            known, artifacts = installed_place(store), artifact_store(place)
        finally:
            store.close()
    except EasemlError as error:
        return Check(name, "skipped", f"not compared: {error}")
    if known is None:
        return Check(name, "warning", "no artifact store is set yet", "`easeml db artifacts PLACE` sets it")
    if artifacts.identity() != known.store_id:
        remedy = "give the place where this machine reaches it with --artifacts, or correct Airflow's connection"
        return Check(name, "failed", f"{artifacts.place} is not that of the installation, {known.place}", remedy)
    return Check(name, "ok", f"{artifacts.place} is that of the installation")


def check_overlaps(url: str | None, place: str) -> Check:
    """Whether a set in use has rows that are open in another study; nothing is registered or retired by it.

    Args:
        url: Address of the role ``easeml_referee``; None where it is not known.
        place: Folder or address of the artifacts.
    """
    name = "sealed rows"
    needed = "the address of easeml_referee is needed to compare them"
    if url is None:
        return Check(name, "skipped", needed)
    try:
        store = Store(url)
        try:
            with store.begin() as tx:
                if requests.role(tx) != REFEREE:
                    return Check(name, "skipped", needed)
                with tx.begin_nested() as trial:
                    found = overlapping_sets(tx, artifact_store(place))
                    trial.rollback()
        finally:
            store.close()
    except EasemlError as error:
        return Check(name, "skipped", f"not compared: {error}")
    if not found:
        return Check(name, "ok", "no set in use has rows that are open in another study")
    sets = ", ".join(f"{one.test_set} of {one.study}" for one in found)
    remedy = "`easeml test-set overlaps --retire` as the referee retires them; then seal new sets"
    return Check(name, "failed", f"sets in use whose rows are open in another study: {sets}", remedy)


def check_put_offs(url: str | None) -> Check:
    """Which requests wait because their last attempts met faults of the machine.

    Args:
        url: Address of the role ``easeml_referee``; None where it is not known.
    """
    name, needed = "put-offs", "the address of easeml_referee is needed to list them"
    if url is None:
        return Check(name, "skipped", needed)
    store = Store(url)
    try:
        found = list_put_off(store)
    except EasemlError as error:
        return Check(name, "skipped", f"not listed: {error}")
    finally:
        store.close()
    if found is None:
        return Check(name, "skipped", needed)
    if not found:
        return Check(name, "ok", "no request is put off")
    remedy = (
        "see the referee's log; give its machine or the database what it lacks; the request is tried again by itself"
    )
    return Check(name, "warning", "; ".join(map(sentence, found)), remedy)


def check_clock(skew_seconds: float) -> Check:
    """The database's clock against this machine's: leases go by the former, deadlines are typed by the latter."""
    found = f"the database's clock is {abs(skew_seconds):,.1f} s {'ahead' if skew_seconds > 0 else 'behind'}"
    if abs(skew_seconds) < SKEW_SECONDS:
        return Check("clock", "ok", found)
    state: State = "failed" if abs(skew_seconds) >= BAD_SKEW_SECONDS else "warning"
    return Check("clock", state, found, "let NTP set both clocks (timedatectl set-ntp true)")


def _roles(role: str, missing: list[str]) -> Check:
    if missing:
        remedy = "make them as docs/install.md says, as a superuser"
        return Check("roles", "failed", f"the server lacks {', '.join(missing)}", remedy)
    if role not in health.OURS:
        remedy = "tasks connect as easeml_worker, the referee as easeml_referee, upgrades as easeml_owner"
        return Check("roles", "warning", f"the address is of {role}, no role of ours", remedy)
    if role != WORKER:
        remedy = "never give this address to tasks: theirs is easeml_worker's"
        return Check("roles", "ok", f"all three are there; the address is of {role}", remedy)
    return Check("roles", "ok", "all three are there")


def check_sealed(rights: dict[str, object]) -> Check:
    """The worker must not reach what is sealed, by whatever way.

    Args:
        rights: As of ``store.health.rights_of_worker``.
    """
    ways = {
        "is_super": "it is a superuser, or goes past row rules",
        "is_referee": "it is a member of easeml_referee",
        "is_owner": "it is a member of easeml_owner",
        "may_enter": "it may enter the schema sealed",
    }
    open_ways = [way for name, way in ways.items() if rights[name]]
    if rights["tables"]:
        open_ways.append(f"it has rights on sealed.{', sealed.'.join(rights['tables'])}")  # type: ignore[arg-type]
    if open_ways:
        remedy = "revoke that as a superuser (docs/install.md), and treat what is sealed now as seen: seal new sets"
        return Check("sealed sets", "failed", f"easeml_worker can reach them: {'; '.join(open_ways)}", remedy)
    if rights["may_watch"]:
        remedy = "close PostgreSQL's statistics with the block of docs/install.md, as a superuser"
        return Check(
            "sealed sets", "warning", "closed to tasks, but they may watch how much the referee writes", remedy
        )
    return Check("sealed sets", "ok", "closed to easeml_worker")


def check_schema(revision: str | None) -> Check:
    """The schema's revision against the code's."""
    if revision == schema.REVISION:
        return Check("schema", "ok", f"revision {revision}")
    found = f"revision {revision or 'none'}, this version needs {schema.REVISION}"
    remedy = "run `easeml db upgrade` as easeml_owner; of a revision that is newer, upgrade this program instead"
    return Check("schema", "failed", found, remedy)


def check_referee(tx: Connection) -> Check:
    """Whether what was asked of the referee is answered."""
    waiting = health.waiting_requests(tx)
    now = health.who_and_when(tx)["now"]
    remedy = "see that `easeml referee` runs, and what its log says; it answers what waits as soon as it starts"
    ages = {kind: (many, (now - since).total_seconds()) for kind, (many, since) in waiting.items()}
    late = {kind: told for kind, told in ages.items() if told[1] >= SLOW_SECONDS}
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
