"""Labels that people give for sealed examples: what is wanted, what each labeler gave, what follows from it.

The number and size of these rows say nothing about a label: one array a labeler and two bit fields a request, all at
full length from the start and changed in place. Positions count in the set's fixed order. A labeling page reads one
example at a time, since reading the whole set for each would be slow.
"""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.formats.encoding import from_json, to_json, typed_record
from easeml_core.store.database import notify
from easeml_core.store.rows import as_json, change, pack, row, rows, scalar, unpack
from easeml_core.store.tables import chain
from easeml_core.store.tables.chained_rows import LABELS, of_set
from easeml_core.store.tables.sealed import private_channel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Row


UNKNOWN = -1
"""In an array of labels: no label was given, or the labelers do not agree."""

UNSURE = -2
"""In an array of one labeler's answers: the labeler has seen the example and cannot tell. Not counted as a label."""

REFEREE = "referee"
"""The labeler whose answer resolves a conflict."""


MOST_BATCHES = 200
"""Largest number of sets in a list of wanted labels."""


@typed_record
class Stated:
    """At which examples there is a label that can change no more, as bits in base64, and the SHA-256 of these."""

    examples: str
    labels: str


@typed_record
class StatedLabels:
    """Content of an entry of a set's chain: the labels that verdicts may have used.

    Attributes:
        version: Of this form.
        known: What follows from all labelers.
        given: Of each labeler, by name.
    """

    version: int
    known: Stated
    given: dict[str, Stated]


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """The labels that a request waits for.

    Attributes:
        request_id: The request.
        test_set_id: The set it is judged on.
        positions: int64, rising: the examples whose labels it needs; some may be known by now.
        asked: bool, shape ``(n_examples,)``: what it has ever needed, those of earlier batches included.
        is_open: Whether it still waits.
    """

    request_id: int
    test_set_id: int
    positions: NDArray[np.int64]
    asked: NDArray[np.bool_]
    is_open: bool


def known_labels(tx: Connection, test_set_id: int) -> NDArray[Any]:
    """Return the label of every example, ``UNKNOWN`` (-1) where none was given or labelers differ.

    Labels that were sealed with the set come first, then the answer of the labeler ``referee``, then what all others
    agree on.
    """
    sealed = unpack(_sealed(tx, test_set_id).labels)
    return _known(sealed, {} if sealed.dtype.kind == "f" else labels_given(tx, test_set_id))


def _known(sealed: NDArray[Any], given: Mapping[str, NDArray[np.int64]]) -> NDArray[Any]:
    if sealed.dtype.kind == "f":
        return sealed
    sealed = sealed.astype(np.int64)
    return np.where(sealed == UNKNOWN, settled(given, len(sealed)), sealed)


def settled(given: Mapping[str, NDArray[np.int64]], examples: int) -> NDArray[np.int64]:
    """Combine the labelers' answers: the referee's, else what all who answered agree on, else ``UNKNOWN``."""
    nothing = np.full(examples, UNKNOWN, dtype=np.int64)
    agreed = np.where(disputed(given, examples), UNKNOWN, np.max([nothing, *_others(given)], axis=0))
    word = given.get(REFEREE, nothing)
    return np.where(word == UNKNOWN, agreed, word)


def disputed(given: Mapping[str, NDArray[np.int64]], examples: int) -> NDArray[np.bool_]:
    """Return where two labelers other than the referee differ, shape ``(examples,)``."""
    spoken = [np.full(examples, UNKNOWN, dtype=np.int64), *_others(given)]
    highest = np.max(spoken, axis=0)
    lowest = np.min([np.where(labels == UNKNOWN, highest, labels) for labels in spoken], axis=0)
    return np.asarray(lowest != highest)


def _others(given: Mapping[str, NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    return [labels for labeler, labels in given.items() if labeler != REFEREE]


def labels_given(tx: Connection, test_set_id: int) -> dict[str, NDArray[np.int64]]:
    """Return labeler to labels, shape ``(n_examples,)``, -1 where that labeler has given none; by name."""
    return labels_of(words_given(tx, test_set_id))


def labels_of(words: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Return the labels among the answers: ``UNSURE`` is none."""
    return {labeler: np.maximum(said, UNKNOWN) for labeler, said in words.items()}


def words_given(tx: Connection, test_set_id: int) -> dict[str, NDArray[np.int64]]:
    """Return labeler to all answers, shape ``(n_examples,)``, ``UNSURE`` included; by name."""
    found = rows(
        tx, "SELECT labeler, labels FROM sealed.labels WHERE test_set_id = :id ORDER BY labeler", id=test_set_id
    )
    return {r.labeler: unpack(r.labels) for r in found}


def cannot_tell(words: Mapping[str, NDArray[np.int64]], examples: int) -> NDArray[np.int64]:
    """Count the labelers who cannot tell, shape ``(examples,)``; 0 where one has given a label.

    Example:
        >>> words = {"ann": np.array([-2, -2, 1, -1]), "bob": np.array([-2, 0, -2, -1])}
        >>> cannot_tell(words, 4)
        array([2, 0, 0, 0])
    """
    passed, labelled = np.zeros(examples, dtype=np.int64), np.zeros(examples, dtype=bool)
    for said in words.values():
        passed += said == UNSURE
        labelled |= said > UNKNOWN
    return np.where(labelled, 0, passed)


def words_of(tx: Connection, test_set_id: int, labeler: str, examples: int) -> NDArray[np.int64]:
    """Return all answers of one labeler, shape ``(n_examples,)``, ``UNSURE`` included."""
    found = scalar(
        tx, "SELECT labels FROM sealed.labels WHERE test_set_id = :id AND labeler = :who", id=test_set_id, who=labeler
    )
    return np.full(examples, UNKNOWN, dtype=np.int64) if found is None else unpack(found)


def keep_labels(tx: Connection, test_set_id: int, labeler: str, labels: NDArray[np.int64]) -> None:
    """Store all answers of a labeler; requests that now have the labels they wanted are open to the referee again."""
    change(
        tx,
        "INSERT INTO sealed.labels (test_set_id, labeler, labels) VALUES (:id, :labeler, :labels) "
        "ON CONFLICT ON CONSTRAINT labels_pkey DO UPDATE SET labels = :labels",
        id=test_set_id,
        labeler=labeler,
        labels=pack(labels),
    )
    _close_complete(tx, test_set_id)
    announce(tx, test_set_id)


def _close_complete(tx: Connection, test_set_id: int) -> None:
    known = known_labels(tx, test_set_id)
    for wanted in wanted_of(tx, test_set_id):
        if wanted.is_open and (known[wanted.positions] != UNKNOWN).all():
            close_wanted(tx, wanted.request_id)


def announce(tx: Connection, test_set_id: int) -> None:
    """Wake the referee: what requests of this set wait for may have come."""
    notify(tx, f"labels:{test_set_id}", channel=private_channel(tx))


def hold_set(tx: Connection, test_set_id: int) -> None:
    """Keep verdicts and other labelers off the set until the transaction ends: no label changes while it is used."""
    rows(tx, "SELECT id FROM work.test_sets WHERE id = :id FOR UPDATE", id=test_set_id)


def want(tx: Connection, *, request_id: int, test_set_id: int, positions: NDArray[np.int64]) -> None:
    """Note which labels a request waits for; replaces what it waited for before, and may be repeated.

    The row is open, and the request waits, until all these labels are known (``keep_labels``) or ``close_wanted``.
    """
    known = known_labels(tx, test_set_id)
    examples = len(known)
    places = np.asarray(positions, dtype=np.int64)
    if len(places) and (places.min() < 0 or places.max() >= examples):
        message = f"wanted positions must be from 0 to {examples - 1}, got {places.min()} to {places.max()}"
        raise InvalidInputError(message)
    mask = np.zeros(examples, dtype=bool)
    mask[places] = True
    asked = mask.copy()
    for before in wanted_of(tx, test_set_id):
        if before.request_id == request_id:
            asked |= before.asked
    close_wanted(tx, request_id)
    change(
        tx,
        "INSERT INTO sealed.wanted (request_id, test_set_id, examples, asked, is_open) "
        "VALUES (:id, :set, :examples, :asked, :open) ON CONFLICT ON CONSTRAINT wanted_pkey DO UPDATE "
        "SET examples = :examples, asked = :asked, is_open = :open",
        id=request_id,
        set=test_set_id,
        examples=np.packbits(mask).tobytes(),
        asked=np.packbits(asked).tobytes(),
        open=bool((known[mask] == UNKNOWN).any()),
    )


def close_wanted(tx: Connection, request_id: int) -> None:
    """The request waits for no label any more: it was answered, or is judged on another set."""
    change(tx, "UPDATE sealed.wanted SET is_open = false WHERE request_id = :id AND is_open", id=request_id)


def close_wanted_of_set(tx: Connection, test_set_id: int) -> None:
    """Close what requests want of this set, which is not live any more; the referee looks at the requests again."""
    if change(tx, "UPDATE sealed.wanted SET is_open = false WHERE test_set_id = :id AND is_open", id=test_set_id):
        announce(tx, test_set_id)


_WANTED = (
    "SELECT w.request_id, w.test_set_id, w.examples, w.asked, w.is_open, t.rows FROM sealed.wanted w "
    "JOIN work.test_sets t ON t.id = w.test_set_id "
)


def sets_that_asked(tx: Connection, study: str | None = None, *, limit: int = MOST_BATCHES) -> list[int]:
    """The live sets that labels were ever asked of, by name of their study; of one study the newest first.

    Over all studies those come first that wait for labels now: of more than ``limit``, none of them is left out.
    """
    found = rows(
        tx,
        "SELECT t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id, LATERAL ("
        "SELECT bool_or(w.is_open) AS waits FROM sealed.wanted w WHERE w.test_set_id = t.id) a "
        "WHERE t.state = 'live' AND s.state <> 'ARCHIVED' AND t.labels_on_demand "
        "AND (CAST(:study AS text) IS NULL OR s.name = :study) "
        "AND a.waits IS NOT NULL ORDER BY (a.waits AND CAST(:study AS text) IS NULL) DESC, s.name, t.id DESC "
        "LIMIT :limit",
        study=study,
        limit=limit,
    )
    return [int(r.id) for r in found]


def open_wanted(tx: Connection) -> list[Wanted]:
    """Return the labels that open requests wait for, oldest request first."""
    return [_wanted(r) for r in rows(tx, _WANTED + "WHERE w.is_open ORDER BY w.request_id")]


def wanted_of(tx: Connection, test_set_id: int) -> list[Wanted]:
    """Return the labels ever wanted of a set, open or closed, oldest request first."""
    found = rows(tx, _WANTED + "WHERE w.test_set_id = :id ORDER BY w.request_id", id=test_set_id)
    return [_wanted(r) for r in found]


def used_examples(tx: Connection, test_set_id: int) -> NDArray[np.bool_]:
    """Return the examples whose labels a verdict may have used: all ever wanted, less batches that still wait.

    A complete batch counts as used, although the referee may not have come to it yet.
    """
    return _used(tx, test_set_id, _sealed(tx, test_set_id).rows)


def _used(tx: Connection, test_set_id: int, examples: int) -> NDArray[np.bool_]:
    used = np.zeros(examples, dtype=bool)
    for wanted in wanted_of(tx, test_set_id):
        pending = np.zeros_like(used)
        pending[wanted.positions] = wanted.is_open
        used |= wanted.asked & ~pending
    return used


def append_used(tx: Connection, test_set_id: int) -> NDArray[Any]:
    """State in the set's chain which given labels a verdict may have used; nothing where the chain states them already.

    For each labeler, and for what follows from all of them: at which examples there is a label that can change no more
    (``too_late``), as bits in base64, and the SHA-256 of these labels. May be repeated.
    """
    found = _sealed(tx, test_set_id)
    sealed = unpack(found.labels)
    if (
        not (sealed == UNKNOWN).any() or sealed.dtype.kind == "f"
    ):  # all were sealed with the set: none is ever asked for
        return _known(sealed, {})
    used, given = _used(tx, test_set_id, found.rows), labels_given(tx, test_set_id)
    known = _known(sealed, given)
    if used.any():
        parts = {labeler: _stated(used, labels) for labeler, labels in given.items()}
        stated = to_json(StatedLabels(1, _stated(used, known), parts))
        if chain.newest_content(tx, of_set(test_set_id), LABELS) != stated:
            chain.append(tx, of_set(test_set_id), LABELS, content=stated)
    return known


def _stated(used: NDArray[np.bool_], labels: NDArray[Any]) -> Stated:
    mask = used & (labels > UNKNOWN)
    return Stated(base64.b64encode(np.packbits(mask).tobytes()).decode(), _hash_at(mask, labels))


def _hash_at(mask: NDArray[np.bool_], labels: NDArray[Any]) -> str:
    return hashlib.sha256(labels[mask].astype("<i8").tobytes()).hexdigest()


def differences(tx: Connection, test_set_id: int, stated: StatedLabels) -> list[str]:
    """Return differences between the labels and an entry of ``append_used``, in words for the referee.

    Labels that were given later, and words that only repeat a label, are no difference.
    """
    known, given = known_labels(tx, test_set_id), labels_given(tx, test_set_id)
    nothing = np.full(len(known), UNKNOWN, dtype=np.int64)
    parts = [(f"labels that {name!r} gave", given.get(name, nothing), part) for name, part in stated.given.items()]
    parts.append(("labels that verdicts may have used", known, stated.known))
    found = []
    for what, labels, part in parts:
        bits = np.frombuffer(base64.b64decode(part.examples), dtype=np.uint8)
        mask = np.unpackbits(bits, count=len(known)).astype(bool)
        now = _hash_at(mask, labels)
        if now != part.labels:
            found.append(f"{what} were changed: the entry is about {mask.sum():,} examples ({now[:16]})")
    return found


def too_late(
    used: NDArray[np.bool_], known: NDArray[np.int64], before: NDArray[np.int64], after: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which answers of a labeler come too late: a used label stays, and no other labeler may differ from it.

    Otherwise a user who has read a verdict could change the labels under it, and with them the next verdict. An answer
    that repeats the label or is ``UNSURE`` changes nothing.

    Example:
        >>> used, known = np.array([True] * 4), np.array([0, 0, 0, -1])
        >>> too_late(used, known, before=np.array([-1, -1, 0, -1]), after=np.array([1, 0, -1, 1]))
        array([ True, False,  True, False])
    """
    differs = (after > UNKNOWN) & (known > UNKNOWN) & (after != known)
    return np.asarray(used & (before != after) & ((before > UNKNOWN) | differs))


def _wanted(found: Row[Any]) -> Wanted:
    mask, asked = (
        np.unpackbits(np.frombuffer(bytes(bits), dtype=np.uint8), count=found.rows).astype(bool)
        for bits in (found.examples, found.asked)
    )
    return Wanted(found.request_id, found.test_set_id, np.flatnonzero(mask).astype(np.int64), asked, found.is_open)


def _sealed(tx: Connection, test_set_id: int) -> Row[Any]:
    found = row(
        tx,
        "SELECT s.labels, t.rows FROM sealed.test_sets s JOIN work.test_sets t ON t.id = s.id WHERE s.id = :id",
        id=test_set_id,
    )
    if found is None:
        raise NotFoundError(kind="sealed set with id", name=test_set_id)
    return found


_HEAD = 1024
"""Bytes that hold the header of any ``.npy`` file of ours."""


@typed_record
class ExampleLayout:
    """The form of an example before it was flattened: ``table``, ``image`` or ``series``, and its shape."""

    kind: str = "table"
    shape: tuple[int, ...] = ()


def example_layout(tx: Connection, data_version_id: int) -> ExampleLayout | None:
    """Return the form of this data's examples; None where it was not kept."""
    found = scalar(tx, "SELECT layout FROM work.data_versions WHERE id = :id", id=data_version_id)
    return None if found is None else from_json(found, ExampleLayout)


def example_key(tx: Connection, test_set_id: int, place: int) -> str:
    """Return the uploader's name of the example; its place where the study's data was split."""
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
    """Return the inputs of one example, shape ``(features,)``, reading only its bytes: the column is not compressed."""
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
    if in_columns:  # this package writes no such array, but can read it
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
    """Keep the examples as they were brought, for people to read; once, when the set is sealed."""
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
    """Return one example as uploaded: names and cells; None where they were not kept."""
    found = row(
        tx,
        "SELECT s.cell_names, c.cells FROM sealed.cells c JOIN sealed.test_sets s ON s.id = c.test_set_id "
        "WHERE c.test_set_id = :id AND c.place = :place",
        id=test_set_id,
        place=place,
    )
    return None if found is None else list(zip(found.cell_names, found.cells, strict=True))


def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, column order, type and offset of the numbers of an array that ``rows.pack`` wrote."""
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read(stream)
    return shape, in_columns, dtype, stream.tell()
