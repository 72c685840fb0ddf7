"""Retention: which models keep their files, and how long learning curves are kept (ADR 0035).

The referee applies it once a day where its options say so (``--keep-models``), and ``easeml artifacts prune``
at once. The audit, ledgers, verdicts, results and the models' rows always stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.encoding import typed_record
from easeml_core.store.tables import model_life
from easeml_core.store.tables.model_life import RemovableModel

if TYPE_CHECKING:
    from easeml_core.store.database import Store

MODELS_AT_ONCE = 1000
"""Models whose rows one transaction holds."""


@typed_record
class PrunedModels:
    """The answer of ``easeml artifacts prune``.

    Attributes:
        models: Whose files are removed, or would be, by number.
        curve_points: Points of learning curves that were removed.
        keep: How many of the best models of each study stay; None for all models.
        days: Age in days from which on a model may go.
        curve_days: Age of curves likewise; 0 for no limit.
        dry_run: Whether nothing was changed.
    """

    models: tuple[RemovableModel, ...]
    curve_points: int
    keep: int | None
    days: float
    curve_days: float
    dry_run: bool


def prune(
    store: Store, *, keep: int | None, days: float, curve_days: float = 0.0, dry_run: bool = False
) -> PrunedModels:
    """Note which models lose their files, whatever is killed meanwhile; the sweep removes the files themselves.

    A model stays that is or was in production, that a request, a verdict or a meter reading names, that was submitted,
    that is a baseline, or that waits to be measured on new validation data.

    Args:
        store: Role ``easeml_referee``.
        keep: How many of the best models of each study stay, 1 to 1,000,000; None for all models.
        days: Age of a model in days from which on it may go, 1 to 36,500.
        curve_days: Learning curves of archived studies, and on earlier training data, go after so many days; 0: never.
        dry_run: List the models, change nothing; curves are not counted.

    Raises:
        ConfigError: A number is out of range.
        WrongRoleError: The role is not the referee's.
    """
    require(keep is None or 1 <= keep <= 10**6, "keep", keep, "from 1 to 1,000,000")
    require(1 <= days <= 36_500, "days", days, "from 1 to 36,500")
    require(curve_days == 0 or 1 <= curve_days <= 36_500, "curve_days", curve_days, "0, or from 1 to 36,500")
    why = f"not among the best {keep} of its study after {days:g} days"
    found: list[RemovableModel] = []
    if keep is not None and dry_run:
        with store.begin(writes=False) as tx:
            found = model_life.removable_models(tx, keep=keep, days=days, most=10**6)
    while keep is not None and not dry_run:
        with store.begin() as tx:
            part = model_life.removable_models(tx, keep=keep, days=days, most=MODELS_AT_ONCE, holds=True)
            removed = model_life.note_removed(tx, [one.model_id for one in part], why)
        found += [one for one in part if one.model_id in removed]
        if len(part) < MODELS_AT_ONCE:
            break
    points = 0
    while curve_days and not dry_run:
        with store.begin() as tx:
            gone = model_life.forget_curves(tx, curve_days)
        points += gone
        if not gone:
            break
    return PrunedModels(tuple(found), points, keep, days, curve_days, dry_run)
