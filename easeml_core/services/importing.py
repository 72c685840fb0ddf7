"""A new study from an exported one: registered like any other, so the referee splits and seals its data anew.

Old results do not come along, on purpose. Every study's data are split by a secret of its own: the old qualities were
measured on other validation rows, and the old models have seen rows that the new gate keeps sealed. What was found
stays readable in the file.
"""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError, reason_of
from easeml_core.services.export_file import read_export
from easeml_core.services.limits import deadline_of
from easeml_core.services.registration import register_study

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.services.export_file import Exported
    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store

_TAKEN = (
    *("tenant", "source", "target", "task", "metric", "hit", "program", "split", "gate", "meter", "joint", "direct"),
    *("training", "weight", "priority", "budget_seconds", "deadline", "target_quality"),
)
"""What a definition may say; the rest of ``register_study`` is the importer's to say."""


def look_into(path: Path) -> dict[str, Any]:
    """What an export holds, after everything in it was checked: for people who wonder before they import it.

    Returns:
        ``{"study", "definition", "candidates", "rows", "artifacts"}``.

    Raises:
        InvalidInputError: It is no export, or was changed.
    """
    with tempfile.TemporaryDirectory(prefix="easeml-import-") as folder:
        found = read_export(path, Path(folder))
        return {
            "study": found.study,
            "definition": dict(found.definition),
            "candidates": [candidate.get("name") for candidate in found.tables["candidates"]],
            "rows": {name: len(entries) for name, entries in found.tables.items()},
            "artifacts": sorted(found.artifacts),
        }


def import_study(
    store: Store,
    artifacts: ArtifactStore,
    *,
    path: Path,
    study: str | None = None,
    request_key: str | None = None,
    changes: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Register a study as the file defines it, with its candidates and their programs.

    A deadline that has passed is left out: such a study would never train.

    Args:
        store: Role ``easeml_worker``.
        artifacts: Where programs are kept.
        path: As ``export_study`` writes it.
        study: Name of the new study; None for the old one's.
        request_key: Makes the call repeatable; None for one that follows from the file and the name, so that the same
            import again changes nothing.
        changes: ``tenant`` or ``source`` of the new study, where they are others here; None for as they were.

    Returns:
        As of ``register_study``; the request is the referee's, wait for its answer.

    Raises:
        InvalidInputError: The file is no export, was changed, or asks for what is not allowed here.
        AlreadyExistsError: There is another study of this name.
    """
    with tempfile.TemporaryDirectory(prefix="easeml-import-") as folder:
        found = read_export(path, Path(folder))
        asked = _definition(found.definition) | {k: v for k, v in (changes or {}).items() if v is not None}
        name = study or found.study
        _keep_programs(found, artifacts)
        candidates = [{k: v for k, v in c.items() if v is not None} for c in found.tables["candidates"]]
        key = request_key or f"import/{_digest(path)}/{name}"
        return register_study(store, study=name, candidates=candidates or None, request_key=key, **asked)


def _definition(given: Mapping[str, Any]) -> dict[str, Any]:
    strange = sorted(set(given) - set(_TAKEN))
    missing = [name for name in ("tenant", "source") if not isinstance(given.get(name), str)]
    if strange or missing:
        message = f"definition.json of the export {f'knows no {strange[0]!r}' if strange else f'lacks {missing[0]!r}'}"
        raise InvalidInputError(message)
    defaults = {"weight": 1.0, "priority": 0}
    asked = defaults | {name: value for name, value in given.items() if value is not None}
    if "deadline" in asked and deadline_of(asked["deadline"]) < datetime.now(UTC):
        del asked["deadline"]
    return asked


def _keep_programs(found: Exported, artifacts: ArtifactStore) -> None:
    """Programs that candidates name; the rest of the file's artifacts is for people to read."""
    for candidate in found.tables["candidates"]:
        parameters = candidate.get("parameters")
        for value in parameters.values() if isinstance(parameters, dict) else ():
            if isinstance(value, str) and value in found.artifacts:
                artifacts.put(found.artifacts[value])


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        message = f"{path} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error
