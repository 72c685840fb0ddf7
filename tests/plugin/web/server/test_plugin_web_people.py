"""Who may what: Airflow's own roles and rights, two lists of names, and teams where Airflow keeps them apart."""

import builtins
from types import SimpleNamespace

import pytest
from fastapi import HTTPException

from easeml_airflow.web.server import auth
from easeml_airflow.web.server.auth import Role, Viewer, airflow_viewer, closed_viewer
from easeml_core.errors import ConfigError


@pytest.fixture(scope="module")
def viewer_of(airflow_app):  # which makes the auth manager
    """A user of Airflow's SimpleAuthManager with this role, as the pages see them."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def viewer(name, role, teams=()):
        asked = airflow_viewer()
        return asked(SimpleAuthManagerUser(username=name, role=role, teams=list(teams)))

    return viewer


@pytest.mark.parametrize(
    ("role", "is_operator", "changes"),
    [("admin", True, True), ("op", True, True), ("user", False, True), ("viewer", False, False)],
)
def test_roles_follow_airflows_rights(viewer_of, role, is_operator, changes):
    viewer = viewer_of("x", role)
    assert viewer.is_operator == is_operator
    assert viewer.changes("cancer", "lab") == changes
    assert viewer.sees("cancer", "lab")  # its DAG is the same for all studies by default
    assert not viewer.is_referee
    assert not viewer.is_labeler


def test_referees_and_labelers_are_named_and_nobody_is_one_by_role(viewer_of, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__REFEREES", "rita")
    monkeypatch.setenv("AIRFLOW__EASEML__LABELERS", "leo, rita")
    assert viewer_of("rita", "viewer").is_referee
    assert viewer_of("leo", "viewer").is_labeler
    assert not viewer_of("leo", "admin").is_referee
    assert not viewer_of("Rita", "admin").is_labeler


def test_each_study_may_have_a_dag_of_its_own(viewer_of, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__API_DAG", "of_{study}")
    assert auth.dag_of("cancer", "lab") == "of_cancer"
    monkeypatch.setenv("AIRFLOW__EASEML__API_DAG", "of_{tenant}")
    assert auth.dag_of("cancer", "lab") == "of_lab"


def test_no_dag_stands_for_studies_of_two_teams(viewer_of, monkeypatch):
    """Else ``c`` of ``a_b`` and ``b_c`` of ``a`` would have the same rights."""
    monkeypatch.setenv("AIRFLOW__EASEML__API_DAG", "{tenant}_{study}")
    with pytest.raises(ConfigError, match="not both"):
        auth.dag_of("c", "a_b")


def test_where_teams_are_apart_a_tenant_is_a_team(viewer_of, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    ann = viewer_of("ann", "user", teams=["lab"])
    assert ann.sees("cancer", "lab")
    assert not ann.sees("cards", "bank")
    assert not ann.changes("cards", "bank")
    assert not ann.sees("nothing", ""), "a study that is not there belongs to no team"
    assert viewer_of("olga", "op").sees("cards", "bank")


def test_who_runs_the_things_of_one_team_is_no_operator_of_all(viewer_of, monkeypatch):
    from airflow.models.team import Team

    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    monkeypatch.setattr(Team, "get_all_team_names", lambda **_: {"lab", "bank"})
    ann = viewer_of("ann", "op", teams=["lab"])
    assert ann.changes("cancer", "lab")
    assert not ann.sees("cards", "bank")
    assert not ann.is_operator
    assert not viewer_of("olga", "op").is_operator, "whose team nobody has said"
    for of_all in (viewer_of("ada", "admin"), viewer_of("bea", "op", teams=["bank", "lab"])):
        assert of_all.is_operator
        assert of_all.sees("cards", "bank")


def test_rights_are_asked_once_a_dag(viewer_of, monkeypatch):
    """A page of a thousand studies with one DAG asks once."""
    from airflow.api_fastapi.app import get_auth_manager

    asked = []
    manager = get_auth_manager()
    real = manager.is_authorized_dag
    monkeypatch.setattr(manager, "is_authorized_dag", lambda **given: asked.append(given) or real(**given))
    viewer = viewer_of("uma", "user")
    assert all(viewer.sees(f"s{n}", "lab") for n in range(1000))
    assert len(asked) == 1


def test_who_has_no_role_is_told_who_may():
    with pytest.raises(HTTPException, match="only the referee") as caught:
        Viewer("olga", frozenset({Role.OPERATOR})).require(Role.REFEREE)
    assert caught.value.status_code == 403
    Viewer("rita", frozenset({Role.REFEREE})).require(Role.REFEREE, Role.LABELER)


def test_by_default_nobody_may_anything():
    nobody = Viewer("")
    assert not nobody.sees("cancer", "lab")
    assert not nobody.changes("cancer", "lab")
    assert nobody.title == "Developer"


def test_without_airflows_check_nobody_is_let_in(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("airflow.api_fastapi"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert auth.airflow_viewer() is closed_viewer
    with pytest.raises(HTTPException) as caught:
        closed_viewer()
    assert caught.value.status_code == 403


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Basic abc", "Token x"])
def test_only_a_bearer_token_is_a_token(given):
    assert not auth.has_token(SimpleNamespace(headers={"authorization": given}))
