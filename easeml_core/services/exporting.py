"""A study's open facts into one file: its definition, what it is made of, and what came of it. Never sealed things."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from easeml_core.config import MeterConfig
from easeml_core.entities import Task
from easeml_core.services.export_file import Exported, write_export
from easeml_core.store import exporting, studies

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from easeml_core.entities import Study
    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store

_REFERENCE = re.compile(r"sha256:[0-9a-f]{64}")
_OF_JOINT = ("reliability",)
"""Settings of gate and meter that follow from those of a set that they share."""


def export_study(
    store: Store, artifacts: ArtifactStore, *, study: str, path: Path, with_data: bool = False
) -> dict[str, Any]:
    """Write a study's open facts into a file (``export_file.py`` says how it looks).

    Trained models are named by hash and not taken along, nor are sealed sets, labels, reports of the referee, or what
    still runs. Programs of candidates are: without them the candidates mean nothing.

    Args:
        store: Role ``easeml_worker``.
        artifacts: Where programs and open data lie.
        study: The study.
        path: The file; must not be there.
        with_data: Take the open part (training and validation rows) of the newest data version along.

    Returns:
        ``{"study", "path", "bytes", "files", "rows"}``: how many artifacts, and how many rows of each table.

    Raises:
        NotFoundError: There is no such study.
        ArtifactError: A program or the data cannot be read.
        InvalidInputError: The file is there, or cannot be written.
    """
    with store.snapshot() as tx:
        found = studies.get_study(tx, study)
        weight = studies.own_weight(tx, found.id)
        tables = exporting.open_facts(tx, found.id)
    if MeterConfig.from_json(found.config["meter"]).teams > 1:
        tables["signals"] = []  # each is one team's alone, and the file is anybody's
    references = sorted(set(_programs(tables["candidates"])))
    if with_data and tables["data_versions"]:
        references.append(tables["data_versions"][-1]["artifact"])
    with ExitStack() as stack:
        files = {reference: stack.enter_context(artifacts.copy(reference)) for reference in references}
        write_export(Exported(study, _definition(found, weight), tables, files), path)
    rows = {name: len(entries) for name, entries in tables.items()}
    return {"study": study, "path": str(path), "bytes": path.stat().st_size, "files": len(files), "rows": rows}


def _programs(candidates: list[dict[str, Any]]) -> Iterator[str]:
    """References that stand among the candidates' parameters."""
    for candidate in candidates:
        for value in candidate["parameters"].values():
            if isinstance(value, str) and _REFERENCE.fullmatch(value):
                yield value


def _definition(study: Study, weight: float) -> dict[str, Any]:
    """What ``register_study`` takes to make such a study anew, but for its name and candidates."""
    config, joint = study.config, study.config.get("joint")
    gate, meter = (_without(config[name], _OF_JOINT if joint else ()) for name in ("gate", "meter"))
    return {
        "tenant": study.tenant,
        "source": study.source,
        "target": study.target or None,
        "task": str(study.task),
        "metric": study.metric,
        "hit": study.hit if study.task == Task.REGRESSION else None,
        "program": study.program,
        "split": config.get("split"),
        "gate": gate,
        "meter": meter,
        "joint": joint,
        "direct": config.get("direct"),
        "training": config.get("training"),
        "weight": weight,
        "priority": study.priority,
        "budget_seconds": study.budget_seconds,
        "deadline": None if study.deadline is None else study.deadline.isoformat(),
        "target_quality": study.target_quality,
    }


def _without(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}
