"""Where the story plays, on the running stack, and its chapters as they are printed."""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stack.components import easeml
from stack.environment import database_environment
from stack.failures import LifecycleError, StackError

from easeml_core.errors import EasemlError
from easeml_core.services.reports.overview import overview
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.server.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rich.console import Console
    from stack.launcher import Access
    from stack.places import Places

    from easeml_core.store.database import Store
    from lifecycle.material import Digits, Published
    from lifecycle.window import Window, Windows


OPERATOR, NEWCOMER, REFEREE = "op", "user", "admin"
"""Users of Airflow, each in its part."""

TENANT, STUDY = "school", "digits"
COMMAND_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Stage:
    """All that chapters share.

    Attributes:
        places: Files of the stack.
        access: How to talk to it.
        check: Raises when the stack is not well any more.
        store: The database as the worker's role.
        windows: One for each person.
        folder: For files that the story makes.
        digits: The real data.
        ending: What names of studies end with, so that the story can be played again.
        published: What published models said, where that is at hand.
    """

    places: Places
    access: Access
    check: Callable[[], None]
    store: Store
    windows: Windows
    folder: Path
    digits: Digits
    ending: str
    published: Published | None = None

    @property
    def study(self) -> str:
        """Name of the newcomer's study."""
        return f"{STUDY}{self.ending}"

    @property
    def path(self) -> str:
        """Of the study's page."""
        return f"/studies/{self.study}"

    @property
    def artifacts(self) -> ArtifactStore:
        """Where models lie."""
        return ArtifactStore(self.places.artifacts)

    def window(self, who: str) -> Window:
        """A person's window."""
        self.check()
        return self.windows.of(who)

    def easeml(
        self, *words: str, role: str = "easeml_worker", fails: bool = False, needs_artifacts: bool = True
    ) -> str:
        """Run a command of ``easeml`` as its user would.

        Args:
            words: The command.
            role: As which role of the database.
            fails: Whether it must fail.
            needs_artifacts: Whether the command takes the place of the models.

        Returns:
            What it printed; its error where it must fail.

        Raises:
            LifecycleError: It failed and must not, or the other way round.
        """
        environment = database_environment(Server(self.places.database).url(role, "easeml"))
        command = easeml(*words, *(("--artifacts", str(self.places.artifacts)) if needs_artifacts else ()))
        done = subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        said = " ".join((done.stdout if done.returncode == 0 else done.stderr).split())
        if (done.returncode != 0) != fails:
            wanted = "fail" if fails else "succeed"
            message = f"easeml {' '.join(words[:2])} should {wanted}; it ended with status {done.returncode}: {said}"
            raise LifecycleError(message)
        return said


def times_played(store: Store) -> int:
    """How often the story was begun in this installation."""
    names = {entry.study for entry in overview(store).tenants}
    return sum(name == STUDY or name.startswith(f"{STUDY}-") for name in names)


def ending(time: int) -> str:
    """What names of studies end with when the story is played so often, counted from 1.

    Example:
        >>> ending(1), ending(2)
        ('', '-2')
    """
    return "" if time == 1 else f"-{time}"


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
