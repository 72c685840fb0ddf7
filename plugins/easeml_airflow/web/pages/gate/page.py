"""The referee's gate page: verdicts, the life of the sealed set, and the size of the next one.

Sealed facts are read as ``easeml_referee`` and shown to referees only. The services decide on changes: a promotion
needs a recorded pass, and one without goes through the DAG where a referee has to approve.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request

from easeml_airflow import settings
from easeml_airflow.web.components.action_items import Need, accept_alert, gate_alerts
from easeml_airflow.web.components.test_sets import (
    acts_of,
    called,
    ledger_file,
    release_set,
    retire_set,
    track_of,
    whole_ledger,
)
from easeml_airflow.web.pages.gate.planner import JOINT, joint_settings, joint_view, planner_of, selftest_command
from easeml_airflow.web.pages.gate.sizes import Asked
from easeml_airflow.web.pages.gate.verdict import TRUTH, VerdictView, verdict_view
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.formats import VERDICTS, Mark, power_text, sentence_case
from easeml_airflow.web.server.site import Reason, Tab, desk_path, moved, path_of_study
from easeml_core.entities import Adaptivity, SealedSetState, Symbol, Verdict
from easeml_core.errors import counted
from easeml_core.services.referee.requests import file_promotion, file_rollback
from easeml_core.services.reports.gate import MOST, GateNeed, gate_ledger, gate_report
from easeml_core.services.test_sets.answers import gate_settings, joint_config
from easeml_core.services.test_sets.lifecycle import WHY, plan_test_set
from easeml_core.services.test_sets.planning import set_purposes, study_plan
from easeml_core.settings.config import GateConfig, JointConfig, parse_adaptivity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from fastapi.responses import RedirectResponse, Response

    from easeml_airflow.web.server.site import Site
    from easeml_core.entities import Study
    from easeml_core.services.reports.gate import GateReport, GateSet, NamedEntry
    from easeml_core.services.reports.submissions import Production


WAITS = Mark("idle", "wait", "waits")
_MOST_SETS = 20


@dataclass(frozen=True, slots=True)
class SymbolView:
    """One submission in the row of symbols; ``href`` is empty for one that waits."""

    number: int | None
    mark: Mark
    href: str
    is_shown: bool


@dataclass(frozen=True, slots=True)
class SetRow:
    """One sealed set.

    Attributes:
        id: Its number.
        name: What people call it.
        is_shown: Whether the page is about it.
        state: Where in its life it is.
        track: Its life: word, and ``was``, ``is`` or ``later``.
        steps: Used and all.
        used_percent: Of the steps, 0 to 100.
        passes: Answers that were changes, and how many end it.
        reach: What the next verdict needs.
        is_short: Whether the set has fewer examples than that.
        examples: In the set; of a planned one, how many are needed.
        ended: By what.
        acts: What a referee can do with it, as of ``acts_of``.
    """

    id: int
    name: str
    is_shown: bool
    state: str
    track: Sequence[tuple[str, str]]
    steps: str
    used_percent: int
    passes: str
    reach: str
    is_short: bool
    examples: str
    ended: str
    acts: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One entry of the ledger; ``cost`` is by how many nats it lowers the level of all later answers."""

    asked_by: str
    decided_at: datetime
    possible: str
    cost: str
    level: str
    mark: Mark
    released: str
    answered_at: datetime | None


@dataclass(frozen=True, slots=True)
class GateView:
    """All that the page says but for the planner.

    Attributes:
        badge: The state of the live set.
        now: What is going on: in bold, then the rest.
        needs: What waits for a person, worst first.
        symbols: The submissions on the set, oldest first.
        verdict: The one that is looked at, or None.
        developer: What the developer has of it: a mark, and whether it has left.
        promote: ``(model, gate request)`` that may be promoted, or None.
        production: What stands, and what stood before.
        sets: The sealed sets.
        set_name: Of the set that the page is about; empty without one.
        set_id: Its number.
        ledger: Entries, newest first.
        ledger_total: How many there are.
        selftest: Command that tries the plan of the set out, where it is live; else empty.
    """

    badge: Mark
    now: tuple[str, str]
    needs: Sequence[Need]
    symbols: Sequence[SymbolView]
    verdict: VerdictView | None
    developer: tuple[Mark, bool]
    promote: tuple[int, int] | None
    production: Production
    sets: Sequence[SetRow]
    set_name: str
    set_id: int | None
    ledger: Sequence[LedgerRow]
    ledger_total: int
    selftest: str


def gate_view(facts: GateReport, *, study: str, path: str) -> GateView:
    """The view."""
    chosen, live, entry, promotable = facts.chosen, facts.live, facts.verdict, facts.promotable
    settled = facts.wanted.settled if chosen is not None and chosen is live else 0
    return GateView(
        badge=_badge(live),
        now=(_lead(facts), _rest(facts, live)) if live else (_without(facts.sets), _lead(facts)),
        needs=[_need(need, facts, desk=desk_path(study), plan=f"{path}#plan") for need in facts.needs()],
        symbols=_symbols(facts, path),
        verdict=None if entry is None else verdict_view(entry, settled_conflicts=settled),
        developer=_developer(entry),
        promote=None if promotable is None else (int(promotable.model_id or 0), promotable.request_id),
        production=facts.production,
        sets=[_set_row(s, is_shown=s is chosen) for s in facts.sets[:_MOST_SETS]],
        set_name="" if chosen is None else _name(chosen),
        set_id=None if chosen is None else chosen.test_set_id,
        ledger=[ledger_row(e) for e in facts.ledger],
        ledger_total=facts.ledger_total,
        selftest=_selftest(chosen),
    )


def _name(found: GateSet) -> str:
    return called(found.name, found.test_set_id)


def _selftest(chosen: GateSet | None) -> str:
    if chosen is None or chosen.state is not SealedSetState.LIVE:
        return ""
    return selftest_command(gate_settings(chosen), chosen.rows)


def _badge(live: GateSet | None) -> Mark:
    if live is None:
        return Mark("warn", "alert", "No set live")
    name = _name(live)
    return Mark("busy", "lock", f"{sentence_case(name)} live")


def _without(sets: Sequence[GateSet]) -> str:
    """What to do where no set is live."""
    lead = "No gate set is live, so no model is judged"
    by_state = {found.state: _name(found) for found in reversed(sets)}
    if SealedSetState.SEALED in by_state:
        return f"{lead}: {by_state[SealedSetState.SEALED]} waits until the set that the meter draws on is retired."
    if SealedSetState.PLANNED in by_state:
        planned = by_state[SealedSetState.PLANNED]
        return f"{lead}: bring the examples of {planned}, which is planned, and seal them."
    return f"{lead}: plan a set below, and seal examples under its name."


def _lead(facts: GateReport) -> str:
    newest = facts.symbols[-1] if facts.symbols else None
    if newest is None:
        return f"The gate has judged no submission{' on this set' if facts.chosen else ''} yet."
    who = f"Submission {newest.number}"
    if newest.released == Symbol.WITHHELD:
        return f"{who} was judged {_truth(newest).word}; the verdict is withheld from developers."
    if newest.released != Symbol.PASS:
        return f"{who} did not pass."
    stands = facts.production.now
    is_there = stands is not None and stands.model_id == newest.model_id
    return f"{who} passed{' and runs in production' if is_there else ''}."


def _rest(facts: GateReport, live: GateSet) -> str:
    used, passes = live.gate, counted(live.passes, "pass", "passes")
    words = [f"The live set has served {used.steps_used:,} of {used.steps:,} steps and {passes}."]
    for request in facts.waiting[:3]:
        why = "waits for the referee"
        if request.labels:
            why = f"waits for {counted(request.labels, 'label')}"
        elif request.decided:
            why = "is decided, its answer leaves later"
        words.append(f"Submission {request.number} {why}.")
    return " ".join(words)


def _need(need: GateNeed, facts: GateReport, *, desk: str, plan: str) -> Need:
    """Return a need with its link: to the labelling desk, or to the planner."""
    title, why, shape = _need_words(need, facts)
    at_desk = need in (GateNeed.LABELS, GateNeed.CONFLICTS, GateNeed.UNSURE)
    return Need(
        title=title,
        why=why,
        colour="bad" if need is GateNeed.NO_LIVE_SET else "warn",
        shape=shape,
        age="",
        href=desk if at_desk else plan,
        act="Open desk" if at_desk else "Plan a set",
    )


def _need_words(need: GateNeed, facts: GateReport) -> tuple[str, str, str]:
    """Title, reason, and shape of the sign."""
    planned, live, wanted = facts.planned, facts.live, facts.wanted
    if need is GateNeed.LABELS:
        asking = [r.number for r in facts.waiting if r.labels]
        for_whom = f" for submission {asking[0]}" if asking else ""
        return f"{counted(wanted.labels, 'label')} wanted{for_whom}", "The verdict waits until they are given.", "tag"
    if need is GateNeed.CONFLICTS:
        title = f"{counted(wanted.conflicts, 'conflict')} between labelers"
        return title, "The word of the referee settles them.", "person"
    if need is GateNeed.UNSURE:
        why = "The referee gives the label, or asks again; the verdict waits, and leaves none of them out."
        return f"{counted(wanted.unsure, 'example')} without a sure label", why, "unknown"
    if live is None:
        why = f"Seal {_name(planned)}, which is planned." if planned else "Plan the next one and seal it."
        return "No gate set is live, so the gate gives no verdict", why, "alert"
    why = f"{_name(planned)} is planned and wants its examples." if planned else "Seal the next one in time."
    if need is GateNeed.TOO_SMALL:
        return f"The live set has {live.rows:,} examples, the next verdict needs {live.needed or 0:,}", why, "alert"
    left = live.gate.steps - live.gate.steps_used
    return f"The live set has {counted(left, 'step')} left of {live.gate.steps:,}", why, "alert"


def _symbols(facts: GateReport, path: str) -> list[SymbolView]:
    shown = facts.verdict.request_id if facts.verdict else None
    set_id = "" if facts.chosen is None else facts.chosen.test_set_id
    found = [
        SymbolView(
            number=entry.number,
            mark=_symbol(entry),
            href=f"{path}?set={set_id}&submission={entry.number}",
            is_shown=entry.request_id == shown,
        )
        for entry in facts.symbols
    ]
    return [*found, *(SymbolView(r.number, WAITS, "", is_shown=False) for r in facts.waiting[:10])]


def _truth(entry: NamedEntry) -> Mark:
    return TRUTH[entry.judgement.verdict or Verdict.UNKNOWN]


def _symbol(entry: NamedEntry) -> Mark:
    """Pass, fail or unknown: what the evidence says and the mode makes of it."""
    if entry.verdict == Verdict.UNKNOWN:
        return Mark("warn", "unknown", "unknown")
    return Mark(*VERDICTS[Symbol.PASS if entry.verdict == Verdict.PASS else Symbol.FAIL])


def _developer(entry: NamedEntry | None) -> tuple[Mark, bool]:
    if entry is None:
        return Mark("idle", "lock", "No verdict yet"), False
    if entry.answered_at is None:
        return Mark("idle", "wait", "Answer leaves later"), False
    if entry.released == Symbol.WITHHELD:
        return Mark("idle", "lock", "Handed in"), True
    return Mark(*VERDICTS[Symbol(entry.released)]), True


def _set_row(found: GateSet, *, is_shown: bool) -> SetRow:
    used, is_planned = found.gate, found.state == SealedSetState.PLANNED
    needed = found.needed
    return SetRow(
        id=found.test_set_id,
        name=_name(found),
        is_shown=is_shown,
        state=found.state,
        track=track_of(found.state),
        steps=f"{used.steps:,} planned" if is_planned else f"{used.steps_used:,} of {used.steps:,}",
        used_percent=round(100 * used.steps_used / used.steps),
        passes=_passes(found),
        reach="" if needed is None else f"needs {needed:,}",
        is_short=found.is_too_small,
        examples=f"{found.rows:,}{' needed' if is_planned else ''}",
        ended=WHY.get(found.retired_why or "", ""),
        acts=acts_of(found.state, rows=found.rows, systems=found.systems),
    )


def _passes(found: GateSet) -> str:
    kind, cap = parse_adaptivity(gate_settings(found).adaptivity)
    cap = 1 if kind is Adaptivity.FIRST_CHANGE else cap
    return f"{found.passes:,}" + (f" of {cap:,}" if cap else "")


def ledger_row(entry: NamedEntry) -> LedgerRow:
    """One entry for people."""
    is_gate = entry.system == "gate"
    withheld = entry.released == Symbol.WITHHELD
    released = "nothing" if withheld else entry.released
    return LedgerRow(
        asked_by=f"{'Submission' if is_gate else 'Meter, submission'} {entry.number or ''}",
        decided_at=entry.decided_at,
        possible=("none, withheld" if withheld else "pass or fail") if is_gate else "a signal",
        cost=f"{entry.log_cost:.2f}",
        level=power_text(entry.log_level),
        mark=_truth(entry) if is_gate else Mark("idle", "done", f"signal {entry.released}"),
        released=released,
        answered_at=entry.answered_at,
    )


STUDY_TAB = Tab("/gate", "Gate", frozenset({Role.REFEREE}))
FORCING_DAG = "easeml_forced_promotion"
SHOWN = 10
"""Entries of the ledger on the page."""

Number = Annotated[int, Form()]


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/gate`` and what it changes."""
    router, known = APIRouter(prefix="/studies/{study}/gate"), Depends(site.viewer)

    def referee(viewer: Viewer = known) -> Viewer:
        viewer.require(Role.REFEREE)
        return viewer

    who = Depends(referee)

    @router.get("")
    def show(
        request: Request,
        study: str,
        submission: int | None = None,
        model: int | None = None,
        test_set: Annotated[int | None, Query(alias="set")] = None,
        entries: Annotated[int, Query(ge=1, le=MOST)] = SHOWN,
        viewer: Viewer = known,
    ) -> Response:
        if model is not None and not viewer.is_referee:  # `easeml next` links here for every user
            return moved(request, f"{path_of_study(site.study(viewer, study).name)}/submissions")
        viewer.require(Role.REFEREE)
        found = site.study(viewer, study)
        facts = gate_report(
            site.open_sealed(), study=study, limit=entries, test_set=test_set, submission=submission, model_id=model
        )
        path, asked = f"{path_of_study(study)}/gate", request.query_params
        begun, shared = _in_force(found, facts)
        plan = planner_of(begun, asked, study=found, has_set=bool(facts.sets), shared=shared)
        return site.page(
            request,
            viewer,
            "gate.html",
            study=found,
            gate=gate_view(facts, study=study, path=path),
            alerts=gate_alerts(site.open_store(), study=found.name),
            plan=plan,
            joint=joint_view(found, plan.settings) if plan.purpose == JOINT else None,
            act=path,
            request_key=str(uuid.uuid4()),
            forcing=f"{settings.base_path()}/dags/{FORCING_DAG}",
        )

    @router.get("/ledger.csv")
    def ledger(study: str, test_set: Annotated[int, Query(alias="set")], viewer: Viewer = who) -> Response:
        name = site.study(viewer, study).name
        read = partial(gate_ledger, site.open_sealed(), study=name, test_set=test_set)
        entries = whole_ledger(lambda page: read(skip=page * MOST), size=MOST)
        return ledger_file(entries, {column: column for column in _COLUMNS}, test_set=test_set)

    _changes(site, router, who)
    return router


def _changes(site: Site, router: APIRouter, who: Any) -> None:
    """The POSTs: each is one call of a service."""

    def here(request: Request, study: str) -> RedirectResponse:
        return moved(request, f"{path_of_study(study)}/gate")

    @router.post("/promote")
    def promote(
        request: Request,
        study: str,
        model: Annotated[int, Form()],
        gate_request: Annotated[int, Form()],
        request_key: Annotated[str, Form()],
        viewer: Viewer = who,
    ) -> RedirectResponse:
        name = site.study(viewer, study).name
        file_promotion(
            site.open_sealed(),
            study=name,
            model_id=model,
            gate_request_id=gate_request,
            request_key=_key(viewer, request_key),
            directly=True,
        )
        return here(request, study)

    @router.post("/rollback")
    def roll_back(
        request: Request,
        study: str,
        model: Number,
        why: Annotated[str, Form()],
        request_key: Annotated[str, Form()],
        viewer: Viewer = who,
    ) -> RedirectResponse:
        name = site.study(viewer, study).name
        key = _key(viewer, request_key)
        file_rollback(site.open_sealed(), study=name, model_id=model, why=why, request_key=key, directly=True)
        return here(request, study)

    @router.post("/plan")
    def plan(
        request: Request,
        study: str,
        name: Annotated[str, Form()],
        condition: Annotated[str, Form()],
        reliability: Annotated[float, Form()],
        steps: Annotated[int, Form()],
        adaptivity: Annotated[str, Form()],
        mode: Annotated[str, Form()],
        power: Annotated[float | None, Form()] = None,
        purpose: Annotated[str, Form()] = "gate",
        viewer: Viewer = who,
    ) -> RedirectResponse:
        whose = site.study(viewer, study).name
        given = Asked(condition, reliability, steps, adaptivity, mode, power)
        settings = joint_settings(given) if purpose == JOINT else given.settings()
        plan_test_set(site.open_sealed(), study=whose, name=name, purpose=purpose, settings=settings)
        return here(request, study)

    @router.post("/retire")
    def retire(
        request: Request, study: str, test_set: Number, reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        whose = site.study(viewer, study).name
        retire_set(site, study=whose, test_set=test_set, reason=reason)
        return here(request, study)

    @router.post("/release")
    def release(
        request: Request, study: str, test_set: Number, reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        whose = site.study(viewer, study).name
        release_set(site, study=whose, test_set=test_set, reason=reason)
        return here(request, study)

    @router.post("/accept")
    def accept(
        request: Request, study: str, alert_id: Number, reason: Reason = "", viewer: Viewer = who
    ) -> RedirectResponse:
        whose = site.study(viewer, study).name
        accept_alert(site.open_store(), study=whose, alert_id=alert_id, reason=reason)
        return here(request, study)


def _key(viewer: Viewer, key: str) -> str:
    """The request key of a form: who pressed, and the form's own, so that a second press changes nothing."""
    return f"page/{viewer.name}/{key[:100]}"


def _in_force(study: Study, facts: GateReport) -> tuple[GateConfig, float | None]:
    """What the planner begins with: the plan of the set that is looked at, else the study's settings."""
    if facts.chosen is not None:
        joint = joint_config(facts.chosen)
        return gate_settings(facts.chosen), None if joint is None else joint.reliability
    plan = study_plan(study.config, set_purposes(study.config)[0])
    if isinstance(plan, JointConfig):
        return plan.gate, plan.reliability
    return GateConfig.from_json(study.config["gate"]), None


_COLUMNS = (
    *("step", "system", "number", "model_id", "incumbent_id", "condition", "verdict", "released", "is_change"),
    *("level", "log_level", "log_cost", "request_id", "decided_at", "answered_at"),
)
"""Of the ledger as a file; headings and keys of the entries are the same."""
