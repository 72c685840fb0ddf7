"""Public names of a package that are imported on first use (PEP 562).

The names of a package are listed once, as imports in the stub beside its ``__init__``: type checkers and editors read
the stub, and so does ``attach_stub``. ``import easeml_core`` therefore imports no submodule, and a DAG file that uses
one operator imports that operator's module only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def attach_stub(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package, read from its stub.

    A name is imported when it is first used and kept in the package. It must differ from every submodule's name: the
    import system sets a submodule as an attribute of its package, and would replace the name. A subpackage that the
    stub imports by itself is such a submodule.

    Example:
        >>> import easeml_core.stats
        >>> "clopper_pearson" in easeml_core.stats.__all__
        True
    """
    import ast

    with open(file.removesuffix(".py") + ".pyi", encoding="utf-8") as stub:
        imports = [node for node in ast.parse(stub.read()).body if isinstance(node, ast.ImportFrom) and node.level == 1]
    modules = {alias.name: f"{package}.{node.module}" for node in imports if node.module for alias in node.names}
    packages = {alias.name for node in imports if node.module is None for alias in node.names}
    names = sorted({*modules, *packages})

    def import_name(name: str) -> Any:
        if name in packages:
            return import_module(f"{package}.{name}")  # which makes it an attribute
        if name not in modules:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message)
        value = getattr(import_module(modules[name]), name)
        setattr(import_module(package), name, value)
        return value

    return import_name, names.copy, names
