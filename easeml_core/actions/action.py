"""The definition of an action: its request, the options that are its fields, and values read into a request.

A request is a frozen dataclass with the decorator ``action``; its fields are made by ``option``. Limits are checked
when a request is made, on every surface. ``read`` makes one from values as forms, templates and JSON bodies give them.

Example:
    >>> from easeml_core.settings.limits import PRIORITY
    >>> @action("json:dumps", name="set-priority", role="easeml_worker")
    ... class SetPriority:
    ...     '''Set the priority of a study.'''
    ...
    ...     study: str = option("Name of the study.")
    ...     priority: int = option("Studies of a higher one come first.", default=0, limit=PRIORITY)
    >>> read(SetPriority, {"study": "flowers", "priority": "7"})
    SetPriority(study='flowers', priority=7)
    >>> options_of(SetPriority)[1].kind
    'integer'
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import datetime
from importlib import import_module
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from easeml_core.settings.config import require, require_known
from easeml_core.settings.limits import Name

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from easeml_core.entities import JsonObject
    from easeml_core.settings.limits import Limit

A = TypeVar("A")

Kind = Literal["string", "integer", "number", "boolean", "array", "object"]
"""The type of an option's value, in the words of JSON Schema."""

EMPTY = (None, "", "None")
"""What an unset field of a form becomes, with and without a template in between."""

_OPTION, _ACTION = "option", "__easeml_action__"
_KINDS: dict[Any, Kind] = {str: "string", datetime: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A field of a request, as every surface shows it.

    Attributes:
        help: One sentence: what it is, and what it means where it is left out.
        name: Of the field.
        kind: Type of the value.
        default: Where it is left out.
        is_required: Whether it must be given.
        limit: What is allowed; None where the service alone can say.
        title: Label in a form.
        examples: Values to choose from or to start with.
        pattern: Regular expression that a form requires of the text; empty for any text.
        longest: Characters that a form takes at most; None for no limit.
        metavar: What stands for the value in the help of a command; empty for the kind.
        is_for_operators: Whether only an operator may give another value than the default.
        annotation: Type of the value, as the request's class says it.
    """

    help: str
    name: str = ""
    kind: Kind = "string"
    default: Any = None
    is_required: bool = False
    limit: Limit | None = None
    title: str = ""
    examples: tuple[str, ...] = ()
    pattern: str = ""
    longest: int | None = None
    metavar: str = ""
    is_for_operators: bool = False
    annotation: str = "str"

    @property
    def words(self) -> tuple[str, ...]:
        """The values to choose from; empty where others are allowed, too."""
        found: tuple[str, ...] = getattr(self.limit, "words", ())
        return found

    @property
    def schema(self) -> JsonObject:
        """The type and the limits as JSON Schema, without the null of an optional field."""
        limit = self.limit
        bounds = {
            "enum": list(self.words) or None,
            "pattern": self.pattern or (f"^{limit.pattern}$" if isinstance(limit, Name) else None),
            "minimum": getattr(limit, "least", None),
            "exclusiveMinimum": getattr(limit, "above", None),
            "maximum": getattr(limit, "most", None),
            "maxLength": self.longest,
            "items": {"type": "object"} if self.kind == "array" else None,
        }
        return {"type": self.kind} | {name: bound for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True, slots=True)
class Action:
    """What is known of an action beside its options.

    Attributes:
        name: On all surfaces, in words with hyphens: ``register-study``.
        help: What it does, one sentence.
        role: The database's role that it needs.
        service: ``module:function`` that does it, called with the store, the request and ``request_key``.
        route: Path of the HTTP API below ``/api/v1``, with options in braces; empty for none.
        options: The fields of the request.
    """

    name: str
    help: str
    role: str
    service: str
    route: str
    options: tuple[Option, ...]

    @property
    def method(self) -> str:
        """The name as that of a method."""
        return self.name.replace("-", "_")

    @property
    def function(self) -> Callable[..., Any]:
        """The service, which is imported on first use."""
        module, _, name = self.service.partition(":")
        found: Callable[..., Any] = getattr(import_module(module), name)
        return found


def option(help: str, *, default: Any = MISSING, **facts: Any) -> Any:
    """A field of a request: its help, its default, and whatever else ``Option`` says of it."""
    return field(default=default, metadata={_OPTION: Option(help=help, **facts)})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option,))
def action(service: str, *, name: str, role: str, route: str = "") -> Callable[[type[A]], type[A]]:
    """Make a class a request: a frozen dataclass whose limits are checked when it is made."""

    def made(kind: type[A]) -> type[A]:
        kind.__post_init__ = _check  # type: ignore[attr-defined]  # called by the dataclass
        found = dataclass(frozen=True, kw_only=True)(kind)
        summary = (kind.__doc__ or "").partition("\n")[0]
        setattr(found, _ACTION, Action(name, summary, role, service, route, _options(found)))
        return found

    return made


def action_of(request: type[Any] | object) -> Action:
    """Return what is known of the action of a request or of its class."""
    found: Action = getattr(request, _ACTION)
    return found


def options_of(request: type[Any]) -> tuple[Option, ...]:
    """Return the options of a request's class, in their order."""
    return action_of(request).options


def _options(request: type[Any]) -> tuple[Option, ...]:
    hints = get_type_hints(request, localns=_json_names())
    return tuple(
        replace(
            one.metadata[_OPTION],
            name=one.name,
            kind=_kind_of(hints[one.name]),
            annotation=str(one.type),
            default=None if one.default is MISSING else one.default,
            is_required=one.default is MISSING,
            title=one.metadata[_OPTION].title or one.name.replace("_", " ").capitalize(),
        )
        for one in fields(request)
    )


def parameters_of(request: type[Any], *, is_templated: bool = False) -> list[inspect.Parameter]:
    """Return the options as keyword parameters of a function; templated ones other than truths may be text."""
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.is_required else one.default,
            annotation=_or_text(one) if is_templated else one.annotation,
        )
        for one in options_of(request)
    ]


def _or_text(one: Option) -> str:
    """Return the type of an option whose template leaves text, too."""
    if one.kind in ("string", "boolean"):
        return one.annotation
    plain = one.annotation.removesuffix(" | None")
    return f"{plain} | str" + (" | None" if plain != one.annotation else "")


def arguments_text(request: type[Any], *others: str) -> str:
    """Return the section ``Args`` of a docstring for the options, and for other arguments behind them."""
    lines = [*[f"{one.name}: {one.help}" for one in options_of(request)], *others]
    folded = [textwrap.fill(line, 116, initial_indent=" " * 4, subsequent_indent=" " * 8) for line in lines]
    return "\n".join(["Args:", *folded])


def read(request: type[A], values: Mapping[str, Any]) -> A:
    """Return a request from values as forms, templates and JSON bodies give them: numbers and JSON may be text.

    Raises:
        InvalidInputError: A name is unknown, or a required one is missing.
        ConfigError: A value has another type, or is outside its limit; names the option.
    """
    options = options_of(request)
    require_known(action_of(request).name, values, [one.name for one in options])
    given = {one.name: _value(one, values[one.name]) for one in options if values.get(one.name) not in EMPTY}
    for one in options:
        require(not one.is_required or one.name in given, one.name, values.get(one.name), "given")
    return request(**given)


def require_may(request: object, *, is_operator: bool) -> None:
    """Refuse a value that only an operator may give.

    Raises:
        ConfigError: Another user gives it; names the option.
    """
    for one in options_of(type(request)):
        value = getattr(request, one.name)
        may = is_operator or not one.is_for_operators or value == one.default
        usual = f"{one.default:g}" if isinstance(one.default, int | float) else one.default
        require(may, one.name, value, f"{usual}; only an operator gives another")


def schema_of(request: type[Any], *, leaves: Container[str] = ()) -> JsonObject:
    """Return the JSON Schema of a request, with the help of each option but those that are left out."""
    options = [one for one in options_of(request) if one.name not in leaves]
    return {
        "title": action_of(request).name,
        "description": action_of(request).help,
        "type": "object",
        "properties": {one.name: {**one.schema, "description": one.help} for one in options},
        "required": [one.name for one in options if one.is_required],
        "additionalProperties": False,
    }


def perform(store: Any, request: object, *, request_key: str) -> Any:
    """Do what a request asks for, and return the answer of its service."""
    return action_of(request).function(store, request, request_key=request_key)


def _check(request: Any) -> None:
    for one in options_of(type(request)):
        value = getattr(request, one.name)
        if one.limit is not None and not (value is None and not one.is_required):
            one.limit.check(one.name, value)


def _json_names() -> dict[str, Any]:
    """Return the names of annotations that a module of requests imports for type checkers only."""
    from collections.abc import Sequence

    return {"Sequence": Sequence, "datetime": datetime, "JsonObject": dict, "Parameters": dict}


def _kind_of(hint: Any) -> Kind:
    if get_origin(hint) in (Union, UnionType):
        kinds = [_kind_of(part) for part in get_args(hint) if part is not NoneType]
        return kinds[-1]  # a point in time may also be given as text
    plain = get_origin(hint) or hint
    if plain in _KINDS:
        return _KINDS[plain]
    return "object" if isinstance(plain, type) and issubclass(plain, Mapping) else "array"


def _value(one: Option, value: Any) -> Any:
    """Return a value that is not empty as the option's kind."""
    if one.kind == "string":
        return value if isinstance(value, datetime) else str(value)
    if one.kind == "boolean":
        known = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
        require(isinstance(known, bool), one.name, value, "true or false")
        return known
    if one.kind in ("integer", "number"):
        return _number(one, value)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            require(False, one.name, value[:60], "a list or an object, or one of these as JSON text")
    require(
        isinstance(value, list | tuple | dict), one.name, value, "a list or an object, or one of these as JSON text"
    )
    return value


def _number(one: Option, value: Any) -> float:
    is_whole = one.kind == "integer"
    allowed = "a whole number" if is_whole else "a number"
    require(isinstance(value, str | int | float) and not isinstance(value, bool), one.name, value, allowed)
    text = str(value).strip()
    if is_whole:
        require(text.removeprefix("-").isdecimal() and text.isascii(), one.name, value, allowed)
        return int(text)
    try:
        return float(text)
    except ValueError:
        require(False, one.name, value, allowed)
        raise
