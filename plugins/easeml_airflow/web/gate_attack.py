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

Plan = tuple[int, float, int, str, str]
"""Examples, reliability, steps, adaptivity and mode: all that an attack depends on."""


@dataclass(frozen=True, slots=True)
class AttackView:
    """What is said of the attacks on a plan.

    Attributes:
        title: Whether the promise held.
        sentence: How often the developer got through, against what is promised.
        contrast: How often without counting what answers teach.
        size: What was attacked in its stead, where the set is large; else empty.
        holds: Whether what was seen fits the promise.
    """

    title: str
    sentence: str
    contrast: str
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
        >>> view.sentence[:75]
        'Somebody who learns from every answer got a wrong pass out of 0 of 200 sets'
        >>> view.contrast
        'Without counting that, each answer at delta / 8, it would have been 24.'
    """
    examples, _, steps, adaptivity, mode = plan
    wrong = "pass" if mode == "fp-free" else "fail"
    who = "Somebody who is told nothing" if adaptivity == "none" else "Somebody who learns from every answer"
    low, high = found.interval
    told = (
        f"{who} got a wrong {wrong} out of {found.fooled} of {found.runs} sets like this one; the chance is between "
        f"{low:.2g} and {high:.2g} (99.9 %), and {found.promised:.3g} at most is promised."
    )
    instead = "If every answer were told all the same" if adaptivity == "none" else "Without counting that"
    return AttackView(
        title="The promise held" if found.holds else "The promise did not hold",
        sentence=told,
        contrast=f"{instead}, each answer at delta / {steps:,}, it would have been {found.naive}.",
        size=f"Sets of {found.examples:,} examples stand for {examples:,}." if examples > MOST_EXAMPLES else "",
        holds=found.holds,
    )


def query_back(query: str) -> str:
    """The planner's fields as they stood in the address, to come back to; what is no field is dropped.

    Example:
        >>> query_back("steps=3&condition=n+%3E+0.5&x")
        'steps=3&condition=n+%3E+0.5'
    """
    return urlencode(parse_qsl(query[:LONGEST_QUERY], max_num_fields=20))
