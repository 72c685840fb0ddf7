"""Lists everything that exists for a developer to observe: from the catalogue, the routes, the commands, the code.

No list is kept by hand here; what the product gains appears by itself.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
from alphabet import Kind, Letter, letter_of
from fastapi.routing import APIRoute
from sqlalchemy import text

from easeml_core import errors
from easeml_core.entities import Adaptivity
from easeml_core.services.referee.publishing import Timetable
from easeml_core.settings.config import DirectConfig, GateConfig, JointConfig, MeterConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.store.database import Store

ROOT = Path(__file__).resolve().parents[3]
REFUSALS = (errors.InvalidInputError, errors.StateError)
"""Errors whose message the referee puts into an answer (``services/referee/process.py``)."""

RELATIONS = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND n.nspname NOT LIKE 'pg\\_t%'
AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT') ORDER BY 1, 2
"""
_COLUMNS = """
SELECT n.nspname || '.' || c.relname || '.' || a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
AND has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT') ORDER BY 1
"""
_FUNCTIONS = """
SELECT DISTINCT n.nspname || '.' || p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND has_schema_privilege(n.oid, 'USAGE')
AND has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1
"""
_CHECKS = """
SELECT n.nspname || '.' || c.relname, pg_get_constraintdef(k.oid) FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'c' AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
"""


def found(store: Store, app: Any) -> dict[Kind, set[str]]:
    """Every item that exists, by its kind, except ``Kind.CATALOGUE``, which lists exceptions.

    Args:
        store: As the role ``easeml_worker``.
        app: The web application with its service.
    """
    with store.begin() as tx:
        relations = {(schema, name) for schema, name in tx.execute(text(RELATIONS))}
        columns = set(tx.execute(text(_COLUMNS)).scalars())
        functions = set(tx.execute(text(_FUNCTIONS)).scalars())
        checks = [(table, rule) for table, rule in tx.execute(text(_CHECKS))]
    ours = {f"{schema}.{name}" for schema, name in relations if schema not in ("pg_catalog", "information_schema")}
    return {
        Kind.TABLE: ours,
        Kind.COLUMN: columns,
        Kind.VALUE: set(_values(checks)),
        Kind.FUNCTION: functions,
        Kind.TOPIC: set(_topics()),
        Kind.ROUTE: {f"{method} {route.path}" for route in routes_of(app) for method in route.methods},
        Kind.COMMAND: {" ".join(words) for words, _ in commands()},
        Kind.CLASS: set(_classes()),
        Kind.EVENT: set(_events()),
        Kind.MAIL: {name for _, name in _functions_with("recipient")},
        Kind.ERROR: {kind.__name__ for kind in vars(errors).values() if _is_refusal(kind)},
        Kind.LOG: set(_logs()),
    }


def routes_of(app: Any) -> list[APIRoute]:
    """All routes of an application, also those of included routers."""

    def walk(routes: Any) -> Iterator[Any]:
        for route in routes:
            yield from walk(route.routes) if hasattr(route, "routes") else [route]

    every = list(walk(app.routes))
    assert all(isinstance(route, APIRoute) for route in every), "a mount or a websocket needs a kind of its own"
    return every


def parameters_of(route: APIRoute) -> list[str]:
    """Names of all parameters of a route's query, also those that a dependency of it takes."""

    def walk(dependant: Any) -> Iterator[str]:
        yield from (parameter.alias for parameter in dependant.query_params)
        for inner in dependant.dependencies:
            yield from walk(inner)

    return list(dict.fromkeys(walk(route.dependant)))


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that is no group, with its words."""
    from easeml_core.cli.app import cli

    def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        if not isinstance(command, click.Group):
            yield words, command
            return
        for name, inner in command.commands.items():
            yield from walk(inner, (*words, name))

    return walk(cli, ())


def options_of(command: click.Command) -> list[click.Parameter]:
    """Parameters of a command that it can do without, but for the database's address and the form of the output."""
    return [p for p in command.params if not p.required and p.name not in ("database", "as_json")]


def arguments_of(kind: Any) -> list[str]:
    """Names of the arguments that a class of the plugin, or a base of it that is the plugin's, takes."""
    found = [
        name
        for base in kind.__mro__
        if base.__module__.startswith("easeml_airflow.") and "__init__" in vars(base)
        for name in list(inspect.signature(base.__init__).parameters)[1:]
    ]
    return [name for name in dict.fromkeys(found) if name != "kwargs"]


def settings() -> dict[str, Any]:
    """Every setting of gate, meter, joint set and second meter: ``gate.sampling`` to its default."""
    known = {"gate": GateConfig, "meter": MeterConfig, "joint": JointConfig, "direct": DirectConfig}
    return {f"{system}.{one.name}": one.default for system, config in known.items() for one in attrs.fields(config)}


def modes() -> Iterator[str]:
    """Every word that a setting allows, as the settings say that they are, and for others that they were set at all."""
    configs = {"gate": GateConfig(), "meter": MeterConfig(), "joint": JointConfig(), "direct": DirectConfig()}
    for name, default in settings().items():
        system, _, field = name.partition(".")
        words = _words_of(configs[system], field) if isinstance(default, str) else []
        words = ["True", "False"] if isinstance(default, bool) else words
        yield from (f"{name}={word}" for word in words) if words else (f"{name} is set",)
    yield from (f"answers.{field.name} is set" for field in dataclasses.fields(Timetable))
    yield from (f"labels are given {when}" for when in ("up front", "on demand"))


def _words_of(config: Any, field: str) -> list[str]:
    """The words that the error of a setting lists; none for free text."""
    if field == "adaptivity":  # with a number behind one of them
        return [str(word) for word in Adaptivity]
    try:
        attrs.evolve(config, **{field: "?"})
    except errors.ConfigError as error:
        listed = re.search(r"one of ([^;]*)", str(error))
        return [word for word in listed.group(1).split(", ") if not word.startswith("got ")] if listed else []
    return []


def _values(checks: list[tuple[str, str]]) -> Iterator[str]:
    """Values that a CHECK constraint allows in a column whose letter depends on symbols."""
    for table, rule in checks:
        for column, listed in re.findall(r"\((\w+) = ANY \(ARRAY\[([^]]*)\]\)", rule):
            letter = letter_of(Kind.COLUMN, f"{table}.{column}")
            if letter is not None and letter.basis is Letter.SYMBOL.basis:
                yield from (f"{table}.{column}={value}" for value in re.findall(r"'([^']*)'::text", listed))


def _modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of both packages, parsed."""
    for folder in (ROOT / "easeml_core", ROOT / "plugins" / "easeml_airflow"):
        for path in sorted(folder.rglob("*.py")):
            name = ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def _called(node: ast.AST) -> str:
    """Name of the function that a call calls, without what stands before the dot; empty for other nodes."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


_TOPICS_FROM = {"notify": 1, "known_topics": 0}
"""Function -> which of its arguments is the first topic."""
_NOTIFIED = re.compile(r"pg_notify\(\s*'([^']*)'")


def _topics() -> Iterator[str]:
    """Channel and topic of every call of ``notify`` or ``known_topics``; the channel of ``pg_notify`` in SQL.

    Topics that a function is handed stand in a tuple that its caller assigns and passes on as ``also``.
    """
    for path in sorted((ROOT / "easeml_core" / "store" / "migrations").rglob("*.sql")):
        yield from (f"SQL {channel}" for channel in _NOTIFIED.findall(path.read_text(encoding="utf-8")))
    for _, tree in _modules():
        handed_on = {k.value.id for k in ast.walk(tree) if isinstance(k, ast.keyword) and k.arg == "also"
                     and isinstance(k.value, ast.Name)}  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
                names = {target.id for target in node.targets if isinstance(target, ast.Name)}
                yield from (f"CHANNEL {_topic(one)}" for one in node.value.elts if names & handed_on)
            if isinstance(node, ast.Call) and (first := _TOPICS_FROM.get(_called(node))) is not None:
                channel = next((k.value for k in node.keywords if k.arg == "channel"), ast.Name("CHANNEL"))
                for given in node.args[first:]:
                    named: Any = given.value if isinstance(given, ast.Starred) else given
                    if not isinstance(named, ast.Name):
                        named = named.elt if isinstance(given, ast.Starred) else named
                        yield f"{_called(channel) or ast.unparse(channel)} {_topic(named)}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from (f"SQL {channel}" for channel in _NOTIFIED.findall(node.value))


def _topic(literal: ast.expr) -> str:
    """What a literal or formatted text has before its colon."""
    return ast.unparse(literal).lstrip("f").strip("'\"").partition(":")[0]


def _classes() -> Iterator[str]:
    """What DAG authors import: operators, sensors, notifiers, decorators."""
    for package in ("operators", "sensors", "notifications", "decorators"):
        yield from importlib.import_module(f"easeml_airflow.{package}").__all__


def _events() -> Iterator[str]:
    """Questions of our trigger, triggers of asset watchers, and kinds of news."""
    from easeml_airflow.triggers.questions import QUESTIONS
    from easeml_core.services.operations.notifications import EventKind

    yield from (f"question {name}" for name in QUESTIONS)
    yield from (f"news {kind}" for kind in EventKind)
    yield from ("trigger AnswersTrigger", *(f"trigger {trigger.__name__}" for trigger in watchers()))


def watchers() -> list[Any]:
    """Triggers of asset watchers: every trigger that is not abstract, but those of our tasks."""
    from easeml_airflow import triggers
    from easeml_airflow.triggers.easeml import EasemlTrigger
    from easeml_airflow.version_compat import BaseTrigger

    found = []
    for module in pkgutil.iter_modules(triggers.__path__, "easeml_airflow.triggers."):
        for kind in vars(importlib.import_module(module.name)).values():
            is_ours = inspect.isclass(kind) and issubclass(kind, BaseTrigger) and kind.__module__ == module.name
            if is_ours and not issubclass(kind, EasemlTrigger) and not inspect.isabstract(kind):
                found.append(kind)
    return found


def _functions_with(key: str) -> Iterator[tuple[str, str]]:
    """Module and name of functions of the services that pass this keyword or build a dict with this key."""
    for name, tree in _modules():
        if not name.startswith("easeml_core.services"):
            continue
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            keys = {
                k.value
                for n in ast.walk(function)
                if isinstance(n, ast.Dict)
                for k in n.keys
                if isinstance(k, ast.Constant)
            }
            words = {k.arg for n in ast.walk(function) if isinstance(n, ast.Call) for k in n.keywords}
            if key in keys | words:
                yield name, function.name


def _is_refusal(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, REFUSALS)


def _logs() -> Iterator[str]:
    """Modules with a logger of their own. Operators log through their class, which has a letter of its own."""
    for name, tree in _modules():
        if any(_called(node) == "getLogger" for node in ast.walk(tree)):
            yield name
