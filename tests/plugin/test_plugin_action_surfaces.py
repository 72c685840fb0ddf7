"""A field that is added to one request, in a copy of the product, is on every surface with its help."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIELD = """    keep: bool = option("""
ADDED = """    colour: str | None = option("Colour of the study on a map.", default=None, longest=20)
"""
LOOK = """
import importlib.util, inspect, json
from unittest.mock import Mock

import click
from easeml_airflow.operators import RegisterStudyOperator
from easeml_airflow.params import params_of
from easeml_airflow.web.server.service import Service
from easeml_core import Client
from easeml_core.actions.action import schema_of
from easeml_core.actions.studies import RegisterStudy
from easeml_core.cli.app import cli

register = cli.commands["study"].commands["register"]
help = register.get_help(click.Context(register, terminal_width=200, max_content_width=200))
form = params_of(RegisterStudy)["colour"]
client = inspect.signature(Client.register_study).parameters
asked = []
import easeml_core.services.registration.register as service
service.register_study = lambda store, request, request_key: asked.append(request)
Service(open_store=Mock(), open_artifacts=Mock()).act(
    RegisterStudy, {"tenant": "lab", "study": "flowers"}, "ann", {"source": "csv:a.csv", "colour": "red"}
)
print(json.dumps({
    "command": help,
    "operator": RegisterStudyOperator.__doc__,
    "template fields": "colour" in RegisterStudyOperator.template_fields,
    "arguments": "colour" in inspect.signature(RegisterStudyOperator).parameters,
    "form": {**form.schema, "description": form.description},
    "route": schema_of(RegisterStudy)["properties"]["colour"],
    "posted": asked[0].colour,
    "client": Client.register_study.__doc__,
    "method": "colour" in client,
}))
"""
HELP = "Colour of the study on a map."


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each surface shows in a copy of the product with one more field of ``RegisterStudy``."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("easeml_core", "plugins"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    definition = copy / "easeml_core" / "actions" / "studies.py"
    text = definition.read_text(encoding="utf-8")
    assert text.count(FIELD) == 1
    definition.write_text(text.replace(FIELD, ADDED + FIELD), encoding="utf-8")
    paths = os.pathsep.join([str(copy), str(copy / "plugins")])
    environment = {**os.environ, "PYTHONPATH": paths, "AIRFLOW_HOME": str(copy / "airflow")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("surface", ["command", "operator", "client"])
def test_help_of_a_new_field_is_in_the_text_of(surface: str, surfaces: dict[str, Any]) -> None:
    assert HELP in surfaces[surface]


@pytest.mark.parametrize("surface", ["form", "route"])
def test_help_of_a_new_field_is_in_the_schema_of(surface: str, surfaces: dict[str, Any]) -> None:
    assert (surfaces[surface]["description"], surfaces[surface]["maxLength"]) == (HELP, 20)


@pytest.mark.parametrize("place", ["template fields", "arguments", "method"])
def test_a_new_field_is_among_the(place: str, surfaces: dict[str, Any]) -> None:
    assert surfaces[place]


def test_a_new_field_is_read_from_the_body_of_a_request(surfaces: dict[str, Any]) -> None:
    assert surfaces["posted"] == "red"
