"""Installations that differ in sealed labels alone, in every mode: a developer sees the same, item by item.

``same`` has other labels and the same released symbols, so all but times and what is sealed must be equal; of times,
their order. ``unlike`` has the opposite labels, so its symbols differ, and what depends on public facts or predictions
alone must be equal. All three are copies of one installation and answer the same requests.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from developer import (
    ENDLESS,
    UNRUN,
    Sight,
    client_of,
    command_lines,
    command_sight,
    database_sights,
    differences,
    event_sights,
    freeze_times,
    listening,
    page_sight,
    requests_of,
)
from installation import MODES, WRONG, Installation, other, write_table
from surfaces import commands
from tasks import UNRUN as UNRUN_TASKS
from tasks import connection_of, task_sights

from easeml_core.observable import ALPHABET, Basis, Kind, letter_of
from easeml_core.store.artifacts import ArtifactStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy as np

pytestmark = pytest.mark.timeout(900)
"""The first test makes the worlds: 20 s on a machine that does nothing else."""

AGREE = {
    "same": (Basis.PUBLIC, Basis.PREDICTIONS, Basis.SYMBOLS, Basis.TIMES),
    "unlike": (Basis.PUBLIC, Basis.PREDICTIONS),
}
"""What each of the others has in common with the first."""


LOOKED_AT = (Kind.TABLE, Kind.COLUMN, Kind.TOPIC, Kind.ROUTE, Kind.COMMAND, Kind.CLASS, Kind.EVENT)
"""Kinds of which every item is looked at, but for ``UNSEEN``."""

EMPTY = ("curves", "predictions", "remeasure_failures", "rungs", "selection_settings", "switches")
"""Tables without rows here: nothing is trained, refined or measured again, and the owner changes no policy."""

UNSEEN = {
    f"route {ENDLESS}",
    *(f"command {name}" for name in UNRUN),
    *(f"command {' '.join(words)}" for words, c in commands() if not any(p.name == "database" for p in c.params)),
    *(
        f"class {name}"
        for name in [*UNRUN_TASKS, "EasemlNotifier", "FunctionNotifier", "MailNotifier", "WebhookNotifier"]
    ),
    "class trial",
    *("topic CHANNEL trial", "topic NEWS_CHANNEL study", "topic REFEREE_CHANNEL study"),
    *("topic private_channel labels", "topic private_channel request"),
}
"""What is not looked at: commands without a database, what trains or needs a server, and the referee's own channel."""

UNSEEN_VALUES = {
    *("work.alerts.kind=drift", "work.meter_readings.drift=certain", "work.meter_readings.drift=likely"),
    *("work.test_sets.retired_why=failure", "work.test_sets.retired_why=signals"),
    *("work.test_sets.retired_why=regulation", "work.test_sets.retired_why=overlap"),
    *("work.test_sets.state=planned", "work.test_sets.state=sealed", "work.test_sets.state=released"),
    "work.promotions.symbol=withheld",
}
"""Values that need not occur: a released set is open, and what a referee plans or seals is no answer."""


def few_others(study: str, labels: np.ndarray) -> np.ndarray:
    """Change so many labels that every count differs and no symbol does; all of them where verdicts are withheld."""
    if study == "hidden" and len(labels) > 100:
        return other(labels)
    changed, first = labels.copy(), round(WRONG["good"] * len(labels))  # before these the good model is wrong
    changed[first : first + len(labels) // 33] = other(labels)[first : first + len(labels) // 33]
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
        self.sights: dict[str, list[Sight]] = {}

    def all_sights(self) -> list[Sight]:
        """Sights of every group but the log lines, which are the referee's, too, and the catalogue."""
        groups = ("database", "notified", "event", "page", "command")
        return [s for group in groups for s in self.sights[group] if s.kind is not Kind.CATALOGUE]

    def live(self) -> None:
        logger, heard = logging.getLogger("easeml_core"), _Heard()
        level = logger.level
        logger.addHandler(heard)
        logger.setLevel(logging.DEBUG)
        self.installation.look = partial(database_sights, catalogue=False)
        try:
            with listening(self.lab) as notified:
                self.answers = self.installation.live()
        finally:
            logger.removeHandler(heard)
            logger.setLevel(level)
        waits = [
            Sight(sight.kind, sight.name, f"{sight.where} while {study} waits for labels", sight.value)
            for study, sights in self.installation.waits.items()
            for sight in sights
        ]
        modules = dict.fromkeys(name for name, _ in heard.lines)
        self.sights["log"] = [Sight(Kind.LOG, m, "", [t for n, t in heard.lines if n == m]) for m in modules]
        self.sights["notified"] = notified
        self.sights["database"] = [*database_sights(self.lab), *waits]


@pytest.fixture(scope="module")
def quiet_server() -> Iterator[Any]:
    """A server without autovacuum: what it counts, and its numbers of transactions, then follow from requests alone."""
    from easeml_core.store import schema
    from easeml_core.store.database import Store
    from easeml_core.store.server_throwaway import throwaway_server

    with throwaway_server(autovacuum="off") as running:
        running.ensure_installation()
        owner = Store(running.url("easeml_owner", "easeml"))
        schema.upgrade(owner)
        owner.close()
        yield running


@pytest.fixture(scope="module")
def worlds(quiet_server: Any, lab_opener: Any, tmp_path_factory: Any) -> Iterator[Mapping[str, World]]:
    folder = tmp_path_factory.mktemp("worlds")
    first = lab_opener(quiet_server, "easeml", ArtifactStore(folder / "artifacts"))
    furnished = Installation(first, folder)
    furnished.furnish()
    first.close()
    made = {}
    for name, change in CHANGES.items():
        lab = lab_opener(quiet_server, first.name, first.artifacts)
        made[name] = World(Installation(lab, folder, furnished.truth, furnished.models))
        made[name].installation.relabel(change)
    for world in made.values():
        world.live()
        freeze_times(world.lab)
    looks = Looks(made, folder)
    looks.at_events()
    looks.at_pages("page", "GET", looks.studies)
    looks.at_commands()
    with pytest.MonkeyPatch.context() as patch:
        looks.at_tasks(patch)
    looks.at_pages("form", "POST", FEW)
    for name in ("ours", "same"):
        made[name].sights["afterwards"] = database_sights(made[name].lab)
    yield made
    for world in made.values():
        world.lab.close()


FEW = ("full", "hidden")
"""Studies of which everything is looked at in all worlds; of the others, in two worlds, what may depend on symbols."""


class Looks:
    """Looks at all worlds in turn at each page, command and task, so that the clock moves little in between."""

    def __init__(self, worlds: Mapping[str, World], folder: Path) -> None:
        self.worlds, self.folder = worlds, folder
        ours = worlds["ours"]
        self.models = ours.installation.models
        self.trials = [i for (i,) in ours.lab.rows("SELECT id FROM work.trials ORDER BY id LIMIT 2")]
        self.requests = [i for (i,) in ours.lab.rows("SELECT id FROM work.requests ORDER BY id")]
        self.studies = [*FEW, *(study for study in MODES if study not in FEW)]
        self.clients = {name: client_of(world.lab) for name, world in worlds.items()}
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
            world.sights["event"] = event_sights(world.lab, MODES, self.requests, self.trials)

    def at_pages(self, what: str, method: str, studies: Iterable[str]) -> None:
        numbers = {"trial_id": self.trials, "request_id": self.requests[:20]}
        bindings = {name: [str(n) for n in found] for name, found in numbers.items()}
        bindings |= {"study": list(studies), "tenant": ["lab"], "name": ["page.js"]}
        ids = {"model": self.models["full"]["bad"], "submission": 1, "test_set": 1}
        for asked in requests_of(self.clients["ours"], bindings, [method]):
            study = next((part for part in asked[2].split("/") if part in MODES), None)
            if asked[3] and study not in (None, *FEW):
                continue
            for name in self.wanted(Kind.ROUTE, f"{method} {asked[1]}", study):
                sight = page_sight(self.worlds[name].lab, self.clients[name], asked, ids)
                self.worlds[name].sights.setdefault(what, []).append(sight)

    def at_commands(self) -> None:
        for study in self.studies:
            given = {"model_id": self.models[study]["good"], "trial_id": self.trials[0], "handle": 1}
            for command, line in command_lines(study, given, self.folder, is_first=study == FEW[0]):
                for name in self.wanted(Kind.COMMAND, command, study):
                    sight = command_sight(self.worlds[name].lab, command, line, study, self.folder)
                    self.worlds[name].sights.setdefault("command", []).append(sight)

    def at_tasks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("ours", "same"):
            world = self.worlds[name]
            monkeypatch.setenv("AIRFLOW_CONN_EASEML_DEFAULT", connection_of(world.lab))
            for study in MODES:
                pairs = [{"inputs": {"a": 1, "b": 2, "side": "east"}, "label": "no"}]
                given = {"study": study, "model_id": self.models[study]["better"], "gate_request_id": 1, "alert_id": 1}
                given |= {"path": str(self.folder / "handed-in"), "format": "constant", "message": "mine"}
                given |= {"why": "because", "pairs": pairs, "trial": {"trial_id": self.trials[0], "study": study}}
                sights = task_sights(world.lab, world.installation.answer_all, given, study)
                world.sights.setdefault("task", []).extend(sights)


WHAT = ("database", "notified", "log", "event", "page", "command", "form")
"""Groups of sights."""


@pytest.mark.parametrize(("world", "what"), [*product(AGREE, WHAT), ("same", "task"), ("same", "afterwards")])
def test_a_developer_sees_the_same_item_by_item(worlds: Mapping[str, World], world: str, what: str) -> None:
    found = differences(worlds["ours"].sights[what], worlds[world].sights[what], AGREE[world])
    assert not found, f"{len(found)} items tell of sealed labels:\n" + "\n".join(found[:40])


def test_answers_are_the_same_where_the_symbols_are(worlds: Mapping[str, World]) -> None:
    ours, same = (worlds[name].answers for name in ("ours", "same"))
    assert len(ours) == len(same)
    assert [(a, b) for a, b in zip(ours, same, strict=True) if a != b] == []


def test_the_server_has_as_many_transactions_whatever_the_labels(worlds: Mapping[str, World]) -> None:
    """Not where looking stops early and labels are given on demand: there they tell how many (LABEL_COUNT)."""
    counts = [[t for t in worlds[n].installation.transactions if t[0] != "asked"] for n in ("ours", "same")]
    assert counts[0] == counts[1]


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
    unseen = sorted(i.name for i in ALPHABET if i.kind is Kind.VALUE and i.name not in found)
    assert set(unseen) <= UNSEEN_VALUES, f"the values that no world has are {unseen}"
    assert lab.one("SELECT count(*) FROM work.gate_verdicts WHERE cached") > 0
    assert lab.one("SELECT count(*) FROM work.answers WHERE refused") > 0


def test_every_item_of_the_alphabet_was_looked_at(worlds: Mapping[str, World]) -> None:
    seen = {(sight.kind, sight.name) for sights in worlds["ours"].sights.values() for sight in sights}
    unseen = sorted(f"{i.kind} {i.name}" for i in ALPHABET if i.kind in LOOKED_AT and (i.kind, i.name) not in seen)
    empty = {f"column {i.name}" for i in ALPHABET if i.kind is Kind.COLUMN and i.name.split(".")[1] in EMPTY}
    assert set(unseen) <= UNSEEN | empty, f"nothing looks at {sorted(set(unseen) - UNSEEN - empty)}"
