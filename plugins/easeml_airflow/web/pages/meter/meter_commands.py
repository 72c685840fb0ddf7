"""What the meter page's planner plans, on the command line: size, plan and seal a set of the meter's own."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.pages.gate.commands import whose
from easeml_core.config import MeterConfig
from easeml_core.entities import SealedSetPurpose
from easeml_core.services.meter.planning import AMBIGUOUS, ERROR_RATE
from easeml_core.services.test_sets.planning import needed_examples, set_settings, study_plan

if TYPE_CHECKING:
    from easeml_core.entities import Study

_METER = SealedSetPurpose.METER
_ALERTS = ("budget", "overfitting_budget")
"""Settings that stay the study's: they raise alerts, and no set is larger by them."""

_needed = lru_cache(maxsize=256)(needed_examples)


@dataclass(frozen=True, slots=True)
class MeterCommands:
    """The plan on the command line.

    Attributes:
        size: Command that gives the planner's number.
        plan: Command that plans the set, with the settings in which it differs from the study's.
        seal: Command that seals examples under its name.
        examples: That a set so planned asks for: whatever the error rate of the models, so more than the planner's.
    """

    size: str
    plan: str
    seal: str
    examples: int


def meter_commands(
    study: Study, *, ranges: tuple[float, ...], tolerance: float, reliability: float, steps: int, teams: int
) -> MeterCommands:
    """The commands for a set like the one that the planner recommends: path-adaptive with exact tails.

    Args:
        study: Whose set it will be; of its other settings only those about alerts are taken.
        ranges: Inner boundaries.
        tolerance: epsilon.
        reliability: 1 - delta.
        steps: Submissions.
        teams: That share nothing.

    Raises:
        ConfigError: The settings cannot be a meter's.
        InvalidInputError: A rule of the study's overfitting budget does not suit the ranges.
    """
    wanted = MeterConfig(
        ranges=ranges, tolerance=tolerance, reliability=reliability, steps=steps, teams=teams, ambiguous=AMBIGUOUS
    ).to_json()
    own = study_plan(study.config, _METER).to_json()
    changes = {name: value for name, value in wanted.items() if name not in _ALERTS and value != own[name]}
    sized = f"--tolerance {tolerance:.12g} --reliability {reliability:.12g} --steps {steps} --teams {teams}"
    exact = f"--ambiguous {AMBIGUOUS} --tail {wanted['tail']} --error-rate {ERROR_RATE:g}"
    named = f"{whose(study.name)} --purpose meter"
    return MeterCommands(
        size=f"easeml meter plan --ranges={','.join(f'{edge:.12g}' for edge in ranges)} {sized} {exact}",
        plan=f"easeml test-set plan {named}{_meter(changes)}",
        seal=f"easeml test-set seal {named} --inputs new.csv --labels truth.csv",
        examples=_needed(set_settings(study, _METER, changes)[1]),
    )


def _meter(changes: dict[str, Any]) -> str:
    return f" --meter {shlex.quote(json.dumps(changes))}" if changes else ""
