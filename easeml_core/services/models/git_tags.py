"""Move a tag of a git repository from one commit to another, or not at all.

Real git, called with a clean environment and without hooks: a repository is data here, and runs nothing.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError, StateError

if TYPE_CHECKING:
    from pathlib import Path

_PASSED_ON = ("PATH", "HOME")  # git reads safe.directory from the home of whoever calls it
_TIMEOUT_SECONDS = 60


def require_repository(path: Path) -> None:
    """Nothing, where the path is a git repository.

    Raises:
        StateError: If it is none, or this account may not read it.
    """
    if not path.exists():
        message = f"{path} is no git repository: there is no such folder"
        raise StateError(message)
    found = _git(path, "rev-parse", "--git-dir")
    if found.returncode:
        message = f"{path} is no git repository that this account may read: {found.stderr.strip()}"
        raise StateError(message)


def commit_of(repository: Path, version: str) -> str:
    """The whole name of a commit in the repository.

    Args:
        repository: A repository, bare or not.
        version: Hexadecimal digits, the first ones of the commit or all of them.

    Raises:
        StateError: If there is no such commit, more than one, or no repository.
    """
    found = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{version}^{{commit}}")
    commit = found.stdout.strip()
    # A branch may be named like the first digits of a commit; what is meant is the commit.
    if found.returncode or not commit.startswith(version):
        said = found.stderr.strip()
        message = f"there is no commit {version} in {repository}" + (f" ({said})" if said else "")
        raise StateError(message + "; fetch it into that repository, or hand in a version that is there")
    return commit


def tag_target(repository: Path, tag: str) -> str | None:
    """The commit that the tag names, or None where there is no such tag.

    Raises:
        InvalidInputError: If git takes no such name for a tag.
        StateError: If there is no repository.
    """
    if _git(repository, "check-ref-format", f"refs/tags/{tag}").returncode:
        message = f"{tag!r} is no name that git takes for a tag; rename the study or choose another prefix"
        raise InvalidInputError(message)
    found = _git(repository, "for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", f"refs/tags/{tag}")
    if found.returncode:
        message = f"{repository} is no git repository that this account may read: {found.stderr.strip()}"
        raise StateError(message)
    # Git also lists what lies below the name: a tag TAG/other says nothing of TAG, and keeps it from being made.
    named = [words for line in found.stdout.splitlines() if (words := line.split())[0] == f"refs/tags/{tag}"]
    return named[0][-1] if named else None


def move_tag(repository: Path, tag: str, commit: str, *, message: str) -> bool:
    """Let the tag name the commit; whether it had to be moved.

    The change names the value that it found, so of two that move the tag at once one gives way.

    Args:
        repository: A repository, bare or not, that this account may write.
        tag: Name without ``refs/tags/``; made when new, lightweight.
        commit: Whole name of a commit that is there.
        message: Why, for the reference's log where the repository keeps one.

    Raises:
        InvalidInputError: If git takes no such name for a tag.
        StateError: If the repository cannot be read or written, or somebody moved the tag meanwhile.
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
