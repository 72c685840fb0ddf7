"""Options of Airflow's section ``[easeml]``, and the fields of a study's settings."""

from __future__ import annotations

from typing import Any

import attrs

from reference_pages.docstring import read_docstring, table

KINDS = ("GateConfig", "MeterConfig", "JointConfig", "DirectConfig", "TrainingConfig", "SelectionConfig")


def page() -> str:
    """The page of settings."""
    from easeml_airflow.settings import OPTIONS
    from easeml_core import config

    rows = [
        (f"`{o.name}`", f"`AIRFLOW__EASEML__{o.name.upper()}`", o.type, f"`{o.default}`", o.description)
        for o in OPTIONS
    ]
    parts = ["# Every setting", "From the code itself. What they are for: [settings](../settings.md)."]
    parts.append("## [easeml] of Airflow\n\n" + table(("option", "variable", "type", "default", "meaning"), rows))
    parts += [section(getattr(config, name)) for name in KINDS]
    return "\n\n".join(parts) + "\n"


def section(kind: Any) -> str:
    """A class of settings: what it is for, and its fields."""
    about = read_docstring(kind.__doc__)
    meanings = about.entries("Attributes")
    rows = [(f"`{f.name}`", f"`{f.type}`", f"`{default_of(f)}`", meanings[f.name]) for f in attrs.fields(kind)]
    return f"## {kind.__name__}\n\n{about.text}\n\n" + table(("field", "type", "default", "meaning"), rows)


def default_of(found: attrs.Attribute[Any]) -> str:
    """The default as a person writes it."""
    return f"{type(found.default).__name__}()" if attrs.has(type(found.default)) else repr(found.default)
