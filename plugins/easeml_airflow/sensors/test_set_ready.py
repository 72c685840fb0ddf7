"""Waits until a study's sealed test set can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_text
from easeml_airflow.sensors.base import EasemlSensor
from easeml_airflow.version_compat import AirflowFailException
from easeml_core.config import choice
from easeml_core.entities import SealedSetPurpose, StudyState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_airflow.triggers.questions import Facts


class TestSetReadySensor(EasemlSensor):
    """Succeeds when the study has a live sealed set; fails when the referee refused the study.

    Args:
        study: The study.
        purpose: ``gate``, ``meter`` (a shared set is ready for both), ``joint`` or ``direct``; None means any.
        kwargs: As of ``EasemlSensor``.
    """

    __test__ = False  # the name begins like a test; pytest would collect it wherever it is imported

    template_fields: Sequence[str] = ("study", "purpose", *EasemlSensor.template_fields)

    def __init__(self, *, study: str, purpose: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.purpose = purpose

    def question(self) -> tuple[str, str, int]:
        """Whether there is a live set."""
        purpose = optional_text(self.purpose)
        wanted = "" if purpose is None else f"/{choice(SealedSetPurpose, 'purpose', purpose)}"
        return "test-set", f"{self.study}{wanted}", 0

    def settle(self, facts: Facts) -> None:
        """A refused or archived study gets no sealed set; waiting on would not help."""
        if facts["state"] == StudyState.ARCHIVED:
            message = f"study {self.study!r} is archived; restore it with `easeml study restore {self.study}`"
            raise AirflowFailException(message)
        if facts["state"] == StudyState.REFUSED:
            message = f"study {self.study!r} was refused by the referee; see `easeml study show {self.study}` for why"
            raise AirflowFailException(message)
