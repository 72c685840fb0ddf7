"""What the referee has released: test sets' public side, verdicts, readings and alerts, as symbols only.

Counts, levels and intervals are in ``sealed`` (``sealed.py``), promotions in ``model_life.py``.

``IS_OPEN`` says, as SQL over ``work.alerts a``, whether an alert still asks for something: until a user clears it, or
until the study's state shows that it was resolved. Resolved alerts remain in the study's history.

    kind           resolved once
    overfitting    its validation set was replaced, and the one in use does not continue it; where a set ended too soon,
                   once another is sealed
    drift          its validation set was replaced likewise
    new-test-set   for each system that the set served, one was sealed since, or one waits behind a live one, or a later
                   set has ended: its own alert replaces this one

A better reading resolves none: otherwise a harmless model could hide how far the validation set is used up.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_core.entities import AlertKind, Model, SealedSetPurpose, SealedSetState, Symbol
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.settings.config import MeterConfig, SetConfig
from easeml_core.store.database import notify
from easeml_core.store.rows import change, record, records, row, rows, scalar
from easeml_core.store.tables import chain
from easeml_core.store.tables.chained_rows import READING, VERDICT, of_set
from easeml_core.store.tables.test_sets import PlannedSet, read_plan

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, Row


# Versions are compared, not times: an answer may leave long after it was decided. Readings from before a second version
# existed do not name one.
_READ_ON = """SELECT v.version FROM work.meter_readings n JOIN work.data_versions v ON v.id = n.data_version_id
WHERE n.request_id = a.reading_id"""

# The newest version, and back from each to that whose validation part it continues (``validation_set.heritage``): a few
# new rows resolve nothing. A version with another training part has the same validation part as the version before.
_REPLACED = f"""NOT EXISTS (
WITH RECURSIVE asked AS (SELECT coalesce(({_READ_ON}), 1) AS version), in_use AS (
  (SELECT version, same_training_as, goes_on_with FROM work.data_versions
   WHERE study_id = a.study_id ORDER BY version DESC LIMIT 1)
  UNION ALL
  SELECT b.version, b.same_training_as, b.goes_on_with FROM in_use u JOIN asked ON u.version > asked.version
  JOIN work.data_versions b ON b.study_id = a.study_id AND b.version = CASE WHEN u.same_training_as IS NULL
    THEN u.version - 1 ELSE (SELECT version FROM work.data_versions WHERE id = u.goes_on_with) END)
SELECT FROM in_use JOIN asked USING (version))"""

# Only the audit says when a set was sealed: it may have been planned long before, or be live at once.
_SEALED_SINCE = """(SELECT min(w.at) FROM work.audit w WHERE w.study_id = a.study_id
AND w.act IN ('set sealed', 'set live') AND w.after ->> 'set' = z.id::text) > a.created_at"""

_ANOTHER_METER_SET = f"""EXISTS (SELECT FROM work.test_sets z WHERE z.study_id = a.study_id
AND z.purpose IN ('meter', 'joint') AND {_SEALED_SINCE})"""

# A row for each system that the ended set has served: the purposes of sets that serve it. A set that waits while none
# is live gives no answer.
_FOLLOWED = f"""NOT EXISTS (
SELECT FROM work.test_sets e,
  (VALUES (ARRAY['gate', 'joint']), (ARRAY['meter', 'joint']), (ARRAY['direct'])) k (serving)
WHERE e.id = a.test_set_id AND e.purpose = ANY (k.serving) AND NOT EXISTS (
  SELECT FROM work.test_sets z WHERE z.study_id = a.study_id AND z.purpose = ANY (k.serving) AND z.id <> e.id
  AND CASE z.state WHEN 'planned' THEN false
    WHEN 'sealed' THEN EXISTS (SELECT FROM work.test_sets l WHERE l.study_id = a.study_id
      AND l.purpose = ANY (k.serving) AND l.state = 'live')
    ELSE EXISTS (SELECT FROM work.alerts b WHERE b.test_set_id = z.id AND b.id > a.id) OR {_SEALED_SINCE} END))"""

IS_SERVED = f"""CASE WHEN a.kind = 'new-test-set' THEN {_FOLLOWED}
WHEN a.kind = 'overfitting' AND EXISTS (
  SELECT FROM work.meter_readings n WHERE n.request_id = a.reading_id AND n.signal IS NULL) THEN {_ANOTHER_METER_SET}
ELSE {_REPLACED} END"""
"""True of an alert whose reason is gone."""

IS_OPEN = f"(a.cleared_at IS NULL AND NOT ({IS_SERVED}))"
"""True of an alert that asks for something."""


@typed_record
class PublicSet:
    """The public facts of a sealed set; fields as of ``test_sets.SealedSet``."""

    id: int
    purpose: SealedSetPurpose
    state: SealedSetState
    rows: int
    steps: int
    plan: SetConfig


def public_test_sets(tx: Connection, study_id: int) -> list[PublicSet]:
    """Return the public facts of the study's sealed sets, newest first."""
    found = rows(
        tx,
        "SELECT id, purpose, state, rows, steps, plan FROM work.test_sets WHERE study_id = :id "
        "AND deleted_at IS NULL ORDER BY id DESC",
        id=study_id,
    )
    return [PublicSet(**dict(r._mapping) | read_plan(r) | {"state": SealedSetState(r.state)}) for r in found]


def live_test_set(tx: Connection, study_id: int, purpose: SealedSetPurpose) -> PlannedSet | None:
    """Return the study's live sealed set that serves this purpose.

    Gate and meter have a set each, or share one (``joint``), of which only one is live.
    """
    serving = [purpose.value] + (["joint"] if purpose in (SealedSetPurpose.GATE, SealedSetPurpose.METER) else [])
    found = row(
        tx,
        "SELECT id, purpose, rows, steps, plan, labels_on_demand FROM work.test_sets WHERE study_id = :id "
        "AND purpose = ANY (:serving) AND state = 'live'",
        id=study_id,
        serving=serving,
    )
    if found is None:
        return None
    return PlannedSet(**dict(found._mapping) | read_plan(found))


def hold_study(tx: Connection, study_id: int) -> list[PlannedSet]:
    """Lock the study's sealed sets and production against other referees until the transaction ends; its live sets.

    The lock is on rows that no worker may lock, so that no worker can make the referee wait.
    """
    found = rows(
        tx,
        "WITH held AS MATERIALIZED (SELECT id, purpose, rows, steps, plan, labels_on_demand, state "
        "FROM work.test_sets WHERE study_id = :id ORDER BY id FOR UPDATE) "
        "SELECT id, purpose, rows, steps, plan, labels_on_demand FROM held WHERE state = 'live' ORDER BY id",
        id=study_id,
    )
    return [PlannedSet(**dict(r._mapping) | read_plan(r)) for r in found]


def retire_test_set(tx: Connection, test_set_id: int, why: str = "steps") -> bool:
    """End the life of a sealed set: no further answer will come from it. False when it was not live any more."""
    retired = change(
        tx,
        "UPDATE work.test_sets SET state = 'retired', retired_at = now(), retired_why = :why "
        "WHERE id = :id AND state = 'live'",
        id=test_set_id,
        why=why,
    )
    return bool(retired)


def production_model(tx: Connection, study_id: int) -> Model | None:
    """The study's model in production, or None."""
    return record(
        tx,
        Model,
        "SELECT m.id, m.study_id, m.trial_id, m.format, m.artifact, m.validation_loss FROM work.production p "
        "JOIN work.models m ON m.id = p.model_id WHERE p.study_id = :id",
        id=study_id,
    )


@typed_record
class Verdict:
    """One symbol of the gate, as it is released.

    Attributes:
        model_id: The new model.
        incumbent_id: The old one.
        test_set_id: The set that they were judged on.
        step: Which answer of the gate it is, >= 1.
        symbol: What is released.
        planned: Whether it is about the condition sealed with the set.
        cached: Whether it is the answer that was given to the same question before.
    """

    model_id: int
    incumbent_id: int
    test_set_id: int
    step: int
    symbol: Symbol
    planned: bool
    cached: bool


def add_verdict(tx: Connection, *, request_id: int, study_id: int, verdict: Verdict) -> None:
    """Release one symbol."""
    change(
        tx,
        "INSERT INTO work.gate_verdicts (request_id, study_id, model_id, incumbent_id, test_set_id, purpose, step, "
        "symbol, planned, cached) VALUES (:request_id, :study_id, :model_id, :incumbent_id, :test_set_id, "
        "(SELECT purpose FROM work.test_sets WHERE id = :test_set_id), :step, :symbol, :planned, :cached)",
        request_id=request_id,
        study_id=study_id,
        **row_of(verdict),
    )
    chain.append(tx, of_set(verdict.test_set_id), VERDICT, subject=request_id)


@typed_record
class VerdictRow:
    """A released verdict with the state of its set; fields as of ``Verdict``.

    Attributes:
        steps: The gate's, also where a meter draws on the set too; of a verdict about another condition than the set's,
            those for such answers.
        set_state: Where in its life the set is.
        retired_why: Why it has ended; None while it has not.
        was_last: Whether no ground for a promotion came after it: no other verdict on the sealed condition but a fail.
    """

    study_id: int
    model_id: int
    incumbent_id: int
    step: int
    steps: int
    symbol: Symbol
    planned: bool
    cached: bool
    test_set_id: int
    set_state: SealedSetState
    retired_why: str | None
    was_last: bool


def get_verdict(tx: Connection, request_id: int) -> VerdictRow | None:
    """The released verdict of a request with the state of its set, or None."""
    return record(
        tx,
        VerdictRow,
        "SELECT v.study_id, v.model_id, v.incumbent_id, v.step, CASE WHEN t.purpose = 'joint' "
        "THEN (t.plan -> 'gate' ->> 'steps')::int WHEN v.planned THEN t.steps "
        "ELSE coalesce((t.plan ->> 'other_conditions')::int, t.steps) END AS steps, v.symbol, v.planned, v.cached, "
        "v.test_set_id, t.state AS set_state, t.retired_why, NOT EXISTS (SELECT 1 FROM work.gate_verdicts w "
        "WHERE w.test_set_id = v.test_set_id AND w.step > v.step AND w.planned AND w.symbol <> 'fail') AS was_last "
        "FROM work.gate_verdicts v JOIN work.test_sets t ON t.id = v.test_set_id WHERE v.request_id = :id",
        id=request_id,
    )


@typed_record
class Reading:
    """One reading of the meter, as it is released.

    Attributes:
        model_id: The model that was read.
        test_set_id: The set that it was read on.
        step: Place in the set's ledger, >= 1.
        signal: 1..m; None where the set was retired instead.
        signals: m.
        cached: Whether it is the answer that was given to the same artifact before.
        team: Whose submission it is, 1..K.
        edges: m - 1 boundaries, where they were shifted; None for those of the plan.
        tolerance: What is promised with the signal, in (0, 1); None for that of the plan.
        submissions_left: Of the team; None where there is no last one.
        data_version_id: The data on whose validation part the model's loss was measured; None where unknown.
        direct_test_set_id: The second validation sample that it was read on, too; None without one.
        direct_signal: What the meter there says, 1..m; None without, or where that set was retired instead.
        drift: ``none seen``, ``likely`` or ``certain`` where both meters have answered; else None.
    """

    model_id: int
    test_set_id: int
    step: int
    signal: int | None
    signals: int
    cached: bool
    team: int = 1
    edges: tuple[float, ...] | None = None
    tolerance: float | None = None
    submissions_left: int | None = None
    data_version_id: int | None = None
    direct_test_set_id: int | None = None
    direct_signal: int | None = None
    drift: str | None = None


def add_reading(tx: Connection, *, request_id: int, study_id: int, reading: Reading) -> None:
    """Release one signal, or that the set was retired instead."""
    change(
        tx,
        "INSERT INTO work.meter_readings (request_id, study_id, model_id, test_set_id, purpose, step, signal, signals, "
        "cached, team, edges, tolerance, submissions_left, data_version_id, direct_test_set_id, direct_signal, drift) "
        "VALUES (:request_id, :study_id, :model_id, :test_set_id, (SELECT purpose FROM work.test_sets "
        "WHERE id = :test_set_id), :step, :signal, :signals, :cached, :team, CAST(:edges AS double precision[]), "
        ":tolerance, :submissions_left, :data_version_id, :direct_test_set_id, :direct_signal, :drift)",
        request_id=request_id,
        study_id=study_id,
        **row_of(reading) | {"edges": None if reading.edges is None else list(reading.edges)},
    )
    chain.append(tx, of_set(reading.test_set_id), READING, subject=request_id)


@typed_record
class ReadingRow:
    """A released reading with the plans of its sets; fields as of ``Reading``.

    Attributes:
        plan: Of the set that it was read on.
        direct_plan: Of the second validation sample; None without one.
        alert: The overfitting alert of the first reading of the artifact; a repeated reading raises none.
    """

    signal: int | None
    signals: int
    step: int
    model_id: int
    team: int
    edges: Sequence[float] | None
    tolerance: float | None
    submissions_left: int | None
    cached: bool
    purpose: SealedSetPurpose
    plan: SetConfig
    direct_test_set_id: int | None
    direct_signal: int | None
    drift: str | None
    direct_plan: MeterConfig | None
    alert: str | None


def get_reading(tx: Connection, request_id: int) -> ReadingRow | None:
    """The released reading of a request with the plans of its sets, or None."""
    return _reading(row(tx, _READING + "WHERE r.request_id = :id", id=request_id))


def newest_reading(tx: Connection, study_id: int, *, team: int | None = None) -> ReadingRow | None:
    """The last released reading of a study with the plans of its sets, or None.

    On a set that several teams share, only those of the team count: a team must not see another team's signals.
    """
    newest = "AND (coalesce((t.plan ->> 'teams')::int, 1) = 1 OR r.team = :team) ORDER BY r.request_id DESC LIMIT 1"
    return _reading(row(tx, _READING + "WHERE r.study_id = :id " + newest, id=study_id, team=team))


def _reading(found: Row[Any] | None) -> ReadingRow | None:
    if found is None:
        return None
    direct = None if found.direct_plan is None else MeterConfig.from_json(found.direct_plan)
    return ReadingRow(**dict(found._mapping) | read_plan(found) | {"direct_plan": direct})


_READING = """
SELECT r.signal, r.signals, r.step, r.model_id, r.team, r.edges, r.tolerance, r.submissions_left, r.cached, t.purpose,
       t.plan, r.direct_test_set_id, r.direct_signal, r.drift, d.plan AS direct_plan,
       (SELECT a.message FROM work.meter_readings f JOIN work.alerts a ON a.reading_id = f.request_id
        WHERE f.test_set_id = r.test_set_id AND f.step = r.step AND a.kind = 'overfitting' ORDER BY a.id LIMIT 1)
         AS alert
FROM work.meter_readings r JOIN work.test_sets t ON t.id = r.test_set_id
LEFT JOIN work.test_sets d ON d.id = r.direct_test_set_id
"""


def add_alert(
    tx: Connection,
    *,
    study_id: int,
    study: str,
    message: str,
    request_id: int | None = None,
    test_set_id: int | None = None,
    kind: AlertKind = AlertKind.OVERFITTING,
    over_budget: bool | None = None,
    team: int | None = None,
) -> None:
    """Record an alert and notify listeners of the study and of all studies.

    Numbers of alerts become visible in their order, so that a listener that remembers the last one misses none.
    """
    rows(tx, "SELECT singleton FROM sealed.installation FOR UPDATE")  # no other alert until this one can be seen
    change(
        tx,
        "INSERT INTO work.alerts (study_id, kind, request_id, test_set_id, message, over_budget, team) "
        "VALUES (:study_id, :kind, :request_id, :test_set_id, :message, :over_budget, :team)",
        study_id=study_id,
        kind=kind.value,
        request_id=request_id,
        test_set_id=test_set_id,
        message=message,
        over_budget=over_budget,
        team=team,
    )
    announce_alert(tx, study)


def announce_alert(tx: Connection, study: str) -> None:
    """Notify listeners of the study's alerts, and of all alerts (topic ``alert:*``)."""
    notify(tx, f"alert:{study}", "alert:*")


@typed_record
class Alert:
    """One alert.

    Attributes:
        alert_id: Its number.
        kind: What it is about.
        study: Name of the study.
        message: Public text.
        created_at: When it was raised.
        cleared_at: When it was cleared; None while it was not.
        signal: Of the reading that it is about; None without one.
        signals: How many signals the meter has.
        direct_signal: Likewise of the second validation sample.
        drift: Likewise.
        model_id: The model that was read.
        test_set_id: The set that has ended, for a new one.
        purpose: Of that set.
        over_budget: Whether the overfitting budget is broken.
        team: The team that it is for, of several; None for all.
        is_open: Whether it asks for something still.
    """

    alert_id: int
    kind: AlertKind
    study: str
    message: str
    created_at: datetime
    cleared_at: datetime | None
    signal: int | None
    signals: int | None
    direct_signal: int | None
    drift: str | None
    model_id: int | None
    test_set_id: int | None
    purpose: SealedSetPurpose | None
    over_budget: bool | None
    team: int | None
    is_open: bool


def list_alerts(
    tx: Connection,
    study_id: int | None,
    *,
    after_id: int = 0,
    open_only: bool = False,
    team: int | None = None,
    studies: Collection[str] | None = None,
) -> list[Alert]:
    """Alerts of one study, or of all, or of those that are named, with an id above ``after_id``; oldest first.

    Alerts for one of several teams are listed for that team alone. ``is_open`` is ``IS_OPEN``, evaluated once for each
    alert that was not cleared.
    """
    return records(
        tx,
        Alert,
        "SELECT * FROM (SELECT a.id AS alert_id, a.kind, s.name AS study, a.message, a.created_at, a.cleared_at, "
        "r.signal, r.signals, r.direct_signal, r.drift, r.model_id, a.test_set_id, t.purpose, a.over_budget, a.team, "
        f"{IS_OPEN} AS is_open FROM work.alerts a "
        "LEFT JOIN work.meter_readings r ON r.request_id = a.reading_id "
        "LEFT JOIN work.test_sets t ON t.id = a.test_set_id "
        "JOIN work.studies s ON s.id = a.study_id WHERE (a.study_id = :id OR CAST(:id AS bigint) IS NULL) "
        "AND (CAST(:names AS text[]) IS NULL OR s.name = ANY (:names)) "
        "AND (s.state <> 'ARCHIVED' OR a.study_id = :id) AND (NOT :open_only OR a.cleared_at IS NULL) "
        "AND a.id > :after AND (a.team IS NULL OR a.team = :team) OFFSET 0) a "
        "WHERE NOT :open_only OR a.is_open ORDER BY a.alert_id",
        id=study_id,
        team=team,
        after=after_id,
        open_only=open_only,
        names=None if studies is None else list(studies),
    )


def newest_alert(tx: Connection, study_id: int | None, *, team: int | None = None) -> int:
    """Number of the newest alert of those that ``list_alerts`` gives; 0 when there is none."""
    return int(
        scalar(
            tx,
            "SELECT coalesce(max(id), 0) FROM work.alerts WHERE (study_id = :id OR CAST(:id AS bigint) IS NULL) "
            "AND (team IS NULL OR team = :team)",
            id=study_id,
            team=team,
        )
    )


def clear_alert(tx: Connection, alert_id: int) -> bool:
    """Mark an alert as dealt with; False when it was already, or is unknown."""
    return bool(
        change(
            tx,
            "UPDATE work.alerts SET cleared_at = now() WHERE id = :id AND cleared_at IS NULL",
            id=alert_id,
        )
    )
