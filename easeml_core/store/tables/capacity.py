"""What may still be trained, and where: reservations of device seconds, candidates without a result, live devices.

A reservation is the most that an open trial may take, so that no training exceeds a budget or a quota. The database
enforces the rule for every writer (``work.check_budget``, ``work.check_quota``); this module reserves, and reports what
is left and whether the end of a trial could give a device work.

Each host announces its devices and which slots are held. Time is the database's clock. A device is live while a process
has announced it within ``SILENT_SECONDS``; a row that was not renewed for an hour is deleted by the next announcement
under any login (``work.announce_device``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.formats.encoding import typed_record
from easeml_core.store.logins import LOGIN_PREFIX, is_tenant
from easeml_core.store.rows import change, clean, records, rows, scalar
from easeml_core.store.tables.trials import RUNS_HERE, offered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection


def seconds_left(tx: Connection, study_id: int) -> float | None:
    """Device seconds that may still be reserved for the study: of its budget, or its tenant's quota where that is less.

    None where neither is set. 0 where nothing is left, also when more is taken than allowed: measuring a model anew is
    counted but never refused.
    """
    found = scalar(
        tx,
        "SELECT least("
        "s.budget_seconds - (SELECT coalesce(sum(work.charge(t)), 0) FROM work.trials t WHERE t.study_id = s.id), "
        "o.quota_seconds - (SELECT coalesce(sum(work.charge(t)), 0) FROM work.trials t JOIN work.studies x "
        "ON x.id = t.study_id WHERE x.tenant_id = o.id)) "
        "FROM work.studies s JOIN work.tenants o ON o.id = s.tenant_id WHERE s.id = :id",
        id=study_id,
    )
    return None if found is None else max(0.0, float(found))


def reserve(tx: Connection, trial_id: int, limit_seconds: float | None) -> None:
    """Reserve device seconds for all attempts of an open trial, the lost ones included."""
    change(
        tx,
        "UPDATE work.trials SET limit_seconds = :seconds WHERE id = :id AND state IN ('SUGGESTED', 'RUNNING')",
        id=trial_id,
        seconds=limit_seconds,
    )


def reserve_open(
    tx: Connection, *, study_id: int | None = None, tenant_id: int | None = None, time_limit: float, grace: float
) -> int:
    """Give every open trial of a study, or of a tenant, the reservation that it began without; how many there were.

    Each may take what it has taken already, and one attempt of its study's time limit (``time_limit`` where there is
    none) and ``grace`` seconds; with what is saved in a checkpoint already.
    """
    return change(
        tx,
        "UPDATE work.trials t SET limit_seconds = t.lost_seconds + greatest("
        "work.device_weight(t.device) "
        "* (coalesce((s.config -> 'training' ->> 'time_limit_seconds')::double precision, :time_limit) + :grace), "
        "coalesce(t.checkpoint_seconds, 0) + work.device_weight(t.device) "
        "* coalesce(extract(epoch FROM t.lease_until - t.attempt_started_at)::double precision, 0)) "
        "FROM work.studies s WHERE s.id = t.study_id AND t.limit_seconds IS NULL "
        "AND t.state IN ('SUGGESTED', 'RUNNING') AND (s.id = :study_id OR s.tenant_id = :tenant_id)",
        study_id=study_id,
        tenant_id=tenant_id,
        time_limit=time_limit,
        grace=grace,
    )


_UNTRIED = """c.withdrawn_at IS NULL AND NOT EXISTS (SELECT FROM work.trials t WHERE t.candidate_id = c.id AND (
          t.data_version_id = newest.id OR t.data_version_id IN (
            SELECT id FROM work.data_versions e WHERE e.study_id = newest.study_id
            AND coalesce(e.same_training_as, e.id) = newest.same_training_as)
          AND NOT EXISTS (SELECT FROM work.models m
            WHERE m.trial_id = coalesce(t.reevaluates, t.id) AND m.removed_at IS NOT NULL)))"""

_CHOSEN = """
chosen AS (
  SELECT id, name, tenant_id FROM work.studies
  WHERE state = 'ACTIVE' AND (CAST(:names AS text[]) IS NULL OR name = ANY(CAST(:names AS text[])))),
newest AS (
  SELECT DISTINCT ON (study_id) id, study_id, same_training_as FROM work.data_versions
  ORDER BY study_id, version DESC)"""

_OFFERED = "work.device_fits(c.devices, CAST(:device AS text))"

# A quota is the tenant's: a trial of any study of that tenant can free something in the studies chosen from.
_OUTLOOK = f"""
WITH {_CHOSEN},
known AS (
  SELECT t.state, t.lease_until FROM work.trials t JOIN work.studies s ON s.id = t.study_id
  WHERE s.tenant_id IN (SELECT tenant_id FROM chosen))
SELECT count(*) FILTER (WHERE state IN ('SUGGESTED', 'RUNNING')) AS under_way,
       count(*) FILTER (WHERE state IN ('SUGGESTED', 'RUNNING') AND coalesce(lease_until < now(), true)) AS left_behind,
       count(*) FILTER (WHERE state NOT IN ('SUGGESTED', 'RUNNING')) AS ended,
       (SELECT count(*) FROM chosen JOIN newest ON newest.study_id = chosen.id
        JOIN work.candidates c ON c.study_id = chosen.id
        WHERE {_OFFERED} AND {RUNS_HERE} AND {_UNTRIED}) AS untried
FROM known
"""


_NEXT_LEASE_END = f"""
WITH {_CHOSEN}
SELECT extract(epoch FROM min(t.lease_until) - now())
FROM work.trials t JOIN work.studies s ON s.id = t.study_id
WHERE s.tenant_id IN (SELECT tenant_id FROM chosen) AND t.state IN ('SUGGESTED', 'RUNNING') AND t.lease_until > now()
"""

# A returned trial waits for a worker as an untried candidate does. A failed container may have lacked its runtime.
_LEFT = f"""
WITH {_CHOSEN}
SELECT chosen.name AS study, c.name AS candidate, c.kind, c.devices, c.parameters ->> 'runtime' AS runtime,
       {_OFFERED} AS is_offered
FROM chosen JOIN newest ON newest.study_id = chosen.id JOIN work.candidates c ON c.study_id = chosen.id
WHERE ({_UNTRIED}) OR EXISTS (
  SELECT FROM work.trials t WHERE t.candidate_id = c.id AND t.data_version_id = newest.id
  AND ((t.state = 'SUGGESTED' AND coalesce(t.lease_until < now(), true))
       OR (c.kind = 'container' AND t.state = 'FAILED')))
ORDER BY chosen.name, c.id
"""

# What ends a search ends it here, too; of a budget only that nothing at all is left.
_TO_TRAIN = f"""
WITH {_CHOSEN}
SELECT s.id, s.name FROM chosen JOIN work.studies s ON s.id = chosen.id JOIN newest ON newest.study_id = s.id
WHERE coalesce(s.deadline > now(), true) AND NOT EXISTS (
  SELECT FROM work.trials t JOIN work.observations o ON o.trial_id = t.id
  WHERE t.data_version_id = newest.id AND o.quality >= s.target_quality)
AND EXISTS (SELECT FROM work.candidates c WHERE c.study_id = s.id AND (({_UNTRIED}) OR EXISTS (
  SELECT FROM work.trials t WHERE t.candidate_id = c.id AND t.data_version_id = newest.id AND t.finished_at IS NULL)))
ORDER BY s.name
"""

_EVER = f"""
WITH {_CHOSEN}
SELECT count(*) FROM chosen JOIN work.candidates c ON c.study_id = chosen.id
WHERE (c.kind <> 'function' OR split_part(c.name, '-', 1) = ANY (:functions)) AND {_OFFERED}
"""


@dataclass(frozen=True, slots=True)
class LeftCandidate:
    """A candidate of an active study without a result on the present data.

    Attributes:
        study: The study's name.
        candidate: The candidate's name.
        kind: Kind of its trainer.
        devices: Kinds of device that may run it; None for all.
        runtime: Program that runs its container; None for other kinds.
        is_offered: Whether the kind of device that asked may run it.
    """

    study: str
    candidate: str
    kind: str
    devices: Sequence[str] | None
    runtime: str | None
    is_offered: bool


@dataclass(frozen=True, slots=True)
class Outlook:
    """Counts of the trials of the chosen studies' tenants, and of the candidates without one.

    Attributes:
        under_way: Trials that are SUGGESTED or RUNNING.
        left_behind: Those of them that no worker holds: never claimed in time, or the lease has run out.
        ended: Trials that have ended.
        untried: Candidates of the chosen active studies that can run here and have no trial on the present data, nor
            on earlier data with the same training part.
    """

    under_way: int
    left_behind: int
    ended: int
    untried: int

    @property
    def may_improve(self) -> bool:
        """Whether the end of a trial could make room for another one, under a budget, a quota or a limit."""
        return self.under_way > 0 and self.untried > 0


def outlook(
    tx: Connection,
    studies: Sequence[str] | None,
    *,
    device: str | None = None,
    runtimes: Sequence[str] | None = None,
    functions: Sequence[str] = (),
) -> Outlook:
    """The outlook over the active studies of these names, or over all of them, for one device."""
    given = None if studies is None else list(studies)
    (found,) = rows(tx, _OUTLOOK, names=given, device=device, **offered(functions, runtimes=runtimes))
    return Outlook(**found._mapping)


def next_lease_end(tx: Connection, studies: Sequence[str] | None) -> float | None:
    """Return the seconds, > 0, until the first lease of the trials of ``outlook`` ends; None where none runs.

    No notification tells of a lost worker: a device that waits looks again then. A worker that lives extends its lease.
    """
    seconds = scalar(tx, _NEXT_LEASE_END, names=None if studies is None else list(studies))
    return None if seconds is None else float(seconds)


def left_candidates(tx: Connection, studies: Sequence[str] | None, *, device: str | None) -> list[LeftCandidate]:
    """Return the candidates without a result on the present data, whatever they need; arguments as of ``outlook``."""
    found = rows(tx, _LEFT, names=None if studies is None else list(studies), device=device)
    return [LeftCandidate(**r._mapping) for r in found]


def studies_to_train(tx: Connection, studies: Sequence[str]) -> list[str]:
    """Return which of these active studies have a candidate without a result on the present data, and may try it."""
    found = rows(tx, _TO_TRAIN, names=list(studies))
    return [str(r.name) for r in found if seconds_left(tx, r.id) != 0]


def has_candidates_for(
    tx: Connection, studies: Sequence[str] | None, *, device: str | None, functions: Sequence[str] = ()
) -> bool:
    """Whether a device of this kind may run any candidate of these studies, tried or not; as of ``outlook``."""
    given = None if studies is None else list(studies)
    return int(scalar(tx, _EVER, names=given, device=device, functions=list(functions))) > 0


BEAT_SECONDS, SILENT_SECONDS = 20.0, 90.0
"""Between two heartbeats of a process for its devices, and since the last one of a device that is not live any more."""


@typed_record
class Device:
    """A device of a host, as the processes on that host announce it.

    Attributes:
        host: Name of the host.
        name: The device on it: ``cpu``, ``cuda:N`` by the host's own numbers, or ``cuda:N:M`` for a partition of it.
        kind: Kind of the device, as candidates name it.
        model: Name of the GPU or processor; None where that is unknown.
        memory_mb: Its memory in MiB; None where that is unknown.
        driver: Version of the GPU's driver, or of the host's kernel.
        slots: How many trials it takes at once, >= 1.
        held: How many slots live processes hold, also of streams that wait for a trial.
    """

    host: str
    name: str
    kind: str
    model: str | None
    memory_mb: int | None
    driver: str | None
    slots: int
    held: int

    @property
    def free(self) -> int:
        """How many slots no process holds, >= 0."""
        return max(0, self.slots - self.held)


@typed_record
class RegisteredDevice(Device):
    """A row of the registry.

    Attributes:
        login: Login of the database that announced it.
        silent_seconds: Since the last heartbeat, >= 0.
    """

    login: str
    silent_seconds: float


def announce_device(tx: Connection, device: Device, *, holder: str) -> None:
    """Write that a device is there and that a process holds slots of it."""
    scalar(
        tx,
        "SELECT work.announce_device(:host, :name, :holder, :kind, :model, :memory, :driver, :slots, :held)",
        host=clean(device.host),
        name=device.name,
        holder=clean(holder),
        kind=device.kind,
        model=None if device.model is None else clean(device.model),
        memory=device.memory_mb,
        driver=None if device.driver is None else clean(device.driver),
        slots=device.slots,
        held=device.held,
    )


# What was announced last is in force: a host that was set up anew may have another kind. A process that holds a whole
# device announces one slot, and holds all of those into which others divide it.
_LIVE = """
SELECT host, name, kind, model, memory_mb, driver, most AS slots,
  least(most, ceil(most * held_share - 1e-6))::integer AS held, login,
  greatest(0, extract(epoch FROM clock_timestamp() - beat_at))::double precision AS silent_seconds
FROM (
  SELECT d.*, row_number() OVER (PARTITION BY login, host, name ORDER BY beat_at DESC, holder) AS place,
    max(d.slots) OVER (PARTITION BY login, host, name) AS most,
    sum(d.held::double precision / d.slots) OVER (PARTITION BY login, host, name) AS held_share
  FROM work.devices d WHERE beat_at > clock_timestamp() - make_interval(secs => :silent)) newest
WHERE place = 1 AND (CAST(:kind AS text) IS NULL OR kind = :kind)
ORDER BY starts_with(login, :tenants), host, name, login LIMIT :limit
"""


def live_devices(tx: Connection, *, kind: str | None = None, limit: int = 10_000) -> list[RegisteredDevice]:
    """Return the live devices that the role may see, by host and name, the provider's first."""
    return records(tx, RegisteredDevice, _LIVE, silent=SILENT_SECONDS, kind=kind, limit=limit, tenants=LOGIN_PREFIX)


def usable(tx: Connection, devices: Iterable[RegisteredDevice]) -> list[RegisteredDevice]:
    """Return those of some devices that train for this role: a tenant's take the trials of that tenant alone."""
    own = is_tenant(tx)
    return [device for device in devices if own or not device.login.startswith(LOGIN_PREFIX)]
