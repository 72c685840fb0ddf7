"""A study is registered once more with another target: how often does a look-up of its open rows pass the first gate?

Study ``one`` seals a table of coin flips with the target ``y``. Study ``two`` brings the same rows with the target
``z``, so that ``y`` is an input and is open wherever a row is. The program answers ``y`` of each row that it finds in
the open rows of ``two``, and what the baseline answers everywhere else: on new rows its gain is exactly 0. The gate of
``one`` asks for ``n - o > 0.02`` at reliability .99, so that each PASS is a false one.

Lives on the judge, with stored predictions: the split of before there was a registry of rows (each study splits by
itself), and what the registry leaves open, as ``data.rows.matching`` finds it: for the whole table in a random
disguise, and for its rows hidden among twenty and sixty times as many others, with two columns that tell rows apart, or
with one of them and a column of three words, in which a row in eighty agrees with a known one by chance. And tables of
other rows of the same population: how many are refused, and what share of their rows is taken for known
(docs/security.md, "The same row").

Lives through the referee, in an embedded installation: the whole table, both halves of a divided table, the hidden
rows, and the whole table without the registry. A study that is refused counts as a life without a PASS.

    python benchmarks/sealed_rows_lookup.py --lives 300 --referee-lives 5

With ``--studies`` it measures what a registration costs after so many others: processor time of referee and database,
and that of a look-up that compares the rows with all sources, as before there was an index of values. *Numbers* are
the tables of ``night.py``, which share a value by chance; *alike* are tables of the columns above, which share ages and
regions, so that each is compared with all others.

    python benchmarks/sealed_rows_lookup.py --studies 8 64 200 1000 --tables numbers --save
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from installation import Installation, installation
from result_files import FOLDER, read_rows, write_rows

from easeml_core.actions.studies import RegisterStudy
from easeml_core.data.parts import load_open_parts
from easeml_core.data.rows.cells import Cells, name_tokens, tokens_of
from easeml_core.data.rows.matching import CHANCE, COINCIDENCE, Rows, match_rows
from easeml_core.data.rows.screen import Screen
from easeml_core.entities import SealedSetPurpose
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import Decision
from easeml_core.gate.judge import judge_predictions
from easeml_core.services.referee.answers import VerdictAnswer
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.registration import sealing
from easeml_core.services.registration.register import register_study
from easeml_core.services.studies.candidates import files_of
from easeml_core.services.test_sets import compared_rows, row_registry
from easeml_core.stats.binomial_bounds import clopper_pearson
from easeml_core.store.rows import scalar
from easeml_core.store.tables import models, releases, sealed, studies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Table = dict[str, NDArray[Any]]
    KnownLabels = dict[tuple[float, float], int]

CONDITION, RELIABILITY = "n - o > 0.02 +/- 0.2", 0.99
ROWS, FRESH = 1_200, 20
"""Rows of the table, and how many times as many others they are hidden among."""
SEALED_SHARES = 0.2, 0.1
"""Of gate and meter."""
TARGETS = "y", "z"
KEYS = "dose", "weight"
"""By these two columns a row is looked up."""
REPEATS = 4
"""Registrations that are measured at each number of studies."""
RESULTS = FOLDER / "sealing.csv"


def table(rng: np.random.Generator, rows: int) -> Table:
    """Inputs of every kind, and two columns of coin flips."""
    return {
        "age": rng.integers(18, 90, rows),
        "dose": np.round(rng.uniform(1, 9, rows), 4),
        "region": rng.choice(np.array(["south", "west", "north"], dtype=object), rows),
        "weight": np.round(rng.normal(70, 9, rows), 3),
        "y": rng.choice(np.array(["no", "yes"], dtype=object), rows),
        "z": rng.choice(np.array(["low", "high"], dtype=object), rows),
    }


def hidden(rng: np.random.Generator, rows: Table) -> Table:
    """These rows among ``FRESH`` times as many others, in random order."""
    others = table(rng, FRESH * ROWS)
    order = rng.permutation((FRESH + 1) * ROWS)
    return {name: np.concatenate([column, others[name]])[order] for name, column in rows.items()}


# -- the judge ---------------------------------------------------------------------------------------------------------


def look_up_passes(labels: NDArray[np.int64], is_known: NDArray[np.bool_]) -> bool:
    """Whether the judge of this tree lets the look-up pass; the old model always says 0, as the look-up elsewhere."""
    decision = judge_predictions(
        parse_condition(CONDITION),
        labels,
        np.zeros_like(labels),
        np.where(is_known, labels, 0),
        log_level=math.log1p(-RELIABILITY),
        mode="fp-free",
    )
    if not isinstance(decision, Decision):
        raise TypeError(decision)
    return decision.passed


def split(rng: np.random.Generator, rows: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The rows of the gate's set of a study that splits by itself, and whether each row is sealed."""
    order = rng.permutation(rows)
    gate, meter = (int(share * rows) for share in SEALED_SHARES)
    is_sealed = np.zeros(rows, dtype=bool)
    is_sealed[order[: gate + meter]] = True
    return order[:gate], is_sealed


def life_before(rng: np.random.Generator) -> bool:
    """Two splits that know nothing of each other."""
    labels = rng.integers(0, 2, ROWS)
    (gate, _), (_, is_sealed) = split(rng, ROWS), split(rng, ROWS)
    return look_up_passes(labels[gate], ~is_sealed[gate])


def tokens(content: Table, key: bytes) -> Rows:
    """The rows as the registry compares them."""
    columns = (c if c.dtype == object else c.astype(np.float64) for c in content.values())
    cells = Cells(tuple(content), tuple(columns))
    return Rows(tokens_of(cells, key), name_tokens(cells, key))


def disguised(rng: np.random.Generator, content: Table, left: tuple[str, ...] | None) -> Table:
    """The rows with the label as an input: columns renamed, in random order.

    Args:
        rng: Seeded.
        content: The rows.
        left: Columns that are left; None for two to all of them, a key among them.
    """
    kept: list[str] = list(left or ())
    inputs = [name for name in content if name not in TARGETS]
    while not set(kept) & set(KEYS):
        kept = rng.permutation(inputs)[: rng.integers(2, len(inputs) + 1)].tolist()
    return {f"c{place}": content[name] for place, name in enumerate(rng.permutation([*kept, "y"]).tolist())}


def life_after(rng: np.random.Generator, *, among: int, left: tuple[str, ...] | None = None) -> tuple[bool, bool]:
    """Whether the second table is refused, and whether the look-up passes.

    Args:
        rng: Seeded.
        among: The rows lie among so many times as many others.
        left: As for ``disguised``.
    """
    key = rng.bytes(32)
    mine = table(rng, ROWS)
    gate, is_sealed = split(rng, ROWS)
    known = tokens({name: column for name, column in mine.items() if name != "y"}, key)
    spread = mine | {"number": np.arange(ROWS)}
    if among:
        others = table(rng, among * ROWS) | {"number": np.full(among * ROWS, -1)}
        spread = {name: np.concatenate([column, others[name]]) for name, column in spread.items()}
    order = rng.permutation(len(spread["y"]))
    spread = {name: column[order] for name, column in spread.items()}
    origin = spread.pop("number")
    new = tokens(disguised(rng, spread, left), key)
    groups = is_sealed.astype(np.int64)
    groups[gate] = 2
    found = match_rows(new, known, is_sealed, groups=groups, chance=CHANCE, seed=int(rng.integers(2**32)))
    if found.copied or found.share > min(1.0, found.chance) + COINCIDENCE:
        return True, False
    _, is_hidden = split(rng, len(origin))
    opened = np.where(found.likely >= 0, ~is_sealed[found.likely], ~is_hidden)
    is_known = np.zeros(ROWS, dtype=bool)
    is_known[origin[opened & (origin >= 0)]] = True
    labels = (mine["y"] == "yes").astype(np.int64)
    return False, look_up_passes(labels[gate], is_known[gate])


def life_of_others(rng: np.random.Generator, rows: int, left: tuple[str, ...] | None) -> tuple[bool, float, float]:
    """Other rows of the population: whether they are refused, and which shares are certainly and likely known."""
    key = rng.bytes(32)
    known = tokens({name: column for name, column in table(rng, ROWS).items() if name != "y"}, key)
    gate, is_sealed = split(rng, ROWS)
    groups = is_sealed.astype(np.int64)
    groups[gate] = 2
    new = tokens(disguised(rng, table(rng, rows), left), key)
    found = match_rows(new, known, is_sealed, groups=groups, chance=CHANCE, seed=int(rng.integers(2**32)))
    refused = bool(found.copied) or found.share > min(1.0, found.chance) + COINCIDENCE
    return refused, float(np.mean(found.place >= 0)), float(np.mean(found.likely >= 0))


# -- the referee -------------------------------------------------------------------------------------------------------


def write_csv(path: Path, content: Table) -> None:
    """The table as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(content)
        writer.writerows(zip(*(column.tolist() for column in content.values()), strict=True))


def file_table(at: Installation, study: str, content: Table, target: str, tenant: str, rows: str = "rows") -> bool:
    """Register a table as a study; whether it is refused."""
    path = at.folder / "data" / tenant / f"{study}.csv"
    write_csv(path, content)
    wanted = RegisterStudy(
        study=study,
        tenant=tenant,
        source=f"csv:{study}.csv",
        target=target,
        split=rows,
        gate={"condition": CONDITION, "reliability": RELIABILITY, "steps": 1},
        meter={"ranges": [0.5], "tolerance": 0.5, "reliability": 0.5, "steps": 1},
        candidates=[{"name": "tree", "kind": "decision_tree"}],
    )
    filed = register_study(at.worker, wanted, request_key=at.key())
    at.judge.answer_one()
    answer = answer_of(at.worker, filed.request_id)
    if answer is None or (answer.refused and row_registry.OWN_WORDS not in answer.message):
        raise RuntimeError(str(answer))
    return bool(answer.refused)


def known_labels(at: Installation, study: str) -> KnownLabels:
    """``y`` of every open row of a study, as a developer reads it."""
    with at.worker.begin() as tx:
        version = studies.latest_data_version(tx, studies.get_study(tx, study).id)
        names, artifact = studies.feature_names(tx, version.id), studies.data_artifact(tx, version.id)
    if names is None:
        raise RuntimeError(study)
    with files_of(at.worker, at.artifacts, study=study).copy(artifact) as path:
        parts = load_open_parts(path)
    inputs = np.concatenate([parts.train_inputs, parts.validation_inputs])
    says = inputs[:, names.index("y=yes")] > 0
    return dict(zip(keys_of(inputs, names), says.astype(int).tolist(), strict=True))


def keys_of(inputs: NDArray[Any], names: list[str]) -> Iterator[tuple[float, float]]:
    """By what a row is looked up."""
    dose, weight = (inputs[:, names.index(name)].tolist() for name in KEYS)
    return zip(dose, weight, strict=True)


def gate_passes(at: Installation, study: str, known: KnownLabels) -> tuple[bool, float]:
    """Whether the look-up passes the study's gate, and which share of the sealed rows it knows."""
    model_id = at.add_constant(study)
    with at.referee.begin() as tx:
        row = studies.get_study(tx, study)
        live = releases.live_test_set(tx, row.id, SealedSetPurpose.GATE)
        names = studies.feature_names(tx, studies.latest_data_version(tx, row.id).id)
        if live is None or names is None:
            raise RuntimeError(study)
        found = [known.get(key) for key in keys_of(sealed.sealed_inputs(tx, live.id), names)]
        new = np.array([0 if one is None else one for one in found], dtype=np.int64)
        for model, says in (
            (models.baseline_model(tx, row.id), np.zeros_like(new)),
            (models.get_model(tx, row.id, model_id), new),
        ):
            sealed.keep_predictions(tx, live.id, model.identity, labels=says, failure=None)
    asked = file_gate_request(at.worker, study=study, model_id=model_id, request_key=at.key())
    at.judge.answer_one()
    answer = answer_of(at.worker, asked)
    if not isinstance(answer, VerdictAnswer):
        raise RuntimeError(str(answer))
    return answer.symbol == "pass", float(np.mean([one is not None for one in found]))


def life_through_the_referee(at: Installation, way: str, number: int) -> tuple[bool, bool]:
    """Whether study ``two`` is refused, and whether its look-up passes the gate of ``one``."""
    rng = seeded(number)
    tag = f"{way.split()[0]}{number}"
    mine = table(rng, 2 * ROWS if way == "divided" else ROWS)
    part = ("rows?part=1/2", "rows?part=2/2") if way == "divided" else ("rows", "rows")
    with ExitStack() as stack:
        if way == "no registry":
            for module in (sealing, row_registry):
                stack.enter_context(mock.patch.object(module, "is_public", return_value=True))
        if file_table(at, f"one{tag}", mine, "y", tag, part[0]):
            raise RuntimeError(tag)
        theirs = hidden(rng, mine) if way == "hidden" else mine
        if file_table(at, f"two{tag}", theirs, "z", tag, part[1]):
            return True, False
        passed, share = gate_passes(at, f"one{tag}", known_labels(at, f"two{tag}"))
    print(f"  {way}, life {number}: the look-up knows {share:.1%} of the sealed rows")
    return False, passed


# -- growth ------------------------------------------------------------------------------------------------------------


GATE = {"condition": "n > 0.7 +/- 0.2", "reliability": 0.95, "steps": 8, "adaptivity": "full"}
METER = {"ranges": [0.4], "tolerance": 0.2, "reliability": 0.95, "steps": 8}
NIGHT_ROWS = 700


def write_table(path: Path, seed: int) -> None:
    """Write a made-up table of four numbers and a class, which follows from them but for one row in ten."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(NIGHT_ROWS, 4))
    labels = inputs @ rng.normal(size=4) > 0
    noise = rng.random(NIGHT_ROWS) < 0.1
    labels[noise] = rng.random(int(noise.sum())) < 0.5
    lines = [
        ",".join(f"{x:.5f}" for x in row) + f",{'yes' if y else 'no'}" for row, y in zip(inputs, labels, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a,b,c,d,label\n" + "\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor milliseconds of one registration (mean).

    Attributes:
        tables: Which tables.
        studies: Registered before.
        referee: Of the referee.
        database: Of the database.
        all_sources: Of both for one look-up that compares the rows with every source.
        load: Of the machine.
    """

    tables: str
    studies: int
    referee: float
    database: float
    all_sources: float
    load: float


def growth(tables: str, counts: list[int]) -> Iterator[Cost]:
    """Register studies of as many tenants, and measure those that follow each of these numbers of others."""
    with installation() as at:
        registered = 0
        for count in sorted(counts):
            for number in range(registered, count):
                register_one(at, tables, number)
            spent = [register_one(at, tables, count + one) for one in range(REPEATS)]
            registered = count + REPEATS
            referee, database = np.mean(spent, axis=0)
            yield Cost(tables, count, referee, database, look_up_in_all(at), os.getloadavg()[0])


def register_one(at: Installation, tables: str, number: int) -> tuple[float, float]:
    """Processor milliseconds of referee and database for one more study of a separate tenant."""
    name = f"t{number:05d}"
    path = at.folder / "data" / name / "table.csv"
    if tables == "numbers":
        write_table(path, number)
    else:
        write_csv(path, table(seeded(number), ROWS))
    wanted = RegisterStudy(
        study=name,
        tenant=name,
        source="csv:table.csv",
        target="label" if tables == "numbers" else "y",
        gate=GATE,
        meter=METER,
        candidates=[{"name": "tree", "kind": "decision_tree"}],
    )
    filed = register_study(at.worker, wanted, request_key=at.key())
    before = time.process_time(), at.database_processor_ms()
    at.judge.answer_one()
    spent = 1000 * (time.process_time() - before[0]), at.database_processor_ms() - before[1]
    answer = answer_of(at.worker, filed.request_id)
    # A few tables of other rows of the same population are refused.
    if answer is None or (answer.refused and tables == "numbers"):
        raise RuntimeError(str(answer))
    return spent


def look_up_in_all(at: Installation) -> float:
    """Processor milliseconds of a look-up of the newest study's table that passes over no source."""
    with at.worker.begin() as tx:
        study = studies.study_by_id(tx, int(scalar(tx, "SELECT max(id) FROM work.studies")))
    path = at.folder / "data" / study.tenant / "table.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    columns = [(n, np.array(c, dtype=object)) for n, *c in zip(*rows, strict=True) if n != study.target]
    before = time.process_time(), at.database_processor_ms()
    with mock.patch.object(Screen, "may_match", lambda _, parts, *cells: np.unique(parts)), at.referee.begin() as tx:
        names, cells = zip(*columns, strict=True)
        row_registry.look_up(tx, at.artifacts, study, compared_rows.new_rows(tx, Cells(names, cells)))
    return 1000 * (time.process_time() - before[0]) + at.database_processor_ms() - before[1]


def save(costs: list[Cost]) -> None:
    """Write the costs into the file of results; those of other tables stay."""
    kept = [row for row in read_rows(RESULTS) if row["tables"] != costs[0].tables]
    new = [{n: f"{v:.1f}" if isinstance(v, float) else v for n, v in asdict(cost).items()} for cost in costs]
    rows = sorted([*kept, *new], key=lambda row: str(row["tables"]), reverse=True)
    write_rows(RESULTS, rows, [field.name for field in fields(Cost)])


# -- counts ------------------------------------------------------------------------------------------------------------


def seeded(number: int) -> np.random.Generator:
    """Of one life."""
    return np.random.default_rng([15, 2, number])


def report(what: str, lives: list[tuple[bool, bool]]) -> None:
    """One line: the counts, and the exact two-sided interval of the chance of a PASS."""
    refused, passed = (sum(one) for one in zip(*lives, strict=True))
    low, high = clopper_pearson(passed, len(lives), log_level=math.log(0.05))
    print(
        f"{what}: {passed} of {len(lives)} look-ups passed, {refused} tables refused; "
        f"chance {low:.4f} to {high:.4f} (95 %), promised {1 - RELIABILITY:.2f}",
        flush=True,
    )


def main() -> None:
    """Run it."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--lives", type=int, default=300)
    asked.add_argument("--referee-lives", type=int, default=5)
    asked.add_argument("--studies", type=int, nargs="+", default=[], help="measure registrations after so many others")
    asked.add_argument("--tables", choices=("numbers", "alike"), default="numbers", help="which tables they have")
    asked.add_argument("--save", action="store_true", help="keep the costs in benchmarks/results/sealing.csv")
    given = asked.parse_args()
    if given.studies:
        costs = []
        for cost in growth(given.tables, given.studies):
            costs.append(cost)
            print(cost, flush=True)
        if given.save:
            save(costs)
        return
    if given.lives:
        on_the_judge(range(given.lives))
    for way in ("whole table", "divided", "hidden", "no registry") if given.referee_lives else ():
        with installation() as at:
            lives = [life_through_the_referee(at, way, number) for number in range(given.referee_lives)]
        report(f"referee, {way}", lives)


def on_the_judge(seeds: range) -> None:
    """Lives with stored predictions, one for each seed."""
    report("judge, each study splits by itself", [(False, life_before(seeded(one))) for one in seeds])
    report("judge, registry, whole table disguised", [life_after(seeded(one), among=0) for one in seeds])
    narrow = ("weight", "region")
    for what, left in (("two keys", KEYS), ("one key and three words", narrow)):
        for among in (FRESH, 3 * FRESH):
            lives = [life_after(seeded(one), among=among, left=left) for one in seeds]
            report(f"judge, registry, among {among} times as many others, {what} left", lives)
    for rows, kept in ((ROWS, None), (ROWS, narrow), (FRESH * ROWS, None), (FRESH * ROWS, narrow)):
        found = np.array([life_of_others(seeded(one), rows, kept) for one in seeds])
        refused, certain, likely = found.mean(axis=0)
        low, high = clopper_pearson(int(found[:, 0].sum()), len(found), log_level=math.log(0.05))
        print(
            f"{rows:,} other rows, {'two columns' if kept else 'columns at random'}: {refused:.4f} of the tables "
            f"refused ({low:.4f} to {high:.4f}), {certain:.2%} of the rows certainly and {likely:.2%} likely known",
            flush=True,
        )


if __name__ == "__main__":
    main()
