"""The policies that a simulation compares, as people write them.

hybrid                      a policy of ``config.POLICIES``, or ``clairvoyant``
hybrid@0.05                 with a multiplier of beta
order:FILE                  the fixed order of candidates that a file names, one a line
default:guard=0,blend=1     with settings of ``SelectionConfig``, for instance a part of the policy switched off
backtested                  in each repeat the one of RIVALS that a backtest on that repeat's history chooses
shop.policies:cheapest      a function of an installed module (``policies.user_policy.Seen``)
plugin:cheapest             an installed policy, which a live installation may use, too
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
from attrs import evolve

from easeml_core.config import POLICIES, SelectionConfig
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.selection.policies.user_policy import policy_function

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import Parameters

CLAIRVOYANT = "clairvoyant"
BACKTESTED = "backtested"
RIVALS = ("default", "hybrid", "hybrid@0.05", "hybrid@0.01", "roundrobin")
"""What a backtest chooses among: the first, unless another one is better."""
UNSETTABLE = (BACKTESTED, CLAIRVOYANT)
WITHOUT_BETA = ("default", "mm-gp-ei", "cheapest", "order", "ei-per-second", *UNSETTABLE)
"""Policies in which no confidence bound, and so no beta, occurs."""
FIXED = ("policy", "order", "seed", "beta_multiplier")
"""Settings that are written in another way, or are the protocol's."""
MAX_ORDER_BYTES = 1024 * 1024
_RULE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy with its settings.

    Attributes:
        name: As it was written; names the policy in tables and JSON.
        config: Its settings; None for the clairvoyant, which has none, and where a backtest chooses.
        rivals: What a backtest chooses among in each repeat; empty for all others.
        is_rule: Whether its name is that of a user's function.
    """

    name: str
    config: SelectionConfig | None
    rivals: tuple[Contestant, ...] = ()
    is_rule: bool = False


def parse_contestants(
    texts: Sequence[str], *, base: SelectionConfig, candidates: Sequence[str]
) -> tuple[Contestant, ...]:
    """The policies of a simulation.

    Args:
        texts: As people write them, at least one, all different.
        base: Settings of all that say nothing else.
        candidates: Names of the table, for ``order:FILE``.

    Raises:
        InvalidInputError: If a text cannot be understood, or stands there twice.
        ConfigError: If a setting is out of its range.
        NotFoundError: If an order names a candidate that the table does not have.
    """
    twice = [text for i, text in enumerate(texts) if text in texts[:i]]
    if twice or not texts:
        problem = f"policy {twice[0]!r} stands there twice" if twice else "there is no policy"
        message = f"{problem}; name at least one, each once"
        raise InvalidInputError(message)
    return tuple(_parse(text, base, candidates) for text in texts)


def _parse(text: str, base: SelectionConfig, candidates: Sequence[str]) -> Contestant:
    head, colon, tail = text.partition(":")
    if head not in (*POLICIES, *UNSETTABLE) and _RULE.fullmatch(text):
        policy_function(text)
        return Contestant(text, None, is_rule=True)
    name, at, multiplier = head.partition("@")
    if name not in (*POLICIES, *UNSETTABLE):
        _refuse(text, f"there is no policy {name!r}; there are {', '.join((*POLICIES, *UNSETTABLE))}; {_FORMS}")
    if at and name in WITHOUT_BETA:
        _refuse(text, f"{name} has no beta; leave out {at}{multiplier}")
    if name in UNSETTABLE:
        if colon:
            _refuse(text, f"{name} has no settings; leave out {colon}{tail}")
        rivals = RIVALS if name == BACKTESTED else ()
        return Contestant(text, None, tuple(_parse(rival, base, candidates) for rival in rivals))
    config = evolve(base, policy=name)
    if at:
        config = evolve(config, beta_multiplier=_read(text, "the multiplier of beta", multiplier, 1.0))
    if name == "order":
        return Contestant(text, evolve(config, order=_read_order(text, tail, candidates)))
    return Contestant(text, evolve(config, **_settings(text, tail)) if colon else config)


_FORMS = "write NAME, NAME@BETA, NAME:SETTING=VALUE,..., order:FILE or module:function"


def _refuse(text: str, what: str) -> NoReturn:
    message = f"policy {text!r}: {what}"
    raise InvalidInputError(message)


def _settings(text: str, tail: str) -> Parameters:
    """``guard=0,blend=1`` as settings, each of the kind of its default."""
    defaults = {f.name: f.default for f in attrs.fields(SelectionConfig) if f.name not in FIXED}
    settings = {}
    for part in tail.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            _refuse(text, f"{part!r} is no setting; write NAME=VALUE, separated by commas")
        if name not in defaults:
            _refuse(text, f"there is no setting {name!r}; there are {', '.join(defaults)}")
        settings[name] = _read(text, name, value, defaults[name])
    return settings


def _read(text: str, name: str, value: str, default: Any) -> Any:
    """A value of the kind of a default."""
    if isinstance(default, bool):
        truths = {"true": True, "false": False}
        if value.lower() not in truths:
            _refuse(text, f"{name} must be true or false, got {value!r}")
        return truths[value.lower()]
    kind = float if default is None else type(default)  # without a default it is a number that suits the policy
    try:
        return kind(value)
    except ValueError:
        words = {int: "a whole number", float: "a number"}
        _refuse(text, f"{name} must be {words[kind]}, got {value!r}")


def _read_order(text: str, file: str, candidates: Sequence[str]) -> tuple[str, ...]:
    """The candidates that a file names, one a line, in the order in which they are tried."""
    if not file:
        _refuse(text, "it needs a file that names candidates in order, one a line: order:FILE")
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(MAX_ORDER_BYTES + 1).decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        _refuse(text, f"the file cannot be read: {reason}; name candidates in order, one a line")
    if len(content) > MAX_ORDER_BYTES:
        _refuse(text, f"the file is larger than {MAX_ORDER_BYTES // 1024**2} MB; name candidates in order, one a line")
    known, lines = set(candidates), dict[str, int]()
    for number, line in enumerate(content.splitlines(), start=1):
        name = line.strip()
        if name and name not in known:
            kind, where = "candidate", f"policy {text!r} names it in line {number}"
            raise NotFoundError(kind, name, known=known, remedy=where)
        if name in lines:
            _refuse(text, f"lines {lines[name]} and {number} both name {name!r}; name every candidate once")
        if name:
            lines[name] = number
    if not lines:
        _refuse(text, "the file names no candidate; name candidates in order, one a line")
    return tuple(lines)
