"""The sentences of the meter: what each method promises, what a signal says of the gap, and what alerts advise.

Not every method promises as much as every other, and some do on a condition only.

``overfitting_budget`` decides whether the budget is exceeded. ``drift`` bounds the drift, and ``drift_alert`` tells it
where the bound leaves no room for equal distributions. A sentence has nothing but what its reader may know: signals,
the boundaries that were used, and the settings of the study.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from easeml_core.meter.ranges import at_least, at_most
from easeml_core.meter.tree_size import Automaton
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.settings.config import MeterConfig

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
        >>> from easeml_core.settings.config import MeterConfig
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


GAP = "the gap between the loss on unseen data and the validation loss"


def breach_sentence(
    rule: str,
    answers: Sequence[int | None],
    config: MeterConfig,
    *,
    edges: Sequence[float] = (),
    tolerance: float | None = None,
    both: TwoSignals | None = None,
) -> str:
    """Return the sentence of an alert of the overfitting budget, with what to do."""
    signals, last = len(config.ranges) + 1, answers[-1]
    if last is None:
        return (
            f'the overfitting budget "{rule}" is broken: the sealed set is retired at submission {len(answers)}; '
            "seal a new and larger set, or submit less often"
        )
    meaning = f"{claim(last, config, edges=edges, tolerance=tolerance)}; {_to_do(last, config, both)}"
    if not config.budget:
        return f"overfitting signal {last} of {signals} exceeds the budget of {config.overfitting_budget}: {meaning}"
    return f'the overfitting budget "{rule}" is broken by signal {last} of {signals}: {meaning}'


def _to_do(signal: int, config: MeterConfig, both: TwoSignals | None) -> str:
    if both is not None and both.direct < both.total and both.drift != "none seen":
        return both.sentence
    return advice(signal, len(config.ranges) + 1)


def advice(signal: int, signals: int) -> str:
    """What a developer should do after a signal.

    Args:
        signal: 1..m.
        signals: m >= 2.

    Example:
        >>> advice(1, 3)
        'go on: the validation set is still representative'
    """
    check_signal(signal, signals)
    if signal == 1:
        return "go on: the validation set is still representative"
    if signal < signals:
        return "get new validation data, regularise, or stop tuning on the present validation set"
    return "replace the validation set: it has lost its value for choosing models"


def claim(
    signal: int, config: MeterConfig, *, edges: Sequence[float] = (), tolerance: float | None = None, gap: str = GAP
) -> str:
    """What a signal says of the gap, and no more than its method promises; figures are rounded to the safe side.

    Example:
        >>> from easeml_core.settings.config import MeterConfig
        >>> claim(1, MeterConfig(), gap="the gap")
        'the gap is at most 0.2 (+/- 0.1)'
    """
    low, high = _ends(signal, edges or config.ranges)
    slack = at_most(config.tolerance if tolerance is None else tolerance)
    where = " and ".join(end for end in (low, high) if end)
    rises = config.method == "ratchet"  # the answer is the worst signal so far
    if rises:
        gap = gap.replace("the gap", "the largest gap so far", 1)
    sides = promised_sides(config)
    if len(sides) == 2 or (rises and not config.one_sided):
        return f"{gap} is {where} (+/- {slack})"
    end, sign = (high, "+") if "upper" in sides else (low, "-")
    how = "answered" if config.method == "automaton" else "measured"
    promised = f"promised is only that it is {end} ({sign} {slack})" if end else "nothing of this is promised"
    return f"{gap} was {how} as {where}; {promised}"


def _ends(signal: int, edges: Sequence[float]) -> tuple[str, str]:
    """Both ends of the range in words; empty where it has none."""
    low = f"above {at_least(edges[signal - 2])}" if signal > 1 else ""
    return low, f"at most {at_most(edges[signal - 1])}" if signal <= len(edges) else ""


def check_signal(signal: int, signals: int) -> None:
    """Raise a ConfigError where there is no such signal of m."""
    require(1 <= signal <= signals, "signal", signal, f"from 1 to {signals}; a retired set gives none")


@dataclass(frozen=True, slots=True)
class TwoSignals:
    """What both meters say of one submission.

    Attributes:
        total: Signal of the meter on the test set, 1..m.
        direct: Signal of the meter on the second validation sample, 1..m.
        drift_low: The drift is at least this (minus infinity: nothing is said), with the reliability of both together.
        drift_high: The drift is at most this.
        drift: ``certain`` when it cannot be zero, ``likely`` when the answered ranges have no gap in common, as those
            of different signals with the same boundaries, ``none seen`` otherwise.
    """

    total: int
    direct: int
    drift_low: float
    drift_high: float
    drift: str

    @property
    def sentence(self) -> str:
        """What it means and what to do."""
        return drift_sentence(self.total, self.direct, self.drift)


def drift_alert(both: TwoSignals, reliability: float) -> str | None:
    """The alert's sentence when two signals leave no room for equal distributions; None otherwise."""
    if both.drift != "certain" or reliability <= 0:
        return None
    harder, size = ("harder", both.drift_low) if both.drift_low > 0 else ("easier", -both.drift_high)
    return f"{both.sentence} ({harder} by at least {at_least(size)}, with probability {at_least(reliability)})"


def drift_sentence(total: int, direct: int, drift: str) -> str:
    """Return what two signals mean and what to do, from values that every role may read."""
    shown = f"test signal {total}, validation signal {direct}"
    if total != direct and drift == "none seen":
        return f"{shown}: {_other_boundaries(direct)}"
    if total > direct:
        harder = "has" if drift == "certain" else "seems to have"
        return (
            f"{shown}: drift, the test distribution {harder} become harder than the validation distribution; "
            f"collect validation data from where the models are used, more of the old kind does not help{_both(direct)}"
        )
    if total < direct:
        easier = "is" if drift == "certain" else "seems to be"
        return (
            f"{shown}: drift, the test distribution {easier} easier than the validation distribution and hides tuning "
            "to the sample; renew the validation set"
        )
    if direct == 1:
        return f"{shown}: neither tuning to the validation set nor drift is seen; go on"
    return f"{shown}: the validation set itself is overfitted, no drift is seen; renew it from the same source"


def _both(direct: int) -> str:
    """What is to be said beside drift: data that are added would not undo the tuning."""
    return "" if direct == 1 else "; the validation set itself is overfitted, too: replace it, do not only add to it"


def _other_boundaries(direct: int) -> str:
    """Signals that differ without drift: one of them was answered before, with boundaries shifted differently."""
    why = "they were read with different boundaries, so that their difference shows no drift"
    if direct > 1:
        return f"{why}; the validation set itself is overfitted, renew it from the same source"
    return f"{why}; hand in another model, which is read with the same boundaries on both"
