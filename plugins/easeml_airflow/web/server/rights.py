"""Who may use what belongs to a study: a right on the DAG that stands for it, and for programs a token of Airflow's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from fastapi import Depends, HTTPException, Request

from easeml_airflow import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_airflow.web.server.auth import StudyRights

    Check = Callable[..., str]

TOKEN_WANTED = "send the header 'Authorization: Bearer TOKEN'; the cookie of a browser is not enough"


def has_token(request: Request) -> bool:
    """Whether a program speaks: a page of somebody else's can make a browser send its cookie, but never a header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(token.strip())


def require_token(request: Request) -> None:
    """Refuse a request that only a cookie speaks for."""
    if not has_token(request):
        raise HTTPException(status_code=401, detail=TOKEN_WANTED)


def dag_of(study: str, tenant: str) -> str:
    """The DAG whose rights are those on the study."""
    return settings.api_dag().replace("{study}", study).replace("{tenant}", tenant)


def closed(*, write: bool) -> Check:
    """A check that nobody passes, for versions of Airflow that offer none."""

    def check() -> str:
        raise HTTPException(status_code=403, detail="this version of Airflow offers no check of rights that is known")

    return check


def are_teams_apart() -> bool:
    """Whether Airflow keeps teams apart."""
    from airflow.providers.common.compat.sdk import conf

    return bool(conf.getboolean("core", "multi_team", fallback=False))


def airflow_study_rights(user: Any) -> StudyRights:
    """What Airflow lets this user do with studies; asked once a DAG, and where teams are kept apart once a tenant.

    Writing needs the right to trigger the study's DAG, reading that to see its runs.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.models.dag import DagModel

    apart = are_teams_apart()

    @cache
    def may_run(dag_id: str, method: Literal["GET", "POST"]) -> bool:
        team = getattr(DagModel, "get_team_name", lambda _: None)(dag_id) if apart else None
        details = DagDetails(id=dag_id) if team is None else DagDetails(id=dag_id, team_name=team)
        return bool(
            get_auth_manager().is_authorized_dag(
                method=method, access_entity=DagAccessEntity.RUN, details=details, user=user
            )
        )

    @cache
    def is_of_team(tenant: str) -> bool:
        from airflow.api_fastapi.auth.managers.models.resource_details import TeamDetails

        return bool(get_auth_manager().is_authorized_team(method="GET", user=user, details=TeamDetails(name=tenant)))

    def rights(study: str, tenant: str, *, write: bool) -> bool:
        if apart and not is_of_team(tenant):
            return False
        return may_run(dag_of(study, tenant), "POST" if write else "GET")

    return rights


def airflow_rights(tenant_of: Callable[[str], str]) -> Callable[..., Check]:
    """Airflow's own check: ``check = rights(write=...)`` is a dependency that gives the name of who asks.

    Args:
        tenant_of: The tenant of a study; an empty text for a study that is not there.
    """
    try:
        from airflow.api_fastapi.core_api.security import get_user
    except ImportError:
        return closed

    known = Depends(get_user)

    def rights(*, write: bool) -> Check:
        def check(request: Request, user: Any = known) -> str:
            require_token(request)
            study = request.path_params["study"]
            if not study.isprintable():  # no database could even look for it
                raise HTTPException(status_code=404, detail="there is no such study: its name cannot be printed")
            tenant = tenant_of(study)
            if not airflow_study_rights(user)(study, tenant, write=write):
                right = "trigger" if write else "see the runs of"
                wanted = dag_of(study, "{tenant}")  # whose study it is, is not for everybody
                raise HTTPException(status_code=403, detail=f"this needs the right to {right} the DAG {wanted!r}")
            if not tenant:  # not by the core, whose message names the studies that there are
                raise HTTPException(status_code=404, detail=f"there is no study {study!r} that you may see")
            return str(user.get_name())

        return check

    return rights
