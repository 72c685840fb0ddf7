"""Reads arguments after Airflow has rendered them: a template leaves text where a number was meant."""

from __future__ import annotations

import json
from typing import Any

from easeml_core.settings.config import require

EMPTY = (None, "", "None")
"""What an unset field of a trigger form becomes, with and without a template in between."""


def optional_text(value: Any) -> str | None:
    """The text, or None for an unset field.

    Example:
        >>> optional_text("None"), optional_text("n > 0.8 +/- 0.1")
        (None, 'n > 0.8 +/- 0.1')
    """
    return None if value in EMPTY else str(value)


def whole(value: Any, name: str) -> int:
    """The whole number."""
    text = str(value).strip()
    require(text.removeprefix("-").isdecimal(), name, value, "a whole number")
    return int(text)


def optional_whole(value: Any, name: str) -> int | None:
    """The whole number, or None for an unset field."""
    return None if value in EMPTY else whole(value, name)


def optional_number(value: Any, name: str) -> float | None:
    """The number, or None for an unset field."""
    if value in EMPTY:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        require(False, name, value, "a number")
        raise


def optional_plain(value: Any, name: str) -> Any:
    """A list or mapping, given as such or as JSON text; None for an unset field.

    Example:
        >>> optional_plain('["digits"]', "studies"), optional_plain({"steps": 3}, "gate"), optional_plain("", "gate")
        (['digits'], {'steps': 3}, None)
    """
    if value in EMPTY:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            require(False, name, value, "a list or an object, or one of these as JSON text")
    require(isinstance(value, list | tuple | dict), name, value, "a list or an object, or one of these as JSON text")
    return value


def optional_truth(value: Any, name: str) -> bool | None:
    """True or false, given as such or as the text that a template makes of it; None for an unset field.

    Example:
        >>> optional_truth(True, "trainers"), optional_truth("False", "trainers"), optional_truth("", "trainers")
        (True, False, None)
    """
    if value in EMPTY:
        return None
    known = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
    require(known is True or known is False, name, value, "true, false or None")
    return bool(known)


def trial_id(trial: Any) -> int:
    """The id of a trial, given itself or as one of the entries that ``SuggestTrialsOperator`` returns.

    Example:
        >>> trial_id({"trial_id": 7, "study": "digits"}), trial_id("7")
        (7, 7)
    """
    return whole(trial.get("trial_id") if isinstance(trial, dict) else trial, "trial")
