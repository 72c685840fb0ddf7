"""What pages measure names routes, and nothing of who asked for what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from easeml_core.services import telemetry


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    seen: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(telemetry, "_sinks", [lambda what, _, labels: seen.append((what.name, labels))])
    return seen


def test_pages_are_counted_by_route_and_timed_where_nothing_sealed_is_read(
    ask_as: Any, make_study: Any, measured: list[tuple[str, dict[str, str]]]
) -> None:
    make_study("cancer")
    about = {"route": "/studies/{study}", "method": "GET"}
    ask_as("ada").get("/studies/cancer")
    assert measured == [
        ("easeml.page.requests", {**about, "status": "2xx"}),
        ("easeml.page.duration", about),
    ]
    measured.clear()
    ask_as("ada").get("/studies/other")
    ask_as("ada").request("BREW", "/nowhere/cancer")
    requests = [labels for name, labels in measured if name == "easeml.page.requests"]
    assert requests == [{**about, "status": "4xx"}, {"route": "other", "method": "other", "status": "4xx"}]

    measured.clear()
    assert ask_as("eve", "labeler").get("/labels").status_code == 200  # the desk opens what is sealed
    assert [name for name, _ in measured] == ["easeml.page.requests"]
    assert "cancer" not in json.dumps(measured)
