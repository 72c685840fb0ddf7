"""Where figures are drawn, and how one comes into its page."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from figures.markdown import splice
from figures.pictures import FOLDER, take_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DATA = Path("../shared/data")
"""Where the published tables lie, from the repository's root."""


@contextlib.contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """The folder that files and plots are kept in, or one that is gone afterwards."""
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="easeml-figures-")))
        (place / FOLDER).mkdir(parents=True, exist_ok=True)
        yield place.resolve()


def write_figure(page: Path, name: str, block: str, *, place: Path, maker: str) -> None:
    """Put a figure's block into the page, and what was drawn for it beside the page."""
    page.write_text(splice(page.read_text(encoding="utf-8"), {name: block}, maker=maker), encoding="utf-8")
    take_pictures(place / FOLDER, page.parent / FOLDER)
    click.echo(f"figure {name}: written into {page.relative_to(ROOT)}")
