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

A candidate is a match if its score is above that of chance: the 1 - ``chance`` quantile of the best score that rows of
the known table reach among the *others* of it. A new row drawn from the same population is exchangeable with them, so
that it exceeds the largest ``k`` of ``m`` such scores with probability at most (k + 1) / (m + 1), whatever the
dependence between columns (split conformal prediction; Vovk, Gammerman and Shafer 2005, Section 4.1). Two columns at
least must agree: a key alone (a customer, an airport) that two tables share makes no row of them the same.

Not here: what a cell is (``row_cells``), and what follows from a match (``services/row_registry.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Words = NDArray[np.uint64]

CHANCE = 0.01
"""Share of new rows of the same population that each pass may match by chance, as long as the known rows differ."""

_RARE = 8
"""A value of so many known rows at most points at them."""

_SAMPLE = 1_000
"""Known rows whose best score among the others is looked at."""

_MOST_TWINS = 0.5
"""With more known rows than that without a difference in the paired columns, these columns say nothing of a row."""

_BANDS = 16
_NAME_BONUS = 0.25
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
        place: int64, shape ``(new rows,)``: the known row that each is, -1 for none.
        share: Share of the new rows that are known, rows without a difference in the paired columns included.
        chance: Share of rows of the same population that would be known by chance, at most.
    """

    place: Ints
    share: float
    chance: float


def match_rows(new: Rows, known: Rows, first: NDArray[np.bool_], *, chance: float = CHANCE, seed: int = 0) -> Matches:
    """Find new rows in a known table.

    Args:
        new: The new rows.
        known: The known rows.
        first: bool, shape ``(known rows,)``: of known rows that cannot be told apart, one of these is named.
        chance: Share of new rows of the same population that each pass may match by chance, in (0, 1).
        seed: Decides which sets of columns are compared; a secret of the referee.

    Returns:
        The matches.
    """
    place = np.full(len(new.tokens), -1, dtype=np.int64)
    empty = Matches(place, 0.0, 0.0)
    if not len(new.tokens) or len(known.tokens) < 2 or not new.tokens.shape[1] or not known.tokens.shape[1]:
        return empty
    order = np.argsort(~first, kind="stable")  # a stable choice among equals: the wanted ones come first
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(known.tokens))[:_SAMPLE]
    codes, new_codes, values = _codes(known.tokens[order], new.tokens)
    if not ((new_codes > 0) & (new_codes <= values)).any():
        return empty
    spent = _take(place, _RareValues(codes, values), new_codes, sample, chance)
    pairs = _aligned(_part(Rows(new_codes, new.names), rng), _part(Rows(codes, known.names), rng), values)
    share = 0.0
    if len(pairs) > 1:
        columns = _Aligned(codes[:, pairs[:, 1]], rng)
        projected = new_codes[:, pairs[:, 0]]
        same = columns.same(projected)
        twins = columns.twins
        if twins <= _MOST_TWINS:
            bound = twins + 3 * float(np.sqrt(twins * (1 - twins) / min(len(codes), len(projected))))
            share, spent = float(np.mean(same >= 0)), spent + bound
            if bound <= chance:
                place[place < 0] = same[place < 0]
            spent += _take(place, columns, projected, sample, chance)
    share = max(share, float(np.mean(place >= 0)))
    found = np.where(place >= 0, order[np.maximum(place, 0)], -1)
    return Matches(found.astype(np.int64), share, min(1.0, spent))


def _codes(known: Words, new: Words) -> tuple[Words, Words, int]:
    """Numbers in place of tokens: 0 for missing, from 1 for values of known rows, one more for all others.

    Returns:
        Of the known rows, of the new ones, and how many different values the known rows have.
    """
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


class _Scores:
    """Candidates of a new row among the known ones, with a score each."""

    def best(self, new: Words, own: Ints | None = None) -> tuple[Ints, NDArray[np.float64], NDArray[np.bool_]]:
        """The best candidate of each row (-1 for none), its score, and whether it agrees in all that counts.

        Args:
            new: Tokens of rows.
            own: The known row that each of them is itself, which is passed over; None for rows that are not known.
        """
        raise NotImplementedError


def _take(place: Ints, scores: _Scores, new: Words, sample: Ints, chance: float) -> float:
    """Add the matches of one pass to ``place``; the share that it may match by chance."""
    left = np.flatnonzero(place < 0)
    candidate, score, _ = scores.best(new[left])
    if not (candidate >= 0).any():
        return 0.0
    _, others, twin = scores.best(_of(scores)[sample], sample)
    twins = float(np.mean(twin))
    if twins <= chance:  # rows that occur twice raise no threshold, and count as what they are
        others, spent = others[~twin], chance + twins
    else:
        spent = chance
    k = int(chance * (len(others) + 1) / 2)  # two rows that are alike are each other's best: scores come in pairs
    threshold = float(np.sort(others)[::-1][min(max(k - 1, 0), len(others) - 1)]) if len(others) else 0.0
    is_match = (candidate >= 0) & (score > threshold + 1e-9)
    place[left[is_match]] = candidate[is_match]
    return spent


def _of(scores: _Scores) -> Words:
    assert isinstance(scores, _RareValues | _Aligned)
    return scores.tokens


class _RareValues(_Scores):
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


class _Aligned(_Scores):
    """Candidates that agree in a set of the paired columns."""

    def __init__(self, tokens: Words, rng: np.random.Generator) -> None:
        self.tokens = tokens
        rows = len(tokens)
        self._values: list[Words] = []
        self._counts: list[Ints] = []
        entropy = []
        for column in tokens.T:
            words, counts = _counted(column)
            weight = np.where(words == 0, 0.0, np.log2(rows / counts))
            self._values.append(words)
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
        for band, (order, ordered) in zip(self._bands, self._keys, strict=True):
            key = self._key(new, band)
            begin, end = np.searchsorted(ordered, key, "left"), np.searchsorted(ordered, key, "right")
            for step in range(_RARE):
                row = np.flatnonzero((begin + step < end) & (end - begin + (own is None) <= _RARE))
                candidate = order[begin[row] + step]
                if own is not None:
                    row, candidate = row[candidate != own[row]], candidate[candidate != own[row]]
                total = self._score(new[row], candidate, is_new=own is None)
                better = total > score[row]
                best[row[better]], score[row[better]] = candidate[better], total[better]
        whole = (best >= 0) & (new == self.tokens[np.maximum(best, 0)]).all(axis=1)
        return best, score, whole

    def _score(self, new: Words, candidate: Ints, *, is_new: bool) -> NDArray[np.float64]:
        """Summed weights of the values in which two rows agree; 0 where they agree in one column alone."""
        total, agree = np.zeros(len(new)), np.zeros(len(new), dtype=np.int64)
        known = self.tokens[candidate]
        for column, (values, counts) in enumerate(zip(self._values, self._counts, strict=True)):
            equal = (new[:, column] == known[:, column]) & (new[:, column] != 0)
            weights = np.log2(len(self.tokens) / (counts + is_new))
            total += np.where(equal, weights[np.searchsorted(values, known[:, column])], 0.0)
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

    Args:
        new: Codes of new rows.
        known: Codes of known rows.
        values: How many different values the known rows have.

    Returns:
        Shape ``(pairs, 2)``.
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
