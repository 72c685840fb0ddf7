"""The plugin class: closed pages in Airflow's server, their place in its navigation, and the link from our tasks.

Loaded in every component of Airflow, so the class only promises: the page is made when the server asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.links import PAGE_ROUTE, RUN_ROUTE, TASK_ROUTE, URL_PREFIX, EasemlPageLink, tab_urls
from easeml_airflow.settings import base_path
from easeml_airflow.version_compat import AirflowPlugin

if TYPE_CHECKING:
    from collections.abc import Callable


class EasemlPlugin(AirflowPlugin):
    """What Airflow sees of Ease.ml."""

    name = "easeml"
    operator_extra_links = [EasemlPageLink()]  # noqa: RUF012 - Airflow's own attribute, a list by its contract

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # Airflow only reads it
        """The page and the service; made only in the API server, which alone reads this."""
        from easeml_airflow.web.app import create_app
        from easeml_airflow.web.components.action_items import count_needs
        from easeml_airflow.web.server.auth import airflow_rights, airflow_viewer
        from easeml_airflow.web.server.site import Site, open_artifacts, open_sealed, open_store, tenant_of
        from easeml_core.services.referee.place_in_queue import queue

        site = Site(
            open_store,
            open_artifacts,
            open_sealed,
            airflow_viewer(),
            needs_of=count_needs,
            queue_of=queue,
        )
        app = create_app(site, require_login=login(), rights=airflow_rights(tenant_of))
        return [{"app": app, "url_prefix": URL_PREFIX, "name": "Ease.ml"}]

    @property
    def external_views(self) -> list[dict[str, Any]]:  # type: ignore[override]  # Airflow only reads it
        """The entry in the navigation, and a tab on every run and every task; each shows a page of ours in a frame."""
        of_run, of_task = tab_urls()
        return [
            _view("nav", PAGE_ROUTE, f"{base_path()}{URL_PREFIX}/") | {"category": "browse"},
            _view("dag_run", RUN_ROUTE, of_run),
            _view("task_instance", TASK_ROUTE, of_task),
        ]


def _view(destination: str, route: str, href: str) -> dict[str, Any]:
    icon = f"{base_path()}{URL_PREFIX}/static/mark.svg"
    return {"name": "Ease.ml", "href": href, "icon": icon, "destination": destination, "url_route": route}


def login() -> Callable[..., Any]:
    """Return Airflow's check that this user may see plugins, or one that refuses every user where it is missing.

    A mounted app inherits no login from Airflow, so without this the page would be open without a login.
    """
    try:
        from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
        from airflow.api_fastapi.core_api.security import requires_access_view
    except ImportError:
        return closed_door
    return requires_access_view(AccessView.PLUGINS)


def closed_door() -> None:
    """Answer 403 to every request."""
    from fastapi import HTTPException

    raise HTTPException(status_code=403, detail="this version of Airflow offers no login check that the page knows")
