"""Who looks at a page, and what they may see and change: Airflow's rights, and two lists of names for sealed sets.

    role       is who                                            may
    operator   may change pools of Airflow                       see all studies; set weights, budgets, quotas, devices
    referee    is named in ``[easeml] referees``                 read full reports; plan, retire and release sets
    labeler    is named in ``[easeml] labelers``, or a referee   see the examples that are asked for, and label them
    tenant     may see the runs of a study's DAG                 see that study; with the right to trigger it, change it

A study's DAG is ``[easeml] api_dag``. Where Airflow keeps teams apart, the study's tenant must be a team of theirs,
too, and an operator is of every team: who runs one team's things does not see the others'.

Who may use what belongs to a study: a right on the DAG that stands for it, and for programs a token of Airflow's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fastapi import Depends, HTTPException, Request

from easeml_airflow import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[..., str]


class Role(StrEnum):
    """Roles beyond a tenant; rights follow the role."""

    OPERATOR = "operator"
    REFEREE = "referee"
    LABELER = "labeler"


class StudyRights(Protocol):
    """Whether a user may read, or change, a tenant's study."""

    def __call__(self, study: str, tenant: str, *, write: bool) -> bool:
        """Return whether the user may."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A user with access to the pages.

    Attributes:
        name: As Airflow knows them; kept with what they do.
        roles: What they are beyond a tenant.
        rights: What they may do with one study.
    """

    name: str
    roles: frozenset[Role] = field(default_factory=frozenset)
    rights: StudyRights = field(default=lambda _study, _tenant, *, write: False, repr=False)

    @property
    def is_operator(self) -> bool:
        """Whether they run the installation."""
        return Role.OPERATOR in self.roles

    @property
    def is_referee(self) -> bool:
        """Whether they own the sealed sets."""
        return Role.REFEREE in self.roles

    @property
    def is_labeler(self) -> bool:
        """Whether they may see the examples that labels are wanted for."""
        return bool(self.roles & {Role.LABELER, Role.REFEREE})

    @property
    def title(self) -> str:
        """The word for them in the page's bar."""
        shown = [role for role in (Role.REFEREE, Role.OPERATOR, Role.LABELER) if role in self.roles]
        return " and ".join(shown).capitalize() or "Developer"

    @property
    def sees_all(self) -> bool:
        """Whether pages may show them every study."""
        return bool(self.roles & {Role.OPERATOR, Role.REFEREE})

    def sees(self, study: str, tenant: str) -> bool:
        """Whether pages may show them this study."""
        return self.sees_all or self.rights(study, tenant, write=False)

    def changes(self, study: str, tenant: str) -> bool:
        """Whether they may pause, resume, feed, hand in and cancel for this study."""
        return self.is_operator or self.rights(study, tenant, write=True)

    def require(self, *roles: Role) -> None:
        """Refuse a user who has none of these roles."""
        if not self.roles & set(roles):
            names = " or ".join(f"the {role}" for role in roles)
            raise HTTPException(status_code=403, detail=f"only {names} may see or do this; {HOW_TO[roles[0]]}")


HOW_TO = {
    Role.OPERATOR: "an operator may change pools of Airflow, and belongs to every team where Airflow has teams",
    Role.REFEREE: "referees are named in [easeml] referees of Airflow's configuration",
    Role.LABELER: "labelers are named in [easeml] labelers of Airflow's configuration",
}


def closed_viewer() -> Viewer:
    """Refuse every user, for versions of Airflow without a known check."""
    raise HTTPException(status_code=403, detail="this version of Airflow offers no check of rights that is known")


def airflow_viewer() -> Callable[..., Viewer]:
    """A FastAPI dependency that gives who asks, by Airflow's own login."""
    try:
        from airflow.api_fastapi.core_api.security import get_user

    except ImportError:
        return closed_viewer

    known = Depends(get_user)

    def viewer(user: Any = known) -> Viewer:
        name = str(user.get_name())
        roles = {Role.OPERATOR} if _runs_the_installation(user) else set()
        roles |= {Role.REFEREE} if name in settings.referees() else set()
        roles |= {Role.LABELER} if name in settings.labelers() else set()
        return Viewer(name, frozenset(roles), airflow_study_rights(user))

    return viewer


def _runs_the_installation(user: Any) -> bool:
    from airflow.api_fastapi.app import get_auth_manager

    manager = get_auth_manager()
    if not manager.is_authorized_pool(method="PUT", user=user):
        return False
    if not are_teams_apart():
        return True
    from airflow.models.team import Team

    return bool(Team.get_all_team_names() <= manager.get_authorized_teams(user=user))


TOKEN_WANTED = "send the header 'Authorization: Bearer TOKEN'; the cookie of a browser is not enough"  # noqa: S105 - a message


def has_token(request: Request) -> bool:
    """Return whether a program sends the request: another site can make a browser send its cookie, never a header."""
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
    """Return a check that refuses every user, for versions of Airflow without one."""

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
    """Airflow's own check: ``check = rights(write=...)`` is a dependency that gives the name of who asks."""
    try:
        from airflow.api_fastapi.core_api.security import get_user
    except ImportError:
        return closed

    known = Depends(get_user)

    def rights(*, write: bool) -> Check:
        def check(request: Request, user: Any = known) -> str:
            require_token(request)
            study, tenant = request.path_params["study"], request.path_params.get("tenant", "")
            if not (study + tenant).isprintable():  # no database could even look for it
                raise HTTPException(status_code=404, detail="there is no such study: its name cannot be printed")
            tenant = tenant or tenant_of(study)
            if not airflow_study_rights(user)(study, tenant, write=write):
                right = "trigger" if write else "see the runs of"
                wanted = dag_of(study, "{tenant}")  # not every user may know the study's tenant
                raise HTTPException(status_code=403, detail=f"this needs the right to {right} the DAG {wanted!r}")
            if not tenant:  # not by the core, whose message names the studies that there are
                raise HTTPException(status_code=404, detail=f"there is no study {study!r} that you may see")
            return str(user.get_name())

        return check

    return rights
