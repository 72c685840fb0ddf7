"""Metrics: what the pages say, for Prometheus and collectors, and nothing of sealed sets or of single studies."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from easeml_core.errors import StateError, StoreUnavailableError
from easeml_core.services import telemetry
from easeml_core.services.operations.monitoring import (
    GAUGES,
    METRICS_TYPE,
    UP,
    InstallationFigures,
    exporting,
    installation_figures,
    loopback_endpoint,
    metrics_of,
    metrics_text,
)
from easeml_core.services.reports.overview import overview
from easeml_core.services.trials.worker import run_device
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parents[3] / "docs"


def values(text: str) -> dict[tuple[str, str], float]:
    """Name and first label of each sample -> its value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [v for k, v in sample.labels.items() if k in ("tenant", "kind", "process", "state")]
            found[sample.name, labels[0] if labels else ""] = sample.value
    return found


def test_the_figures_are_those_of_the_pages(lab: Any) -> None:
    lab.gate("good")
    entries = overview(lab.worker).tenants
    found = values(metrics_text(lab.worker).decode())
    assert found["easeml_studies", "lab"] == len([e for e in entries if e.tenant == "lab"])
    spent = sum(e.device_seconds for e in entries if e.tenant == "lab")
    assert found["easeml_device_time_seconds_total", "lab"] == pytest.approx(spent)
    assert found["easeml_requests_answered_total", "gate"] == 1
    left = [e.gate_steps - e.gate_steps_used for e in entries if e.tenant == "lab" and e.gate_set_live]
    assert found["easeml_gate_answers_left", "lab"] == min(left)
    assert found["easeml_up", ""] == 1
    assert ("easeml_quota_seconds", "lab") not in found  # it has none, which is not 0


def test_a_role_that_sees_sealed_rows_exports_no_more_than_one_that_does_not(lab: Any) -> None:
    lab.gate("good", "hidden")  # decided, and withheld
    assert installation_figures(lab.referee).tenants == installation_figures(lab.worker).tenants
    names = {gauge.name for gauge in GAUGES} | {measured.name for measured in telemetry.MEASURED}
    assert not [name for name in names if re.search("quality|verdict|symbol|signal|label|pass|fail|loss", name)]


def test_prometheus_is_answered_while_the_database_is_away() -> None:
    looks = []

    def look() -> InstallationFigures:
        looks.append(1)
        raise StoreUnavailableError("the database at h cannot be reached")

    with (
        exporting("easeml-test", look=look, for_prometheus=True) as text,
        loopback_endpoint(0, metrics_of(text)) as port,
        urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
    ):
        assert answer.headers["Content-Type"] == METRICS_TYPE
        found = values(answer.read().decode())
        of_another_name = Request(f"http://127.0.0.1:{port}/metrics", headers={"Host": "evil.example"})
        with pytest.raises(HTTPError, match="404"):
            urlopen(of_another_name, timeout=10)
    # Neither processor time nor memory: they would tell how long the referee computes.
    assert {name for name, _ in found} == {UP.replace(".", "_"), "target_info"}
    assert found[UP.replace(".", "_"), ""] == 0
    assert len(looks) == 1  # one look for all gauges


def test_a_device_measures_decisions_and_trials(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(telemetry, "_sinks", [lambda measured, value, labels: seen.append((measured.name, labels))])
    with lab.worker.begin() as tx:
        new = {"name": "tree-1", "kind": "decision_tree", "parameters": {"max_depth": 1}}
        studies.add_candidates(tx, studies.get_study(tx, "full").id, [new])
    run_device(lab.worker, lab.artifacts, device="cpu", request_key="n/r/d/0", studies_only=["full"], max_trials=1)
    assert ("easeml.trials.ended", {"state": "SUCCEEDED"}) in seen
    assert {name for name, _ in seen} >= {"easeml.decision.duration", "easeml.trial.duration", "easeml.trial.start"}


DEVICE = """
from easeml_core.services.operations.monitoring import exporting
from easeml_core.services.telemetry import LEASES_LOST, TRIAL_SECONDS, WAITS_PENDING
with exporting("easeml-device", for_prometheus=True) as text:
    LEASES_LOST.note(1)
    LEASES_LOST.note(1)
    TRIAL_SECONDS.note(30.0)
    WAITS_PENDING.note(2, question="answer")
    WAITS_PENDING.note(-1, question="answer")
    print(text().decode())
"""


def test_what_a_device_counts_is_exported_as_a_count() -> None:
    """In a separate process, which sets the provider of all its measurements."""
    told = subprocess.run([sys.executable, "-c", DEVICE], check=True, capture_output=True, text=True, timeout=120)
    found = {name: float(value) for name, value in re.findall(r"^(easeml_\w+)\{.*\} (\S+)$", told.stdout, re.M)}
    assert found["easeml_leases_lost_total"] == 2
    assert (found["easeml_trial_duration_seconds_count"], found["easeml_trial_duration_seconds_sum"]) == (1, 30)
    assert found["easeml_waits_pending"] == 1


def test_a_fault_of_what_takes_a_measurement_fails_no_work_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        message = "statsd_port is no number"
        raise ValueError(message)

    taken: list[float] = []
    monkeypatch.setattr(telemetry, "_sinks", [broken, lambda _, value, __: taken.append(value)])
    monkeypatch.setattr(telemetry, "_lost", set())
    for value in (1, 2):
        telemetry.TRIALS_ENDED.note(value, state="SUCCEEDED")
    assert taken == [1, 2]
    assert caplog.text.count("easeml.trials.ended is not measured: ValueError: statsd_port is no number") == 1


def test_a_tasks_span_has_children(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, kept = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    assert telemetry.trace_parent() is None
    with provider.get_tracer("airflow").start_as_current_span("task_run.device") as task:
        asked = {"device": "cpu", "request_key": "n/r/d/0", "studies_only": ["full"], "max_trials": 1}
        (trial,) = run_device(lab.worker, lab.artifacts, **asked).trials
        lab.gate("good", "full")  # the referee's work is no span
        parent = telemetry.trace_parent()
    found = {span.name: span for span in kept.get_finished_spans()}
    assert set(found) == {"task_run.device", "easeml.suggest", "easeml.trial"}
    assert {span.parent.span_id for name, span in found.items() if name != "task_run.device"} == {
        task.get_span_context().span_id
    }
    about = {"trial": trial.trial_id, "study": "full", "candidate": trial.candidate, "attempt": 1}
    assert dict(found["easeml.trial"].attributes) == {f"easeml.{name}": value for name, value in about.items()}
    with (
        pytest.raises(StateError),
        telemetry.below(parent),  # as a process that is started with TRACEPARENT
        telemetry.span("easeml.elsewhere"),
    ):
        raise StateError("study of-a-rival is archived")
    (elsewhere,) = (span for span in kept.get_finished_spans() if span.name == "easeml.elsewhere")
    assert elsewhere.parent.span_id == task.get_span_context().span_id
    assert elsewhere.status.description == "StateError"
    assert "rival" not in elsewhere.to_json()


def named(text: str) -> set[str]:
    return set(re.findall(r"\beaseml_[a-z_]+", text))


@pytest.mark.parametrize("file", ["grafana.json", "prometheus-rules.yml"])
def test_dashboard_and_alerts_ask_for_metrics_that_exist(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    content = (DOCS / "examples/monitoring" / file).read_text(encoding="utf-8")
    parse: Callable[[str], Any] = json.loads if file.endswith("json") else yaml.safe_load
    assert parse(content)
    exported = {"easeml_up"}
    for one in (*GAUGES, *telemetry.MEASURED):
        name = one.name.replace(".", "_") + ("_seconds" if one.unit == "s" else "")
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
        exported |= {name + end for end in ends.get(one.kind, [""])}
    expressions = re.findall(r'expr"?: *(.*)', content)
    assert expressions
    assert named("\n".join(expressions)) <= exported
