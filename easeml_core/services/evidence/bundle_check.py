"""Check a bundle without any database: its signature, its part of the chain, and the verdict itself.

The level is recomputed from the plan (``stats/adaptivity.py``), the verdict from the counts (``gate/decision.py``). Two
things cannot be recomputed from one bundle, and are said to be attested only: the level on a set that gate and meter
share, which follows from all its answers, and a verdict under early stopping, which follows from the order of examples.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_core.attestation import Link, commit, open_envelope
from easeml_core.errors import EasemlError, InvalidInputError
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import conjunction, decide, is_released
from easeml_core.gate.outcomes import Outcomes
from easeml_core.services.evidence.bundle import FULL, REDACTED
from easeml_core.stats.adaptivity import level_of_test

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.attestation import PublicKey

_CLOSE = 1e-9
"""Relative difference of two logarithms of one level that another processor may compute."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of a bundle.

    Attributes:
        symbol: What was released.
        kind: ``full`` or ``redacted``.
        checks: One line each for what holds.
        attested: What the signature alone vouches for.
        faults: What does not hold; empty where the bundle is good.
    """

    symbol: str
    kind: str
    checks: tuple[str, ...]
    attested: tuple[str, ...]
    faults: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "holds": not self.faults,
            "symbol": self.symbol,
            "kind": self.kind,
            "checks": list(self.checks),
            "attested": list(self.attested),
            "faults": list(self.faults),
        }


def check_bundle(envelope: Any, keys: Sequence[PublicKey]) -> Checked:
    """Check a bundle.

    Args:
        envelope: DSSE envelope, as JSON gives it.
        keys: Public keys that are believed.

    Raises:
        InvalidInputError: It is no bundle of ours, or none of the keys has signed it.
    """
    trusted = {key.id: key for key in keys}
    found = open_envelope(envelope, trusted)
    kinds = {FULL: "full", REDACTED: "redacted"}
    kind = kinds.get(str(found.get("predicateType")))
    if kind is None:
        message = f"the predicate is {found.get('predicateType')!r}; one of {', '.join(kinds)} is needed"
        raise InvalidInputError(message)
    work = _Work(trusted)
    try:
        work.check(found, kind)
        symbol = str(found["predicate"]["verdict"]["facts"]["symbol"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        message = f"the signed statement lacks a part of a bundle ({type(error).__name__}: {error})"
        raise InvalidInputError(message) from error
    return Checked(symbol, kind, tuple(work.checks), tuple(work.attested), tuple(work.faults))


class _Work:
    """One pass over a bundle."""

    def __init__(self, trusted: Mapping[str, PublicKey]) -> None:
        self._trusted = trusted
        self.checks: list[str] = ["a trusted key has signed the bundle"]
        self.attested: list[str] = []
        self.faults: list[str] = []

    def _say(self, holds: bool, what: str, otherwise: str) -> None:
        (self.checks if holds else self.faults).append(what if holds else otherwise)

    def check(self, found: Mapping[str, Any], kind: str) -> None:
        predicate = found["predicate"]
        hashes = self._chain(predicate)
        verdict = predicate["verdict"]
        self._opening("verdict", verdict, hashes)
        artifact = found["subject"][0]["digest"]["sha256"]
        is_same = str(verdict["facts"]["model"]).endswith(f" sha256:{artifact}")
        self._say(is_same, f"the verdict is on the file {artifact}", "the verdict is on another file than the subject")
        if kind == "redacted":
            self.attested.append("level and counts: they are the referee's until the set is retired")
            return
        ledger = predicate["ledger"]
        self._opening("ledger entry", ledger, hashes)
        answer, symbol = ledger["facts"]["answer"], verdict["facts"]["symbol"]
        self._say(answer == symbol, f"ledger and verdict say {symbol!r}", f"the ledger says {answer!r}, not {symbol!r}")
        self._judgement(predicate["test_set"], ledger["facts"], symbol)

    def _chain(self, predicate: Mapping[str, Any]) -> dict[str, Link]:
        """The links by their hash; each names the one before, and a trusted key has signed it."""
        links: dict[str, Link] = {}
        previous: bytes | None = None
        unsigned = 0
        for one in predicate["chain"]:
            link = _link(one["link"])
            found = link.hash()
            if found.hex() != one["hash"] or (previous is not None and link.previous != previous):
                self.faults.append(f"entry {one['hash'][:16]} does not follow the one before, or its hash is another")
            key = self._trusted.get(str(one["key_id"]))
            if key is None or not key.verifies_head(base64.b64decode(one["signature"] or ""), found):
                unsigned += 1
            links[found.hex()], previous = link, found
        self._say(
            not unsigned, f"{len(links)} chain entries, all signed", f"{unsigned} entries no given key has signed"
        )
        is_head = previous is not None and previous.hex() == predicate["head"]
        self._say(is_head, f"head {predicate['head']}", "the head is not that of the last entry")
        return links

    def _opening(self, what: str, opened: Mapping[str, Any], links: Mapping[str, Link]) -> None:
        link = links.get(opened["hash"])
        holds = link is not None and commit(bytes.fromhex(opened["nonce"]), opened["facts"]) == link.commitment
        self._say(holds, f"the {what} is what its entry commits to", f"the {what} is not what its entry commits to")

    def _judgement(self, test_set: Mapping[str, Any], ledger: Mapping[str, Any], symbol: str) -> None:
        """Recompute level and verdict."""
        self.attested.append("the test set: its hashes, size and plan are those that the referee names")
        plan, report = test_set["plan"], ledger["report"]
        plan = plan.get("gate", plan)
        self._level(test_set, plan, ledger, report)
        if "clauses" not in report:
            self.attested.append(f"FAIL without a test: {report.get('failure') or report.get('error')}")
            self._say(report["symbol"] == "fail", "no test, no pass", "a pass without a test")
        elif plan.get("sampling", "fixed") != "fixed":
            self.attested.append("the verdict: it was found by early stopping, which counts do not tell again")
        else:
            self._verdict(plan, ledger, report)
        expected = "withheld" if plan["adaptivity"] == "none" else report["symbol"]
        self._say(symbol == expected, f"released: {symbol}", f"{symbol!r} was released, the mode says {expected!r}")

    def _level(self, test_set: Any, plan: Any, ledger: Any, report: Any) -> None:
        if test_set["purpose"] == "joint":
            self.attested.append("the level: gate and meter share the set, so it follows from all its answers")
            return
        level = level_of_test(
            reliability=plan["reliability"],
            adaptivity=plan["adaptivity"],
            steps=plan["steps"],
            mode=plan["mode"],
            estimator=plan["estimator"],
            changes=report["changes_before"],
            other_conditions=plan.get("other_conditions", 0),
        ).log_level
        said = ledger["log_level"]
        holds = math.isclose(level, said, rel_tol=_CLOSE)
        self._say(holds, f"level exp({said:.6f})", f"the plan gives the level exp({level:.6f}), not exp({said:.6f})")

    def _verdict(self, plan: Any, ledger: Any, report: Any) -> None:
        mode, slices = plan["mode"], report.get("slices") or {}
        sources = dict(plan.get("slices") or ())
        conditions = [(report["condition"], report), *((sources[name], part) for name, part in slices.items())]
        try:
            decided = [
                decide(
                    parse_condition(source),
                    _outcomes(part),
                    log_level=ledger["log_level"],
                    mode=mode,
                    conditions=len(conditions),
                )
                for source, part in conditions
            ]
        except EasemlError as error:
            self.faults.append(f"the counts cannot be judged: {error}")
            return
        verdict = conjunction([one.verdict for one in decided])
        passed = is_released(verdict, decided[0].mode)
        said = (report["verdict"], report["passed"], report["symbol"])
        holds = said == (verdict.value, passed, "pass" if passed else "fail")
        counts = f"{report['wins']} wins, {report['losses']} losses of {report['examples']:,}"
        self._say(
            holds, f"{verdict.value} from {counts}", f"the counts give {verdict.value}, the report says {said[0]}"
        )


def _outcomes(part: Mapping[str, Any]) -> Outcomes:
    return Outcomes(
        examples=part["examples"],
        wins=part["wins"],
        losses=part["losses"],
        new_correct=part["new_correct"],
        old_correct=part["old_correct"],
        disagreements=part["disagreements"],
        judged=part.get("judged"),  # absent from verdicts that came before it
    )


def _link(found: Mapping[str, Any]) -> Link:
    return Link(
        found["chain"],
        found["kind"],
        found["subject"],
        datetime.fromisoformat(found["at"]),
        bytes.fromhex(found["previous"]),
        bytes.fromhex(found["commitment"]),
    )
