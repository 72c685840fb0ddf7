"""Tenants with their limits, studies, candidates and data versions; the stamp of what a scheduler must know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.entities import Candidate, DataVersion, JsonObject, Parameters, Study, StudyState, Task, Tenant
from easeml_core.errors import AlreadyExistsError, NotFoundError
from easeml_core.formats.encoding import typed_record
from easeml_core.store.callers import is_viewer, own_rights
from easeml_core.store.logins import is_tenant, own_key
from easeml_core.store.rows import as_json, change, record, row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection


GONE = "('REFUSED', 'ARCHIVED')"
"""SQL: states in which a study has given its name back, so that another one may have it."""

SETTABLE = ("weight", "priority", "budget_seconds", "deadline", "target_quality")
"""Settings of a registered study that may be changed."""

COLUMNS = """
s.id, s.name, t.name AS tenant, s.state, d.source, d.target, s.metric, s.weight * t.weight AS weight,
s.budget_seconds, s.config, s.priority, s.deadline, s.target_quality, s.task, s.hit, s.program,
extract(epoch FROM s.deadline - now())::double precision AS seconds_left,
greatest(s.active_since, (SELECT max(created_at) FROM work.data_versions
                          WHERE study_id = s.id AND same_training_as IS NULL)) AS joined_at
"""
"""What ``study_of`` needs of the rows of ``TABLES``."""

TABLES = """
FROM work.studies s JOIN work.tenants t ON t.id = s.tenant_id JOIN work.data_sets d ON d.id = s.data_set_id
"""

_STUDY = f"SELECT {COLUMNS} {TABLES}"


def study_of(values: dict[str, Any]) -> Study:
    """Return a study from its ``COLUMNS``."""
    return Study(**values | {"state": StudyState(values["state"]), "task": Task(values["task"])})


def add_tenant(tx: Connection, *, name: str, weight: float = 1.0) -> int:
    """The tenant's id; made when new, for which a tenant's login has no right."""
    known = "SELECT id FROM work.tenants WHERE name = :name"
    if (found := scalar(tx, known, name=name)) is not None:
        return int(found)
    added = (
        "INSERT INTO work.tenants (name, weight) VALUES (:name, :weight) ON CONFLICT ON CONSTRAINT tenants_name_key "
        "DO NOTHING RETURNING id"
    )
    if is_viewer(tx):
        with own_rights(tx) as new:
            new += [r.id for r in rows(tx, added, name=name, weight=weight)]
    else:
        change(tx, added, name=name, weight=weight)
    found = scalar(tx, known, name=name)
    if found is None:
        raise NotFoundError(kind="tenant", name=name, remedy="name one whose studies you may change")
    return int(found)


def add_data_set(tx: Connection, *, tenant_id: int, source: str, target: str) -> int:
    """The data set's id; made when new."""
    change(
        tx,
        "INSERT INTO work.data_sets (tenant_id, source, target) VALUES (:tenant_id, :source, :target) "
        "ON CONFLICT ON CONSTRAINT data_sets_source_key DO NOTHING",
        tenant_id=tenant_id,
        source=source,
        target=target,
    )
    found = scalar(
        tx,
        "SELECT id FROM work.data_sets WHERE tenant_id = :tenant_id AND source = :source AND target = :target",
        tenant_id=tenant_id,
        source=source,
        target=target,
    )
    return int(found)


def add_study(
    tx: Connection,
    *,
    name: str,
    tenant_id: int,
    data_set_id: int,
    metric: str,
    weight: float,
    budget_seconds: float | None,
    config: JsonObject,
    request_key: str,
    priority: int = 0,
    deadline: datetime | None = None,
    target_quality: float | None = None,
    task: Task = Task.CLASSIFICATION,
    hit: str = "accuracy",
    program: str | None = None,
) -> int | None:
    """The new study's id, or None when this request key has made one already."""
    request_key = own_key(tx, request_key)
    found = scalar(
        tx,
        "INSERT INTO work.studies (name, tenant_id, data_set_id, metric, weight, budget_seconds, config, request_key, "
        "priority, deadline, target_quality, task, hit, program) "
        "VALUES (:name, :tenant_id, :data_set_id, :metric, :weight, :budget_seconds, CAST(:config AS jsonb), "
        # Without naming one constraint: else a simultaneous repetition could trip over the name it is about to find.
        ":request_key, :priority, :deadline, :target_quality, :task, :hit, :program) ON CONFLICT DO NOTHING "
        "RETURNING id",
        name=name,
        tenant_id=tenant_id,
        data_set_id=data_set_id,
        metric=metric,
        weight=weight,
        budget_seconds=budget_seconds,
        config=as_json(config),
        request_key=request_key,
        priority=priority,
        deadline=deadline,
        target_quality=target_quality,
        task=task,
        hit=hit,
        program=program,
    )
    if found is None and row(tx, "SELECT 1 FROM work.studies WHERE request_key = :key", key=request_key) is None:
        raise AlreadyExistsError(kind="study", name=name, remedy="choose another name")
    return None if found is None else int(found)


def study_of_request(tx: Connection, request_key: str) -> Study:
    """The study that this request key has made."""
    found = row(tx, _STUDY + "WHERE s.request_key = :key", key=own_key(tx, request_key))
    if found is None:
        raise NotFoundError(kind="study made by request", name=request_key)
    return study_of(found._asdict())


def names_and_tenants(tx: Connection) -> list[tuple[str, str]]:
    """Every study's name with its tenant's, by name; of a name that was given back and given again the last one."""
    found = rows(
        tx,
        "SELECT DISTINCT ON (s.name) s.name, t.name AS tenant FROM work.studies s JOIN work.tenants t "
        f"ON t.id = s.tenant_id ORDER BY s.name, s.state IN {GONE}, s.id DESC",
    )
    return [(r.name, r.tenant) for r in found]


def get_study(tx: Connection, name: str) -> Study:
    """The study of this name; of those that were refused or archived the last one, where none stands."""
    called, _, number = name.partition("@")
    of_number = "AND s.id = :id " if number.isdecimal() and len(number) < 19 else ""
    found = row(
        tx,
        _STUDY + f"WHERE s.name = :name {of_number}ORDER BY s.state IN {GONE}, s.id DESC LIMIT 1",
        name=called if of_number else name,
        **({"id": int(number)} if of_number else {}),
    )
    if found is None:
        known = [r.name for r in rows(tx, "SELECT DISTINCT name FROM work.studies ORDER BY name LIMIT 50")]
        raise NotFoundError(
            kind="study", name=name, known=known, remedy="register it with `easeml study register` or its DAG"
        )
    return study_of(found._asdict())


def is_archived(tx: Connection, tenant: str, name: str) -> bool:
    """Whether the tenant's study of this name is archived, and no other one has taken its name."""
    found = row(tx, _STUDY + f"WHERE s.name = :name ORDER BY s.state IN {GONE}, s.id DESC LIMIT 1", name=name)
    return found is not None and (found.tenant, found.state) == (tenant, StudyState.ARCHIVED)


def require_studies(tx: Connection, names: Sequence[str]) -> None:
    """Refuse a list with a name that no study has, as ``get_study`` would."""
    known = "NOT EXISTS (SELECT FROM work.studies s WHERE s.name = n)"
    missing = scalar(tx, f"SELECT min(n) FROM unnest(CAST(:names AS text[])) n WHERE {known}", names=list(names))
    if missing is not None:
        get_study(tx, missing)


def study_by_id(tx: Connection, study_id: int) -> Study:
    """The study with this id."""
    found = row(tx, _STUDY + "WHERE s.id = :id", id=study_id)
    if found is None:
        raise NotFoundError(kind="study with id", name=study_id)
    return study_of(found._asdict())


def list_studies(tx: Connection, *, state: StudyState | None = None) -> list[Study]:
    """All studies, or those in one state, by name."""
    where = "WHERE s.state = :state " if state else ""
    return [
        study_of(r._asdict())
        for r in rows(tx, _STUDY + where + "ORDER BY s.name", **({"state": state} if state else {}))
    ]


def set_program(tx: Connection, study_id: int, program: str) -> None:
    """Note what goes in and what comes out, in canonical form."""
    change(tx, "UPDATE work.studies SET program = :program WHERE id = :id", id=study_id, program=program)


def set_study_state(tx: Connection, study_id: int, state: StudyState) -> None:
    """Move the study to a state; a tenant's login pauses and resumes its own."""
    if is_tenant(tx):
        scalar(tx, "SELECT work.set_study_paused(:id, :paused)", id=study_id, paused=state is StudyState.PAUSED)
        return
    change(tx, "UPDATE work.studies SET state = :state WHERE id = :id", id=study_id, state=state)


def add_candidates(tx: Connection, study_id: int, candidates: Sequence[Parameters]) -> int:
    """Add candidates ``{"name", "kind", "parameters", "devices"}``; how many are new.

    A name that is there already stays as it is.
    """
    added = 0
    for candidate in candidates:
        devices = candidate.get("devices")
        added += change(
            tx,
            "INSERT INTO work.candidates (study_id, name, kind, parameters, devices) "
            "VALUES (:study_id, :name, :kind, CAST(:parameters AS jsonb), CAST(:devices AS jsonb)) "
            "ON CONFLICT ON CONSTRAINT candidates_name_key DO NOTHING",
            study_id=study_id,
            name=candidate["name"],
            kind=candidate["kind"],
            parameters=as_json(candidate.get("parameters") or {}),
            devices=None if devices is None else as_json(list(devices)),
        )
    return added


def list_candidates(tx: Connection, study_id: int | None = None) -> list[Candidate]:
    """Candidates of one study, or of all, in the order they were added."""
    where = "WHERE study_id = :study_id " if study_id is not None else ""
    found = rows(
        tx,
        f"SELECT id, study_id, name, kind, parameters, devices, withdrawn_at FROM work.candidates {where}ORDER BY id",
        **({"study_id": study_id} if study_id is not None else {}),
    )
    return [Candidate(**r._mapping) for r in found]


VERSION = """
SELECT v.id, v.study_id, v.version, v.content_hash, v.artifact, v.features, v.layout,
       jsonb_array_length(v.class_names) AS classes,
       (SELECT rows FROM work.data_parts p WHERE p.data_version_id = v.id AND p.part = 'train') AS train_rows,
       (SELECT rows FROM work.data_parts p WHERE p.data_version_id = v.id AND p.part = 'validation') AS validation_rows
FROM work.data_versions v
"""
"""Query of the fields of ``DataVersion``, without a condition."""


def add_data_version(
    tx: Connection,
    *,
    study_id: int,
    content_hash: str,
    artifact: str,
    features: int,
    class_names: Sequence[str],
    parts: Mapping[str, int],
    feature_names: Sequence[str] | None = None,
    same_training_as: int | None = None,
    goes_on_with: int | None = None,
    layout: JsonObject | None = None,
) -> int:
    """The next version of the study's data, with the rows of each part; its id.

    ``same_training_as`` is the first version with the very same training part; None where that part is new.
    ``goes_on_with`` is the earlier version whose validation rows most of these are; None where most are new. ``layout``
    is ``{"kind", "shape"}`` of a row.
    """
    version_id = int(
        scalar(
            tx,
            "INSERT INTO work.data_versions (study_id, data_set_id, version, content_hash, artifact, features, "
            "class_names, feature_names, same_training_as, goes_on_with, layout) "
            "SELECT :study_id, (SELECT data_set_id FROM work.studies WHERE id = :study_id), "
            "coalesce(max(version), 0) + 1, :content_hash, :artifact, :features, CAST(:class_names AS jsonb), "
            "CAST(:feature_names AS jsonb), CAST(:same_training_as AS bigint), CAST(:goes_on_with AS bigint), "
            "CAST(:layout AS jsonb) "
            "FROM work.data_versions WHERE study_id = :study_id RETURNING id",
            study_id=study_id,
            content_hash=content_hash,
            artifact=artifact,
            features=features,
            class_names=as_json(list(class_names)),
            feature_names=None if feature_names is None else as_json(list(feature_names)),
            same_training_as=same_training_as,
            goes_on_with=goes_on_with,
            layout=None if layout is None else as_json(layout),
        )
    )
    for part, count in parts.items():
        change(
            tx,
            "INSERT INTO work.data_parts (data_version_id, part, rows) VALUES (:id, :part, :rows)",
            id=version_id,
            part=part,
            rows=count,
        )
    return version_id


def validation_sets(tx: Connection, study_id: int) -> dict[int, int]:
    """Return by version of the study's data the first version with the same validation set.

    A few new rows make no other set, and a new training part leaves the set as it is.
    """
    found = rows(
        tx,
        "SELECT v.version, v.same_training_as IS NULL AS is_refresh, w.version AS goes_on_with "
        "FROM work.data_versions v LEFT JOIN work.data_versions w ON w.id = v.goes_on_with "
        "WHERE v.study_id = :id ORDER BY v.version",
        id=study_id,
    )
    first: dict[int, int] = {}
    for r in found:
        before = r.version - 1 if r.is_refresh else r.goes_on_with
        first[r.version] = first.get(before, r.version)
    return first


def latest_data_version(tx: Connection, study_id: int) -> DataVersion:
    """The newest data of the study."""
    found = row(tx, VERSION + "WHERE v.study_id = :id ORDER BY v.version DESC LIMIT 1", id=study_id)
    if found is None:
        raise _no_data(study_id)
    return DataVersion(**found._mapping)


def _no_data(study_id: int) -> NotFoundError:
    remedy = "wait until the referee has split and sealed its data"
    return NotFoundError(kind="data version of study with id", name=study_id, remedy=remedy)


@typed_record
class RequiredAnswers:
    """What a study requires of the answers of its models.

    Attributes:
        tenant: Whose study it is.
        artifact: Reference of the file with the open parts of its newest data.
        layout: Of that data, as of ``DataVersion``.
        task: What is predicted.
        hit: What counts as right.
    """

    tenant: str
    artifact: str
    layout: JsonObject | None
    task: Task
    hit: str


def required_answers(tx: Connection, study_id: int) -> RequiredAnswers:
    """Return what the study requires of its models' answers, by its newest data."""
    found = record(
        tx,
        RequiredAnswers,
        "SELECT t.name AS tenant, v.artifact, v.layout, s.task, s.hit FROM work.data_versions v JOIN work.studies s "
        "ON s.id = v.study_id JOIN work.tenants t ON t.id = s.tenant_id WHERE v.study_id = :id "
        "ORDER BY v.version DESC LIMIT 1",
        id=study_id,
    )
    if found is None:
        raise _no_data(study_id)
    return found


def latest_data_versions(tx: Connection) -> dict[int, int]:
    """Study id to the id of its newest data version."""
    found = rows(
        tx, "SELECT DISTINCT ON (study_id) study_id, id FROM work.data_versions ORDER BY study_id, version DESC"
    )
    return {r.study_id: r.id for r in found}


def training_rows(tx: Connection) -> dict[int, int]:
    """Data version id to the rows of its training part."""
    found = rows(tx, "SELECT data_version_id, rows FROM work.data_parts WHERE part = 'train'")
    return {r.data_version_id: r.rows for r in found}


def training_parts(tx: Connection) -> dict[int, int]:
    """Data version id to the first version with the same training part, where several versions share one."""
    found = rows(
        tx,
        "SELECT id, same_training_as AS first FROM work.data_versions WHERE same_training_as IS NOT NULL UNION "
        "SELECT same_training_as, same_training_as FROM work.data_versions WHERE same_training_as IS NOT NULL",
    )
    return {r.id: r.first for r in found}


def own_weight(tx: Connection, study_id: int) -> float:
    """The weight of the study itself; that of ``Study`` is multiplied by its tenant's."""
    return float(scalar(tx, "SELECT weight FROM work.studies WHERE id = :id", id=study_id))


def change_study(tx: Connection, study_id: int, changes: Parameters) -> None:
    """Set some of ``SETTABLE``; the database refuses a budget below what is used and reserved."""
    allowed = [name for name in SETTABLE if name in changes]
    if allowed:
        assignments = ", ".join(f"{name} = :{name}" for name in allowed)
        values = {name: changes[name] for name in allowed}
        change(tx, f"UPDATE work.studies SET {assignments} WHERE id = :id", id=study_id, **values)


def class_names(tx: Connection, data_version_id: int) -> list[str]:
    """Names of the classes, by label."""
    return list(scalar(tx, "SELECT class_names FROM work.data_versions WHERE id = :id", id=data_version_id))


def feature_names(tx: Connection, data_version_id: int) -> list[str] | None:
    """Names of the encoded columns, or None when they were not kept."""
    found = scalar(tx, "SELECT feature_names FROM work.data_versions WHERE id = :id", id=data_version_id)
    return None if found is None else list(found)


def data_artifact(tx: Connection, data_version_id: int) -> str:
    """Reference of the file with the open parts of a data version."""
    return str(scalar(tx, "SELECT artifact FROM work.data_versions WHERE id = :id", id=data_version_id))


TENANT_SETTINGS = ("weight", "max_parallel", "quota_seconds")
"""Settings of a tenant that may be changed."""

_TENANTS = """
SELECT t.id, t.name, t.weight, t.max_parallel, t.quota_seconds, coalesce(u.used, 0) AS used_seconds,
       coalesce(u.reserved, 0) AS reserved_seconds, coalesce(u.open, 0) AS open_trials,
       coalesce(n.studies, 0) AS studies, coalesce(c.checked, 0) AS checked_results,
       coalesce(c.not_held, 0) AS not_held, coalesce(c.unacknowledged, 0) AS unacknowledged,
       coalesce(c.unmeasurable, 0) AS unmeasurable, t.archived_at
FROM work.tenants t
LEFT JOIN (SELECT tenant_id, count(*) AS studies FROM work.studies GROUP BY tenant_id) n ON n.tenant_id = t.id
LEFT JOIN (
  SELECT s.tenant_id, sum(x.open)::bigint AS open, sum(x.used) AS used, sum(x.reserved) AS reserved
  FROM work.studies s JOIN (
    SELECT study_id, count(*) FILTER (WHERE finished_at IS NULL) AS open, sum(charged_seconds) AS used,
           sum(limit_seconds - lost_seconds) FILTER (WHERE finished_at IS NULL) AS reserved
    FROM work.trials GROUP BY study_id) x ON x.study_id = s.id
  GROUP BY s.tenant_id) u ON u.tenant_id = t.id
LEFT JOIN (
  SELECT s.tenant_id, count(*) AS checked, count(*) FILTER (WHERE q.outcome = 'not held') AS not_held,
         count(*) FILTER (WHERE q.outcome = 'not held' AND q.acknowledged_at IS NULL) AS unacknowledged,
         count(*) FILTER (WHERE q.outcome = 'unmeasurable') AS unmeasurable
  FROM work.quality_checks q JOIN work.studies s ON s.id = q.study_id GROUP BY s.tenant_id) c ON c.tenant_id = t.id
ORDER BY t.name
"""


def list_tenants(tx: Connection) -> list[Tenant]:
    """All tenants by name."""
    return [Tenant(**r._mapping) for r in rows(tx, _TENANTS)]


def get_tenant(tx: Connection, name: str) -> Tenant:
    """The tenant of this name."""
    found = list_tenants(tx)
    for tenant in found:
        if tenant.name == name:
            return tenant
    remedy = "a tenant is made when its first study is registered"
    raise NotFoundError(kind="tenant", name=name, known=[t.name for t in found][:50], remedy=remedy)


def change_tenant(tx: Connection, tenant_id: int, changes: Parameters) -> None:
    """Set some of ``TENANT_SETTINGS``; the database refuses a limit below what the tenant uses and has reserved."""
    allowed = {name: changes[name] for name in TENANT_SETTINGS if name in changes}
    if allowed:
        assignments = ", ".join(f"{name} = :{name}" for name in allowed)
        change(tx, f"UPDATE work.tenants SET {assignments} WHERE id = :id", id=tenant_id, **allowed)


def acknowledge_results(
    tx: Connection, tenant_id: int, *, trials: Sequence[int], why: str
) -> tuple[list[int], list[str]]:
    """Mark results of a tenant that did not hold as acknowledged."""
    found = rows(
        tx,
        "UPDATE work.quality_checks q SET acknowledged_at = now(), acknowledged_why = :why FROM work.studies s "
        "WHERE s.id = q.study_id AND s.tenant_id = :tenant AND q.outcome = 'not held' AND q.acknowledged_at IS NULL "
        "AND (cardinality(CAST(:trials AS bigint[])) = 0 OR q.trial_id = ANY(CAST(:trials AS bigint[]))) "
        "RETURNING q.trial_id, s.name",
        tenant=tenant_id,
        trials=list(trials),
        why=why,
    )
    return sorted(r.trial_id for r in found), sorted({r.name for r in found})
