"""Packages that only some sources need: imported when such a source is read, with the way to get them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from easeml_core.errors import InvalidInputError


def optional_package(name: str, module: str, *, extra: str) -> Any:
    """A module of a package that may be absent.

    Args:
        name: The package as it is imported.
        module: The module of it.
        extra: The extra of our distribution that brings it.

    Raises:
        InvalidInputError: If it is not installed; says how to install it.
    """
    if importlib.util.find_spec(name) is None:
        message = f"sources of {name!r} need the package {name}: pip install 'easeml-airflow[{extra}]'"
        raise InvalidInputError(message)
    return importlib.import_module(module)
