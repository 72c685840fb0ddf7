"""Which rows of a new table are rows of a known one, by the values that they share; not by the equality of whole rows.

Two passes find a row again whatever was done to its columns; both weigh a value t that both rows have with

    w(t) = log2(N / (df(t) + 1)),  df(t) = known rows that have t,  N = known rows,

the new row counted among them, so that it is weighed as each known row is. The frequencies come from the known table
alone: repeating rows in the new table changes no weight.

* *By rare values, whatever their column:* values of at most ``_RARE`` known rows point at the candidates; a candidate's
  score is the sum of the weights of the rare values that the two rows share. Renamed and reordered columns, and
  rows mixed with any others, change nothing.
* *By aligned columns:* each new column is paired with the known one whose values it has (Bhattacharyya coefficient of
  the two distributions; equal names break ties). Rows that agree in all paired columns are the same row; others are
  candidates where they agree in one of several random sets of columns (``_bands``), with the summed weights as the
  score. That finds rows without any rare value.

Two columns at least must agree: a key alone (a customer, an airport) that two tables share makes no row of them the
same. What a score t is worth follows from the best scores that known rows reach among the *others* of their table:
F(t), the share of them that reach t, is the chance that a new row of the same population does, whatever the dependence
between columns (split conformal prediction; Vovk, Gammerman and Shafer 2005, Section 4.1). Three uses:

* *Certain rows:* a score above the 1 - ``chance`` quantile.
* *Likely rows:* a score above the 1 - ``LIKELY`` quantile, or agreement in all paired columns where at most that share
  of known rows agrees with another one. Many of them are coincidences in a table of the same population. They tell
  where a row must lie, and count for no refusal.
* *Copied groups:* n new rows of which n G(t) reach t hold copies of a group of known rows (a sealed set, say), if

      n G_g(t) - n F_g+(t) > max(``FEWEST``, ``COINCIDENCE`` m_g)  for some t,

  where G_g is the share of new rows that reach t with one of the m_g rows of the group, F_g the share of known rows
  that do, and F_g+ an upper confidence bound of it (``_upper``). As many *different* rows of the group must be named.
  All known rows together are a group, too. The bound on the right is a share of the known rows: rows that are added to
  the new table do not change it.

Not here: what a cell is (``cells``), and what follows from a match (``services/test_sets/row_registry.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Words = NDArray[np.uint64]

CHANCE = 0.01
"""Share of new rows of the same population that each pass may match by chance, as long as the known rows differ."""

LIKELY = 0.05
"""Share of known rows that may be likely rows of the same table."""

COINCIDENCE = 1 / 20
"""Share of a group of known rows that a new table may have beyond what chance explains."""

FEWEST = 10
"""So many rows of a group may be in a new table, however small the group is."""

_RARE = 8
"""A value of so many known rows at most points at them."""

_SAMPLE = 4_000
"""Known rows whose best score among the others is looked at."""

_MOST_TWINS = 0.5
"""With more known rows than that without a difference in the paired columns, these columns say nothing of a row."""

_SIGMAS = 3.7
"""Of the upper bound of F: level 1e-4 for a normal distribution."""

_LEVELS = 40
"""Values of F at which groups are looked at."""

_BANDS = 16
_NAME_BONUS = 0.25
_EPSILON = 1e-9
_PAIRS_AT_ONCE = 2_000_000
_ROWS_ALIGNED = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Tokens of rows.

    Attributes:
        tokens: uint64, shape ``(rows, columns)``; 0 for a missing value.
        names: uint64, shape ``(columns,)``: tokens of the columns' names.
    """

    tokens: Words
    names: Words


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What is known of new rows.

    Attributes:
        place: int64, shape ``(new rows,)``: the known row that each certainly is, -1 for none.
        likely: int64, shape ``(new rows,)``: the same with likely rows.
        doubt: F at the threshold of likely rows: share of rows of the same population that are likely by chance.
        share: Share of the new rows that are known, rows without a difference in the paired columns included.
        chance: Share of rows of the same population that would be certain by chance, at most.
        copied: Groups of known rows that the new table has beyond what chance explains.
    """

    place: Ints
    likely: Ints
    doubt: float
    share: float
    chance: float
    copied: frozenset[int]


def match_rows(
    new: Rows,
    known: Rows,
    first: NDArray[np.bool_],
    *,
    groups: Ints | None = None,
    chance: float = CHANCE,
    seed: int = 0,
) -> Matches:
    """Find new rows in a known table."""
    place = np.full(len(new.tokens), -1, dtype=np.int64)
    empty = Matches(place, place.copy(), 0.0, 0.0, 0.0, frozenset())
    if not len(new.tokens) or len(known.tokens) < 2 or not new.tokens.shape[1] or not known.tokens.shape[1]:
        return empty
    order = np.argsort(~first, kind="stable")  # a stable choice among equals: the wanted ones come first
    of_known = np.zeros(len(order), dtype=np.int64) if groups is None else groups[order]
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(known.tokens))[:_SAMPLE]
    codes, new_codes, values = _codes(known.tokens[order], new.tokens)
    if not ((new_codes > 0) & (new_codes <= values)).any():
        return empty
    passes = [_pass(_RareValues(codes, values), new_codes, sample, of_known, chance)]
    pairs = _aligned(_part(Rows(new_codes, new.names), rng), _part(Rows(codes, known.names), rng), values)
    share, spent, doubt = 0.0, 0.0, 0.0
    same = likely_same = place
    if len(pairs) > 1:
        columns = _Aligned(codes[:, pairs[:, 1]], rng)
        projected = new_codes[:, pairs[:, 0]]
        twins = columns.twins
        if twins <= _MOST_TWINS:
            found = columns.same(projected)
            bound = twins + 3 * float(np.sqrt(twins * (1 - twins) / min(len(codes), len(projected))))
            share, spent = float(np.mean(found >= 0)), bound
            same = found if bound <= chance else same
            if twins <= LIKELY:
                likely_same, doubt = found, twins
            passes.append(_pass(columns, projected, sample, of_known, chance))
    place = _first_of([passes[0].certain, same, *(one.certain for one in passes[1:])])
    likely = _first_of([place, likely_same, *(one.likely for one in passes)])
    share = max(share, float(np.mean(place >= 0)))
    return Matches(
        _named(place, order),
        _named(likely, order),
        max([doubt, *(one.doubt for one in passes)]),
        share,
        min(1.0, spent + sum(one.spent for one in passes)),
        frozenset().union(*(one.copied for one in passes)),
    )


def _first_of(places: Sequence[Ints]) -> Ints:
    """Of each row the first place that is one."""
    found = places[0].copy()
    for other in places[1:]:
        found = np.where(found >= 0, found, other)
    return found


def _named(place: Ints, order: Ints) -> Ints:
    """Places in the order of the known rows as they were given."""
    found: Ints = np.where(place >= 0, order[np.maximum(place, 0)], -1).astype(np.int64)
    return found


def _codes(known: Words, new: Words) -> tuple[Words, Words, int]:
    """Numbers in place of tokens: 0 for missing, from 1 for values of known rows, one more for all others."""
    flat = known.ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    is_new = np.diff(ordered, prepend=np.uint64(0)) != 0  # zeros come first and stay 0
    codes = np.empty(len(flat), dtype=np.uint64)
    codes[order] = np.cumsum(is_new)
    vocabulary = ordered[is_new]
    flat = new.ravel()
    order = np.argsort(flat, kind="stable")
    at = np.searchsorted(vocabulary, flat[order])  # sorted values in sorted ones: each page is read once
    found = vocabulary[at.clip(0, max(len(vocabulary) - 1, 0))] == flat[order] if len(vocabulary) else at < 0
    of_new = np.empty(len(flat), dtype=np.uint64)
    of_new[order] = np.where(flat[order] == 0, 0, np.where(found, at + 1, len(vocabulary) + 1))
    return codes.reshape(known.shape), of_new.reshape(new.shape), len(vocabulary)


def _part(rows: Rows, rng: np.random.Generator) -> Rows:
    """Some of the rows, enough to see which values a column has."""
    if len(rows.tokens) <= _ROWS_ALIGNED:
        return rows
    return Rows(rows.tokens[rng.permutation(len(rows.tokens))[:_ROWS_ALIGNED]], rows.names)


def _counted(values: NDArray[Any]) -> tuple[NDArray[Any], Ints]:
    """Different values in order, and how often each occurs (``np.unique`` hashes, which is slow for millions)."""
    ordered = np.sort(values)
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1 if len(ordered) else 0) != 0)
    return ordered[starts], np.diff(starts, append=len(ordered))


class _Scores(Protocol):
    """Candidates of a new row among the known ones, with a score each.

    Attributes:
        tokens: Of the known rows.
    """

    tokens: Words

    def best(self, new: Words, own: Ints | None = None) -> tuple[Ints, NDArray[np.float64], NDArray[np.bool_]]:
        """The best candidate of each row (-1 for none), its score, and whether it agrees in all that counts."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """What one pass finds: see ``Matches``; ``spent`` is its part of ``chance``."""

    certain: Ints
    likely: Ints
    doubt: float
    spent: float
    copied: frozenset[int]


def _pass(scores: _Scores, new: Words, sample: Ints, groups: Ints, chance: float) -> _Pass:
    candidate, score, _ = scores.best(new)
    if not (candidate >= 0).any():
        return _Pass(candidate, candidate, 0.0, 0.0, frozenset())
    named, others, twin = scores.best(scores.tokens[sample], sample)
    twins = float(np.mean(twin))
    # Rows that occur twice raise no threshold, and count as what they are.
    apart, spent = (others[~twin], chance + twins) if twins <= chance else (others, chance)
    # Two rows that are alike are each other's best: scores come in pairs.
    threshold = _exceeded_by(apart, int(chance * (len(apart) + 1) / 2) - 1)
    certain = np.where(score > threshold + _EPSILON, candidate, -1)
    lowest = _exceeded_by(others, int(LIKELY * len(others)))
    likely = np.where(score > lowest + _EPSILON, candidate, -1)
    doubt = float(np.mean(others > lowest + _EPSILON))
    return _Pass(certain, likely, doubt, spent, _copied(candidate, score, sample, named, others, groups))


def _exceeded_by(scores: NDArray[np.float64], count: int) -> float:
    """The lowest score that at most ``count`` of the scores exceed; the highest of them for a negative count."""
    if not len(scores):
        return 0.0
    return float(np.sort(scores)[::-1][min(max(count, 0), len(scores) - 1)])


def _copied(
    candidate: Ints,
    score: NDArray[np.float64],
    sample: Ints,
    named: Ints,
    others: NDArray[np.float64],
    groups: Ints,
) -> frozenset[int]:
    """Groups that the new rows have beyond what chance explains (formula: see the module)."""
    every = np.zeros_like(groups)
    ordered = np.sort(others)[::-1]
    found: set[int] = set()
    for share in np.geomspace(1 / len(others), 1, _LEVELS):
        threshold = ordered[min(max(int(share * len(others)) - 1, 0), len(ordered) - 1)]
        rows = candidate[(candidate >= 0) & (score > threshold + _EPSILON)]
        if len(rows) <= FEWEST:
            continue
        above = others > threshold + _EPSILON
        mine, theirs = sample[above], named[above]
        for group, of_known in [(int(g), groups) for g in np.unique(groups[rows])] + [(-1, every - 1)]:
            is_there = of_known[rows] == group
            most = max(FEWEST, COINCIDENCE * int((of_known == group).sum()))
            copies = min(int(is_there.sum()), len(np.unique(rows[is_there])))
            if copies <= most:  # before those that chance explains are taken off
                continue
            is_chance = of_known[theirs] == group
            expected = len(candidate) * _upper(mine[is_chance], theirs[is_chance]) / len(sample)
            if min(int(is_there.sum()) - expected, copies) > most:
                found |= {group} if group >= 0 else set(np.unique(groups[rows]).tolist())
    return frozenset(found)


def _upper(rows: Ints, named: Ints) -> float:
    """Upper confidence bound of an expected count, for rows that reach a score with the row that each names.

    Rows that name each other, or the same row, are one event. With c events of sizes s the count has about the variance
    sum(s^2); the bound is that of a Poisson variable of count / s events (score interval), times
    s = sum(s^2) / sum(s), at least 2.
    """
    _, sizes = _counted(np.minimum(rows, named))
    size = max(2.0, float((sizes**2).sum() / sizes.sum()) if len(sizes) else 0.0)
    events = len(rows) / size
    return size * (events + _SIGMAS**2 / 2 + _SIGMAS * float(np.sqrt(events + _SIGMAS**2 / 4)))


class _RareValues:
    """Candidates that share rare values, whatever column these are in."""

    def __init__(self, tokens: Words, values: int) -> None:
        rows, columns = tokens.shape
        self.tokens = tokens
        counts = np.bincount(tokens.ravel().astype(np.int64), minlength=values + 2)
        counts[[0, values + 1]] = 0
        self._is_rare = (counts > 0) & (counts <= min(_RARE, max(2, rows // 50)))
        place = np.flatnonzero(self._is_rare[tokens.ravel()])
        place = place[np.argsort(tokens.ravel()[place], kind="stable")]
        self._row = place // columns
        self._counts = np.where(self._is_rare, counts, 0)
        self._starts = np.cumsum(self._counts) - self._counts
        self._most = min(_RARE, max(2, rows // 50))
        self._rows = rows

    def best(self, new: Words, own: Ints | None = None) -> tuple[Ints, NDArray[np.float64], NDArray[np.bool_]]:
        """See ``_Scores.best``; a row agrees in all that counts if it shares each rare value but one."""
        best = np.full(len(new), -1, dtype=np.int64)
        score, whole = np.zeros(len(new)), np.zeros(len(new), dtype=bool)
        at_once = max(1, _PAIRS_AT_ONCE // (new.shape[1] * 2))
        for start in range(0, len(new), at_once):
            part = slice(start, start + at_once)
            best[part], score[part], whole[part] = self._best(new[part], None if own is None else own[part])
        return best, score, whole

    def _best(self, new: Words, own: Ints | None) -> tuple[Ints, NDArray[np.float64], NDArray[np.bool_]]:
        best = np.full(len(new), -1, dtype=np.int64)
        score, whole = np.zeros(len(new)), np.zeros(len(new), dtype=bool)
        weights = np.log2(self._rows / (self._counts + (own is None)).clip(1))
        is_rare = self._is_rare & (self._counts + (own is None) <= self._most)
        row, column = np.nonzero(is_rare[new])
        # One value that a row has in two columns counts once.
        once, _ = _counted(row * len(self._is_rare) + new[row, column].astype(np.int64))
        row, word = np.divmod(once, len(self._is_rare))
        mine = np.bincount(row, weights=weights[word], minlength=len(new))
        counts = self._counts[word]
        origin = np.repeat(np.arange(len(word)), counts)
        offset = np.arange(len(origin)) - np.repeat(np.cumsum(counts) - counts, counts)
        pair = row[origin] * len(self.tokens) + self._row[self._starts[word][origin] + offset]
        weight = weights[word][origin]
        if own is not None:
            other = pair % len(self.tokens) != own[pair // len(self.tokens)]
            pair, weight = pair[other], weight[other]
        order = np.argsort(pair, kind="stable")
        pairs, times = _counted(pair)
        total = np.bincount(np.repeat(np.arange(len(pairs)), times), weights=weight[order], minlength=len(pairs))
        of, candidate = np.divmod(pairs, len(self.tokens))
        agree = self._agreements(new, of, candidate)
        of, candidate, total = of[agree > 1], candidate[agree > 1], total[agree > 1]
        last = np.lexsort((-candidate, total, of))  # the best one last, the first row of equals
        of, candidate, total = of[last], candidate[last], total[last]
        best[of], score[of] = candidate, total
        whole[of] = total > mine[of] - np.log2(self._rows) * 1.001
        return best, score, whole

    def _agreements(self, new: Words, of: Ints, candidate: Ints) -> Ints:
        """How many values the rows of each pair share, whatever their columns, up to 2."""
        found = np.zeros(len(of), dtype=np.int64)
        at_once = max(1, _PAIRS_AT_ONCE // new.shape[1])
        for start in range(0, len(of), at_once):
            part = slice(start, start + at_once)
            one, two = new[of[part]], self.tokens[candidate[part]]
            shared = np.zeros(len(one), dtype=np.int64)
            for column in range(one.shape[1]):
                value = one[:, column]
                shared += (value != 0) & (two == value[:, None]).any(axis=1)
                if (shared > 1).all():
                    break
            found[part] = shared
        return found


class _Aligned:
    """Candidates that agree in a set of the paired columns."""

    def __init__(self, tokens: Words, rng: np.random.Generator) -> None:
        self.tokens = tokens
        rows = len(tokens)
        self._columns: Words = np.ascontiguousarray(tokens.T)
        self._places: list[NDArray[np.int32]] = []
        self._counts: list[Ints] = []
        entropy = []
        for column in self._columns:
            words, counts = _counted(column)
            weight = np.where(words == 0, 0.0, np.log2(rows / counts))
            self._places.append(np.searchsorted(words, column).astype(np.int32))
            self._counts.append(counts)
            entropy.append(float((counts * weight).sum() / rows))
        self._entropy = np.array(entropy)
        factors = rng.integers(1, 2**63, size=tokens.shape[1], dtype=np.uint64)
        self._factors: Words = np.asarray(factors, dtype=np.uint64) | np.uint64(1)
        self._bands = list(self._sets(rng))
        whole = self._key(tokens, range(tokens.shape[1]))
        self._order = np.argsort(whole, kind="stable")
        self._sorted = whole[self._order]
        self._keys = [self._sorted_band(band) for band in self._bands]
        _, counts = _counted(whole)
        self.twins = float(counts[counts > 1].sum() / rows)

    def same(self, new: Words) -> Ints:
        """The known row that agrees in every paired column, with two values at least; -1 for none."""
        key = self._key(new, range(new.shape[1]))
        at = np.searchsorted(self._sorted, key).clip(0, len(self._sorted) - 1)
        is_same = (self._sorted[at] == key) & ((new != 0).sum(axis=1) > 1)
        return np.where(is_same, self._order[at], -1).astype(np.int64)

    def best(self, new: Words, own: Ints | None = None) -> tuple[Ints, NDArray[np.float64], NDArray[np.bool_]]:
        """See ``_Scores.best``; a row agrees in all that counts if it agrees in every paired column."""
        best = np.full(len(new), -1, dtype=np.int64)
        score = np.zeros(len(new))
        for start in range(0, len(new), _PAIRS_AT_ONCE // _RARE):
            part = slice(start, start + _PAIRS_AT_ONCE // _RARE)
            best[part], score[part] = self._best(new[part], None if own is None else own[part])
        whole = (best >= 0) & (new == self.tokens[np.maximum(best, 0)]).all(axis=1)
        return best, score, whole

    def _best(self, new: Words, own: Ints | None) -> tuple[Ints, NDArray[np.float64]]:
        best = np.full(len(new), -1, dtype=np.int64)
        score = np.zeros(len(new))
        columns = np.ascontiguousarray(new.T)
        for band, (order, ordered) in zip(self._bands, self._keys, strict=True):
            key = self._key(new, band)
            begin = np.searchsorted(ordered, key, "left")
            count = np.searchsorted(ordered, key, "right") - begin
            count[count + (own is None) > _RARE] = 0
            row = np.repeat(np.arange(len(new)), count)
            first = np.cumsum(count) - count
            candidate = order[begin[row] + np.arange(len(row)) - first[row]]
            total = self._score(columns, row, candidate, is_new=own is None)
            if own is not None:
                total[candidate == own[row]] = 0.0
            # The best candidate of each row, the first one of equals, where it is better than that of another band.
            chosen = np.lexsort((-total, row))[first[count > 0]]
            chosen = chosen[total[chosen] > score[row[chosen]]]
            best[row[chosen]], score[row[chosen]] = candidate[chosen], total[chosen]
        return best, score

    def _score(self, columns: Words, row: Ints, candidate: Ints, *, is_new: bool) -> NDArray[np.float64]:
        """Summed weights of the values in which pairs of rows agree; 0 where they agree in one column alone."""
        total, agree = np.zeros(len(row)), np.zeros(len(row), dtype=np.int64)
        of_columns = zip(columns, self._columns, self._places, self._counts, strict=True)
        for new, known, places, counts in of_columns:
            value = new[row]
            equal = (value == known[candidate]) & (value != 0)
            weights = np.log2(len(self.tokens) / (counts + is_new))
            total += np.where(equal, weights[places[candidate]], 0.0)
            agree += equal
        return np.where(agree > 1, total, 0.0)

    def _sets(self, rng: np.random.Generator) -> Iterator[Sequence[int]]:
        """Sets of columns that together tell a row from the others: single ones where one suffices, random ones."""
        needed = np.log2(len(self.tokens))
        single = np.argsort(-self._entropy)[:_BANDS]
        yield from ([int(column)] for column in single if self._entropy[column] >= needed - 3)
        for _ in range(_BANDS):
            order = rng.permutation(np.flatnonzero(self._entropy > 0))
            enough = int(np.searchsorted(np.cumsum(self._entropy[order]), needed + 1)) + 1
            if len(order):
                yield sorted(order[:enough].tolist())

    def _sorted_band(self, band: Sequence[int]) -> tuple[Ints, Words]:
        key = self._key(self.tokens, band)
        order = np.argsort(key, kind="stable")
        return order, key[order]

    def _key(self, tokens: Words, band: Sequence[int]) -> Words:
        """One number for the values in these columns (multiply and shift, keyed)."""
        key = np.zeros(len(tokens), dtype=np.uint64)
        factors: Words = self._factors
        for column in band:
            mixed = (tokens[:, column] ^ (tokens[:, column] >> np.uint64(31))) * factors[column]
            key += mixed ^ (mixed >> np.uint64(29))
        return key


def _aligned(new: Rows, known: Rows, values: int) -> Ints:
    """Pairs (new column, known column) that hold the same values, each column in one pair at most.

    The pairs maximise the summed Bhattacharyya coefficients, sum over values of sqrt(p q), where columns of the same
    name have ``_NAME_BONUS`` more; columns without a common value are not paired.
    """
    from scipy.optimize import linear_sum_assignment

    likeness: NDArray[np.float64] = (_roots(new.tokens, values) @ _roots(known.tokens, values).T).toarray()
    score = likeness + _NAME_BONUS * ((new.names[:, None] == known.names[None, :]) & (likeness > 0))
    one, two = linear_sum_assignment(score, maximize=True)
    found = np.stack([one, two], axis=1)
    paired: Ints = found[likeness[one, two] > 0].astype(np.int64)
    return paired


def _roots(codes: Words, values: int) -> Any:
    """Square roots of the shares of each known value in each column, sparse, shape ``(columns, values + 1)``."""
    from scipy.sparse import csr_array

    rows, columns = codes.shape
    is_known = (codes > 0) & (codes <= values)
    cell = (np.arange(columns)[None, :] * (values + 1) + codes.astype(np.int64))[is_known]
    cells, counts = _counted(cell)
    shape = (columns, values + 1)
    return csr_array((np.sqrt(counts / rows), np.divmod(cells, values + 1)), shape=shape)
