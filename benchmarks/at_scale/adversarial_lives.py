"""Thousands of lives of sealed sets in the real store, with developers who choose each model by the answers so far.

Each life is a study with one live set. Requests are filed by the tasks' role and decided by the referee's code, with
its ledger, its levels and its rules for the end of a set, in PostgreSQL. Only models are not run: their predictions,
and for the meter their losses on the validation set, are put where a run would have put them. What is true of each
model is known (``adversarial_developers.py``), so a life is broken when an answer is given that the plan excludes.
Promises of .9999 could not be tested with 10,000 lives, so the plans here promise .9, for few steps: the code and the
proofs are the same.

Now and then a request is filed twice under one key, a model is handed in again, or the referee is started anew.

    python benchmarks/at_scale/adversarial_lives.py --lives 10000

It goes on after the last life in the file of results. ``--table`` prints its table, and plays nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import click
import numpy as np

from easeml_core.entities import Adaptivity, Model, SealedSetPurpose, Symbol
from easeml_core.services.evaluation.sealed_runs import Preparation
from easeml_core.services.gate import judge
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request, file_promotion
from easeml_core.stats.binomial_bounds import clopper_pearson
from easeml_core.store import schema
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
from easeml_core.store.rows import rows
from easeml_core.store.server.server import throwaway_server
from easeml_core.store.tables import labels, models, sealed, studies

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/faults"))

import made_up_installation
from adversarial_developers import DELTA, Asked, Play, Strategy, Told, is_signal_wrong, strategies
from fault_checks import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.services.referee.answers import ReadingAnswer
    from easeml_core.store.server.server import Server

RESULTS = Path(__file__).resolve().parents[1] / "results" / "adversarial_lives.jsonl"
SEED = 18
AGAIN, TWICE, RESTART = 0.1, 0.1, 0.05
"""Chances at each step: an earlier question is asked again, a request is filed twice, the referee is restarted."""

SIGNED = 10
"""One block of so many has a referee that signs, which takes as long again; what it decides is the same."""

LABELER = "labeler"

MADE_UP = (
    "seal without",
    "active study without",
    "beginning is not in the audit",
    "registration and sealing",
    "was refused",
)
"""Parts of the names of checks that do not hold of made-up studies, or of requests after the end of a set."""


@dataclass
class Installation:
    """One database of the store, for the lives of one block.

    Attributes:
        owner: Store of the owner of the schemas, who puts made-up rows into it.
        worker: Of the role that files requests.
        referee: Of the role that decides them.
        artifacts: Empty: no model is run.
        keys: Folder of the referee's key: it signs each answer and checks the chains before; or None.
        judge: The referee.
    """

    owner: Store
    worker: Store
    referee: Store
    artifacts: ArtifactStore
    keys: Path | None
    judge: Referee = field(init=False)

    def __post_init__(self) -> None:
        """Start the referee."""
        self.restart()

    def restart(self) -> None:
        """Let another referee go on."""
        self.judge = Referee(self.referee, self.artifacts, keys=self.keys, lease_seconds=3000)


@dataclass(slots=True)
class Life:
    """One set from its first answer to its end, or to that of its developer.

    Attributes:
        there: Its database.
        study: Its study.
        play: Labels and developer.
        study_id: Of the study.
        version_id: Of its data.
        set_id: Of the set.
        answers: How many were given.
        wrong: Steps at which the promise was broken, by the answers as they are in the ledger.
        faults: What the store must never do, in words.
    """

    there: Installation
    study: str
    play: Play
    study_id: int = 0
    version_id: int = 0
    set_id: int = 0
    answers: int = 0
    wrong: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _handed: dict[int, tuple[Asked, Told]] = field(default_factory=dict)
    _verdicts: dict[int, tuple[Asked, int, Symbol]] = field(default_factory=dict)
    _largest: dict[int, float] = field(default_factory=lambda: defaultdict(lambda: -math.inf))
    _numbers: int = 0

    def seal(self) -> None:
        """Seal the set, with the model that stands."""
        strategy, size = self.play.strategy, self.play.labels.size
        on_demand = strategy.attack is not None and strategy.attack.on_demand
        with self.there.referee.begin() as tx:
            self.study_id = studies.get_study(tx, self.study).id
            self.version_id = studies.latest_data_version(tx, self.study_id).id
            self.set_id = sealed.seal(
                tx,
                study_id=self.study_id,
                data_version_id=self.version_id,
                purpose=strategy.purpose,
                inputs=np.arange(size, dtype=np.float64)[:, None] + size * self.study_id,
                labels=np.full(size, -1) if on_demand else self.play.labels,
                steps=strategy.plan.steps,
                plan=strategy.plan,
                labels_on_demand=on_demand,
                slices=self.play.slices(),
            )
        self._add(np.zeros(size, dtype=np.int64), loss=0.5, is_baseline=True)

    def live(self) -> None:
        """Play it to the end."""
        asked = next(self.play.asks)
        with contextlib.suppress(StopIteration):
            while (told := self._ask(asked)) is not None:
                asked = self.play.asks.send(told)
        self._compare_verdicts()

    def _ask(self, asked: Asked) -> Told | None:
        """Hand in a model and ask; what the developer learns, None where the set has ended."""
        rng = self.play.rng
        if rng.random() < RESTART:
            self.there.restart()
        if rng.random() < AGAIN and (known := self._same_questions()):
            self._ask_again(int(rng.choice(known)))
        model_id = self._add(asked.predictions, loss=asked.loss)
        answer, request_id = self._answer(asked, model_id, twice=rng.random() < TWICE)
        if answer is None or answer.refused:
            return None
        self.answers += 1
        told = self._learnt(asked, answer, request_id)
        if told is not None:
            self._handed[model_id] = asked, told
            if self.play.strategy.promotes and told.passed and asked.excluded is None:
                self._promote(model_id, request_id)
        return told

    def _add(self, predictions: Any, *, loss: float, is_baseline: bool = False) -> int:
        """Add a model as if it had been run on the set; its id."""
        self._numbers += 1
        artifact = f"sha256:{self.study_id:032x}{self._numbers:032x}"
        with self.there.owner.begin() as tx:
            model_id = models.add_model(
                tx,
                study_id=self.study_id,
                data_version_id=self.version_id,
                trial_id=None,
                format="skops",
                artifact=artifact,
                validation_loss=loss,
                submitted=not is_baseline,
            )
            identity = Model(model_id, self.study_id, None, "skops", artifact, loss).identity
            failure = "it cannot be run" if predictions is None else None
            sealed.keep_predictions(tx, self.set_id, identity, labels=predictions, failure=failure)
        return model_id

    def _answer(self, asked: Asked, model_id: int, *, twice: bool = False) -> tuple[Any, int]:
        """File a request, and let the referee decide it; the answer, None where none is given, and its number."""
        self._numbers += 1
        filed: dict[str, Any] = {"study": self.study, "model_id": model_id}
        filed["request_key"] = f"{self.study}/{self._numbers}"
        file = file_gate_request if asked.system == "gate" else file_meter_request
        if asked.system == "meter":
            filed["team"] = asked.team
        request_id = file(self.there.worker, **filed)
        if twice and file(self.there.worker, **filed) != request_id:
            self.faults.append(f"request {request_id}: the same key gave another request")
        self.there.judge.answer_one()
        answer = answer_of(self.there.worker, request_id)
        if answer is None:
            self._label()
            self.there.judge.answer_one()
            answer = answer_of(self.there.worker, request_id)
        return answer, request_id

    def _label(self) -> None:
        """Give the labels that are wanted."""
        with self.there.referee.begin() as tx:
            given = labels.words_of(tx, self.set_id, LABELER, self.play.labels.size).copy()
            for wanted in labels.wanted_of(tx, self.set_id):
                given[wanted.positions] = self.play.labels[wanted.positions]
            labels.keep_labels(tx, self.set_id, LABELER, given)

    def _compare_verdicts(self) -> None:
        """Compare what the ledger says with what was released, and with what is true of the models."""
        with self.there.referee.begin() as tx:
            found = rows(
                tx,
                "SELECT request_id, report ->> 'symbol' FROM sealed.ledger WHERE test_set_id = :id AND system = 'gate'",
                id=self.set_id,
            )
        decided = {request_id: symbol for request_id, symbol in map(tuple, found)}
        for request_id, (asked, step, released) in self._verdicts.items():
            symbol = decided.get(request_id)
            if released not in (Symbol.WITHHELD, symbol):
                self.faults.append(f"request {request_id}: {released} was released, {symbol} was decided")
            if asked.excluded is not None and symbol == (Symbol.PASS if asked.excluded else Symbol.FAIL):
                self.wrong.append(step)

    def _learnt(self, asked: Asked, answer: Any, request_id: int) -> Told | None:
        """What the developer hears; notes where a signal breaks the promise."""
        if asked.system == "meter":
            return self._heard(asked, answer)
        self._verdicts[request_id] = asked, self.answers, answer.symbol
        return Told(passed=None if answer.symbol is Symbol.WITHHELD else answer.symbol is Symbol.PASS)

    def _heard(self, asked: Asked, answer: ReadingAnswer) -> Told | None:
        if answer.signal is None:
            return None
        gap, edges = asked.true_loss - asked.loss, tuple(answer.boundaries)
        self._largest[asked.team] = max(self._largest[asked.team], gap)
        promised = {"tolerance": answer.tolerance, "gap": gap, "largest": self._largest[asked.team]}
        if is_signal_wrong(self.play.strategy.meter, signal=answer.signal, edges=edges, **promised):
            self.wrong.append(self.answers)
        return Told(signal=answer.signal, edges=edges)

    def _same_questions(self) -> list[int]:
        """Models about which the same question can be asked again: compared with the same model as before."""
        verdicts = [number for number, (asked, _) in self._handed.items() if asked.system == "gate"]
        if self.play.strategy.promotes:
            return []
        if getattr(self.play.strategy.gate, "adaptivity", None) == Adaptivity.NONE:  # compared with the one before
            return [number for number in self._handed if number not in verdicts[:-1]]
        return list(self._handed)

    def _ask_again(self, model_id: int) -> None:
        """Ask the same question once more: the same answer, and no step of the set."""
        asked, told = self._handed[model_id]
        before = self._spent()
        answer, request_id = self._answer(asked, model_id)
        if answer.refused:
            return
        said = answer.signal if asked.system == "meter" else answer.symbol
        known = told.signal if asked.system == "meter" else _symbol(told.passed)
        if said not in (known, Symbol.WITHHELD) or not answer.cached or self._spent() != before:
            self.faults.append(f"request {request_id}: the same question was answered {said} after {known}, or counted")

    def _spent(self) -> tuple[int, float]:
        with self.there.referee.begin() as tx:
            return sealed.spent(tx, self.set_id)

    def _promote(self, model_id: int, gate_request_id: int) -> None:
        self._numbers += 1
        key = f"{self.study}/{self._numbers}"
        file_promotion(
            self.there.worker, study=self.study, model_id=model_id, gate_request_id=gate_request_id, request_key=key
        )
        self.there.judge.answer_one()


def _symbol(passed: bool | None) -> Symbol:
    return Symbol.WITHHELD if passed is None else Symbol.PASS if passed else Symbol.FAIL


def claimed_loss(_preparation: Preparation, model: Model, _data: str) -> float:
    """Take the validation loss that the life has put there for a measured one."""
    return model.validation_loss


@contextlib.contextmanager
def unpaid() -> Iterator[None]:
    """Let verdicts have the level that they would have if they were withheld: the control, whose promise must break."""
    module = vars(judge)
    right = module["level_of_test"]
    module["level_of_test"] = lambda **asked: right(**asked | {"adaptivity": Adaptivity.NONE.value})
    try:
        yield
    finally:
        module["level_of_test"] = right


@contextlib.contextmanager
def store_of_block(server: Server, number: int, *, signs: bool) -> Iterator[Installation]:
    """A fresh database, gone at the end."""
    name = f"block{number}"
    server.create_database_from_template(name, "easeml")
    with contextlib.ExitStack() as stack:
        stack.callback(server.drop_database, name)
        owner, worker, referee = (
            stack.enter_context(contextlib.closing(Store(server.url(f"easeml_{role}", name))))
            for role in ("owner", "worker", "referee")
        )
        yield Installation(
            owner, worker, referee, ArtifactStore(server.place / "artifacts"), server.place / name if signs else None
        )


def broken_rows(tx: Connection, *, signs: bool) -> list[str]:
    """What the database says that must never be."""
    left_out = MADE_UP if signs else (*MADE_UP, "without its evidence")
    asked = {what: sql for what, sql in NEVER.items() if not any(part in what for part in left_out)}
    return [f"{what}: {found[:5]}" for what, sql in asked.items() if (found := [tuple(row) for row in rows(tx, sql)])]


def plan_of(lives: int, chosen: Sequence[Strategy]) -> list[int]:
    """The place of each life's strategy, evenly mixed by their shares: the first lives have about the same mixture."""
    due = np.cumsum([strategy.share for strategy in chosen])
    golden = (math.sqrt(5) - 1) / 2
    return [int(np.searchsorted(due / due[-1], (0.5 + golden * life) % 1.0)) for life in range(lives)]


def play_block(there: Installation, lives: Mapping[int, Strategy]) -> tuple[list[list[int]], list[str]]:
    """Play lives in one database.

    Returns:
        Of each life its answers and how many of them break the promise; and what the store has done wrong, in words.
    """
    with there.owner.begin() as tx:
        studies_of: dict[str, Any] = {"candidates": ["tree"], "config": {}, "trials": [], "rows": [1000] * len(lives)}
        made_up_installation.fill(tx, key="life", **studies_of)
        made_up_installation.analyse(tx)
    played, faults = [], []
    for place, (number, strategy) in enumerate(lives.items()):
        life = Life(there, f"life-{place}", Play(strategy, np.random.default_rng([SEED, number])))
        life.seal()
        with unpaid() if strategy.unpaid else contextlib.nullcontext():
            life.live()
        played.append([life.answers, len(life.wrong)])
        faults += [f"life {number}: {fault}" for fault in life.faults]
    with there.owner.begin() as tx:
        return played, faults + broken_rows(tx, signs=there.keys is not None)


def play(lives: int, block: int, results: Path, part: int, parts: int) -> None:
    """Play what is missing of so many lives, or of one part of their blocks."""
    chosen = strategies()
    plan, names = plan_of(lives, chosen), fingerprint(chosen)
    done = {line["first"] for line in read_blocks(results, names)}
    left = [first for first in range(0, lives, block) if first not in done and first // block % parts == part]
    with patch.object(Preparation, "loss", claimed_loss), throwaway_server() as server:
        server.ensure_installation()
        with contextlib.closing(Store(server.url("easeml_owner", "easeml"))) as owner:
            schema.upgrade(owner)
        for first in left:
            began = time.perf_counter(), time.process_time()
            numbers = range(first, min(first + block, lives))
            with store_of_block(server, first, signs=first // block % SIGNED == 0) as there:
                played, faults = play_block(there, {number: chosen[plan[number]] for number in numbers})
            line = {"strategies": names, "first": first, "lives": played, "faults": faults}
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
            for fault in faults:
                click.echo(f"FAULT {fault}", err=True)
            took = (time.perf_counter() - began[0]) / len(numbers), (time.process_time() - began[1]) / len(numbers)
            click.echo(
                f"lives {first} to {numbers[-1]}: {took[0]:.2f} s each, {took[1]:.2f} of the processor", err=True
            )


def fingerprint(chosen: Sequence[Strategy]) -> str:
    """Of the strategies and their plans: results of others are not theirs."""
    plans = json.dumps([[strategy.key, strategy.share, strategy.plan.to_json()] for strategy in chosen])
    return hashlib.sha256(plans.encode()).hexdigest()[:12]


def read_blocks(path: Path, names: str) -> list[dict[str, Any]]:
    """The blocks that were played, without a last line that a kill has cut.

    Raises:
        UsageError: Blocks of other strategies are in the file.
    """
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(text))
    if any(line["strategies"] != names for line in found):
        message = f"{path} has lives of other strategies than there are now; move it away, and play anew"
        raise click.UsageError(message)
    return found


def read_results(path: Path = RESULTS) -> list[dict[str, Any]]:
    """The blocks in the file of results."""
    return read_blocks(path, fingerprint(strategies()))


def table_of(blocks: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown: broken promises of each strategy, with exact bounds."""
    chosen = strategies()
    last = max((line["first"] + len(line["lives"]) for line in blocks), default=0)
    plan, sums = plan_of(last, chosen), np.zeros((len(chosen), 3), dtype=int)
    for line in blocks:
        for number, (answers, wrong) in enumerate(line["lives"], start=line["first"]):
            sums[plan[number]] += (1, answers, wrong > 0)
    names = ("set", "plan", "developer", "lives", "answers", "broken", "chance (95 %, exact)", "promised")
    found = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for strategy, counts in zip(chosen, sums.tolist(), strict=True):
        promised = None if strategy.unpaid else strategy.promised
        found.append(_row((strategy.purpose, strategy.kind, strategy.name), counts, promised))
    paid = [not strategy.unpaid for strategy in chosen]
    for purpose in SealedSetPurpose.GATE, SealedSetPurpose.METER, SealedSetPurpose.JOINT:
        mine = np.array([strategy.purpose is purpose for strategy in chosen]) & paid
        found.append(_row((f"**{purpose}**", "", "all but the controls"), sums[mine].sum(axis=0).tolist(), DELTA))
    return "\n".join(found)


def _row(names: Sequence[str], sums: Sequence[int], promised: float | None) -> str:
    lives, answers, broken = sums
    low, high = clopper_pearson(broken, lives, log_level=math.log(0.05)) if lives else (0.0, 1.0)
    shown = "nothing" if promised is None else f"{promised:.3g}"
    counts = f"{lives:,} | {answers:,} | {broken:,} | {low:.3f} to {high:.3f}"
    return f"| {' | '.join(names)} | {counts} | {shown} |"


@click.command(help=__doc__)
@click.option("--lives", default=100, show_default=True)
@click.option("--block", default=50, show_default=True, help="Lives in one database; always the same for one file.")
@click.option("--part", default=0, show_default=True, help="Of --parts: which blocks to play.")
@click.option("--parts", default=1, show_default=True, help="Processes that share the blocks.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Default: in benchmarks/results.")
@click.option("--table", "only_table", is_flag=True, help="Print the table of what was played.")
def main(lives: int, block: int, part: int, parts: int, results: Path, only_table: bool) -> None:
    """Play lives, and print the table of what was played."""
    if not only_table:
        play(lives, block, results, part, parts)
    click.echo(table_of(read_results(results)))


if __name__ == "__main__":
    main()
