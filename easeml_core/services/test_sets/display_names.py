"""Display names of sealed sets and their ends, for alerts, mails, pages and the command line."""

from __future__ import annotations

from easeml_core.entities import SealedSetPurpose

CALLED = {
    SealedSetPurpose.GATE: "gate set",
    SealedSetPurpose.METER: "meter set",
    SealedSetPurpose.JOINT: "gate and meter set",
    SealedSetPurpose.DIRECT: "second validation sample",
}
"""A set by its purpose."""

WHY = {
    "steps": "all its steps are used",
    "changes": "as many answers as its adaptivity allows were of the kind that ends it",
    "tolerance": "it has too few examples for another test at the level that is left",
    "by hand": "the referee has retired it",
    "overlap": "rows of it are open in another study",
    "signals": "its promise would not hold for another answer",
    "regulation": "its rule allows no further answer",
    "failure": "a model could not be run on it, which the meter's promise does not cover",
}
"""The meaning of ``retired_why``, as part of a sentence."""

WITHOUT = {
    SealedSetPurpose.GATE: "the gate gives no verdict",
    SealedSetPurpose.METER: "the meter gives no signal",
    SealedSetPurpose.DIRECT: "readings go on without it and cannot tell tuning from drift",
}
"""The state of a system without a live set."""
