"""The DAGs that come with the plugin: where they are, what each is for, and copies of them in a folder of Airflow.

DAG files are read as text and parsed, never run: that needs no Airflow, and a folder may hold files of other users.

A copy is known by the record ``.easeml-dags.json`` beside it, which has the hash of each file that was written. So an
upgrade replaces unchanged copies, and refuses the others.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from easeml_core import __version__
from easeml_core.errors import InvalidInputError, StateError, reason_of
from easeml_core.files.local import write_durably
from easeml_core.formats.encoding import typed_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLUGIN, IN_WHEEL, IN_CHECKOUT = "easeml_airflow", "example_dags", "dags"
RECORD = ".easeml-dags.json"
LARGEST_BYTES = 1_000_000
"""A larger file is not searched for DAG ids."""

FileState = Literal["written", "updated", "replaced", "unchanged"]


@dataclass(frozen=True, slots=True)
class ExampleDag:
    """A DAG that comes with the plugin.

    Attributes:
        dag_id: Its id, and the name of its file.
        schedule: When it runs, e.g. ``30 0 * * * (UTC)``, ``@continuous`` or ``by hand``.
        summary: The first sentence of its documentation.
        content: Of the file.
    """

    dag_id: str
    schedule: str
    summary: str
    content: bytes

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.dag_id}.py"

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return _digest(self.content)


@typed_record
class CopiedDag:
    """What became of one DAG.

    Attributes:
        dag_id: Its id.
        file: Its path in the folder.
        state: ``written`` (there was none), ``updated`` (an unchanged copy of another version was there), ``replaced``
            (a changed file was there) or ``unchanged``.
        schedule: When it runs.
        summary: What it does, in a sentence.
    """

    dag_id: str
    file: str
    state: FileState
    schedule: str
    summary: str


@typed_record
class CopiedDags:
    """The answer of ``easeml dags copy``.

    Attributes:
        folder: Where the DAGs are.
        made: Whether the folder was made.
        dags: All that were asked for, by id.
        obsolete: Files of an earlier copy that this version does not have; they are left there.
    """

    folder: str
    made: bool
    dags: tuple[CopiedDag, ...]
    obsolete: tuple[str, ...]


def shipped_folder() -> Path:
    """Return the folder of the DAGs: of the wheel, or of the checkout that is installed in place."""
    spec = util.find_spec(PLUGIN)
    for package in map(Path, (spec.submodule_search_locations or ()) if spec else ()):
        in_checkout = package.parents[1] / IN_CHECKOUT
        for folder in (package / IN_WHEEL, in_checkout):
            if any(folder.glob("easeml_*.py")):
                return folder
    what = f"the DAGs of the package {PLUGIN}"
    message = f"{what} are not installed here: install the wheel, or copy the folder dags/ of the repository"
    raise StateError(message)


def example_dags(folder: Path | None = None) -> tuple[ExampleDag, ...]:
    """Return the DAGs that come with the plugin, by id."""
    return tuple(_read_dag(path) for path in sorted((folder or shipped_folder()).glob("easeml_*.py")))


def copy_dags(target: Path, names: Sequence[str] = (), *, force: bool = False) -> CopiedDags:
    """Copy DAGs into a folder from which Airflow reads DAGs: all of them, or none."""
    source = shipped_folder()
    chosen = _chosen(example_dags(source), names)
    made = _check_folder(target, source)
    record = _read_record(target)
    states = {dag: _state_of(target / dag.file, dag, record.get(dag.file)) for dag in chosen}
    if changed := [dag.file for dag, state in states.items() if state == "replaced"]:
        _refuse_unless(force, target, changed)
    _refuse_doubles(target, {dag.dag_id: target / dag.file for dag in chosen})
    _write(target, made, states, record)
    listed = tuple(
        CopiedDag(dag.dag_id, str(target / dag.file), states[dag], dag.schedule, dag.summary) for dag in chosen
    )
    shipped = {dag.file for dag in example_dags(source)}
    obsolete = sorted(name for name in record if name not in shipped and (target / name).exists())
    return CopiedDags(str(target), made, listed, tuple(obsolete))


def schedule_text(value: ast.expr | None) -> str:
    """Describe the argument ``schedule`` of a DAG.

    Example:
        >>> schedule_text(ast.parse("CronTriggerTimetable('0 1 * * *', timezone='UTC')", mode="eval").body)
        '0 1 * * * (UTC)'
        >>> schedule_text(ast.parse("timedelta(minutes=5)", mode="eval").body)
        'every 5 minutes'
    """
    if value is None or (isinstance(value, ast.Constant) and value.value is None):
        return "by hand"
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "CronTriggerTimetable":
        zone = next((word.value for word in value.keywords if word.arg == "timezone"), None)
        return f"{ast.literal_eval(value.args[0])}{f' ({ast.literal_eval(zone)})' if zone else ''}"
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "timedelta":
        return f"every {' '.join(f'{ast.unparse(word.value)} {word.arg}' for word in value.keywords)}"
    return f"on {ast.unparse(value).strip('[]')}"


def _read_dag(path: Path) -> ExampleDag:
    content = path.read_bytes()
    tree = ast.parse(content)
    (call,) = (call for call in _dag_calls(tree) if call.keywords)
    schedule = next((word.value for word in call.keywords if word.arg == "schedule"), None)
    summary = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    return ExampleDag(path.stem, schedule_text(schedule), summary, content)


def _dag_calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in ("DAG", "dag"):
                yield node


def _chosen(shipped: Sequence[ExampleDag], names: Sequence[str]) -> list[ExampleDag]:
    known = [dag.dag_id for dag in shipped]
    if unknown := [name for name in names if name not in known]:
        message = f"there is no DAG {unknown[0]}; there are {', '.join(known)}"
        raise InvalidInputError(message)
    return [dag for dag in shipped if not names or dag.dag_id in names]


def _check_folder(target: Path, source: Path) -> bool:
    """Return whether the folder has to be made."""
    if target.is_dir():
        if target.samefile(source):
            message = f"{target} is where the DAGs come from: name the folder from which your Airflow reads DAGs"
            raise InvalidInputError(message)
        return False
    if target.exists() or target.is_symlink():
        message = f"{target} is no folder"
        raise InvalidInputError(message)
    if not target.absolute().parent.is_dir():
        message = f"{target.absolute().parent} does not exist: make it, or correct the path"
        raise InvalidInputError(message)
    return True


def _read_record(target: Path) -> dict[str, str]:
    """Return the hash of each file that an earlier copy has written; empty where there is no record."""
    path = target / RECORD
    if not path.exists():
        return {}
    try:
        files: Any = json.loads(_read_start(path))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        message = f"{path} is no record of copied DAGs ({reason_of(error)}): remove it, and give --force"
        raise StateError(message) from error


def _state_of(path: Path, dag: ExampleDag, recorded: str | None) -> FileState:
    if not path.exists():
        return "written"
    try:
        found = _digest(_read_start(path))
    except OSError as error:
        message = f"{path} cannot be read: {reason_of(error)}"
        raise StateError(message) from error
    if found == dag.digest:
        return "unchanged"
    return "updated" if found == recorded else "replaced"


def _refuse_unless(force: bool, target: Path, changed: Sequence[str]) -> None:
    if force:
        return
    message = (
        f"{target}: {', '.join(changed)} differ from this version, and from what was copied there; nothing was "
        "written. Rename your own (file and dag_id), or give --force to replace them"
    )
    raise StateError(message)


def _refuse_doubles(target: Path, own: dict[str, Path]) -> None:
    """Refuse where another file defines a DAG of the same id: Airflow would show the one it has read last."""
    for path in sorted(target.rglob("*.py")) if target.is_dir() else ():
        for dag_id in _ids_in(path) & set(own):
            if path != own[dag_id]:
                message = (
                    f"{path} has a DAG of the id {dag_id}, too, and Airflow would show the one that it has read last; "
                    "nothing was written. Remove it or change its dag_id, or name the DAGs to copy"
                )
                raise StateError(message)


def _ids_in(path: Path) -> set[str]:
    """Return the ids of the DAGs that a file defines by a constant; empty where it is no Python."""
    try:
        content = _read_start(path)
        is_searched = len(content) <= LARGEST_BYTES and b"easeml_" in content
        tree = ast.parse(content) if is_searched else ast.Module([], [])
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):  # Airflow reads no DAG from it either
        return set()
    named = {
        word.value.value
        for call in _dag_calls(tree)
        for word in (*(ast.keyword("dag_id", value) for value in call.args[:1]), *call.keywords)
        if word.arg == "dag_id" and isinstance(word.value, ast.Constant)
    }
    return {str(name) for name in named}


def _read_start(path: Path) -> bytes:
    """Return a file's bytes, at most one more than are searched; a pipe or a device is an error and does not wait."""
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(opened, "rb") as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "is no file", str(path))
        return file.read(LARGEST_BYTES + 1)


def _write(target: Path, made: bool, states: dict[ExampleDag, FileState], record: dict[str, str]) -> None:
    try:
        if made:
            target.mkdir()
        for dag, state in states.items():
            if state != "unchanged":
                write_durably(target / dag.file, dag.content, mode=_readable())
        files = record | {dag.file: dag.digest for dag in states}
        if files != record or any(state != "unchanged" for state in states.values()):
            written = {"easeml": __version__, "files": dict(sorted(files.items()))}
            write_durably(target / RECORD, json.dumps(written, indent=2) + "\n", mode=_readable())
    except OSError as error:
        message = f"{target} cannot be written: {reason_of(error)}; run this as the account that owns the folder"
        raise StateError(message) from error


def _readable() -> int:
    """Return the mode of a new file: the account of the DAG processor has to read it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
