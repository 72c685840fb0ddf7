"""Where distributions come from: an in-toto statement with a SLSA provenance, signed where there is a key.

Sources: in-toto Statement v1, https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md; SLSA v1.0,
https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.attestation import STATEMENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

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
