"""Reads the script of a gate, as Ease.ml/ci published it: YAML with one key ``ml``.

    ml:
      - script: ./predict.py
      - condition: n - o > 0.02 +/- 0.01
      - reliability: 0.9999
      - mode: fp-free
      - adaptivity: none -> boss@example.org
      - steps: 32

The list may come in any order; a plain map, with or without ``ml`` above it, does as well. The last four keys of
``KEYS`` are ours. Nothing is guessed: an unknown or repeated key, a missing one or a value out of range is an error
that names its line. YAML is only cut into nodes here; tags and aliases are refused, no object is ever built from one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import yaml

from easeml_core.entities import Adaptivity
from easeml_core.errors import ConditionSyntaxError, ConfigError, InvalidInputError
from easeml_core.formats.yaml_text import Fault, YamlFaultError, compose
from easeml_core.gate.condition import parse_condition
from easeml_core.settings.config import GateConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LENGTH = 20_000
REQUIRED = ("condition", "reliability", "mode", "adaptivity", "steps")
KEYS = ("script", *REQUIRED, "estimator", "power", "sampling", "mail")
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Script:
    """A gate as its script asks for it.

    Attributes:
        script: What makes the predictions; may be empty, where models are handed in by themselves.
        condition: In canonical form.
        reliability: 1 - delta, in (0, 1).
        mode: ``fp-free`` or ``fn-free``.
        adaptivity: ``none``, ``full``, ``firstChange``, ``upTo:K`` or ``recycle``.
        steps: H >= 1.
        mail: Where results go that the developer may not see; may be empty.
        estimator: ``exact`` or ``paper``.
        power: In (0, 1), or None for as high as the reliability.
        sampling: ``fixed`` or ``early``.
    """

    script: str
    condition: str
    reliability: float
    mode: str
    adaptivity: str
    steps: int
    mail: str = ""
    estimator: str = "exact"
    power: float | None = None
    sampling: str = "fixed"

    def to_config(self) -> GateConfig:
        """The settings of a gate set; only ``script`` has no part in them."""
        return GateConfig(
            condition=self.condition,
            reliability=self.reliability,
            mode=self.mode,
            adaptivity=self.adaptivity,
            steps=self.steps,
            estimator=self.estimator,
            power=self.power,
            sampling=self.sampling,
            mail=self.mail,
        )


def read_script(text: str) -> Script:
    r"""Read a script.

    Args:
        text: YAML of at most ``MAX_LENGTH`` characters.

    Returns:
        The script, every value checked.

    Raises:
        InvalidInputError: Whatever is wrong; the message names the line, and shows a wrong condition with a caret.

    Example:
        >>> read_script('''
        ... ml:
        ...   - condition: d < 0.1 +/- 0.01
        ...   - reliability: 0.9999
        ...   - mode: fp-free
        ...   - adaptivity: none -> xx@abc.com
        ...   - steps: 32
        ... ''').mail
        'xx@abc.com'
    """
    if len(text) > MAX_LENGTH:
        _fail(f"at most {MAX_LENGTH:,} characters are read, got {len(text):,}")
    try:
        root = compose(text, deepest=_DEEPEST)
    except YamlFaultError as fault:
        raise _not_yaml(fault) from fault
    entries = _entries(root)
    missing = [key for key in REQUIRED if key not in entries]
    if missing:
        _fail(f"missing: {', '.join(missing)}; needed are {', '.join(REQUIRED)}")
    values = {key: _Value(key, node) for key, node in entries.items()}
    return _script(values)


class _Value:
    """The scalar behind a key, and its line."""

    def __init__(self, key: str, node: yaml.Node) -> None:
        self.key, self.line = key, _line(node)
        if not isinstance(node, yaml.ScalarNode):
            _fail(f"{key} must be one value, not a list or a map", self.line)
        self.text: str = node.value.strip()
        if not self.text and key not in ("script", "mail"):
            _fail(f"{key} has no value", self.line)

    def number(self) -> float:
        try:
            value = float(self.text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and self.text.isascii() and "_" not in self.text):
            _fail(f"{self.key} must be a number, got {self.text!r}", self.line)
        return value

    def whole(self) -> int:
        if not (self.text.isascii() and self.text.isdigit() and len(self.text) <= 9):
            _fail(f"{self.key} must be a whole number >= 1, got {self.text!r}", self.line)
        return int(self.text)


def _script(values: dict[str, _Value]) -> Script:
    """Check every value; an error names the line of its key."""
    adaptivity, mail = _adaptivity(values["adaptivity"])
    if "mail" in values:
        own = values["mail"].text
        if mail not in ("", own):
            _fail(f"mail {own!r} and the address behind '->', {mail!r}, differ; give one", values["mail"].line)
        mail = own
    texts = {key: values[key].text for key in ("script", "mode", "estimator", "sampling") if key in values}
    power = values.get("power")
    script = Script(
        **({"script": ""} | texts),
        condition=_condition(values["condition"]),
        reliability=values["reliability"].number(),
        adaptivity=adaptivity,
        steps=values["steps"].whole(),
        mail=mail,
        power=None if power is None or power.text == "same" else power.number(),
    )
    try:
        script.to_config()
    except ConfigError as error:
        known = values.get(error.field) or values["adaptivity"]
        _fail(str(error), known.line)
    return script


def _adaptivity(value: _Value) -> tuple[str, str]:
    """Give the adaptivity in our spelling and the address behind ``->``."""
    name, arrow, address = (part.strip() for part in value.text.partition("->"))
    if arrow and name != Adaptivity.NONE:
        _fail("'->' and an address need adaptivity none: with any other the developer receives the answer", value.line)
    if arrow and not address:
        _fail("an address such as name@host must follow '->'", value.line)
    return Adaptivity.FIRST_CHANGE.value if name == "hybrid" else name, address


def _condition(value: _Value) -> str:
    try:
        return str(parse_condition(value.text))
    except ConditionSyntaxError as error:
        _fail(str(error), value.line)


def _entries(root: yaml.Node | None) -> dict[str, yaml.Node]:
    """Give key to value, from a list of one-key maps or a plain map."""
    if root is None:
        _fail("it is empty; it starts with 'ml:'")
    body = root
    if isinstance(root, yaml.MappingNode) and [_key(key) for key, _ in root.value] == ["ml"]:
        body = root.value[0][1]
    found: dict[str, yaml.Node] = {}
    for key_node, node in _pairs(body):
        key = _key(key_node)
        if key not in KEYS:
            _fail(f"unknown key {key!r}; known are {', '.join(KEYS)}", _line(key_node))
        if key in found:
            _fail(f"{key} comes twice", _line(key_node))
        found[key] = node
    return found


def _pairs(body: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    if isinstance(body, yaml.MappingNode):
        yield from body.value
    elif isinstance(body, yaml.SequenceNode):
        for item in body.value:
            if not isinstance(item, yaml.MappingNode) or len(item.value) != 1:
                _fail("every entry of the list must be one 'key: value'", _line(item))
            yield from item.value
    else:
        _fail("expected 'ml:' with a list of 'key: value', or a map", _line(body))


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        _fail("a key must be one word", _line(node))
    return str(node.value)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


_FAULTS = {
    Fault.DEPTH: "it is nested too deeply",
    Fault.DOCUMENTS: "it must be one document",
    Fault.ANCHOR: "anchors, aliases and tags are not allowed",
}


def _not_yaml(fault: YamlFaultError) -> InvalidInputError:
    return _error(_FAULTS.get(fault.fault, f"this is not YAML: {fault.reason}"), fault.line)


def _error(message: str, line: int | None = None) -> InvalidInputError:
    return InvalidInputError(f"script{f', line {line}' if line is not None else ''}: {message}")


def _fail(message: str, line: int | None = None) -> NoReturn:
    raise _error(message, line)
