"""The extensions pass the conformance checks; run it with pytest."""

from __future__ import annotations

from typing import Any

from easeml_example import extensions

from easeml_core import testing


def test_the_metric() -> None:
    testing.check_metric("easeml_example.extensions:profit")


def test_the_trainer() -> None:
    testing.check_trainer(extensions.nearest, {"neighbours": 3})


def test_the_policy() -> None:
    testing.check_policy("plugin:cheapest")


def test_the_notifier(monkeypatch: Any) -> None:
    sent: list[Any] = []

    class Answer:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(extensions.urllib.request, "urlopen", lambda request, timeout: sent.append(request) or Answer())
    testing.check_notifier(extensions.tell)
    assert sent


def test_the_source() -> None:
    testing.check_source("plugin:readings", target="failed")
