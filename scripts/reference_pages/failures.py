"""Every error of ours: the tree, and when each is raised."""

from __future__ import annotations

import inspect

from reference_pages.docstring import read_docstring, table


def page() -> str:
    """The page of errors."""
    from easeml_core import errors

    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    tree = inspect.cleandoc(errors.__doc__ or "")
    rows = [(f"`{k.__name__}`", f"`{k.__bases__[0].__name__}`", read_docstring(k.__doc__).text) for k in kinds]
    drawn = "\n".join(line.removeprefix("    ") for line in tree.splitlines() if line.startswith("    "))
    parts = [
        "# Every error",
        "From the code itself. What to do about one, and what it means for a task: [errors](../errors.md).",
        f"```text\n{drawn}\n```",
        table(("error", "is a", "when"), rows),
    ]
    return "\n\n".join(parts) + "\n"
