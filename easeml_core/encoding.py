"""JSON of the product's values: one encoder for ``--json``, the HTTP API and XComs.

A value is a frozen dataclass, an enum, a number, text, a time, or a collection of these. Keys are the names of the
fields, in their order. The schema of every public answer is generated from its class, so classes and documents cannot
differ.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

import attrs
import msgspec

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    Args:
        value: Of any type above, nested to any depth.

    Raises:
        TypeError: If a part has a type without a JSON form, such as a connection.

    Example:
        >>> from datetime import UTC, datetime
        >>> to_json({"at": datetime(2026, 1, 2, tzinfo=UTC), "scores": (0.5, None)})
        {'at': '2026-01-02T00:00:00Z', 'scores': [0.5, None]}
    """
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_other))


def to_stored_json(value: Any) -> Any:
    """Return a value as JSON's own types for a column of the database: ``to_json`` without a loss.

    Raises:
        InvalidInputError: If a number is NaN or infinite: null in its place would be read as a value that is missing.
        TypeError: As of ``to_json``.
    """
    plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_other)
    try:
        return json.loads(json.dumps(plain, allow_nan=False))
    except ValueError as error:
        message = f"only finite numbers can be stored as JSON: {error}"
        raise InvalidInputError(message) from error


def from_json(value: Any, kind: type[T]) -> T:
    """Return a dataclass from JSON's own types: the inverse of ``to_json``.

    Keys without a field are left out, so that a row of a later version can be read.

    Args:
        value: What ``json.loads`` or a jsonb column gives.
        kind: A dataclass, or any other type that JSON can stand for.

    Raises:
        ValueError: If a key without a default is missing, or a value has another type than its field.

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


def schema_of(kind: type) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a dataclass, as ``to_json`` writes it.

    Raises:
        TypeError: If ``kind`` is no dataclass, or a field's type has no JSON form.
    """
    if not is_dataclass(kind):
        message = f"only dataclasses have a schema, not {kind!r}"
        raise TypeError(message)
    return msgspec.json.schema(kind, schema_hook=_schema_of_other)


def schemas_of(kinds: Sequence[Any]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """Return the JSON Schema of each type, as ``to_json`` writes it, and the definitions that they share.

    Raises:
        TypeError: If a field's type has no JSON form.
    """
    return msgspec.json.schema_components(kinds, schema_hook=_schema_of_other, ref_template="#/$defs/{name}")


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
