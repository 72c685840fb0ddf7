"""Source trees to measure: the working tree, or any git revision unpacked into a temporary folder."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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
