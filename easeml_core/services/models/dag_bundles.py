"""Production's DAG bundle follows a tag in git, and the tag follows the production pointer.

A model that was handed in with the version of a DAG bundle stands for that version: once it is in production, the tag
``easeml/production/STUDY`` of the bundle's repository names it. Airflow's git bundle of production tracks the tag. What
the database says is the truth: the tag is moved after it, again and again until both agree, so a crash in between, or a
hand that moved the tag, is made good at the next look.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.errors import EasemlError, InvalidInputError
from easeml_core.services.models.git_tags import commit_of, move_tag
from easeml_core.store.tables import submissions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from easeml_core.store.database import Store

logger = logging.getLogger(__name__)

TAG_PREFIX = "easeml/production"
"""The tag of a study is ``PREFIX/STUDY``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def production_tag(study: str, *, prefix: str = TAG_PREFIX) -> str:
    """The tag that production's bundle of the study tracks.

    Example:
        >>> production_tag("flowers")
        'easeml/production/flowers'
    """
    return f"{prefix}/{study}"


def parse_repositories(words: Iterable[str]) -> dict[str, Path]:
    """Bundles and their repositories as they stand on a command line, ``NAME=PATH`` each.

    Raises:
        InvalidInputError: If a word is not of this form, or a name stands there twice.

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


def sync_bundle_tags(
    store: Store, repositories: Mapping[str, Path], *, prefix: str = TAG_PREFIX
) -> list[dict[str, Any]]:
    """Move every tag to the version that stands in production; harmless where all agree.

    A study in production with a model that was handed in without a bundle keeps the tag that it has. What cannot be
    done is logged as an error that names study and version, and is tried again the next time; it stops nothing else.

    Args:
        store: Any role.
        repositories: Repository of each bundle, by its name; bundles that are not named here are left alone.
        prefix: Of the tags.

    Returns:
        ``{"study", "bundle", "version", "tag", "moved", "error"}`` each; ``version`` is the whole commit, or what was
        handed in when there is no such commit; ``error`` is None when the tag stands where it should.
    """
    if not repositories:
        return []
    with store.begin() as tx:
        standing = submissions.production_versions(tx)
    return [
        _sync(repositories[entry["bundle"]], entry, production_tag(entry["study"], prefix=prefix))
        for entry in standing
        if entry["bundle"] in repositories
    ]


def _sync(repository: Path, entry: dict[str, Any], tag: str) -> dict[str, Any]:
    study, version = entry["study"], entry["bundle_version"]
    told = {"study": study, "bundle": entry["bundle"], "version": version, "tag": tag, "moved": False, "error": None}
    try:
        commit = commit_of(repository, version)
        why = f"model {entry['model_id']} of study {study} is in production"
        moved = move_tag(repository, tag, commit, message=why)
    except EasemlError as error:
        logger.error("production of study %s stays at its old version, %s is not to be had: %s", study, version, error)
        return told | {"error": str(error)}
    if moved:
        logger.info("tag %s of bundle %s: %s, %s", tag, entry["bundle"], commit, why)
    return told | {"version": commit, "moved": moved}
