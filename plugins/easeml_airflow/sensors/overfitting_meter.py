"""Waits for an alert of the overfitting meter, or for its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_text, optional_whole
from easeml_airflow.sensors.base import EasemlSensor
from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

WAIT_FOR = ("alert", "clear", "any")


class OverfittingMeterSensor(EasemlSensor):
    """Succeeds when the study's overfitting budget is exceeded, or is not any more.

    Alerts are rows with rising numbers. Hand in the number of the last alert that was dealt with, and the next one is
    found even if it came while nobody looked, or while the triggerer was restarted.

    Args:
        study: The study; None means any.
        wait_for: ``alert``: a signal above the budget; ``clear``: no alert is open; ``any``: an alert after
            ``after_id``, or the clearing of all.
        after_id: Number of the last alert that was dealt with; 0 means that every open one counts.
        kwargs: As of ``EasemlSensor``.
    """

    template_fields: Sequence[str] = ("study", "wait_for", "after_id", *EasemlSensor.template_fields)

    def __init__(
        self, *, study: str | None = None, wait_for: str = "alert", after_id: int | str = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.wait_for = wait_for
        self.after_id = after_id

    def question(self) -> tuple[str, str, int]:
        """The next alert, or the end of all."""
        require(self.wait_for in WAIT_FOR, "wait_for", self.wait_for, "one of " + ", ".join(WAIT_FOR))
        return self.wait_for, optional_text(self.study) or "", optional_whole(self.after_id, "after_id") or 0
