"""One sealed example at a time, for whoever labels it: a page that reads the whole set for each would be slow."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import NotFoundError
from easeml_core.store.rows import as_json, change, row, scalar, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

_HEAD = 1024
"""Bytes that hold the header of any ``.npy`` file of ours."""


def example_layout(tx: Connection, data_version_id: int) -> Mapping[str, Any] | None:
    """What an example stands for before it was flattened, ``{"kind", "shape"}``; None where it was not kept."""
    found: Mapping[str, Any] | None = scalar(
        tx, "SELECT layout FROM work.data_versions WHERE id = :id", id=data_version_id
    )
    return found


def example_key(tx: Connection, test_set_id: int, place: int) -> str:
    """What the uploader calls the example; its place where the study's data was split.

    Raises:
        NotFoundError: The set has no such example.
    """
    found = row(
        tx,
        "SELECT s.keys ->> CAST(:place AS integer) AS key FROM sealed.test_sets s "
        "JOIN work.test_sets t ON t.id = s.id WHERE s.id = :id AND :place BETWEEN 0 AND t.rows - 1",
        id=test_set_id,
        place=place,
    )
    if found is None:
        raise NotFoundError(kind="sealed example at place", name=place)
    return str(place) if found.key is None else str(found.key)


def example_inputs(tx: Connection, test_set_id: int, place: int) -> NDArray[Any]:
    """The inputs of one example, shape ``(features,)``: its bytes alone are read, since the column is not compressed.

    Raises:
        NotFoundError: The set has no such example.
    """
    head = row(
        tx,
        "SELECT substring(inputs FOR :head) AS head FROM sealed.test_sets WHERE id = :id",
        id=test_set_id,
        head=_HEAD,
    )
    if head is None:
        raise NotFoundError(kind="sealed set with id", name=test_set_id)
    shape, in_columns, dtype, begin = _header(bytes(head.head))
    if not 0 <= place < shape[0]:
        raise NotFoundError(kind="sealed example at place", name=place)
    if in_columns:  # nobody of ours writes such an array, but it can be read
        whole = row(tx, "SELECT inputs FROM sealed.test_sets WHERE id = :id", id=test_set_id)
        assert whole is not None
        return np.asarray(unpack(whole.inputs)[place])
    size = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    found = row(
        tx,
        "SELECT substring(inputs FROM :begin FOR :size) AS bytes FROM sealed.test_sets WHERE id = :id",
        id=test_set_id,
        begin=begin + place * size + 1,
        size=size,
    )
    assert found is not None
    return np.frombuffer(bytes(found.bytes), dtype=dtype).reshape(shape[1:])


def keep_cells(tx: Connection, test_set_id: int, names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Keep the examples as they were brought, for people to read; once, when the set is sealed.

    Args:
        tx: Transaction of the referee's role.
        test_set_id: The set.
        names: Names of the columns.
        cells: Of every example, in the set's order, the cells of these columns.
    """
    change(
        tx,
        "UPDATE sealed.test_sets SET cell_names = CAST(:names AS jsonb) WHERE id = :id",
        id=test_set_id,
        names=as_json(list(names)),
    )
    change(
        tx,
        "INSERT INTO sealed.cells (test_set_id, place, cells) SELECT :id, number - 1, CAST(text AS jsonb) "
        "FROM unnest(CAST(:cells AS text[])) WITH ORDINALITY AS brought (text, number)",
        id=test_set_id,
        cells=[as_json(list(row)) for row in cells],
    )


def example_cells(tx: Connection, test_set_id: int, place: int) -> list[tuple[str, str]] | None:
    """One example as it was brought: names and cells; None where they were not kept, since its numbers tell as much."""
    found = row(
        tx,
        "SELECT s.cell_names, c.cells FROM sealed.cells c JOIN sealed.test_sets s ON s.id = c.test_set_id "
        "WHERE c.test_set_id = :id AND c.place = :place",
        id=test_set_id,
        place=place,
    )
    return None if found is None else list(zip(found.cell_names, found.cells, strict=True))


def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, type, and where the numbers begin, of an array that ``rows.pack`` wrote."""
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read(stream)
    return shape, in_columns, dtype, stream.tell()
