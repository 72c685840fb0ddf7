"""What each method promises, in words, and on what condition: not every method promises as much as every other."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from easeml_core.meter.regulation import Automaton

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.config import MeterConfig

_ENDS = "the true gap lies in the range that was answered, widened by the tolerance on both sides"
_UPPER = "the true gap is not above the range that was answered by more than the tolerance"
_LOWER = "the true gap is not below the range that was answered by more than the tolerance"
_RATCHET = (
    f"{_UPPER}, and the largest true gap so far is not below it by more than the tolerance; a later and better model "
    "is not seen to be better"
)

CAVEATS: Mapping[str, str] = MappingProxyType(
    {
        "non-adaptive": "sound only if every model is fixed before the first signal is shown",
        "first-change": "the set is retired at the first signal other than 1",
        "fresh": "the labels of all submissions together; each submission takes a new set",
        "score": "for a score shown in full instead of a signal",
        "ratchet": "the answer is the worst signal so far, which promises less than the signal itself",
        "deviations": "the set is retired after one more deviation than planned for",
        "multitenant": "sound only if no team hears anything of another team's signals",
        "dithered": "the boundaries move with each submission; the shift must be drawn after it",
        "nonuniform": "the tolerance is that of the worst earlier signal",
    }
)


def promise(config: MeterConfig) -> str:
    """What holds for all submissions at once with the reliability.

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> promise(MeterConfig(method="full", one_sided=True))
        'the true gap is not above the range that was answered by more than the tolerance'
    """
    sides = promised_sides(config)
    if config.method == "ratchet" and not config.one_sided:
        return _RATCHET
    if len(sides) < 2:
        return _UPPER if "upper" in sides else _LOWER
    return _ENDS


def promised_sides(config: MeterConfig) -> frozenset[str]:
    """Which ends of the answered range the gap of the submission itself keeps to: ``upper``, ``lower``, or both.

    With ``ratchet`` the lower end is that of the worst submission so far.
    """
    if config.one_sided or config.method == "ratchet":
        return frozenset({"upper"})  # the planner refuses a one-sided automaton without it
    if config.method == "automaton":
        return frozenset(Automaton(config.automaton).promised_sides)
    return frozenset({"upper", "lower"})


def caveats(config: MeterConfig, method: str) -> tuple[str, ...]:
    """Conditions and losses that go with a method, as sentences that begin with its name."""
    found = [f"{method}: {CAVEATS[method]}"] if method in CAVEATS else []
    if method == "automaton":
        found.append(f"automaton: it promises that {promise(config)}")
    if method == "path-adaptive" and config.teams > 1:
        found.append(f"path-adaptive: {CAVEATS['multitenant']}")
    if config.one_sided:
        found.append(f"one-sided: {_UPPER}; nothing is said of how far it may lie below")
    return tuple(found)
