"""Rows that the scheduler's decisions read and write: trials, candidates, batches of suggestions, settings.

Large results come as one row of arrays: 200,000 rows of candidates take seconds, the same numbers in arrays a tenth of
that. A request key makes one batch. The newest settings hold; earlier ones never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.entities import JsonObject
from easeml_core.errors import NotFoundError
from easeml_core.formats.encoding import typed_record
from easeml_core.store.database import NEWS_CHANNEL, known_topics
from easeml_core.store.logins import is_tenant, own_key
from easeml_core.store.rows import as_json, change, record, records, row, rows, scalar
from easeml_core.store.tables.trials import RUNS_HERE, offered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import Study


NO_TRIAL = 2**63 - 1
"""As the last trial seen: none counts as new."""


class KnownTrial(NamedTuple):
    """Facts of one trial.

    ``is_over``: it is open, and its lease or its hand-out has run out. ``reevaluates``: it only measured the model of
    that trial anew, and its cost is that of measuring. ``retries``: it takes the place of that trial, which failed
    because of its task.
    """

    id: int
    study_id: int
    candidate_id: int
    data_version_id: int
    state: str
    quality: float | None
    cost_seconds: float | None
    lost_seconds: float
    limit_seconds: float | None
    device: str | None
    finished_at: datetime | None
    is_over: bool
    reevaluates: int | None = None
    retries: int | None = None
    failure_kind: str | None = None
    start_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """The changes since the last look.

    Attributes:
        now: Beginning of the transaction.
        catalogue: Version of tenants, studies, candidates and data.
        settings_id: Settings of the scheduler that hold now; None for the program's own.
        batch_id: Batch that this request key has made already, or None.
        trials: Those that are new, and those that were asked about, by id.
    """

    now: datetime
    catalogue: int
    settings_id: int | None
    batch_id: int | None
    trials: tuple[KnownTrial, ...]


class Menu(NamedTuple):
    """Candidates of one study in the order they were added; ``devices`` of each, or empty where all run anywhere."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    devices: tuple[frozenset[str] | None, ...] = ()


# A result that the referee has measured and that did not hold counts as a failure of its candidate.
_COLUMNS = """t.id, t.study_id, t.candidate_id, t.data_version_id,
  CASE WHEN q.trial_id IS NULL THEN t.state ELSE 'FAILED' END AS state,
  CASE WHEN q.trial_id IS NULL THEN o.quality END AS quality, t.cost_seconds, t.lost_seconds,
  t.limit_seconds, t.device, t.finished_at"""
_TRIALS = f"""SELECT {_COLUMNS}, t.finished_at IS NULL AND coalesce(t.lease_until < now(), true) AS is_over,
  t.reevaluates, t.retries, t.failure_kind, t.start_seconds
  FROM work.trials t LEFT JOIN work.observations o ON o.trial_id = t.id
  LEFT JOIN work.quality_checks q ON q.trial_id = t.id AND q.outcome = 'not held'"""
# Functions, whose plans a session keeps: to plan took longer than to execute.
_SEEN = "SELECT work.seen(%(key)s, %(last)s, %(known)s)"
_LOOK = "SELECT work.look(%(key)s, %(last)s, %(known)s)"


def look(tx: Connection, *, request_key: str, last: int = NO_TRIAL, known: Sequence[int] = ()) -> Look:
    """Take the lock ``suggest``, under which alone trials are made, and look what has changed."""
    return _look_of(tx, _LOOK, request_key, last, known)


def glance(tx: Connection, *, last: int = NO_TRIAL, known: Sequence[int] = (), request_key: str = "") -> Look:
    """As ``look``, for a caller that decides nothing: without the lock, in a transaction of ``Store.snapshot``."""
    return _look_of(tx, _SEEN, request_key, last, known)


def _look_of(tx: Connection, sql: str, key: str, last: int, known: Sequence[int]) -> Look:
    values = {"key": key, "last": last, "known": list(known)}
    now, catalogue, settings_id, batch_id, trials = tx.exec_driver_sql(sql, values).scalar_one()
    return Look(_moment(now), catalogue, settings_id, batch_id, tuple(map(_known, trials or ())))


def _known(fields: list[Any]) -> KnownTrial:
    trial = KnownTrial._make(fields)
    return trial if trial.finished_at is None else trial._replace(finished_at=_moment(fields[10]))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def training_functions(tx: Connection) -> list[str]:
    """Names of the training functions that candidates need, over all studies; see ``Trial.function``."""
    found = rows(tx, "SELECT DISTINCT split_part(name, '-', 1) AS name FROM work.candidates WHERE kind = 'function'")
    return sorted(r.name for r in found)


def all_trials(tx: Connection) -> list[KnownTrial]:
    """Return all trials: the ended ones by the time of their end, then the open ones in the order of suggestion."""
    arrays = ", ".join(f"array_agg({name})" for name in KnownTrial._fields)
    found = row(tx, f"SELECT {arrays} FROM ({_TRIALS} ORDER BY t.finished_at NULLS LAST, t.id) t")
    return [] if found is None or found[0] is None else list(map(KnownTrial._make, zip(*found, strict=True)))


def menus(
    tx: Connection,
    study_ids: Sequence[int],
    *,
    functions: Iterable[str] = (),
    trainers: bool = True,
    runtimes: Iterable[str] | None = None,
) -> dict[int, Menu]:
    """Return the candidates of these studies; studies without any are left out.

    A candidate that the caller cannot execute is left out until it has a trial on the newest data.
    """
    found = rows(
        tx,
        "SELECT study_id, array_agg(id) AS ids, array_agg(name) AS names, "
        "CASE WHEN count(devices) > 0 THEN jsonb_agg(devices) END AS devices FROM "
        f"(SELECT c.study_id, c.id, c.name, c.devices FROM work.candidates c WHERE study_id = ANY(:ids) "
        f"AND (({RUNS_HERE} AND c.withdrawn_at IS NULL) OR EXISTS "
        "(SELECT FROM work.trials t WHERE t.candidate_id = c.id AND t.data_version_id = "
        "(SELECT max(id) FROM work.data_versions v WHERE v.study_id = c.study_id))) ORDER BY study_id, id) c "
        "GROUP BY study_id",
        ids=list(study_ids),
        **offered(functions, trainers=trainers, runtimes=runtimes),
    )
    same: dict[tuple[str, ...], tuple[str, ...]] = {}
    made = {}
    for r in found:
        names = tuple(r.names)
        devices = () if r.devices is None else tuple(None if d is None else frozenset(d) for d in r.devices)
        made[r.study_id] = Menu(tuple(r.ids), same.setdefault(names, names), devices)
    return made


def candidate_names(tx: Connection, candidate_ids: Sequence[int]) -> dict[int, str]:
    """Names of candidates by id."""
    found = rows(tx, "SELECT id, name FROM work.candidates WHERE id = ANY(:ids)", ids=list(candidate_ids))
    return {r.id: r.name for r in found}


_ADD = """SELECT * FROM work.add_decision(%(batch_id)s, %(request_key)s, %(policy)s, %(requested)s, %(position)s,
  %(study_id)s, %(candidate_id)s, %(data_version_id)s, %(device)s, %(limit_seconds)s, %(reasons)s, %(rival)s,
  %(reserve_seconds)s, %(channel)s, %(topics)s)"""


# What names another tenant's study lies apart, for who may read it.
_REASONS = "coalesce(g.reasons - 'of_other_tenant' || work.rival_of(g.batch_id, g.position), g.reasons)"


@typed_record
class SuggestedTrial:
    """A trial that was handed out, with the reason in one sentence."""

    trial_id: int
    study: str
    candidate: str
    reason: str


class Batch(NamedTuple):
    """A batch of suggestions that is written with its first trial; ``id`` is None until then."""

    request_key: str
    policy: str
    requested: int
    id: int | None = None


def add_decision(
    tx: Connection,
    *,
    batch: Batch,
    position: int,
    study: Study,
    candidate_id: int,
    data_version_id: int,
    device: str | None,
    limit_seconds: float | None,
    reasons: JsonObject,
    rival: JsonObject | None,
    reserve_seconds: float,
) -> tuple[int, int]:
    """Add a SUGGESTED trial with its reasons to a batch, reserved for the caller; return ids of batch and trial.

    The pages of the study are notified once the transaction commits. ``rival`` takes the place of some of the reasons
    for who may read the studies of the tenant that it names.
    """
    values = {
        "batch_id": batch.id,
        "request_key": batch.request_key,
        "policy": batch.policy,
        "requested": batch.requested,
        "position": position,
        "channel": NEWS_CHANNEL,
        "topics": known_topics(f"study:{study.name}"),
        "study_id": study.id,
        "candidate_id": candidate_id,
        "data_version_id": data_version_id,
        "device": device,
        "limit_seconds": limit_seconds,
        "reasons": as_json(reasons),
        "rival": None if rival is None else as_json(rival),
        "reserve_seconds": reserve_seconds,
    }
    batch_id, trial_id = tx.exec_driver_sql(_ADD, values).one()
    return batch_id, trial_id


def add_batch(tx: Connection, *, request_key: str, policy: str, requested: int) -> int | None:
    """Add a batch of suggestions; None when this request key has one already.

    It names the present settings; a change of settings holds the lock ``suggest``, as the scheduler does.
    """
    found = scalar(
        tx,
        "INSERT INTO work.suggestion_batches (request_key, policy, requested, settings_id) "
        "VALUES (:key, :policy, :requested, (SELECT max(id) FROM work.selection_settings)) "
        "ON CONFLICT ON CONSTRAINT suggestion_batches_request_key DO NOTHING RETURNING id",
        key=request_key,
        policy=policy,
        requested=requested,
    )
    return None if found is None else int(found)


def batch_of_request(tx: Connection, request_key: str) -> tuple[str, list[SuggestedTrial]]:
    """Return policy and suggestions of the batch that this request key has made, in their order."""
    key = own_key(tx, request_key)
    policy = scalar(tx, "SELECT policy FROM work.suggestion_batches WHERE request_key = :key", key=key)
    if policy is None:
        raise NotFoundError(kind="batch of suggestions for request", name=request_key)
    found = records(
        tx,
        SuggestedTrial,
        f"SELECT g.trial_id, s.name AS study, c.name AS candidate, {_REASONS} ->> 'sentence' AS reason "
        "FROM work.suggestion_batches b JOIN work.suggestions g ON g.batch_id = b.id "
        "JOIN work.trials t ON t.id = g.trial_id JOIN work.studies s ON s.id = t.study_id "
        "JOIN work.candidates c ON c.id = t.candidate_id WHERE b.request_key = :key ORDER BY g.position",
        key=key,
    )
    return policy, found


def add_suggestion(
    tx: Connection, *, batch_id: int, position: int, trial_id: int, reasons: JsonObject, reserve_seconds: float
) -> None:
    """Put a trial on a batch and reserve it for the caller."""
    change(
        tx,
        "INSERT INTO work.suggestions (batch_id, position, trial_id, reasons) "
        "VALUES (:batch_id, :position, :trial_id, CAST(:reasons AS jsonb))",
        batch_id=batch_id,
        position=position,
        trial_id=trial_id,
        reasons=as_json(reasons),
    )
    change(
        tx,
        "UPDATE work.trials SET lease_until = now() + make_interval(secs => :seconds) WHERE id = :id",
        id=trial_id,
        seconds=reserve_seconds,
    )


@typed_record
class Suggested:
    """One time that a trial was handed out.

    Attributes:
        batch_id: The batch of suggestions.
        position: In the batch, from 0.
        requested: How many trials the batch was asked for.
        created_at: When.
        policy: Which policy chose it.
        settings_id: The settings that held; None for the program's own.
        config: These settings, as the version that stored them wrote them.
        reasons: Figures and sentence of the choice, likewise.
    """

    batch_id: int
    position: int
    requested: int
    created_at: datetime
    policy: str
    settings_id: int | None
    config: JsonObject | None
    reasons: JsonObject


def suggestions_of_trial(tx: Connection, trial_id: int) -> list[Suggested]:
    """Return every time that the trial was handed out, oldest first."""
    return records(
        tx,
        Suggested,
        "SELECT b.id AS batch_id, g.position, b.requested, b.created_at, b.policy, b.settings_id, s.config, "
        f"{_REASONS} AS reasons "
        "FROM work.suggestions g JOIN work.suggestion_batches b ON b.id = g.batch_id "
        "LEFT JOIN work.selection_settings s ON s.id = b.settings_id WHERE g.trial_id = :id ORDER BY b.id",
        id=trial_id,
    )


@typed_record
class TrialResult:
    """Quality and cost of a trial, and the best quality of its study on the same data when it ended; None before.

    ``reevaluates`` is the trial whose model it evaluated again; None where it trained one itself.
    """

    quality: float | None
    cost_seconds: float | None
    reevaluates: int | None
    best_before: float | None


def outcome_of_trial(tx: Connection, trial_id: int) -> TrialResult:
    """Return the result of a trial."""
    found = record(tx, TrialResult, _OUTCOME, id=trial_id)
    if found is None:
        raise NotFoundError(kind="trial", name=trial_id)
    return found


_OUTCOME = """
SELECT o.quality, t.cost_seconds, t.reevaluates, (
  SELECT max(b.quality) FROM work.observations b JOIN work.trials x ON x.id = b.trial_id
  WHERE x.study_id = t.study_id AND x.data_version_id = t.data_version_id
  AND NOT EXISTS (SELECT FROM work.quality_checks q WHERE q.trial_id = x.id AND q.outcome = 'not held')
  AND (x.finished_at, x.id) < (t.finished_at, t.id)) AS best_before
FROM work.trials t LEFT JOIN work.observations o ON o.trial_id = t.id WHERE t.id = :id
"""


@typed_record
class StoredSettings:
    """One change of the settings.

    Attributes:
        id: Grows with every change.
        config: ``SelectionConfig`` as plain JSON.
        reason: Why they were changed.
        report: The backtest behind the change, or None.
        created_at: When, by the database's clock.
        created_by: Role of the database that wrote them.
    """

    id: int
    config: JsonObject
    reason: str
    report: JsonObject | None
    created_at: datetime
    created_by: str


_SETTINGS = "SELECT id, config, {reason}, created_at, created_by FROM work.selection_settings "


def _settings(tx: Connection) -> str:
    """Return the query; the report behind settings names studies of all tenants, so a tenant's login reads none."""
    return _SETTINGS.format(reason="'' AS reason, NULL::jsonb AS report" if is_tenant(tx) else "reason, report")


def replaced_lately(tx: Connection) -> tuple[int, int, str | None]:
    """Return how often the default policy took the place of the one that is set."""
    (found,) = rows(
        tx,
        "SELECT count(*) AS chosen, count(g.reasons ->> 'instead_of') AS replaced, "
        "(array_agg(g.reasons ->> 'instead_of' ORDER BY b.id DESC) FILTER (WHERE g.reasons ? 'instead_of'))[1] AS why "
        "FROM work.suggestions g JOIN work.suggestion_batches b ON b.id = g.batch_id "
        "WHERE b.created_at > now() - interval '1 day'",
    )
    return found.chosen, found.replaced, found.why


def newest_settings(tx: Connection) -> StoredSettings | None:
    """Return the settings that hold now; None where none were ever stored."""
    return record(tx, StoredSettings, _settings(tx) + "ORDER BY id DESC LIMIT 1")


def list_settings(tx: Connection, *, limit: int = 100) -> list[StoredSettings]:
    """Return the latest changes, newest first."""
    return records(tx, StoredSettings, _settings(tx) + "ORDER BY id DESC LIMIT :limit", limit=limit)


def add_settings(tx: Connection, *, config: JsonObject, reason: str, report: JsonObject | None = None) -> int:
    """New settings, which hold from now on; their id. Role ``easeml_owner``."""
    return int(
        scalar(
            tx,
            "INSERT INTO work.selection_settings (config, reason, report) "
            "VALUES (CAST(:config AS jsonb), :reason, CAST(:report AS jsonb)) RETURNING id",
            config=as_json(config),
            reason=reason,
            report=None if report is None else as_json(report),
        )
    )


def may_look(tx: Connection) -> bool:
    """Whether this transaction's role may read settings; the referee's may not."""
    return bool(scalar(tx, "SELECT has_table_privilege('work.selection_settings', 'SELECT')"))


def may_set(tx: Connection) -> bool:
    """Whether this transaction's role may write settings."""
    return bool(scalar(tx, "SELECT has_table_privilege('work.selection_settings', 'INSERT')"))
