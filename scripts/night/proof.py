"""What a night must never do: run a candidate a second time on the same data."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

from easeml_core.entities import TrialState
from easeml_core.services.reports.overview import overview, study_details
from night.failures import NightError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from easeml_core.store.database import Store
    from easeml_core.store.tables.trials import TrialEntry

ENDED = (TrialState.SUCCEEDED, TrialState.FAILED, TrialState.CANCELLED)
Trials: TypeAlias = "Mapping[str, Sequence[TrialEntry]]"


def trials_of_all(store: Store) -> Trials:
    """Study name to its trials."""
    names = [entry.study for entry in overview(store).tenants]
    return {name: study_details(store, study=name).trials for name in names}


def ended_trials(trials: Trials) -> set[int]:
    """Ids of the trials that have ended."""
    return {t.trial_id for listed in trials.values() for t in listed if t.state in ENDED}


def repeated(trials: Trials) -> list[str]:
    """Every (study, candidate, data version) that has more than one trial, in words."""
    counted = Counter((study, t.candidate, t.data_version_id) for study, listed in trials.items() for t in listed)
    return [
        f"{study}: {candidate} ran {n} times on data version {v}"
        for (study, candidate, v), n in counted.items()
        if n > 1
    ]


def require_nothing_repeated(before: set[int], suggested: Iterable[Mapping[str, Any]], after: Trials) -> None:
    """Compare a night with what had ended before it.

    Args:
        before: Ids of the trials that had ended when the night began.
        suggested: What the night suggested.
        after: All trials after the night.

    Raises:
        NightError: If a candidate ran again on the same data, or a suggested trial has not ended.
    """
    given = [int(s["trial_id"]) for s in suggested]
    again = [f"trial {i} had ended before this night" for i in sorted(set(given) & before)]
    twice = [f"trial {i} was given {n} times" for i, n in Counter(given).items() if n > 1]
    open_still = [f"trial {i} has not ended" for i in sorted(set(given) - ended_trials(after))]
    if wrong := again + twice + open_still + repeated(after):
        message = "; ".join(wrong)
        raise NightError(message)
