"""Replays: a history through the meter, read from an untrusted file."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from attrs import evolve

from easeml_core.errors import InvalidInputError
from easeml_core.meter.history import Submitted, read_history, replay_submissions
from easeml_core.meter.meter import Answered, read_submission
from easeml_core.settings.config import MeterConfig

CONFIG = MeterConfig(ranges=(0.1, 0.3, 0.5), tolerance=0.05, reliability=0.99, steps=32, tail="hoeffding")
LADDER = Path(__file__).parents[3].parent / "shared" / "data" / "meter" / "ladder-photo"


def rows(*gaps: float, n: int = 5_000, loss: float = 0.2) -> list[Submitted]:
    return [Submitted(i, loss, round((loss + gap) * n)) for i, gap in enumerate(gaps, start=1)]


def test_a_replay_is_the_meter_step_by_step():
    gaps = (0.0, 0.09, 0.11, 0.2, 0.4, 0.31, 0.0)
    found = replay_submissions(rows(*gaps), examples=5_000, config=CONFIG)
    log_weight = 0.0
    for (row, reading), gap in zip(found.readings, gaps, strict=True):
        alone = read_submission(
            errors=round((0.2 + gap) * 5_000), examples=5_000, validation_loss=0.2, config=CONFIG, log_weight=log_weight
        )
        assert replace(alone, ends=reading.ends) == reading
        log_weight += alone.log_cost
        assert row.submission == found.readings.index((row, reading)) + 1
    answer = json.loads(json.dumps(found.to_json()))
    assert [r["signal"] for r in answer["readings"]] == [1, 1, 2, 2, 3, 3, 1]
    assert [r["reachable"] for r in answer["readings"]] == [1, 2, 2, 1, 1, 2, 1]
    assert set(answer["readings"][0]) == {"submission", "signal", "tolerance", "reachable"}
    assert answer["retired_at"] is None
    assert answer["final_tolerance"] == answer["readings"][-1]["tolerance"]


def test_retirement_is_the_first_submission_without_an_answer():
    """2,446 labels are planned for 5 ambiguous answers: an edge case gets 6 answers."""
    found = replay_submissions(rows(*[0.1] * 9, n=2_446, loss=0.25), examples=2_446, config=CONFIG)
    assert (len(found.readings), found.retired_at, found.why) == (6, 7, "tolerance")
    assert found.to_json()["final_tolerance"] == pytest.approx(
        math.sqrt((math.log(2 * 32 / 0.01) + 5 * math.log(2)) / (2 * 2_446)), rel=1e-9
    )
    found = replay_submissions(rows(*[0.0] * 9), examples=5_000, config=evolve(CONFIG, steps=8))
    assert (len(found.readings), found.retired_at, found.why) == (8, 9, "steps")
    assert replay_submissions(rows(*[0.0] * 8), examples=5_000, config=evolve(CONFIG, steps=8)).retired_at is None
    found = replay_submissions(rows(0.0, n=50), examples=50, config=evolve(CONFIG, steps=8))
    assert (found.to_json()["readings"], found.retired_at, found.to_json()["final_tolerance"]) == ([], 1, None)


def test_a_repeated_artifact_is_answered_from_the_log_for_free():
    history = rows(0.1, 0.1, 0.1, n=2_446, loss=0.25)
    repeated = [history[0]] * 20 + [history[1]] + [history[0]] * 5 + [history[2]]
    found = replay_submissions(repeated, examples=2_446, config=CONFIG)
    plain = replay_submissions(history, examples=2_446, config=CONFIG)
    assert len(found.readings) == 27
    assert found.retired_at is None
    assert found.readings[-1] == plain.readings[-1]
    assert {found.readings[i] for i in range(20)} == {plain.readings[0]}
    with pytest.raises(InvalidInputError, match="submission 1 comes twice"):
        replay_submissions([history[0], replace(history[0], test_errors=3)], examples=2_446, config=CONFIG)


def test_a_dithered_replay_shows_its_edges_and_repeats_with_its_seed():
    config = evolve(CONFIG, method="dithered")
    history = rows(*[0.1] * 20)
    one, same, other = (replay_submissions(history, examples=5_000, config=config, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    edges = [reading["edges"] for reading in one.to_json()["readings"]]
    assert len({tuple(e) for e in edges}) == 20
    assert all(0.1 <= e[0] < 0.3 for e in edges)
    assert {reading.signal for _, reading in one.readings} == {1}


def test_one_teams_retirement_leaves_the_others():
    config = evolve(CONFIG, method="multitenant", teams=2, steps=4)
    history = [Submitted(i, 0.2, 1_000, team) for i, team in enumerate((1, 1, 1, 2, 1, 2, 2), start=1)]
    found = replay_submissions(history, examples=5_000, config=config)
    assert [row.submission for row, _ in found.readings] == [1, 2, 4, 6]
    assert (found.retired_at, found.why) == (3, "steps")


def test_breaches_of_the_budget_are_reported_with_their_place():
    config = evolve(CONFIG, budget=("two yellow in a row", "retire within 40 submissions"), steps=4)
    found = replay_submissions(rows(0.2, 0.0, 0.2, 0.4, 0.0, 0.0, 0.2), examples=5_000, config=config)
    assert [(at, text.split('"')[1]) for at, text in found.alerts] == [
        (4, "two yellow in a row"),
        (5, "retire within 40 submissions"),
    ]


def write(folder: Path, text: str) -> Path:
    path = folder / "h.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_and_numbers_and_other_columns_are_read(tmp_path):
    text = "note,submission,test_errors,validation_loss\nx,1,12,0.5\n\n,b-2,0,1e-1\n,007,3,1\n"
    assert read_history(write(tmp_path, text), examples=20) == [
        Submitted(1, 0.5, 12),
        Submitted("b-2", 0.1, 0),
        Submitted("007", 1.0, 3),
    ]
    text = "submission,validation_loss,test_errors,team\r\na,0,1,2\r\n"
    assert read_history(write(tmp_path, text), examples=20, teams=2) == [Submitted("a", 0.0, 1, 2)]


HEADER = "submission,validation_loss,test_errors\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"row 1: the header must have the column 'submission' exactly once"),
        ("submission,test_errors\n1,2\n", r"row 1: the header must have the column 'validation_loss' exactly once"),
        (HEADER, "no submissions below the header"),
        (HEADER + "1,0.1,2\n2,high,3\n", "row 3, column validation_loss: must be a number from 0 to 1, got 'high'"),
        (HEADER + "1,1.5,2\n", "row 2, column validation_loss: must be a number from 0 to 1, got '1.5'"),
        (HEADER + "1,nan,2\n", "row 2, column validation_loss: must be a number from 0 to 1, got 'nan'"),
        (HEADER + "1,-0.1,2\n", "row 2, column validation_loss"),
        (HEADER + "1,0.1,21\n", "row 2, column test_errors: must be a whole number from 0 to 20, got '21'"),
        (HEADER + "1,0.1,2.0\n", "row 2, column test_errors: must be a whole number from 0 to 20, got '2.0'"),
        (HEADER + "1,0.1,-2\n", "row 2, column test_errors"),
        (HEADER + "1,0.1,\n", "row 2, column test_errors: must be a whole number from 0 to 20, got ''"),
        (HEADER + " ,0.1,2\n", "row 2, column submission: empty"),
        (HEADER + "1,0.1\n", "row 2: 2 fields, the header has 3"),
        (HEADER + '1,"0.1,2\n', "not well-formed CSV at line 2: unexpected end of data"),
        (HEADER.strip() + ",team\n1,0.1,2,3\n", "row 2, column team: must be a whole number from 1 to 1, got '3'"),
    ],
)
def test_a_bad_file_is_refused_with_row_column_and_value(text, message, tmp_path):
    with pytest.raises(InvalidInputError, match=message):
        read_history(write(tmp_path, text), examples=20)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_history(tmp_path / "none.csv", examples=20)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="is not UTF-8"):
        read_history(tmp_path / "b.csv", examples=20)


@pytest.mark.skipif(not LADDER.is_dir(), reason="the published curves are not beside the checkout")
def test_the_published_attack_stays_within_the_tolerances_and_follows_the_theory(tmp_path):
    """Section 8.1: Blum and Hardt's boosting attack on a precise leaderboard, n = 4000, truth .5, up to 400 queries.

    Parked on the first boundary each answer costs ln 2; what the attack gains never exceeds the tolerance.
    """
    with (LADDER / "kaggleboosting-4000-400-5-highacc.csv").open(newline="") as file:
        curve = [(int(r["x"]), float(r["y"])) for r in csv.DictReader(file) if r["label"] == "Kaggle"]
    assert len(curve) == 40
    bias = {k: 0.5 - y for k, y in curve}
    assert [round(bias[k], 4) for k in (100, 200, 400)] == [0.0331, 0.0478, 0.0726]
    theory = {k: math.sqrt(k / 8_000) / math.pi for k in bias}
    assert sum(bias[k] / theory[k] for k in bias) / 40 == pytest.approx(0.976, abs=0.0005)

    config = evolve(CONFIG, ranges=(0.1, 0.9), steps=401, tolerance=0.5)
    path = write(tmp_path, HEADER + "".join(f"{k},0.4,{round(4_000 * y)}\n" for k, y in curve))
    for row in read_history(path, examples=4_000):
        k = int(row.submission)
        reading = read_submission(
            errors=row.test_errors,
            examples=4_000,
            validation_loss=row.validation_loss,
            config=config,
            earlier=[Answered(1, math.log(2))] * k,
        )
        assert abs(reading.gap - 0.1) == pytest.approx(bias[k], abs=1.3e-4)  # errors are whole
        assert bias[k] < 0.6 * reading.tolerance_now
        assert reading.reachable == 2
        assert reading.signal == 1
    # Nine of ten queries are missing in this file: answers that no ledger knows of are not paid for.
    found = replay_submissions(read_history(path, examples=4_000), examples=4_000, config=config)
    assert {reading.reachable for _, reading in found.readings} == {2}
    assert any(abs(reading.gap - 0.1) > reading.tolerance_now for _, reading in found.readings)
