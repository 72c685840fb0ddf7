"""The implementations that a worker can execute: the trainers of this package, and training functions.

A candidate names its implementation (``entities.implementation_of``). A worker that lacks it gives the trial back, and
the store refuses a claim that states another one (``work.trials_executor_fkey``). Callers state what they can execute
(``leases.note_offer``); ``reports/next_steps.py`` reports candidates that no caller can execute.
"""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from types import CodeType
from typing import TYPE_CHECKING, Any

from easeml_core.entities import Executor, implementation_of, implementation_text
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from easeml_core.entities import Trial

    Function = Callable[..., Any]

_DISTRIBUTION = "easeml-airflow"
_FUTURE_FLAGS = 0xFFF0000
"""Flags of a code object that ``from __future__`` sets, which its source text alone does not tell."""
_LONGEST = 300


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
    """Return what a worker with these functions can execute."""
    named: dict[str, Function] = {}
    for function in functions:
        name = function_name(function)
        if named.setdefault(name, function) is not function:
            message = f"two training functions are called {name!r}: candidates name a function, so rename one of them"
            raise InvalidInputError(message)
    return Executors(named, trainers, dag_version)


def function_name(function: Function) -> str:
    """Return the name by which candidates name a training function.

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
