"""The kinds that bring their own code: rows of the table in ``trainers``. How each is run is told in ``Trainer``.

Their parameters are the tenant's own, so the rules name only what such a candidate is made of. None is ever tried
unless a study names it.
"""

from __future__ import annotations

from easeml_core.training.own_parameters import Artifact, Image
from easeml_core.training.parameters import Choice
from easeml_core.training.trainer import BOTH, Trainer

RUNTIMES = ("docker", "podman")
"""Programs that run containers; the first is that of a candidate which names none."""

_NOWHERE: frozenset[str] = frozenset()

COMMAND_TRAINERS = (
    Trainer(
        "command",
        "a program of your own, in any language",
        library="numpy",
        rules={"program": Artifact()},
        tasks=BOTH,
        default_layouts=_NOWHERE,
        gives_chances=False,
        own_parameters=True,
        files=("program",),
        takes_run=True,
        fitter="easeml_core.training.command_training:fit_command",
    ),
    Trainer(
        "container",
        "a program of your own in a container image",
        library="numpy",
        rules={"image": Image(), "runtime": Choice(RUNTIMES[0], RUNTIMES)},
        tasks=BOTH,
        default_layouts=_NOWHERE,
        gives_chances=False,
        own_parameters=True,
        takes_run=True,
        fitter="easeml_core.training.container_training:fit_container",
    ),
    Trainer(
        "function",
        "a training function of a DAG (@trial)",
        library="numpy",
        tasks=BOTH,
        default_layouts=_NOWHERE,
        own_parameters=True,
        fitter="easeml_core.training.function_models:refuse_to_fit",
    ),
)
