"""The example package of ``docs/examples/extensions`` as pip would install it."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "extensions"


def install_example(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the package and the entry points of its pyproject.toml on the path of this process, until the test ends."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = place / "easeml_example-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    points = configparser.ConfigParser()
    points.read_dict(project["entry-points"])
    with (folder / "entry_points.txt").open("w") as file:
        points.write(file)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.syspath_prepend(str(EXAMPLE))
