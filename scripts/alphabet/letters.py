"""The letters of the observable alphabet, and the record that gives an item its letter.

A *basis* states what the value of a letter may depend on. Two installations that agree in a basis must agree in every
item of that basis, whatever their sealed labels are. ``tests/services/observable`` asserts this item by item.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class Basis(StrEnum):
    """What the value of a letter may depend on."""

    PUBLIC = "public facts"
    """Inputs, settings, open data and the order of requests; never a sealed label or a released symbol."""

    PREDICTIONS = "predictions"
    """Public facts and the models' predictions on sealed inputs; never a sealed label."""

    SYMBOLS = "released symbols"
    """Public facts, predictions and the symbols released so far."""

    TIMES = "times"
    """Whether there is a time follows from the released symbols; which time, from requests, load and timetable."""

    STOPPING = "stopping boundary"
    """The boundary of the plan at which ``sampling: early`` stopped (ADR 0013); it depends on labels."""

    RANDOM = "secret randomness"
    """A hash over a secret random nonce, or a signature on one: nothing follows from it, and no two are alike."""

    SEALED = "sealed data"
    """Any sealed fact: no developer can read an item of this basis."""


class Letter(Enum):
    """One letter of the alphabet; ``basis`` is what it may depend on, ``content`` what it consists of."""

    def __init__(self, basis: Basis, content: str) -> None:
        self.basis = basis
        self.content = content

    INPUT = (
        Basis.PUBLIC,
        "what developers, tenants and operators enter, what follows from it, and what the referee decides before it "
        "reads a label: names, settings, plans, trials, ids and their order",
    )
    OPEN = Basis.PUBLIC, "what is measured on open rows: quality, loss, learning curves, validation predictions"
    SIZE = Basis.PUBLIC, "numbers of rows of parts and sealed sets, steps of a plan, sizes of stored relations"
    RETRY = (
        Basis.PUBLIC,
        "attempts of trials, requests that are put off, models that cannot run: they follow from machine and model",
    )
    WANTED = Basis.PREDICTIONS, "which examples need a label, and how many, under `sampling: fixed`"
    SYMBOL = (
        Basis.SYMBOLS,
        "`pass`, `fail` or `withheld` of the gate; the signal of the meter, or the end of its set in place of a "
        "signal; the signal of the second meter, and the drift",
    )
    STATE = (
        Basis.SYMBOLS,
        "what follows from the symbols: steps used, whether a set is live and why it ended, the model in production",
    )
    REFUSAL = Basis.SYMBOLS, "why a request is refused: facts that the caller gave, and public state; no other error"
    ALERT = Basis.SYMBOLS, "overfitting above the budget, drift, the need for a new test set"
    CACHED = Basis.SYMBOLS, "the earlier symbol of the same question, marked as cached; it spends no step"
    NOTIFICATION = Basis.SYMBOLS, "that something happened and to what: channels, events, mails, webhooks, log lines"
    TIME = Basis.TIMES, "when something happened; answers leave on the timetable of the referee"
    LABEL_COUNT = Basis.STOPPING, "how many labels `sampling: early` asked for before it stopped"
    EVIDENCE = Basis.RANDOM, "heads of hash chains and signatures on them, as they leave with an answer (ADR 0024)"
    SEALED = (
        Basis.SEALED,
        "labels, predictions on sealed inputs, counts, levels, intervals, the ledger, withheld verdicts",
    )


class Kind(StrEnum):
    """What an observable item is, and the form of its name."""

    TABLE = "table"
    """``schema.table``: how many rows there are."""
    COLUMN = "column"
    """``schema.table.column``."""
    VALUE = "value"
    """``schema.table.column=value``: a value that a CHECK constraint allows."""
    FUNCTION = "function"
    """``schema.function``, which the role may execute."""
    CATALOGUE = "catalogue"
    """``relation``, ``relation.column`` or ``function()`` of ``pg_catalog`` that is not compared as a public fact."""
    TOPIC = "topic"
    """``channel topic``: the part of a notification's payload before the colon."""
    ROUTE = "route"
    """``METHOD /path`` of the web application."""
    COMMAND = "command"
    """Words of a command, without ``easeml``."""
    CLASS = "class"
    """Public class or decorator of the plugin: an operator's return value and XComs, a sensor's, a notifier's call."""
    EVENT = "event"
    """``question``, ``trigger`` or ``news``, a space, and the name: the content of an event or a notification."""
    MAIL = "mail"
    """Name of a function that writes a mail of the referee."""
    ERROR = "error"
    """Class of an error whose message an answer may carry."""
    LOG = "log"
    """Module that writes log lines."""


@dataclass(frozen=True, slots=True)
class Observable:
    """One item that exists in the product, with its letter.

    Attributes:
        kind: What it is.
        name: In the form that ``Kind`` states.
        letter: What it can tell.
        why: Reason for the letter, in one sentence.
    """

    kind: Kind
    name: str
    letter: Letter
    why: str


def items(kind: Kind, letter: Letter, why: str, names: str, *, prefix: str = "") -> tuple[Observable, ...]:
    """Give several items one letter.

    Args:
        kind: What they are.
        letter: Their letter.
        why: The reason, in one sentence.
        names: Their names, one a line or with commas between.
        prefix: Put before each name.
    """
    found = (name.strip() for name in names.replace(",", "\n").split("\n"))
    return tuple(Observable(kind, prefix + name, letter, why) for name in found if name)
