"""Build what a release consists of into ``dist/``, from a commit and nothing else.

    make release

The source distribution and the wheel, each checked: twine reads both, and the wheel that is built from the source
distribution is, byte for byte, the one that is built from the commit. Beside them lie the list of all components
of an installation with ``constraints.txt`` (``.cdx.json``, a CycloneDX SBOM), and where the files come from
(``.intoto.json``: hashes, commit, builder; a DSSE envelope where a key is given).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cells.environments import REPOSITORY, UV, CellError, run
from pip_settings import settings_of, uv_options

from easeml_core.errors import EasemlError
from easeml_core.formats.attestation import STATEMENT_TYPE, SigningKey, seal_envelope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:easeml:build:python-distributions:v1"
"""`python -m release` on an export of a commit."""


@dataclass(frozen=True, slots=True)
class Build:
    """One build.

    Attributes:
        source: Address of the repository, for readers; empty where there is none to name.
        commit: From which it was built.
        builder: URI of what has built it, such as that of a CI job's definition.
        tools: Versions of the installed build tools by package name.
        inputs: Files of the commit that decide versions, by their path in the repository.
        started: When, UTC.
        finished: When, UTC.
    """

    source: str
    commit: str
    builder: str
    tools: Mapping[str, str]
    inputs: Mapping[str, Path]
    started: datetime
    finished: datetime


def provenance(files: Sequence[Path], build: Build) -> dict[str, Any]:
    """Return the statement about these files.

    Args:
        files: Distributions, and what was made about them.
        build: Their build.
    """
    repository = f"git+{build.source}" if build.source else "git+local"
    materials = [
        {"uri": f"{repository}@{build.commit}", "digest": {"gitCommit": build.commit}},
        *({"uri": path, "digest": {"sha256": sha256(file)}} for path, file in build.inputs.items()),
        *({"uri": f"pkg:pypi/{name}@{version}"} for name, version in sorted(build.tools.items())),
    ]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": file.name, "digest": {"sha256": sha256(file)}} for file in sorted(files)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"source": repository, "commit": build.commit},
                "internalParameters": {},
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": build.builder},
                "metadata": {
                    "startedOn": f"{build.started:%Y-%m-%dT%H:%M:%SZ}",
                    "finishedOn": f"{build.finished:%Y-%m-%dT%H:%M:%SZ}",
                },
            },
        },
    }


def sha256(file: Path) -> str:
    """Return the digest of a file in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


TOOLS = ("build>=1.2,<2", "cyclonedx-bom>=7.5,<8", "hatchling>=1.27,<2", "twine>=6,<8")
"""Taken for a release only, and so in no extra."""

INPUTS = ("pyproject.toml", "constraints.txt")


def make_release(out: Path, work: Path, commit: str, source: str, builder: str, key: SigningKey | None) -> list[Path]:
    """Build and check; return the files.

    Args:
        out: Where the files are put; made where it is missing.
        work: An empty folder.
        commit: To build from.
        source: As of ``Build``.
        builder: As of ``Build``.
        key: That signs; None for a plain statement.

    Raises:
        CellError: A command failed, or the wheels differ.
    """
    started = datetime.now(UTC)
    tree = _export(commit, work / "tree")
    tools = _environment(work / "tools", TOOLS)
    made = work / "made"
    _run_module(tools, "build", "--no-isolation", "--outdir", str(made), str(tree))
    _run_module(tools, "build", "--wheel", "--no-isolation", "--outdir", str(work / "again"), str(tree))
    (wheel,), (again,) = made.glob("*.whl"), (work / "again").glob("*.whl")
    if wheel.read_bytes() != again.read_bytes():
        message = f"{wheel.name} of the source distribution is not that of the commit: see `include` in pyproject.toml"
        raise CellError(message)
    _run_module(tools, "twine", "check", "--strict", *map(str, sorted(made.iterdir())))
    stem = "-".join(wheel.name.split("-")[:2])
    _list_components(tools, tree, wheel, work / "installed", made / f"{stem}.cdx.json")
    inputs = {name: tree / name for name in INPUTS}
    build = Build(source, commit, builder, _versions(tools), inputs, started, datetime.now(UTC))
    statement = provenance(sorted(made.iterdir()), build)
    signed = statement if key is None else seal_envelope(statement, key)
    (made / f"{stem}.intoto.json").write_text(json.dumps(signed, indent=2) + "\n", encoding="utf-8")
    out.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(file, out)) for file in sorted(made.iterdir())]


def _export(commit: str, tree: Path) -> Path:
    tree.mkdir()
    archive = tree.with_suffix(".tar")
    run(["git", "-C", str(REPOSITORY), "archive", "--output", str(archive), commit])
    run(["tar", "-xf", str(archive), "-C", str(tree)])
    return tree


def _environment(folder: Path, wanted: tuple[str, ...], *more: str) -> Path:
    """Make a virtual environment with these packages; return its Python."""
    python = folder / "bin" / "python"
    run([str(UV), "venv", "--quiet", "--python", sys.executable, str(folder)])
    options, variables = uv_options(settings_of(Path(sys.executable)), os.environ)
    command = [str(UV), "pip", "install", "--quiet", "--python", str(python), *options, *more, *wanted]
    run(command, env=os.environ | variables)
    return python


def _list_components(tools: Path, tree: Path, wheel: Path, folder: Path, file: Path) -> None:
    installed = _environment(folder, (str(wheel),), "--constraint", str(tree / "constraints.txt"))
    command = [str(tools.with_name("cyclonedx-py")), "environment", "--pyproject", str(tree / "pyproject.toml")]
    command += ["--mc-type", "library", "--output-reproducible", "--output-file", str(file), str(installed)]
    run(command)


def _run_module(python: Path, *words: str) -> None:
    run([str(python), "-m", *words])


def _versions(python: Path) -> dict[str, str]:
    frozen = run([str(UV), "pip", "freeze", "--python", str(python)])
    return {name: version for name, _, version in (line.partition("==") for line in frozen.splitlines())}


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=REPOSITORY / "dist", show_default="dist")
@click.option("--commit", default="HEAD", show_default=True, help="What to build from.")
@click.option("--source", help="Address of the repository; default: urls.Source of pyproject.toml, else none.")
@click.option(
    "--builder",
    default="urn:easeml:builder:by-hand",
    show_default=True,
    help="URI of what builds, such as that of the definition of a CI job.",
)
@click.option("--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Ed25519 key in PEM; signs.")
def main(out: Path, commit: str, source: str | None, builder: str, key: Path | None) -> None:
    """Build; end with 1 where something is wrong."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = source if source is not None else project.get("urls", {}).get("Source", "")
    try:
        found = run(["git", "-C", str(REPOSITORY), "rev-parse", "--verify", f"{commit}^{{commit}}"]).strip()
        signer = None if key is None else SigningKey.parse(key.read_bytes(), str(key))
        with tempfile.TemporaryDirectory(prefix="easeml-release-") as work:
            files = make_release(out, Path(work), found, source, builder, signer)
    except (CellError, EasemlError) as error:
        sys.exit(f"release: {error}")
    for file in files:
        click.echo(file)
    if run(["git", "-C", str(REPOSITORY), "status", "--porcelain"]).strip():
        click.echo(f"changes that are not committed are not in these files: they are of {found[:12]}", err=True)


if __name__ == "__main__":
    main()
