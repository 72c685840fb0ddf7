"""What a process tells of its work: lines of its log, and measurements through OpenTelemetry's API.

Where no provider is set, nothing that is measured is kept.

Airflow sets a provider in its own processes where ``[metrics] otel_on`` is true; ``easeml scheduler`` and ``easeml
device run`` set one where ``OTEL_EXPORTER_OTLP_ENDPOINT`` or a port asks for it
(``services/operations/monitoring.py``). A sink gets each measurement besides: the plugin adds one for Airflow's StatsD.

Nothing here may depend on sealed data: the referee measures no time of its work, since a duration would tell of labels.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import Counter, Histogram

_SUBJECT = re.compile(r"(request|trial|model|mail) %d\b")


class JsonLines(logging.Formatter):
    r"""Each record as one line of JSON: time (UTC), level, logger, message, the traceback where there is one.

    A message about a request, trial, model or mail has its number as a field besides.

    Example:
        >>> record = logging.LogRecord("easeml", logging.INFO, "", 0, "request %d: the answer has left", (7,), None)
        >>> json.loads(JsonLines().format(record))["request"]
        7
        >>> len(JsonLines().format(logging.makeLogRecord({"msg": "a\\u2028b\\x85c\\nd"})).splitlines())
        1
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; all but ASCII is escaped, so that no text can look like a second record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        subject = _SUBJECT.match(record.msg) if isinstance(record.msg, str) else None
        if subject is not None and isinstance(record.args, tuple) and record.args:
            line[subject[1]] = record.args[0]
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def start_log(*, as_json: bool) -> None:
    """Write the log of this process to standard error, from level INFO.

    Args:
        as_json: As lines of JSON, for collectors of logs; else as text.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if as_json:
        for handler in logging.root.handlers:
            handler.setFormatter(JsonLines())


METER = "easeml"
"""Name of the instrumentation scope."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """A quantity that is measured when something happens.

    Attributes:
        name: With dots between its parts, as OpenTelemetry has them.
        kind: A ``counter`` adds up, a ``histogram`` keeps a distribution.
        unit: Of UCUM, e.g. ``s``, or ``{trial}`` for a number of them.
        description: A sentence.
        labels: Names of what each measurement says beside its value.
    """

    name: str
    kind: Literal["counter", "histogram"]
    unit: str
    description: str
    labels: tuple[str, ...] = ()

    def note(self, value: float, **labels: str) -> None:
        """Record a measurement; ``labels`` are exactly those of the quantity."""
        assert tuple(labels) == self.labels
        instrument = _instrument(self)
        if hasattr(instrument, "add"):
            instrument.add(value, labels)
        else:
            instrument.record(value, labels)
        for sink in _sinks:
            sink(self, value, labels)


DECISION_SECONDS = Instrument(
    "easeml.decision.duration", "histogram", "s", "Time of a request for trials, its load and its commit included."
)
TRIALS_ENDED = Instrument(
    "easeml.trials.ended", "counter", "{trial}", "Trials that this process has ended.", ("state",)
)
TRIAL_SECONDS = Instrument("easeml.trial.duration", "histogram", "s", "Device time of a trial, without its start.")
START_SECONDS = Instrument("easeml.trial.start", "histogram", "s", "Time until a trial's process has its libraries.")
LEASES_LOST = Instrument("easeml.leases.lost", "counter", "{lease}", "Trials that were taken from this process.")

MEASURED = (DECISION_SECONDS, TRIALS_ENDED, TRIAL_SECONDS, START_SECONDS, LEASES_LOST)
"""Everything that a process measures."""

_sinks: list[Callable[[Instrument, float, dict[str, str]], object]] = []


def add_sink(sink: Callable[[Instrument, float, dict[str, str]], object]) -> None:
    """Hand each measurement to ``sink``, too; the same one is added once."""
    if sink not in _sinks:
        _sinks.append(sink)


@functools.cache
def _instrument(measured: Instrument) -> Counter | Histogram:
    from opentelemetry import metrics  # 20 ms, which a DAG that is parsed does not pay

    meter = metrics.get_meter(METER)
    make = meter.create_counter if measured.kind == "counter" else meter.create_histogram
    return make(measured.name, measured.unit, measured.description)
