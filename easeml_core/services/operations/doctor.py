"""``easeml doctor``: check an installation without changing anything.

Checks of the packages, of the database over its address, and of this machine's disks, secrets and devices. A package
that extends Ease.ml contributes further checks by an entry point of the group ``easeml.doctor``: a function from
``Installation`` to checks. The Airflow plugin has one; the core knows no Airflow.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError, EasemlError, StateError, StoreError, counted, reason_of
from easeml_core.files.cache import default_folder
from easeml_core.services.evaluation.backoff import list_put_off, sentence
from easeml_core.services.evidence.keys import KeyFolder
from easeml_core.services.evidence.notary import REMEDY, verify_all
from easeml_core.services.operations.artifact_store import installed_place
from easeml_core.services.operations.checks import (
    Check,
    State,
    check_policy,
    check_referee,
    check_room,
    check_rooms,
    check_scheduler,
    check_schema,
    crowding,
    strong_members,
)
from easeml_core.services.operations.tenant_files import closed_folders, may_write, open_folders
from easeml_core.services.reports.assessments import out_of_step
from easeml_core.services.test_sets.row_registry import overlapping_sets
from easeml_core.store import schema
from easeml_core.store.artifacts.remote import artifact_store
from easeml_core.store.database import Store
from easeml_core.store.queries import health
from easeml_core.store.roles import REFEREE, WORKER
from easeml_core.store.tables import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from packaging.requirements import Requirement
    from sqlalchemy import Connection

CONTRIBUTED = "easeml.doctor"
"""The group of entry points that contribute checks."""

DISTRIBUTION = "easeml-airflow"
OLDEST_PYTHON = (3, 11)
_NOT_FOR_USERS = ("dev", "benchmarks", "demo")

SKEW_SECONDS, BAD_SKEW_SECONDS = 5.0, 300.0
_NAMES = ("clock", "roles", "sealed sets", "schema", "referee", "tenants", "scheduler", "policy")
STATEMENT_SECONDS, CUDA_SECONDS = 10.0, 120.0
_CUDA = (
    "import torch; n = torch.cuda.device_count(); print(*[torch.cuda.get_device_name(i) for i in range(n)], sep=', ')"
)
_SECRETS = ("postgres/secrets.json", "keys.json", "airflow/passwords.json")


@dataclass(frozen=True, slots=True)
class ApiServer:
    """How to ask the orchestrator's API server about the pool of devices.

    Attributes:
        url: Such as http://localhost:8080.
        user: User with the right to read pools.
        password: Of this user; never shown.
        pool: Name of the pool.
    """

    url: str
    user: str
    password: str = field(repr=False)
    pool: str = "easeml_devices"


@dataclass(frozen=True, slots=True)
class Installation:
    """The addresses and folders of an installation.

    Attributes:
        url: Address of the database, password included; None where there is none.
        url_from: Origin of that address, for messages.
        home: Folder of the embedded installation, ``.easeml``; may be missing.
        artifacts: Folder or address of models and data.
        environment: Of this process.
        api_server: How to ask about the device pool; None where no address was given.
        referee_url: Address of the database for the role ``easeml_referee``; None where it is not known.
        keys: Key folder of the referee's host; may be missing.
    """

    url: str | None
    url_from: str
    home: Path
    artifacts: str
    environment: Mapping[str, str]
    api_server: ApiServer | None = None
    referee_url: str | None = None
    keys: Path | None = None


def examine(place: Installation, on_check: Callable[[str], None] = lambda _: None) -> list[Check]:
    """Run every check."""
    looks: dict[str, Callable[[], Iterable[Check]]] = {
        "versions": lambda: (check_python(), check_packages(), check_extras(), check_torch()),
        "database": lambda: check_database(place.url, place.url_from),
        "artifacts": lambda: (check_artifacts(place.url, place.artifacts),),
        "evidence": lambda: (check_evidence(place.referee_url, place.keys or place.home / "referee"),),
        "sealed rows": lambda: (check_overlaps(place.referee_url, place.artifacts),),
        "put-offs": lambda: (check_put_offs(place.referee_url),),
        "overview": lambda: (check_overview(place.url),),
        **{entry.name: partial(_contributed, entry, place) for entry in metadata.entry_points(group=CONTRIBUTED)},
        "disk": lambda: (*check_disk(place.artifacts, place.home), check_temporary_folder()),
        "secrets": lambda: (check_secrets(place.home),),
        "devices": lambda: (check_cuda(),),
    }
    found: list[Check] = []
    for what, look in looks.items():
        on_check(what)
        found.extend(look())
    return found


def _contributed(entry: metadata.EntryPoint, place: Installation) -> list[Check]:
    """Return the checks of another package; an error becomes a failed check, so that the others are still made."""
    try:
        return list(entry.load()(place))
    except Exception as error:
        found = f"the checks of {entry.value} end with {type(error).__name__}: {error}"
        return [Check(entry.name, "failed", found, "install the package of these checks in the version of Ease.ml")]


# -- what is installed -----------------------------------------------------------------------------------------------


def check_python() -> Check:
    """Check the interpreter."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", "failed", f"Python {found}", "install Python 3.11 or newer")
    return Check("python", "ok", f"Python {found}")


def check_packages() -> Check:
    """Check Airflow and the other required packages against the ranges of this version."""
    try:
        wanted = [one for one in _requirements() if one.marker is None or one.marker.evaluate({"extra": ""})]
    except metadata.PackageNotFoundError:
        remedy = "compare the environment with requirements.txt; the wheel brings its ranges along"
        return Check("packages", "skipped", f"{DISTRIBUTION} is copied, not installed: no ranges to compare", remedy)
    wrong = [said for one in wanted if (said := _fault(one))]
    airflow = f"Airflow {_version('apache-airflow-core') or _version('apache-airflow') or 'not found'}"
    if wrong:
        remedy = f"pip install -c constraints.txt {DISTRIBUTION}"
        return Check("packages", "failed", f"{airflow}; {'; '.join(wrong)}", remedy)
    return Check("packages", "ok", f"{airflow}, {counted(len(wanted), 'package')} in range")


def check_extras() -> Check:
    """Report which optional parts are installed, and warn of outdated ones."""
    try:
        requirements = _requirements()
    except metadata.PackageNotFoundError:
        return Check("extras", "skipped", f"{DISTRIBUTION} is copied, not installed: its extras are not known")
    there: list[str] = []
    missing: list[str] = []
    wrong: list[str] = []
    names = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for extra in (name for name in names if name not in _NOT_FOR_USERS):
        faults = {one.name: _fault(one) for one in requirements if one.marker and one.marker.evaluate({"extra": extra})}
        absent = [name for name in faults if _version(name) is None]
        (missing if absent else there).append(extra)
        wrong += [said for name, said in faults.items() if said and name not in absent]
    found = f"there: {', '.join(there) or 'none'}; not there: {', '.join(missing) or 'none'}"
    remedy = f"pip install '{DISTRIBUTION}[{','.join(missing)}]' for those that are wanted" if missing else ""
    if wrong:
        return Check("extras", "warning", f"{found}; {'; '.join(wrong)}", "pip install -U with constraints.txt")
    return Check("extras", "ok", found, remedy)


def check_torch() -> Check:
    """Check whether networks can be trained at all."""
    found = _version("torch")
    if found is None:
        remedy = f"pip install '{DISTRIBUTION}[torch]', or register studies without networks"
        return Check("torch", "warning", "not installed: candidates that are networks cannot be trained", remedy)
    return Check("torch", "ok", f"torch {found}")


def _requirements() -> list[Requirement]:
    from packaging.requirements import Requirement

    return [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]


def _fault(wanted: Requirement) -> str:
    """Return the fault of an installed package; empty where there is none."""
    found = _version(wanted.name)
    if found is None:
        return f"{wanted.name} is missing"
    return (
        "" if wanted.specifier.contains(found, prereleases=True) else f"{wanted.name} {found}, not {wanted.specifier}"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# -- what the database answers ---------------------------------------------------------------------------------------


def check_database(url: str | None, url_from: str) -> list[Check]:
    """Run every check over the database's address."""
    if url is None:
        remedy = "set EASEML_DATABASE_URL or give --database; `make up` or `easeml db start` starts an embedded server"
        return [Check("database", "failed", f"no address: {url_from}", remedy), *_skipped("there is no database")]
    try:
        store = Store(url, statement_timeout_seconds=STATEMENT_SECONDS, lock_timeout_seconds=0.8 * STATEMENT_SECONDS)
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
    found = health.who_and_when(tx)
    after = datetime.now(UTC)
    reach = f"{url_from}: PostgreSQL {found.version}, database {found.database} as {found.role}"
    revision = health.revision(tx)
    is_ready = revision == schema.REVISION
    referee = check_referee(tx) if is_ready else Check("referee", "skipped", "the schema must be upgraded first")
    skew = (found.now - before - (after - before) / 2).total_seconds()
    missing, logins = health.missing_roles(tx), health.logins_of_tenants(tx)
    crowded = crowding(health.capacity(tx)) if logins.logins else ("", "")
    return [
        Check("database", "ok", reach),
        check_clock(skew),
        _roles(found.role, missing, health.too_strong(tx)),
        Check("sealed sets", "skipped", "roles are missing") if missing else check_sealed(health.rights_of_worker(tx)),
        check_schema(revision),
        referee,
        check_tenants(logins, health.tenants_with_false_results(tx) if is_ready else [], crowded),
        check_scheduler(tx, logins.logins)
        if is_ready
        else Check("scheduler", "skipped", "the schema must be upgraded first"),
        check_policy(tx) if is_ready else Check("policy", "skipped", "the schema must be upgraded first"),
    ]


def check_artifacts(url: str | None, place: str) -> Check:
    """Check that a place is the artifact store of the installation, which all of its parts must use."""
    name = "artifacts"
    if url is None:
        return Check(name, "skipped", "there is no database")
    try:
        store = Store(url, statement_timeout_seconds=STATEMENT_SECONDS, lock_timeout_seconds=0.8 * STATEMENT_SECONDS)
        with closing(store):
            known, artifacts = installed_place(store), artifact_store(place)
            shared, closed = open_folders(store, artifacts), closed_folders(store, artifacts)
            writable = may_write(store, artifacts)
    except EasemlError as error:
        return Check(name, "skipped", f"not compared: {error}")
    if known is None:
        return Check(name, "warning", "no artifact store is set yet", "`easeml db artifacts PLACE` sets it")
    try:
        is_installed = artifacts.identity() == known.store_id
    except ArtifactError as error:
        return Check(name, "failed", str(error), "let this account reach it, or name its path here with --artifacts")
    if not is_installed:
        remedy = "give the place where this machine reaches it with --artifacts, or correct Airflow's connection"
        return Check(name, "failed", f"{artifacts.place} is not that of the installation, {known.place}", remedy)
    if not writable:
        found = f"this account may not write to {artifacts.place}: it can neither train nor hand in a model"
        remedy = "give it the group of the folder, or run these commands as an account that has it"
        return Check(name, "warning", found, remedy)
    if shared is not None:
        return Check(name, "warning", f"files of tenants are not apart: {shared}", "`easeml tenant folder` for each")
    if closed:
        mode = stat.S_IMODE(closed[0].parent.stat().st_mode)
        folder = f"{shlex.quote(artifacts.place)}/tenants"
        remedy = f"while no task and no device runs, as root: find {folder} -type d -exec chmod {mode:o} {{}} +"
        found = f"accounts that share {artifacts.place} may not use {', '.join(path.name for path in closed)} in it"
        return Check(name, "warning", found, remedy)
    return Check(name, "ok", f"{artifacts.place} is that of the installation")


def check_overlaps(url: str | None, place: str) -> Check:
    """Check whether a set in use has rows that are open in another study; registers and retires nothing."""
    name = "sealed rows"
    needed = "the address of easeml_referee is needed to compare them"
    if url is None:
        return Check(name, "skipped", needed)
    try:
        with closing(Store(url)) as store, store.begin() as tx:
            if requests.role(tx) != REFEREE:
                return Check(name, "skipped", needed)
            with tx.begin_nested() as trial:
                found = overlapping_sets(tx, artifact_store(place))
                trial.rollback()
    except EasemlError as error:
        return Check(name, "skipped", f"not compared: {error}")
    if not found:
        return Check(name, "ok", "no set in use has rows that are open in another study")
    sets = ", ".join(f"{one.test_set} of {one.study}" for one in found)
    remedy = "`easeml test-set overlaps --retire` as the referee retires them; then seal new sets"
    return Check(name, "failed", f"sets in use whose rows are open in another study: {sets}", remedy)


def check_evidence(url: str | None, keys: Path) -> Check:
    """Check the evidence."""
    needed = "the address of easeml_referee is needed to check it"
    if url is None:
        return Check("evidence", "skipped", needed)
    store = Store(url)
    try:
        with store.begin() as tx:
            if requests.role(tx) != REFEREE:
                return Check("evidence", "skipped", needed)
        is_begun = KeyFolder(keys).is_begun
        found = verify_all(store, keys if is_begun else None)
    except StoreError as error:
        return Check("evidence", "skipped", str(error))
    except StateError as error:
        return Check("evidence", "failed", str(error), "run it as the referee's account, on its host")
    finally:
        store.close()
    if not found.sound:
        return Check("evidence", "failed", found.broken[0], REMEDY)
    if not is_begun:
        remedy = f"run it as the referee's account, or name its folder with --keys; {keys.absolute()} has no key"
        return Check("evidence", "warning", f"{found.sentence}; signatures and marks were not checked", remedy)
    return Check("evidence", "ok", found.sentence)


def check_overview(url: str | None) -> Check:
    """Check that what the overview shows of each study is what its trials say."""
    name = "overview"
    if url is None:
        return Check(name, "skipped", "no address of the database is known")
    try:
        with closing(Store(url)) as store:
            found = out_of_step(store)
    except EasemlError as error:
        return Check(name, "skipped", f"not compared: {error}")
    if not found:
        return Check(name, "ok", "what it shows of each study is what is counted")
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
    remedy = "as easeml_owner: INSERT INTO work.study_changes SELECT id FROM work.studies; and report it"
    return Check(name, "failed", f"it is out of date for {', '.join(found[:5])}{more}", remedy)


def check_put_offs(url: str | None) -> Check:
    """Report requests that wait because their last attempts met faults of the machine."""
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
    """Compare the database's clock, which decides leases, with this machine's, by which users type deadlines."""
    found = f"the database's clock is {abs(skew_seconds):,.1f} s {'ahead' if skew_seconds > 0 else 'behind'}"
    if abs(skew_seconds) < SKEW_SECONDS:
        return Check("clock", "ok", found)
    state: State = "failed" if abs(skew_seconds) >= BAD_SKEW_SECONDS else "warning"
    return Check("clock", state, found, "let NTP set both clocks (timedatectl set-ntp true)")


def _roles(role: str, missing: list[str], strong: list[tuple[str, str]]) -> Check:
    if missing:
        remedy = "run `easeml db create` with a superuser's address (docs/install.md, The database)"
        return Check("roles", "failed", f"the server lacks {', '.join(missing)}", remedy)
    is_ours, said = strong_members(strong)
    if said:
        remedy = "as a superuser: REVOKE that; or keep the login's address as you keep that of easeml_owner"
        return Check("roles", "failed" if is_ours else "warning", said, remedy)
    if role not in health.OURS:
        remedy = "tasks connect as easeml_worker, the referee as easeml_referee, upgrades as easeml_owner"
        return Check("roles", "warning", f"the address is of {role}, no role of ours", remedy)
    if role != WORKER:
        remedy = "never give this address to tasks: theirs is easeml_worker's"
        return Check("roles", "ok", f"all three are there; the address is of {role}", remedy)
    return Check("roles", "ok", "all three are there")


def check_tenants(kept: health.TenantLogins, flagged: list[str], crowded: tuple[str, str] = ("", "")) -> Check:
    """Say whether tenants are one team, or what keeps them apart, and whose results did not hold."""
    if kept.logins and kept.open_tables:
        return Check("tenants", "failed", f"{kept.open_tables} tables have no row rules", "run `easeml db upgrade`")
    if flagged:
        found = f"results did not hold when they were measured anew: {', '.join(flagged)}"
        remedy = "`easeml audit` names the trials; `easeml tenant acknowledge TENANT --why REASON` ends this warning"
        return Check("tenants", "warning", found, remedy)
    if not kept.logins:
        return Check("tenants", "ok", "one team: the tasks of all tenants share easeml_worker (docs/security.md)")
    found = f"logins of tenants: {kept.logins}, of workers for all tenants: {kept.devices}"
    if kept.is_closed:
        remedy = "wait for an upgrade that runs; else run `easeml db upgrade` again"
        return Check("tenants", "failed", f"{found}; they were kept out for an upgrade, and still are", remedy)
    if not kept.viewers:
        remedy = "run `easeml db create` again, which makes easeml_viewer and easeml_person (docs/install.md)"
        return Check("tenants", "warning", f"{found}; the pages keep tenants apart by their own checks alone", remedy)
    if kept.is_viewer_tenant:
        remedy = "as a superuser: REVOKE easeml_tenant FROM easeml_viewer"
        return Check("tenants", "warning", f"{found}; pages that only look may add what a login may add", remedy)
    if crowded[0]:
        return Check("tenants", "warning", f"{found}; {crowded[0]}", crowded[1])
    return Check("tenants", "ok", f"{found}; the pages look and change with a tenant's rights")


def check_sealed(rights: health.WorkerRights) -> Check:
    """Check that the worker's role cannot reach sealed data."""
    ways = {
        "is_super": "it is a superuser, or goes past row rules",
        "is_referee": "it is a member of easeml_referee",
        "is_owner": "it is a member of easeml_owner",
        "may_enter": "it may enter the schema sealed",
    }
    open_ways = [way for name, way in ways.items() if getattr(rights, name)]
    if rights.tables:
        open_ways.append(f"it has rights on sealed.{', sealed.'.join(rights.tables)}")
    if open_ways:
        remedy = "revoke that as a superuser (docs/install.md), and treat what is sealed now as seen: seal new sets"
        return Check("sealed sets", "failed", f"easeml_worker can reach them: {'; '.join(open_ways)}", remedy)
    if rights.may_watch:
        remedy = "run `easeml db create` with a superuser's address, which closes the statistics (docs/install.md)"
        return Check(
            "sealed sets", "warning", "closed to tasks, but they may watch how much the referee writes", remedy
        )
    return Check("sealed sets", "ok", "closed to easeml_worker")


# -- this machine ----------------------------------------------------------------------------------------------------


def check_disk(artifacts: str, home: Path) -> list[Check]:
    """Check the free space for models and data, the cache, and the embedded installation's state."""
    places: dict[str, str | Path] = {"artifacts": artifacts, "data": home}
    try:
        places["cache"] = default_folder()
    except EasemlError as error:
        return [*check_rooms(places), Check("disk: cache", "warning", str(error))]
    return check_rooms(places)


def check_temporary_folder() -> Check:
    """Check the folder for temporary files of trainings and uploads."""
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile():
            pass
    except OSError as error:
        remedy = "set TMPDIR to a folder that this account may write to"
        return Check("TMPDIR", "failed", f"nothing can be written: {reason_of(error)}", remedy)
    found = check_room("TMPDIR", folder)
    remedy = "set TMPDIR to a folder with more room" if found.state != "ok" else ""
    return Check("TMPDIR", found.state, found.found, remedy)


def check_secrets(home: Path) -> Check:
    """Check that passwords and keys of the embedded installation are readable by its owner alone."""
    if not home.is_dir():
        return Check("secrets", "skipped", f"there is no {home} here")
    try:
        open_to_others = [name for name in _SECRETS if _is_open(home / name)]
        others_may_write = bool(stat.S_IMODE(home.stat().st_mode) & 0o022)
    except OSError as error:
        return Check("secrets", "skipped", f"{home} cannot be looked at: {reason_of(error)}")
    if open_to_others:
        files = " ".join(str(home / name) for name in open_to_others)
        remedy = f"chmod 600 {files}, and make new passwords: others may have read these"
        return Check("secrets", "failed", f"other accounts may read {files}", remedy)
    if others_may_write:
        return Check("secrets", "failed", f"other accounts may write to {home}", f"chmod go-w {home}")
    return Check("secrets", "ok", f"those in {home} are readable by their owner alone")


def _is_open(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except (FileNotFoundError, PermissionError):  # the latter: another account's folder is closed to others
        return False


def check_cuda() -> Check:
    """Check whether torch finds a GPU, in a separate process, since importing torch takes seconds and memory."""
    if util.find_spec("torch") is None:
        return Check("devices", "skipped", "torch is not installed")
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidia0").exists():
        return Check("devices", "ok", f"no NVIDIA GPU; trainings use {os.cpu_count()} processor cores")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CUDA], capture_output=True, text=True, timeout=CUDA_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("devices", "warning", f"torch does not say what it finds: {error}", "try `import torch` by hand")
    names = done.stdout.strip()
    if not names:
        remedy = "install a torch that is built for this driver's CUDA, see pytorch.org"
        return Check("devices", "warning", "there is an NVIDIA driver, but torch finds no GPU", remedy)
    return Check("devices", "ok", f"GPU: {names}")
