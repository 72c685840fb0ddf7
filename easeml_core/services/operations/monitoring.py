"""Metrics of the installation and of this process, for Prometheus and for OpenTelemetry's collectors.

The figures of the installation are sums for each tenant and each kind of request of what any role may read
(``store/queries/health.py``): a metric says nothing that the pages do not say, and their number grows with the
tenants, not with the studies. Quality, symbols and times of the referee's work are left out on purpose.

A process answers on the loopback interface: ``GET /health`` to a supervisor, ``GET /metrics`` to Prometheus. Any
process of the host may ask, so each is a separate port that an operator opens. The word about its health follows from
the lease of the referee or the beats of the scheduler, written at a fixed interval whatever the process works on, so
that it tells nothing about a request.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import re
import threading
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from easeml_core.errors import ConfigError, EasemlError, InvalidInputError
from easeml_core.formats.encoding import typed_record
from easeml_core.services.operations.checks import KeptLook
from easeml_core.services.reports.assessments import assess_changes, kept_of
from easeml_core.services.reports.recommendations import Standing
from easeml_core.services.telemetry import METER, below
from easeml_core.store.logins import is_tenant
from easeml_core.store.queries import health
from easeml_core.store.queries.health import TenantFigures
from easeml_core.store.queries.overview import counted_studies
from easeml_core.store.tables import referee_claims, scheduler_requests, studies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.queries.health import QueueFigures
    from easeml_core.store.queries.overview import CountedStudy


logger = logging.getLogger(__name__)

OTLP = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
"""OpenTelemetry's own variables for the address of a collector; with one of them metrics are sent there."""

OTLP_TRACES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Likewise for traces."""

UP = "easeml.up"
"""Gauge that says whether the others could be read."""

_OURS = re.compile(rb"(# (HELP|TYPE) )?(easeml_|target_info\b)")

_BOUNDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
"""Of histograms, in seconds: from a decision to a day of training."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure of the installation.

    Attributes:
        name: With dots between its parts.
        unit: Of UCUM.
        description: A sentence.
        label: What tells its values apart: ``tenant``, ``kind`` of request, or ``process``.
        field: Of the row that has the value.
        kind: A ``counter`` only grows.
    """

    name: str
    unit: str
    description: str
    label: Literal["tenant", "kind", "process"]
    field: str
    kind: Literal["gauge", "counter"] = "gauge"


GAUGES = (
    Gauge("easeml.requests.waiting", "{request}", "Requests without an answer.", "kind", "waiting"),
    Gauge("easeml.requests.oldest", "s", "Age of the oldest request without an answer; 0 without one.", "kind",
          "oldest_seconds"),
    Gauge("easeml.requests.answered", "{request}", "Requests with an answer.", "kind", "answered", "counter"),
    Gauge("easeml.studies", "{study}", "Studies.", "tenant", "studies"),
    Gauge("easeml.studies.needing.person", "{study}", "Studies that need a person.", "tenant", "needing"),
    Gauge("easeml.trials.running", "{trial}", "Trials that run.", "tenant", "running"),
    Gauge("easeml.trials.lost", "{trial}", "Trials that run and whose lease has expired.", "tenant", "lost"),
    Gauge("easeml.trials.waiting", "{trial}", "Suggested trials that wait for a device.", "tenant", "waiting"),
    Gauge("easeml.device.time", "s", "Device time that was used, lost attempts included.", "tenant", "device_seconds",
          "counter"),
    Gauge("easeml.quota", "s", "Device time that the tenant may use.", "tenant", "quota_seconds"),
    Gauge("easeml.quota.charged", "s", "Device time that counts against the quota.", "tenant", "charged_seconds"),
    Gauge("easeml.alerts.open", "{alert}", "Open alerts of meter and test sets.", "tenant", "alerts"),
    Gauge("easeml.results.not.held", "{result}", "Results that did not hold and that no operator has acknowledged.",
          "tenant", "not_held"),
    Gauge("easeml.gate.answers.left", "{answer}", "Fewest answers that a live gate set can still give.", "tenant",
          "gate_steps"),
    Gauge("easeml.meter.submissions.left", "{submission}", "Fewest submissions that a meter has left.", "tenant",
          "meter_submissions"),
    Gauge("easeml.test.sets.wanted", "{set}", "Test sets that a new one is wanted for.", "tenant", "sets_wanted"),
    Gauge("easeml.processes", "{process}", "Processes that have said lately that they live.", "process", "alive"),
    Gauge("easeml.processes.silent", "s", "Time since one of them last said so.", "process", "beat_seconds"),
)  # fmt: skip
"""Everything that is read from the database."""


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """Referees or schedulers: how many live, and the seconds since one last said so; None where none ever did."""

    process: str
    alive: int
    beat_seconds: float | None


@dataclass(frozen=True, slots=True)
class InstallationFigures:
    """What the gauges read, by label."""

    tenants: list[TenantFigures]
    queues: list[QueueFigures]
    processes: list[ProcessFigures]

    def of(self, gauge: Gauge) -> Iterator[tuple[float, dict[str, str]]]:
        """Yield the values of a gauge, each with its label; a row that has none is left out."""
        rows: Mapping[str, list[Any]] = {"tenant": self.tenants, "kind": self.queues, "process": self.processes}
        for row in rows[gauge.label]:
            value = getattr(row, gauge.field)
            if value is not None:
                yield float(value), {gauge.label: str(getattr(row, gauge.label))}


@typed_record
class MetricReading:
    """A value of a gauge: ``labels`` tell it from the others of the same ``name``."""

    name: str
    unit: str
    labels: dict[str, str]
    value: float


def readings(figures: InstallationFigures) -> list[MetricReading]:
    """Return every value, by gauge."""
    return [MetricReading(g.name, g.unit, labels, value) for g in GAUGES for value, labels in figures.of(g)]


def installation_figures(store: Store) -> InstallationFigures:
    """Read the figures, after the rows of studies that have changed were written anew."""
    assess_changes(store)
    with store.snapshot() as tx:
        referees, schedulers = referee_claims.referee_life(tx), scheduler_requests.scheduler_life(tx)
        return InstallationFigures(
            tenants=_counted(tx) if is_tenant(tx) else health.tenant_figures(tx),
            queues=health.queue_figures(tx),
            processes=[
                ProcessFigures("referee", referees.alive, referees.beat_seconds),
                ProcessFigures("scheduler", schedulers.alive, schedulers.beat_seconds),
            ],
        )


def _counted(tx: Connection) -> list[TenantFigures]:
    """Return the figures of the tenants that a login may see, counted now: it writes no rows that are kept."""
    found: dict[str, list[CountedStudy]] = {}
    for study in counted_studies(tx, [study.id for study in studies.list_studies(tx)]):
        found.setdefault(study.tenant, []).append(study)
    return [_sum(tenant, rows) for tenant, rows in sorted(found.items())]


def _sum(tenant: str, rows: Sequence[CountedStudy]) -> TenantFigures:
    shown = [row for row in rows if row.shown]
    left = [row.gate_steps - row.gate_steps_used for row in shown if row.gate_set_live and row.gate_steps is not None]
    submissions = [row.submissions_left for row in shown if row.submissions_left is not None]
    return TenantFigures(
        tenant=tenant,
        studies=len(shown),
        needing=sum(kept_of(row).standing == Standing.NEEDS for row in shown),
        running=sum(row.running - row.lost for row in rows),
        lost=sum(row.lost for row in rows),
        waiting=sum(row.waiting for row in rows),
        device_seconds=sum(row.device_seconds for row in rows),
        quota_seconds=rows[0].tenant_quota_seconds,
        charged_seconds=sum(row.charged for row in rows),
        alerts=sum(row.open_alerts for row in shown),
        not_held=sum(row.not_held for row in rows),
        gate_steps=min(left, default=None),
        meter_submissions=min(submissions, default=None),
        sets_wanted=sum(len(row.sets_wanted) for row in shown),
    )


@contextlib.contextmanager
def exporting(
    service: str, *, look: Callable[[], InstallationFigures] | None = None, for_prometheus: bool = False
) -> Iterator[Callable[[], bytes]]:
    """Export metrics of the installation, or what this process measures, while the block runs.

    Where a variable of ``OTLP`` is set, they are sent there each minute (``OTEL_METRIC_EXPORT_INTERVAL``). A process
    that measures its own work sends its spans to the same collector, or to that of ``OTLP_TRACES``, below the span that
    the variable ``TRACEPARENT`` names. One that only reads the installation, such as the referee, makes none.
    """
    with (
        contextlib.nullcontext() if look else _tracing(service),
        _exporting_metrics(service, look, for_prometheus=for_prometheus) as text,
    ):
        yield text


@contextlib.contextmanager
def _tracing(service: str) -> Iterator[None]:
    if not any(os.environ.get(name) for name in OTLP_TRACES):
        yield
        return
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=_resource(service))
    exporter = _otlp("trace_exporter", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
    provider.add_span_processor(BatchSpanProcessor(exporter.OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        with below(os.environ.get("TRACEPARENT")):
            yield
    finally:
        provider.shutdown()


@contextlib.contextmanager
def _exporting_metrics(
    service: str, look: Callable[[], InstallationFigures] | None, *, for_prometheus: bool
) -> Iterator[Callable[[], bytes]]:
    readers, text = [], _no_text
    if for_prometheus:
        reader, text = _prometheus()
        readers.append(reader)
    if any(os.environ.get(name) for name in OTLP):
        readers.append(_otlp_reader())
    if not readers:
        yield text
        return
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import Histogram, MeterProvider
    from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

    view = View(
        instrument_type=Histogram,
        instrument_name=f"{METER}.*",
        aggregation=ExplicitBucketHistogramAggregation(_BOUNDS),
    )
    provider = MeterProvider(readers, resource=_resource(service), views=[] if look else [view])
    if look is None:
        metrics.set_meter_provider(provider)
    else:
        _observe(provider.get_meter(METER), look)
    try:
        yield text
    finally:
        provider.shutdown()


def metrics_text(store: Store) -> bytes:
    """Return the figures of the installation in Prometheus' text format, once, without those of this process."""
    figures = installation_figures(store)
    with exporting("easeml", look=lambda: figures, for_prometheus=True) as text:
        return text()


def _no_text() -> bytes:
    return b""


def _observe(meter: Meter, look: Callable[[], InstallationFigures]) -> None:
    """Let the meter read each gauge from one look; while the database is away there is only ``easeml.up``, 0."""
    from opentelemetry.metrics import Observation

    kept = KeptLook(partial(_figures_or_none, look))

    def read(gauge: Gauge, _: object) -> list[Observation]:
        figures = kept()
        return [] if figures is None else [Observation(*pair) for pair in figures.of(gauge)]

    for gauge in GAUGES:
        make = meter.create_observable_counter if gauge.kind == "counter" else meter.create_observable_gauge
        make(gauge.name, [partial(read, gauge)], gauge.unit, gauge.description)
    up = "1 where the figures could be read from the database, else 0."
    meter.create_observable_gauge(UP, [lambda _: [Observation(int(kept() is not None))]], "", up)


def _figures_or_none(look: Callable[[], InstallationFigures]) -> InstallationFigures | None:
    try:
        return look()
    except EasemlError as error:
        logger.warning("no metrics of the installation: %s", error)
        return None


def _prometheus() -> tuple[MetricReader, Callable[[], bytes]]:
    try:
        exporter = importlib.import_module("opentelemetry.exporter.prometheus")
        library = importlib.import_module("prometheus_client")
    except ModuleNotFoundError as error:
        message = f"metrics for Prometheus need a package ({error}): pip install 'easeml-airflow[metrics]'"
        raise InvalidInputError(message) from error
    return exporter.PrometheusMetricReader(), lambda: _ours(library.generate_latest())


def _ours(text: bytes) -> bytes:
    """Return the lines of our metrics: the library adds processor time and memory, which tell of the work."""
    return b"".join(line for line in text.splitlines(keepends=True) if _OURS.match(line))


def _otlp_reader() -> MetricReader:
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = _otlp("metric_exporter", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL")
    return PeriodicExportingMetricReader(exporter.OTLPMetricExporter())


def _otlp(kind: str, variable: str) -> Any:
    """Return the module that sends to a collector: by gRPC, or as ``variable`` or the general one says by HTTP."""
    protocol = os.environ.get(variable) or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    way = "http" if (protocol or "grpc").startswith("http") else "grpc"
    return importlib.import_module(f"opentelemetry.exporter.otlp.proto.{way}.{kind}")


def _resource(service: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    return Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service})


LOOPBACK = "127.0.0.1"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus' text format."""

_NAMES = (LOOPBACK, "localhost")
"""Hosts that a request may be addressed to: a page of another name that leads here gets nothing."""


class Said(NamedTuple):
    """An answer: status, type of its content, and content."""

    status: int
    kind: str
    body: bytes


def health_of(is_alive: Callable[[], bool]) -> dict[str, Callable[[], Said]]:
    """Return the page ``/health``: 200 with ``ok`` while the process lives, else 503 with ``failed``."""
    return {"/health": lambda: _word(200, "ok") if is_alive() else _word(503, "failed")}


def metrics_of(text: Callable[[], bytes]) -> dict[str, Callable[[], Said]]:
    """Return the page ``/metrics``, in Prometheus' text format."""
    return {"/metrics": lambda: Said(200, METRICS_TYPE, text())}


def _word(status: int, word: str) -> Said:
    return Said(status, "application/json", json.dumps({"status": word}).encode())


@contextlib.contextmanager
def loopback_endpoint(port: int, pages: dict[str, Callable[[], Said]]) -> Iterator[int]:
    """Answer requests for these pages while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0
        server_version, sys_version = "easeml", ""

        def do_GET(self) -> None:
            """Answer a page; nothing else is there."""
            page = pages.get(self.path) if self.headers.get("Host", "").partition(":")[0] in _NAMES else None
            said = _word(404, "not found") if page is None else page()
            self.send_response(said.status)
            self.send_header("Content-Type", said.kind)
            self.send_header("Content-Length", str(len(said.body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(said.body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a supervisor asks every few seconds."""

    server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="loopback", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def answering(option: str, port: int | None, pages: dict[str, Callable[[], Said]]) -> Iterator[None]:
    """Answer these pages while the block runs; nothing without a port."""
    with contextlib.ExitStack() as stack:
        if port is not None:
            try:
                stack.enter_context(loopback_endpoint(port, pages))
            except OSError as error:
                raise ConfigError(option, port, f"a port that is free ({error.strerror})") from error
        yield
