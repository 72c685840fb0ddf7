"""What each trial costs in the eyes of a scheduler: known, learnt, or taken to be equal."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.selection.costs.learn import learn_costs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.selection.problem import Problem, Pull
    from easeml_core.selection.surrogate.posterior import Array


class StudyCosts:
    """Seconds of each arm of each study on each kind of device; a study is its index.

    Learnt costs are a joint fit to the results up to some point; from there on, each result moves its own study's
    effect at once, and the others at the next fit.

    Attributes:
        known: Whether they rest on any measurement.
    """

    def __init__(
        self, problem: Problem, *, known: Mapping[int, Array] | None = None, fitted: Sequence[Pull] = ()
    ) -> None:
        """Fit, or take over what is known.

        Args:
            problem: Studies and history.
            known: Study id to the cost of each arm, shape ``(n_arms,)``; None when they are to be learnt.
            fitted: The results to fit to; ``observe`` will be told of them first, in the same order.
        """
        self._studies = problem.studies
        self._given = known
        self._cached: list[dict[str | None, Array]] = [{} for _ in problem.studies]
        self._in_fit = sum(pull.quality is not None for pull in fitted)
        self.known = True
        if known is None:
            self._model = learn_costs(replace(problem, pulls=tuple(fitted), pending=()))
            self.known = self._model.known
            self._effects = [self._model.effect(arms.study_id) for arms in problem.studies]
            # Studies with the same candidates share what does not depend on the study; a tuple of hundreds of names is
            # too slow a key for every decision.
            groups = {names: number for number, names in enumerate(dict.fromkeys(a.names for a in problem.studies))}
            self._group = [groups[arms.names] for arms in problem.studies]
            self._bases: dict[tuple[int, str | None, int | None], Array] = {}
            self._precisions = [self._model.precision(names).tolist() for names in groups]

    def of(self, study: int, device: str | None = None) -> Array:
        """Seconds of each arm, > 0, shape ``(n_arms,)``; not to be written to."""
        arms = self._studies[study]
        if self._given is not None:
            return self._given[arms.study_id]
        found = self._cached[study].get(device)
        if found is None:
            found = np.exp(self._base(study, device) + self._effects[study].mean)
            self._cached[study][device] = found
        return found

    def observe(self, study: int, arm: int, seconds: float, device: str | None = None) -> bool:
        """Take in a successful trial; whether the costs of its study have changed. The fit has counted its own."""
        if self._given is not None or not self.known:
            return False
        if self._in_fit:
            self._in_fit -= 1
            return False
        residual = math.log(seconds) - float(self._base(study, device)[arm])
        precision = self._precisions[self._group[study]][arm]
        self._effects[study] = self._effects[study].observe(residual, precision)
        self._cached[study].clear()
        return True

    def _base(self, study: int, device: str | None) -> Array:
        arms = self._studies[study]
        key = (self._group[study], device, arms.rows)
        found = self._bases.get(key)
        if found is None:
            plain = self._bases.get((self._group[study], device, None))
            if plain is None:
                plain = self._bases[self._group[study], device, None] = self._model.base(arms.names, device)
            found = self._bases[key] = plain + self._model.rows_effect(arms.rows)
        return found
