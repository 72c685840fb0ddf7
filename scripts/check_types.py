"""Check the types of everything in one run of mypy: both packages, scripts, benchmarks, and what tests share.

``mypy`` alone checks the packages. The helpers of tests import each other by their bare names, and there are many
modules called ``conftest``, which mypy's command line cannot name apart; its library can.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("tests", "scripts", "benchmarks")
"""Where two files would have one name, that of a later folder is named by its full path: it is run, not imported."""


def bare_folders() -> list[Path]:
    """Return the folders whose modules are imported by their bare names, the deepest ones first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["pytest"]["ini_options"]["pythonpath"]
    folders = [ROOT / name for name in dict.fromkeys([*shared, "scripts", "benchmarks", "tests/browser"])]
    return sorted(folders, key=lambda folder: -len(folder.parts))


def modules() -> dict[str, Path]:
    """Return every module outside the packages that is checked, by the name that imports have for it."""
    folders, found = bare_folders(), dict[str, Path]()
    for path in (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))):
        if path.stem.startswith("test_"):
            continue
        name = _name(path, next((folder for folder in folders if path.is_relative_to(folder)), ROOT))
        if path.stem == "conftest" or name in found:  # a name without dots: the folders above are no packages
            name = _name(path, ROOT).replace(".", "_")
        found[name] = path
    return found


def _name(path: Path, base: Path) -> str:
    return ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")


@click.command(help=__doc__)
def main() -> None:
    """Check, and print what is wrong."""
    from mypy.build import build
    from mypy.errors import CompileError
    from mypy.main import process_options
    from mypy.modulefinder import BuildSource

    os.chdir(ROOT)
    sources, options = process_options(["--config-file", "pyproject.toml"])
    options.mypy_path = [*options.mypy_path, *map(str, bare_folders())]
    sources += [BuildSource(str(path.relative_to(ROOT)), name, None) for name, path in modules().items()]
    try:
        errors = build(sources, options).errors
    except CompileError as error:
        errors = error.messages
    for line in errors:
        click.echo(line)
    click.echo(
        f"{len(errors)} lines of errors in {len(sources)} modules" if errors else f"{len(sources)} modules: no error"
    )
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()
