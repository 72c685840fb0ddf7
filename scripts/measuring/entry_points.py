"""Public entry points of the product by name, wherever the modules that define them lie in a source tree.

Measurements run on trees before and after modules move, so they name functions and classes, not modules.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from measuring.source_tree import PACKAGES, import_roots

if TYPE_CHECKING:
    from pathlib import Path


class EntryPoints:
    """Finds and imports what a tree defines at the top level of its modules.

    Args:
        tree: The source tree; its packages must be those that ``import`` finds.
    """

    def __init__(self, tree: Path) -> None:
        self._files: dict[str, str] = {}
        for package, root in zip(PACKAGES, import_roots(tree), strict=True):
            for path in sorted((tree / root / package).rglob("*.py")):
                module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
                self._files[module] = path.read_text(encoding="utf-8")

    def get(self, name: str, within: str = "") -> Any:
        """Return the function or class of this name.

        Args:
            name: As its ``def`` or ``class`` statement has it.
            within: Package that contains the module, where several packages define the name.

        Raises:
            LookupError: If no module, or more than one, defines the name.
        """
        defined = re.compile(rf"^(?:async def|def|class) {name}\b", re.MULTILINE)
        found = [module for module, text in self._files.items() if module.startswith(within) and defined.search(text)]
        if len(found) != 1:
            message = f"one module of {within or 'the product'} must define {name}, found {found}"
            raise LookupError(message)
        return getattr(importlib.import_module(found[0]), name)
