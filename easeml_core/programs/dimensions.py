"""When the dimensions of a tensor of a module stand for those of a tensor of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.programs.schema import WILDCARDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Size = int | str
Binding = dict[str, Size]


def unifications(
    wanted: Sequence[Size], given: Sequence[Size], bound: Mapping[str, Size], *, tail: bool = False
) -> Iterator[Binding]:
    """Every way in which the wanted dimensions stand for the given ones, shortest first.

    Both sides are written out to a common length, each wildcard as so many copies of its variable, and compared place
    by place: a size of the module needs the same size; a variable of the module is bound to what stands there, a size
    or a variable of the data, the same wherever it comes again. A wildcard of the data is read as "some such number of
    dimensions is there". With one wildcard on each side, lengths beyond all other dimensions plus one only repeat a
    pair of wildcards that meet already, so they give nothing new.

    Args:
        wanted: Of the module: sizes and variables, at most one of them with ``?``, ``+`` or ``*``.
        given: Of the data: the same.
        bound: Variables of the module that are bound already.
        tail: Whether any further dimensions may follow the wanted ones, which then have no wildcard.

    Yields:
        What is bound in addition.

    Example:
        >>> list(unifications(["a*", "b"], [16, 32], {}))
        [{'a': 16, 'b': 32}]
        >>> list(unifications(["a", "a"], [16, 32], {}))
        []
    """
    wanted_least, wanted_most = _lengths(wanted)
    given_least, given_most = _lengths(given)
    enough = len(wanted) + len(given)
    most = min(enough if end is None else end for end in (None if tail else wanted_most, given_most))
    seen: list[Binding] = []
    for length in range(max(wanted_least, given_least), most + 1):
        found = _place_by_place(_written_out(wanted, length), _written_out(given, length), bound)
        if found is not None and found not in seen:
            seen.append(found)
            yield found


def unify_size(wanted: Size, given: Size, bound: Mapping[str, Size]) -> Binding | None:
    """What is bound in addition when one size stands for another; None if it cannot."""
    return _place_by_place([wanted], [given], bound)


def _place_by_place(wanted: Sequence[Size], given: Sequence[Size], bound: Mapping[str, Size]) -> Binding | None:
    found: Binding = {}
    for want, have in zip(wanted, given, strict=False):  # a tail may follow the wanted ones
        if isinstance(want, int):
            if want != have:
                return None
            continue
        known = bound.get(want, found.get(want))
        if known is None:
            found[want] = have
        elif known != have:
            return None
    return found


def _lengths(dims: Sequence[Size]) -> tuple[int, int | None]:
    """Fewest and most dimensions; None for no limit."""
    least: int = 0
    most: int | None = 0
    for size in dims:
        low, high = WILDCARDS.get(str(size)[-1], (1, 1))
        least += low
        most = None if most is None or high is None else most + high
    return least, most


def _written_out(dims: Sequence[Size], length: int) -> list[Size]:
    """As many dimensions as the length says, which is among the possible ones."""
    found: list[Size] = []
    for size in dims:
        if isinstance(size, str) and size[-1] in WILDCARDS:
            found += [size[:-1]] * (length - len(dims) + 1)
        else:
            found.append(size)
    return found
