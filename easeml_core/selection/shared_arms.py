"""Candidates that several studies have in common: one trial serves them all.

Source: Yu et al. (AISTATS 2019): the subsets of models that users can use may overlap, and EI is summed over users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.selection.problem import Arms

    Place = tuple[int, int]


class SharedArms:
    """Which arms of which studies are one trial; a study is its index.

    Example:
        >>> from easeml_core.selection.problem import Arms
        >>> one = Arms(1, 1.0, ("a", "b"), shared=("x", None))
        >>> two = Arms(2, 1.0, ("c", "d"), shared=(None, "x"))
        >>> shared = SharedArms([one, two])
        >>> shared.of(0, 0), shared.of(0, 1), shared.partners(0)
        (((0, 0), (1, 1)), ((0, 1),), (0, 1))
    """

    def __init__(self, studies: Sequence[Arms]) -> None:
        """Group the arms by their key."""
        places: dict[str, list[Place]] = {}
        for study, arms in enumerate(studies):
            for arm, key in enumerate(arms.shared):
                if key is not None:
                    places.setdefault(key, []).append((study, arm))
        self._places = {place: tuple(group) for group in places.values() if len(group) > 1 for place in group}
        self._groups: dict[int, list[tuple[int, tuple[Place, ...]]]] = {}
        for (study, arm), group in self._places.items():
            self._groups.setdefault(study, []).append((arm, group))

    def __bool__(self) -> bool:
        """Whether any arms are one trial."""
        return bool(self._places)

    def of(self, study: int, arm: int) -> tuple[Place, ...]:
        """All (study, arm) that a trial of this one serves, itself included."""
        return self._places.get((study, arm)) or ((study, arm),)

    def groups(self, study: int) -> Sequence[tuple[int, tuple[Place, ...]]]:
        """The study's shared arms, each with all (study, arm) of its group."""
        return self._groups.get(study, ())

    def partners(self, study: int) -> tuple[int, ...]:
        """The studies whose scores depend on this one's posterior, itself included, in order."""
        if study not in self._groups:
            return (study,)
        return tuple(sorted({study, *(other for _, group in self._groups[study] for other, _ in group)}))
