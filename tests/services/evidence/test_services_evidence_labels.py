"""Labels that people gave: which of them a verdict rests on, and what a change behind the referee's back does."""

from __future__ import annotations

import shutil
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from evidence_office import Office
from test_services_labels import Desk

from easeml_core.services.evidence.bundle import evidence_of
from easeml_core.services.evidence.bundle_check import check_bundle
from easeml_core.services.evidence.keys import KeyFolder
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.store.rows import pack, unpack
from easeml_core.store.tables.labels import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Labelled:
    """A set whose labels people gave on demand, after a verdict on them; ``asked`` are the places that it used."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.office, self.desk = Office(lab, folder / "keys"), Desk(lab, folder)
        asked = {"study": "full", "model_id": lab.models["full"]["good"], "request_key": "asks"}
        request = file_gate_request(lab.worker, **asked)
        self.office.referee().run_once()
        wanted = self.desk.wanted(limit=len(self.desk.keys))
        self.asked = [self.desk.keys.index(key) for key in wanted]
        said = {key: int(self.desk.truth[key]) for key in wanted}
        self.desk.give("bob", {key: said[key] for key in wanted[:3]})
        self.desk.give("ann", {key: said[key] for key in wanted[1:]} | {wanted[2]: 1 - said[wanted[2]]})
        self.desk.give("referee", {wanted[2]: said[wanted[2]]})
        self.office.referee().run_once()
        assert answer_of(lab.worker, request).symbol == "pass"
        assert self.office.broken() == []

    def within(self, lab: Any, folder: Path) -> Labelled:
        """The same in a copy of the laboratory, on a host with the same keys."""
        found, found_desk = copy(self), copy(self.desk)
        found_desk.lab, found_desk.path = lab, folder / "file.csv"
        found.office, found.desk = Office(lab, shutil.copytree(self.office.keys, folder / "keys")), found_desk
        return found

    def truth(self, place: int) -> int:
        return int(self.desk.truth[self.desk.keys[place]])

    def say(self, labeler: str, place: int, label: int) -> None:
        """Let a labeler have said something, as the database's owner can."""
        lab, set_id = self.office.lab, self.desk.set_id
        found = lab.rows(
            "SELECT labels FROM sealed.labels WHERE test_set_id = :set AND labeler = :who", set=set_id, who=labeler
        )
        said = unpack(found[0][0]).copy() if found else np.full(len(self.desk.keys), UNKNOWN)
        said[place] = label
        lab.as_superuser(
            "INSERT INTO sealed.labels (test_set_id, labeler, labels) VALUES (%s, %s, %s) "
            "ON CONFLICT ON CONSTRAINT labels_pkey DO UPDATE SET labels = EXCLUDED.labels",
            *(set_id, labeler, pack(said)),
        )


@pytest.fixture(scope="module")
def judged(own_template: Any, tmp_path_factory: Any) -> Labelled:
    return Labelled(own_template(), tmp_path_factory.mktemp("labelled"))


@pytest.fixture
def labelled(judged: Labelled, copied: Any, tmp_path: Path) -> Labelled:
    return judged.within(copied(judged.office.lab), tmp_path)


LABEL_TAMPERING = {
    "an only label edited": (lambda x: x.say("bob", x.asked[0], 1 - x.truth(x.asked[0])), "labels that 'bob' gave"),
    "an only label deleted": (lambda x: x.say("ann", x.asked[5], UNKNOWN), "labels that 'ann' gave"),
    "one of two equal labels deleted": (lambda x: x.say("bob", x.asked[1], UNKNOWN), "labels that 'bob' gave"),
    "the word on a conflict deleted": (
        lambda x: x.office.lab.as_superuser("DELETE FROM sealed.labels WHERE labeler = 'referee'"),
        "labels that 'referee' gave",
    ),
    "a word of the referee added": (
        lambda x: x.say("referee", x.asked[0], 1 - x.truth(x.asked[0])),
        "labels that verdicts may have used",
    ),
    "another labeler's word added": (
        lambda x: x.say("eve", x.asked[7], 1 - x.truth(x.asked[7])),
        "labels that verdicts may have used",
    ),
}


@pytest.mark.parametrize(("tamper", "found"), LABEL_TAMPERING.values(), ids=list(LABEL_TAMPERING))
def test_a_given_label_that_a_verdict_may_have_used_is_changed_and_the_set_judges_nothing(
    labelled: Labelled, tamper: Callable[[Labelled], None], found: str
) -> None:
    chain_of_set, notary = f"set/{labelled.desk.set_id}", labelled.office.notary()
    with notary.look() as look:
        assert look.examine(chain_of_set).first_broken is None
    tamper(labelled)
    with notary.look() as look:  # also where only what changed since the last look is read
        assert found in str(look.examine(chain_of_set).first_broken)
    labelled.office.require_locked(found)
    labelled.office.notary().acknowledge([chain_of_set], who="ada", reason="ticket 4711")
    assert labelled.office.broken() == []


def test_labels_that_no_verdict_used_may_change_and_a_word_that_agrees_breaks_nothing(labelled: Labelled) -> None:
    desk, entries = labelled.desk, "SELECT count(*) FROM sealed.chain WHERE kind = 'labels'"
    assert labelled.office.lab.one(entries) == 1
    lab, keys = labelled.office.lab, labelled.office.keys
    bundle, _ = evidence_of(lab.referee, model_id=lab.models["full"]["good"], keys=keys)
    assert check_bundle(bundle, [KeyFolder(keys).key().public]).faults == ()
    desk.give("eve", {desk.keys[place]: labelled.truth(place) for place in labelled.asked[:2]})
    free = [place for place in range(len(desk.keys)) if place not in labelled.asked][:2]
    request = desk.ask(free, model="worse")  # waits for the other one
    for label in (0, 1, UNKNOWN):
        labelled.say("ann", free[0], label)
        assert labelled.office.broken() == []
    assert labelled.office.lab.one(entries) == 1
    assert (request in desk.open_requests(), answer_of(labelled.office.lab.worker, request)) == (True, None)
    desk.give("ann", {key: int(desk.truth[key]) for key in desk.wanted(limit=len(desk.keys))})
    labelled.office.referee().run_once()
    assert (labelled.office.broken(), labelled.office.lab.one(entries)) == ([], 2)
    assert answer_of(labelled.office.lab.worker, request) is not None
