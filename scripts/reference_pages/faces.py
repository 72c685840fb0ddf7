"""The public names of the core's packages: what other packages and notebooks import."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from reference_pages.docstring import read_docstring, table

PACKAGES = (
    *("easeml_core", "easeml_core.selection", "easeml_core.gate", "easeml_core.meter"),
    *("easeml_core.programs", "easeml_core.stats"),
)
INTRODUCTION = """\
The public names of each package, from the code itself. Each is imported on first use. Names that are not listed here
may change in any version. `help(name)` prints arguments, units, errors and an example."""


def page() -> str:
    """The page of public names."""
    parts = ["# Public Python names", INTRODUCTION]
    for name in PACKAGES:
        package = import_module(name)
        rows = [(f"`{call(public, getattr(package, public))}`", summary(public, package)) for public in package.__all__]
        about = read_docstring(package.__doc__).text.splitlines()[0]
        parts += [f"## `{name}`", about, table(("name", "what it is"), rows)]
    return "\n\n".join(parts) + "\n"


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
