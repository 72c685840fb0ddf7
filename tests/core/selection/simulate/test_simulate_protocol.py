"""Draws, scenes, ranges, and how policies are written."""

from __future__ import annotations

import numpy as np
import pytest

from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError
from easeml_core.selection.simulate.protocol import Contestant, Protocol, parse_contestants, scene
from easeml_core.settings.config import SelectionConfig


def test_a_draw_depends_on_seed_and_repeat_alone():
    one = Protocol(served=3, repeats=5, seed=7)
    other = Protocol(served=3, repeats=9, seed=7, devices=4, cost_mode="predicted", until=5, losses=(0.1,))
    assert [one.draw(20, r) for r in range(5)] == [other.draw(20, r) for r in range(5)]
    draws = [tuple(Protocol(served=20, seed=seed).draw(20, r)[0]) for seed in (7, 8) for r in range(20)]
    assert len(set(draws)) == 40


def test_draws_are_nested():
    served, history = Protocol(served=3).draw(10, 0)
    assert sorted(served + history) == list(range(10))
    more, fewer = Protocol(served=5).draw(10, 0), Protocol(served=3, history=2).draw(10, 0)
    assert more[0][:3] == fewer[0] == served
    assert fewer[1] == history[:2]
    assert Protocol(served=3, history=0).draw(10, 0) == (served, [])


def test_a_scene_shows_only_what_is_available(table_of):
    table = table_of([[0.1, np.nan, 0.3], [np.nan, 0.5, 0.6]], [[1, 2, 3], [4, 5, 6]])
    protocol = Protocol(served=1, history=1)
    stands = scene(table, protocol, repeat=0)
    [row], [other] = protocol.draw(2, 0)
    names = [("c0", "c2"), ("c1", "c2")]
    [arms], [past] = stands.problem.studies, stands.problem.history
    assert (arms.names, arms.study, arms.weight) == (names[row], f"t{row}", 1.0)
    assert (past.names, past.qualities) == (names[other], [(0.1, 0.3), (0.5, 0.6)][other])
    assert past.costs == [(1.0, 3.0), (5.0, 6.0)][other]
    assert past.study_id != arms.study_id
    assert stands.quality[0].tolist() == [[0.1, 0.3], [0.5, 0.6]][row]
    assert stands.total_cost == [4.0, 11.0][row]


def test_cost_modes(table_of):
    table = table_of([[0.1, 0.2]], [[3.0, 5.0]])
    known, predicted, unit = (
        scene(table, Protocol(served=1, cost_mode=mode), 0) for mode in ("known", "predicted", "unit")
    )
    assert known.known_costs is not None
    assert known.known_costs[0].tolist() == predicted.cost[0].tolist() == [3.0, 5.0]
    assert predicted.known_costs is None
    assert unit.known_costs is not None
    assert unit.known_costs[0].tolist() == unit.cost[0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"served": 0},
        {"repeats": 0},
        {"repeats": 10_001},
        {"seed": -1},
        {"history": -1},
        {"devices": 0},
        {"cost_mode": "guessed"},
        {"until": 0.0},
        {"until": 101.0},
        {"until": float("nan")},
        {"losses": ()},
        {"losses": (0.1, 2.0)},
        {"losses": (0.1, 0.1)},
        {"losses": (float("nan"),)},
        {"drive": "sprint"},
    ],
)
def test_ranges(wrong):
    [name] = wrong
    with pytest.raises(ConfigError, match=name.replace("_", "-")):
        Protocol(**wrong)


def test_a_table_must_have_enough_tenants(make_table):
    table = make_table(tenants=8)
    Protocol(served=8).check(table)
    Protocol(served=5, history=3).check(table)
    with pytest.raises(ConfigError, match="served must be from 1 to 8, the tenants of the table, got 9"):
        Protocol(served=9).check(table)
    with pytest.raises(ConfigError, match="history must be from 0 to 3: 8 tenants less the 5 served, got 4"):
        Protocol(served=5, history=4).check(table)


# Policies


def one(text, base=None):
    [contestant] = parse_contestants([text], base=base or SelectionConfig(), candidates=("knn", "tree"))
    return contestant


def test_policies_as_they_are_written(tmp_path):
    assert one("hybrid") == Contestant("hybrid", SelectionConfig(policy="hybrid"))
    assert one("hybrid@0.05") == Contestant("hybrid@0.05", SelectionConfig(policy="hybrid", beta_multiplier=0.05))
    assert one("clairvoyant") == Contestant("clairvoyant", None)
    found = one("default:guard=0, link=identity,believe=false").config
    assert found == SelectionConfig(guard=0.0, link="identity", believe=False)
    assert one("default:pseudo_studies=7").config == SelectionConfig(pseudo_studies=7.0)
    found = one("greedy@2:freeze_rounds=3,delta=0.5", SelectionConfig(guard=0.3, beta_multiplier=0.1)).config
    assert found == SelectionConfig(policy="greedy", beta_multiplier=2.0, freeze_rounds=3, delta=0.5, guard=0.3)
    order = tmp_path / "order: 1.txt"
    order.write_text("\ufefftree\n\n knn \n")
    assert one(f"order:{order}").config == SelectionConfig(policy="order", order=("tree", "knn"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no policy ''; there are default, mm-gp-ei"),
        ("hybird", "there is no policy 'hybird'; there are .*clairvoyant; write NAME, NAME@BETA"),
        ("default@2", "default has no beta; leave out @2"),
        ("clairvoyant@2", "clairvoyant has no beta"),
        ("clairvoyant:guard=0", "clairvoyant has no settings; leave out :guard=0"),
        ("backtested@2", "backtested has no beta; leave out @2"),
        ("backtested:guard=0", "backtested has no settings; leave out :guard=0"),
        ("default:pseudo_studies=x", "pseudo_studies must be a number, got 'x'"),
        ("hybrid@", "the multiplier of beta must be a number, got ''"),
        ("hybrid@much", "the multiplier of beta must be a number, got 'much'"),
        ("hybrid@0", "beta_multiplier must be > 0 and finite, got 0.0"),
        ("hybrid@nan", "beta_multiplier must be > 0 and finite"),
        ("default:", "'' is no setting; write NAME=VALUE"),
        ("default:guard", "'guard' is no setting; write NAME=VALUE"),
        ("default:gard=1", "there is no setting 'gard'; there are .*guard"),
        ("default:seed=1", "there is no setting 'seed'"),
        ("default:guard=high", "guard must be a number, got 'high'"),
        ("default:guard=1", "guard must be >= 0 and < 1, got 1.0"),
        ("hybrid:freeze_rounds=1.5", "freeze_rounds must be a whole number, got '1.5'"),
        ("default:believe=1", "believe must be true or false, got '1'"),
        ("order", "it needs a file that names candidates in order"),
        ("order:nowhere.txt", "the file cannot be read: No such file"),
    ],
)
def test_what_is_no_policy(text, message):
    with pytest.raises(InvalidInputError, match=message):
        one(text)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"tree\n\nforest\n", NotFoundError, "no candidate 'forest'; known: 'knn', 'tree'; policy .* in line 3"),
        (b"tree\n\ntree\n", InvalidInputError, "lines 1 and 3 both name 'tree'"),
        (b"\n", InvalidInputError, "the file names no candidate"),
        (b"\xff\xfe", InvalidInputError, "it is not UTF-8 text"),
        (b"x" * 1024**2 + b"y", InvalidInputError, "larger than 1 MB"),
    ],
)
def test_what_is_no_order(tmp_path, content, error, message):
    file = tmp_path / "order.txt"
    file.write_bytes(content)
    with pytest.raises(error, match=message):
        one(f"order:{file}")


def test_policies_must_differ():
    for texts in ([], ["hybrid", "default", "hybrid"]):
        with pytest.raises(InvalidInputError, match="name at least one, each once"):
            parse_contestants(texts, base=SelectionConfig(), candidates=())
