"""What signals mean for the study: the alert when they break the overfitting budget, and what to do next.

A budget is a list of rules in words. Nothing but signals and retirements is looked at, so an alert tells the developer
nothing that the signals did not.

    signal above range R            the last signal is above R
    K in a row at range S or above  the last K signals are all at S or above; "two yellow in a row" is K = 2, S = 2
    retire within N submissions     the set is retired when it should give one of the first N answers
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.errors import InvalidInputError
from easeml_core.meter.ranges import range_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.config import MeterConfig

_WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_COUNT = r"(?P<count>\d{1,6}|" + "|".join(_WORDS) + ")"
_PATTERNS = {
    "above": re.compile(r"signal above (?:range )?(?P<signal>\d{1,6})"),
    "row": re.compile(rf"{_COUNT} (?:in a row at (?:range )?(?P<signal>\d{{1,6}}) or above|(?P<colour>\w+) in a row)"),
    "retire": re.compile(rf"retired? within {_COUNT} submissions?"),
}


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """One thing that must not happen.

    Attributes:
        kind: ``above``, ``row`` or ``retire``.
        signal: R of ``above``, S of ``row``; 0 for ``retire``.
        count: K of ``row``, N of ``retire``; 1 for ``above``.
        text: The rule in words.
    """

    kind: str
    signal: int
    count: int
    text: str

    def broken_by(self, answers: Sequence[int | None]) -> bool:
        """Whether the last of these answers (None: retired instead) breaks the rule."""
        if not answers:
            return False
        if self.kind == "retire":
            return answers[-1] is None and len(answers) <= self.count
        last = answers[-self.count :]
        least = self.signal + 1 if self.kind == "above" else self.signal
        return len(last) == self.count and all(answer is not None and answer >= least for answer in last)


def parse_rule(text: str, signals: int) -> BudgetRule:
    """Read one rule; small numbers may be words, and yellow and red mean ranges 2 and m.

    Args:
        text: E.g. ``two yellow in a row``.
        signals: m >= 2.

    Returns:
        The rule.

    Raises:
        InvalidInputError: It is no such rule, or can never be broken, or always is.

    Example:
        >>> rule = parse_rule("two yellow in a row", 3)
        >>> [rule.broken_by(answers) for answers in ([2], [2, 1], [1, 2, 2], [3, 2])]
        [False, False, True, True]
    """
    plain = " ".join(text.lower().split())
    for kind, pattern in _PATTERNS.items():
        found = pattern.fullmatch(plain)
        if found is not None:
            return _rule(kind, found.groupdict(), plain, signals)
    allowed = (
        "the form 'signal above range R', 'K in a row at range S or above', 'two yellow in a row', or "
        "'retire within N submissions'"
    )
    raise _unreadable(text, allowed)


def _rule(kind: str, words: dict[str, str | None], text: str, signals: int) -> BudgetRule:
    count = _number(words.get("count") or "1")
    if count < 1:
        raise _unreadable(text, "a count of 1 or more")
    if kind == "retire":
        return BudgetRule(kind, 0, count, text)
    signal = _signal(words, signals, text)
    least, most = (1, signals - 1) if kind == "above" else (2, signals)
    if not least <= signal <= most:
        raise _unreadable(text, f"a range from {least} to {most}")
    return BudgetRule(kind, signal, count, text)


def parse_budget(config: MeterConfig) -> tuple[BudgetRule, ...]:
    """The rules of a study: those declared, or else that no signal is above ``overfitting_budget``.

    Raises:
        InvalidInputError: If a rule cannot be read.
    """
    signals = len(config.ranges) + 1
    if config.budget:
        return tuple(parse_rule(text, signals) for text in config.budget)
    highest = config.overfitting_budget
    return (BudgetRule("above", highest, 1, f"signal above range {highest}"),)


def budget_breach(
    answers: Sequence[int | None],
    config: MeterConfig,
    *,
    edges: Sequence[float] = (),
    tolerance: float | None = None,
) -> str | None:
    """The sentence of the alert when the last answer breaks the overfitting budget.

    Args:
        answers: All answers on this set so far, oldest first; None when the set was retired instead.
        config: Ranges, tolerance and budget of the study.
        edges: The boundaries that the last answer used, where they were shifted.
        tolerance: What was promised with it; None for that of the settings.

    Returns:
        The sentence, with what to do; None when no rule is broken.

    Raises:
        ConfigError: If an answer is no signal.
        InvalidInputError: If a rule cannot be read.

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> config = MeterConfig(ranges=(0.1, 0.3), budget=("two yellow in a row", "retire within 5 submissions"))
        >>> budget_breach([1, 2], config) is None
        True
        >>> print(budget_breach([1, None], config))  # doctest: +NORMALIZE_WHITESPACE
        the overfitting budget "retire within 5 submissions" is broken: the sealed set is retired at submission 2;
        seal a new and larger set, or submit less often
    """
    for answer in answers:
        if answer is not None:
            _check_signal(answer, len(config.ranges) + 1)
    for rule in parse_budget(config):
        if rule.broken_by(answers):
            claim = "" if answers[-1] is None else _claim(answers[-1], config, edges, tolerance)
            return _sentence(rule, answers, config, claim)
    return None


def _sentence(rule: BudgetRule, answers: Sequence[int | None], config: MeterConfig, claim: str) -> str:
    last, signals = answers[-1], len(config.ranges) + 1
    if last is None:
        return (
            f'the overfitting budget "{rule.text}" is broken: the sealed set is retired at submission {len(answers)}; '
            "seal a new and larger set, or submit less often"
        )
    if not config.budget:
        return _above(last, config, claim)
    return f'the overfitting budget "{rule.text}" is broken by signal {last} of {signals}: {claim}; ' + advice(
        last, signals
    )


def breach(signal: int, config: MeterConfig) -> str | None:
    """The sentence of the alert when a signal exceeds ``overfitting_budget``, whatever came before it.

    It tells the signal and what the study declared, nothing else of the sealed set.

    Args:
        signal: 1..m, from the meter.
        config: Ranges, tolerance and overfitting budget of the study.

    Returns:
        The sentence, or None when the signal is within the budget.

    Raises:
        ConfigError: If there is no such signal.

    Example:
        >>> from easeml_core.config import MeterConfig
        >>> breach(1, MeterConfig()) is None
        True
        >>> config = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05, overfitting_budget=1)
        >>> print(breach(3, config))  # doctest: +NORMALIZE_WHITESPACE
        overfitting signal 3 of 3 exceeds the budget of 1: the gap between the loss on unseen data and the validation
        loss is above 0.3 (+/- 0.05); replace the validation set: it has lost its value for choosing models
    """
    signals = len(config.ranges) + 1
    _check_signal(signal, signals)
    if signal <= config.overfitting_budget:
        return None
    return _above(signal, config, _claim(signal, config))


def _above(signal: int, config: MeterConfig, claim: str) -> str:
    signals = len(config.ranges) + 1
    return (
        f"overfitting signal {signal} of {signals} exceeds the budget of {config.overfitting_budget}: {claim}; "
        f"{advice(signal, signals)}"
    )


def advice(signal: int, signals: int) -> str:
    """What a developer should do after a signal.

    Args:
        signal: 1..m.
        signals: m >= 2.

    Returns:
        Half a sentence.

    Raises:
        ConfigError: If there is no such signal.

    Example:
        >>> advice(1, 3)
        'go on: the validation set is still representative'
    """
    _check_signal(signal, signals)
    if signal == 1:
        return "go on: the validation set is still representative"
    if signal < signals:
        return "get new validation data, regularise, or stop tuning on the present validation set"
    return "replace the validation set: it has lost its value for choosing models"


def _claim(signal: int, config: MeterConfig, edges: Sequence[float] = (), tolerance: float | None = None) -> str:
    where = range_text(signal, edges or config.ranges)
    tolerance = config.tolerance if tolerance is None else tolerance
    return f"the gap between the loss on unseen data and the validation loss is {where} (+/- {tolerance:g})"


def _check_signal(signal: int, signals: int) -> None:
    require(1 <= signal <= signals, "signal", signal, f"from 1 to {signals}; a retired set gives none")


def _number(word: str) -> int:
    return _WORDS[word] if word in _WORDS else int(word)


def _signal(words: dict[str, str | None], signals: int, text: str) -> int:
    colour = words.get("colour")
    if colour is None:
        return int(words["signal"] or 0)
    colours = {"yellow": 2, "red": signals}
    if colour not in colours:
        raise _unreadable(text, "the colour yellow (range 2 or above) or red (the last range)")
    return colours[colour]


def _unreadable(text: str, allowed: str) -> InvalidInputError:
    return InvalidInputError(f"the budget rule {text!r} cannot be read; it must have {allowed}")
