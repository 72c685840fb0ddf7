"""Looks an installation over: versions, database, roles, referee, Airflow, disk, devices. Changes nothing.

The checks lie beside: ``doctor_versions.py`` (what is installed), ``doctor_database.py`` (what is asked over the
address), ``doctor_airflow.py`` (connection, metadata, pool), ``doctor_machine.py`` (disk, folders, devices).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.services.doctor_airflow import check_connection, check_metadata, check_pool
from easeml_core.services.doctor_database import check_artifacts, check_database, check_overlaps, check_put_offs
from easeml_core.services.doctor_machine import check_cuda, check_disk, check_secrets, check_temporary_folder
from easeml_core.services.doctor_versions import check_extras, check_packages, check_python, check_torch
from easeml_core.services.evidence.report import check_evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from easeml_core.services.checks import Check
    from easeml_core.services.doctor_airflow import Pool


@dataclass(frozen=True, slots=True)
class Installation:
    """Where everything is.

    Attributes:
        url: Address of our database, password included; None where there is none.
        url_from: Where that address came from, for people.
        home: Folder of the embedded installation, ``.easeml``; it need not be there.
        artifacts: Folder or address of models and data.
        metadata_url: Address of Airflow's metadata database; None where it is not known.
        environment: Of this process; Airflow's connections and settings may stand in it.
        pool: How to ask Airflow about its device pool; None where nobody has said.
        referee_url: Address of our database for the role ``easeml_referee``; None where it is not known.
        keys: Key folder of the referee's host; it need not be there.
    """

    url: str | None
    url_from: str
    home: Path
    artifacts: str
    metadata_url: str | None
    environment: Mapping[str, str]
    pool: Pool | None = None
    referee_url: str | None = None
    keys: Path | None = None


def examine(place: Installation, on_check: Callable[[str], None] = lambda _: None) -> list[Check]:
    """Every check, in the order in which people would look.

    Args:
        place: Where everything is.
        on_check: Told what is looked at next.
    """
    looks: dict[str, Callable[[], Iterable[Check]]] = {
        "versions": lambda: (check_python(), check_packages(), check_extras(), check_torch()),
        "database": lambda: check_database(place.url, place.url_from),
        "artifacts": lambda: (check_artifacts(place.url, place.artifacts),),
        "evidence": lambda: (check_evidence(place.referee_url, place.keys or place.home / "referee"),),
        "sealed rows": lambda: (check_overlaps(place.referee_url, place.artifacts),),
        "put-offs": lambda: (check_put_offs(place.referee_url),),
        "Airflow's connection": lambda: (check_connection(place.environment),),
        "Airflow's metadata": lambda: (check_metadata(place.metadata_url),),
        "device pool": lambda: (check_pool(place.pool),),
        "disk": lambda: (*check_disk(place.artifacts, place.home), check_temporary_folder()),
        "secrets": lambda: (check_secrets(place.home),),
        "devices": lambda: (check_cuda(),),
    }
    found: list[Check] = []
    for what, look in looks.items():
        on_check(what)
        found.extend(look())
    return found
