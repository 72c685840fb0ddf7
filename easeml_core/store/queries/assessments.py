"""A row for each study of what an overview shows of it: the summary as JSON, its standing, and what it needs.

The database's triggers log in ``work.study_changes`` which studies have changed. ``take_changed`` empties the log and
names these studies, and those whose row has come to its ``until``; the caller counts and assesses them in the same
transaction (``services/reports/assessments.py``) and writes their rows by ``keep``. A transaction that fails leaves the
log as it was, and a change that commits meanwhile remains in it.

Device seconds of a tenant and of the last day grow while nothing changes; they are computed when a row is read.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_core.formats.encoding import from_json, to_json, typed_record
from easeml_core.store.database import lock
from easeml_core.store.queries.overview import InstallationTotals, StudySummary
from easeml_core.store.rows import change, record, records, rows

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import JsonObject


@typed_record
class KeptNeed:
    """A step that needs a person; ``kind`` and ``severity`` as of ``services.reports.recommendations.Step``."""

    kind: str
    severity: str
    title: str
    since: datetime | None


@typed_record
class KeptAssessment:
    """One row.

    Attributes:
        shown: False of a refused study whose name another one has taken.
        until: When it is out of date although nothing has changed; None for never.
        standing: As of ``services.reports.recommendations.Standing``.
        urgency: Place of its worst step that needs a person among the kinds; their number where none does.
        is_bad: Whether the worst step is ``bad``.
        needs: The steps that need a person, worst first.
        holding: Kinds of the events that hold now.
        rise: Of the best quality in a day; None where there is nothing to compare.
        judging: Whether the gate or the meter has a request to answer.
        due_weight: Share of the compute that is due to it, as a weight; 0 for one that is not active.
        charged: As of ``CountedStudy``; likewise ``open``, ``day_seconds``, ``day_running`` and ``day_since``.
        tenant_spent: Whether its tenant had used up its quota; ``tenant_full`` whether it had as many open trials as
            it may have.
        facts: The summary; but for ``OF_THE_MOMENT``, which is written nowhere.
    """

    study_id: int
    tenant_id: int
    tenant: str
    study: str
    shown: bool
    until: datetime | None
    standing: str
    urgency: int
    is_bad: bool
    needs: list[KeptNeed]
    holding: list[str]
    best_quality: float | None
    rise: float | None
    running: int
    lost: int
    waiting: int
    queued_at: datetime | None
    ended_day: int
    judging: bool
    due_weight: float
    charged: float
    open: int
    day_seconds: float
    day_running: int
    day_since: float
    tenant_spent: bool
    tenant_full: bool
    facts: StudySummary


OF_THE_MOMENT = ("read_at", "seconds_left", "device_seconds_day", "tenant_charged_seconds", "tenant_open_trials")
"""What of a summary is not kept, since it changes while nothing of the study does."""


# -- writing ----------------------------------------------------------------------------------------------------------


def has_changed(tx: Connection) -> bool:
    """Return whether the row of any study is out of date."""
    found = rows(
        tx,
        "SELECT EXISTS (SELECT FROM work.study_changes) OR EXISTS "
        "(SELECT FROM work.assessments WHERE until <= now()) AS changed",
    )
    return bool(found[0].changed)


MOST_CHANGES = 10_000
"""Rows of the log from which on the referee empties it, where no page and no notifier has looked for long."""


def are_many(tx: Connection) -> bool:
    """Return whether the log has ``MOST_CHANGES`` rows or more."""
    counted = "SELECT count(*) AS n FROM (SELECT FROM work.study_changes LIMIT :most) c"
    return bool(rows(tx, counted, most=MOST_CHANGES)[0].n == MOST_CHANGES)


def take_changed(tx: Connection) -> list[int]:
    """Empty the log and return the studies whose rows must be written anew in this transaction.

    One transaction at a time does this, so the next one waits here, and finds what is left.
    """
    lock(tx, "assess")
    found = rows(
        tx,
        "WITH gone AS (UPDATE work.study_changes SET taken = true RETURNING study_id) "
        "SELECT study_id FROM gone UNION SELECT study_id FROM work.assessments WHERE until <= now()",
    )
    return [r.study_id for r in found]


_OF_TENANTS = """
WITH taken AS (
  SELECT t.id, sum(k.charged) >= t.quota_seconds AS spent, sum(k.open) >= t.max_parallel AS full FROM work.tenants t
  JOIN work.assessments k ON k.tenant_id = t.id
  WHERE (t.quota_seconds IS NOT NULL OR t.max_parallel IS NOT NULL)
  AND t.id IN (SELECT tenant_id FROM work.studies WHERE id = ANY(CAST(:ids AS bigint[])))
  GROUP BY t.id)
SELECT k.study_id FROM work.assessments k JOIN taken t ON t.id = k.tenant_id
WHERE (k.tenant_spent, k.tenant_full) <> (coalesce(t.spent, false), coalesce(t.full, false))
"""


def held_by_tenants(tx: Connection, ids: Collection[int]) -> list[int]:
    """Return studies of these studies' tenants whose rows were written before a limit of the tenant was met or left."""
    return [r.study_id for r in rows(tx, _OF_TENANTS, ids=list(ids))]


_COLUMNS = [f.name for f in fields(KeptAssessment)]
_SET = ", ".join(f"{name} = excluded.{name}" for name in (*_COLUMNS, "kinds") if name != "study_id")
_KEEP = f"""
INSERT INTO work.assessments ({", ".join([*_COLUMNS, "kinds"])})
SELECT {", ".join("coalesce(until, 'infinity')" if name == "until" else name for name in _COLUMNS)},
       ARRAY(SELECT n ->> 'kind' FROM jsonb_array_elements(needs) n)
FROM jsonb_to_recordset(CAST(:written AS jsonb)) AS r (
  study_id bigint, tenant_id bigint, tenant text, study text, shown boolean, until timestamptz, standing text,
  urgency smallint, is_bad boolean, needs jsonb, holding text[], best_quality double precision, rise double precision,
  running integer, lost integer, waiting integer, queued_at timestamptz, ended_day integer, judging boolean,
  due_weight double precision, charged double precision, open integer, day_seconds double precision,
  day_running integer, day_since double precision, tenant_spent boolean, tenant_full boolean, facts jsonb)
ON CONFLICT ON CONSTRAINT assessments_pkey DO UPDATE SET {_SET}
"""


def keep(tx: Connection, written: Sequence[KeptAssessment]) -> None:
    """Write the rows of these studies; each study once."""
    plain = to_json(list(written))
    for row in plain:
        row["facts"] = {name: value for name, value in row["facts"].items() if name not in OF_THE_MOMENT}
    change(tx, _KEEP, written=json.dumps(plain))


# -- reading ----------------------------------------------------------------------------------------------------------

_SEEN = "shown AND (CAST(:names AS text[]) IS NULL OR study = ANY(CAST(:names AS text[])))"
_NOW = "extract(epoch FROM now())::double precision"
_DAY = f"(day_seconds + day_running * {_NOW} - day_since)"

_SUMMARIES = f"""
WITH chosen AS MATERIALIZED (SELECT * FROM work.assessments WHERE {_SEEN} ORDER BY tenant, study LIMIT :limit),
taken AS (
  SELECT tenant_id, sum(charged) AS charged, sum(open)::bigint AS open FROM work.assessments
  WHERE tenant_id IN (SELECT tenant_id FROM chosen) GROUP BY tenant_id)
SELECT facts, now() AS read_at, {_DAY} AS day_seconds, t.charged, t.open
FROM chosen c JOIN taken t ON t.tenant_id = c.tenant_id ORDER BY tenant, study
"""


def kept_summaries(
    tx: Connection, names: Collection[str] | None = None, *, limit: int = 1_000_000
) -> list[StudySummary]:
    """Return the summaries of these studies, or of all, as they were kept; by tenant and name."""
    found = rows(tx, _SUMMARIES, names=None if names is None else list(names), limit=limit)
    return [_read(r) for r in found]


def _read(found: Any) -> StudySummary:
    facts = _summary_of(
        found.facts,
        read_at=found.read_at,
        device_seconds_day=found.day_seconds,
        tenant_charged_seconds=found.charged,
        tenant_open_trials=found.open,
    )
    left = None if facts.deadline is None else (facts.deadline - found.read_at).total_seconds()
    return replace(facts, seconds_left=left)


def _summary_of(facts: JsonObject, **now: Any) -> StudySummary:
    return from_json({**facts, "seconds_left": None, **to_json(now)}, StudySummary)


def totals(tx: Connection) -> InstallationTotals:
    """Return the sums of the whole installation."""
    found = record(
        tx,
        InstallationTotals,
        f"SELECT coalesce(sum({_DAY}), 0) AS seconds, coalesce(sum(due_weight), 0) AS weight FROM work.assessments",
    )
    assert found is not None  # sums are always there
    return found


@typed_record
class Crowd:
    """Numbers of all studies that a viewer may see.

    Attributes:
        needs: Studies of this standing; likewise ``searching``, ``finished`` and ``paused``.
        bad: Of those that need a person, the ones whose worst step is ``bad``.
        training: Trials that run and whose workers answer.
        queued_at: When the first of the waiting trials was suggested.
        with_result: Studies with a result; ``best`` is the sum of their best qualities.
        compared: Studies whose best quality can be compared with that of a day ago; ``rises`` is the sum of the
            differences.
        risen: Studies whose best quality rose within a day, new results included.
        read_at: By the database's clock.
    """

    studies: int
    tenants: int
    needs: int
    bad: int
    searching: int
    finished: int
    paused: int
    training: int
    waiting: int
    queued_at: datetime | None
    ended_day: int
    judging: int
    with_result: int
    best: float
    compared: int
    rises: float
    risen: int
    read_at: datetime


_CROWD = f"""
SELECT count(*) AS studies, count(DISTINCT tenant_id) AS tenants,
       count(*) FILTER (WHERE standing = 'needs') AS needs,
       count(*) FILTER (WHERE standing = 'needs' AND is_bad) AS bad,
       count(*) FILTER (WHERE standing = 'searching') AS searching,
       count(*) FILTER (WHERE standing = 'finished') AS finished,
       count(*) FILTER (WHERE standing = 'paused') AS paused,
       coalesce(sum(running - lost), 0) AS training, coalesce(sum(waiting), 0) AS waiting,
       min(queued_at) AS queued_at, coalesce(sum(ended_day), 0) AS ended_day,
       count(*) FILTER (WHERE judging) AS judging, count(best_quality) AS with_result,
       coalesce(sum(best_quality), 0) AS best, count(rise) AS compared, coalesce(sum(rise), 0) AS rises,
       count(*) FILTER (WHERE rise > 0 OR (rise IS NULL AND best_quality IS NOT NULL)) AS risen,
       now() AS read_at
FROM work.assessments WHERE {_SEEN}
"""


def crowd(tx: Connection, names: Collection[str] | None) -> Crowd:
    """Return the numbers of these studies, or of all."""
    found = record(tx, Crowd, _CROWD, names=None if names is None else list(names))
    assert found is not None  # counts are always there
    return found


@typed_record
class KindOfNeed:
    """All steps of a kind that need a person.

    Attributes:
        studies: How many studies have one.
        since: Of the oldest.
        title: Of all, where they have the same one.
        names: Of the studies, the first ``NAMED`` by name.
        oldest: The study of the oldest.
    """

    kind: str
    severity: str
    studies: int
    since: datetime | None
    title: str | None
    names: list[str]
    oldest: str


NAMED = 6
"""Largest number of studies that a kind of need names."""

_KINDS = f"""
SELECT n.kind, n.severity, count(*) AS studies, min(n.since) AS since,
       CASE WHEN min(n.title) = max(n.title) THEN min(n.title) END AS title,
       (array_agg(study ORDER BY study COLLATE "C"))[1:{NAMED}] AS names,
       (array_agg(study ORDER BY n.since, study COLLATE "C"))[1] AS oldest
FROM work.assessments a, jsonb_to_recordset(a.needs) AS n (kind text, severity text, title text, since timestamptz)
WHERE a.kinds <> ARRAY[]::text[] AND {_SEEN} GROUP BY n.kind, n.severity
"""


def kinds_of_needs(tx: Connection, names: Collection[str] | None) -> list[KindOfNeed]:
    """Return what these studies, or all, need a person for."""
    return records(tx, KindOfNeed, _KINDS, names=None if names is None else list(names))


def worst_first(tx: Connection, *, limit: int) -> list[str]:
    """Return the first studies by what they need: alerts, decisions, and then those that need no person, by name."""
    found = rows(
        tx,
        "SELECT study FROM work.assessments WHERE shown "
        "ORDER BY standing <> 'needs', NOT is_bad, urgency, study COLLATE \"C\" LIMIT :limit",
        limit=limit,
    )
    return [r.study for r in found]


def in_need(tx: Connection, kind: str, names: Collection[str] | None, *, limit: int) -> list[str]:
    """Return the first studies by name that need a person for this."""
    found = rows(
        tx,
        f"SELECT study FROM work.assessments WHERE :kind = ANY(kinds) AND {_SEEN} "
        'ORDER BY study COLLATE "C" LIMIT :limit',
        kind=kind,
        limit=limit,
        names=None if names is None else list(names),
    )
    return [r.study for r in found]


# -- pages of a table -------------------------------------------------------------------------------------------------

ORDERS = {
    "needs": "urgency",
    "rise": "-coalesce(rise, 0)",
    "due": f"CASE WHEN :seconds > 0 THEN {_DAY} / :seconds ELSE 0 END "
    "- CASE WHEN :weight > 0 THEN due_weight / :weight ELSE 0 END",
    "quality": "-coalesce(best_quality, 0)",
    "name": "0",
}
"""SQL of what a table of studies can be ordered by; studies that are equal in it are ordered by tenant and name."""


@typed_record
class Choice:
    """What a table of studies shows.

    Attributes:
        standing: Only studies with this standing; empty for all.
        kind: Only studies that need a person for this; empty for all.
        text: Only studies whose name or whose tenant's name has this in it, in upper or lower case.
        order: A key of ``ORDERS``.
        names: Only these studies; None for all.
    """

    standing: str
    kind: str
    text: str
    order: str
    names: list[str] | None


_CHOSEN = f"""{_SEEN} AND (:standing = '' OR standing = :standing) AND (:kind = '' OR :kind = ANY(kinds))
AND (:text = '' OR strpos(lower(tenant), lower(:text)) > 0 OR strpos(lower(study), lower(:text)) > 0)"""


_PAGE = f"""
WITH found AS (
  SELECT study, row_number() OVER (ORDER BY %s, tenant COLLATE "C", study COLLATE "C") - 1 AS place
  FROM work.assessments WHERE {_CHOSEN}),
counted AS (SELECT count(*) AS found, max(place) FILTER (WHERE study = :marked) AS marked FROM found),
begins AS (
  SELECT found, least(coalesce(marked, :first) / :size, greatest(found - 1, 0) / :size) * :size AS first FROM counted)
SELECT b.found, b.first,
       ARRAY(SELECT study FROM found WHERE place >= b.first AND place < b.first + :size ORDER BY place) AS names
FROM begins b
"""


@typed_record
class ChosenPage:
    """One page of a choice.

    Attributes:
        found: How many studies the choice has; ``first`` of them are before the page.
        names: Of the studies on the page, in their order.
    """

    found: int
    first: int
    names: list[str]


def chosen_page(
    tx: Connection, choice: Choice, sums: InstallationTotals, *, first: int, size: int, marked: str = ""
) -> ChosenPage:
    """Return one page of a choice."""
    found = record(
        tx,
        ChosenPage,
        _PAGE % ORDERS[choice.order],
        **_values(choice),
        seconds=sums.seconds,
        weight=sums.weight,
        first=first,
        size=size,
        marked=marked,
    )
    assert found is not None  # counts are always there
    return found


def count_chosen(tx: Connection, choice: Choice) -> int:
    """Return how many studies the choice has."""
    found = rows(tx, f"SELECT count(*) AS n FROM work.assessments WHERE {_CHOSEN}", **_values(choice))
    return int(found[0].n)


def _values(choice: Choice) -> dict[str, Any]:
    return {f.name: getattr(choice, f.name) for f in fields(Choice) if f.name != "order"}


def names_on_map(tx: Connection, names: Collection[str] | None) -> list[str]:
    """Return the studies in the order of the map: alerts, decisions, then those that search, are finished, paused."""
    found = rows(
        tx,
        f"SELECT study FROM work.assessments WHERE {_SEEN} "
        "ORDER BY array_position(ARRAY['needs', 'searching', 'finished', 'paused'], standing), NOT is_bad, "
        'tenant COLLATE "C", study COLLATE "C"',
        names=None if names is None else list(names),
    )
    return [r.study for r in found]


def names_like(tx: Connection, text: str, names: Collection[str] | None, *, limit: int) -> list[str]:
    """Return names of studies and tenants that a misspelt one may be: all of few, else those with its first letter."""
    found = rows(
        tx,
        f"WITH known AS (SELECT study AS name FROM work.assessments WHERE {_SEEN} "
        f"UNION SELECT tenant FROM work.assessments WHERE {_SEEN}) "
        "SELECT name FROM known WHERE (SELECT count(*) FROM known) <= :limit OR starts_with(lower(name), :first) "
        'ORDER BY name COLLATE "C" LIMIT :limit',
        names=None if names is None else list(names),
        first=text[:1].lower(),
        limit=limit,
    )
    return [r.name for r in found]


def holding_events(tx: Connection) -> list[tuple[str, str]]:
    """Return the events that hold now: kind and study, by study."""
    found = rows(
        tx,
        "SELECT e.kind, study FROM work.assessments, unnest(holding) AS e (kind) WHERE shown ORDER BY tenant, study",
    )
    return [(r.kind, r.study) for r in found]


# -- checking ---------------------------------------------------------------------------------------------------------


def without_row(tx: Connection) -> list[str]:
    """Return studies that have no row and wait for none."""
    found = rows(
        tx,
        "SELECT name FROM work.studies WHERE id NOT IN (SELECT study_id FROM work.assessments) "
        "AND id NOT IN (SELECT study_id FROM work.study_changes) ORDER BY id",
    )
    return [r.name for r in found]


def kept_rows(tx: Connection, after: int, *, limit: int) -> list[KeptAssessment]:
    """Return rows that are up to date, by study, of studies with a number above ``after``."""
    names = ", ".join("nullif(until, 'infinity') AS until" if name == "until" else name for name in _COLUMNS)
    found = rows(
        tx,
        f"SELECT {names}, now() AS read_at FROM work.assessments WHERE study_id > :after AND until > now() "
        "AND study_id NOT IN (SELECT study_id FROM work.study_changes) ORDER BY study_id LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [_kept(dict(r._mapping)) for r in found]


def _kept(found: dict[str, Any]) -> KeptAssessment:
    summed = {"device_seconds_day": 0.0, "tenant_charged_seconds": 0.0, "tenant_open_trials": 0}
    facts = _summary_of(found.pop("facts"), read_at=found.pop("read_at"), **summed)
    return from_json(to_json(found | {"facts": facts}), KeptAssessment)
