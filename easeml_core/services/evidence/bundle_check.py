"""Check a bundle without any database: its signature, its part of the chain, and the verdict itself.

A full bundle has the set's chain from its beginning, which states the set. The level is recomputed from the plan
(``stats/adaptivity.py``) or from earlier answers (``meter/shared_ledger.py``), of which none can be left out, and the
verdict from the counts (``gate/decision.py``). Facts that a bundle does not hold are reported as attested only: set and
earlier answers in bundles of an earlier version, and under early stopping the counts before the last look.
"""

from __future__ import annotations

import base64
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

from easeml_core.errors import EasemlError, InvalidInputError
from easeml_core.formats.attestation import FIRST, Link, commit, open_envelope
from easeml_core.formats.encoding import typed_record
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import conjunction, decide_counts, is_released
from easeml_core.gate.early_stopping import Looks
from easeml_core.gate.exact_sizes import can_sample, labels_of_submission
from easeml_core.gate.judge import judge_looks_of_submission
from easeml_core.gate.outcomes import Outcomes
from easeml_core.meter.shared_ledger import gate_log_level, joint_plan
from easeml_core.services.evidence.bundle import FULL, REDACTED, follows_from_earlier
from easeml_core.settings.config import JointConfig
from easeml_core.stats.adaptivity import level_of_test
from easeml_core.stats.paired_differing import Differing
from easeml_core.store.tables.chained_rows import GENESIS, LEDGER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.entities import JsonObject
    from easeml_core.formats.attestation import PublicKey
    from easeml_core.gate.condition import Condition

_CLOSE = 1e-9
"""Relative difference that another processor may compute in the logarithm of a level."""


@typed_record
class Checked:
    """The result of checking a bundle.

    Attributes:
        holds: Whether there is no fault.
        symbol: What was released.
        kind: ``full`` or ``redacted``.
        checks: One line for each check that holds.
        attested: Facts that rest on the signature alone.
        faults: Checks that fail; empty for a good bundle.
    """

    holds: bool
    symbol: str
    kind: str
    checks: tuple[str, ...]
    attested: tuple[str, ...]
    faults: tuple[str, ...]


def check_bundle(envelope: Any, keys: Sequence[PublicKey]) -> Checked:
    """Check a bundle."""
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
    return Checked(not work.faults, symbol, kind, tuple(work.checks), tuple(work.attested), tuple(work.faults))


class _Work:
    """One pass over a bundle."""

    def __init__(self, trusted: Mapping[str, PublicKey]) -> None:
        self._trusted = trusted
        self.checks: list[str] = ["a trusted key has signed the bundle"]
        self.attested: list[str] = []
        self.faults: list[str] = []

    def _say(self, holds: bool, what: str, otherwise: str) -> None:
        (self.checks if holds else self.faults).append(what if holds else otherwise)

    def check(self, found: JsonObject, kind: str) -> None:
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
        self._judgement(predicate, symbol, hashes)

    def _chain(self, predicate: JsonObject) -> dict[str, Link]:
        """The links by their hash; each names the one before, and a trusted key has signed it."""
        links: dict[str, Link] = {}
        previous: bytes | None = None
        unsigned = wrong = 0
        for one in predicate["chain"]:
            link = _link(one["link"])
            found = link.hash()
            if found.hex() != one["hash"] or (previous is not None and link.previous != previous):
                self.faults.append(f"entry {one['hash'][:16]} does not follow the one before, or its hash is another")
            key = self._trusted.get(str(one["key_id"]))
            if one["signature"] is None and len(links) == unsigned:  # signed entries after them vouch for them
                unsigned += 1
            elif key is None or not key.verifies_head(base64.b64decode(one["signature"] or ""), found):
                wrong += 1
            links[found.hex()], previous = link, found
        begins = f" but the first {unsigned}, which a signed one follows" if unsigned else ""
        self._say(
            not wrong and unsigned < len(links),
            f"{len(links)} chain entries, all signed{begins}",
            f"{wrong or unsigned} entries no given key has signed",
        )
        is_head = previous is not None and previous.hex() == predicate["head"]
        self._say(is_head, f"head {predicate['head']}", "the head is not that of the last entry")
        return links

    def _opening(self, what: str, opened: JsonObject, links: Mapping[str, Link]) -> None:
        holds = _is_opened(opened, links)
        self._say(holds, f"the {what} is what its entry commits to", f"the {what} is not what its entry commits to")

    def _judgement(self, predicate: JsonObject, symbol: str, links: Mapping[str, Link]) -> None:
        """Recompute level and verdict."""
        self._set(predicate, links)
        test_set, ledger = predicate["test_set"], predicate["ledger"]["facts"]
        plan, report = test_set["plan"], ledger["report"]
        plan = plan.get("gate", plan)
        earlier = self._earlier(predicate, links) if follows_from_earlier(test_set) else None
        self._level(test_set, plan, ledger, report, earlier)
        if "clauses" in report:
            self._question(plan, ledger, report)
        if "clauses" not in report:
            self.attested.append(f"FAIL without a test: {report.get('failure') or report.get('error')}")
            self._say(report["symbol"] == "fail", "no test, no pass", "a pass without a test")
        elif plan.get("sampling", "fixed") != "fixed" and "looks" not in predicate:
            self.attested.append(
                "the verdict: it was found by early stopping, and the bundle lacks the counts of its looks"
            )
        elif plan.get("sampling", "fixed") != "fixed":
            self._early(plan, ledger, report, [Looks.from_json(one) for one in predicate["looks"]])
        else:
            self._verdict(plan, ledger, report, on_demand=test_set["labels_on_demand"])
        expected = "withheld" if plan["adaptivity"] == "none" else report["symbol"]
        self._say(symbol == expected, f"released: {symbol}", f"{symbol!r} was released, the mode says {expected!r}")

    def _question(self, plan: Any, ledger: Any, report: Any) -> None:
        """Check that the question is the one sealed with the set: its condition, on the set and on each slice."""
        asked, sealed = report["condition"], plan["condition"]
        if ledger["system"] == "other":
            self._say(
                asked != sealed,
                f"the answer is about another condition than the set's, {asked}: no ground for a promotion",
                f"the ledger counts the set's own condition {sealed} among the others",
            )
        else:
            self._say(asked == sealed, f"condition {sealed}", f"the set was sealed for {sealed}, judged was {asked}")
        named, judged = sorted(name for name, _ in plan.get("slices") or ()), sorted(report.get("slices") or ())
        if named != judged:
            self.faults.append(f"the plan has the slices {named}, judged were {judged}")

    def _set(self, predicate: JsonObject, links: Mapping[str, Link]) -> None:
        """The set is the one that its chain begins with; bundles of an earlier version do not hold that beginning."""
        if "genesis" not in predicate:
            self.attested.append("the test set: its hashes, size and plan are those that the referee names")
            return
        genesis, first = predicate["genesis"], next(iter(links.values()))
        is_first = first.previous == FIRST and first.kind == GENESIS and first.hash().hex() == genesis["hash"]
        self._say(
            is_first and _is_opened(genesis, links) and genesis["facts"].get("set") == predicate["test_set"],
            "the test set, its plan and its hashes are those that its chain begins with",
            "the test set is not the one that its chain begins with",
        )

    def _earlier(self, predicate: JsonObject, links: Mapping[str, Link]) -> list[JsonObject] | None:
        """The answers before this one; None where the bundle does not hold them, or not all of them.

        None can be left out where the chain is complete: each entry about an answer must be opened. A chain of an
        earlier ledger begins with the hashes of the answers so far.
        """
        if "earlier" not in predicate or predicate["genesis"]["facts"].get("rows", {}).get(LEDGER):
            return None
        opened, own = predicate["earlier"], predicate["ledger"]["hash"]
        answers = [found for found, link in links.items() if link.kind == LEDGER and found != own]
        self._say(
            [one["hash"] for one in opened] == answers and all(_is_opened(one, links) for one in opened),
            f"{len(opened)} answers before it, all that the chain has",
            "the answers before it are not all those of the chain",
        )
        return [one["facts"] for one in opened]

    def _level(self, test_set: Any, plan: Any, ledger: Any, report: Any, earlier: Sequence[JsonObject] | None) -> None:
        is_joint, said = test_set["purpose"] == "joint", ledger["log_level"]
        if is_joint and earlier is None:
            self.attested.append("the level: gate and meter share the set, so it follows from all answers before it")
            return
        if is_joint:
            weight = math.fsum(one["log_cost"] for one in earlier or ())
            level = gate_log_level(joint_plan(JointConfig.from_json(test_set["plan"])), weight)
        else:
            changes = report["changes_before"]
            if earlier is not None:
                counted = sum(1 for one in earlier if one["system"] == "gate" and one["is_change"])
                self._say(
                    counted == changes,
                    f"{counted} changes before it",
                    f"the answers before it have {counted} changes, the report says {changes}",
                )
            elif follows_from_earlier(test_set):
                self.attested.append(f"the changes before it, {changes}, from which the level follows")
            level = level_of_test(
                reliability=plan["reliability"],
                adaptivity=plan["adaptivity"],
                steps=plan["steps"],
                mode=plan["mode"],
                estimator=plan["estimator"],
                changes=changes,
                other_conditions=plan.get("other_conditions", 0),
            ).log_level
        holds = math.isclose(level, said, rel_tol=_CLOSE)
        self._say(holds, f"level exp({said:.6f})", f"the plan gives the level exp({level:.6f}), not exp({said:.6f})")

    def _early(self, plan: Any, ledger: Any, report: Any, looks: Sequence[Looks]) -> None:
        """Judge each condition again at every look; the last look must be that of the report."""
        slices, sources = report.get("slices") or {}, dict(plan.get("slices") or ())
        reports = [report, *slices.values()]
        conditions = [parse_condition(source) for source in (report["condition"], *(sources[name] for name in slices))]
        rules = {"log_level": ledger["log_level"], "mode": plan["mode"], "power": plan.get("power")}
        try:
            parts, verdict, passed = judge_looks_of_submission(conditions, looks, **rules)
        except EasemlError as error:
            self.faults.append(f"the counts of the looks cannot be judged: {error}")
            return
        ends = [(one.examples, one.wins, one.losses) for one in parts]
        said = [(one["examples"], one["wins"], one["losses"]) for one in reports]
        is_same = all(end == counts for end, counts in zip(ends, said, strict=True) if end[0] is not None)
        self._say(
            is_same,
            "the last look counts what the report does",
            "the last look does not count what the report says: it is about other labels or predictions",
        )
        holds = (report["verdict"], report["passed"]) == (verdict.value, passed)
        holds = holds and report["symbol"] == ("pass" if passed else "fail")
        self.attested.append("the counts of the looks before the last: the chain commits to those of the last alone")
        counts = f"{report['examples']:,} examples at {len(looks[0].moments):,} looks"
        self._say(
            holds,
            f"{verdict.value} from {counts}",
            f"the looks give {verdict.value}, the report says {report['verdict']}",
        )

    def _counted(self, condition: Condition, part: JsonObject, *, on_demand: bool, **rules: Any) -> None:
        """Check how many disagreements are counted: it follows from the predictions. Earlier versions count all."""
        if "judged" not in part:
            return
        expected = None
        if on_demand and can_sample(condition):
            expected = labels_of_submission(condition, Differing(part["disagreements"], part["examples"]), **rules)
        if part["judged"] != expected:
            said = ("all" if count is None else f"the first {count:,}" for count in (part["judged"], expected))
            self.faults.append("the verdict counts {} disagreements, by the predictions it is {}".format(*said))

    def _verdict(self, plan: Any, ledger: Any, report: Any, *, on_demand: bool) -> None:
        mode, slices = plan["mode"], report.get("slices") or {}
        sources = dict(plan.get("slices") or ())
        conditions = [(report["condition"], report), *((sources[name], part) for name, part in slices.items())]
        for source, part in conditions:
            rules = {"log_level": ledger["log_level"], "mode": mode, "power": plan.get("power")}
            self._counted(parse_condition(source), part, on_demand=on_demand, **rules, conditions=len(conditions))
        try:
            decided = [
                decide_counts(
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


def _is_opened(opened: JsonObject, links: Mapping[str, Link]) -> bool:
    """Whether facts and nonce are those that an entry of the chain commits to."""
    link = links.get(opened["hash"])
    return link is not None and commit(bytes.fromhex(opened["nonce"]), opened["facts"]) == link.commitment


def _outcomes(part: JsonObject) -> Outcomes:
    return Outcomes(
        examples=part["examples"],
        wins=part["wins"],
        losses=part["losses"],
        new_correct=part["new_correct"],
        old_correct=part["old_correct"],
        disagreements=part["disagreements"],
        judged=part.get("judged"),  # absent from verdicts that came before it
    )


def _link(found: JsonObject) -> Link:
    return Link(
        found["chain"],
        found["kind"],
        found["subject"],
        datetime.fromisoformat(found["at"]),
        bytes.fromhex(found["previous"]),
        bytes.fromhex(found["commitment"]),
    )
