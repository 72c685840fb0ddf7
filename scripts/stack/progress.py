"""Say what is being done: a spinner on a terminal, one line for each finished step everywhere else."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.status import Status


class Progress:
    """Steps of some work, printed with the seconds they took."""

    def __init__(self, console: Console | None = None, on_step: Callable[[str], None] | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.on_step = on_step
        self.status: Status | None = None

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Show a step while it lasts; the given function adds what is going on inside it."""
        if self.on_step:
            self.on_step(title)
        began = time.monotonic()
        with self.console.status(title) as self.status:
            yield lambda detail: self._detail(title, detail)
        self.status = None
        self.console.print(f"  [green]✓[/] {title} [dim]{time.monotonic() - began:.1f} s[/]")

    def _detail(self, title: str, detail: str) -> None:
        if self.status is not None:
            self.status.update(f"{title} [dim]{detail}[/]")
