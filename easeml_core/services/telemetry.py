"""What a process tells of its work: lines of its log, and measurements and spans through OpenTelemetry's API.

Where no provider is set, nothing that is measured is kept, and no span is made.

Airflow sets a provider in its own processes where ``[metrics] otel_on`` is true, and another one where ``[traces]
otel_on`` is; ``easeml scheduler`` and ``easeml device run`` set one where ``OTEL_EXPORTER_OTLP_ENDPOINT`` or a port
asks for it (``services/operations/monitoring.py``). A sink gets each measurement besides: the plugin adds one for
Airflow's StatsD.

Nothing here may depend on sealed data: the referee measures no time of its work and makes no span, since a duration
would tell of labels; and a page that has read sealed rows is counted, without its time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.metrics import Counter, Histogram, UpDownCounter

logger = logging.getLogger(__name__)

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
    """Write the log of this process to standard error, from level INFO."""
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
        kind: A ``counter`` adds up, a ``level`` goes up and down, a ``histogram`` keeps a distribution.
        unit: Of UCUM, e.g. ``s``, or ``{trial}`` for a number of them.
        description: A sentence.
        labels: Names of what each measurement says beside its value.
    """

    name: str
    kind: Literal["counter", "level", "histogram"]
    unit: str
    description: str
    labels: tuple[str, ...] = ()

    def note(self, value: float, **labels: str) -> None:
        """Record a measurement; ``labels`` are exactly those of the quantity.

        A fault of what takes it is logged, once for each quantity: no task and no page fails for it.
        """
        assert tuple(labels) == self.labels
        for sink in (_to_opentelemetry, *_sinks):
            try:
                sink(self, value, labels)
            except Exception as error:  # of a library or of its configuration
                if self.name not in _lost:
                    _lost.add(self.name)
                    logger.warning("%s is not measured: %s: %s", self.name, type(error).__name__, error)


def _to_opentelemetry(measured: Instrument, value: float, labels: dict[str, str]) -> None:
    instrument = _instrument(measured)
    if hasattr(instrument, "add"):
        instrument.add(value, labels)
    else:
        instrument.record(value, labels)


DECISION_SECONDS = Instrument(
    "easeml.decision.duration", "histogram", "s", "Time of a request for trials, its load and its commit included."
)
TRIALS_ENDED = Instrument(
    "easeml.trials.ended", "counter", "{trial}", "Trials that this process has ended.", ("state",)
)
TRIAL_SECONDS = Instrument("easeml.trial.duration", "histogram", "s", "Device time of a trial, without its start.")
START_SECONDS = Instrument("easeml.trial.start", "histogram", "s", "Time until a trial's process has its libraries.")
LEASES_LOST = Instrument("easeml.leases.lost", "counter", "{lease}", "Trials that were taken from this process.")
ARTIFACT_USES = Instrument(
    "easeml.artifacts.uses", "counter", "{use}", "Data of trials: from this machine's cache, or fetched.", ("source",)
)
ARTIFACT_BYTES = Instrument("easeml.artifacts.fetched", "counter", "By", "Data of trials that came over the network.")
WAITS_PENDING = Instrument(
    "easeml.waits.pending", "level", "{wait}", "Waits of tasks, and asset watchers, in this triggerer.", ("question",)
)
WAITS_ENDED = Instrument(
    "easeml.waits.ended",
    "counter",
    "{wait}",
    "Waits that ended, and watchers' events.",
    ("question", "outcome"),
)
RECONNECTS = Instrument(
    "easeml.listener.reconnects", "counter", "{connection}", "Connections for notifications that were opened anew."
)
PAGE_REQUESTS = Instrument(
    "easeml.page.requests", "counter", "{request}", "Answers of pages and service.", ("route", "method", "status")
)
PAGE_SECONDS = Instrument(
    "easeml.page.duration", "histogram", "s", "Time of such an answer that read nothing sealed.", ("route", "method")
)
PAGE_STREAMS = Instrument("easeml.page.streams", "level", "{stream}", "Streams of events that pages have open.")

MEASURED = (
    *(DECISION_SECONDS, TRIALS_ENDED, TRIAL_SECONDS, START_SECONDS, LEASES_LOST, ARTIFACT_USES, ARTIFACT_BYTES),
    *(WAITS_PENDING, WAITS_ENDED, RECONNECTS, PAGE_REQUESTS, PAGE_SECONDS, PAGE_STREAMS),
)
"""Everything that a process measures."""

_sinks: list[Callable[[Instrument, float, dict[str, str]], object]] = []
_lost: set[str] = set()
"""Names of quantities of which the log says that they are not measured."""


def add_sink(sink: Callable[[Instrument, float, dict[str, str]], object]) -> None:
    """Hand each measurement to ``sink``, too; the same one is added once."""
    if sink not in _sinks:
        _sinks.append(sink)


@functools.cache
def _instrument(measured: Instrument) -> Counter | Histogram | UpDownCounter:
    from opentelemetry import metrics  # 20 ms, which a DAG that is parsed does not pay

    meter = metrics.get_meter(METER)
    makers: dict[str, Callable[..., Counter | Histogram | UpDownCounter]] = {
        "counter": meter.create_counter,
        "level": meter.create_up_down_counter,
        "histogram": meter.create_histogram,
    }
    return makers[measured.kind](measured.name, measured.unit, measured.description)


# -- traces ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def span(name: str, **attributes: str | int) -> Iterator[None]:
    """Make a span of OpenTelemetry around the block, below the span that is current, such as that of Airflow's task.

    Without a provider for traces the block runs as it is: a process that has not loaded the library has none. Of an
    error that ends the block the span has the class alone: its text may name studies of every tenant.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        yield
        return
    named = {f"easeml.{key}": value for key, value in attributes.items()}
    quiet = {"record_exception": False, "set_status_on_exception": False}
    with trace.get_tracer(METER).start_as_current_span(name, attributes=named, **quiet) as made:
        try:
            yield
        except Exception as error:
            made.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise


def trace_parent() -> str | None:
    """Return the W3C ``traceparent`` of the current span, such as the task's; None where nothing is traced."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


@contextlib.contextmanager
def below(parent: str | None) -> Iterator[None]:
    """Make the spans of the block children of a span of another process."""
    if parent is None or "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    token = context.attach(TraceContextTextMapPropagator().extract({"traceparent": parent}))
    try:
        yield
    finally:
        context.detach(token)
