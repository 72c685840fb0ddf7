"""The protocol of requests, claims, ledger, answers and promotions, checked statement by statement.

Three actors with separate connections, those who ask and two referees, are interleaved at any statement and commit,
lose their connections and their leases anywhere. After each step the committed state must be one that may be; in the
end every request has one answer, whatever happened, and the same one as if only one referee had ever been there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import fault_checks
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from property_sizes import examples
from stepped import Actor

from easeml_core.errors import ConcurrentUpdateError, StateError, StoreUnavailableError
from easeml_core.models.formats import load_predictor
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.models.promotion import MOVES
from easeml_core.services.referee.dispatch import RUNS
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request, file_promotion

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

ALWAYS = (
    "an answer of gate or meter that was not decided",
    "a verdict without its answer, or the reverse",
    "a promotion without its answer, or the reverse",
    "a promotion that rests on no pass",
    "production is not what was promoted last",
    "steps of a set that are not 1 to their number",
    "a question that was counted twice",
    "a set that was asked more often than planned",
    "a promotion that is not in the audit once",
    "a seal without its study's state, or the reverse",
)
"""What holds in every committed state, not only in the end."""

NEVER = " UNION ALL ".join(
    f"(SELECT '{what.replace(chr(39), chr(39) * 2)}' FROM ({fault_checks.NEVER[what]}) x)" for what in ALWAYS
)
PEOPLE, REFEREES = 0, (1, 2)
MODELS = ("good", "worse", "rare")
QUESTIONS = [("gate", model) for model in MODELS] + [("meter", "good"), ("promote", "good"), ("promote", "rare")]
LAPSE = """UPDATE sealed.referees SET beat_at = started_at, until = started_at
WHERE id IN (SELECT id FROM sealed.referees FOR UPDATE SKIP LOCKED)"""
"""An actor may stand in the middle of a heartbeat."""

SPENT = "has no live gate set"
"""Three verdicts are all that the set gives."""

EXPECTED_ERRORS = (StoreUnavailableError, ConcurrentUpdateError, StateError)


class Protocol(RuleBasedStateMachine):
    """Over a fresh copy of the laboratory each; a subclass says from where."""

    make_lab: ClassVar[Callable[[], Any]]

    def __init__(self) -> None:
        super().__init__()
        self.lab = type(self).make_lab()
        self.administrator = self.lab.server.connect(database=self.lab.name)
        roles = ("easeml_worker", "easeml_referee", "easeml_referee")
        self.actors = [Actor(self.lab.url(role), self.administrator) for role in roles]
        self.referees = {n: Referee(self.actors[n].store, self.lab.artifacts) for n in REFEREES}
        self.filed: dict[str, int] = {}
        self.asked: dict[str, tuple[str, str]] = {}
        self.answers: dict[int, tuple[bool, str]] = {}
        for question in QUESTIONS[:4]:  # something to do from the first step on
            key = self._key(*question, 1)
            self.asked[key], self.filed[key] = question, self._file(*question, 1, self.lab.worker)[1]

        for number in REFEREES:
            self.begin(number, "decide")

    # -- what they do --------------------------------------------------------------------------------------------------

    @rule(question=st.sampled_from(QUESTIONS), number=st.integers(1, 2))
    def ask(self, question: tuple[str, str], number: int) -> None:
        """The same key may ask again, after an error or after an answer."""
        if not self.actors[PEOPLE].is_idle:
            return
        store = self.actors[PEOPLE].store
        self.asked[self._key(*question, number)] = question
        self.actors[PEOPLE].begin(lambda: self._file(*question, number, store))
        self._hear(PEOPLE)

    def _key(self, kind: str, model: str, number: int) -> str:
        return f"{kind}/{model}/{number}"

    def _file(self, kind: str, model: str, number: int, store: Any) -> tuple[str, int]:
        key = self._key(kind, model, number)
        asked: dict[str, Any] = {"study": "full", "model_id": self.lab.models["full"][model], "request_key": key}
        if kind == "promote":
            asked["gate_request_id"] = self.filed[self._key("gate", model, 1)]
        file = {"gate": file_gate_request, "meter": file_meter_request, "promote": file_promotion}[kind]
        return key, file(store, **asked)

    @rule(
        number=st.sampled_from(REFEREES), work=st.sampled_from(["decide", "decide", "decide", "move", "leave", "beat"])
    )
    def begin(self, number: int, work: str) -> None:
        actor, referee = self.actors[number], self.referees[number]
        if actor.is_idle:
            actor.begin(
                {
                    "decide": lambda: referee.answer_one(RUNS),
                    "move": lambda: referee.answer_one(tuple(MOVES)),
                    "leave": referee.release_one,
                    "beat": lambda: referee._lease._extend(20.0),
                }[work]
            )
            self._hear(number)

    @rule(order=st.permutations((PEOPLE, *REFEREES)), counts=st.tuples(*[st.sampled_from([7, 40, 20, 3, 1])] * 3))
    def step(self, order: list[int], counts: tuple[int, ...]) -> None:
        for number, count in zip(order, counts, strict=True):
            self.actors[number].step(count)
            self._hear(number)

    @rule(number=st.sampled_from((PEOPLE, *REFEREES)), chance=st.integers(0, 3))
    def lose(self, number: int, chance: int) -> None:
        """Lose the connection, where it stands."""
        if chance == 3:
            self.actors[number].lose()
            self._hear(number)

    @rule()
    def lapse(self) -> None:
        """All leases of referees are over: each may take what the other has claimed."""
        self._administer(LAPSE)

    @rule(number=st.sampled_from(REFEREES))
    def restart(self, number: int) -> None:
        """A referee that stands nowhere is another process from now on."""
        if self.actors[number].is_idle:
            self.referees[number] = Referee(self.actors[number].store, self.lab.artifacts)

    def _hear(self, number: int) -> None:
        outcome, actor = self.actors[number].outcome, self.actors[number]
        if not actor.is_idle or outcome is None:
            return
        actor.outcome = None
        if isinstance(outcome, Exception):
            assert isinstance(outcome, EXPECTED_ERRORS), outcome
        elif number == PEOPLE:
            key, request_id = outcome
            assert self.filed.setdefault(key, request_id) == request_id  # the same key, the same request

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def the_committed_state_may_be(self) -> None:
        assert self._administer(NEVER) == []

    @invariant()
    def no_answer_changes(self) -> None:
        found = {
            r: (refused, said)
            for r, refused, said in self._administer("SELECT request_id, refused, message FROM work.answers")
        }
        assert self.answers.items() <= found.items()
        self.answers = found

    def _administer(self, sql: str) -> list[Any]:
        with self.administrator.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor) if cursor.description else []

    def teardown(self) -> None:
        try:
            self._end()
        finally:
            for actor in self.actors:
                actor.close()
            self.administrator.close()
            self.lab.end()

    def _end(self) -> None:
        """Let all go on to their ends; then one referee answers what is left."""
        for actor in self.actors:
            if not actor.is_idle:
                actor.finish()
        for number, actor in enumerate(self.actors):
            actor.join()
            self._hear(number)
        self._administer(LAPSE)
        self._administer("UPDATE sealed.put_offs SET until = put_off_at + interval '1 ms' WHERE until > now()")
        last = Referee(self.lab.referee, self.lab.artifacts)
        while last.answer_one() is not None or last.release_one() is not None:
            pass
        self.the_committed_state_may_be()
        self.no_answer_changes()
        counted = set[tuple[str, str]]()
        for key, request_id in self.filed.items():
            answer = answer_of(self.lab.worker, request_id)
            assert answer is not None, key
            if self.asked[key][0] != "promote":
                assert not answer.refused or SPENT in answer.message, (key, answer)
                counted |= set() if answer.refused else {self.asked[key]}
        assert self._administer("SELECT count(*) FROM sealed.ledger") == [(len(counted),)]  # each question once


def predict_here(path: Any, kind: str, inputs: Any, **_: Any) -> Any:
    """Predict in this process: no child is waited for."""
    return load_predictor(path, kind).predict(inputs)


def test_any_interleaving_of_statements_keeps_the_protocol(make_lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_runs, "predict_in_child", predict_here)
    run_state_machine_as_test(
        type("HereAndNow", (Protocol,), {"make_lab": staticmethod(make_lab)}),
        settings=settings(
            max_examples=examples(32, least=10),
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
