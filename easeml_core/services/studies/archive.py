"""Archive, restore and delete studies and tenants; withdraw candidates; retention of models and curves (ADR 0035).

An archived study keeps everything and does nothing: it gets no trial, takes no request, and is in no overview, alert
or metric. A study without sealed data, trials and models can be deleted. Every verb may be repeated, and is in the
audit with who did it and why.

Retention removes files of models and points of learning curves: once a day where the referee's options say so
(``--keep-models``), and at once by ``easeml artifacts prune``. The audit, ledgers, verdicts, results and the models'
rows always stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import StudyState
from easeml_core.errors import NotFoundError, StateError
from easeml_core.formats.encoding import typed_record
from easeml_core.services.studies.limits import MOST_REASON
from easeml_core.services.studies.logins import end_login
from easeml_core.settings.config import require
from easeml_core.store import archive, logins
from easeml_core.store.archive import ArchivedStudy as ArchivedStudy  # noqa: TC001  # for the callers of this module
from easeml_core.store.database import notify, notify_pages, savepoint
from easeml_core.store.tables import model_life, scheduler_requests, studies, trials
from easeml_core.store.tables.model_life import RemovableModel

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.entities import Study
    from easeml_core.store.archive import Dependents
    from easeml_core.store.database import Store


MOST_ARCHIVED = 1000
"""Archived studies that are listed."""


@typed_record
class ChangedStudy:
    """A study after it was archived, restored or deleted, or what that would do.

    Attributes:
        study: Its name.
        study_id: Its number; None of one that was deleted before.
        state: Its state now; None once it is deleted.
        changed: Whether this call has changed it; False where it was so already, and in a dry run.
        dry_run: Whether nothing was to be changed.
        production: The model in production, which answers while the study is not archived; None for none.
        cancelled: Open trials, which an archived study ends.
        refused: Numbers of the requests that an archived study leaves without an answer, and that are refused.
        candidates: How many stay, or of a deleted study go; likewise ``trials``, ``models`` and ``test_sets``.
    """

    study: str
    study_id: int | None
    state: StudyState | None
    changed: bool
    dry_run: bool
    production: int | None
    cancelled: list[int]
    refused: list[int]
    candidates: int
    trials: int
    models: int
    test_sets: int


def archive_study(store: Store, *, study: str, why: str, withdraw: bool = False, dry_run: bool = False) -> ChangedStudy:
    """Archive a study: its open trials end, its open requests are refused, and its history stays readable.

    Its tenant may use the name again; ``NAME@NUMBER`` means the archived one then.
    """
    wanted = "withdraw" if withdraw else "archive"
    return _change(store, study, wanted, _reason(why), dry_run=dry_run)


def restore_study(store: Store, *, study: str, why: str = "", dry_run: bool = False) -> ChangedStudy:
    """Restore an archived study to the state that it had; cancelled trials stay cancelled."""
    return _change(store, study, "restore", _reason(why, least=0), dry_run=dry_run)


def delete_study(store: Store, *, study: str, why: str, dry_run: bool = False) -> ChangedStudy:
    """Delete a study that has no sealed data, trials or models: one that waits to be sealed, or was refused.

    Its request key may be used again, so a task that registers it under the same key makes it anew.
    """
    reason = _reason(why)
    with store.begin(writes=False) as tx:
        try:
            studies.get_study(tx, study)
        except NotFoundError:
            if not archive.was_deleted(tx, "study", study):
                raise
            return ChangedStudy(study, None, None, False, dry_run, None, [], [], 0, 0, 0, 0)
    return _change(store, study, "delete", reason, dry_run=dry_run)


def archived_studies(store: Store) -> list[ArchivedStudy]:
    """Return the archived studies that the role may see, the newest first; the first ``MOST_ARCHIVED``."""
    with store.begin(writes=False) as tx:
        return archive.archived_studies(tx, limit=MOST_ARCHIVED)


class _DryRunError(Exception):
    """Takes back what a dry run has tried."""


def _change(store: Store, study: str, wanted: str, why: str, *, dry_run: bool) -> ChangedStudy:
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        before = archive.dependents(tx, found.id)
        done = _tried(tx, found, wanted, why) if dry_run else archive.apply_study_change(
            tx, found.id, found.name, wanted, why
        )  # fmt: skip
        is_filed = logins.is_tenant(tx)
    if is_filed and not dry_run:
        scheduler_requests.wait_until_made(store, study_id=found.id)
    state = found.state if dry_run else _state_of(store, found.id)
    changed = (done and state != found.state) if not dry_run else False
    return _shown(found, before, state, wanted, changed=changed, dry_run=dry_run)


def _tried(tx: Connection, found: Study, wanted: str, why: str) -> bool:
    """Make the change and take it back; what the database refuses is raised."""
    try:
        with savepoint(tx):
            archive.apply_study_change(tx, found.id, found.name, wanted, why)
            raise _DryRunError
    except _DryRunError:
        return False


def _state_of(store: Store, study_id: int) -> StudyState | None:
    with store.begin(writes=False) as tx:
        try:
            return studies.study_by_id(tx, study_id).state
        except NotFoundError:
            return None


def _shown(
    found: Study, before: Dependents, state: StudyState | None, wanted: str, *, changed: bool, dry_run: bool
) -> ChangedStudy:
    ends = wanted in ("archive", "withdraw") and before.state != StudyState.ARCHIVED
    return ChangedStudy(
        study=found.name,
        study_id=found.id,
        state=state,
        changed=changed,
        dry_run=dry_run,
        production=before.production,
        cancelled=before.open_trials if ends else [],
        refused=before.open_requests if ends else [],
        candidates=before.candidates,
        trials=before.trials,
        models=before.models,
        test_sets=before.test_sets,
    )


def _reason(why: str, *, least: int = 1) -> str:
    why = why.strip()
    require(least <= len(why) <= MOST_REASON, "why", why, f"a reason of {least} to {MOST_REASON} characters")
    return why


@typed_record
class WithdrawnCandidate:
    """A candidate after ``withdraw_candidate`` or ``restore_candidate``.

    Attributes:
        study: The study.
        candidate: Its name.
        withdrawn: Whether it is left out of suggestions now.
        changed: Whether this call has changed that.
        cancelled: Its trials that no worker held, and that were cancelled with it.
    """

    study: str
    candidate: str
    withdrawn: bool
    changed: bool
    cancelled: list[int]


def withdraw_candidate(store: Store, *, study: str, candidate: str, why: str) -> WithdrawnCandidate:
    """Leave a candidate out of all further suggestions and retries; its results stay, and a running trial goes on."""
    reason = _reason(why)
    with store.begin() as tx:
        found = _with_candidate(tx, study, candidate)
        changed = archive.set_withdrawn(tx, found.id, candidate, withdrawn=True, why=reason)
        waiting = archive.waiting_trials(tx, found.id, candidate)
        for trial_id in waiting:
            trials.request_cancel(tx, trial_id)
            notify(tx, f"trial:{trial_id}")
        notify_pages(tx, found.name)
    return WithdrawnCandidate(found.name, candidate, True, changed, waiting)


def restore_candidate(store: Store, *, study: str, candidate: str, why: str = "") -> WithdrawnCandidate:
    """Let a withdrawn candidate be suggested again, on data for which it has no trial."""
    reason = _reason(why, least=0)
    with store.begin() as tx:
        found = _with_candidate(tx, study, candidate)
        changed = archive.set_withdrawn(tx, found.id, candidate, withdrawn=False, why=reason)
        notify_pages(tx, found.name)
    return WithdrawnCandidate(found.name, candidate, False, changed, [])


def _with_candidate(tx: Connection, study: str, candidate: str) -> Study:
    found = studies.get_study(tx, study)
    known = [one.name for one in studies.list_candidates(tx, found.id)]
    if candidate not in known:
        raise NotFoundError(kind="candidate", name=candidate, known=known[:50], owner=f"study {found.name!r}")
    return found


@typed_record
class ChangedTenant:
    """A tenant after it was archived, restored or deleted, or what that would do.

    Attributes:
        tenant: Its name.
        archived: Whether it is archived now.
        deleted: Whether it is gone.
        changed: Whether this call has changed it; False where it was so already, and in a dry run.
        dry_run: Whether nothing was to be changed.
        studies: Names of its studies that were archived with it.
        logins: Logins of the database that were ended with it.
        sql: What an administrator of the server has still to run for that.
    """

    tenant: str
    archived: bool
    deleted: bool
    changed: bool
    dry_run: bool
    studies: list[str]
    logins: list[str]
    sql: list[str]


def archive_tenant(
    store: Store, *, tenant: str, why: str, withdraw: bool = False, dry_run: bool = False
) -> ChangedTenant:
    """End a tenant's logins and archive it with all its studies: it registers none until it is restored."""
    reason, wanted = _reason(why), "withdraw" if withdraw else "archive"
    with store.begin() as tx:
        found = studies.get_tenant(tx, tenant)
        before = archive.of_tenant(tx, found.id)
        if before.production and not withdraw:
            message = (
                f"studies of tenant {tenant!r} have models in production, which answer no rows any more once it is "
                f"archived: {', '.join(before.production)}; say so with --withdraw (`withdraw=True` in Python)"
            )
            raise StateError(message)
        owned = _logins_of(tx, tenant)
    ended = [] if dry_run else [end_login(store, name=login) for login in owned]
    changed = False
    if not dry_run:
        with store.begin() as tx:
            changed = archive.apply_tenant_change(tx, found.id, wanted, reason)
            for study in before.studies:
                notify(tx, f"study:{study}")
            notify_pages(tx, *before.studies)
    return ChangedTenant(
        tenant,
        archived=before.archived_at is not None or not dry_run,
        deleted=False,
        changed=changed,
        dry_run=dry_run,
        studies=before.studies,
        logins=owned,
        sql=[statement for login in ended for statement in login.sql],
    )


def _logins_of(tx: Connection, tenant: str) -> list[str]:
    """Return the logins that have this tenant's rows."""
    if not logins.reads_logins(tx):
        return []
    of = {login: logins.tenants_of_login(tx, login) for login in logins.all_logins(tx)}
    shared = sorted(login for login, names in of.items() if tenant in names and len(names) > 1)
    if shared:
        message = (
            f"login {shared[0]} has the rows of tenant {tenant!r} and of others; make it anew without this one first: "
            f"`easeml tenant login {shared[0]}` with --tenant for each other"
        )
        raise StateError(message)
    return sorted(login for login, names in of.items() if tenant in names)


def restore_tenant(store: Store, *, tenant: str, why: str = "") -> ChangedTenant:
    """Let an archived tenant register studies again; its studies are restored one by one, and its logins made anew."""
    reason = _reason(why, least=0)
    with store.begin() as tx:
        found = studies.get_tenant(tx, tenant)
        changed = archive.apply_tenant_change(tx, found.id, "restore", reason)
    return ChangedTenant(tenant, False, False, changed, False, [], [], [])


def delete_tenant(store: Store, *, tenant: str, why: str, dry_run: bool = False) -> ChangedTenant:
    """Delete a tenant without studies and logins, with the data sets that no study has."""
    reason = _reason(why)
    with store.begin() as tx:
        try:
            found = studies.get_tenant(tx, tenant)
        except NotFoundError:
            if not archive.was_deleted(tx, "tenant", tenant):
                raise
            return ChangedTenant(tenant, False, True, False, dry_run, [], [], [])
        if not dry_run:
            archive.apply_tenant_change(tx, found.id, "delete", reason)
            return ChangedTenant(tenant, False, True, True, False, [], [], [])
        try:
            with savepoint(tx):
                archive.apply_tenant_change(tx, found.id, "delete", reason)
                raise _DryRunError
        except _DryRunError:
            archived = archive.of_tenant(tx, found.id).archived_at is not None
            return ChangedTenant(tenant, archived, False, False, True, [], [], [])


MODELS_AT_ONCE = 1000
"""Models whose rows one transaction holds."""


@typed_record
class PrunedModels:
    """The answer of ``easeml artifacts prune``.

    Attributes:
        models: Whose files are removed, or would be, by number.
        curve_points: Points of learning curves that were removed.
        keep: How many of the best models of each study stay; None for all models.
        days: Age in days from which on a model may go.
        curve_days: Age of curves likewise; 0 for no limit.
        dry_run: Whether nothing was changed.
    """

    models: tuple[RemovableModel, ...]
    curve_points: int
    keep: int | None
    days: float
    curve_days: float
    dry_run: bool


def prune(
    store: Store, *, keep: int | None, days: float, curve_days: float = 0.0, dry_run: bool = False
) -> PrunedModels:
    """Note which models lose their files, whatever is killed meanwhile; the sweep removes the files themselves.

    A model stays that is or was in production, that a request, a verdict or a meter reading names, that was submitted,
    that is a baseline, or that waits to be measured on new validation data.
    """
    require(keep is None or 1 <= keep <= 10**6, "keep", keep, "from 1 to 1,000,000")
    require(1 <= days <= 36_500, "days", days, "from 1 to 36,500")
    require(curve_days == 0 or 1 <= curve_days <= 36_500, "curve_days", curve_days, "0, or from 1 to 36,500")
    why = f"not among the best {keep} of its study after {days:g} days"
    found: list[RemovableModel] = []
    if keep is not None and dry_run:
        with store.begin(writes=False) as tx:
            found = model_life.removable_models(tx, keep=keep, days=days, most=10**6)
    while keep is not None and not dry_run:
        with store.begin() as tx:
            part = model_life.removable_models(tx, keep=keep, days=days, most=MODELS_AT_ONCE, holds=True)
            removed = model_life.note_removed(tx, [one.model_id for one in part], why)
        found += [one for one in part if one.model_id in removed]
        if len(part) < MODELS_AT_ONCE:
            break
    points = 0
    while curve_days and not dry_run:
        with store.begin() as tx:
            gone = model_life.forget_curves(tx, curve_days)
        points += gone
        if not gone:
            break
    return PrunedModels(tuple(found), points, keep, days, curve_days, dry_run)
