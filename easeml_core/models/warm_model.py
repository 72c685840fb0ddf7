"""A model that stays loaded: a child process that answers requests one after the other, and ends when it is idle.

It is confined and limited as the child of ``predict`` is, and watched by a dedicated thread. A model may remember its
inputs, so one process serves one model and the users who may query that model.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import EasemlError, StateError, TrainingError
from easeml_core.files.local import scratch_folder
from easeml_core.models.answers import array_from_bytes, array_to_bytes
from easeml_core.models.formats import modules_of
from easeml_core.models.warm_child import LENGTH_BYTES
from easeml_core.sandbox.confinement import FAILED, MADE
from easeml_core.sandbox.isolation import Sandbox, confinement_of
from easeml_core.sandbox.process import Limits, run_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from easeml_core.models.answers import WantedAnswers

CHILD = "easeml_core.models.warm_child"
LONGEST_LIFE_SECONDS = 3600.0
_HEADER_BYTES = 4096
_POLL_SECONDS = 0.5


class ModelGoneError(StateError):
    """The process has ended, for nothing that the model did: ask a new one."""


class _StoppedError(Exception):
    """The process is not needed any more."""


class WarmModel:
    """One model in one process.

    Args:
        opened: Gives the model's file, for as long as the process lives.
        format: A key of ``formats.FORMATS``.
        wanted: What is asked of it.
        idle_seconds: It ends after so long without a question.
        answer_seconds: It is ended when an answer takes longer.
        memory_limit_mb: Resident megabytes of the process.
        sandbox: What it is kept from; None for nothing but its environment and limits.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[Path]],
        format: str,
        wanted: WantedAnswers,
        *,
        idle_seconds: float = 120.0,
        answer_seconds: float = 60.0,
        memory_limit_mb: int = 4096,
        sandbox: Sandbox | None = Sandbox(),  # noqa: B008 - frozen
    ) -> None:
        self._opened, self._format, self._wanted = opened, format, wanted
        self._idle, self._patience = idle_seconds, answer_seconds
        self._memory_mb, self._sandbox = memory_limit_mb, sandbox
        self._questions: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[bytes | EasemlError] = queue.SimpleQueue()
        self._turn, self._stop, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self._asked = threading.Event()
        self._heard, self._most, self._used = bytearray(), len(MADE), time.monotonic()
        self._is_made = False
        self._why: EasemlError = _gone()
        threading.Thread(target=self._live, name="warm model", daemon=True).start()

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._ended.is_set() or self._stop.is_set()

    def ask(self, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """The answer to each row of ``inputs``, shape (rows, features); concurrent callers wait."""
        with self._turn:
            if self.is_gone:
                raise self._last_word()
            rows = np.ascontiguousarray(inputs, dtype=np.float32)
            self._most = len(MADE) + LENGTH_BYTES + _HEADER_BYTES + self._wanted.most_bytes * len(rows)
            self._used = time.monotonic()
            self._asked.set()
            self._questions.put(array_to_bytes(rows))
            try:
                answer = self._answers.get(timeout=self._patience)
            except queue.Empty:
                self.close()
                message = f"out of time: the model gave no answer within {self._patience:g} s"
                raise TrainingError(message) from None
            if isinstance(answer, EasemlError):
                raise answer
            self._used = time.monotonic()
            return self._read(answer, len(rows))

    def close(self) -> None:
        """End the process soon."""
        self._stop.set()

    def _last_word(self) -> EasemlError:
        """Why it has ended, to the first who asks."""
        with contextlib.suppress(queue.Empty):
            if isinstance(word := self._answers.get_nowait(), EasemlError):
                return word
        return _gone()

    def _read(self, answer: bytes, rows: int) -> NDArray[Any]:
        try:
            return self._wanted.checked(array_from_bytes(answer), rows)
        except (ValueError, EOFError) as error:
            self.close()
            message = f"{self._wanted.demand(rows)}; its answer is no array"
            raise TrainingError(message) from error
        except TrainingError:
            self.close()
            raise

    def _live(self) -> None:
        """Run the process from start to end, in a separate thread."""
        reason: EasemlError = self._why
        try:
            with (
                self._opened() as path,
                scratch_folder("warm", ignore_cleanup_errors=True) as folder,
            ):
                self._run(path, Path(folder))
        except _StoppedError:
            reason = self._why
        except TrainingError as error:
            is_ours = not self._is_made and str(error).startswith(FAILED)
            reason = (
                StateError("the sandbox in which models are run could not be made; try again") if is_ours else error
            )
        except EasemlError as error:
            reason = error
        finally:
            self._ended.set()
            self._questions.put(None)
            self._answers.put(reason)

    def _run(self, path: Path, folder: Path) -> None:
        arguments = [str(path.resolve()), self._format, json.dumps(self._wanted.to_json())]
        confinement = None if self._sandbox is None else confinement_of(self._sandbox, memory_mb=self._memory_mb)
        if confinement is not None:
            arguments.append(json.dumps(confinement.to_json()))
        run_child(
            CHILD,
            arguments,
            cwd=folder,
            limits=Limits(LONGEST_LIFE_SECONDS, self._memory_mb),
            on_output=self._hear,
            on_poll=self._look,
            poll_seconds=_POLL_SECONDS,
            feed=self._feed,
            loads=(*modules_of(self._format), "easeml_core.models.answers"),
            warm=confinement is not None and confinement.is_apart,
        )

    def _feed(self, pipe: IO[bytes]) -> None:
        while (question := self._questions.get()) is not None:
            pipe.write(len(question).to_bytes(LENGTH_BYTES, "big") + question)
            pipe.flush()

    def _look(self) -> None:
        if self._stop.is_set() or (time.monotonic() - self._used > self._idle and not self._turn.locked()):
            self._stop.set()
            self._questions.put(None)
            raise _StoppedError

    def _hear(self, chunk: bytes) -> None:
        """Collect the answer; one that is too long, or without a request, ends the process."""
        if self.is_gone:
            return  # a process that the model started may write on; its output is ignored
        self._heard += chunk[: self._most + 1 - len(self._heard)]
        if len(self._heard) > self._most:
            self._end_it(f"the model wrote more than the {self._most:,} bytes that its answer may have")
            return
        if not self._is_made and self._heard.startswith(MADE):
            self._is_made = True
            del self._heard[: len(MADE)]
        if self._is_made and self._heard:
            self._take_answer()

    def _take_answer(self) -> None:
        end = LENGTH_BYTES + int.from_bytes(self._heard[:LENGTH_BYTES], "big")
        if not self._asked.is_set() or len(self._heard) > end:
            self._end_it("the model wrote without a request")
        elif len(self._heard) == end:
            self._asked.clear()
            self._answers.put(bytes(self._heard[LENGTH_BYTES:end]))
            self._heard.clear()

    def _end_it(self, why: str) -> None:
        """End the process; waiting callers get the error. Kept answers would stay in this process's memory."""
        self._why = TrainingError(why)
        self.close()


def _gone() -> ModelGoneError:
    return ModelGoneError("the model's process has ended; ask again")
