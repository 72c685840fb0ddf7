"""A tenant's own login for the database: make it, give it a new password, take it away (ADR 0032)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import NotFoundError
from easeml_core.formats.encoding import typed_record
from easeml_core.store import logins
from easeml_core.store.server.place import new_password
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.database import Store


@typed_record
class Login:
    """A login of the database.

    Attributes:
        login: The role.
        tenants: Names of the tenants whose rows it has; empty for workers that train for all, and once it was taken
            away.
        sql: What an administrator of the server has still to run, in this order; empty where it was run.
    """

    login: str
    tenants: tuple[str, ...]
    sql: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewLogin:
    """A login with its password, which is kept nowhere else."""

    login: Login
    password: str


def make_login(store: Store, *, name: str, tenants: Sequence[str] = (), device: bool = False) -> NewLogin:
    """Make a login for tenants, or give it a new password and these tenants in place of the former ones.

    Sessions that are open stay open after a new password; ``end_login`` ends them.
    """
    login, password = logins.login_of(name, device=device), new_password()
    with store.begin() as tx:
        ids = [studies.get_tenant(tx, tenant).id for tenant in tenants]
        sql = logins.statements(tx, login, password)
        if not device:
            logins.map_login(tx, login, ids)
        may = logins.may_make_roles(tx)
        if may:
            logins.run(tx, sql)
        made = Login(login, logins.tenants_of_login(tx, login), () if may else sql)
    return NewLogin(made, password)


def end_login(store: Store, *, name: str, device: bool = False) -> Login:
    """Take a login away: no session of it begins any more, the open ones are ended, and the role is removed.

    Where the role of the store may make no roles, the sessions of a tenant's login see no row from now on, and the rest
    is left to an administrator.
    """
    login = logins.login_of(name, device=device)
    with store.begin() as tx:
        known = logins.device_logins(tx) if device else logins.all_logins(tx)
        if login not in known:
            raise NotFoundError(kind="login", name=login, known=known, remedy="name one of these")
        logins.require_own(tx, login)
        if not device:
            logins.map_login(tx, login, ())
        first, then = logins.close_statement(login), logins.end_statements(login)
        may = logins.may_make_roles(tx)
        if may:
            logins.run(tx, [first])
    if may:
        with store.begin() as tx:  # after the commit: what has begun before it is found here
            logins.run(tx, then)
    return Login(login, (), () if may else (first, *then))
