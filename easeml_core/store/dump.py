"""PostgreSQL's pg_dump, pg_restore and psql: which program, which version, and a password that no process list shows.

A restore replaces the schemas as a whole: ``pg_restore --clean`` removes what the dump knows, and the database may have
more tables, of a later revision. psql drops the schemas and runs the statements of pg_restore in one transaction.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from easeml_core.errors import StateError, StoreError
from easeml_core.store.rows import rows, scalar
from easeml_core.store.server.place import PROGRAMS, installed_site

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.store.database import Store

SCHEMAS = ("work", "sealed")
"""The schemas of a backup."""

_OURS = ", ".join(f"'{schema}'" for schema in SCHEMAS)

# What a cascade reaches: all that depends on an object, and the whole that it is a part of. A part, such as the rule of
# a view, is listed as its whole. Triggers, policies, constraints and defaults have no schema: they are their table's.
_FOREIGN = f"""
WITH RECURSIVE dropped (classid, objid, objsubid) AS (
    SELECT 'pg_namespace'::regclass::oid, oid, 0 FROM pg_namespace WHERE nspname IN ({_OURS})
  UNION
    SELECT found.* FROM dropped o CROSS JOIN LATERAL (
        SELECT d.classid, d.objid, d.objsubid FROM pg_depend d
        WHERE (d.refclassid, d.refobjid) = (o.classid, o.objid) AND o.objsubid IN (0, d.refobjsubid)
      UNION ALL
        SELECT d.refclassid, d.refobjid, d.refobjsubid FROM pg_depend d
        WHERE (d.classid, d.objid) = (o.classid, o.objid) AND d.deptype IN ('i', 'e')
    ) found
)
SELECT i.type || ' ' || i.identity AS name
FROM dropped o CROSS JOIN pg_identify_object(o.classid, o.objid, o.objsubid) i
    LEFT JOIN pg_namespace n ON n.nspname = i.schema
    LEFT JOIN pg_class c ON (o.classid, o.objid) = ('pg_class'::regclass, c.oid)
    LEFT JOIN pg_proc p ON (o.classid, o.objid) = ('pg_proc'::regclass, p.oid)
WHERE o.classid <> 'pg_namespace'::regclass
    AND i.schema IS DISTINCT FROM 'pg_toast'
    AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE (d.classid, d.objid) = (o.classid, o.objid) AND d.deptype IN ('i', 'e')
    )
    AND CASE
        WHEN i.schema IN ({_OURS}) THEN coalesce(c.relowner, p.proowner) <> n.nspowner
        WHEN i.schema IS NOT NULL THEN true
        ELSE (
            SELECT bool_and(coalesce(r.schema IN ({_OURS}), r.type = 'schema')) IS NOT TRUE
            FROM pg_depend d CROSS JOIN pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) r
            WHERE (d.classid, d.objid, d.deptype) = (o.classid, o.objid, 'a')
        )
    END
ORDER BY name
"""

_REPLACE = f"""
BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL statement_timeout = 0;
DO $$
DECLARE
    found text;
BEGIN
    IF NOT %(replaces)s AND to_regclass('work.studies') IS NOT NULL THEN
        LOCK TABLE work.studies;
        IF EXISTS (SELECT FROM work.studies) THEN
            RAISE 'the database has studies by now, which are replaced with --replace only';
        END IF;
    END IF;
    SELECT string_agg(name, ', ') INTO found FROM ({_FOREIGN}) AS foreign_objects;
    IF found IS NOT NULL THEN
        RAISE 'objects of others would be lost: %%', found;
    END IF;
    DROP SCHEMA IF EXISTS {", ".join(SCHEMAS)} CASCADE;
END
$$;
"""


def server_version(store: Store) -> int:
    """Return the major version of the server, e.g. 18."""
    with store.begin(check_schema=False) as tx:
        return int(scalar(tx, "SELECT current_setting('server_version_num')::int / 10000"))


def is_in_use(store: Store) -> bool:
    """Whether the database has a study, so that a restore would end what is there. Role ``easeml_owner``."""
    with store.begin(check_schema=False) as tx:
        if scalar(tx, "SELECT to_regclass('work.studies')") is None:
            return False
        return bool(scalar(tx, "SELECT EXISTS (SELECT FROM work.studies)"))


def foreign_objects(store: Store) -> list[str]:
    """Return what a restore would remove and is not the installation's, e.g. ``view reports.daily``.

    These are objects outside the schemas that depend on what is in them, and objects in them that another role owns.
    """
    with store.begin(check_schema=False) as tx:
        return [str(name) for (name,) in rows(tx, _FOREIGN)]


def program(name: str, *, server: int) -> Path:
    """Return the first program of PostgreSQL on PATH, or of the embedded server, that suits a server."""
    found = [Path(there)] if (there := shutil.which(name)) else []
    with contextlib.suppress(StateError):  # the wheel of the embedded server is not installed
        found.append(installed_site() / PROGRAMS / name)
    versions = {path: _version(path) for path in found}
    suited = next((path for path, version in versions.items() if version is not None and version >= server), None)
    if suited is None:
        seen = ", ".join(f"{path} of version {version}" for path, version in versions.items()) or "none"
        message = (
            f"{name} of PostgreSQL {server} or newer is needed, found: {seen}; install PostgreSQL's client programs "
            "of the server's version and put them on PATH"
        )
        raise StateError(message)
    return suited


def dump(url: str, path: Path, *, server: int, schemas: Sequence[str] = SCHEMAS) -> None:
    """Write a dump in PostgreSQL's custom format, of one snapshot."""
    only = [f"--schema={schema}" for schema in schemas]
    _run([str(program("pg_dump", server=server)), "--format=custom", *only, f"--file={path}"], url)


def restore(url: str, path: Path, *, server: int, replaces: bool = False) -> None:
    """Put a dump in the place of the schemas that the database has, in one transaction.

    The end of its input alone does not make psql commit: a dump that ends early, or a process that is killed, changes
    nothing.
    """
    reader = [str(program("pg_restore", server=server)), "--file=-", str(path)]
    address, secret = _address(url)
    writer = [str(program("psql", server=server)), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", address]
    with tempfile.TemporaryFile() as complaints:  # a pipe that nothing reads would fill
        with subprocess.Popen(
            writer, env=_environment(secret), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints
        ) as psql:
            assert psql.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # psql has ended, and has said why
                psql.stdin.write((_REPLACE % {"replaces": replaces}).encode())
                psql.stdin.flush()
                read = subprocess.run(
                    reader,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=psql.stdin,
                    stderr=subprocess.PIPE,
                    check=False,
                )
                if read.returncode == 0:
                    psql.stdin.write(b"COMMIT;\n")
                psql.stdin.close()
        complaints.seek(0)
        _require_success("psql", psql.returncode, complaints.read())
    _require_success("pg_restore", read.returncode, read.stderr)


def _run(command: list[str], url: str) -> None:
    """Run a program on a database."""
    address, secret = _address(url)
    done = subprocess.run(
        [*command[:-1], address, command[-1]],
        env=_environment(secret),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    _require_success(Path(command[0]).name, done.returncode, done.stderr)


def _address(url: str) -> tuple[str, dict[str, str]]:
    """Return the argument that names a database, without the password, and the variable that holds it."""
    address = make_url(url).set(drivername="postgresql")
    shown = address._replace(password=None).render_as_string(hide_password=False)
    return f"--dbname={shown}", {} if address.password is None else {"PGPASSWORD": str(address.password)}


def _environment(secret: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", **(secret or {})}


def _require_success(name: str, status: int, said: bytes) -> None:
    if status != 0:
        first = (said.decode(errors="replace").strip().splitlines() or [f"exit status {status}"])[0]
        message = f"{name} failed, and nothing is used of what it wrote: {first}"
        raise StoreError(message)


def _version(path: Path) -> int | None:
    """Major version of a program; None where it does not run."""
    try:
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"(\d+)(\.\d+)?", done.stdout)
    return int(found[1]) if found else None
