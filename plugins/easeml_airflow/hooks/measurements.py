"""Hands what our processes measure to Airflow's metrics, where these go to StatsD or Datadog.

With OpenTelemetry on, Airflow has given the process a provider, which gets every measurement without this module.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from airflow.configuration import conf

from easeml_airflow.version_compat import Stats

if TYPE_CHECKING:
    from easeml_core.services.telemetry import Instrument

_levels: dict[tuple[str, ...], float] = {}
"""What each level of this process is, by the name and what else tells one from another."""

_BACKENDS = ("statsd_on", "statsd_datadog_enabled")


def connect() -> None:
    """From now on hand measurements of this process to Airflow's metrics, where an option asks for it; repeatable."""
    from easeml_core.services import telemetry

    if any(conf.getboolean("metrics", name, fallback=False) for name in _BACKENDS):
        telemetry.add_sink(to_airflow)


def watch_listeners() -> None:
    """From now on count connections for notifications that this process opens anew; repeatable."""
    from easeml_core.services.telemetry import RECONNECTS
    from easeml_core.store import listen

    listen.on_reopened = partial(RECONNECTS.note, 1)


def to_airflow(measured: Instrument, value: float, labels: dict[str, str]) -> None:
    """Hand one measurement to Airflow: a counter as one, a time in milliseconds, a level as a gauge of this process."""
    if measured.kind == "counter":
        Stats.incr(measured.name, int(value), tags=labels)
    elif measured.kind == "level":
        of = measured.name, *labels.values()
        _levels[of] = _levels.get(of, 0.0) + value
        Stats.gauge(measured.name, _levels[of], tags=labels)
    else:
        Stats.timing(measured.name, timedelta(seconds=value), tags=labels)
