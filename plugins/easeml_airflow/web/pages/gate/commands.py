"""What the gate page's planner plans, on the command line: size, plan and seal a set of the gate's, or a shared one."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.pages.gate.sizes import changes_of
from easeml_core.config import MeterConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.config import JointConfig

_NAMES = ("condition", "reliability", "steps", "adaptivity", "mode")


def gate_commands(study: str, settings: Mapping[str, Any], passes: int, estimator: str) -> dict[str, str]:
    """The commands for a set of the gate's own.

    Args:
        study: Name of the study, whose other settings ``test-set plan`` takes.
        settings: The planner's.
        passes: Before the size is asked for.
        estimator: The study's; ``gate plan`` knows no study, so that it has to be told.
    """
    more = f" --passes {passes}" if changes_of(settings["adaptivity"], passes) else ""
    return {
        "size": f"easeml gate plan {_sized(settings, estimator)}{more}",
        "plan": f"easeml test-set plan {whose(study)} {_options(settings)}{_power(settings)}",
        "seal": f"easeml test-set seal {whose(study)} --inputs new.csv",
    }


def joint_commands(study: str, settings: Mapping[str, Any], config: JointConfig) -> dict[str, str]:
    """The commands for a set that gate and meter share; of the meter's settings those that are not a new study's."""
    usual = MeterConfig().to_json() | {"reliability": config.meter.reliability}
    own = {name: value for name, value in config.meter.to_json().items() if value != usual[name]}
    meter = f" --meter {shlex.quote(json.dumps(own))}" if own else ""
    sized = _sized(settings, config.gate.estimator)
    return {
        "size": f"easeml gate plan --joint --gate-share {config.gate_share:.6g} {sized}{meter}",
        "plan": f"easeml test-set plan {whose(study)} --purpose joint {_options(settings)}{_power(settings)}"
        " --sampling fixed",
        "seal": f"easeml test-set seal {whose(study)} --inputs new.csv --labels truth.csv",
    }


def selftest_command(plan: Mapping[str, Any], examples: int) -> str:
    """The A/A test of a set's plan, on sets as large as it that are made up.

    Args:
        plan: The gate's part of the set's plan.
        examples: Of the set.
    """
    return f"easeml gate selftest {_options(plan)} --examples {examples}"


def whose(study: str) -> str:
    """Options that say whose set it is and what it is called; the name is whoever types them to give."""
    return f"--study {shlex.quote(study)} --name NAME"


def _options(settings: Mapping[str, Any]) -> str:
    return " ".join(f"--{name} {shlex.quote(str(settings[name]))}" for name in _NAMES)


def _sized(settings: Mapping[str, Any], estimator: str) -> str:
    """The options of a size; the published ones have no power."""
    return _options(settings) + (" --estimator paper" if estimator == "paper" else _power(settings))


def _power(settings: Mapping[str, Any]) -> str:
    return " --power same" if settings["power"] is None else f" --power {settings['power']:g}"
