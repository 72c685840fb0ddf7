"""Source trees to measure, the working tree or any git revision, and their public entry points by name."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


REPOSITORY = Path(__file__).resolve().parents[2]
WORKING_TREE = "."
"""Revision that names the working tree, with uncommitted changes."""

PACKAGES = ("easeml_core", "easeml_airflow")


def import_roots(tree: Path) -> list[str]:
    """Return the folders that contain our packages, in the order in which ``sys.path`` needs them."""
    return [str(tree), str(tree / "plugins")]


@contextlib.contextmanager
def source_tree(revision: str) -> Iterator[Path]:
    """Yield the root folder of a revision.

    Args:
        revision: Any name that git resolves to a commit, or ``WORKING_TREE``.

    Raises:
        subprocess.CalledProcessError: If git does not know the revision.
    """
    if revision == WORKING_TREE:
        yield REPOSITORY
        return
    command = ["git", "archive", "--format=tar", revision]
    packed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory(prefix="easeml-tree-") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def tracked_files(tree: Path) -> list[Path]:
    """Return every file of the tree relative to it, in order, without what git ignores."""
    if not (tree / ".git").exists():
        return sorted(path.relative_to(tree) for path in tree.rglob("*") if path.is_file())
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout
    return sorted(Path(name) for name in set(listed.split("\0")) - {""} if (tree / name).is_file())


_CONFTEST = "conftest of "


class EntryPoints:
    """Finds and imports what a tree defines at the top level of its modules.

    Args:
        files: Each module and its file.
    """

    def __init__(self, files: Iterator[tuple[str, Path]]) -> None:
        self._files: dict[str, tuple[Path, str]] = {}
        for module, path in files:  # of two files with one name, ``import`` finds the first
            self._files.setdefault(module, (path, path.read_text(encoding="utf-8")))

    @classmethod
    def of_product(cls, tree: Path) -> EntryPoints:
        """Return those of both packages, which must be the packages that ``import`` finds."""
        roots = zip(PACKAGES, map(Path, import_roots(tree)), strict=True)
        return cls(
            (".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"), path)
            for package, root in roots
            for path in sorted((root / package).rglob("*.py"))
        )

    @classmethod
    def of_tests(cls, tree: Path) -> EntryPoints:
        """Return those of what tests share: modules of ``tests`` in ``pythonpath``, then every ``conftest``."""
        project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
        folders = [tree / name for name in project["tool"]["pytest"]["ini_options"]["pythonpath"]]
        sys.path[:0] = [str(folder) for folder in folders if str(folder) not in sys.path]
        ours = [folder for folder in folders if folder.is_relative_to(tree / "tests")]
        shared = [path for folder in ours for path in sorted(folder.glob("*.py")) if path.stem[:5] != "test_"]
        return cls(
            (path.stem if path.stem != "conftest" else f"{_CONFTEST}{path.parent.relative_to(tree)}", path)
            for path in dict.fromkeys([*shared, *sorted((tree / "tests").rglob("conftest.py"))])
        )

    def module(self, name: str, within: str = "") -> ModuleType:
        """Return the module that defines a function or class.

        Args:
            name: As its ``def`` or ``class`` statement has it.
            within: With what the module's name begins, where several modules define the name.

        Raises:
            LookupError: If no module, or more than one, defines the name.
        """
        defined = re.compile(rf"^(?:async def|def|class) {name}\b", re.MULTILINE)
        found = [
            module for module, (_, text) in self._files.items() if module.startswith(within) and defined.search(text)
        ]
        found = [module for module in found if not module.startswith(_CONFTEST)] or found
        if len(found) != 1:
            message = f"one module must define {name}{within and f' within {within}'}, found {found}"
            raise LookupError(message)
        return self._loaded_from_file(found[0]) if found[0].startswith(_CONFTEST) else importlib.import_module(found[0])

    def get(self, name: str, within: str = "") -> Any:
        """Return the function or class itself; arguments and errors as of ``module``."""
        return getattr(self.module(name, within), name)

    def _loaded_from_file(self, module: str) -> ModuleType:
        if module not in sys.modules:
            spec = importlib.util.spec_from_file_location(module, self._files[module][0])
            assert spec is not None
            assert spec.loader is not None
            sys.modules[module] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[module])
        return sys.modules[module]
