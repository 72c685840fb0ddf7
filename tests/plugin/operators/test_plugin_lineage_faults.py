"""A lineage provider that is broken, or configured wrongly, leaves its events out and fails no task."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_airflow.hooks import lineage
from easeml_airflow.operators import GateOperator
from easeml_core.errors import StateError


def broken(*_: Any) -> Any:
    message = "cannot import name 'Dataset' from 'openlineage.client'"
    raise ImportError(message)


def away(*_: Any) -> Any:
    message = "the database is away"
    raise StateError(message)


@pytest.mark.parametrize(("is_emitted", "ask"), [(broken, away), (lambda: True, broken), (lambda: True, away)])
def test_a_fault_leaves_the_event_without_datasets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_emitted: Any, ask: Any
) -> None:
    monkeypatch.setattr(lineage, "is_emitted", is_emitted)
    task = GateOperator(task_id="gate", study="good")
    task._note_lineage(ask)
    assert task._lineage is None
    assert "this task's lineage event has no datasets: " in caplog.text
