"""What follows from sealed labels draws as many numbers of the server's counter of large values, whatever it says.

PostgreSQL numbers the values that it moves out of their row with the counter that ``ALTER DEFAULT PRIVILEGES`` draws
from, which every role may run.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.entities import Symbol
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.judge import Slice, judge_predictions
from easeml_core.services.gate.judge import verdict_mail
from easeml_core.store.rows import scalar
from easeml_core.store.tables import outbox, releases, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.entities import JsonObject

    Writes = Mapping[str, Callable[[Any], None]]

EXAMPLES = 1200
CONDITION = parse_condition("n - o > 0 +/- 0.1")
DRAWN = {"sealed.predictions": 2, "sealed.ledger": 2, "sealed.outbox": 2, "sealed.mails": 2}
"""The value and its filler."""


@pytest.fixture
def drawn(database: Any) -> Callable[[Writes], dict[str, int]]:
    """Write, read the counter as a worker before and after each table, and forget what was written."""

    def counter() -> int:
        with database.worker.begin() as tx:
            tx.exec_driver_sql("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO easeml_referee")
            number = scalar(tx, "SELECT oid FROM pg_default_acl WHERE defaclrole = 'easeml_worker'::regrole")
            tx.exec_driver_sql("ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM easeml_referee")
        return int(number)

    def run(writes: Writes) -> dict[str, int]:
        found = {}
        with database.referee.begin() as tx:
            undone = tx.begin_nested()
            for table, write in writes.items():
                before = counter()
                write(tx)
                found[table] = counter() - before - 1
            undone.rollback()
        return found

    return run


@pytest.fixture
def judged(make_rows: Any, seal: Callable[..., int], file: Callable[..., int]) -> Callable[..., Writes]:
    """What the referee writes of one withheld verdict, by table."""
    study = make_rows()
    set_id, request_id = seal(study, "gate"), file(study, "gate", study.baseline_id)
    said = {"condition": str(CONDITION), "model_id": 7, "incumbent_id": 1, "named_id": 1, "changes_before": 0}
    said |= {"model": f"skops {study.artifact(1)}", "incumbent": f"constant {study.artifact(2)}"}

    def make(report: JsonObject, labels: Any = None, failure: str | None = None) -> Writes:
        report = report | said | {"symbol": report["verdict"].lower()}
        mail = verdict_mail("ann@lab.example", study.name, 1, 3, report | {"log_level": -4.0})
        verdict = releases.Verdict(7, 1, set_id, 1, Symbol.WITHHELD, planned=True, cached=False)
        facts = outbox.GateFacts(study.study_id, set_id, None, verdict, (mail,))
        keep = {"labels": labels, "failure": failure, "isolation": {"kept_from": ["network", "processes", "files"]}}
        entry = {"step": 1, "steps": 3, "cache_key": "0" * 64, "answer": "withheld", "log_level": -4.0, "log_cost": 0.5}

        def decide(tx: Any) -> None:
            held = {"refused": False, "message": "step 1 of 3: withheld", "facts": facts, "leaves_at": None}
            outbox.hold(tx, request_id=request_id, **held)
            outbox.mark_left(tx, request_id)

        def post(tx: Any) -> None:
            outbox.add_mail(tx, recipient=mail.recipient, subject=mail.subject, body=mail.body)
            outbox.mark_sent(tx, scalar(tx, "SELECT max(id) FROM sealed.mails"))

        return {
            "sealed.predictions": lambda tx: sealed.keep_predictions(tx, set_id, said["model"], **keep),
            "sealed.ledger": lambda tx: sealed.add_entry(
                tx, test_set_id=set_id, request_id=request_id, tolerance=None, report=report, system="gate", **entry
            ),
            "sealed.outbox": decide,
            "sealed.mails": post,
        }

    return make


def report_of(slices: int, *, good: bool) -> tuple[JsonObject, Any]:
    """The referee's report where the new model is right more often, or less, and its predictions."""
    rng = np.random.default_rng(3)
    old = rng.integers(0, 2, EXAMPLES)
    new = np.where(rng.random(EXAMPLES) < 0.3, 1 - old, old)
    truth = np.where(rng.random(EXAMPLES) < 0.8, new if good else old, 1 - new if good else 1 - old)
    members = [np.flatnonzero(np.arange(EXAMPLES) % max(slices, 1) == place) for place in range(slices)]
    parts = [Slice(f"part {n}", parse_condition("n - o > -0.5 +/- 0.1"), rows) for n, rows in enumerate(members)]
    found = judge_predictions(CONDITION, truth, old, new, log_level=-4.0, mode="fp-free", slices=parts)
    report: JsonObject = found.to_json()
    assert report["verdict"] == ("PASS" if good else "FAIL")
    return report, new


@pytest.mark.parametrize("slices", [0, 1, 7, 8, 10, 13, 20])
def test_a_withheld_verdict_draws_as_many_numbers_whatever_it_is(judged: Any, drawn: Any, slices: int) -> None:
    """With 7, 8, 10 and 13 slices a FAIL was longer than what stays in the row, and a PASS was not."""
    for good in (True, False):
        assert drawn(judged(*report_of(slices, good=good))) == DRAWN
    for why in ("", "KeyError: 5", "ValueError: " + "word " * 2_000):
        assert drawn(judged({"verdict": "FAIL", "failure": why}, failure=why)) == DRAWN
    error = {"verdict": "FAIL", "error": "MemoryError: "}
    assert drawn(judged(error, np.zeros(EXAMPLES, dtype=np.int64))) == DRAWN


def test_a_value_of_any_length_draws_as_many_numbers(judged: Any, drawn: Any) -> None:
    """Whether it can be compressed or not, around each length at which PostgreSQL stores it in another way."""
    rng = np.random.default_rng(5)
    texts = {"repeated": "a" * 9_000, "varied": rng.bytes(4_500).hex()}
    for (kind, text), length in product(texts.items(), (0, 60, 900, 1_300, 1_900, 2_040, 4_000, 7_800, 9_000)):
        labels = (
            np.zeros(length // 8 + 1, dtype=np.int64) if kind == "repeated" else rng.integers(0, 9, length // 8 + 1)
        )
        assert drawn(judged({"verdict": "FAIL", "text": text[:length]}, labels)) == DRAWN, (kind, length)


@pytest.mark.parametrize("slices", [0, 5])
def test_usual_verdicts_take_the_same_room(judged: Any, database: Any, slices: int) -> None:
    """Where a server's statistics are open, every role may ask for the size of a table (docs/install.md)."""
    stored = {"sealed.ledger": "report", "sealed.outbox": "facts", "sealed.mails": "body"}
    rooms = set()
    for good in (True, False):
        with database.referee.begin() as tx:
            undone = tx.begin_nested()
            for table, write in judged(*report_of(slices, good=good)).items():
                write(tx)
                if table in stored:
                    size = f"SELECT pg_column_size({stored[table]}) + pg_column_size(filler) FROM {table}"
                    rooms.add(scalar(tx, size))
            undone.rollback()
    assert len(rooms) == 1
