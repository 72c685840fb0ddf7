"""A laboratory whose referee signs its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.services.evidence.notary import Notary
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_promotion
from easeml_core.store.tables import chain

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.services.referee.answers import VerdictAnswer


@dataclass
class Office:
    """A laboratory whose referee signs; ``full``'s gate set has the number 1."""

    lab: Any
    keys: Path
    answer_delay: float = 0.0

    def referee(self) -> Referee:
        given: dict[str, Any] = {"keys": self.keys, "timetable": Timetable(self.answer_delay)}
        return Referee(self.lab.referee, self.lab.artifacts, **given)

    def answer(self, request_id: int) -> Any:
        self.referee().run_once()
        found = answer_of(self.lab.worker, request_id)
        assert found is not None
        return found

    def gate(self, model: str, study: str = "full") -> Any:
        asked = {"study": study, "model_id": self.lab.models[study][model], "request_key": self.lab.key()}
        return self.answer(file_gate_request(self.lab.worker, **asked))

    def promote(self, model: str, gate: VerdictAnswer, study: str = "full") -> Any:
        asked = {"study": study, "model_id": self.lab.models[study][model], "request_key": self.lab.key()}
        return self.answer(file_promotion(self.lab.worker, gate_request_id=gate.request_id, **asked))

    def notary(self) -> Notary:
        return Notary(self.lab.referee, self.keys)

    def broken(self) -> list[str]:
        """What a new process of this host finds wrong, first finding of each chain."""
        with self.notary().look() as look:
            found = [look.examine(name).first_broken for name in chain.names(look.tx)]
        return [str(one) for one in found if one is not None]

    def require_locked(self, found: str) -> None:
        """The finding is there, and the set judges nothing."""
        broken = self.broken()
        assert any(found in one for one in broken), broken
        refused = self.gate("worse")
        assert refused.refused
        assert "judges nothing" in refused.message


def open_office(lab: Any, keys: Path) -> Office:
    """One pass, promoted, and one fail, both signed; nothing is wrong."""
    made = Office(lab, keys)
    gate = made.gate("good")
    assert gate.symbol == "pass"
    assert not made.promote("good", gate).refused
    assert made.gate("rare").symbol == "fail"
    assert made.broken() == []
    return made
