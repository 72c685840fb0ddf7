"""What became of rows that were fed, and of a refresh, as a shape, a colour and a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.web.server.marks import Mark

if TYPE_CHECKING:
    from collections.abc import Mapping

FEEDS = {
    "waiting": Mark("busy", "wait", "waits for a refresh"),
    "taken": Mark("ok", "pass", "taken"),
    "refused": Mark("bad", "fail", "refused"),
}
"""By the state of a feed."""


def refresh_mark(refresh: Mapping[str, Any]) -> Mark:
    """The state of a refresh of ``store.data_history.refresh_history``."""
    if refresh["answered_at"] is None:
        return Mark("busy", "wait", "waits for the referee")
    if refresh["refused"]:
        return Mark("bad", "fail", "refused")
    if refresh["version"]:
        return Mark("ok", "pass", f"version {refresh['version']}")
    return Mark("idle", "done", "nothing new")
