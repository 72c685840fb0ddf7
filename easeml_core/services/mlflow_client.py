"""The way to an MLflow server: opened when it is needed, what it refuses told apart from that it is away."""

from __future__ import annotations

import importlib
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from easeml_core.config import require
from easeml_core.errors import InvalidInputError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

_LONGEST_WORDS = 500

ADDRESS = "MLFLOW_TRACKING_URI"
"""MLflow's own variable for the address of its server."""

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing is told to anybody but the server
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # about 12 s; its own default is 4 minutes, and the next sync is a retry
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's variables as we want them where nobody has set them."""


def server_address(given: str | None) -> str:
    """The address of the server: what was given, else MLflow's own variable.

    Raises:
        ConfigError: It is none of a server, or holds a password, which has no place on a command line or in a log.
    """
    address = given or os.environ.get(ADDRESS, "")
    try:
        parts = urlsplit(address)
        secret, is_server = "@" in parts.netloc, parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        secret, is_server = "@" in address, False
    wanted = "without name and password: MLflow reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or _TOKEN"
    require(not secret, "tracking-uri", "...@...", wanted)
    require(is_server, "tracking-uri", address, f"http(s)://HOST:PORT of an MLflow server, or {ADDRESS} be set")
    return address


def open_client(address: str) -> Any:
    """MLflow's client of the server; nothing is asked of it yet.

    Raises:
        InvalidInputError: The package is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        mlflow = importlib.import_module("mlflow")
    except ModuleNotFoundError as error:
        message = (
            f"the mirror in MLflow needs the package mlflow-skinny ({error}): pip install 'easeml-airflow[mlflow]'"
        )
        raise InvalidInputError(message) from error
    return mlflow.MlflowClient(tracking_uri=address)


@contextmanager
def refusals(told: list[str], what: str) -> Iterator[None]:
    """Keep what goes wrong with one thing from the others: it is told, and tried again at the next sync.

    Args:
        told: Where the sentence is added.
        what: The thing, such as ``trial 7``.

    Raises:
        StoreUnavailableError: The server cannot be reached, lets us not in, or is none of MLflow.
        StoreError: The database failed.
    """
    exceptions = importlib.import_module("mlflow.exceptions")
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # the store of files behind MLflow may be any, and raises what its library does
        if isinstance(error, exceptions.MlflowException) and not isinstance(error, exceptions.RestException):
            message = (
                f"the MLflow server cannot be used: {error}; start it, correct its address, or give MLflow's own "
                "variables what it asks for. Nothing else waits for it, and the next sync goes on from here"
            )
            raise StoreUnavailableError(message) from error
        logger.error("%s is not in MLflow: %s", what, error)
        told.append(f"{what}: {error}"[:_LONGEST_WORDS])
