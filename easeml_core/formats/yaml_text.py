"""Text of people cut into YAML nodes, and nothing built from it: the one guard of every file that is YAML or JSON.

Anchors, aliases and tags are refused, and nesting is bounded, before anything that could exhaust memory or the stack.
The reader of each language defines the meaning of the nodes and the texts of its errors.
"""

from __future__ import annotations

from enum import Enum, auto

import yaml


class Fault(Enum):
    """What is wrong with a text: nested too deeply, several documents, an anchor, alias or tag, or no YAML at all."""

    DEPTH = auto()
    DOCUMENTS = auto()
    ANCHOR = auto()
    SYNTAX = auto()


class YamlFaultError(Exception):
    """Why a text is not cut into nodes; never leaves the reader that asked.

    Attributes:
        fault: What is wrong.
        start: Where, as a place in the text, >= 0; None where the library does not say.
        line: The same as a line, from 1; None likewise.
        column: And a column, from 1.
        reason: For ``SYNTAX``: the library's words.
    """

    def __init__(self, fault: Fault, mark: yaml.Mark | None, *, start: int | None = None, reason: str = "") -> None:
        self.fault, self.reason = fault, reason
        self.start = start if mark is None else int(mark.index)
        self.line = None if mark is None else int(mark.line) + 1
        self.column = None if mark is None else int(mark.column) + 1
        super().__init__(reason or fault.name.lower())


def without_tabs(text: str) -> str:
    """The text with blanks for tabs if it is JSON, which may be indented with tabs, as YAML may not be.

    Places in the text stay the same. No name or value has a use for a tab.
    """
    return text.replace("\t", " ") if text.lstrip().startswith("{") else text


def compose(text: str, *, deepest: int) -> yaml.Node | None:
    """The root node of a text of one document; None for an empty one.

    Example:
        >>> compose("a: [1, 2]", deepest=2).tag
        'tag:yaml.org,2002:map'
        >>> compose("a: &x [1]", deepest=2)
        Traceback (most recent call last):
            ...
        easeml_core.formats.yaml_text.YamlFaultError: anchor
    """
    try:
        _check_shape(text, deepest)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        mark, start = getattr(error, "problem_mark", None), getattr(error, "position", None)
        raise YamlFaultError(Fault.SYNTAX, mark, start=start, reason=str(reason)) from error


def _check_shape(text: str, deepest: int) -> None:
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > deepest:
            raise YamlFaultError(Fault.DEPTH, event.start_mark)
        if documents > 1:
            raise YamlFaultError(Fault.DOCUMENTS, event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise YamlFaultError(Fault.ANCHOR, event.start_mark)
