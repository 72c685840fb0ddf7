"""Tenants, studies, candidates and data versions, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import DataVersion, StudyState
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.store import models, studies

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_tenant_and_its_data_are_made_once(store: Any) -> None:
    with store.begin() as tx:
        lab, other = studies.add_tenant(tx, name="lab", weight=3.0), studies.add_tenant(tx, name="other")
        assert studies.add_tenant(tx, name="lab", weight=9.0) == lab != other
        data = {"source": "csv:/data/a.csv", "target": "price"}
        first = studies.add_data_set(tx, tenant_id=lab, **data)
        assert studies.add_data_set(tx, tenant_id=lab, **data) == first
        assert studies.add_data_set(tx, tenant_id=other, **data) != first
        assert studies.add_data_set(tx, tenant_id=lab, source=data["source"], target="") != first


@pytest.mark.parametrize("name", ["a", "0", "iris-2.b_c", "a" * 63])
def test_names_may_be_short_long_and_dotted(store: Any, name: str) -> None:
    with store.begin() as tx:
        studies.add_tenant(tx, name=name)


def test_a_study_is_found_by_name_id_and_request(store: Any, make_rows: Callable[..., Any]) -> None:
    rows = make_rows("iris", tenant="lab")
    with store.begin() as tx:
        study = studies.get_study(tx, "iris")
        assert study == studies.study_by_id(tx, rows.study_id) == studies.study_of_request(tx, "register/iris")
        assert (study.tenant, study.source, study.target) == ("lab", "csv:iris", "label")
        assert (study.state, study.weight, study.metric) == (StudyState.ACTIVE, 2.0, "accuracy")
        assert study.config["training"]["max_attempts"] == 3


def test_a_studys_weight_is_its_own_times_its_tenants(store: Any, make_rows: Callable[..., Any]) -> None:
    with store.begin() as tx:
        studies.add_tenant(tx, name="lab", weight=3.0)
    make_rows("iris", tenant="lab")
    with store.begin() as tx:
        assert studies.get_study(tx, "iris").weight == 6.0


def test_what_is_not_there_is_named_with_what_is(store: Any, make_rows: Callable[..., Any]) -> None:
    make_rows("iris")
    make_rows("wine")
    for find, words in [
        (lambda tx: studies.get_study(tx, "irs"), "there is no study 'irs'; known: 'iris', 'wine'; register it with"),
        (lambda tx: studies.study_by_id(tx, 99), "there is no study with id 99"),
        (lambda tx: studies.study_of_request(tx, "k"), "there is no study made by request 'k'"),
        (
            lambda tx: studies.latest_data_version(tx, 99),
            "data version of study with id 99; wait until the referee has",
        ),
        (
            lambda tx: models.baseline_model(tx, 99),
            "no baseline of study with id 99; wait until the referee has sealed",
        ),
        (lambda tx: models.trial_report(tx, 99), "there is no trial 99; list them with"),
    ]:
        with pytest.raises(NotFoundError, match=words), store.begin() as tx:
            find(tx)


def test_studies_are_listed_by_state_and_name(store: Any, make_rows: Callable[..., Any]) -> None:
    for name in ("wine", "iris", "digits"):
        make_rows(name)
    with store.begin() as tx:
        studies.set_study_state(tx, studies.get_study(tx, "iris").id, StudyState.PAUSED)
        assert [s.name for s in studies.list_studies(tx)] == ["digits", "iris", "wine"]
        assert [s.name for s in studies.list_studies(tx, state=StudyState.ACTIVE)] == ["digits", "wine"]


def test_a_candidate_that_is_there_stays_as_it_is(store: Any, make_rows: Callable[..., Any]) -> None:
    study = make_rows(candidates=1)
    with store.begin() as tx:
        again = [
            {"name": "candidate-0", "kind": "forest"},
            {"name": "new", "kind": "forest", "parameters": {"n": 10, "é": None}},
            {"name": "bare", "kind": "tree", "parameters": None},
        ]
        studies.add_candidates(tx, study.study_id, again)
        found = [(c.name, c.kind, c.parameters) for c in studies.list_candidates(tx, study.study_id)]
        assert len(studies.list_candidates(tx)) == 3
    assert found == [("candidate-0", "tree", {}), ("new", "forest", {"n": 10, "é": None}), ("bare", "tree", {})]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_parameters_must_have_a_form_in_json(store: Any, make_rows: Callable[..., Any], value: object) -> None:
    study = make_rows()
    odd = [{"name": "odd", "kind": "tree", "parameters": {"c": value}}]
    refused = pytest.raises(InvalidInputError, match="only finite numbers, words, lists and mappings can be stored")
    with refused, store.begin() as tx:
        studies.add_candidates(tx, study.study_id, odd)


def test_data_versions_are_counted_and_the_newest_is_used(
    store: Any, make_rows: Callable[..., Any], add_data: Callable[..., int]
) -> None:
    study, other = make_rows("iris"), make_rows("wine")
    newest = add_data(study)
    with store.begin() as tx:
        assert studies.latest_data_version(tx, study.study_id) == DataVersion(
            id=newest,
            study_id=study.study_id,
            version=2,
            content_hash="iris-2",
            train_rows=100,
            validation_rows=30,
            features=4,
            classes=2,
            artifact="sha256:" + "0" * 64,
        )
        assert studies.latest_data_versions(tx) == {study.study_id: newest, other.study_id: other.version_id}
        assert studies.class_names(tx, newest) == ["benign", "malignant"]
        assert studies.data_artifact(tx, newest) == "sha256:" + "0" * 64


def test_a_model_is_found_in_its_own_study_only(
    store: Any, make_rows: Callable[..., Any], succeed: Callable[..., Any]
) -> None:
    iris, wine = make_rows("iris"), make_rows("wine")
    _, model_id = succeed(iris, 0, quality=0.75)
    with store.begin() as tx:
        found = models.get_model(tx, iris.study_id, model_id)
        assert (found.format, found.validation_loss, found.trial_id) == ("skops", 0.25, 1)
    elsewhere = pytest.raises(NotFoundError, match=f"with id {model_id}; known: '{wine.baseline_id}'")
    with elsewhere, store.begin() as tx:
        models.get_model(tx, wine.study_id, model_id)
