"""The pages of the reference that are made from code: commands, classes, public names, errors, answers."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example", "Yields")
_HEAD = re.compile(rf"({'|'.join(SECTIONS)}):$")
_ENTRY = re.compile(r"(\*{0,2}\w+): (.*)")


@dataclass
class Docstring:
    """The text before the first section, and the lines of each section, without their indentation."""

    text: str = ""
    sections: dict[str, list[str]] = field(default_factory=dict)

    def entries(self, section: str) -> dict[str, str]:
        r"""The entries of a section of the form ``name: words``, each as one line.

        Example:
            >>> read_docstring("Do.\n\nArgs:\n    a: The\n        first.\n    b: Next.").entries("Args")
            {'a': 'The first.', 'b': 'Next.'}
        """
        found: dict[str, str] = {}
        name = ""
        for line in self.sections.get(section, []):
            head = None if line.startswith(" ") else _ENTRY.match(line)
            if head:
                name, found[head[1]] = head[1], head[2]
            elif name:
                found[name] = f"{found[name]} {line.strip()}".strip()
        return found


def read_docstring(source: str | None) -> Docstring:
    """Take a docstring apart.

    Args:
        source: As ``__doc__`` gives it; None is an empty one.
    """
    read = Docstring()
    lines: list[str] = []
    before = lines
    for line in inspect.cleandoc(source or "").splitlines():
        head = _HEAD.match(line)
        if head:
            lines = read.sections.setdefault(head[1], [])
        else:
            lines.append(line if lines is before else line.removeprefix("    "))
    read.text = "\n".join(before).strip()
    return read


def cell(text: str) -> str:
    """Text for a cell of a table: one line, without the sign that divides cells."""
    return " ".join(text.replace(" | ", " or ").split()).replace("|", "\\|")


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


WIDTH = 100


def commands_page() -> str:
    """The page of commands."""
    from easeml_core.cli.app import cli

    parts = [
        "# Help of every command",
        "What each command prints with `--help`.",
    ]
    for words, text in helps(cli, ("easeml",), None):
        title = " ".join(words)
        parts.append(f"{'#' * min(len(words) + 1, 3)} {title}\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def helps(
    command: click.Command, words: tuple[str, ...], parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The words that reach each command, and its help; a group before its commands."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=words[-1], parent=parent, **settings)
    yield words, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from helps(below, (*words, name), context)


CLASS_PACKAGES = {
    "Operators": "easeml_airflow.operators",
    "Sensors": "easeml_airflow.sensors",
    "Decorator": "easeml_airflow.decorators",
    "Notifiers": "easeml_airflow.notifications",
}
BASES = (
    ("easeml_airflow.operators.base", "EasemlOperator"),
    ("easeml_airflow.operators.base", "AnswerOperator"),
    ("easeml_airflow.operators.base", "RefereeOperator"),
    ("easeml_airflow.sensors.states", "EasemlSensor"),
)
ASSETS = ("submissions", "alerts", "production_model", "evidence")
CLASSES_INTRODUCTION = """\
Arguments of everything that a DAG may import, from the code itself; `kwargs` are those of the base class, and of
Airflow's. How each is used: [one by one](../operators.md#operators-one-by-one)."""


def classes_page() -> str:
    """The page of operators, sensors, decorator, notifiers and assets."""
    parts = ["# Every argument", CLASSES_INTRODUCTION]
    for title, name in CLASS_PACKAGES.items():
        package = import_module(name)
        parts.append(f"## {title}\n\n`from {name} import ...`")
        parts += [class_section(getattr(package, public)) for public in package.__all__]
    assets = import_module("easeml_airflow.assets")
    parts.append("## Assets\n\n`from easeml_airflow.assets import ...`")
    parts += [class_section(getattr(assets, name)) for name in ASSETS]
    parts.append("## Pods\n\n`from easeml_airflow.operators.pods import ...`")
    parts.append(class_section(import_module("easeml_airflow.operators.pods").device_pod))
    parts.append("## Base classes\n\nWhat operators and sensors take besides their own arguments.")
    parts += [class_section(getattr(import_module(module), name)) for module, name in BASES]
    return "\n\n".join(parts) + "\n"


def class_section(thing: Any) -> str:
    """A class or a function: what it does, its arguments, what comes back, what it raises."""
    about = read_docstring(thing.__doc__)
    run = read_docstring(getattr(getattr(thing, "execute", None), "__doc__", None) if inspect.isclass(thing) else None)
    parts = [f"### {thing.__name__}", about.text]
    rows = arguments(thing, about)
    if rows:
        parts.append(table(("argument", "type", "default", "meaning"), rows))
    for title, source in (("Returns", about if about.sections.get("Returns") else run), ("Raises", about)):
        if source.sections.get(title):
            lines = " ".join(line.strip() for line in source.sections[title] if line.strip())
            parts.append(f"**{'Gives' if title == 'Returns' else 'Raises'}** {lines}")
    return "\n\n".join(part for part in parts if part)


def arguments(thing: Any, about: Docstring) -> list[tuple[str, ...]]:
    """A row for each argument; a templated one says so."""
    meanings = about.entries("Args")
    templated = set(getattr(thing, "template_fields", ()))
    rows: list[tuple[str, ...]] = []
    for name, parameter in inspect.signature(thing).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            rows.append((f"`{name}`", "", "", meanings.get(name, "Those of the base class.")))
            continue
        needed = parameter.default is parameter.empty
        kind = "" if parameter.annotation is parameter.empty else f"`{parameter.annotation}`"
        meaning = meanings.get(name, "") + (
            " Templated." if name in templated and "emplated" not in meanings.get(name, "") else ""
        )
        rows.append((f"`{name}`", kind, "needed" if needed else f"`{parameter.default!r}`", meaning.strip()))
    return rows


PACKAGES = (
    *("easeml_core", "easeml_core.client", "easeml_core.selection", "easeml_core.gate", "easeml_core.meter"),
    *("easeml_core.programs", "easeml_core.stats"),
)
NAMES_INTRODUCTION = """\
The public names of each package, from the code itself. Each is imported on first use. A name that is listed here is
renamed or removed only after a minor version in which its use warns (`DeprecationWarning`, which names the successor);
names that are not listed may change in any version. `help(name)` prints arguments, units, errors and an example."""


def faces_page() -> str:
    """The page of public names."""
    parts = ["# Public Python names", NAMES_INTRODUCTION, "## For notebooks, scripts and tests", API_INTRODUCTION]
    parts += [function_section(f"easeml.{path}") for path in (*API_FUNCTIONS, *CHECKS)]
    parts += [value_section(import_module(module), name) for module, name in API_VALUES]
    for name in PACKAGES:
        package = import_module(name)
        rows = [(f"`{call(public, getattr(package, public))}`", summary(public, package)) for public in package.__all__]
        about = read_docstring(package.__doc__).text.splitlines()[0]
        parts += [f"## `{name}`", about, table(("name", "what it is"), rows)]
    return "\n\n".join(parts) + "\n"


API_INTRODUCTION = """\
`import easeml_core as easeml`. Each function is the one behind the command of the same name; it imports no Airflow.
What it returns is shown as a table in a notebook."""
CHECKS = tuple(f"testing.check_{kind}" for kind in ("metric", "trainer", "policy", "notifier", "source"))
API_FUNCTIONS = (
    "gate.plan",
    "gate.decide",
    "meter.plan",
    "meter.replay",
    "simulate",
    "connect",
    "save_fitted",
    *CHECKS,
)
API_VALUES = (
    ("easeml_core", "Client"),
    ("easeml_core", "StudyClient"),
    ("easeml_core", "RefereeRequest"),
    ("easeml_core.gate", "PlannedGate"),
    ("easeml_core.gate", "OfflineVerdict"),
    ("easeml_core.meter", "PlannedMeter"),
    ("easeml_core.meter", "ReplayedMeter"),
    ("easeml_core.selection", "ComparedPolicies"),
    ("easeml_core.selection", "Seen"),
)


def function_section(path: str) -> str:
    """A function of the Python API under the name by which it is called."""
    thing: Any = import_module("easeml_core")
    for name in path.split(".")[1:]:
        thing = getattr(thing, name)
    _, _, body = class_section(thing).partition("\n\n")
    return f"### `{path}`\n\n{body}"


def value_section(package: Any, name: str) -> str:
    """A class of the Python API: what it is, its fields, properties and methods."""
    kind = getattr(package, name)
    about = read_docstring(kind.__doc__)
    rows = [(f"`{field}`", text) for field, text in about.entries("Attributes").items()]
    for member, thing in vars(kind).items():
        if member.startswith("_") or not (inspect.isfunction(thing) or isinstance(thing, property)):
            continue
        shown = member if isinstance(thing, property) else call(member, thing).replace("self, ", "").replace("self", "")
        rows.append((f"`{shown}`", read_docstring(thing.__doc__).text.split("\n\n")[0]))
    return "\n\n".join((f"### `{name}`", about.text, table(("member", "what it is"), rows)))


def call(name: str, thing: Any) -> str:
    """The name; for a function with its arguments, the optional ones in brackets."""
    if not inspect.isfunction(thing):
        return name
    parts: list[str] = []
    star = False
    for argument in inspect.signature(thing).parameters.values():
        if argument.kind is argument.KEYWORD_ONLY and not star:
            star = True
            parts.append("*")
        parts.append(argument.name if argument.default is argument.empty else f"{argument.name}=...")
    return f"{name}({', '.join(parts)})"


def summary(name: str, package: Any) -> str:
    """The first sentence of a docstring."""
    return read_docstring(getattr(package, name).__doc__).text.split("\n\n")[0]


def failures_page() -> str:
    """The page of errors."""
    from easeml_core import errors

    tree = inspect.cleandoc(errors.__doc__ or "")
    drawn = "\n".join(line.removeprefix("    ") for line in tree.splitlines() if line.startswith("    "))
    return f"# The tree of errors\n\nEach error is also every one above it.\n\n```text\n{drawn}\n```\n"
