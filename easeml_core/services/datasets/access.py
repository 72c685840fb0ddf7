"""What the referee may read for a study. Every source is closed unless it is allowed.

A file or folder must be in the tenant's folder, an address under an allowed prefix, and a query in the referee's file
of queries. Files are read by a child process (``read_apart``), since a few bytes of a tenant's content can stand for
very much, and what reading it does to a process must not happen to the referee, which works for all tenants. Remote
sources are fetched first, outside any transaction (``fetching.py``): a file goes through the referee's cache, which
resumes after a kill, and the rows of a query into an unnamed file. The file of queries:

    flowers:
      url_env: FLOWERS_URL          # or url_file: /etc/easeml/flowers-url
      sql: SELECT petal, sepal, species FROM garden.flowers
      tenants: [garden]             # default: all
      timeout_seconds: 60           # default: 300

The database's address is in the environment or in a separate file, never here: this file may be shown.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from easeml_core.data.sources.child import ReadJob, load_table
from easeml_core.data.sources.load import FILE_SCHEMES, SCHEMES, Source, check_source, load_columns, load_source
from easeml_core.data.sources.spec import file_format, is_upload
from easeml_core.errors import (
    InvalidInputError,
    MachineError,
    TrainingError,
    TrainingKilled,
    TrainingMachineError,
    TrainingStarved,
    reason_of,
)
from easeml_core.files.cache import FileCache, Wanted
from easeml_core.files.download import remote_file
from easeml_core.files.local import scratch_folder
from easeml_core.files.remote_file import Progress, Teller
from easeml_core.files.urls import Address, is_allowed, parse_url
from easeml_core.formats.csv_text import MAX_BYTES
from easeml_core.formats.encoding import to_json
from easeml_core.formats.yaml_text import YamlFaultError, compose
from easeml_core.sandbox.child_protocol import OUT_OF_MEMORY
from easeml_core.sandbox.process import Limits, run_child
from easeml_core.services.studies.uploads import opened_upload
from easeml_core.settings.config import require
from easeml_core.store.external_query import NamedQuery, columns_of_lines, query_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import BufferedRandom, BufferedReader

    from easeml_core.data.sources.load import RawTable
    from easeml_core.data.split_spec import Split
    from easeml_core.entities import JsonObject, Study
    from easeml_core.files.remote_file import About, RemoteFile
    from easeml_core.store.artifacts.local import ArtifactStore

    Hear = Callable[[Progress], object]
    Content = BufferedReader | BufferedRandom


logger = logging.getLogger(__name__)

FETCH_SECONDS = 900.0
"""Time limit of a download; what has arrived is kept for the next one. A query has a separate limit."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The sources that this referee may read.

    Attributes:
        data: Folder whose subfolder TENANT holds that tenant's files; None reads no file.
        prefixes: Under which addresses may lie; none reads no address.
        queries: By name; none reads no database.
        cache: Where what is fetched goes; None for the cache of this account.
        artifacts: Among which uploads are; None reads no upload.
    """

    data: Path | None = None
    prefixes: tuple[Address, ...] = ()
    queries: Mapping[str, NamedQuery] = field(default_factory=dict)
    cache: FileCache | None = None
    artifacts: ArtifactStore | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """The fetched data of a study's source, open and held until ``held`` is closed.

    Attributes:
        file: Its content; a decision reads this one and no other.
        digest: SHA-256 of the content when it was fetched.
        path: Where a table lies in the cache, which does not evict it meanwhile; None for the rows of a query.
        held: What to close.
    """

    file: Content
    digest: str
    path: Path | None
    held: contextlib.ExitStack


def elsewhere(study: Study) -> str | None:
    """Return how the study's data must be fetched, ``url`` or ``query``; None where it is on this machine."""
    reads = SCHEMES[check_source(study.source, study.target or None, study.task).scheme].reads
    return reads if reads in ("url", "query") else None


def fetch(study: Study, reach: Reach, hear: Hear) -> Fetched:
    """Fetch a study's data to this machine, as far as the referee may read it."""
    source = check_source(study.source, study.target or None, study.task)
    errand = _Errand(source, study, reach, time.monotonic() + FETCH_SECONDS, hear)
    is_file = elsewhere(study) == "url"
    with contextlib.ExitStack() as held:
        try:
            file, path = _bring_file(errand, held) if is_file else (_bring_rows(errand, held), None)
            return Fetched(file, hashlib.file_digest(file, "sha256").hexdigest(), path, held.pop_all())
        except OSError as error:
            is_late = is_file and time.monotonic() >= errand.until
            raise _unfetched(study, _late() if is_late else reason_of(error)) from error


def study_table(study: Study, reach: Reach, split: Split, fetched: Fetched | None) -> RawTable:
    """Return the rows of a study's source, read from this machine alone."""
    source = check_source(study.source, study.target or None, study.task, split=split)
    if fetched is not None:
        return _read(source, fetched, study, split)
    if source.scheme not in FILE_SCHEMES:  # what is installed here
        return load_source(study.source, study.target or None, study.task, split=split)
    if reach.artifacts is not None and is_upload(source.name):
        with opened_upload(reach.artifacts, source, tenant=study.tenant) as path:
            return _read_private(source, path, study, split)
    absent = (
        f"source {study.source!r}: there is no such {SCHEMES[source.scheme].reads} in the referee's data folder of "
        f"tenant {study.tenant!r}; put it into FOLDER/TENANT, where FOLDER is what the referee was started with "
        "(`easeml referee --data`)"
    )
    if reach.data is None:
        raise InvalidInputError(absent)
    return read_apart(study.source, study, split, folder=reach.data / study.tenant, absent=absent)


def _read_private(source: Source, path: Path, study: Study, split: Split) -> RawTable:
    """Read from where no other account writes; errors name what the user knows, and not the place."""
    try:
        return read_apart(source.at(path), study, split)
    except InvalidInputError as error:
        raise InvalidInputError(str(error).replace(str(path), source.name)) from error


def _query(source: Source, study: Study, reach: Reach) -> NamedQuery:
    """Return the query; the refusal is the same whether it does not exist or is another tenant's."""
    query = reach.queries.get(source.name)
    if query is None or (query.tenants and study.tenant not in query.tenants):
        message = (
            f"source {study.source!r}: the referee knows no such query for tenant {study.tenant!r}; the referee's "
            "operator names queries in the file of `easeml referee --queries`"
        )
        raise InvalidInputError(message)
    return query


class _Errand(NamedTuple):
    """What to fetch for which study, the deadline on the monotonic clock, and the receiver of progress."""

    source: Source
    study: Study
    reach: Reach
    until: float
    hear: Hear


def _bring_file(errand: _Errand, held: contextlib.ExitStack) -> tuple[Content, Path]:
    """Fetch the file through the cache, if this tenant may have it."""
    source, study, reach, until, hear = errand
    address = parse_url(source.name)
    if not is_allowed(address, reach.prefixes, study.tenant):
        message = (
            f"source {study.source!r}: this referee may not read that address for tenant {study.tenant!r}; the "
            "referee's operator allows addresses with `easeml referee --allow-url PREFIX`"
        )
        raise InvalidInputError(message)

    def note(progress: Progress) -> None:
        logger.info("%s", progress)
        hear(progress)
        if time.monotonic() >= until:
            raise _unfetched(study, _late())

    remote = remote_file(address, until)
    wanted = _wanted(address, remote, remote.about())
    path = held.enter_context((reach.cache or FileCache()).entry(wanted, Teller(str(address), note)))
    return held.enter_context(path.open("rb")), path


def _bring_rows(errand: _Errand, held: contextlib.ExitStack) -> Content:
    """Write the rows of a query to an unnamed file: a kill leaves nothing, and the query is repeated."""
    file = held.enter_context(tempfile.TemporaryFile(prefix="easeml-rows-"))  # noqa: SIM115 - closed with ``held``
    teller = Teller(errand.study.source, errand.hear)
    for line in query_lines(_query(errand.source, errand.study, errand.reach)):
        file.write(line)
        teller.tell(file.tell())
    file.seek(0)
    return file


def _unfetched(study: Study, why: str) -> InvalidInputError:
    return InvalidInputError(f"source {study.source!r}: the file cannot be fetched: {why}")


def _late() -> str:
    return f"it took longer than {FETCH_SECONDS:g} s; register the study again, and it goes on where it stopped"


def _read(source: Source, fetched: Fetched, study: Study, split: Split) -> RawTable:
    """Read what was fetched, if unchanged; errors name the address and not the place of the cache."""
    fetched.file.seek(0)
    if hashlib.file_digest(fetched.file, "sha256").hexdigest() != fetched.digest:
        message = f"source {study.source!r}: what was fetched was changed on the referee's machine"
        raise InvalidInputError(message)
    fetched.file.seek(0)
    if fetched.path is None:
        return load_columns(source, columns_of_lines(fetched.file), study.target, study.task, split=split)
    kept = tuple((name, value) for name, value in source.options if name != "format")
    return _read_private(Source(file_format(source), source.name, kept), fetched.path, study, split)


def _wanted(address: Address, remote: RemoteFile, about: About) -> Wanted:
    """Describe one version of a file; one without a version is fetched every time."""
    version = about.version or uuid.uuid4().hex
    key = hashlib.sha256(f"{address}|{about.size}|{version}".encode()).hexdigest()
    return Wanted(key, lambda: (remote, about), most=MAX_BYTES, sha256=None)


LARGEST_BYTES = 1 << 20
LONGEST_SECONDS = 3600.0
_KNOWN = frozenset({"url_env", "url_file", "sql", "tenants", "timeout_seconds"})


def read_queries(path: Path) -> dict[str, NamedQuery]:
    """Return the queries of a file, by name."""
    text = _text(path, "file of queries")
    try:
        compose(text, deepest=4)
        entries = yaml.safe_load(text)  # checked above: no alias, no tag, not deep
    except (YamlFaultError, yaml.YAMLError) as error:
        message = f"file of queries {path}: it is not YAML as it must be: {error}"
        raise InvalidInputError(message) from error
    require(isinstance(entries, dict) and bool(entries), f"file of queries {path}", entries, "a mapping of names")
    return {str(name): _named_query(str(name), entry) for name, entry in entries.items()}


def _named_query(name: str, entry: Any) -> NamedQuery:
    check_source(f"sql:{name}", "any")
    where = f"query {name!r}"
    if not isinstance(entry, dict) or set(entry) - _KNOWN or not isinstance(entry.get("sql"), str):
        message = (
            f"{where} must be a mapping with sql and url_env or url_file, and nothing but {', '.join(sorted(_KNOWN))}"
        )
        raise InvalidInputError(message)
    tenants, seconds = entry.get("tenants", []), entry.get("timeout_seconds", 300)
    is_list = isinstance(tenants, list) and all(isinstance(tenant, str) for tenant in tenants)
    require(is_list and (bool(tenants) or "tenants" not in entry), f"{where}: tenants", tenants, "a list of names")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    in_range = is_number and 0 < seconds <= LONGEST_SECONDS
    require(in_range, f"{where}: timeout_seconds", seconds, f"above 0 and at most {LONGEST_SECONDS:g}")
    return NamedQuery(name, _address(where, entry), entry["sql"], frozenset(tenants), float(seconds))


def _address(where: str, entry: JsonObject) -> str:
    by_env, by_file = entry.get("url_env"), entry.get("url_file")
    if isinstance(by_env, str) == isinstance(by_file, str):
        message = f"{where} must have url_env, the name of a variable, or url_file, the path of a file"
        raise InvalidInputError(message)
    found = _text(Path(str(by_file)), where) if by_env is None else os.environ.get(by_env, "")
    if not found.strip():
        message = f"{where}: {by_env or by_file} is empty; put the database's address there"
        raise InvalidInputError(message)
    return found.strip()


def _text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{what}: {path} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error
    if len(content) > LARGEST_BYTES:
        message = f"{what}: {path} is larger than 1 MB"
        raise InvalidInputError(message)
    return text


CHILD = "easeml_core.data.sources.child"
READING_SECONDS = 3600.0
"""Of the largest table that is allowed, from a slow disk."""

READING_MB = 8192
"""Some twice what the largest table takes that is held in memory."""


def read_apart(spec: str, study: Study, split: Split, *, folder: Path | None = None, absent: str = "") -> RawTable:
    """Return the table of a source, which a child process reads."""
    where = "" if folder is None else str(folder.absolute())
    asked = ReadJob(spec, study.target or None, study.task, str(split), READING_MB, where, absent)
    with scratch_folder("table") as name:
        try:
            run_child(
                CHILD,
                [json.dumps(to_json(asked)), name],
                cwd=Path(name),
                limits=Limits(READING_SECONDS, READING_MB),
                on_output=lambda _: None,
                on_poll=lambda: None,
                loads=("easeml_core.data.sources.load", "easeml_core.data.columns"),
            )
        except TrainingKilled:
            raise
        except TrainingMachineError as error:
            message = f"the data of study {study.name} cannot be read now: {error}"
            raise MachineError(message) from error
        except TrainingError as error:  # what a crash has written may repeat the data, so it goes to the log
            logger.warning("the process that read the data of study %s ended: %s", study.name, error)
            message = f"source {study.source!r}: {_why(error)}"
            raise InvalidInputError(message) from error
        return load_table(Path(name))


def _why(error: TrainingError) -> str:
    if isinstance(error, TrainingStarved) or str(error).startswith(OUT_OF_MEMORY):
        return (
            f"the data take more than {READING_SECONDS / 60:g} minutes or {READING_MB:,} MB to read; bring "
            "fewer rows or columns"
        )
    return "the process that reads the data crashed on them; is the file damaged?"
