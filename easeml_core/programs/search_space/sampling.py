"""Finite candidates of a search space: the whole grid where it is small, else a balanced, space-filling, seeded sample.

Points of a Sobol sequence, scrambled by the seed, have one coordinate for each range and choice of the space. At every
choice, the points that reach it are put in order of its coordinate and cut into equal blocks, one for each option; at
every range, the points that reach it are put in order of its coordinate and spread evenly over it. So the options of
every choice get equal numbers (but for rounding, and for options that have no more to give), and every range is covered
evenly by the candidates in which it is active: a Latin hypercube in every branch of the tree of choices.

Sources: Sobol (1967), by ``scipy.stats.qmc`` (Joe and Kuo's numbers); Owen's scrambling by hashing, Laine and Karras
(2011) and Burley (2020), "Practical Hash-based Owen Scrambling"; Latin hypercubes, McKay et al. (1979). The scramble
and all else that is drawn comes from SHA-256 of the seed, so that no library's generator has a say.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.programs.search_space.reader import (
    MANY,
    Choice,
    Constant,
    Group,
    Node,
    RealRange,
    SearchSpace,
    WholeRange,
    parts_of,
    size_of,
)
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from easeml_core.entities import Parameters

MAX_COUNT = 5000
"""Candidates of one space."""

_MAX_ROUNDS = 12
_DIGITS = 6
_BITS = 30


def candidates_of(space: SearchSpace, count: int, seed: int = 0) -> list[Parameters]:
    """At most ``count`` different candidates, the same for the same space, count and seed, on every machine.

    A space with at most ``count`` points gives all of them, in the order of its text, what stands last changing first;
    the seed then has no say. A larger one gives exactly ``count``, unless its options overlap or its ranges are so
    narrow that there are not so many different values. Values of ``.float`` have six significant digits, unless the
    range is too narrow for that.

    Args:
        space: What ``read_space`` or ``space_of`` gives.
        count: From 1 to ``MAX_COUNT``.
        seed: >= 0.

    Raises:
        ConfigError: If count or seed is outside its range.

    Example:
        >>> from easeml_core.programs.search_space.reader import space_of
        >>> candidates_of(space_of({"kernel": {".choice": ["rbf", "poly"]}, "degree": 3}), 10)
        [{'kernel': 'rbf', 'degree': 3}, {'kernel': 'poly', 'degree': 3}]
    """
    require(type(count) is int and 1 <= count <= MAX_COUNT, "count", count, f"a whole number from 1 to {MAX_COUNT:,}")
    require(type(seed) is int and 0 <= seed < 2**63, "seed", seed, "a whole number >= 0, below 2^63")
    size = size_of(space.root)
    found: dict[str, Parameters] = {}
    if size <= count:
        _add(found, (point_of(space.root, index) for index in range(int(size))), count)
        return list(found.values())
    for turn in range(_MAX_ROUNDS):
        missing = count - len(found)
        if not missing:
            break
        points = sobol_points(missing, _width(space.root), f"{seed}/{turn}")
        _add(found, _filled(space.root, points, np.arange(missing), 0, 1), count)
        if turn and 20 * (missing - count + len(found)) < missing:
            break  # next to nothing new: there may be no more, and a grid is gone through more quickly by strides
    if size < MANY:
        _add(found, _stride(space.root, int(size), count, seed), count)
    return list(found.values())


def canonical(candidate: Parameters) -> str:
    """A candidate as JSON with sorted names: equal for equal candidates only (1, 1.0 and true differ)."""
    return json.dumps(candidate, sort_keys=True, ensure_ascii=False)


def point_of(node: Node, index: int) -> Any:
    """The value of a finite node at a place of its grid, 0 <= index < ``size_of(node)``; what is last changes first."""
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, WholeRange):
        return 10 ** (node.low + index) if node.scale == "exp" else node.low + index
    if isinstance(node, RealRange):
        return _real_values(node, np.zeros(1))[0]
    if isinstance(node, Choice):
        for option in node.options:
            size = int(size_of(option))
            if index < size:
                return point_of(option, index)
            index -= size
    values = []
    for part in reversed(parts_of(node)):
        index, place = divmod(index, int(size_of(part)))
        values.append(point_of(part, place))
    return _assembled(node, values[::-1])


def sobol_points(count: int, width: int, salt: str) -> NDArray[np.float64]:
    """Scrambled Sobol points in [0, 1), shape (count, width).

    Args:
        count: >= 1; the first ``count`` of a set of a power of two.
        width: >= 1.
        salt: Other texts give other scrambles.
    """
    from scipy.stats.qmc import Sobol

    power = max(0, math.ceil(math.log2(count)))
    plain = Sobol(width, scramble=False, bits=_BITS).random_base2(power)[:count]
    words = (plain * 2.0**_BITS).astype(np.uint32) << np.uint32(32 - _BITS)
    seeds = np.array([_hashed(f"{salt}/{k}") & 0xFFFFFFFF for k in range(width)], dtype=np.uint32)
    scrambled = _reversed_bits(_permuted(_reversed_bits(words), seeds))
    return np.asarray(scrambled / 2.0**32, dtype=np.float64)


def shares_of(total: int, capacities: Sequence[float]) -> list[int]:
    """Split a total over options evenly, none above its capacity; what an option cannot take goes to the others.

    Args:
        total: At most the sum of the capacities; what is above goes to the options evenly, as there is no better place.
        capacities: >= 1 each.

    Example:
        >>> shares_of(10, [1, 100, 100])
        [1, 4, 5]
    """
    shares = [0] * len(capacities)
    left = total
    smallest_first = sorted(range(len(capacities)), key=lambda k: capacities[k])
    for place, k in enumerate(smallest_first):
        shares[k] = int(min(capacities[k], left // (len(capacities) - place)))
        left -= shares[k]
    for place, k in enumerate(smallest_first):
        shares[k] += left // len(capacities) + (place < left % len(capacities))
    return shares


def _filled(node: Node, points: NDArray[np.float64], rows: NDArray[np.intp], first: int, outside: float) -> list[Any]:
    """The values of a node for the points that reach it."""
    if isinstance(node, Constant):
        return [node.value] * len(rows)
    if isinstance(node, WholeRange | RealRange):
        middles, places = _spread(points[rows, first])
        return _whole_values(node, middles) if isinstance(node, WholeRange) else _real_values(node, places)
    if isinstance(node, Choice):
        return _chosen(node, points, rows, first, outside)
    parts, columns, start = parts_of(node), [], first
    sizes = {k: float(size_of(part)) for k, part in enumerate(parts) if not isinstance(part, Constant)}
    for k, part in enumerate(parts):
        beside = outside * math.prod(size for j, size in sizes.items() if j != k)
        columns.append(_filled(part, points, rows, start, beside))
        start += _width(part)
    return [_assembled(node, [column[r] for column in columns]) for r in range(len(rows))]


def _chosen(node: Choice, points: NDArray[np.float64], rows: NDArray[np.intp], first: int, outside: float) -> list[Any]:
    """Cut the points, in order of the choice's coordinate, into blocks, one for each option."""
    order = np.argsort(points[rows, first], kind="stable")
    shares = shares_of(len(rows), [size_of(option) * outside for option in node.options])
    values: list[Any] = [None] * len(rows)
    start, done = first + 1, 0
    for option, share in zip(node.options, shares, strict=True):
        block = np.sort(order[done : done + share])
        if share:
            for place, value in zip(block, _filled(option, points, rows[block], start, outside), strict=True):
                values[place] = value
        start, done = start + _width(option), done + share
    return values


def _spread(coordinates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places in (0, 1), one in each of n equal cells: in the middle of its cell, and anywhere in it, shapes (n,)."""
    n = len(coordinates)
    ranks = np.empty(n)
    ranks[np.argsort(coordinates, kind="stable")] = np.arange(n)
    return (ranks + 0.5) / n, (ranks + np.mod(coordinates * n, 1.0)) / n


def _whole_values(node: WholeRange, middles: NDArray[np.float64]) -> list[int]:
    """Whole numbers at the middles of cells; but for ``log``, no more cells than numbers give all different ones."""
    if node.scale == "log":
        ends = math.log(node.low - 0.5), math.log(node.high + 0.5)
        numbers = np.rint(np.exp(ends[0] + middles * (ends[1] - ends[0])))
    else:
        numbers = node.low + np.floor(middles * (node.high - node.low + 1))
    whole = [min(node.high, max(node.low, int(number))) for number in numbers]
    return [10**number for number in whole] if node.scale == "exp" else whole


def _real_values(node: RealRange, places: NDArray[np.float64]) -> list[float]:
    """Numbers at places of a range, with few digits where the range is wide enough for that."""
    ends = node.low, node.high
    if node.scale == "exp":
        ends = 10.0**node.low, 10.0**node.high
    if node.scale == "linear":
        numbers = node.low + places * (node.high - node.low)
    else:
        low, high = math.log10(ends[0]), math.log10(ends[1])
        numbers = 10.0 ** (low + places * (high - low))
    wide = ends[1] - ends[0] > 1e-3 * max(abs(ends[0]), abs(ends[1]))
    rounded = [float(f"{number:.{_DIGITS}g}") if wide else float(number) for number in numbers]
    return [min(ends[1], max(ends[0], number)) for number in rounded]


def _assembled(node: Node, values: list[Any]) -> Any:
    """The value of a mapping or list, from those of its parts."""
    if isinstance(node, Group):
        return {name: value for (name, _), value in zip(node.entries, values, strict=True)}
    return values


def _width(node: Node) -> int:
    """Number of ranges and choices in a node: its coordinates."""
    own = not isinstance(node, Constant) and not parts_of(node)
    return int(own or isinstance(node, Choice)) + sum(_width(part) for part in parts_of(node))


def _add(found: dict[str, Parameters], more: Any, count: int) -> None:
    """Add candidates that are not there yet, until there are ``count``."""
    for candidate in more:
        if len(found) >= count:
            break
        found.setdefault(canonical(candidate), candidate)


def _stride(node: Node, size: int, count: int, seed: int) -> Iterator[Any]:
    """Points of a grid in strides of about .618 of its size, so that they lie evenly and each comes once."""
    step = max(1, round(size * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, size) > 1:
        step += 1
    start = _hashed(f"{seed}/start") % size
    for k in range(min(size, 20 * count)):
        yield point_of(node, (start + k * step) % size)


def _hashed(text: str) -> int:
    """64 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _permuted(words: NDArray[np.uint32], seeds: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Laine and Karras's hash, in which each bit only depends on itself, lower bits and the seed; modulo 2^32."""
    words = words + seeds
    for factor in (0x6C50B47C, 0xB82F1E52, 0xC7AFE638, 0x8D22F6E6):
        words = words ^ (words * np.uint32(factor))
    return words


def _reversed_bits(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The 32 bits of each word in reverse order."""
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        some = np.uint32(mask)
        words = ((words >> np.uint32(shift)) & some) | ((words & some) << np.uint32(shift))
    return words
