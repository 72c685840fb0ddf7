"""Reads search spaces from YAML or JSON, by one set of rules for both.

Words mean what they say: only ``true``, ``false`` and ``null`` are no text (``no``, ``on`` and dates are), and ``1e-5``
is a number, which YAML's older rules take for text. Anchors, aliases and tags are refused, nothing is ever built from
one, and length and nesting are bounded before anything that could exhaust memory or the stack.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from easeml_core.programs.search_space.reader import MAX_DEPTH, fail, inside, shown, space_of
from easeml_core.yaml_text import Fault, YamlFaultError, compose, without_tabs

if TYPE_CHECKING:
    from easeml_core.programs.search_space.space import SearchSpace

MAX_LENGTH = 100_000
"""Characters of a text."""

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,29})", re.ASCII)
_REAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.?(?:inf|nan)(?:inity)?", re.ASCII | re.IGNORECASE)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}


def read_space(text: str) -> SearchSpace:
    """Read a search space.

    Args:
        text: YAML or JSON of at most ``MAX_LENGTH`` characters.

    Raises:
        InvalidInputError: Whatever is wrong; names the path, or the line where it is no YAML.

    Example:
        >>> str(read_space("learning_rate: {.float: [-4, -1], .scale: exp}"))
        '{"learning_rate": {".float": [-4.0, -1.0], ".scale": "exp"}}'
    """
    if not isinstance(text, str):
        fail("", f"it is text, got {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        fail("", f"at most {MAX_LENGTH:,} characters are read, got {len(text):,}")
    try:
        root = compose(without_tabs(text), deepest=MAX_DEPTH + 1)
    except YamlFaultError as fault:
        _not_yaml(fault)
    if root is None:
        fail("", "it is empty; write parameters with their domains, such as 'C: {.float: [0.1, 10]}'")
    return space_of(_plain(root, ""))


_FAULTS = {
    Fault.DEPTH: f"it is nested more than {MAX_DEPTH} deep",
    Fault.DOCUMENTS: "it must be one document",
    Fault.ANCHOR: "anchors, aliases and tags of YAML are not allowed; put a word that begins with *, & or ! in quotes",
}


def _not_yaml(fault: YamlFaultError) -> NoReturn:
    if fault.fault is not Fault.SYNTAX:
        fail("", f"line {fault.line}: {_FAULTS[fault.fault]}")
    where = "" if fault.line is None else f"line {fault.line}, column {fault.column}: "
    fail("", f"{where}this is neither YAML nor JSON: {fault.reason}")


def _plain(node: yaml.Node, path: str) -> Any:
    """A YAML node as plain data."""
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, path)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, f"{path}[{k}]") for k, item in enumerate(node.value)]
    data: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            fail(path, "the name of a parameter is one word")
        name = _joined(str(key.value), path)
        if name in data:
            fail(path, f"the name {shown(name)} comes twice")
        data[name] = _plain(value, inside(path, name))
    return data


def _scalar(node: yaml.ScalarNode, path: str) -> bool | int | float | str | None:
    text = str(node.value)
    if node.style is not None:  # in quotes, or a block: always text
        return _joined(text, path)
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NOT_FINITE.fullmatch(text):
        fail(path, f"a number must be finite, got {text}; put the word in quotes if it is one")
    return float(text) if _REAL.fullmatch(text) else text


def _joined(text: str, path: str) -> str:
    """Text with pairs of surrogates, as JSON writes rare characters, as those characters."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        fail(path, "text has a character that cannot be stored")
