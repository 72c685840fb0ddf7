"""Waits for an alert that asks for a new test set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_text, optional_whole
from easeml_airflow.sensors.base import EasemlSensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class NewTestSetSensor(EasemlSensor):
    """Succeeds when a study's gate needs a new test set: steps, passes or reachable tolerance have run out.

    Alerts are rows with rising numbers. Hand in the number of the last alert that was dealt with, and the next one is
    found even if it came while nobody looked. With ``on_success_callback=AlertNotifier(to=...)`` it sends a mail.

    Args:
        study: The study; None means any.
        after_id: Number of the last alert that was dealt with; 0 means that every open one counts.
        kwargs: As of ``EasemlSensor``.
    """

    template_fields: Sequence[str] = ("study", "after_id", *EasemlSensor.template_fields)

    def __init__(self, *, study: str | None = None, after_id: int | str = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.after_id = after_id

    def question(self) -> tuple[str, str, int]:
        """The next alert."""
        return "new-test-set", optional_text(self.study) or "", optional_whole(self.after_id, "after_id") or 0
