"""The story: chapters, a paragraph each, with the pictures that were kept."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stack.failures import LifecycleError, StackError

from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console


@dataclass
class Chapter:
    """What one chapter has told.

    Attributes:
        title: What it is about.
        paragraph: Its sentences.
        pictures: Files.
        seconds: How long it took.
    """

    title: str
    paragraph: list[str] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    seconds: float = 0.0

    def tell(self, sentence: str) -> None:
        """Add a sentence."""
        self.paragraph.append(sentence)

    def keep(self, picture: Path) -> None:
        """Add a picture."""
        self.pictures.append(picture)


class Story:
    """Chapters one after the other.

    Args:
        console: Where the paragraphs are printed.
        pause_seconds: How long to wait after each, for a spectator.
    """

    def __init__(self, console: Console, *, pause_seconds: float = 0.0) -> None:
        self.console, self.pause_seconds = console, pause_seconds
        self.chapters: list[Chapter] = []

    @contextlib.contextmanager
    def chapter(self, title: str) -> Iterator[Chapter]:
        """A chapter; told when it has come to its end.

        Raises:
            LifecycleError: It did not; the message begins with the chapter.
        """
        made, began = Chapter(title), time.monotonic()
        number = len(self.chapters) + 1
        self.chapters.append(made)
        try:
            with self.console.status(f"{number}. {title}"):
                yield made
        except (StackError, EasemlError) as error:
            message = f"chapter {number}, {title}: {error}"
            raise LifecycleError(message) from error
        made.seconds = time.monotonic() - began
        self._print(number, made)
        time.sleep(self.pause_seconds)

    def _print(self, number: int, chapter: Chapter) -> None:
        self.console.print(f"\n[b]{number}. {chapter.title}[/] [dim]{chapter.seconds:.0f} s[/]")
        self.console.print(" ".join(chapter.paragraph), markup=False)
        names = ", ".join(picture.name for picture in chapter.pictures)
        self.console.print(f"[dim]pictures: {names}[/]")
