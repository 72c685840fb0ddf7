"""Measure how the product is built: modules, lines, folders, import circles, loosely typed data, repeated names.

Without an argument the working tree is measured. With several revisions the table has one column for each:
``scripts/structure.py 75f753e .`` compares a commit with the working tree.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from measuring.source_tree import PACKAGES, WORKING_TREE, import_roots, source_tree, tracked_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grimp import ImportGraph

CORE, PLUGIN = Path("easeml_core"), Path("plugins/easeml_airflow")
PRODUCT = (CORE, PLUGIN)
MAPPINGS = ("dict", "Dict", "Mapping", "MutableMapping")


@dataclass(frozen=True)
class Imports:
    """The import graph of the product.

    Attributes:
        circles: Groups of modules that import each other, directly or through others, at run time or inside functions.
        circles_with_types: The same, with imports under ``TYPE_CHECKING`` counted, too.
        single_importers: Modules that exactly one module of the product imports at run time, to that module.
        unimported: Modules that no module of the product imports.
    """

    circles: list[list[str]]
    circles_with_types: list[list[str]]
    single_importers: dict[str, str]
    unimported: list[str]


@dataclass(frozen=True)
class Structure:
    """Measurements of one source tree.

    Attributes:
        revision: What was measured.
        modules: Number of Python files by package, such as ``easeml_core.services``; ``""`` is their sum.
        product_lines: Lines of Python in both packages.
        product_other_lines: Lines of templates, styles, scripts of pages, SQL and other text in both packages.
        test_lines: Lines of Python below ``tests``.
        script_lines: Lines of Python below ``scripts`` and ``benchmarks``.
        folders: Entries of every folder of the repository, files and folders, largest first.
        imports: The import graph.
        loose_mappings: Annotations ``dict[str, Any]`` and ``Mapping[str, Any]`` by package.
        repeated_names: Public names that several modules of one layer define, to these modules.
        recurring_files: File names that occur in several layers, to their number.
        documentation_pages: Pages directly in ``docs``.
    """

    revision: str
    modules: dict[str, int]
    product_lines: int
    product_other_lines: int
    test_lines: int
    script_lines: int
    folders: dict[str, int]
    imports: Imports
    loose_mappings: dict[str, int]
    repeated_names: dict[str, list[str]] = field(repr=False)
    recurring_files: dict[str, int] = field(repr=False)
    documentation_pages: int

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Return what the table shows: the measure and its value."""
        largest = [(name, n) for name, n in self.folders.items() if Path(name).parts[:1] != ("docs",)]
        product = [(name, n) for name, n in largest if any(Path(name).is_relative_to(part) for part in PRODUCT)]
        return [
            ("modules of the product", str(self.modules[""])),
            *((f"  {name}", str(n)) for name, n in self.modules.items() if name),
            ("lines of the product", f"{self.product_lines:,}"),
            ("  templates, styles, SQL", f"{self.product_other_lines:,}"),
            ("lines of tests", f"{self.test_lines:,}"),
            ("lines of scripts and benchmarks", f"{self.script_lines:,}"),
            ("largest folder of the product", "{1} {0}".format(*product[0])),
            ("largest folder", "{1} {0}".format(*largest[0])),
            ("folders above 22 entries", str(sum(n > 22 for _, n in largest))),
            ("import circles", _sizes(self.imports.circles)),
            ("  type-only imports included", _sizes(self.imports.circles_with_types)),
            ("modules with a single importer", str(len(self.imports.single_importers))),
            ("modules without an importer", str(len(self.imports.unimported))),
            *((f"dict[str, Any] in {name}", str(n)) for name, n in self.loose_mappings.items()),
            ("public names in several modules of a layer", str(len(self.repeated_names))),
            ("file names in several layers", str(len(self.recurring_files))),
            ("pages directly in docs/", str(self.documentation_pages)),
        ]


def _sizes(circles: list[list[str]]) -> str:
    return f"{len(circles)} ({sum(map(len, circles))} modules)" if circles else "0"


def measure(tree: Path, revision: str) -> Structure:
    """Measure a source tree.

    Args:
        tree: Its root folder.
        revision: What the report calls it.
    """
    files = tracked_files(tree)
    product = [path for path in files if any(path.is_relative_to(part) for part in PRODUCT)]
    modules = {path: (tree / path).read_text(encoding="utf-8") for path in product if path.suffix == ".py"}
    parsed = {path: ast.parse(text) for path, text in modules.items()}
    packages = Counter(layer_of(path) for path in modules)
    pages = [path for path in files if path.parent == Path("docs") and path.suffix == ".md"]
    return Structure(
        revision=revision,
        modules={"": len(modules), **dict(sorted(packages.items()))},
        product_lines=sum(text.count("\n") for text in modules.values()),
        product_other_lines=_lines(tree, [path for path in product if path.suffix != ".py"]),
        test_lines=_lines(tree, _python(files, "tests")),
        script_lines=_lines(tree, _python(files, "scripts", "benchmarks")),
        folders=_folders(files),
        imports=imports_of(tree),
        loose_mappings={
            part.name: sum(_loose_mappings(parsed[path]) for path in parsed if path.is_relative_to(part))
            for part in PRODUCT
        },
        repeated_names=_repeated_names(parsed),
        recurring_files=_recurring_files(modules),
        documentation_pages=len(pages),
    )


def layer_of(path: Path) -> str:
    """Return the layer of a module's file: the package below the root package, or the root package itself."""
    part = next(part for part in PRODUCT if path.is_relative_to(part))
    inner = path.relative_to(part).parts
    return f"{part.name}.{inner[0]}" if len(inner) > 1 else part.name


def _python(files: Iterable[Path], *folders: str) -> list[Path]:
    return [path for path in files if path.suffix == ".py" and path.parts[0] in folders]


def _lines(tree: Path, files: Iterable[Path]) -> int:
    """Return the number of lines of the files that are text."""
    contents = ((tree / path).read_bytes() for path in files)
    return sum(content.count(b"\n") for content in contents if b"\0" not in content)


def _folders(files: Iterable[Path]) -> dict[str, int]:
    entries: dict[Path, set[str]] = defaultdict(set)
    for path in files:
        for place in (path, *path.parents):
            if place != Path():
                entries[place.parent].add(place.name)
    sizes = {str(folder): len(names - {"__init__.py"}) for folder, names in entries.items()}
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _loose_mappings(module: ast.Module) -> int:
    """Count mappings from strings to ``Any``, in annotations, aliases and casts alike."""
    return sum(
        isinstance(node, ast.Subscript)
        and _name(node.value) in MAPPINGS
        and isinstance(node.slice, ast.Tuple)
        and [_name(part) for part in node.slice.elts] == ["str", "Any"]
        for node in ast.walk(module)
    )


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _public_names(module: ast.Module) -> set[str]:
    """Return the public functions, classes and constants that a module defines at its top level."""
    found: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def _repeated_names(parsed: dict[Path, ast.Module]) -> dict[str, list[str]]:
    where: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, module in parsed.items():
        if "migrations" not in path.parts:  # Alembic wants the same names in each
            for name in _public_names(module):
                where[layer_of(path), name].append(str(path))
    several = {f"{layer}: {name}": paths for (layer, name), paths in where.items() if len(paths) > 1}
    return dict(sorted(several.items(), key=lambda item: (-len(item[1]), item[0])))


def _recurring_files(modules: Iterable[Path]) -> dict[str, int]:
    layers: dict[str, set[str]] = defaultdict(set)
    for path in modules:
        if path.stem != "__init__":
            layers[path.name].add(layer_of(path))
    return {name: len(found) for name, found in sorted(layers.items()) if len(found) > 1}


def imports_of(tree: Path) -> Imports:
    """Read the import graph in a separate process, which imports this tree's packages and not the installed ones."""
    command = [sys.executable, __file__, "--imports-of", str(tree)]
    paths = os.pathsep.join(import_roots(tree))
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    return Imports(**json.loads(done.stdout))


def _read_imports(tree: Path) -> Imports:
    import importlib.util

    import grimp

    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None or not Path(found.origin).is_relative_to(tree.resolve()):
            sys.exit(f"{package} is imported from {found and found.origin}, not from {tree}")
    graph, typed = (
        grimp.build_graph(*PACKAGES, exclude_type_checking_imports=without, cache_dir=None) for without in (True, False)
    )
    importers = {module: graph.find_modules_that_directly_import(module) for module in graph.modules}
    single = {module: next(iter(found)) for module, found in sorted(importers.items()) if len(found) == 1}
    unimported = sorted(module for module, found in importers.items() if not found)
    return Imports(circles(graph), circles(typed), single, unimported)


def circles(graph: ImportGraph) -> list[list[str]]:
    """Return the strongly connected components of more than one module, largest first."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    modules = sorted(graph.modules)
    place = {module: number for number, module in enumerate(modules)}
    arrows = [(place[m], place[to]) for m in modules for to in graph.find_modules_directly_imported_by(m)]
    rows, columns = np.array(arrows, dtype=np.intp).reshape(-1, 2).T
    adjacency = coo_array((np.ones(len(arrows), dtype=np.int8), (rows, columns)), shape=(len(modules), len(modules)))
    count, labels = connected_components(adjacency, connection="strong")
    groups = [[modules[place] for place in np.flatnonzero(labels == label)] for label in range(count)]
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group))


def table(measured: list[Structure]) -> str:
    """Return the measurements as text, one column for each source tree."""
    columns = [dict(one.rows) for one in measured]
    names = list(dict.fromkeys(name for column in columns for name in column))
    lines = [["", *(one.revision for one in measured)]]
    lines += [[name, *(column.get(name, "") for column in columns)] for name in names]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


@click.command(help=__doc__)
@click.argument("revisions", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the names behind each number.")
@click.option("--imports-of", type=click.Path(path_type=Path, exists=True), hidden=True)
def main(revisions: tuple[str, ...], *, as_json: bool, imports_of: Path | None) -> None:
    """Print the measurements."""
    if imports_of is not None:
        click.echo(json.dumps(asdict(_read_imports(imports_of))))
        return
    measured = []
    for revision in revisions or (WORKING_TREE,):
        with source_tree(revision) as tree:
            measured.append(measure(tree, revision))
    click.echo(json.dumps([asdict(one) for one in measured], indent=1) if as_json else table(measured))


if __name__ == "__main__":
    main()
