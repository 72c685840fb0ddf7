"""Lineage for a data catalogue: what a task read and made, in the form of Airflow's OpenLineage provider.

The provider calls ``get_openlineage_facets_on_complete`` and ``..._on_failure`` of an operator in a separate process,
so a task collects the facts while it runs. Without the provider, or where the provider is switched off, it collects
nothing. A catalogue is read by developers of every tenant: an event has names, hashes of files, rows that are trained
on, and of the gate the symbol that XCom has. Qualities, sealed sets, steps and reports are left out.

Datasets of the namespace ``easeml://NAMESPACE``, with the provider's ``[openlineage] namespace``:

    STUDY/data                    what trials are trained on; its version is the hash of the file
    STUDY/candidates/CANDIDATE    models of a candidate; the version is the hash of the model's file
    STUDY/submissions             models that were submitted
    STUDY/production              what is in production
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from easeml_core.store.database import Store
    from easeml_core.store.queries.external import TrialLineage

log = logging.getLogger(__name__)

PROVIDER = "airflow.providers.openlineage"

MOST_LISTED = 100
"""Trials or models of one event; it has the number of all."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of an event; ``version`` is the hash of a file, ``rows`` is None where it has none."""

    name: str
    version: str
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """What one event says.

    Attributes:
        inputs: What was read.
        outputs: What was made.
        facts: Plain JSON about the run, by name.
    """

    inputs: tuple[Dataset, ...] = ()
    outputs: tuple[Dataset, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class EmitsLineage:
    """What the provider asks of an operator; ``_lineage`` is set by the task, before anything can fail it."""

    _lineage: Lineage | None = None

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the event's datasets and facets, as the provider's ``OperatorLineage``."""
        return operator_lineage(self._lineage or Lineage())

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """Return the same: a gate that does not pass fails its task, and a trial that failed has read its data."""
        return operator_lineage(self._lineage or Lineage())

    def _note_lineage(self, ask: Callable[[], Lineage]) -> None:
        """Collect the facts, where events are emitted; a fault leaves them out, and the task goes on."""
        try:
            if is_emitted():
                self._lineage = ask()
        except Exception as error:  # of the database, or of a provider that is broken or configured wrongly
            text = "this task's lineage event has no datasets: %s: %s"
            log.warning(text, type(error).__name__, error, exc_info=not isinstance(error, EasemlError))


def is_emitted() -> bool:
    """Whether the provider is installed, and sends events anywhere."""
    if find_spec(PROVIDER) is None:
        return False
    from airflow.providers.openlineage import conf

    return not conf.is_disabled()


def lineage_of_trials(store: Store, trial_ids: Sequence[int]) -> Lineage:
    """Return one event about the trials of a task: their data, and the models of the latest ``MOST_LISTED``."""
    from easeml_core.store.queries.external import trial_lineage

    with store.begin(writes=False) as tx:
        found = trial_lineage(tx, sorted(trial_ids)[-MOST_LISTED:])
    inputs = {trial.study: Dataset(f"{trial.study}/data", trial.data, trial.train_rows) for trial in found}
    return Lineage(
        inputs=tuple(inputs.values()),
        outputs=tuple(_model(trial.study, trial.candidate, trial.model) for trial in found if trial.model is not None),
        facts={"trials": [_trial_facts(trial) for trial in found], "trials_of_task": len(trial_ids)},
    )


def _trial_facts(trial: TrialLineage) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "study": trial.study,
        "candidate": trial.candidate,
        "state": str(trial.state),
        "data_version": trial.data_version,
        "model_id": trial.model_id,
    }


def lineage_of_models(store: Store, judged: Sequence[dict[str, Any]], *, promoted: Collection[int] = ()) -> Lineage:
    """Return one event about the models that a task had judged or promoted; of many, the first ``MOST_LISTED``."""
    from easeml_core.store.queries.external import model_lineage

    listed = [entry for entry in judged if entry["model_id"] is not None][:MOST_LISTED]
    with store.begin(writes=False) as tx:
        found = model_lineage(tx, [entry["model_id"] for entry in listed])
    return Lineage(
        inputs=tuple(_model(one.study, one.candidate, one.model) for one in found),
        outputs=tuple(Dataset(f"{one.study}/production", one.model) for one in found if one.model_id in promoted),
        facts={"models": listed, "models_of_task": len(judged)},
    )


def _model(study: str, candidate: str | None, version: str) -> Dataset:
    return Dataset(f"{study}/submissions" if candidate is None else f"{study}/candidates/{candidate}", version)


def operator_lineage(lineage: Lineage) -> Any:
    """Return the provider's ``OperatorLineage``; called by the provider alone, so it is installed."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import input_statistics_input_dataset

    rows = input_statistics_input_dataset.InputStatisticsInputDatasetFacet
    return OperatorLineage(
        inputs=[
            InputDataset(
                _namespace(),
                one.name,
                facets=_version(one),
                inputFacets={} if one.rows is None else {"inputStatistics": rows(rowCount=one.rows)},
            )
            for one in lineage.inputs
        ],
        outputs=[OutputDataset(_namespace(), one.name, facets=_version(one)) for one in _distinct(lineage.outputs)],
        run_facets={"easeml": _run_facet(lineage.facts)} if lineage.facts else {},
    )


def _distinct(datasets: Iterable[Dataset]) -> Iterable[Dataset]:
    """Return the last of each name: a catalogue takes a dataset once for each event."""
    return {one.name: one for one in datasets}.values()


def _version(dataset: Dataset) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=dataset.version)}


def _run_facet(facts: dict[str, Any]) -> Any:
    """Return the facts as a facet of the run; a class of attrs whose fields they are, as OpenLineage wants it."""
    from attrs import make_class
    from openlineage.client.facet_v2 import RunFacet

    return make_class("EasemlRunFacet", list(facts), bases=(RunFacet,))(**facts)


def _namespace() -> str:
    from airflow.providers.openlineage import conf

    return f"easeml://{conf.namespace()}"


def asset_dataset(asset: Any, lineage_context: Any) -> Any:
    """Return the dataset of one of our assets, for tasks and DAGs that have it among their inlets; None for the others.

    Named in the provider's metadata; called by the OpenLineage provider alone.
    """
    from openlineage.client.event_v2 import Dataset as OpenLineageDataset

    address = urlsplit(asset.uri)
    study = address.path.strip("/")
    names = {"production": f"{study}/production", "submissions": f"{study}/submissions"}
    name = names.get(address.netloc) if study else None
    return None if name is None else OpenLineageDataset(_namespace(), name)
