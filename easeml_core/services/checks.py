"""What ``easeml doctor`` finds: one check, its state, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: Short; the same from run to run.
        state: ``failed`` needs a person before the installation works as promised, ``warning`` later, ``skipped`` was
            not looked at, and ``found`` says why.
        found: What was seen, in a sentence's half.
        remedy: What to do; empty where there is nothing.
    """

    name: str
    state: State
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)
