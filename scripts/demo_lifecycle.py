"""The whole life of a study, played for a viewer through the pages of a real Airflow, in five chapters.

A newcomer submits a study; tenants compete and a decision is explained; a developer hands in models while badge and
gauge move; a set that is too small is attacked, then one of the planned size; the set is spent, the alarm rings, and a
new cycle begins. Uses the stack that `make up` started and leaves it running, or starts one and stops it again.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from lifecycle.chapters import CHAPTERS, register_others
from lifecycle.material import load_published, load_table
from lifecycle.stage import Stage, Story, ending, times_played
from lifecycle.window import Windows, chromium
from rich.console import Console
from stack.failures import LifecycleError, StackError
from stack.launcher import running_stack
from stack.places import Places
from stack.progress import Progress
from stack.stopping import StopRequestedError, stop_on_signals

from easeml_core.errors import EasemlError
from easeml_core.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.launcher import Access

WIDTH = 120


def play(places: Places, access: Access, check: Callable[[], None], windows: Windows, story: Story) -> None:
    """Play all chapters on a stack that is up.

    Raises:
        LifecycleError: A chapter did not come to its end.
    """
    with (
        tempfile.TemporaryDirectory(prefix="easeml-lifecycle-") as folder,
        contextlib.closing(Store(access.worker_url)) as store,
    ):
        number = times_played(store) + 1
        digits, names = load_table(number), ending(number)
        stage = Stage(places, access, check, store, windows, Path(folder), digits, names, load_published(number))
        register_others(stage)
        for title, play_chapter in CHAPTERS:
            with story.chapter(title) as chapter:
                play_chapter(stage, chapter)


@click.command(help=__doc__)
@click.option("--show", is_flag=True, help="Show the browser, where there is a display.")
@click.option("--pause", type=click.FloatRange(0, 3600), default=0.0, help="Seconds to wait after each chapter.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Folder for pictures; default: of the state folder.")
@click.option("--home", type=click.Path(path_type=Path), help="The state folder; .easeml of the repository by default.")
@click.option("--dags", type=click.Path(path_type=Path, exists=True), hidden=True, help="Another folder of DAGs.")
def main(show: bool, pause: float, pictures: Path | None, home: Path | None, dags: Path | None) -> None:
    """Play the story."""
    began, places = time.monotonic(), Places.of(home, dags)
    folder = (pictures or places.home / "pictures").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    stop_on_signals()
    try:
        with contextlib.ExitStack() as held:
            access, check, stays = held.enter_context(running_stack(places, Progress(console)))
            windows = Windows(held.enter_context(chromium(is_shown=show)), access, folder)
            try:
                play(places, access, check, windows, Story(console, pause_seconds=pause))
            except LifecycleError:
                windows.pictures_of_all("failed")
                raise
    except StopRequestedError as asked:
        console.print(str(asked))
        sys.exit(128 + asked.number)
    except (StackError, EasemlError) as error:
        console.print("The story broke off.", style="red")
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        console.print(f"logs: {places.logs}; pictures: {folder}", soft_wrap=True)
        sys.exit(1)
    console.print(f"\nPictures: {folder}", soft_wrap=True)
    if stays:
        console.print(f"The stack still runs: {access.url}/plugin/easeml/", soft_wrap=True)
    console.print(f"Done in {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
