"""Move a git tag to the version of the DAG bundle that is in production.

A model that was submitted with the version of a DAG bundle stands for that version: while it is in production, the tag
``easeml/production/STUDY`` of the bundle's repository names it, and Airflow's git bundle of production tracks the tag.
The database decides: the tag follows it at each look until both agree, also after a crash or a manual change.

Git is called with a clean environment and without hooks: a repository is data here, and runs nothing.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import EasemlError, InvalidInputError, StateError
from easeml_core.formats.encoding import typed_record
from easeml_core.store.tables import models

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from easeml_core.store.database import Store
    from easeml_core.store.tables.models import ProductionVersion


_PASSED_ON = ("PATH", "HOME")  # git reads safe.directory from the caller's home
_TIMEOUT_SECONDS = 60


def require_repository(path: Path) -> None:
    """Check that the path is a git repository."""
    if not path.exists():
        message = f"{path} is no git repository: there is no such folder"
        raise StateError(message)
    found = _git(path, "rev-parse", "--git-dir")
    if found.returncode:
        message = f"{path} is no git repository that this account may read: {found.stderr.strip()}"
        raise StateError(message)


def commit_of(repository: Path, version: str) -> str:
    """Return the whole name of a commit in the repository."""
    found = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{version}^{{commit}}")
    commit = found.stdout.strip()
    # A branch may be named like the first digits of a commit; the commit is meant.
    if found.returncode or not commit.startswith(version):
        said = found.stderr.strip()
        message = f"there is no commit {version} in {repository}" + (f" ({said})" if said else "")
        raise StateError(message + "; fetch it into that repository, or hand in a version that is there")
    return commit


def tag_target(repository: Path, tag: str) -> str | None:
    """Return the commit that the tag names, or None where there is no such tag."""
    if _git(repository, "check-ref-format", f"refs/tags/{tag}").returncode:
        message = f"{tag!r} is no name that git takes for a tag; rename the study or choose another prefix"
        raise InvalidInputError(message)
    found = _git(repository, "for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", f"refs/tags/{tag}")
    if found.returncode:
        message = f"{repository} is no git repository that this account may read: {found.stderr.strip()}"
        raise StateError(message)
    # Git also lists names below: a tag TAG/other does not define TAG, and prevents it.
    named = [words for line in found.stdout.splitlines() if (words := line.split())[0] == f"refs/tags/{tag}"]
    return named[0][-1] if named else None


def move_tag(repository: Path, tag: str, commit: str, *, message: str) -> bool:
    """Let the tag name the commit; return whether it had to be moved.

    The change names the value that it found, so that one of two concurrent changes fails.
    """
    if tag_target(repository, tag) == commit:
        return False
    reference = f"refs/tags/{tag}"
    raw = _git(repository, "rev-parse", "--verify", "--quiet", reference).stdout.strip()
    old = raw or "0" * len(commit)  # zeros: it must not be there yet
    done = _git(repository, "update-ref", "--no-deref", "-m", message, reference, commit, old)
    if done.returncode:
        error = f"tag {tag} in {repository} cannot be moved to {commit}: {done.stderr.strip()}"
        raise StateError(error)
    return True


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    identity = ("-c", "user.name=easeml referee", "-c", "user.email=referee@localhost")  # for the reference's log
    command = ["git", "-C", str(repository), "-c", "core.hooksPath=/dev/null", *identity, *arguments]
    try:
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=_TIMEOUT_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"git cannot be run on {repository}: {error}; install git, and check the folder"
        raise StateError(message) from error


logger = logging.getLogger(__name__)

TAG_PREFIX = "easeml/production"
"""The tag of a study is ``PREFIX/STUDY``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def production_tag(study: str, *, prefix: str = TAG_PREFIX) -> str:
    """Return the tag that production's bundle of the study tracks.

    Example:
        >>> production_tag("flowers")
        'easeml/production/flowers'
    """
    return f"{prefix}/{study}"


def parse_repositories(words: Iterable[str]) -> dict[str, Path]:
    """Parse bundles and their repositories, ``NAME=PATH`` each.

    Example:
        >>> parse_repositories(["dags=/srv/dags.git"])
        {'dags': PosixPath('/srv/dags.git')}
    """
    found: dict[str, Path] = {}
    for word in words:
        name, separator, path = word.partition("=")
        if not separator or not path or _NAME.fullmatch(name) is None or name in found:
            message = f"a bundle is given once, as NAME=PATH, e.g. dags=/srv/dags.git; got {word!r}"
            raise InvalidInputError(message)
        found[name] = Path(path)
    return found


@typed_record
class SyncedTag:
    """The tag of a study's bundle.

    Attributes:
        study: The study.
        bundle: The bundle.
        version: The whole commit, or what was handed in when there is no such commit.
        tag: Its name.
        moved: Whether this call has moved it.
        error: Why it does not stand where it should; None where it does.
    """

    study: str
    bundle: str
    version: str
    tag: str
    moved: bool
    error: str | None


def sync_bundle_tags(store: Store, repositories: Mapping[str, Path], *, prefix: str = TAG_PREFIX) -> list[SyncedTag]:
    """Move every tag to the version that stands in production; harmless where all agree.

    A study whose model in production has no bundle keeps its tag. A failure is logged with study and version and tried
    again the next time; it stops nothing else.
    """
    if not repositories:
        return []
    with store.begin() as tx:
        standing = models.production_versions(tx)
    return [
        _sync(repositories[entry.bundle], entry, production_tag(entry.study, prefix=prefix))
        for entry in standing
        if entry.bundle in repositories
    ]


def _sync(repository: Path, entry: ProductionVersion, tag: str) -> SyncedTag:
    study, version = entry.study, entry.bundle_version
    try:
        commit = commit_of(repository, version)
        why = f"model {entry.model_id} of study {study} is in production"
        moved = move_tag(repository, tag, commit, message=why)
    except EasemlError as error:
        logger.error("production of study %s stays at its old version, %s is not to be had: %s", study, version, error)
        return SyncedTag(study, entry.bundle, version, tag, moved=False, error=str(error))
    if moved:
        logger.info("tag %s of bundle %s: %s, %s", tag, entry.bundle, commit, why)
    return SyncedTag(study, entry.bundle, commit, tag, moved=moved, error=None)
