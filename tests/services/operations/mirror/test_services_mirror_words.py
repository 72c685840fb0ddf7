"""What the mirror in MLflow refuses before it asks any server, and in which words."""

from __future__ import annotations

import itertools
import sys
import threading

import pytest

from easeml_core.cli.operations.integrations import keep_in_sync
from easeml_core.errors import ConfigError, InvalidInputError, StoreUnavailableError
from easeml_core.services.operations.mlflow_sync import Mirror, open_client, server_address


@pytest.mark.parametrize("uri", ["", "sqlite:///x.db", "databricks", "http://", "http://[", "file:/tmp/x"])
def test_only_a_server_is_mirrored_to(uri: str) -> None:
    with pytest.raises(ConfigError, match="tracking-uri must be http"):
        server_address(uri)


@pytest.mark.parametrize("uri", ["https://ada:geheim@host/", "http://geheim@[", "http://:geheim@host:5000"])
def test_a_password_in_the_address_is_refused_and_not_repeated(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        server_address(None)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    "names", [{"prefix": "a/b"}, {"prefix": ""}, {"alias": "v3"}, {"alias": "Latest"}, {"alias": "a'"}]
)
def test_names_that_mlflow_would_not_take_are_refused(names: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(names))):
        Mirror(**names)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'easeml-airflow\[mlflow\]'"):
        open_client("http://127.0.0.1:1")


def test_a_watch_tells_what_went_wrong_and_goes_on() -> None:
    stop, answer, tries = threading.Event(), list[str](), itertools.count()

    def once() -> None:
        if next(tries) == 0:
            raise StoreUnavailableError("away")
        stop.set()

    keep_in_sync(once, stop, poll_seconds=0.01, log=answer.append)
    assert answer == ["away"]

    def wrong() -> None:
        raise ConfigError("tracking-uri", "x", "an address")

    with pytest.raises(ConfigError, match="tracking-uri"):
        keep_in_sync(wrong, threading.Event(), poll_seconds=0.01, log=answer.append)
    with pytest.raises(ConfigError, match="poll"):
        keep_in_sync(once, stop, poll_seconds=0, log=answer.append)
