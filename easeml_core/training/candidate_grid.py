"""One candidate as several: the learning rates of the paper, and the normalisations of images.

Each network with a rate and a normalisation is a candidate, so the scheduler chooses among them as among all others.
How fine the grid is, a study says. Standard library only.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError
from easeml_core.models.networks.architecture import NORMALISATIONS
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GRIDS = ("one", "rates", "full")
"""As it is; with each learning rate; with each learning rate and, on images, each normalisation."""

RATES = ("0.1", "0.01", "0.001", "0.0001", "0.00001")
"""Of Adam, in the paper's studies (Li et al., PVLDB 2018)."""


def grid_of(candidate: Mapping[str, Any], grid: str = "one") -> list[dict[str, Any]]:
    """The candidates that a candidate stands for.

    Args:
        candidate: An entry ``{"name", "kind", "parameters"}``; parameters may be absent. Those given are kept, and not
            varied.
        grid: One of ``GRIDS``.

    Returns:
        Entries with names of their own; the candidate itself where its kind is no network that is trained by steps.

    Raises:
        InvalidInputError: If the grid or the kind is not known.

    Example:
        >>> [c["name"] for c in grid_of({"name": "resnet", "kind": "resnet"}, "rates")][:2]
        ['resnet-lr0.1', 'resnet-lr0.01']
        >>> grid_of({"name": "resnet", "kind": "resnet"}, "full")[7]["name"]
        'resnet-lr0.01-f0.4'
    """
    if grid not in GRIDS:
        message = f"there is no grid {grid!r}; allowed: {', '.join(GRIDS)}"
        raise InvalidInputError(message)
    rules, given = trainer_of(candidate["kind"]).rules, dict(candidate.get("parameters") or {})
    free = set(rules) - set(given)
    is_network = "epochs" in rules  # boosted trees have a learning rate, too, which means something else
    rates = RATES if grid != "one" and is_network and "learning_rate" in free else ("",)
    normalisations = NORMALISATIONS if grid == "full" and "normalisation" in free else ("",)
    return [
        {"name": "-".join([candidate["name"], *_words(rate, power)]), "kind": candidate["kind"],
         "parameters": {**given, **_changed(rate, power)}}
        for rate, power in product(rates, normalisations)
    ]  # fmt: skip


def _words(rate: str, power: str) -> Iterator[str]:
    """What a name says of them; nothing of the identity."""
    if rate:
        yield f"lr{rate}"
    if power not in ("", "identity"):
        yield f"f{power}"


def _changed(rate: str, power: str) -> dict[str, Any]:
    rates = {"learning_rate": float(rate)} if rate else {}
    return {**rates, "normalisation": power} if power else rates
