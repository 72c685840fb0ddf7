"""Installations that differ in sealed labels alone, in every mode: a developer sees the same, item by item.

``same`` has other labels and the same released symbols, so all but times and what is sealed must be equal; of times,
their order. ``unlike`` has the opposite labels, so its symbols differ, and what depends on public facts or predictions
alone must be equal. All three are copies of one installation and answer the same requests.
"""

from __future__ import annotations

import importlib
import logging
import math
from datetime import timedelta
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from alphabet import ALPHABET, Basis, Kind, Letter, letter_of
from any_tenant import AnyTenant
from databases import warm
from developer import (
    VIEWERS,
    Sight,
    age_offers,
    clients_of,
    command_lines,
    command_sight,
    database_sights,
    differences,
    event_sights,
    freeze_times,
    is_usage_error,
    listening,
    page_sight,
    requests_of,
    stream_sight,
)
from every_mode import DELAYED, MODES, WRONG, Installation, other, write_table
from neutral import Neutral
from surfaces import arguments_of, commands, modes, options_of
from tasks import BROKEN, Told, connection_of, notified_sights, task_sights
from tasks import DRIVEN as DRIVEN_ARGUMENTS
from undriven import UNDRIVEN

from easeml_airflow.web.pages.compute import backtest
from easeml_core.formats.attestation import SigningKey
from easeml_core.store.tables import referee_claims

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy as np

pytestmark = [pytest.mark.timeout(2400), pytest.mark.journey]  # 514 s were seen beside four others on two slow cores
"""The first test makes the worlds: 20 s on a machine that does nothing else."""

AGREE = {
    "same": (Basis.PUBLIC, Basis.PREDICTIONS, Basis.SYMBOLS, Basis.TIMES, Basis.RANDOM),
    "unlike": (Basis.PUBLIC, Basis.PREDICTIONS),
}
"""What each of the others has in common with the first."""


LOOKED_AT = (Kind.TABLE, Kind.COLUMN, Kind.TOPIC, Kind.ROUTE, Kind.COMMAND, Kind.CLASS, Kind.EVENT, Kind.LOG)
"""Kinds of which every item is driven but what ``UNDRIVEN`` names; no developer can read a log of the letter SEALED."""


def few_others(study: str, labels: np.ndarray) -> np.ndarray:
    """Change so many labels that every count differs and no symbol does; all of them where verdicts are withheld."""
    if study == "hidden" and len(labels) > 100:
        return other(labels)
    changed, first = labels.copy(), round(WRONG["good"] * len(labels))  # before these the good model is wrong
    few = len(labels) // (100 if study == "sliced" else 33)
    changed[first : first + few] = other(labels)[first : first + few]
    return changed


CHANGES = {"ours": lambda _study, labels: labels, "same": few_others, "unlike": lambda _study, labels: other(labels)}


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.getMessage()))


class World:
    """One installation that has lived, and the sights of it."""

    def __init__(self, installation: Installation) -> None:
        self.installation, self.lab = installation, installation.lab
        self.neutral = Neutral(self.lab)
        self.sights: dict[str, list[Sight]] = {}
        self.driven: set[str] = set()

    def all_sights(self) -> list[Sight]:
        """Sights of every group but the log lines, which are the referee's, too, and the catalogue."""
        groups = ("database", "notified", "event", "page", "command")
        return [s for group in groups for s in self.sights[group] if s.kind is not Kind.CATALOGUE]

    def live(self) -> None:
        logger, heard = logging.getLogger("easeml_core"), _Heard()
        level = logger.level
        logger.addHandler(heard)
        logger.setLevel(logging.DEBUG)
        self.installation.look = partial(database_sights, neutral=self.neutral, catalogue=False)
        try:
            with listening(self.lab) as notified:
                self.answers = self.installation.live()
        finally:
            logger.removeHandler(heard)
            logger.setLevel(level)
        waits = [
            Sight(sight.kind, sight.name, f"{sight.where} while {asked} waits", sight.value)
            for asked, sights in self.installation.waits.items()
            for sight in sights
        ]
        modules = dict.fromkeys(name for name, _ in heard.lines)
        self.sights["log"] = [Sight(Kind.LOG, m, "", [t for n, t in heard.lines if n == m]) for m in modules]
        self.sights["notified"] = notified
        self.sights["database"] = [*database_sights(self.lab, self.neutral), *waits]


@pytest.fixture(scope="module")
def quiet_server() -> Iterator[Any]:
    """A server without autovacuum: what it counts, and its numbers of transactions, then follow from requests alone."""
    from easeml_core.store import schema
    from easeml_core.store.database import Store
    from easeml_core.store.server.server import throwaway_server

    with throwaway_server(autovacuum="off") as running:
        running.ensure_installation()
        owner = Store(running.url("easeml_owner", "easeml"))
        schema.upgrade(owner)
        owner.close()
        yield running


@pytest.fixture(scope="module")
def same_referee() -> Iterator[None]:
    """A referee that has just said that it lives: when it last did so follows from the clock of its process alone."""
    with pytest.MonkeyPatch.context() as patch:
        life = referee_claims.RefereeLife(alive=1, workers=1, answer_seconds=0.0, beat_seconds=0.0)
        patch.setattr(referee_claims, "referee_life", lambda _: life)
        yield


@pytest.fixture(scope="module")
def worlds(
    quiet_server: Any, template_maker: Any, tmp_path_factory: Any, same_referee: None
) -> Iterator[Mapping[str, World]]:
    folder = tmp_path_factory.mktemp("worlds")
    first = template_maker(quiet_server, "easeml", AnyTenant(folder / "artifacts"))
    key = SigningKey.new()
    furnished = Installation(first, folder)
    furnished.furnish()
    first.close()
    made = {}
    for name, change in CHANGES.items():
        lab = template_maker(quiet_server, first.name, first.artifacts)
        made[name] = World(Installation(lab, folder, furnished.truth, furnished.models, key))
        made[name].installation.relabel(change)
    for world in made.values():
        world.live()
        freeze_times(world.lab)
    names = [world.lab.name for world in made.values()]
    with warm(quiet_server, names), pytest.MonkeyPatch.context() as always:  # each look would connect anew
        always.setattr(backtest, "REPEATS", 1)
        always.setattr(backtest, "LONGEST_SECONDS", 600.0)  # what else the machine does is not compared
        looks = Looks(made, folder)
        looks.at_events()
        looks.at_pages("page", "GET", looks.studies)
        looks.at_commands()
        looks.at_pages("form", "POST", FEW)  # before the tasks, which change something in two worlds alone
        with pytest.MonkeyPatch.context() as patch:
            looks.at_tasks(patch)
        looks.at_streams()
        looks.at_commands(options=True)
    for name in ("ours", "same"):
        made[name].sights["afterwards"] = database_sights(made[name].lab, made[name].neutral)
    made["ours"].driven = looks.driven
    yield made
    for world in made.values():
        world.lab.close()


FEW = ("full", "hidden")
"""Studies of which everything is looked at in all worlds; of the others, in two worlds, what may depend on symbols."""


class Looks:
    """Looks at all worlds in turn at each page, command and task, so that the clock moves little in between."""

    def __init__(self, worlds: Mapping[str, World], folder: Path) -> None:
        self.worlds, self.folder = worlds, folder
        self.driven: set[str] = set()
        ours = worlds["ours"]
        self.models = ours.installation.models
        self.trials = [i for (i,) in ours.lab.rows("SELECT id FROM work.trials ORDER BY id LIMIT 2")]
        self.requests = [i for (i,) in ours.lab.rows("SELECT id FROM work.requests ORDER BY id")]
        self.studies = [*FEW, *(study for study in MODES if study not in FEW)]
        self.clients = {
            (name, viewer): client for name, world in worlds.items() for viewer, client in clients_of(world.lab).items()
        }
        (folder / "handed-in").write_text('{"label": 1}')
        write_table(folder / "rows.csv", 5, seed=7, labels=folder / "rows-labels.csv")

    def wanted(self, kind: Kind, name: str, study: str | None) -> list[str]:
        """The worlds in which an item is looked at for a study, or for none."""
        letter = letter_of(kind, name)
        follows = letter is not None and letter.basis in (Basis.SYMBOLS, Basis.TIMES)
        if study is None or study in FEW:
            return list(self.worlds)
        return ["ours", "same"] if follows else []

    def at_events(self) -> None:
        for world in self.worlds.values():
            world.sights["event"] = event_sights(world.lab, world.neutral, MODES, self.requests, self.trials)

    def at_pages(self, what: str, method: str, studies: Iterable[str]) -> None:
        numbers = {"trial_id": self.trials, "request_id": self.requests[:20]}
        bindings = {name: [str(n) for n in found] for name, found in numbers.items()}
        bindings |= {"study": list(studies), "tenant": ["lab"], "name": ["page.js"]}
        ids = {"model": self.models["full"]["bad"], "submission": 1, "set": 1}
        for asked in requests_of(self.clients["ours", "developer"], bindings, [method]):
            study = next((part for part in asked.path.split("/") if part in MODES), None)
            if asked.names and study not in (None, FEW[0]):
                continue
            few = asked.names or study not in (None, FEW[0])
            for viewer in ("developer",) if few else VIEWERS:
                for name in self.wanted(Kind.ROUTE, f"{method} {asked.route}", study):
                    world = self.worlds[name]
                    sight = page_sight(world.neutral, self.clients[name, viewer], asked, ids, viewer)
                    world.sights.setdefault(what, []).append(sight)

    def at_streams(self) -> None:
        """The stream of news from its beginning to its end, which comes at once."""
        for name in ("ours", "same"):
            world = self.worlds[name]
            world.sights["stream"] = [
                stream_sight(world.neutral, self.clients[name, viewer], viewer) for viewer in VIEWERS
            ]

    def at_commands(self, *, options: bool = False) -> None:
        """Every command; with options, of the first study in two worlds, since lines that change something stay."""
        for study in FEW[:1] if options else self.studies:
            given = {"model_id": self.models[study]["good"], "trial_id": self.trials[0], "handle": 1}
            lines = command_lines(study, given, self.folder, is_first=study == FEW[0], options=options)
            for line in lines:
                for name in ("ours", "same") if options else self.wanted(Kind.COMMAND, line.name, study):
                    world = self.worlds[name]
                    sight = command_sight(world.lab, world.neutral, line, self.folder)
                    world.sights.setdefault("option" if options else "command", []).append(sight)
                    if line.option is not None and not is_usage_error(sight):
                        self.driven.add(f"{line.name} {line.option}")

    def at_tasks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("ours", "same"):
            world = self.worlds[name]
            monkeypatch.setenv("AIRFLOW_CONN_EASEML_DEFAULT", connection_of(world.lab))
            airflow = Told()
            airflow.take_variables(monkeypatch)
            airflow.take_questions(monkeypatch)
            for study in MODES:
                age_offers(world.lab)
                pairs = [{"inputs": {"a": 1, "b": 2, "side": "east"}, "label": "no"}]
                given = {"study": study, "model_id": self.models[study]["better"], "gate_request_id": 1, "alert_id": 1}
                given |= {"path": str(self.folder / "handed-in"), "format": "constant", "message": "mine"}
                given |= {"why": "because", "pairs": pairs, "trial": {"trial_id": self.trials[0], "study": study}}
                given |= {"easeml_conn_id": "easeml_default", "deferrable": True, "poll_interval": 0.1}
                given |= {"tenant": "lab", "source": f"csv:{study}.csv", "target": "y", "reason": "because"}
                given |= {"until": 1e-9, "max_trials": 1, "studies": [study], "count": 1, "most": 5}
                given |= {"at_least": 1, "devices": ["cpu"], "otherwise": ["cpu"]}
                given |= {"response_timeout": timedelta(days=1), "answers": str(self.folder / "out-answers.csv")}
                given |= {"inputs": [{"a": 1, "b": 2, "side": "east"}]}
                given |= {"models": [{"study": study, "model_id": self.models[study]["better"]}], "chunk_size": 1}
                told = {"outcome": "rejected", "symbol": "fail", "signal": 1, "alert": None, "message": ""}
                given |= {"released": [given["models"][0] | told | {"meter_refusal": None}], "place": 0}
                sights = task_sights(
                    world.neutral, world.installation.answer_all, given, study, is_tried_again=study == FEW[0]
                )
                world.sights.setdefault("task", []).extend(sights)
            world.sights["task"].append(
                Sight(Kind.CLASS, "ListStudiesOperator", "in Airflow", world.neutral.text(repr(airflow.heard)))
            )
            world.sights["task"].extend(notified_sights(world.neutral, monkeypatch))


WHAT = ("database", "notified", "log", "event", "page", "command", "form")
"""Groups of sights of all worlds."""

ALSO = ("task", "stream", "option", "afterwards")
"""Groups of sights of the two worlds with the same symbols."""


@pytest.mark.parametrize(("world", "what"), [*product(AGREE, WHAT), *(("same", what) for what in ALSO)])
def test_a_developer_sees_the_same_item_by_item(worlds: Mapping[str, World], world: str, what: str) -> None:
    found = differences(worlds["ours"].sights[what], worlds[world].sights[what], AGREE[world])
    assert not found, f"{len(found)} items tell of sealed labels:\n" + "\n".join(found[:40])


def test_answers_are_the_same_where_the_symbols_are(worlds: Mapping[str, World]) -> None:
    ours, same = (worlds[name].answers for name in ("ours", "same"))
    assert len(ours) == len(same)
    assert [(a, b) for a, b in zip(ours, same, strict=True) if a != b] == []


def test_the_server_has_as_many_transactions_whatever_the_labels(worlds: Mapping[str, World]) -> None:
    """Not where answers leave on a grid: how often the referee looks whether it is time follows from the clock.

    Where looking stops early and labels are given on demand, too, transactions tell how many labels (LABEL_COUNT).
    """
    counts = [[t for t in worlds[n].installation.transactions if t[0] not in DELAYED] for n in ("ours", "same")]
    assert counts[0] == counts[1]


def test_the_server_has_moved_as_many_large_values_whatever_the_labels(worlds: Mapping[str, World]) -> None:
    ours, same = (worlds[name].installation.large_values for name in ("ours", "same"))
    assert ours == same
    assert max(drawn for study, drawn in ours if study == "hidden") >= 6  # ledger, outbox and mail: two of each


def test_the_worlds_differ_in_the_reports_of_every_study(worlds: Mapping[str, World]) -> None:
    """A verdict uses no label of an example where the models agree, so a few reports are the same."""
    ours, same = (worlds[name].installation.reports() for name in ("ours", "same"))
    assert len(ours) == len(same) > 5 * len(MODES)
    differing = [a[0] for a, b in zip(ours, same, strict=True) if a != b]
    assert set(differing) == set(MODES)
    assert len(differing) > 0.9 * len(ours)


def test_the_comparison_notices_other_symbols(worlds: Mapping[str, World]) -> None:
    groups = ("database", "notified", "event", "page", "command")
    ours, unlike = ([s for what in groups for s in worlds[name].sights[what]] for name in ("ours", "unlike"))
    found = "\n".join(differences(ours, unlike, AGREE["same"]))
    for item in (
        "'work.gate_verdicts.symbol'",
        "'CHANNEL production'",
        "'news rejection'",
        "'GET /studies/{study}/gate'",
    ):
        assert item in found, item


def test_every_head_that_left_is_a_hash_of_its_own(worlds: Mapping[str, World]) -> None:
    """Heads are compared by their place, which is sound where none occurs twice, in one installation or in two."""
    for world in worlds.values():
        world.neutral.text("0" * 64)  # a hash that is not known makes it look at all that left
    heads = [head for world in worlds.values() for head in world.neutral.heads]
    assert len(heads) > 3 * len(MODES) * len(worlds)
    assert len(set(heads)) == len(heads)
    lefts, sets, named = worlds["ours"].lab.rows(
        "SELECT count(*), count(DISTINCT test_set_id), count(DISTINCT head) FROM work.evidence"
    )[0]
    assert named == lefts >= sets


def test_no_figure_of_any_report_can_be_found(worlds: Mapping[str, World]) -> None:
    """What both worlds show, such as the loss on the open validation part, is no figure of one of them alone."""
    ours, unlike = ({_key(s): s for s in worlds[name].all_sights()} for name in ("ours", "unlike"))
    shown, elsewhere = (
        repr([sights[k].value for k in sorted(ours.keys() & unlike.keys())]) for sights in (ours, unlike)
    )
    figures = {repr(f) for _, report in worlds["ours"].installation.reports() for f in _floats(report)}
    long = {figure for figure in figures if len(figure) > 10}
    assert len(long) > 100
    assert [figure for figure in long if figure in shown and figure not in elsewhere] == []


def _key(sight: Sight) -> tuple[str, str, str]:
    return sight.kind, sight.name, sight.where


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _floats(part)
    elif isinstance(value, float) and math.isfinite(value):
        yield value


def test_the_worlds_have_seen_every_symbol_state_and_alert(worlds: Mapping[str, World]) -> None:
    lab = worlds["ours"].lab
    found = {
        value
        for name in [item.name for item in ALPHABET if item.kind is Kind.VALUE]
        for table, _, column in [name.partition("=")[0].rpartition(".")]
        for (value,) in lab.rows(f"SELECT '{table}.{column}=' || {column} FROM {table}")
    }
    unseen = {i.name for i in ALPHABET if i.kind is Kind.VALUE and i.name not in found}
    known = {item.name for item in UNDRIVEN if item.kind is Kind.VALUE}
    assert unseen == known, (
        f"no world has {sorted(unseen - known)}; UNDRIVEN names {sorted(known - unseen)} for nothing"
    )
    assert lab.one("SELECT count(*) FROM work.gate_verdicts WHERE cached") > 0
    assert lab.one("SELECT count(*) FROM work.answers WHERE refused") > 0


def test_what_is_driven_runs(worlds: Mapping[str, World]) -> None:
    """An error of the tests' own, or a defect, is the same everywhere and would hide what should be compared."""
    sights = [sight for sights in worlds["ours"].sights.values() for sight in sights]
    failed = [s for s in sights if s.kind is Kind.ROUTE and (s.value[0] >= 500 or s.value[0] == 422)]
    failed += [s for s in sights if s.kind is Kind.COMMAND and s.value[0] not in (0, 1, 2)]
    assert [(s.name, s.where, s.value) for s in failed] == []
    assert BROKEN == [], "\n".join(BROKEN[:10])


def existing() -> set[str]:
    """Every item that a developer can read, every parameter of it and every setting, as ``Undriven`` names them."""
    found = {f"{i.kind} {i.name}" for i in ALPHABET if i.kind in LOOKED_AT and i.letter is not Letter.SEALED}
    found |= {f"{i.kind} {i.name}" for i in ALPHABET if i.kind in (Kind.COMMAND, Kind.ROUTE)}
    for words, command in commands():
        name = " ".join(words)
        if any(p.name == "database" for p in command.params) and letter_of(Kind.COMMAND, name) is not Letter.SEALED:
            options = [str(p.name) if p.param_type_name == "argument" else p.opts[0] for p in options_of(command)]
            found |= {f"{Kind.COMMAND} {name} {option}" for option in options}
    for package in ("operators", "sensors", "notifications"):
        module = importlib.import_module(f"easeml_airflow.{package}")
        found |= {f"{Kind.CLASS} {name} {a}" for name in module.__all__ for a in arguments_of(getattr(module, name))}
    return found | {f"setting {mode}" for mode in modes()}


def test_all_that_exists_is_driven_but_what_is_named_with_a_reason(worlds: Mapping[str, World]) -> None:
    ours = worlds["ours"]
    driven = {f"{sight.kind} {sight.name}" for sights in ours.sights.values() for sight in sights}
    driven |= {f"{Kind.COMMAND} {name}" for name in ours.driven} | {f"{Kind.CLASS} {name}" for name in DRIVEN_ARGUMENTS}
    driven |= {f"setting {mode}" for mode in ours.installation.modes()}
    undriven = existing() - driven
    known = {f"{item.kind or 'setting'} {item.name}" for item in UNDRIVEN if item.kind is not Kind.VALUE}
    # A parameter of what is not driven, and a column of a table without rows, need no entry of their own.
    named = {name: {name, name.rpartition(" ")[0], f"{name.rpartition('.')[0]}.*"} & known for name in undriven}
    missing = sorted(name for name, by in named.items() if not by)
    assert not missing, f"drive these, or name them in undriven.py with the reason: {missing}"
    gone = sorted(known - set().union(*named.values()))
    assert not gone, f"undriven.py names what is driven by now, or is gone: {gone}"
    assert all(item.why.endswith(".") for item in UNDRIVEN)
