"""Which of our modules run, which call each other, and which SQL they send, while a block of code runs."""

from __future__ import annotations

import contextlib
import dis
import inspect
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from measuring.source_tree import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

_SUSPENDED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_PREFIXES = tuple(f"{package}." for package in PACKAGES)


@dataclass(frozen=True)
class Statement:
    """One SQL statement.

    Attributes:
        module: The module of ours that sent it.
        caller: The nearest module outside ``easeml_core.store`` on the stack; the same as ``module`` where there is
            none inside.
        transaction: Number of its transaction in the trace, from 1.
        sql: Its text, on one line.
    """

    module: str
    caller: str
    transaction: int
    sql: str


@dataclass
class Trace:
    """What ran.

    Attributes:
        modules: Calls of functions by the module that defines them.
        calls: Calls from one module of ours into another, by (caller, called); code of libraries in between, such as
            context managers, is passed over.
        statements: SQL in the order in which it was sent.
        transactions: How many transactions began.
    """

    modules: Counter[str] = field(default_factory=Counter)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    statements: list[Statement] = field(default_factory=list)
    transactions: int = 0


@contextlib.contextmanager
def tracing() -> Iterator[Trace]:
    """Trace this thread and the threads that it starts; child processes are not traced."""
    from sqlalchemy import Engine, event

    trace = Trace()
    numbers: dict[int, int] = {}

    def profile(frame: FrameType, kind: str, _: Any) -> None:
        if kind == "call":
            _note_call(trace, frame)

    def begin(connection: Any) -> None:
        trace.transactions += 1
        numbers[id(connection)] = trace.transactions

    def execute(connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        names = list(_our_modules(sys._getframe()))
        outer = next((name for name in names if not name.startswith("easeml_core.store.")), names[0])
        number = numbers.get(id(connection), 0)
        trace.statements.append(Statement(names[0], outer, number, " ".join(sql.split())))

    listeners: dict[str, Callable[..., None]] = {"begin": begin, "before_cursor_execute": execute}
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)


def _note_call(trace: Trace, frame: FrameType) -> None:
    module = _module(frame)
    if module is None or frame.f_code.co_name == "<module>" or _is_resumed(frame):
        return
    trace.modules[module] += 1
    caller = next(_our_modules(frame.f_back), None)
    if caller is not None and caller != module:
        trace.calls[caller, module] += 1


def _is_resumed(frame: FrameType) -> bool:
    """Whether a generator or coroutine goes on where it was suspended; that is no call."""
    return bool(frame.f_code.co_flags & _SUSPENDED) and frame.f_lasti > _beginning(frame.f_code)


@cache
def _beginning(code: CodeType) -> int:
    """Offset of the instruction with which the body of a function begins."""
    return next(one.offset for one in dis.get_instructions(code) if one.opname == "RESUME")


def _module(frame: FrameType) -> str | None:
    """Name of the module whose code runs; None for libraries, and for methods that dataclasses generate."""
    name: str = frame.f_globals.get("__name__", "")
    if frame.f_code.co_filename.startswith("<"):
        return None
    return name if name in PACKAGES or name.startswith(_PREFIXES) else None


def _our_modules(frame: FrameType | None) -> Iterator[str]:
    """The modules of ours on the stack, innermost first."""
    while frame is not None:
        name = _module(frame)
        if name is not None:
            yield name
        frame = frame.f_back
