"""What DAG authors import: arguments with type, default and meaning, as signatures and docstrings say."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from reference_pages.docstring import Docstring, read_docstring, table

PACKAGES = {
    "Operators": "easeml_airflow.operators",
    "Sensors": "easeml_airflow.sensors",
    "Decorator": "easeml_airflow.decorators",
    "Notifiers": "easeml_airflow.notifications",
}
BASES = (
    ("easeml_airflow.operators.base", "EasemlOperator"),
    ("easeml_airflow.operators.base", "RefereeOperator"),
    ("easeml_airflow.sensors.base", "EasemlSensor"),
)
ASSETS = ("submissions", "alerts", "production_model", "evidence")
INTRODUCTION = """\
Arguments of everything that a DAG may import, from the code itself; `kwargs` are those of the base class, and of
Airflow's. How each is used: [one by one](../operators.md#operators-one-by-one). What each gives, and when it fails:
[what DAG authors import](../operators.md)."""


def page() -> str:
    """The page of operators, sensors, decorator, notifiers and assets."""
    parts = ["# Operators, sensors, notifiers, assets", INTRODUCTION]
    for title, name in PACKAGES.items():
        package = import_module(name)
        parts.append(f"## {title}\n\n`from {name} import ...`")
        parts += [section(getattr(package, public)) for public in package.__all__]
    assets = import_module("easeml_airflow.assets")
    parts.append("## Assets\n\n`from easeml_airflow.assets import ...`")
    parts += [section(getattr(assets, name)) for name in ASSETS]
    parts.append("## Base classes\n\nWhat operators and sensors take besides their own arguments.")
    parts += [section(getattr(import_module(module), name)) for module, name in BASES]
    return "\n\n".join(parts) + "\n"


def section(thing: Any) -> str:
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
