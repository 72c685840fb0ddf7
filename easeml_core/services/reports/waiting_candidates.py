"""Sentences about candidates that wait for an implementation, for a task with their function, or for its repair."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING

from easeml_core.entities import implementation_text
from easeml_core.errors import counted
from easeml_core.store.queries.study import CandidateWait, WaitKind, candidate_waits

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

_FEW = 3
"""Candidates that a sentence names."""


@dataclass(frozen=True, slots=True)
class StudyWaits:
    """What the candidates of one study wait for.

    Attributes:
        missing: Implementations that nothing which asks for trials has.
        functions: Training functions that a task must execute, whether one has asked or not.
        repairs: Tasks that failed.
    """

    missing: list[CandidateWait] = field(default_factory=list)
    functions: list[CandidateWait] = field(default_factory=list)
    repairs: list[CandidateWait] = field(default_factory=list)

    def need_a_person(self) -> list[str]:
        """Return the sentences about what no caller can execute, and about tasks that wait for a repair."""
        of_function = {wait.implementation: function_sentence(wait) for wait in self.functions}
        missing = [of_function.get(wait.implementation) or _missing_sentence(wait) for wait in self.missing]
        return [*missing, *map(_repair_sentence, self.repairs)]

    def every(self) -> list[str]:
        """Return all sentences, also about functions that no task has executed yet."""
        return list(dict.fromkeys([*self.need_a_person(), *map(function_sentence, self.functions)]))


def waits_of_studies(tx: Connection, names: Collection[str]) -> dict[str, StudyWaits]:
    """Return what candidates of these studies wait for; a study of which none waits is left out.

    Args:
        tx: Any role.
        names: Of the studies.
    """
    found: dict[str, StudyWaits] = {}
    for wait in candidate_waits(tx, names=names):
        of_study = found.setdefault(wait.study, StudyWaits())
        of_kind = {
            WaitKind.IMPLEMENTATION: of_study.missing,
            WaitKind.FUNCTION: of_study.functions,
            WaitKind.REPAIR: of_study.repairs,
        }
        of_kind[wait.kind].append(wait)
    return found


def waits_of(tx: Connection, study: str) -> list[str]:
    """Return all sentences about the waits of one study's candidates."""
    return waits_of_studies(tx, [study]).get(study, StudyWaits()).every()


def studies_with_waits(tx: Connection, names: Collection[str] | None) -> list[str]:
    """Return the studies, in order, with candidates that no caller can execute or whose task waits for a repair.

    Args:
        tx: Any role.
        names: Of these studies only; None for all.
    """
    return sorted({wait.study for wait in candidate_waits(tx, names=names, functions=False)})


def _missing_sentence(wait: CandidateWait) -> str:
    count, verb = counted(wait.candidates, "candidate"), "waits" if wait.candidates == 1 else "wait"
    named = implementation_text(wait.implementation or "")
    return f"{count} {verb} for an implementation: no DAG or device that asks has {named}"


def _repair_sentence(wait: CandidateWait) -> str:
    count, verb = counted(wait.candidates, "candidate"), "waits" if wait.candidates == 1 else "wait"
    return f"{count} {verb} since their task failed: repair it, then `easeml trial retry {wait.trials[0]}`"


def function_sentence(wait: CandidateWait) -> str:
    """Return which candidates wait for a training function, when a task with it last asked, and what to do."""
    named, names = (wait.implementation or "").partition(":")[2], wait.names
    listed = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW:,} more" if len(names) > _FEW else "")
    who = f"candidate {listed} waits" if len(names) == 1 else f"candidates {listed} wait"
    asked = wait.asked_at
    last = "none has asked yet" if asked is None else f"one last asked on {asked.astimezone(UTC):%Y-%m-%d at %H:%M} UTC"
    return (
        f"{who} for a task that executes function {named!r} ({last}; `easeml device run` cannot): map "
        f"`TrainTrialOperator(functions=[{named}])` or the @trial function over the trials, or "
        f"`easeml candidate withdraw {wait.study} {names[0]} --why 'renamed'`"
    )
