"""Who may use the service of a study: a token of Airflow's, and a right on the DAG that stands for the study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Depends, HTTPException, Request

from easeml_airflow import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[..., str]

TOKEN_WANTED = "send the header 'Authorization: Bearer TOKEN'; the cookie of a browser is not enough"


def require_token(request: Request) -> None:
    """Refuse a request that only a cookie speaks for.

    A page of somebody else's can make a browser send its cookie, but never a header of its own.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise HTTPException(status_code=401, detail=TOKEN_WANTED)


def closed(*, write: bool) -> Check:
    """A check that nobody passes, for versions of Airflow that offer none."""

    def check() -> str:
        raise HTTPException(status_code=403, detail="this version of Airflow offers no check of rights that is known")

    return check


def airflow_rights() -> Callable[..., Check]:
    """Airflow's own check: ``check = rights(write=...)`` is a dependency that gives the name of who asks.

    Writing needs the right to trigger the DAG ``[easeml] api_dag``, reading that to see its runs.
    """
    try:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
        from airflow.api_fastapi.core_api.security import get_user
        from airflow.models.dag import DagModel
    except ImportError:
        return closed

    known = Depends(get_user)

    def rights(*, write: bool) -> Check:
        def check(request: Request, user: Any = known) -> str:
            require_token(request)
            study = request.path_params["study"]
            if not study.isprintable():  # no database could even look for it
                raise HTTPException(status_code=404, detail="there is no such study: its name cannot be printed")
            dag_id = settings.api_dag().replace("{study}", study)
            team = getattr(DagModel, "get_team_name", lambda _: None)(dag_id)
            details = DagDetails(id=dag_id) if team is None else DagDetails(id=dag_id, team_name=team)
            is_allowed = get_auth_manager().is_authorized_dag(
                method="POST" if write else "GET", access_entity=DagAccessEntity.RUN, details=details, user=user
            )
            if not is_allowed:
                right = "trigger" if write else "see the runs of"
                raise HTTPException(status_code=403, detail=f"this needs the right to {right} the DAG {dag_id!r}")
            return str(user.get_name())

        return check

    return rights
