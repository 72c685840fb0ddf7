"""JSON of the product's values: one encoder for ``--json``, the HTTP API and XComs.

A value is a frozen dataclass, an enum, a number, text, a time, or a collection of these. Keys are the names of the
fields, in their order. The schema of every public answer is generated from its class, so classes and documents cannot
differ.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import PurePath
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs
import msgspec

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def typed_record(kind: type[T]) -> type[T]:
    """Make a class a frozen dataclass with slots whose annotations are read at run time.

    Rows of the store and public answers are such classes: rows are built by their field types (``store/rows.py``), and
    answers have a JSON Schema. The linter therefore wants the types of their fields imported at run time.
    """
    return dataclass(frozen=True, slots=True)(kind)


def to_json(value: Any) -> Any:
    """Return a value as JSON's own types.

    Times become RFC 3339 text, enums their values, paths text, NumPy numbers and arrays numbers and lists,
    tuples and sets lists, and numbers that JSON does not have (NaN and the infinities) null.

    Example:
        >>> from datetime import UTC, datetime
        >>> to_json({"at": datetime(2026, 1, 2, tzinfo=UTC), "scores": (0.5, None)})
        {'at': '2026-01-02T00:00:00Z', 'scores': [0.5, None]}
    """
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_other))


def to_stored_json(value: Any) -> Any:
    """Return a value as JSON's own types for a column of the database: ``to_json`` without a loss."""
    plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_other)
    try:
        return json.loads(json.dumps(plain, allow_nan=False))
    except ValueError as error:
        message = f"only finite numbers can be stored as JSON: {error}"
        raise InvalidInputError(message) from error


def from_json(value: Any, kind: type[T]) -> T:
    """Return a dataclass from JSON's own types: the inverse of ``to_json``.

    Keys without a field are left out, so that a row of a later version can be read.

    Example:
        >>> @typed_record
        ... class Point:
        ...     x: float
        ...     name: str = ""
        >>> from_json({"x": 1, "other": True}, Point)
        Point(x=1.0, name='')
    """
    found: T = msgspec.convert(value, kind)
    return found


def schemas_of(kinds: Sequence[Any]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """Return the JSON Schema of each type, as ``to_json`` writes it, and the definitions that they share."""
    unions = _Unions()
    plain = [unions.without(kind) for kind in kinds]
    members = list(dict.fromkeys(one for alternatives in unions.alternatives.values() for one in alternatives))

    def hook(kind: type) -> dict[str, Any]:
        return {_ALTERNATIVES: unions.alternatives[kind]} if kind in unions.alternatives else _schema_of_other(kind)

    found, shared = msgspec.json.schema_components([*plain, *members], schema_hook=hook, ref_template="#/$defs/{name}")
    schemas = dict(zip(members, found[len(plain) :], strict=True))
    return tuple(_named(one, schemas) for one in found[: len(plain)]), _named(shared, schemas)


_ALTERNATIVES = "alternatives"
"""Key under which a schema holds the classes of a union until these have names."""


def _named(schema: Any, schemas: Mapping[type, dict[str, Any]]) -> Any:
    """Return a schema in which each union of records refers to theirs."""
    if isinstance(schema, dict):
        if _ALTERNATIVES in schema and isinstance(schema[_ALTERNATIVES], tuple):
            return {"anyOf": [schemas[kind] for kind in schema[_ALTERNATIVES]]}
        return {key: _named(value, schemas) for key, value in schema.items()}
    return [_named(value, schemas) for value in schema] if isinstance(schema, list) else schema


class _Unions:
    """Stand-ins for unions of records: msgspec describes none, since it could not tell their JSON apart.

    Attributes:
        alternatives: The classes that each stand-in is for.
    """

    def __init__(self) -> None:
        self.alternatives: dict[type, tuple[type, ...]] = {}
        self._plain: dict[type, type] = {}

    def without(self, hint: Any) -> Any:
        """Return a type with a stand-in for each union of records in it; records that have one are copied."""
        origin, parts = get_origin(hint), get_args(hint)
        if origin in (Union, UnionType):
            records = tuple(self.without(part) for part in parts if is_dataclass(part) or attrs.has(part))
            others = [self.without(part) for part in parts if not (is_dataclass(part) or attrs.has(part))]
            return Union[(*((self._one_of(records),) if len(records) > 1 else records), *others)]
        if origin is not None and origin is not Literal and origin is not Annotated:
            return origin[tuple(self.without(part) for part in parts)]
        return self._without(hint) if isinstance(hint, type) and is_dataclass(hint) else hint

    def _one_of(self, records: tuple[type, ...]) -> type:
        for stand_in, alternatives in self.alternatives.items():
            if alternatives == records:
                return stand_in
        stand_in = type("OneOf", (), {})
        self.alternatives[stand_in] = records
        return stand_in

    def _without(self, kind: type) -> type:
        if kind not in self._plain:
            self._plain[kind] = kind  # where it refers to itself
            hints = get_type_hints(kind)
            plain = {name: self.without(hint) for name, hint in hints.items()}
            if plain != hints:
                self._plain[kind] = make_dataclass(
                    kind.__name__,
                    [(f.name, plain[f.name], _as(f)) for f in fields(kind)],
                    namespace={"__doc__": kind.__doc__},
                    kw_only=True,
                )
        return self._plain[kind]


def _as(found: Field[Any]) -> Any:
    """Return a field with the same default."""
    if found.default_factory is not MISSING:
        return field(default_factory=found.default_factory)
    return field() if found.default is MISSING else field(default=found.default)


def row_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass or of settings by name, one level deep: a row of a table."""
    kind = type(value)
    found = attrs.fields(kind) if attrs.has(kind) else fields(kind)
    return {field.name: getattr(value, field.name) for field in found}


def _other(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, without an import of numpy
        return value.tolist()
    message = f"a {type(value).__name__} has no JSON form: {value!r}"
    raise TypeError(message)


def _schema_of_other(kind: type) -> dict[str, Any]:
    if issubclass(kind, PurePath):
        return {"type": "string"}
    message = f"{kind!r} has no JSON schema"
    raise TypeError(message)
