"""The data page: two templates for two people, and the referee's acts on sealed sets, refused to everybody else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from asked import Asked
from attrs import evolve
from page_reader import Page

from easeml_airflow.web.pages import datasets as data
from easeml_airflow.web.pages.datasets import lives
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.errors import StoreUnavailableError
from easeml_core.meter.validation_set import ValidationState
from easeml_core.services.datasets.report import StudyData, study_data
from easeml_core.services.labeling.desk import say
from easeml_core.services.reports.audit import audit
from easeml_core.services.test_sets.lifecycle import list_test_sets, plan_test_set
from easeml_core.store.rows import rows
from easeml_core.store.tables import sealed

if TYPE_CHECKING:
    from pathlib import Path


def states(database: Any) -> list[str]:
    return [str(one.state) for one in list_test_sets(database.worker, study="cancer")]


def test_a_developer_sees_public_facts_in_a_page_of_their_own(
    database: Any, artifacts: Any, make_study: Any, ask_as: Any, recorded: Any, tmp_path: Path
) -> None:
    asked = Asked(database, artifacts, tmp_path, make_study(), "sklearn:breast_cancer")
    asked.want([1, 2, 3])
    say(database.referee, study="cancer", test_set_id=asked.set_id, labeler="ann", place=2, label=1)
    developer, referee = (
        client.get("/studies/cancer/data").text for client in (ask_as("dev"), ask_as("ada", "referee"))
    )
    sealed_view = Page(referee)
    recorded(Page(developer).recorded(), "data")
    for word in ("wanted", "label", "nats", "Paid", "d-retire", "d-release", "<form"):
        assert word not in developer.replace("Labelled rows", "").replace("aria-label", "").replace("labelledby", "")
    assert [
        row["Examples"] for row in sealed_view.section("Sealed sets").table if "1 label, 2 wanted" in row["Examples"]
    ]
    assert "2 labels" in sealed_view.part("p.now").text
    assert len(sealed_view.soup.select("dialog")) == 3
    for key in asked.keys[:3]:
        assert key not in sealed_view.text


def test_a_set_is_retired_released_and_validated_on_by_a_referee_alone(
    database: Any, make_study: Any, ask_as: Any
) -> None:
    make_study()
    acts = [
        ("retire", {"test_set": "1"}),
        ("release", {"test_set": "1"}),
        ("validate", {"test_set": "1", "add": "true", "reason": "<worn>"}),
    ]
    for client in (ask_as("dev"), ask_as("olga", "operator"), ask_as("lea", "labeler")):
        for act, said in acts:
            assert client.post(f"/studies/cancer/data/{act}", data=said).status_code == 403
    ada = ask_as("ada", "referee")
    early = ada.post("/studies/cancer/data/release", data={"test_set": "1"})
    assert (early.status_code, "only a retired" in early.text) == (409, True)
    assert states(database) == ["live", "live"]
    for act, said in acts:
        for _ in range(2):  # each may be repeated
            done = ada.post(f"/studies/cancer/data/{act}", data=said)
            assert (done.status_code, done.headers["location"]) == (303, "/studies/cancer/data")
    assert states(database) == ["live", "released"]
    (replaced,) = [e for e in audit(database.worker).events if e.act == "validation set replaced"]
    assert (replaced.who, replaced.door, replaced.reason) == ("ada", "page", acts[-1][1]["reason"])
    assert replaced.detail == "version 1 → version 2"
    page = ada.page("/studies/cancer/data")
    assert "version 2" in page.part("#val-h").text
    assert "rows: train" not in page.part("#validation").text  # that is how the first version was split, not this one
    made = {row["Version"]: row["Made by"] for row in page.section("Versions").table}
    assert "registration table; rows: train" in made["Version 1"]
    assert ("another validation" in made["Version 2"], "rows: train" in made["Version 2"]) == (True, False)
    assert ada.post("/studies/cancer/data/retire", data={"test_set": "99"}).status_code == 404
    told = {"test_set": "2", "reason": "<seen>"}
    assert ada.post("/studies/cancer/data/retire", data=told).status_code == 303
    with database.worker.begin() as tx:
        newest = rows(tx, "SELECT who, door, reason FROM work.audit ORDER BY id DESC LIMIT 1")
    assert tuple(newest[0]) == ("ada", "page", told["reason"])
    assert ada.post("/studies/nope/data/retire", data={"test_set": "1"}).status_code == 404


def test_a_worn_validation_set_needs_a_referee(
    database: Any, make_study: Any, ask_as: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study()

    def worn(*given: Any, **asked: Any) -> StudyData:
        found = study_data(*given, **asked)
        assert found.validation is not None
        validation = replace(found.validation, state=ValidationState.WORN, advice="replace <it>")
        return replace(found, validation=validation)

    monkeypatch.setattr(data, "study_data", worn)
    needs = ask_as("ada", "referee").page("/studies/cancer/data").part("#needs")
    assert ("Replace <it" in needs.text, needs.has("it")) == (True, False), "as text"
    assert needs.links == {"How": "/studies/cancer/data#replace"}
    assert not ask_as("dev").page("/studies/cancer/data").has("#needs")


def test_gate_and_data_page_ask_alike_before_a_set_is_retired_or_released(
    database: Any, make_study: Any, ask_as: Any
) -> None:
    make_study()
    ada, pages = ask_as("ada", "referee"), ("/studies/cancer/gate", "/studies/cancer/data")
    for act, means in (("retire", "becomes live"), ("release", "every user")):
        asked = [str(ada.page(page).part(f"#d-{act}-1").soup).replace(page, "PAGE") for page in pages]
        assert asked[0] == asked[1]
        assert (f"{act.capitalize()} set 1?" in asked[0], means in asked[0]) == (True, True)
        assert ada.post(f"{pages[1]}/{act}", data={"test_set": "1"}).status_code == 303


def test_a_set_whose_name_is_anothers_number_is_left_alone(database: Any, make_study: Any, ask_as: Any) -> None:
    make_study()
    ada = ask_as("ada", "referee")
    plan_test_set(database.referee, study="cancer", name="1", settings={})
    asked = ada.page("/studies/cancer/data").part("#d-retire-1").form("/studies/cancer/data/retire").fields
    assert asked == {"test_set": "1", "reason": ""}
    assert ada.post("/studies/cancer/data/retire", data=asked).status_code == 303
    ended = {one.test_set_id: (one.name, one.state) for one in list_test_sets(database.worker, study="cancer")}
    assert ended[1] == (None, "retired")
    assert ("1", "planned") in ended.values()


def test_a_set_of_another_study_is_not_reached(database: Any, make_study: Any, ask_as: Any) -> None:
    make_study()
    make_study("other", source="sklearn:wine", tenant="elsewhere")
    ada = ask_as("ada", "referee")
    assert ada.post("/studies/other/data/retire", data={"test_set": "1"}).status_code == 404
    assert states(database) == ["live", "live"]


def test_a_referee_whose_server_has_no_address_sees_what_everybody_may(
    database: Any, artifacts: Any, make_study: Any, client_of: Any
) -> None:
    make_study()

    def away() -> Any:
        message = "this server was not given the referee's address"
        raise StoreUnavailableError(message)

    viewer = Viewer("ada", frozenset({Role.REFEREE}), lambda _study, _tenant, *, write: True)
    client = client_of(Site(lambda: database.worker, lambda: artifacts, away, lambda: viewer))
    assert "the referee's address" in client.page("/studies/cancer/data").text
    assert client.post("/studies/cancer/data/retire", data={"test_set": "1"}).status_code == 503


@pytest.mark.parametrize("teams", [1, 2])
def test_no_team_learns_how_much_another_has_used(teams: int, database: Any, make_study: Any, ask_as: Any) -> None:
    make_study()
    (meter, gate) = list_test_sets(database.worker, study="cancer")
    meter = replace(meter, plan=evolve(meter.plan, teams=teams, method="path-adaptive"))
    shown = [life.answers for life in lives([meter, gate])]
    assert shown == [[("meter", 0 if teams == 1 else None, 4)], [("gate", 0, 3)]]


def test_a_study_without_data_is_told_of(database: Any, ask_as: Any) -> None:
    from registering import register_study

    register_study(database.worker, study="new", tenant="lab", source="sklearn:wine", request_key="r")
    for client in (ask_as("dev"), ask_as("ada", "referee")):
        page = client.page("/studies/new/data")
        assert (page.lead, page.has("table"), "No sealed set" in page.text) == ("No data yet.", False, True)
    with database.referee.begin() as tx:
        assert not sealed.is_sealed(tx, 1)
