"""The page inside Airflow's own server: nobody gets in without a login, and a closed door where no check is known."""

import asyncio
import builtins

import httpx
import pytest
from fastapi import HTTPException

from easeml_airflow import plugin
from easeml_airflow.plugin import EasemlPlugin, closed_door, login


def test_the_door_that_opens_for_nobody():
    with pytest.raises(HTTPException) as caught:
        closed_door()
    assert caught.value.status_code == 403


def test_without_airflows_check_the_door_is_closed(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name.startswith("airflow.api_fastapi.core_api.security"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert login() is plugin.closed_door


def test_the_entry_in_the_navigation_honours_the_base_path(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://h/af")
    views = {view["destination"]: view for view in EasemlPlugin().external_views}
    assert views["nav"]["href"] == "/af/easeml/"
    assert {view["icon"] for view in views.values()} == {"/af/easeml/static/mark.svg"}


def test_a_run_and_a_task_have_a_tab_that_airflow_fills_in(ask, monkeypatch):
    """As Airflow's own server tells its pages, with the names that they replace."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://h/af")
    told = {view["destination"]: view for view in EasemlPlugin().external_views}
    assert {name: (view["name"], view["url_route"]) for name, view in told.items()} == {
        "nav": ("Ease.ml", "easeml"),
        "dag_run": ("Ease.ml", "easeml-run"),
        "task_instance": ("Ease.ml", "easeml-task"),
    }
    assert told["dag_run"]["href"] == "/af/easeml/of-run?dag={DAG_ID}&run={RUN_ID}"
    task = "/af/easeml/of-task?dag={DAG_ID}&run={RUN_ID}&task={TASK_ID}&index={MAP_INDEX}"
    assert told["task_instance"]["href"] == task
    plugins = ask("/api/v2/plugins", role="admin").json()["plugins"]
    (ours,) = (plugin["external_views"] for plugin in plugins if plugin["name"] == "easeml")
    assert [view["destination"] for view in ours] == ["nav", "dag_run", "task_instance"]


@pytest.fixture(scope="module")
def ask(airflow_app):
    """Ask Airflow's whole API server in this process, as a person of this role or as nobody."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def request(path, *, role=None, method="GET"):
        headers = {}
        if role is not None:
            token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=role[0], role=role))
            headers["Authorization"] = f"Bearer {token}"

        async def go():
            transport = httpx.ASGITransport(app=airflow_app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(go())

    request.app = airflow_app
    return request


def our_routes(app):
    """The routes of our mounted application."""
    (mount,) = [route for route in app.routes if getattr(route, "path", "") == plugin.URL_PREFIX]
    return mount.app.routes


def test_every_route_in_the_real_server_asks_for_a_login(ask):
    routes = our_routes(ask.app)
    assert routes
    assert ask(f"{plugin.URL_PREFIX}/health").json().keys() == {"status"}  # for load balancers: one word
    for route in (r for r in routes if r.path != "/health"):
        for method in route.methods:
            path = plugin.URL_PREFIX + route.path.replace("{name}", "tokens.css")
            assert ask(path, method=method).status_code in (401, 403), (method, path)


@pytest.mark.parametrize("path", ["/easeml/docs", "/easeml/openapi.json", "/easeml/redoc"])
def test_there_are_no_docs_in_the_real_server(ask, path):
    assert ask(path).status_code in (401, 403, 404)


@pytest.mark.parametrize("role", ["admin", "op", "user", "viewer"])
def test_whoever_may_see_plugins_sees_the_page(ask, connected, role):
    page = ask("/easeml/", role=role)
    assert page.status_code == 200
    assert "No study yet" in page.text
    assert ask("/easeml/static/page.js", role=role).headers["content-type"].startswith("text/javascript")


def test_a_missing_connection_is_told_on_the_page(ask, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_EASEML_DEFAULT", raising=False)
    page = ask("/easeml/", role="viewer")
    assert page.status_code == 503
    assert "there is no connection" in page.text
