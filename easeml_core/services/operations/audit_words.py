"""The words of the audit: each act as a title and a detail, without what its reason says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.services.test_sets.display_names import WHY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Facts = Mapping[str, Any]

_LIMITS = {
    "weight": "weight",
    "priority": "priority",
    "budget_seconds": "budget",
    "quota_seconds": "quota",
    "max_parallel": "open trials at most",
    "deadline": "deadline",
    "target_quality": "target quality",
}


def told(row: Facts) -> tuple[str, str]:
    """Title and detail of a row of the audit.

    Example:
        >>> told({"act": "study changed", "before": {"budget_seconds": 1800.0}, "after": {"budget_seconds": None}})
        ('Limits of the study changed', 'budget 0.5 → none')
    """
    act = row["act"]
    title = _TITLES.get(act, act.capitalize())
    write = _DETAILS.get(act)
    return title, "" if write is None else write(row["before"], row["after"])


def _limits(before: Facts, after: Facts) -> str:
    parts = [_limit(name, before.get(name), value) for name, value in sorted(after.items())]
    return "; ".join(parts)


def _limit(name: str, before: Any, after: Any) -> str:
    word = _LIMITS.get(name, name.replace("_", " "))
    if name.endswith("_seconds"):
        return f"{word} {_hours(before)} → {_hours(after)}{'' if after is None else ' device-hours'}"
    return f"{word} {_plain(before)} → {_plain(after)}"


def _hours(seconds: Any) -> str:
    return "none" if seconds is None else f"{float(seconds) / 3600:,.4g}"


def _plain(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _policy(before: Facts, after: Facts) -> str:
    first, then = before.get("policy") or "the program's own", after.get("policy") or "the program's own"
    detail = f"{first} → {then}" if first != then else str(then)
    was, price = before.get("price_per_second") or 0.0, after.get("price_per_second") or 0.0
    detail += f"; price of compute {hourly_text(was)} → {hourly_text(price)}" if was != price else ""
    return f"{detail}, by backtest" if after.get("backtest") else detail


def hourly_text(price: float) -> str:
    """The price of compute, given for a second of a device."""
    return f"{3600 * price:.4g} of quality an hour" if price else "none"


def _registered(_: Facts, after: Facts) -> str:
    budget = after.get("budget_seconds")
    return f"metric {after['metric']}" + (f"; budget {_hours(budget)} device-hours" if budget is not None else "")


def _set(_: Facts, after: Facts) -> str:
    name = f"{after['purpose']} set {after['name'] or after['set']}, {after['steps']} steps"
    return f"{name}: {WHY.get(after['why'], after['why'])}" if after.get("why") else name


def _model(_: Facts, after: Facts) -> str:
    approved = f", approved by {after['approved_by']}" if after.get("approved_by") else ""
    return f"model {after['model']}{approved}"


def _moved(before: Facts, after: Facts) -> str:
    was = before.get("model")
    ground = f"; verdict {after['verdict']} of request {after['gate_request']}" if after.get("verdict") else ""
    return (f"model {was} → model {after['model']}" if was else _model(before, after)) + ground + _approved(was, after)


def _approved(was: Any, after: Facts) -> str:
    return f"; approved by {after['approved_by']}" if was and after.get("approved_by") else ""


def _refused(_: Facts, after: Facts) -> str:
    return f"request {after['request']} to {_KINDS.get(after['kind'], after['kind'])}" + (
        f", model {after['model']}" if after.get("model") else ""
    )


def _rows(_: Facts, after: Facts) -> str:
    if "origin" in after:
        return f"{after['rows']:,} pairs from {after['origin']}"
    return f"{after['rows']:,} pairs switched {'on' if after['is_on'] else 'off'}"


def _always(words: str) -> Callable[[Facts, Facts], str]:
    return lambda _before, _after: words


_KINDS = {"force": "promote by force", "rollback": "roll back", "refresh": "take pairs in", "gate": "ask the gate"}

_TITLES = {
    "study changed": "Limits of the study changed",
    "tenant changed": "Limits of the tenant changed",
    "policy changed": "Policy chosen",
    "set planned": "Sealed set planned",
    "set sealed": "Sealed set sealed",
    "set live": "Sealed set live",
    "set retired": "Sealed set retired",
    "set released": "Sealed set released",
    "study sealed": "Study sealed",
}

_DETAILS: Mapping[str, Callable[[Facts, Facts], str]] = {
    "study changed": _limits,
    "tenant changed": _limits,
    "policy changed": _policy,
    "study registered": _registered,
    "study sealed": _always("its sealed sets exist: trials may begin"),
    "study refused": _always("the referee did not seal its data"),
    "study paused": _always("no trial begins any more; those under way go on"),
    "study resumed": _always("trials may begin again"),
    "candidate added": lambda _, after: f"{after['candidate']}, a {after['kind']}",
    "trial cancelled": lambda _, after: f"trial {after['trial']}, {after['candidate']}",
    "trial retried": lambda before, after: (
        f"trial {after['trial']}, {after['candidate']}, takes the place of trial {before['trial']}"
    ),
    "alert cleared": lambda _, after: f"alert {after['alert']}, {after['kind']}",
    "promotion asked": _model,
    "forced promotion asked": _model,
    "rollback asked": _model,
    "promoted": _moved,
    "forced promotion": _moved,
    "rolled back": _moved,
    "request refused": _refused,
    "model handed in": lambda _, after: f"model {after['model']}, as {after['kind']}",
    "pairs fed": _rows,
    "pairs switched": _rows,
    "validation set replaced": lambda before, after: f"version {before['version']} → version {after['version']}",
} | dict.fromkeys(("set planned", "set sealed", "set live", "set retired", "set released"), _set)
