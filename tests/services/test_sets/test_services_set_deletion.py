"""A set that never served is deleted, with all that is sealed in it; one that has served stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from brought import content, gate_sets, retire, seal, states

from easeml_core.errors import InvalidInputError, NotFoundError, StateError
from easeml_core.services.evidence.notary import Notary
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.reports.assessments import out_of_step
from easeml_core.services.test_sets import lifecycle, release
from easeml_core.store.tables import chain
from easeml_core.store.tables.chained_rows import of_set

if TYPE_CHECKING:
    from pathlib import Path

SEALED = ("predictions", "labels", "cells", "examples", "wanted")


def delete(lab: Any, keys: Path | None, test_set: str | int, **more: Any) -> release.DeletedSet:
    notary = Notary(lab.referee, keys)
    return release.delete_test_set(notary, test_set=test_set, who="ruth", why="the wrong file", **more)


def broken(lab: Any, keys: Path) -> list[str]:
    with Notary(lab.referee, keys).look() as look:
        return [str(one) for name in chain.names(look.tx) if (one := look.examine(name).first_broken)]


def test_what_is_sealed_in_a_set_goes_and_its_examples_stay_known(lab: Any, bring: Any, tmp_path: Path) -> None:
    keys, brought = tmp_path / "keys", bring()
    number = seal(lab, brought, name="spring").test_set_id
    registered = lab.one("SELECT count(*) FROM sealed.registry WHERE test_set_id = :id", id=number)
    tried = delete(lab, keys, "spring", dry_run=True)
    assert (tried.rows, tried.changed, len(content(lab, number)[2])) == (300, False, 300)
    assert delete(lab, keys, "spring").changed
    for table in SEALED:
        assert lab.one(f"SELECT count(*) FROM sealed.{table} WHERE test_set_id = :id", id=number) == 0, table
    kept = "SELECT octet_length(inputs) + octet_length(labels), keys, slices FROM sealed.test_sets WHERE id = :id"
    assert lab.rows(kept, id=number) == [(0, None, None)]
    assert states(lab) == [(None, "live")]
    assert lab.one("SELECT count(*) FROM sealed.registry WHERE test_set_id = :id AND state = 'sealed'", id=number) == (
        registered
    )
    acts = "SELECT after ->> 'name', reason FROM work.audit WHERE act = 'set deleted'"
    assert lab.rows(acts) == [("spring", "the wrong file")]
    assert broken(lab, keys) == []
    assert not delete(lab, keys, number).changed  # a second time
    with pytest.raises(NotFoundError):
        delete(lab, keys, "spring")
    with pytest.raises(InvalidInputError, match=r"300 of 300 .* installation has"):
        seal(lab, brought, name="spring")
    again = seal(lab, bring(seed=2), name="spring")
    assert (again.sealed_before, again.rows) == (False, 300)
    assert out_of_step(lab.worker) == []


def test_what_is_changed_afterwards_is_found_in_its_chain(lab: Any, bring: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    number = seal(lab, bring(), name="spring").test_set_id
    delete(lab, keys, number)
    lab.as_superuser("UPDATE sealed.test_sets SET labels = 'x' WHERE id = %s", number)
    assert [of_set(number) in one for one in broken(lab, keys)] == [True]


def test_a_set_whose_evidence_is_broken_is_not_deleted(lab: Any, bring: Any, tmp_path: Path) -> None:
    number = seal(lab, bring(), name="spring").test_set_id
    lab.as_superuser("UPDATE sealed.test_sets SET labels = 'x' WHERE id = %s", number)
    with pytest.raises(StateError, match=f"chain set/{number} is broken"):
        delete(lab, tmp_path / "keys", number)
    assert states(lab)[-1] == ("spring", "sealed")


def test_a_set_that_served_or_is_in_use_stays(lab: Any, tmp_path: Path) -> None:
    first = gate_sets(lab)[-1].test_set_id
    with pytest.raises(StateError, match=f"{first} is live.*retired first"):
        delete(lab, tmp_path / "keys", first)
    lab.gate("good")
    retire(lab, first)
    with pytest.raises(StateError, match=f"{first} has served"):
        delete(lab, tmp_path / "keys", first)


def test_a_set_of_which_labels_were_asked_has_served(lab: Any, bring: Any, tmp_path: Path) -> None:
    """Which labels are asked for tells where two models differ."""
    first = gate_sets(lab)[-1].test_set_id
    retire(lab, first)
    number = seal(lab, bring(), name="spring", labelled=False).test_set_id
    lab.as_superuser("UPDATE work.test_sets SET state = 'live' WHERE id = %s AND state = 'sealed'", number)
    file_gate_request(lab.worker, study="full", model_id=lab.models["full"]["good"], request_key="asks")
    lab.answer_all()
    assert lab.one("SELECT count(*) FROM sealed.wanted WHERE test_set_id = :id", id=number) == 1
    retire(lab, number)
    with pytest.raises(StateError, match="spring has served"):
        delete(lab, tmp_path / "keys", number)


def test_a_planned_set_is_deleted_and_its_name_planned_again(lab: Any) -> None:
    plan = {"study": "full", "name": "next", "settings": {"steps": 2}}
    number = lifecycle.plan_test_set(lab.referee, **plan).test_set_id
    assert delete(lab, None, "next", study="full").changed
    assert lifecycle.plan_test_set(lab.referee, **plan).test_set_id != number
