"""A mirror in MLflow of what the database says, for people who look for runs and models there.

It goes one way. What MLflow holds already is known by tags there, so nothing is remembered here: a sync that is run
again, or was killed, adds what is missing and nothing twice. Training and promotion never wait for it.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.errors import EasemlError, InvalidInputError, StateError
from easeml_core.services.mlflow_client import open_client, refusals, server_address
from easeml_core.services.mlflow_runs import is_whole, known_runs, of_trial, write_run
from easeml_core.services.mlflow_versions import Registered
from easeml_core.store import curves, mirror, studies
from easeml_core.store.database import lock

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.database import Store

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_RESERVED = re.compile(r"latest|v[0-9]+", re.IGNORECASE)
_ALL_ENDED = "easeml.ended_trials"
"""Tag of an experiment: of how many ended trials it has the runs. Trials never vanish, so as many are the same ones."""
_MOST_REFUSALS = 10  # of a study's trials in one sync, and in one message: more have one cause


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where the mirror is, and what things are called there.

    Attributes:
        tracking_uri: ``http(s)://HOST:PORT`` of the MLflow server; None for MLflow's own ``MLFLOW_TRACKING_URI``.
        prefix: Experiments are ``PREFIX/TENANT/STUDY``, registered models ``PREFIX.STUDY``. Two installations that
            share a server need two prefixes.
        alias: Of the version in production.
    """

    tracking_uri: str | None = None
    prefix: str = "easeml"
    alias: str = "production"

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ConfigError: MLflow would not take one.
        """
        wanted = "1 to 63 of letters, digits, '_', '.', '-', beginning with a letter or digit"
        require(_NAME.fullmatch(self.prefix) is not None, "prefix", self.prefix, wanted)
        free = _NAME.fullmatch(self.alias) is not None and _RESERVED.fullmatch(self.alias) is None
        require(free, "alias", self.alias, f"{wanted}, and neither 'latest' nor 'v1'")


def sync(
    store: Store, artifacts: ArtifactStore, mirrored: Mirror, *, studies_only: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Bring MLflow up to what the database says.

    What MLflow refuses is tried again at the next sync; it stops nothing else.

    Args:
        store: Role ``easeml_worker``: what that may not see is not told to MLflow.
        artifacts: Where models lie.
        mirrored: Where to.
        studies_only: Names of the studies; None for all.

    Returns:
        ``{"study", "experiment", "runs", "versions", "production_version"}`` each: runs and versions that were added,
        and the version that the alias names, None where none is in production.

    Raises:
        StoreUnavailableError: The server, or the database, cannot be reached.
        StateError: MLflow refused something; all the rest is done.
        NotFoundError: There is no such study.
    """
    client, told = open_client(server_address(mirrored.tracking_uri)), list[str]()
    with store.begin() as tx:
        for name in studies_only or ():
            studies.get_study(tx, name)
        wanted = [s["study"] for s in mirror.mirrored_studies(tx, studies_only)]
    done = []
    for name in wanted:
        with refusals(told, f"study {name}"), store.begin() as tx:
            lock(tx, f"mlflow {name}")  # of two syncs at once the second waits, and finds it done
            (study,) = mirror.mirrored_studies(tx, [name])
            done.append(_Sync(client, mirrored, study, told).run(tx, artifacts))
    if told:
        more = f"; and {len(told) - _MOST_REFUSALS} more, see the log" if len(told) > _MOST_REFUSALS else ""
        message = f"not everything is in MLflow; the next sync tries again: {'; '.join(told[:_MOST_REFUSALS])}{more}"
        raise StateError(message)
    return done


class _Sync:
    """One study. ``told`` gets a sentence for each thing that was refused."""

    def __init__(self, client: Any, mirrored: Mirror, study: dict[str, Any], told: list[str]) -> None:
        self._client, self._mirrored, self._study, self._told = client, mirrored, study, told
        self._experiment = f"{mirrored.prefix}/{study['tenant']}/{study['study']}"

    def run(self, tx: Connection, artifacts: ArtifactStore) -> dict[str, Any]:
        """Runs first, since versions point to them, and the alias last."""
        did: dict[str, Any] = {"study": self._study["study"], "experiment": self._experiment}
        did |= {"runs": 0, "versions": 0, "production_version": None}
        models = mirror.models_let_out(tx, self._study["id"])
        if not models and not self._study["ended"]:
            return did
        experiment = self._experiment_of()
        if experiment.tags.get(_ALL_ENDED) != str(self._study["ended"]):
            did["runs"] = self._write_runs(tx, experiment.experiment_id)
        if models:
            name = f"{self._mirrored.prefix}.{self._study['study']}"
            registered = Registered(self._client, name, self._study, experiment.experiment_id)
            did["versions"] = registered.write(models, artifacts, self._told)
            did["production_version"] = registered.point(self._mirrored.alias)
        logger.info("%(experiment)s: %(runs)d runs and %(versions)d versions added", did)
        return did

    def _experiment_of(self) -> Any:
        """The experiment; one that somebody has deleted is not brought back behind their back."""
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            return self._client.get_experiment(self._client.create_experiment(self._experiment))
        if found.lifecycle_stage == "deleted":
            message = f"{self._experiment} was deleted in MLflow; restore it there, or give another prefix"
            raise StateError(message)
        return found

    def _write_runs(self, tx: Connection, experiment_id: str) -> int:
        """Write what is missing, page by page; how many runs there were."""
        known, written, last, refused = known_runs(self._client, experiment_id), 0, 0, list[str]()
        while (page := mirror.ended_trials(tx, self._study["id"], after_id=last)) and len(refused) < _MOST_REFUSALS:
            for trial in page:
                if is_whole(found := known.get(str(trial["trial_id"]))):
                    continue
                record = of_trial(self._study, trial, curves.curve_of(tx, trial["trial_id"]))
                with refusals(refused, f"trial {trial['trial_id']}"):
                    write_run(self._client, experiment_id, record, found)
                    written += 1
                if len(refused) >= _MOST_REFUSALS:
                    break
            last = page[-1]["trial_id"]
        if not refused:
            self._client.set_experiment_tag(experiment_id, _ALL_ENDED, str(self._study["ended"]))
        self._told += refused
        return written


def keep_in_sync(
    once: Callable[[], Any], stop: threading.Event, *, poll_seconds: float, log: Callable[[str], None]
) -> None:
    """Sync again and again until ``stop`` is set; what goes wrong is told, and tried again, if that can help.

    Args:
        once: One sync.
        stop: Ends it, after the sync that is under way.
        poll_seconds: Pause between two syncs, > 0.
        log: Takes a sentence.

    Raises:
        InvalidInputError: Something that was given is not allowed.
    """
    require(0 < poll_seconds < 86400, "poll", poll_seconds, "more than 0 seconds and less than a day")
    while not stop.is_set():
        try:
            once()
        except InvalidInputError:
            raise
        except EasemlError as error:
            log(str(error))
        stop.wait(poll_seconds)
