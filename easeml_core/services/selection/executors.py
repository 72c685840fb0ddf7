"""The implementations that a worker can execute: the trainers of this package, and training functions.

A candidate names its implementation (``entities.implementation_of``). A worker that lacks it gives the trial back, and
the store refuses a claim that states another one (``work.trials_executor_fkey``). Callers state what they can execute
(``retries.note_offer``); ``waiting_sentences`` reports candidates that no caller can execute, and trials that
wait for a repair of their task.
"""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from dataclasses import dataclass, field
from datetime import UTC
from functools import lru_cache
from importlib import metadata
from types import CodeType
from typing import TYPE_CHECKING, Any

from easeml_core.entities import Executor, implementation_of, implementation_text
from easeml_core.errors import InvalidInputError, counted
from easeml_core.store.tables import retries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from easeml_core.entities import Trial

    Function = Callable[..., Any]
    from collections.abc import Collection

    from sqlalchemy import Connection

    from easeml_core.store.tables.retries import WaitingFunction


_DISTRIBUTION = "easeml-airflow"
_FUTURE_FLAGS = 0xFFF0000
"""Flags of a code object that ``from __future__`` sets, which its source text alone does not tell."""
_LONGEST = 300
_FEW = 3
"""Candidates that a sentence names."""


@dataclass(frozen=True, slots=True)
class Executors:
    """The implementations that one worker, or one task, can execute.

    Attributes:
        functions: Training functions by name.
        trainers: Whether the trainers of this package are available, which run commands and containers too.
        dag_version: Version of the DAG bundle that holds the functions; None where it has none.
    """

    functions: Mapping[str, Function] = field(default_factory=dict)
    trainers: bool = True
    dag_version: str | None = None

    def executor_of(self, trial: Trial) -> Executor | None:
        """Return what executes the trial here; None where nothing does."""
        kind, _, name = trial.implementation.partition(":")
        if kind == "function":
            function = self.functions.get(name)
            return None if function is None else function_executor(function, dag_version=self.dag_version)
        if not self.trainers:
            return None
        # Of the kind and the parameters that the job is made of, so that the store compares what is really run.
        ran = implementation_of(trial.kind, trial.candidate, trial.parameters)
        return Executor(ran, code_version())

    def sources(self) -> dict[str, str]:
        """Return the functions' names with the hashes of their sources."""
        return {name: source_hash(function)[0] for name, function in self.functions.items()}

    def __str__(self) -> str:
        """Return all implementations in one phrase."""
        named = [implementation_text(f"function:{name}") for name in sorted(self.functions)]
        return " and ".join([*named, *(["the trainers of this package"] if self.trainers else [])]) or "nothing"


TRAINERS_ONLY = Executors()
"""A worker without training functions."""


def executors_of(functions: Iterable[Function], *, trainers: bool, dag_version: str | None = None) -> Executors:
    """Return what a worker with these functions can execute.

    Raises:
        InvalidInputError: One of them has no name, or two have the same.
    """
    named: dict[str, Function] = {}
    for function in functions:
        name = function_name(function)
        if named.setdefault(name, function) is not function:
            message = f"two training functions are called {name!r}: candidates name a function, so rename one of them"
            raise InvalidInputError(message)
    return Executors(named, trainers, dag_version)


def function_name(function: Function) -> str:
    """Return the name by which candidates name a training function.

    Raises:
        InvalidInputError: It has none: a lambda, a partial or an object that can be called.

    Example:
        >>> def tree(data, parameters, report): ...
        >>> function_name(tree)
        'tree'
    """
    name = getattr(function, "__name__", "")
    if not (callable(function) and isinstance(name, str) and name.isidentifier()):
        message = (
            f"a training function needs a name, by which candidates name it; {function!r:.100} has none: write it as "
            "`def NAME(data, parameters, report)`, which may call a lambda, a partial or an object"
        )
        raise InvalidInputError(message)
    return name


def function_executor(function: Function, *, dag_version: str | None = None) -> Executor:
    """Return what a worker states that executes a training function."""
    hashed, source = source_hash(function)
    module, name = getattr(function, "__module__", None) or "", getattr(function, "__qualname__", function.__name__)
    return Executor(
        implementation=f"function:{function_name(function)}",
        code_version=code_version(),
        function=f"{module}.{name}"[:_LONGEST],
        source_hash=hashed,
        source=source,
        dag_version=None if dag_version is None else dag_version[:_LONGEST],
    )


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the version of this package; ``unknown`` where it runs from a folder that was not installed."""
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def source_hash(function: Function) -> tuple[str, str]:
    """Return the hash of a function's source, and what was hashed.

    The source text is hashed where it matches the code that runs; after an edit of an imported file, and where there is
    no text, the bytecode is hashed, which depends on Python's version. Called functions and closed-over values are in
    neither.

    Returns:
        ``sha256:<hex>``, and ``text`` or ``bytecode``.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    try:
        text = textwrap.dedent(inspect.getsource(function))
        if isinstance(code, CodeType) and _is_text_of(text, code):
            return _hashed(text), "text"
    except (OSError, TypeError, SyntaxError, ValueError):  # typed in, made by exec, written in another language
        pass
    return _hashed(repr(_shape(code)) if isinstance(code, CodeType) else repr(function)), "bytecode"


def _hashed(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def _is_text_of(text: str, code: CodeType) -> bool:
    compiled = compile(text, "<source>", "exec", flags=code.co_flags & _FUTURE_FLAGS, dont_inherit=True)
    inner = (c for c in compiled.co_consts if isinstance(c, CodeType) and c.co_name == code.co_name)
    return any(_shape(found) == _shape(code) for found in inner)


def _shape(code: CodeType) -> tuple[Any, ...]:
    """Return the contents of a code object without its file and line numbers."""
    constants = tuple(
        _shape(c) if isinstance(c, CodeType) else sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c)
        for c in code.co_consts
    )
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def waiting_sentences(tx: Connection, names: Collection[str] | None) -> dict[str, list[str]]:
    """Return, by study, sentences about candidates that wait for an implementation or for a repair of their task.

    Args:
        tx: Any role.
        names: Of these studies only; None for all.
    """
    found: dict[str, list[str]] = {}
    missing = retries.waiting_for_implementation(tx, names=names)
    owners = {w.study for w in missing if w.implementation.startswith("function:")}
    functions = retries.waiting_for_functions(tx, names=owners) if owners else []
    told = {(w.study, w.implementation): function_sentence(w) for w in functions}
    for waiting in missing:
        if sentence := told.get((waiting.study, waiting.implementation)):
            found.setdefault(waiting.study, []).append(sentence)
            continue
        count, named = counted(waiting.candidates, "candidate"), implementation_text(waiting.implementation)
        verb = "waits" if waiting.candidates == 1 else "wait"
        found.setdefault(waiting.study, []).append(
            f"{count} {verb} for an implementation: no DAG or device that asks has {named}"
        )
    for failed in retries.task_failures(tx, names=names):
        count = counted(len(failed.trials), "candidate")
        verb = "waits" if len(failed.trials) == 1 else "wait"
        found.setdefault(failed.study, []).append(
            f"{count} {verb} since their task failed: repair it, then `easeml trial retry {failed.trials[0]}`"
        )
    return found


def all_waits(tx: Connection, study: str) -> list[str]:
    """Return the sentences of ``waiting_sentences``, and those about functions that no task has executed yet."""
    functions = [function_sentence(waiting) for waiting in retries.waiting_for_functions(tx, names=[study])]
    return list(dict.fromkeys([*waiting_sentences(tx, [study]).get(study, []), *functions]))


def function_sentence(waiting: WaitingFunction) -> str:
    """Return which candidates wait for a training function, when a task with it last asked, and what to do."""
    named, names = waiting.implementation.partition(":")[2], waiting.candidates
    listed = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW:,} more" if len(names) > _FEW else "")
    who = f"candidate {listed} waits" if len(names) == 1 else f"candidates {listed} wait"
    asked = waiting.asked_at
    last = "none has asked yet" if asked is None else f"one last asked on {asked.astimezone(UTC):%Y-%m-%d at %H:%M} UTC"
    return (
        f"{who} for a task that executes function {named!r} ({last}; `easeml device run` cannot): map "
        f"`TrainTrialOperator(functions=[{named}])` or the @trial function over the trials, or "
        f"`easeml candidate withdraw {waiting.study} {names[0]} --why 'renamed'`"
    )
