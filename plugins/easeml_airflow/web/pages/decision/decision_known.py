"""What stood around a decision: the guard for the least served, the cost, and what had been observed by then."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.pages.study.trials_table import cost_of
from easeml_airflow.web.pages.study.view import Bar
from easeml_airflow.web.server.formats import percent_text, seconds_text
from easeml_core.config import SelectionConfig
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Mapping


def guard_of(chosen: Mapping[str, Any], day: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The guard's part in this pick, and in the last day; empty where another policy than ``default`` chose."""
    if chosen["policy"] != "default":
        return []
    came = {"guard": "from the guard", "learning": "from the share for cheap lessons"}
    pairs = [
        ("This pick came", came.get(chosen["chosen_by"], "from the rule above")),
        ("Promised to the least served", f"{percent_text(chosen['guard'] or 0.0)} of compute"),
    ]
    if day["used"] is None:
        return [*pairs, ("Used in the last 24 h", "nothing ran")]
    pairs.append(("Used in the last 24 h", f"{percent_text(day['used'])} of compute"))
    if day["least"] is not None:
        among = "" if day["is_all"] else ", of those you see"
        share = f"{day['least']}, {100 * day['of_due']:.0f} % of its due share"
        pairs.append((f"Least served in the last 24 h{among}", share))
    return pairs


def guard_bar(chosen: Mapping[str, Any], day: Mapping[str, Any]) -> Bar | None:
    """The bar ends a quarter beyond the larger of both."""
    used, promised = day["used"], chosen["guard"] or 0.0
    if chosen["policy"] != "default" or used is None:
        return None
    end = 1.25 * max(used, promised) or 1.0
    label = f"The guard used {percent_text(used)} of compute in the last 24 h, {percent_text(promised)} promised"
    return Bar(percent_text(used), "of compute", round(100 * used / end, 2), round(100 * promised / end, 2), label)


def cost_pairs(
    chosen: Mapping[str, Any] | None, trial: Mapping[str, Any], outcome: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Predicted and measured cost."""
    known = chosen is not None and chosen["predicted_cost_seconds"] != 1.0
    pairs = [
        ("Predicted", seconds_text(chosen["predicted_cost_seconds"]) if chosen and known else "nothing measured yet")
    ]
    if chosen and known and (ends := chosen["predicted_cost_interval_seconds"]):
        pairs.append(("80 % expected between", " and ".join(seconds_text(end) for end in ends)))
    pairs.append(("Measured" if trial["finished_at"] else "So far", cost_of(trial)))
    if known and outcome["cost_ratio"] is not None:
        pairs.append(("Measured over predicted", f"{outcome['cost_ratio']:.2f}"))
    return pairs


def observed(known: Mapping[str, int] | None, chosen: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Counts of the trials on which the choice rested, as of the decision."""
    if known is None or chosen is None:
        return []
    failed = f", {known['failed']} failed" if known["failed"] else ""
    at_mean = chosen["policy"] == "default" and chosen["settings"].get("believe")
    return [
        ("Observations of this study", f"{known['succeeded']} succeeded{failed}"),
        (f"Under way in this study{', counted at their mean' if at_mean else ''}", counted(known["own_open"], "trial")),
        ("Under way in all studies", counted(known["open"], "trial")),
        ("Not eligible in this study", f"{counted(known['taken'], 'candidate')} run or under way"),
    ]


def settings_of(told: Mapping[str, Any], batch: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Policy, place in the batch, and settings that are not the program's own; empty where no batch is stored."""
    if batch is None:
        return []
    place = f"{batch['position'] + 1} of {counted(batch['requested'], 'trial')} asked for"
    times = len(told["batches"])
    pairs = [("Policy", batch["policy"]), ("Place in its batch", place)]
    pairs.append(
        ("Settings", "the program's own" if batch["settings_id"] is None else f"number {batch['settings_id']}")
    )
    pairs += [(name, value) for name, value in _other_settings(batch["settings"])]
    return pairs + ([("Handed out", f"{times} times")] if times > 1 else [])


def _other_settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What differs from the program's own settings, the policy apart."""
    own = SelectionConfig().to_json()
    names = [f.name for f in fields(SelectionConfig) if f.name not in ("policy", "order")]
    return [(name, str(settings[name])) for name in names if name in settings and settings[name] != own[name]]
