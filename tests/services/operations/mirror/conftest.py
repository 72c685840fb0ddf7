"""A real MLflow server, started once a process, and names on it that no other test has."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from mlflow_lab import mlflow_server

from easeml_core.services.operations.mlflow_sync import Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as found:
        yield found


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the mirror sets where they are missing: here, so that they are gone after the test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in (("DISABLE_TELEMETRY", "true"), ("HTTP_REQUEST_MAX_RETRIES", "0")):
        monkeypatch.setenv(f"MLFLOW_{name}", value)
    for name, value in (("ENABLE_ARTIFACTS_PROGRESS_BAR", "false"), ("SUPPRESS_PRINTING_URL_TO_STDOUT", "true")):
        monkeypatch.setenv(f"MLFLOW_{name}", value)


@pytest.fixture
def mirrored(address: str) -> Mirror:
    """Names on the server that no other test has."""
    return Mirror(address, prefix=f"t{next(_numbers)}")
