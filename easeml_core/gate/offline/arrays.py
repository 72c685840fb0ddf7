"""Labels and predictions from values of Python: lists, NumPy arrays, and pandas Series, which are matched by index.

A silent mismatch would give a wrong verdict, so nothing is guessed: Series of other orders beside an array, texts
beside numbers, probabilities in place of classes and repeated index labels are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import InvalidInputError, ShapeError, counted
from easeml_core.gate.offline.columns import Predictions, class_mismatches, some

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from numpy.typing import NDArray

_CLASSES = "one class for each example: a list, a NumPy array or a pandas Series of whole numbers or of texts"


@dataclass(frozen=True, slots=True)
class _Given:
    """One argument.

    Attributes:
        name: Of the argument.
        values: A whole number or a text for each example, None where it is missing.
        index: The labels of the Series' index; None for what goes by position.
    """

    name: str
    values: list[Any]
    index: list[Hashable] | None


def predictions_from(labels: Any, old: Any, new: Any, slices: Any = None) -> tuple[Predictions, list[str] | None]:
    """Number the classes of labels and predictions, in the order of ``old``.

    Example:
        >>> predictions_from(["cat", None], ["cat", "dog"], ["dog", "dog"])[0].labels
        array([ 0, -1])
    """
    given = [_read("old", old, complete=True), _read("new", new, complete=True)]
    if labels is not None:
        given.append(_read("labels", labels, complete=False))
    _require_one_kind(given)
    if slices is not None:
        given.append(_read("slices", slices, complete=False))
    examples, columns = _matched(given)
    before, after = columns["old"], columns["new"]
    if not before:
        message = "old has no values; a verdict needs at least one example"
        raise InvalidInputError(message)
    classes: dict[object, int] = {}
    old_codes, new_codes = _coded(before, classes), _coded(after, classes)
    names = [str(name) if name is not None else "" for name in columns["slices"]] if "slices" in columns else None
    found = Predictions(examples, np.full(len(before), -1, dtype=np.int64), old_codes, new_codes)
    return (found if labels is None else _with_labels(found, columns["labels"], classes)), names


def _with_labels(found: Predictions, labels: list[Any], classes: dict[object, int]) -> Predictions:
    predicted = list(classes)
    codes = _coded(labels, classes)
    known = [label for label in labels if label is not None]
    if known and (codes[codes >= 0] >= len(predicted)).all():
        message = f"no label is ever predicted: labels such as {_some(known)}, predictions such as {_some(predicted)}"
        raise InvalidInputError(message)
    mismatches = class_mismatches([str(label) for label in known], [str(name) for name in predicted])
    return replace(found, labels=codes, mismatches=mismatches)


def _coded(values: Sequence[object], classes: dict[object, int]) -> NDArray[np.int64]:
    """Number the classes, -1 where one is missing; new ones are added to ``classes``."""
    for value in dict.fromkeys(values):
        if value is not None:
            classes.setdefault(value, len(classes))
    return np.fromiter((classes.get(value, -1) for value in values), dtype=np.int64, count=len(values))


def _read(name: str, value: Any, *, complete: bool) -> _Given:
    """Read one argument; refuse what is no column of classes."""
    index = None
    if hasattr(value, "columns"):
        message = f"{name} must be {_CLASSES}; got a table with the columns {_some(value.columns)}: take one of them"
        raise InvalidInputError(message)
    if isinstance(value, list | tuple):
        values = list(value)
    elif hasattr(getattr(value, "index", None), "tolist"):  # a pandas Series; of other sequences it is a method
        values, index = value.tolist(), value.index.tolist()
    elif hasattr(value, "__array__"):
        array = value if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
        if array.ndim != 1:
            hint = "; of probabilities give the most probable class, with .argmax(axis=1)" if array.ndim == 2 else ""
            raise ShapeError(name, array.shape, f"(n_examples,){hint}")
        values = array.tolist()
    else:
        message = f"{name} must be {_CLASSES}; got {type(value).__name__}"
        raise InvalidInputError(message)
    classes = [_class_of(name, part, place, index) for place, part in enumerate(values)]
    if complete and None in classes:
        missing = [_label(place, index) for place, part in enumerate(classes) if part is None]
        message = (
            f"{name} lacks {counted(len(missing), 'prediction')}, at {_some(missing)}; both models must have one for "
            "every example"
        )
        raise InvalidInputError(message)
    return _Given(name, classes, index)


def _class_of(name: str, value: Any, place: int, index: list[Hashable] | None) -> int | str | None:
    """Return a whole number or a text; None where it is missing."""
    if type(value) is int or type(value) is str:
        return value
    if isinstance(value, np.generic):
        return _class_of(name, value.item(), place, index)
    if _is_missing(value):
        return None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    what = f"{name} at {_some([_label(place, index)])} is {_shown([value])}"
    hint = "; a probability must be turned into a class first" if isinstance(value, float) else ""
    message = f"{what}, which is no class: give whole numbers or texts{hint}"
    raise InvalidInputError(message)


def _is_missing(value: object) -> bool:
    """Return whether a value is None, NaN, or a missing value of pandas, which compares with nothing."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _label(place: int, index: list[Hashable] | None) -> object:
    return place if index is None else index[place]


def _require_one_kind(given: Iterable[_Given]) -> None:
    """Refuse texts beside numbers: ``"1"`` and ``1`` would be two classes that never meet."""
    seen: dict[bool, tuple[str, object]] = {}
    for each in given:
        for value in each.values:
            if value is not None:
                seen.setdefault(isinstance(value, str), (each.name, value))
    if len(seen) == 2:
        (text_name, text), (number_name, number) = seen[True], seen[False]
        message = (
            f"classes must be all texts or all numbers, got {text!r} in {text_name} and {number!r} in {number_name}; "
            "convert one of them"
        )
        raise InvalidInputError(message)


def _matched(given: list[_Given]) -> tuple[list[str], dict[str, list[Any]]]:
    """Return the examples' names, and every argument in the order of the first."""
    series = [each for each in given if each.index is not None]
    for each in series:
        _require_unique(each)
    if len(series) == len(given):
        return _by_index(given)
    length = len(given[0].values)
    for each in given:
        if len(each.values) != length:
            raise ShapeError(each.name, (len(each.values),), f"({length},), as old has")
    for each in series:
        if each.index != series[0].index:
            arrays = " and ".join(other.name for other in given if other.index is None)
            message = (
                f"{series[0].name} and {each.name} are Series whose indexes differ, and {arrays} has none, so examples "
                "cannot be matched; give Series everywhere, or reindex them to the order of the array"
            )
            raise InvalidInputError(message)
    names = series[0].index if series and series[0].index is not None else range(length)
    return _texts(names), {each.name: each.values for each in given}


def _by_index(given: list[_Given]) -> tuple[list[str], dict[str, list[Any]]]:
    base = given[0].index or []
    places = {label: place for place, label in enumerate(base)}
    columns: dict[str, list[Any]] = {}
    for each in given:
        found: list[Any] = [None] * len(base)
        index = each.index or []
        strange = [label for label in index if label not in places]
        missing = set(base).difference(index) if each.name == "new" else ()
        if strange or missing:
            parts = [f"{each.name} lacks {_some(sorted(missing, key=places.__getitem__))}"] if missing else []
            parts += [f"{given[0].name} lacks {_some(strange)}, which {each.name} has"] if strange else []
            message = f"the indexes of {given[0].name} and {each.name} do not match: {'; '.join(parts)}"
            raise InvalidInputError(message)
        for label, value in zip(index, each.values, strict=True):
            found[places[label]] = value
        columns[each.name] = found
    return _texts(base), columns


def _texts(labels: Sequence[Hashable]) -> list[str]:
    """Return the name of each example; as Python writes it where two labels, such as 1 and "1", have the same text."""
    names = [str(label) for label in labels]
    return names if len(set(names)) == len(names) else [repr(label) for label in labels]


def _require_unique(given: _Given) -> None:
    seen: set[Hashable] = set()
    for label in given.index or []:
        if label in seen or _is_missing(label):
            what = "a missing label" if _is_missing(label) else f"{_some([label])} more than once"
            message = (
                f"the index of {given.name} has {what}, so examples cannot be matched by it; give each example an own "
                "label, or go by position with .to_numpy()"
            )
            raise InvalidInputError(message)
        seen.add(label)


def _some(values: Iterable[object]) -> str:
    """Return the first few values as they are written in Python."""
    unique = list(dict.fromkeys(values))
    texts = [value for value in unique if isinstance(value, str)]
    return some(texts) if len(texts) == len(unique) else _shown(unique)


def _shown(values: list[object]) -> str:
    texts = [repr(value) for value in values[:3]]
    shown = ", ".join(text if len(text) <= 60 else text[:57] + "..." for text in texts)
    return shown + (f" and {len(values) - len(texts):,} more" if len(values) > len(texts) else "")
