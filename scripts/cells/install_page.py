"""The commands of docs/install.md for an Airflow that is there already, as they are written there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "install.md"
HEADING = "## An Airflow that you have already"
EXPECTED = (
    "pip install", "easeml db create", "airflow connections import", "airflow pools set", "easeml dags copy",
    "easeml referee",
)  # fmt: skip
ADMIN, STATE, DAGS = "admin.url", "/var/lib/easeml", "/opt/airflow/dags"
"""What a reader replaces: the file with the administrator's address, a folder for state, Airflow's folder of DAGs."""

DIST, CONSTRAINTS, VERSION = "dist", "constraints/3.3.txt", "$(airflow version)"
"""What a reader has in the clone, the constraints of another Airflow, and what the shell puts in: its version."""


@dataclass(frozen=True, slots=True)
class PageCommands:
    """The six commands.

    Attributes:
        install: Arguments of `pip install`.
        once: Lines of a shell that end, in order.
        referee: The line that runs until it is stopped.
    """

    install: list[str]
    once: list[str]
    referee: str


def page_commands(replaced: dict[str, str]) -> PageCommands:
    """Read the page.

    Args:
        replaced: Text of the page to what stands for it here; each must be on the page.

    Raises:
        ValueError: The page has other commands than these six, or lacks a text to replace.
    """
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"{HEADING}\n")
    found = re.search(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = found[1].splitlines() if found else []
    if len(lines) != len(EXPECTED) or not all(name in line for name, line in zip(EXPECTED, lines, strict=True)):
        message = f"{PAGE}: under {HEADING!r} there must be one block with {', '.join(EXPECTED)}; it has {lines}"
        raise ValueError(message)
    text = "\n".join(lines)
    for old, new in replaced.items():
        if old not in text:
            message = f"{PAGE}: the commands have no {old}"
            raise ValueError(message)
        text = text.replace(old, new)
    install, *once, referee = text.splitlines()
    return PageCommands(shlex.split(install)[2:], once, referee)
