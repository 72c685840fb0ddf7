"""The values for Airflow's Helm chart and the manifest beside them, as far as they can be held to account here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from easeml_core.cli.app import cli

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "docs" / "examples" / "kubernetes"
SCHEMA = "EASEML_AIRFLOW_CHART_SCHEMA"


@pytest.fixture(scope="module")
def values() -> Any:
    return yaml.safe_load((PLACE / "values.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], Any]:
    found = yaml.safe_load_all((PLACE / "easeml.yaml").read_text(encoding="utf-8"))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def containers(objects: dict[tuple[str, str], Any]) -> list[Any]:
    return [
        container
        for (kind, _), one in objects.items()
        if kind in ("Deployment", "Job")
        for container in one["spec"]["template"]["spec"]["containers"]
    ]


def test_the_values_are_those_of_the_chart(values: Any) -> None:
    path = os.environ.get(SCHEMA)
    if path is None:
        pytest.skip(f"the chart's values.schema.json is in no package: name a copy of it in {SCHEMA}")
    import jsonschema

    schema = json.loads(Path(path).read_text(encoding="utf-8"))
    assert schema["properties"]["executor"]  # the chart of Airflow, and not any schema
    jsonschema.validate(values, schema)


def test_both_run_the_image_and_the_airflow_of_the_dockerfile(values: Any, objects: Any) -> None:
    first = next(line for line in (ROOT / "docker" / "Dockerfile").read_text().splitlines() if line.startswith("FROM "))
    assert f":{values['airflowVersion']}-" in first
    image = f"{values['defaultAirflowRepository']}:{values['defaultAirflowTag']}"
    assert {container["image"] for container in containers(objects)} == {image}


def test_only_its_own_process_gets_the_address_of_a_role(values: Any, objects: Any) -> None:
    assert [one["secretName"] for one in values["secret"]] == ["easeml-worker"]
    found = {
        container["name"]: [one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"] if "valueFrom" in one]
        for container in containers(objects)
    }
    assert found == {"migrate": ["easeml-owner"], "referee": ["easeml-referee"], "scheduler": ["easeml-scheduler"]}
    assert objects["ServiceAccount", "easeml"]["automountServiceAccountToken"] is False


def test_the_commands_are_understood(objects: Any) -> None:
    for container in containers(objects):
        first, *words = container["command"]
        assert first == "easeml"
        command: click.Command = cli
        # Each context has its parent: a command keeps the help option of the first one, and all tests share it.
        context = click.Context(cli, info_name=first, **cli.context_settings)
        while isinstance(command, click.Group):
            name = words.pop(0)
            command = command.get_command(context, name) or pytest.fail(name)
            if isinstance(command, click.Group):
                context = click.Context(command, parent=context, info_name=name)
        command.make_context(name, words, parent=context)


def test_every_volume_is_claimed_and_the_artifacts_are_where_the_connection_says(values: Any, objects: Any) -> None:
    claims = {name for kind, name in objects if kind == "PersistentVolumeClaim"}
    assert {one["persistentVolumeClaim"]["claimName"] for one in values["volumes"]} <= claims
    for (kind, _), one in objects.items():
        if kind == "Deployment":
            pod = one["spec"]["template"]["spec"]
            volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
            mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
            assert mounted == set(volumes)
            asked = {v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v}
            assert asked <= claims
    (place,) = [mount["mountPath"] for mount in values["volumeMounts"]]
    referee = next(container for container in containers(objects) if container["name"] == "referee")
    assert referee["command"][referee["command"].index("--artifacts") + 1] == place
