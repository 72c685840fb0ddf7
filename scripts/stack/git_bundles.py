"""Further DAG bundles of a stack: git repositories on this machine that its Airflow follows, beside the DAG folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.files.local import write_durably

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOCAL = {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}}
"""The bundle that Airflow has by default; a separate list replaces it, so it is named there again."""
GIT = "airflow.providers.git.bundles.git.GitDagBundle"


@dataclass(frozen=True, slots=True)
class GitBundle:
    """A bundle of DAG files in a git repository; needs the package ``apache-airflow-providers-git``.

    Attributes:
        name: Of the bundle; a folder in the path of its DAG files, too.
        repository: Absolute path, bare or not; Airflow only reads it.
        tracking_ref: Branch or tag that is followed. One that is not there yet keeps the bundle from being loaded.
        refresh_seconds: How often Airflow looks for something new.
    """

    name: str
    repository: Path
    tracking_ref: str
    refresh_seconds: int = 30


def bundle_list(bundles: Sequence[GitBundle]) -> str:
    """Airflow's setting ``[dag_processor] dag_bundle_config_list``: the DAG folder, and the given ones."""
    ours = [
        {
            "name": bundle.name,
            "classpath": GIT,
            "kwargs": {
                "repo_url": str(bundle.repository),
                "tracking_ref": bundle.tracking_ref,
                "refresh_interval": bundle.refresh_seconds,
            },
        }
        for bundle in bundles
    ]
    return json.dumps([LOCAL, *ours])


def write_trust(path: Path, bundles: Sequence[GitBundle]) -> None:
    """Write the git configuration with which another account may read these repositories.

    Git reads no repository of another owner unless a file says so: the process that serves a clone takes this neither
    from the command line nor from ``GIT_CONFIG_COUNT``. See ``safe.directory`` in git-config(1).
    """
    repositories = dict.fromkeys(str(bundle.repository) for bundle in bundles)
    lines = [f"\tdirectory = {json.dumps(repository, ensure_ascii=False)}\n" for repository in repositories]
    write_durably(path, "".join(["[safe]\n", *lines]), mode=0o644)
