"""What the gate page's planner plans, on the command line: size, plan and seal a set of the gate's, or a shared one."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from attrs import evolve

from easeml_airflow.web.pages.gate.sizes import changes_of
from easeml_core.config import MeterConfig
from easeml_core.encoding import row_of

if TYPE_CHECKING:
    from easeml_airflow.web.pages.gate.sizes import Asked
    from easeml_core.config import GateConfig, JointConfig

_NAMES = ("condition", "reliability", "steps", "adaptivity", "mode")


def gate_commands(study: str, settings: Asked, passes: int, estimator: str) -> dict[str, str]:
    """The commands for a set of the gate's own.

    Args:
        study: Name of the study, whose other settings ``test-set plan`` takes.
        settings: The planner's.
        passes: Before the size is asked for.
        estimator: The study's; ``gate plan`` knows no study, so it needs the option.
    """
    more = f" --passes {passes}" if changes_of(settings.adaptivity, passes) else ""
    return {
        "size": f"easeml gate plan {_sized(settings, estimator)}{more}",
        "plan": f"easeml test-set plan {whose(study)} {_options(settings)}{_power(settings)}",
        "seal": f"easeml test-set seal {whose(study)} --inputs new.csv",
    }


def joint_commands(study: str, settings: Asked, config: JointConfig) -> dict[str, str]:
    """The commands for a set that gate and meter share; of the meter's settings those that are not a new study's."""
    usual = row_of(evolve(MeterConfig(), reliability=config.meter.reliability))
    own = {name: value for name, value in row_of(config.meter).items() if value != usual[name]}
    meter = f" --meter {shlex.quote(json.dumps(own))}" if own else ""
    sized = _sized(settings, config.gate.estimator)
    return {
        "size": f"easeml gate plan --joint --gate-share {config.gate_share:.6g} {sized}{meter}",
        "plan": f"easeml test-set plan {whose(study)} --purpose joint {_options(settings)}{_power(settings)}"
        " --sampling fixed",
        "seal": f"easeml test-set seal {whose(study)} --inputs new.csv --labels truth.csv",
    }


def selftest_command(plan: GateConfig, examples: int) -> str:
    """The A/A test of a set's plan, on sets as large as it that are made up.

    Args:
        plan: The gate's part of the set's plan.
        examples: Of the set.
    """
    return f"easeml gate selftest {_options(plan)} --examples {examples}"


def whose(study: str) -> str:
    """Options that say whose set it is and what it is called; the user replaces NAME."""
    return f"--study {shlex.quote(study)} --name NAME"


def _options(settings: Asked | GateConfig) -> str:
    return " ".join(f"--{name} {shlex.quote(str(getattr(settings, name)))}" for name in _NAMES)


def _sized(settings: Asked, estimator: str) -> str:
    """The options of a size; the published ones have no power."""
    return _options(settings) + (" --estimator paper" if estimator == "paper" else _power(settings))


def _power(settings: Asked) -> str:
    return " --power same" if settings.power is None else f" --power {settings.power:g}"
