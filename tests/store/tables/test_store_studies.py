"""Tenants, studies, candidates and data versions, as rows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import DataVersion, StudyState, Task
from easeml_core.errors import InvalidInputError, NotFoundError, StateError, StoreError
from easeml_core.store import archive
from easeml_core.store.database import savepoint
from easeml_core.store.rows import change
from easeml_core.store.tables import models, studies, trials

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
        (lambda tx: studies.required_answers(tx, 99), "data version of study with id 99; wait until the referee has"),
        (
            lambda tx: models.baseline_model(tx, 99),
            "no baseline of study with id 99; wait until the referee has sealed",
        ),
        (lambda tx: trials.trial_report(tx, 99), "there is no trial 99; list them with"),
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


@pytest.fixture
def in_state(database: Any, ask: Callable[..., Any], make_rows: Callable[..., Any]) -> Callable[[StudyState], int]:
    """A study that came to this state by the way that is open; its id."""

    def make(state: StudyState) -> int:
        with database.worker.begin() as tx:
            tenant_id = studies.add_tenant(tx, name="lab")
            study_id = studies.add_study(
                tx,
                name="new",
                tenant_id=tenant_id,
                data_set_id=studies.add_data_set(tx, tenant_id=tenant_id, source="csv:new", target=""),
                metric="accuracy",
                weight=1.0,
                budget_seconds=None,
                config={},
                request_key="new",
            )
        assert study_id is not None
        if state is StudyState.ARCHIVED:
            with database.worker.begin() as tx:
                archive.apply_study_change(tx, study_id, "new", "archive", "a typo")
            return study_id
        way = {StudyState.REGISTERED: (), StudyState.PAUSED: (StudyState.ACTIVE, StudyState.PAUSED)}
        for step in way.get(state, (state,)):
            with database.referee.begin() as tx:
                studies.set_study_state(tx, study_id, step)
        return study_id

    return make


# From -> to: who may. A study is split and sealed once, by the referee; pausing is the tenant's.
WAYS = {
    (StudyState.REGISTERED, StudyState.ACTIVE): {"referee"},
    (StudyState.REGISTERED, StudyState.REFUSED): {"referee"},
    (StudyState.ACTIVE, StudyState.PAUSED): {"referee", "worker"},
    (StudyState.PAUSED, StudyState.ACTIVE): {"referee", "worker"},
}


@pytest.mark.parametrize("before", list(StudyState))
def test_a_study_only_moves_forward(database: Any, in_state: Callable[[StudyState], int], before: StudyState) -> None:
    study_id = in_state(before)
    for after, role in itertools.product(StudyState, ("referee", "worker")):
        with pytest.raises(_UndoneError) as caught, getattr(database, role).begin() as tx:
            try_to_move(tx, study_id, after)
        allowed = after == before or role in WAYS.get((before, after), set())
        refused = f"study new cannot go from {before} to {after}; only the referee activates or refuses a new study"
        assert str(caught.value).startswith("it moved" if allowed else refused), (role, after)


class _UndoneError(Exception):
    """Ends a transaction that only tried."""


def try_to_move(tx: Any, study_id: int, state: StudyState) -> None:
    try:
        with savepoint(tx):
            studies.set_study_state(tx, study_id, state)
    except StateError as error:
        raise _UndoneError(str(error)) from error
    message = "it moved"
    raise _UndoneError(message)


@pytest.mark.parametrize("column", ["state", "created_at"])
def test_a_study_begins_registered_and_dated_by_the_database(
    store: Any, in_state: Callable[[StudyState], int], column: str
) -> None:
    """Else a worker could insert an active study, which was never sealed."""
    in_state(StudyState.REGISTERED)
    value = {"state": "'ACTIVE'", "created_at": "created_at"}[column]
    refused = pytest.raises(StoreError, match="this role may not do that: permission denied for table studies")
    with refused, store.begin() as tx:
        change(
            tx,
            "INSERT INTO work.studies (name, tenant_id, data_set_id, metric, config, request_key, "
            f"{column}) SELECT 'mine', tenant_id, data_set_id, metric, config, 'mine', {value} FROM work.studies",
        )


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


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


ODD: dict[str, object] = {
    "nan": float("nan"),
    "infinite": float("inf"),
    "object": object(),
    "set": {1, 2},
    "digits": 10**5000,
    "nested": nested(100_000),
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
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
        needed = studies.required_answers(tx, study.study_id)
        artifact = "sha256:" + "0" * 64
        assert needed == studies.RequiredAnswers("lab", artifact, None, Task.CLASSIFICATION, "accuracy")


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
