"""Pictures of every page for the documentation, made by Chromium from the stack that runs: `make demo`, then `make up`.

Each is taken as the person whom the page is for: the admin, who is operator and referee, or a developer.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from stack.failures import StackError
from stack.keys import ADMIN
from stack.launcher import running_stack
from stack.places import REPOSITORY, Places
from stack.progress import Progress

from easeml_core.errors import EasemlError
from easeml_core.services.reports.overview import overview, study_details
from easeml_core.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, ViewportSize
    from stack.launcher import Access

TARGET = REPOSITORY / "docs" / "pictures" / "pages"
WIDE, NARROW, HIGH, TALLEST = 1280, 390, 900, 1800
COLOURS = 128
DEVELOPER = "user"
SETTLE_MS = 700
"""Until charts are drawn and times stand in the viewer's zone."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to take.

    Attributes:
        name: Of the file, without its ending.
        path: Of the page, below the application's.
        person: Who looks.
        dark: In which mode.
        width: Of the window in CSS pixels.
    """

    name: str
    path: str
    person: str = ADMIN
    dark: bool = False
    width: int = WIDE


def pictures(study: str, trial_id: int | None) -> Iterator[Picture]:
    """Every page once in light and wide; one of them narrow, one of them dark, too.

    Args:
        study: Which study the pages about one study show.
        trial_id: Whose decision is shown; None for none.
    """
    for name in ("new", "labels", "compute", "audit"):
        yield Picture(name, f"/{name}")
    here = f"/studies/{study}"
    for name in ("lifecycle", "gate", "meter", "data", "use"):
        yield Picture(name, f"{here}/{name}")
    yield Picture("submissions", f"{here}/submissions", DEVELOPER)
    if trial_id is not None:
        yield Picture("decision", f"{here}/decisions/{trial_id}")
    yield Picture("overview", "/")
    yield Picture("overview-narrow", "/", width=NARROW)
    yield Picture("study", here)
    yield Picture("study-dark", here, dark=True)


def chosen(store: Store) -> tuple[str, int | None]:
    """A study that shows most, and its best trial.

    Raises:
        StackError: There is no study.
    """
    names = [entry.study for entry in overview(store).tenants]
    if not names:
        message = "there is no study to make pictures of; run `make demo` first"
        raise StackError(message)
    details = {name: study_details(store, study=name) for name in names}
    study = max(names, key=lambda name: (details[name].meter is not None, len(details[name].trials)))
    ended = [trial for trial in details[study].trials if trial.quality is not None]
    best = max(ended, key=lambda trial: trial.quality or 0.0, default=None)
    return study, None if best is None else best.trial_id


def logged_in(browser: Browser, access: Access, picture: Picture) -> BrowserContext:
    """A window of this size and mode, and the person in front of it."""
    size: ViewportSize = {"width": picture.width, "height": HIGH}
    context = browser.new_context(viewport=size, color_scheme="dark" if picture.dark else "light", timezone_id="UTC")
    asked = {"username": picture.person, "password": access.keys.passwords[picture.person]}
    token = context.request.post(f"{access.url}/auth/token", data=asked).json()["access_token"]
    context.add_cookies([{"name": "_token", "value": token, "url": access.url}])
    return context


def take(browser: Browser, access: Access, picture: Picture) -> bytes:
    """The picture as a small PNG.

    Raises:
        StackError: The page was refused, or failed.
    """
    context = logged_in(browser, access, picture)
    page = context.new_page()
    answer = page.goto(f"{access.url}/easeml{picture.path}", wait_until="load")
    if answer is None or not answer.ok:
        message = f"{picture.path} answers {answer.status if answer else 'nothing'} to {picture.person}"
        raise StackError(message)
    page.wait_for_timeout(SETTLE_MS)
    height = min(int(page.evaluate("document.documentElement.scrollHeight")), TALLEST)
    page.set_viewport_size({"width": picture.width, "height": height})
    taken = page.screenshot(animations="disabled")
    context.close()
    return small(taken)


def small(png: bytes) -> bytes:
    """The same with a palette; the rare colours, such as those of symbols, stay."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    reduced = image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    reduced.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def make(access: Access, folder: Path, console: Console) -> int:
    """Make all pictures; gives their size in bytes."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        message = "there is no chromium on this machine; `make browser` installs it"
        raise StackError(message)
    folder.mkdir(parents=True, exist_ok=True)
    study, trial_id = chosen(Store(access.worker_url))
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    total = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        for picture in pictures(study, trial_id):
            content = take(browser, access, picture)
            (folder / f"{picture.name}.png").write_bytes(content)
            total += len(content)
            console.print(f"  {picture.name}.png  {len(content) // 1000} kB")
        browser.close()
    return total


@click.command(help=__doc__)
@click.option("--home", type=click.Path(path_type=Path), help="The state folder; .easeml of the repository by default.")
@click.option("--to", "folder", type=click.Path(path_type=Path), default=TARGET, help="Where the pictures go.")
def main(home: Path | None, folder: Path) -> None:
    """Make the pictures."""
    console: Any = Console(highlight=False)
    try:
        with running_stack(Places.of(home), Progress(console)) as (access, _, _):
            total = make(access, folder, console)
    except (StackError, EasemlError) as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)
    console.print(f"{total / 1e6:.2f} MB in {folder}")


if __name__ == "__main__":
    main()
