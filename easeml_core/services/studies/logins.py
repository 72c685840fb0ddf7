"""A tenant's own login for the database: make it, give it a new password, take it away (ADR 0032)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.errors import NotFoundError
from easeml_core.store import logins
from easeml_core.store.server.files import new_password
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.database import Store


@typed_record
class Login:
    """A login of the database.

    Attributes:
        login: The role.
        tenants: Names of the tenants whose rows it has; empty once it was taken away.
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


def make_login(store: Store, *, name: str, tenants: Sequence[str]) -> NewLogin:
    """Make a login for tenants, or give it a new password and these tenants in place of the former ones.

    Args:
        store: Role ``easeml_owner``, or a superuser. A role without CREATEROLE maps the login, and returns the SQL
            that an administrator of the server has to run.
        name: With or without the prefix ``easeml_t_``.
        tenants: Names of the tenants, at least one.

    Raises:
        InvalidInputError: The name is none.
        NotFoundError: There is no such tenant.
        StateError: The server has no group ``easeml_tenant``.
    """
    login, password = logins.login_of(name), new_password()
    with store.begin() as tx:
        ids = [studies.get_tenant(tx, tenant).id for tenant in tenants]
        sql = logins.statements(tx, login, password)
        logins.map_login(tx, login, ids)
        may = logins.may_make_roles(tx)
        if may:
            logins.run(tx, sql)
        made = Login(login, logins.tenants_of_login(tx, login), () if may else sql)
    return NewLogin(made, password)


def end_login(store: Store, *, name: str) -> Login:
    """Take a login away: from now on its sessions see no row, and they are ended where the role may do so.

    Args:
        store: As of ``make_login``.
        name: With or without the prefix.

    Raises:
        NotFoundError: No tenant has such a login.
    """
    login = logins.login_of(name)
    with store.begin() as tx:
        if not logins.tenants_of_login(tx, login):
            raise NotFoundError(kind="login", name=login, known=logins.all_logins(tx), remedy="name one of these")
        logins.map_login(tx, login, ())
        sql, may = logins.end_statements(login), logins.may_make_roles(tx)
    if may:
        with store.begin() as tx:
            logins.run(tx, sql)
    return Login(login, (), () if may else sql)
