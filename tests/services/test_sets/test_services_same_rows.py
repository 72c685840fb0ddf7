"""The same rows in two studies: known in whatever order columns and words come, not handed out while in use."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from any_tenant import AnyTenant
from registering import register_study

from easeml_core.errors import AlreadyExistsError, InvalidInputError, StateError
from easeml_core.services.datasets.validation_sets import replace_validation
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration import sealing
from easeml_core.services.test_sets.release import fetch_test_set, release_test_set
from easeml_core.services.test_sets.row_registry import OTHERS_WORDS
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from pathlib import Path

from brought import retire, seal, write

SETTINGS = {
    "gate": {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"},
    "meter": {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4},
    "target": "label",
}
WORDS = ("south", "west", "north")


def table(seed: int, words: tuple[str, ...], rows: int = 600) -> dict[str, list[Any]]:
    """Columns of a table in which the words occur in this order of frequency."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.uniform(1, 9, (rows, 2)), 4)
    return {
        "region": [words[0 if i % 10 < 5 else 1 if i % 10 < 8 else 2] for i in range(rows)],
        "age": values[:, 0].tolist(),
        "dose": values[:, 1].tolist(),
        "label": [("no", "yes")[i % 2] for i in range(rows)],
    }


def register(
    lab: Any,
    place: Path,
    study: str,
    content: dict[str, list[Any]],
    order: str = "region age dose",
    tenant: str = "lab",
) -> Any:
    """Register a table of a tenant as a study, its columns in an order."""
    folder = place / "data" / tenant
    folder.mkdir(parents=True, exist_ok=True)
    names = [*order.split(), "label"]
    write(folder / f"{study}.csv", [names, *zip(*(content[name] for name in names), strict=True)])
    asked = SETTINGS | {"tenant": tenant, "source": f"csv:{study}.csv", "request_key": lab.key()}
    filed = register_study(lab.worker, study=study, **asked)
    while Referee(lab.referee, lab.artifacts, data=place / "data").answer_one() is not None:
        pass
    return answer_of(lab.worker, filed.request_id)


def names_of(lab: Any, study: str) -> list[str] | None:
    with lab.worker.begin() as tx:
        return studies.feature_names(tx, studies.latest_data_version(tx, studies.get_study(tx, study).id).id)


@pytest.fixture(scope="module")
def with_both(templates: Any, tmp_path_factory: Any) -> Any:
    """Two studies of one tenant on other rows, whose words and columns come in other orders."""
    folder = tmp_path_factory.mktemp("two")
    lab = templates("easeml", AnyTenant(folder / "artifacts"))
    assert not register(lab, folder, "one", table(1, WORDS)).refused
    assert not register(lab, folder, "two", table(2, WORDS[::-1]), order="dose region age").refused
    assert names_of(lab, "one") == ["region=south", "region=west", "region=north", "age", "dose"]
    assert names_of(lab, "two") == ["dose", "region=north", "region=west", "region=south", "age"]
    return lab


@pytest.fixture
def two(with_both: Any, copied: Any) -> Any:
    return copied(with_both)


@pytest.fixture
def new(tmp_path: Path) -> Any:
    """Files with rows that neither study has."""
    content = table(3, WORDS, rows=300)
    keys = [f"p{i}" for i in range(300)]
    inputs = write(
        tmp_path / "new.csv",
        [["example", *content][:-1], *zip(keys, content["region"], content["age"], content["dose"], strict=True)],
    )
    labels = write(tmp_path / "labels.csv", [["example", "label"], *zip(keys, content["label"], strict=True)])
    return {"inputs": inputs, "labels": labels}


class Files:
    """As ``brought.Brought``: two files."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.inputs, self.labels = files["inputs"], files["labels"]


def test_rows_of_a_set_are_known_in_another_study_of_the_tenant(two: Any, new: Any, tmp_path: Path) -> None:
    files = Files(new)
    seal(two, files, study="one", name="spring")
    with pytest.raises(AlreadyExistsError, match=r"exactly these .*'one' has") as refused:
        seal(two, files, study="two", name="summer")
    assert refused.value.name == "spring"
    lines = files.inputs.read_text().splitlines()
    files.inputs = tmp_path / "more.csv"
    files.inputs.write_text("\n".join([*lines, "p300,south,5.5,5.5"]))
    labels = files.labels.read_text().splitlines()
    files.labels = tmp_path / "more-labels.csv"
    files.labels.write_text("\n".join([*labels, "p300,no"]))
    with pytest.raises(InvalidInputError, match=r"300 of 301 .* set 'spring'"):
        seal(two, files, study="two", name="summer")
    assert seal(two, files, study="one", name="spring", **new).sealed_before


def test_rows_of_a_set_are_nothing_to_validate_on_in_another_study(two: Any, new: Any) -> None:
    seal(two, Files(new), study="one", name="spring")
    with pytest.raises(InvalidInputError, match=r"300 of 300 .* set 'spring'"):
        replace_validation(two.referee, two.artifacts, study="two", **new)
    retire(two, "spring")
    live = "SELECT t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id WHERE s.name = 'two'"
    for (number,) in two.rows(f"{live} AND t.state = 'live'"):  # one row of 300 may be like one of theirs by chance
        retire(two, number)
    release_test_set(two.referee, two.artifacts, test_set="spring")
    assert 0.97 * 300 < replace_validation(two.referee, two.artifacts, study="two", **new).added <= 300


def test_a_table_is_known_for_another_tenants_in_any_order(two: Any, tmp_path: Path) -> None:
    """A few rows more of the rarest word let the words come otherwise."""
    content, more = table(1, WORDS), table(4, ("north",) * 3, rows=300)
    both = {name: content[name] + more[name] for name in content}
    answer = register(two, tmp_path, "theirs", both, order="dose age region", tenant="rival")
    assert answer.refused
    assert OTHERS_WORDS in answer.message


def test_rows_of_this_studys_open_parts_are_refused(two: Any, new: Any) -> None:
    files, content = Files(new), table(2, WORDS[::-1])
    rows = zip(content["region"], content["age"], content["dose"], strict=True)
    opened = {row.tobytes() for row in two.open_parts("two").train_inputs}
    place = {name: i for i, name in enumerate(names_of(two, "two") or [])}
    for region, age, dose in rows:
        encoded = np.zeros(5, dtype=np.float32)
        encoded[place[f"region={region}"]], encoded[place["age"]], encoded[place["dose"]] = 1, age, dose
        if encoded.tobytes() in opened:
            break
    else:
        pytest.fail("no row of the table is in its training part")
    files.inputs.write_text(files.inputs.read_text() + f"p300,{region},{age},{dose}\n")
    files.labels.write_text(files.labels.read_text() + "p300,no\n")
    with pytest.raises(InvalidInputError, match=r"1 of 301 .* open parts"):
        seal(two, files, study="two")


def test_names_too_long_to_be_kept_are_too_long_for_both_times(bare: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sealing, "_LONGEST_NAMES", 20)
    assert not register(bare, tmp_path, "one", table(1, WORDS)).refused
    assert names_of(bare, "one") is None
    answer = register(bare, tmp_path, "two", table(1, WORDS), tenant="rival")
    assert OTHERS_WORDS in answer.message


# Registered twice.


def test_public_data_registered_twice_is_warned_of_without_a_count(bare: Any, caplog: Any, recorded: Any) -> None:
    """Its labels are public, so that no study is refused for it."""
    assert "warning" not in bare.register("one").message
    with caplog.at_level(logging.WARNING):
        answer = bare.register("two")
    assert not answer.refused
    recorded(answer.message, "registered_twice")
    assert "of 569 rows" in caplog.text
    assert "and of 1 other" in bare.register("three").message
    assert bare.register("four", tenant="rival").refused


# Released.


def test_rows_in_use_elsewhere_are_not_released(lab: Any, tmp_path: Path) -> None:
    """The laboratory's three studies are of one tenant and of the same rows."""
    sets = "SELECT t.id, s.name FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id ORDER BY t.id"
    study_of = dict(lab.rows(sets))
    released = min(study_of)
    retire(lab, released)
    others = [number for number, study in study_of.items() if study != study_of[released]]
    for left in range(len(others), 0, -1):
        with pytest.raises(StateError, match=rf"'{released}' .* '\d+' of study"):
            release_test_set(lab.referee, lab.artifacts, test_set=str(released))
        with pytest.raises(StateError, match="can be fetched"):
            fetch_test_set(lab.worker, lab.artifacts, test_set=str(released), to=tmp_path / "x.csv")
        retire(lab, others[left - 1])
    done = release_test_set(lab.referee, lab.artifacts, test_set=str(released))
    assert done.state == "released"


def test_rows_that_wait_in_a_set_are_in_use_and_another_tenants_set_has_no_name(lab: Any) -> None:
    retire(lab, 1)
    last = lab.one("SELECT max(id) FROM work.test_sets")
    for number in range(2, last):
        retire(lab, number)
    shared = "SELECT count(*) FROM sealed.examples a JOIN sealed.examples b USING (hash) WHERE a.test_set_id = 1 "
    count = lab.one(shared + "AND b.test_set_id = :last", last=last)
    lab.as_superuser("ALTER TABLE work.test_sets DISABLE TRIGGER test_sets_forward")
    lab.as_superuser("UPDATE work.test_sets SET state = 'sealed' WHERE id = %s", last)
    with pytest.raises(StateError, match=f"{count} of the 254 .* '{last}' .* sealed;"):
        release_test_set(lab.referee, lab.artifacts, test_set="1")
    lab.as_superuser("INSERT INTO work.tenants (name) VALUES ('rival')")
    lab.as_superuser("ALTER TABLE work.studies DROP CONSTRAINT studies_data_set_fkey")
    lab.as_superuser("UPDATE work.studies SET tenant_id = (SELECT max(id) FROM work.tenants) WHERE id <> 1")
    with pytest.raises(StateError, match="'1' lie in a test set of another tenant that is in use; release this"):
        release_test_set(lab.referee, lab.artifacts, test_set="1")
    retire(lab, last)
    assert release_test_set(lab.referee, lab.artifacts, test_set="1").state == "released"
