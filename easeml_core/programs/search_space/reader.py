"""Search spaces: which parameters a candidate may have, as in the earlier Ease.ml.

    .int [low, high]      whole numbers, both ends included; .scale linear (default), log or exp
    .float [low, high]    numbers; .scale linear (default), log or exp
    .choice [...]         one of a list of values, mappings or further domains; may nest
    anything else         a constant; domains inside its mappings and lists are replaced

With ``log`` the bounds are values and each order of magnitude is as likely as the next. With ``exp`` the bounds are
powers of ten: ``.float: [-4, -1]`` is from .0001 to .1, and ``.int: [0, 3]`` is 1, 10, 100 or 1000. A parameter that
only makes sense under one option stands inside that option's mapping. Spaces are
made into finite candidates by ``sampling``.

Spaces are read from plain data, and from YAML or JSON by one set of rules for both; every error names the path to what
is wrong. The bounds keep the work small whatever the data are, mappings that contain themselves included. Words mean
what they say: only ``true``, ``false`` and ``null`` are no text (``no``, ``on`` and dates are), and ``1e-5`` is a
number, which YAML's older rules take for text. Anchors, aliases and tags are refused, nothing is ever built from one,
and length and nesting are bounded before anything that could exhaust memory or the stack.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import yaml

from easeml_core.errors import InvalidInputError
from easeml_core.formats.yaml_text import Fault, YamlFaultError, compose, without_tabs

if TYPE_CHECKING:
    from easeml_core.entities import Parameters

    pass

MANY = 10**15
"""Sizes are counted up to here."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is always the same: text, a number, true, false or null."""

    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class WholeRange:
    """Whole numbers in [low, high]; with ``exp`` 10 to the power of each."""

    low: int
    high: int
    scale: str = "linear"


@dataclass(frozen=True, slots=True)
class RealRange:
    """Numbers in [low, high]; with ``exp`` 10 to the power of each."""

    low: float
    high: float
    scale: str = "linear"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the options, each as likely as the next."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A mapping: every entry is there."""

    entries: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A list: every item is there."""

    items: tuple[Node, ...]


Node: TypeAlias = Constant | WholeRange | RealRange | Choice | Group | Row


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """A space whose every point is a mapping of parameters.

    Attributes:
        root: A mapping, or a choice between such.
    """

    root: Node

    @property
    def size(self) -> float:
        """How many points there are, up to ``MANY``; infinite with a range of ``.float``. Equal ones count each."""
        return size_of(self.root)

    def to_data(self) -> Any:
        """The space as plain data, as JSON has it."""
        return data_of(self.root)

    def __str__(self) -> str:
        """JSON in one line; reading it gives an equal space."""
        return json.dumps(self.to_data(), ensure_ascii=False)


def size_of(node: Node) -> float:
    """How many values a node can have, as ``SearchSpace.size``; an int unless it is infinite."""
    if isinstance(node, Constant):
        return 1
    if isinstance(node, WholeRange):
        return min(MANY, node.high - node.low + 1)
    if isinstance(node, RealRange):
        return math.inf if node.low < node.high else 1
    sizes = [size_of(part) for part in parts_of(node)]
    if isinstance(node, Choice):
        return _bounded(sum(sizes))
    product: float = 1
    for size in sizes:
        product = _bounded(product * size)
    return product


def parts_of(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside a node."""
    if isinstance(node, Choice):
        return node.options
    if isinstance(node, Group):
        return tuple(entry for _, entry in node.entries)
    return node.items if isinstance(node, Row) else ()


def data_of(node: Node) -> Any:
    """A node as plain data."""
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, WholeRange | RealRange):
        kind = ".int" if isinstance(node, WholeRange) else ".float"
        scale = {} if node.scale == "linear" else {".scale": node.scale}
        return {kind: [node.low, node.high], **scale}
    if isinstance(node, Group):
        return {name: data_of(entry) for name, entry in node.entries}
    inner = [data_of(part) for part in parts_of(node)]
    return {".choice": inner} if isinstance(node, Choice) else inner


def _bounded(size: float) -> float:
    return size if size == math.inf else min(MANY, size)


SCALES = ("linear", "log", "exp")
MAX_NODES = 2000
"""Constants, ranges, choices, mappings and lists of one space."""
MAX_VARIABLES = 300
"""Ranges and choices of one space."""
MAX_DEPTH = 30
"""Of mappings and lists in one another."""
MAX_NAME = 100
"""Characters of a parameter's name."""
MAX_TEXT = 1000
"""Characters of a constant."""
MAX_WHOLE = 2**53
"""Whole numbers up to here are the same in JSON, Python and every other language."""
MAX_POWER = 300
"""Of ten, in a range with the scale ``exp``; 15 for whole numbers."""


def space_of(data: Parameters) -> SearchSpace:
    """Read a search space from plain data, such as an argument of an operator.

    Example:
        >>> space_of({"units": {".choice": [64, 128]}, "dropout": {".float": [0, 0.5]}}).size
        inf
    """
    root = _Reader().node(data, "", 0)
    _check_root(root, "")
    return SearchSpace(root)


def inside(path: str, name: str) -> str:
    """The path of an entry of the mapping that is at ``path``; a domain's own names bring their point."""
    return f"{path}{name}" if name.startswith(".") or not path else f"{path}.{name}"


def fail(path: str, message: str) -> NoReturn:
    """Refuse a space; ``path`` is where in it, empty for the whole."""
    whole = f"search space: {path}: {message}" if path else f"search space: {message}"
    raise InvalidInputError(whole)


def shown(value: object) -> str:
    """A value as it is shown in a message: its first characters."""
    if isinstance(value, dict | list | tuple):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        return "a larger one"  # which may have more digits than Python prints
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]}..."


class _Reader:
    """Counts what it reads, so that a space that is built to be large is refused early."""

    def __init__(self) -> None:
        self.nodes = self.variables = 0

    def node(self, data: Any, path: str, depth: int) -> Node:
        """Read a node and all in it."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            fail("", f"it has more than {MAX_NODES:,} values, ranges, choices, mappings and lists; split it")
        if depth > MAX_DEPTH:
            fail(_short(path), f"it is nested more than {MAX_DEPTH} deep")
        if hasattr(data, "keys"):
            return self._mapping(data, path, depth)
        if isinstance(data, list | tuple):
            return Row(self._items(data, path, depth))
        return Constant(_constant(data, path))

    def _mapping(self, data: Parameters, path: str, depth: int) -> Node:
        keys = list(data)
        for key in keys:
            _check_name(key, path)
        if any(key.startswith(".") for key in keys):
            return self._domain(data, keys, path, depth)
        if len(keys) > MAX_NODES:
            fail(path, f"at most {MAX_NODES:,} entries")
        return Group(tuple((key, self.node(data[key], inside(path, key), depth + 1)) for key in keys))

    def _domain(self, data: Parameters, keys: list[str], path: str, depth: int) -> Node:
        self.variables += 1
        if self.variables > MAX_VARIABLES:
            fail("", f"it has more than {MAX_VARIABLES} ranges and choices; split it")
        kinds = [key for key in keys if key in (".int", ".float", ".choice")]
        if len(kinds) != 1:
            known = ".int, .float or .choice (and .scale beside the first two)"
            fail(path, f"a domain has one of {known}, got {', '.join(shown(key) for key in keys[:4])}")
        kind = kinds[0]
        beside = [key for key in keys if key != kind and (key != ".scale" or kind == ".choice")]
        if beside:
            remedy = "put it into the options" if kind == ".choice" else "put it beside the whole domain"
            fail(path, f"{shown(beside[0])} cannot stand beside {kind}; {remedy}")
        if kind == ".choice":
            return self._choice(data[kind], inside(path, kind), depth)
        scale = data.get(".scale", "linear")
        if scale not in SCALES:
            fail(inside(path, ".scale"), f"it is one of {', '.join(SCALES)}, got {shown(scale)}")
        return (_whole_range if kind == ".int" else _real_range)(data[kind], scale, inside(path, kind))

    def _choice(self, options: Any, path: str, depth: int) -> Choice:
        if not isinstance(options, list | tuple) or not options:
            fail(path, f"it needs a list of at least one option, got {shown(options)}")
        nodes = self._items(options, path, depth)
        seen: dict[str, int] = {}
        for k, node in enumerate(nodes):
            first = seen.setdefault(json.dumps(data_of(node), sort_keys=True), k)
            if first != k:
                fail(f"{path}[{k}]", f"it is the same as option [{first}]; leave one out")
        return Choice(nodes)

    def _items(self, data: Any, path: str, depth: int) -> tuple[Node, ...]:
        if len(data) > MAX_NODES:
            fail(path, f"at most {MAX_NODES:,} items")
        return tuple(self.node(item, f"{path}[{k}]", depth + 1) for k, item in enumerate(data))


def _whole_range(data: Any, scale: str, path: str) -> WholeRange:
    ends = _ends(data, path)
    if any(float(end) != int(end) for end in ends):
        fail(path, f"the bounds must be whole numbers, got {shown(ends[0])} and {shown(ends[1])}")
    low, high = int(ends[0]), int(ends[1])
    if scale == "log" and low < 1:
        fail(path, f"the scale log needs a low bound >= 1, got {low}")
    if scale == "exp" and not 0 <= low <= high <= 15:
        fail(path, f"with the scale exp the bounds are powers of ten, from 0 to 15, got {low} and {high}")
    return WholeRange(low, high, scale)


def _real_range(data: Any, scale: str, path: str) -> RealRange:
    low, high = (float(end) for end in _ends(data, path))
    if scale == "log" and low <= 0:
        fail(path, f"the scale log needs a low bound > 0, got {low:g}")
    if scale == "exp" and not -MAX_POWER <= low <= high <= MAX_POWER:
        most = f"from -{MAX_POWER} to {MAX_POWER}"
        fail(path, f"with the scale exp the bounds are powers of ten, {most}, got {low:g} and {high:g}")
    return RealRange(low, high, scale)


def _ends(data: Any, path: str) -> tuple[float, float]:
    """The two bounds of a range, in order; numbers whose difference is finite."""
    if not isinstance(data, list | tuple) or len(data) != 2:
        fail(path, f"it needs a list of two bounds, [low, high], got {shown(data)}")
    for k, end in enumerate(data):
        if isinstance(end, bool) or not isinstance(end, int | float):
            fail(f"{path}[{k}]", f"a bound is a number, got {shown(end)}")
        _constant(end, f"{path}[{k}]")
        if abs(end) > 1e300:
            fail(f"{path}[{k}]", f"a bound is at most 1e300, got {shown(end)}")
    if data[0] > data[1]:
        fail(path, f"the low bound comes first, got {shown(data[0])} and {shown(data[1])}")
    return data[0], data[1]


def _constant(data: Any, path: str) -> bool | int | float | str | None:
    if data is None or isinstance(data, bool):
        return data
    if isinstance(data, int):
        if abs(data) > MAX_WHOLE:
            fail(path, f"a whole number is at most {MAX_WHOLE:,}, got {shown(data)}")
        return int(data)
    if isinstance(data, float):
        if not math.isfinite(data):
            fail(path, f"a number must be finite, got {data}")
        return float(data)
    if not isinstance(data, str):
        fail(path, f"expected text, a number, true, false, null, a list or a mapping, got {type(data).__name__}")
    return _checked_text(data, path, MAX_TEXT)


def _checked_text(text: str, path: str, most: int) -> str:
    if len(text) > most:
        fail(path, f"text has at most {most:,} characters, got {len(text):,}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        fail(path, "text has a character that cannot be stored")
    return text


def _check_name(name: Any, path: str) -> None:
    if not isinstance(name, str) or not name.strip():
        fail(path, f"the name of a parameter is text, got {shown(name)}")
    _checked_text(name, path, MAX_NAME)
    if name.startswith(".") and name not in (".int", ".float", ".choice", ".scale"):
        fail(path, f"{shown(name)} is not known; what begins with '.' is .int, .float, .choice or .scale")


def _check_root(node: Node, path: str) -> None:
    """A candidate is a mapping, whatever is chosen."""
    if isinstance(node, Choice):
        for k, option in enumerate(node.options):
            _check_root(option, f"{path}.choice[{k}]")
    elif not isinstance(node, Group):
        fail(path, "a candidate is a mapping of parameters, such as {C: {.float: [0.1, 10]}}")


def _short(path: str) -> str:
    return path if len(path) <= 80 else f"{path[:76]}..."


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
