"""What waits for a person: the list on top of a page, and how many they are in the bar of every page."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from easeml_airflow.web.server.airflow_runs import questions
from easeml_airflow.web.server.formats import age_text, sentence_case
from easeml_airflow.web.server.marks import ACTS, STEPS
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.reports.recommendations import Severity, StepKind
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_airflow.web.server.airflow_runs import Question
    from easeml_airflow.web.server.auth import Viewer
    from easeml_core.store.database import Store

KEPT_SECONDS = 15.0
"""So long the number in the bar may lag behind; the overview itself never does."""

_lock = threading.Lock()
_counts: WeakKeyDictionary[Store, dict[tuple[Any, ...], tuple[float, int]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Need:
    """One line of ``needs_list`` in ``_parts.html``, and of the list of what is next."""

    title: str
    why: str
    colour: str
    shape: str
    age: str
    href: str
    act: str
    command: str = ""


def need_of(step: Mapping[str, Any], viewer: Viewer, *, named: bool = True) -> Need:
    """A step of ``next_steps`` for somebody: it leads where they may go.

    Args:
        step: As ``next_steps`` gives it, with ``since`` as a moment or as text.
        viewer: Who looks.
        named: Whether the title begins with the tenant's name.
    """
    since, kind = step["since"], StepKind(step["kind"])
    moment = datetime.fromisoformat(since) if isinstance(since, str) else since
    names = dict.fromkeys((step["tenant"], step["study"]))  # once, where a tenant calls its only study by its own name
    name = f"{', '.join(names)}: " if named and step["study"] else ""
    title = f"{name}{step['title']}"
    return Need(
        title=title if name else sentence_case(title),
        why=step["why"],
        colour="busy" if step["severity"] == Severity.INFO else str(step["severity"]),
        shape=STEPS[kind][0],
        age="" if moment is None else age_text((datetime.now(UTC) - moment).total_seconds()),
        href=allowed(step["page"], viewer),
        act=ACTS.get(kind, "Open"),
        command=step["command"],
    )


def allowed(page: str, viewer: Viewer) -> str:
    """The page, or the one in its place that is for everybody who sees the study."""
    path = page.partition("?")[0]
    if path.endswith(("/gate", "/meter")) and not viewer.is_referee:
        return path.rpartition("/")[0] + "/submissions"
    if page == "/labels" and not viewer.is_labeler:
        return ""
    return page


def forced_steps(viewer: Viewer) -> list[dict[str, Any]]:
    """A step as of ``next_steps`` for each forced promotion that waits for a referee in Airflow; of others none.

    Airflow's database knows of them, and only referees are told: which task asks is what a worker wrote.
    """
    return [_forced(asked) for asked in questions()] if viewer.is_referee else []


def _forced(asked: Question) -> dict[str, Any]:
    whose = asked.study or "a study that the task does not name"
    model = f"model {asked.model} of {whose}" if asked.model else f"a model of {whose}"
    return {
        "study": asked.study or None,
        "tenant": asked.study or None,
        "kind": StepKind.PROMOTE,
        "severity": Severity.WARN,
        "title": "a promotion without the gate waits for a referee",
        "why": f"{asked.asked_by or 'A program'} asks for {model}; the question is in Airflow",
        "page": "/audit#forced",
        "command": "",
        "since": asked.since,
    }


def visible(store: Store, viewer: Viewer) -> list[str] | None:
    """Names of the studies that they may see; None for all, where they see whatever there is."""
    if viewer.is_operator or viewer.is_referee:
        return None
    with store.begin() as tx:
        known = studies.names_and_tenants(tx)
    return [study for study, tenant in known if viewer.sees(study, tenant)]


def remember(store: Store, viewer: Viewer, count: int) -> None:
    """Keep the number for a while, from a page that has just counted."""
    with _lock:
        _counts.setdefault(store, {})[_key(viewer)] = (time.monotonic() + KEPT_SECONDS, count)


def count_needs(store: Store, viewer: Viewer) -> int:
    """How many things wait for a person, of those that they may see; looked up once in a while."""
    if not viewer.name:
        return 0
    with _lock:
        until, count = _counts.get(store, {}).get(_key(viewer), (0.0, 0))
    if time.monotonic() < until:
        return count
    names = visible(store, viewer)
    count = len(next_steps(store, studies_only=names, needs_only=True)) if names is None or names else 0
    count += len(forced_steps(viewer))
    remember(store, viewer, count)
    return count


def _key(viewer: Viewer) -> tuple[Any, ...]:
    return viewer.name, viewer.roles
