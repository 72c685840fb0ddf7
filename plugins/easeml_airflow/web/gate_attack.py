"""Attacks on a plan that a referee asked for on the gate page: one at a time, bounded, and kept for whoever asks again.

They run in the server's own process on sets that are made up; no sealed set is touched. The same plan always has the
same result, so that a second press costs nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from easeml_airflow.web.turns import Turns
from easeml_core.gate.attack import MOST_EXAMPLES, MOST_STEPS, AttackedPlan, attack_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT = 256
LONGEST_QUERY = 2000
MOST_FIELDS = 20

Plan = tuple[int, float, int, str, str]
"""Examples, reliability, steps, adaptivity and mode: all that an attack depends on."""


@dataclass(frozen=True, slots=True)
class AttackView:
    """What is said of the attacks on a plan.

    Attributes:
        title: What was seen: so few sets can show that a promise is broken, and that a small one is kept they cannot.
        sentence: How often the developer got through, against what is promised.
        contrast: How often without counting what answers teach, and whether that shows what counting is for.
        setting: On what the attack was, and by which model.
        size: What was attacked in its stead, where the set is large; else empty.
        holds: Whether what was seen fits the promise.
    """

    title: str
    sentence: str
    contrast: str
    setting: str
    size: str
    holds: bool


@dataclass
class Attacks:
    """The attacks of one server."""

    _turns: Turns = field(default_factory=lambda: Turns(at_once=1, waiting=4))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: OrderedDict[Plan, AttackedPlan] = field(default_factory=OrderedDict)

    def of(self, plan: Plan) -> AttackedPlan | None:
        """What came of the attacks on this plan, where somebody has asked for them."""
        with self._lock:
            return self._kept.get(plan)

    def run(self, study: str, plan: Plan) -> None:
        """Attack sets of this plan, unless that was done.

        Raises:
            ConfigError: The plan is none.
            ConcurrentUpdateError: Others are under way.
        """
        if self.of(plan) is not None:
            return
        examples, reliability, steps, adaptivity, mode = plan
        with self._turns.taken(study):
            found = attack_plan(
                examples=examples, reliability=reliability, steps=steps, adaptivity=adaptivity, mode=mode
            )
        with self._lock:
            self._kept[plan] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def plan_to_attack(settings: Mapping[str, Any], examples: int) -> Plan | None:
    """What the attack on the planner's plan depends on; None where it is too long for a page."""
    if not examples or settings["steps"] > MOST_STEPS:
        return None
    return examples, settings["reliability"], settings["steps"], str(settings["adaptivity"]), str(settings["mode"])


def attack_view(found: AttackedPlan, plan: Plan) -> AttackView:
    """The result in words.

    Example:
        >>> seen = AttackedPlan(200, 303, 0, 24, (0.0, 0.037), 0.05, holds=True)
        >>> view = attack_view(seen, (303, 0.95, 8, "full", "fp-free"))
        >>> view.title, view.sentence[:74]
        ('No set of 200 was fooled', 'Somebody who learns from every answer got a wrong pass on 0 of 200 sets li')
        >>> view.contrast
        'Without counting that, each answer at delta / 8, it would have been 24.'
    """
    examples, _, steps, adaptivity, mode = plan
    wrong, model = ("pass", "no better than") if mode == "fp-free" else ("fail", "at least as good as")
    low, high = found.interval
    told = (
        f"{_who(steps, adaptivity)} got a wrong {wrong} on {found.fooled} of {found.runs} sets like this one; the "
        f"chance is between {low:.2g} and {high:.2g} (99.9 %), and {found.promised:.3g} at most is promised"
    )
    return AttackView(
        title=_title(found),
        sentence=f"{told}{'; so few sets can show no more' if found.holds and high > found.promised else ''}.",
        contrast=_contrast(found, steps, adaptivity),
        setting=f"Made-up sets with coins for labels, and a model that is {model} a coin handed in against n > 0.5",
        size=f"Sets of {found.examples:,} examples stand for {examples:,}." if examples > MOST_EXAMPLES else "",
        holds=found.holds,
    )


def _title(found: AttackedPlan) -> str:
    if not found.holds:
        return "The promise did not hold"
    if not found.fooled:
        return f"No set of {found.runs} was fooled"
    is_within = found.fooled / found.runs <= found.promised
    return "The attack stayed within the promise" if is_within else "What was seen does not refute the promise"


def _who(steps: int, adaptivity: str) -> str:
    if steps == 1:
        return "Somebody who has one try"
    return "Somebody who is told nothing" if adaptivity == "none" else "Somebody who learns from every answer"


def _contrast(found: AttackedPlan, steps: int, adaptivity: str) -> str:
    """What the mistake would have led to; under ``none`` and ``firstChange`` it is not the level that differs."""
    if steps == 1:
        return "With one step nobody learns anything, counted or not."
    if adaptivity == "firstChange":
        lead = f"The level is delta / {steps:,} here too, but had the set lived on after its first pass"
    else:
        mistake = "If every answer were told all the same" if adaptivity == "none" else "Without counting that"
        lead = f"{mistake}, each answer at delta / {steps:,}"
    weak = found.naive / found.runs <= found.promised
    why = ": this attack is too weak to show what counting is for in this plan" if weak else ""
    return f"{lead}, it would have been {found.naive}{why}."


def query_back(query: str) -> str:
    """The planner's fields as they stood in the address, to come back to; what is no field is dropped.

    Example:
        >>> query_back("steps=3&condition=n+%3E+0.5&x")
        'steps=3&condition=n+%3E+0.5'
        >>> query_back("a=1&" * 30).count("a=1")
        20
    """
    fields = query[:LONGEST_QUERY].split("&")[:MOST_FIELDS]  # a foreign link may have as many as it likes
    return urlencode(parse_qsl("&".join(fields)))
