"""What the referee reads for a study, and what not: it has rights of its own, so everything is closed by default.

A file or folder comes from the tenant's own folder, an address must lie under a prefix, and a query is one that whoever
runs the referee has written. What is fetched goes through the referee's cache, which resumes after a kill.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError, reason_of
from easeml_core.remote.cache import FileCache, Wanted
from easeml_core.remote.files import Progress, Teller, remote_file
from easeml_core.remote.urls import Address, is_allowed, parse_url
from easeml_core.store.query_source import NamedQuery, read_query
from easeml_core.training.csv_text import MAX_BYTES
from easeml_core.training.source_specs import file_format
from easeml_core.training.sources import FILE_SCHEMES, SCHEMES, Source, check_source, load_columns, load_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.entities import Study
    from easeml_core.remote.files import About, RemoteFile
    from easeml_core.training.sources import RawTable
    from easeml_core.training.split_specs import Split

logger = logging.getLogger(__name__)

FETCH_SECONDS = 900.0
"""After so long a download is given up; what came of it is kept for the next one."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What this referee may read.

    Attributes:
        data: Folder whose subfolder TENANT holds that tenant's files; None reads no file.
        prefixes: Under which addresses may lie; none reads no address.
        queries: By name; none reads no database.
        cache: Where what is fetched goes; None for the cache of this account.
    """

    data: Path | None = None
    prefixes: tuple[Address, ...] = ()
    queries: Mapping[str, NamedQuery] = field(default_factory=dict)
    cache: FileCache | None = None


def study_table(study: Study, reach: Reach, split: Split) -> RawTable:
    """The rows of a study's source, as far as the referee may read it.

    Raises:
        InvalidInputError: It may not, or the data are not as they must be.
    """
    source = check_source(study.source, study.target or None, study.task, split=split)
    reads = SCHEMES[source.scheme].reads
    if reads == "url":
        return _fetched(source, study, reach, split)
    if reads == "query":
        columns = read_query(_query(source, study, reach))
        return load_columns(source, columns, study.target, study.task, split=split)
    spec = readable_source(study, reach.data)
    try:
        return load_source(spec, study.target or None, study.task, split=split)
    except InvalidInputError as error:  # where the referee's folder lies is nobody's business
        place = spec.partition(":")[2].partition("?")[0]
        raise InvalidInputError(str(error).replace(place, source.name)) from error


def readable_source(study: Study, data: Path | None) -> str:
    """The source as the referee may read it: a file or folder only from the tenant's own folder.

    The referee reads with its own account's rights; without this, naming a file would publish it.

    Raises:
        InvalidInputError: The file does not lie there; the message is the same whether it exists elsewhere or not.
    """
    source = check_source(study.source, study.target or None, study.task)
    if source.scheme not in FILE_SCHEMES:
        return study.source
    reads = SCHEMES[source.scheme].reads
    folder = None if data is None else Path(os.path.realpath(data / study.tenant))
    path = None if folder is None else Path(os.path.realpath(folder / source.name))
    is_there = path is not None and (path.is_dir() if reads == "folder" else path.is_file())
    if folder is None or path is None or not path.is_relative_to(folder) or not is_there:
        message = (
            f"source {study.source!r}: there is no such {reads} in the referee's data folder of tenant "
            f"{study.tenant!r}; put it into FOLDER/TENANT, where FOLDER is what the referee was started with "
            "(`easeml referee --data`)"
        )
        raise InvalidInputError(message)
    return source.at(path)


def _query(source: Source, study: Study, reach: Reach) -> NamedQuery:
    """The query; the refusal is the same whether there is none or it is another tenant's."""
    query = reach.queries.get(source.name)
    if query is None or (query.tenants and study.tenant not in query.tenants):
        message = (
            f"source {study.source!r}: the referee knows no such query for tenant {study.tenant!r}; whoever runs it "
            "names queries in the file of `easeml referee --queries`"
        )
        raise InvalidInputError(message)
    return query


def _fetched(source: Source, study: Study, reach: Reach, split: Split) -> RawTable:
    address = parse_url(source.name)
    if not is_allowed(address, reach.prefixes, study.tenant):
        message = (
            f"source {study.source!r}: this referee may not read that address for tenant {study.tenant!r}; whoever "
            "runs it allows addresses with `easeml referee --allow-url PREFIX`"
        )
        raise InvalidInputError(message)
    cache = reach.cache or FileCache()
    try:
        remote = remote_file(address)
        about = remote.about()
        with cache.entry(_wanted(address, remote, about), Teller(str(address), _note)) as path:
            kept = tuple((name, value) for name, value in source.options if name != "format")
            return _read(Source(file_format(source), source.name, kept), path, study, split)
    except OSError as error:
        message = f"source {study.source!r}: the file cannot be fetched: {reason_of(error)}"
        raise InvalidInputError(message) from error


def _read(source: Source, path: Path, study: Study, split: Split) -> RawTable:
    """The fetched file; errors name the address, not where the cache is."""
    try:
        return load_source(source.at(path), study.target or None, study.task, split=split)
    except InvalidInputError as error:
        raise InvalidInputError(str(error).replace(str(path), source.name)) from error


def _wanted(address: Address, remote: RemoteFile, about: About) -> Wanted:
    """One version of a file; one that tells no version is fetched every time."""
    version = about.version or uuid.uuid4().hex
    key = hashlib.sha256(f"{address}|{about.size}|{version}".encode()).hexdigest()
    return Wanted(key, lambda: (remote, about), most=MAX_BYTES, is_digest=False)


def _note(progress: Progress) -> None:
    logger.info("%s", progress)
    if progress.seconds > FETCH_SECONDS:
        message = f"it took longer than {FETCH_SECONDS:g} s; register the study again, and it goes on where it stopped"
        raise TimeoutError(message)
