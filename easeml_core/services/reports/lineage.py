"""The lineage of trials and models, for catalogues of data: what was read, and what was made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.store.queries import external

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.database import Store
    from easeml_core.store.queries.external import ModelLineage, TrialLineage


def lineage_of_trials(store: Store, trial_ids: Sequence[int]) -> list[TrialLineage]:
    """Return what trials were trained on and made, in the order of their numbers.

    Args:
        store: Role ``easeml_worker`` or a tenant's login.
        trial_ids: The trials.
    """
    with store.begin(writes=False) as tx:
        return external.trial_lineage(tx, trial_ids)


def lineage_of_models(store: Store, model_ids: Sequence[int]) -> list[ModelLineage]:
    """Return which candidates trained models, and the hashes of their files, in the order of their numbers.

    Args:
        store: Role ``easeml_worker`` or a tenant's login.
        model_ids: The models; those that there are not are left out.
    """
    with store.begin(writes=False) as tx:
        return external.model_lineage(tx, model_ids)
