"""The overfitting budget of a study: its rules, and whether signals break one; ``sentences`` has the sentences.

A budget is a list of rules in words. Nothing but signals and retirements is looked at, so an alert tells the developer
nothing that the signals did not.

    signal above range R            the last signal is above R
    K in a row at range S or above  the last K signals are all at S or above; "two yellow in a row" is K = 2, S = 2
    retire within N submissions     the set is retired when it should give one of the first N answers

"In a row" counts the answers on one validation set: once that is replaced, an earlier signal says nothing of the new
one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError
from easeml_core.meter.sentences import breach_sentence, check_signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.meter.sentences import TwoSignals
    from easeml_core.settings.config import MeterConfig

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

    def broken_by(self, answers: Sequence[int | None], versions: Sequence[int] = ()) -> bool:
        """Whether the last of these answers (None: retired instead) breaks the rule.

        Args:
            answers: All answers on the sealed set, oldest first.
            versions: For each of them, the validation data that it is about; none where all are about the same.
        """
        if not answers:
            return False
        if self.kind == "retire":
            return answers[-1] is None and len(answers) <= self.count
        present = [a for a, v in zip(answers, versions, strict=True) if v == versions[-1]] if versions else answers
        last = present[-self.count :]
        least = self.signal + 1 if self.kind == "above" else self.signal
        return len(last) == self.count and all(answer is not None and answer >= least for answer in last)


def parse_rule(text: str, signals: int) -> BudgetRule:
    """Read one rule; small numbers may be words, and yellow and red mean ranges 2 and m.

    Args:
        text: E.g. ``two yellow in a row``.
        signals: m >= 2.

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
    versions: Sequence[int] = (),
    both: TwoSignals | None = None,
) -> str | None:
    """The sentence of the alert when the last answer breaks the overfitting budget.

    Args:
        answers: All answers on this set so far, oldest first; None when the set was retired instead.
        config: Ranges, tolerance and budget of the study.
        edges: The boundaries that the last answer used, where they were shifted.
        tolerance: What was promised with it; None for that of the settings.
        versions: For each answer, the number of the validation data that it is about; none where all are about the
            same. Rules "in a row" count those of the last one alone.
        both: What it says together with that of the second meter. Where it shows that test data are harder, that tells
            what to do: more validation data of the old kind would not help.

    Returns:
        The sentence, with what to do; None when no rule is broken.

    Raises:
        ConfigError: If an answer is no signal.
        InvalidInputError: If a rule cannot be read.

    Example:
        >>> from easeml_core.settings.config import MeterConfig
        >>> config = MeterConfig(ranges=(0.1, 0.3), budget=("two yellow in a row", "retire within 5 submissions"))
        >>> budget_breach([1, 2], config) is None
        True
        >>> print(budget_breach([1, None], config))  # doctest: +NORMALIZE_WHITESPACE
        the overfitting budget "retire within 5 submissions" is broken: the sealed set is retired at submission 2;
        seal a new and larger set, or submit less often
    """
    for answer in answers:
        if answer is not None:
            check_signal(answer, len(config.ranges) + 1)
    for rule in parse_budget(config):
        if rule.broken_by(answers, versions):
            return breach_sentence(rule.text, answers, config, edges=edges, tolerance=tolerance, both=both)
    return None


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
