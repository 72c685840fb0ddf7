"""The public names of the packages: found lazily, never hidden by a submodule, and without a back door."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reference_pages.code_pages import PACKAGES

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
CORE = (
    "easeml_core",
    *(f"easeml_core.{name}" for name in ("client", "gate", "meter", "programs", "selection", "stats")),
)
PLUGIN = tuple(f"easeml_airflow.{name}" for name in ("decorators", "notifications", "operators", "sensors"))
FACES = (*CORE, *PLUGIN)


def stub_of(package: ModuleType) -> dict[str, str]:
    """Return the names that a package's stub imports, with the modules that define them."""
    tree = ast.parse(Path(package.__file__ or "").with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    assert all(alias.asname == alias.name for node in imports for alias in node.names)  # what mypy passes on
    return {alias.name: f"{package.__name__}.{node.module}" for node in imports for alias in node.names}


def packages_of(package: ModuleType) -> set[str]:
    """Return the subpackages that a package's stub imports by themselves."""
    tree = ast.parse(Path(package.__file__ or "").with_suffix(".pyi").read_text(encoding="utf-8"))
    return {a.name for node in tree.body if isinstance(node, ast.ImportFrom) and not node.module for a in node.names}


@pytest.mark.parametrize("face", FACES)
def test_every_name_is_that_of_its_module(face: str) -> None:
    package = importlib.import_module(face)
    stub, packages = stub_of(package), packages_of(package)
    assert package.__all__ == dir(package) == sorted({*stub, *packages})
    for name in packages:
        assert getattr(package, name) is importlib.import_module(f"{face}.{name}")
    for name, module in stub.items():
        first, second = getattr(package, name), getattr(package, name)  # the second time, after the module's import
        assert first is second is getattr(importlib.import_module(module), name)
        assert first.__module__ == module
    with pytest.raises(AttributeError, match=f"module '{face}' has no attribute 'Nothing'"):
        package.Nothing  # noqa: B018 - the attribute is looked up


@pytest.mark.parametrize("face", FACES)
def test_no_name_is_a_submodule(face: str) -> None:
    """An import of the submodule would replace the name."""
    package = importlib.import_module(face)
    names = {*package.__all__} - packages_of(package)
    assert {found.name for found in pkgutil.iter_modules(package.__path__)}.isdisjoint(names)


def test_the_faces_import_nothing() -> None:
    program = f"import sys\nbefore = set(sys.modules)\nimport {', '.join(FACES)}\nprint(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("easeml")}
    assert ours == {*FACES, "easeml_airflow", "easeml_core.lazy"}
    assert {name.split(".")[0] for name in done.stdout.split()} <= {
        "easeml_core",
        "easeml_airflow",
        *sys.stdlib_module_names,
    }


def test_an_import_error_inside_a_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lazy_example"
    folder.mkdir()
    head = "from easeml_core.lazy import attach_stub\n__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)\n"
    (folder / "__init__.py").write_text(head)
    (folder / "__init__.pyi").write_text("from .broken import Thing as Thing\n")
    (folder / "broken.py").write_text("import there_is_no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    package = importlib.import_module("lazy_example")
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        package.Thing  # noqa: B018 - the attribute is looked up


def test_the_reference_lists_the_cores_faces() -> None:
    assert sorted(PACKAGES) == sorted(CORE)


IMPORT = re.compile(r"^ *from (easeml_core|easeml_airflow)([\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)


def test_no_module_imports_an_underscored_name_of_another() -> None:
    sources = [path for folder in ("easeml_core", "plugins", "scripts") for path in (ROOT / folder).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sources
        for match in IMPORT.finditer(path.read_text(encoding="utf-8"))
        if re.search(r"\b_[a-z]", f"{match[2]} {match[3]}")
    ]
    assert found == []
