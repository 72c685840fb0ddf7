"""The values for Airflow's Helm chart, the manifest beside them, and the pods that tasks get, without a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from kubernetes.client import ApiClient

from easeml_airflow.operators.pods import device_pod
from easeml_core.cli.app import cli
from easeml_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "docs" / "examples" / "kubernetes"
SCHEMA = "HELM_CHART_SCHEMA"


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


@pytest.fixture(scope="module")
def template(values: Any) -> Any:
    """The pod of tasks, with names in the places of the chart's own expressions."""
    return yaml.safe_load(re.sub(r"\{\{.*?\}\}", "airflow", values["podTemplate"]))


def pod_of(template: Any, executor_config: Any = None, **named: Any) -> Any:
    """Return the pod that KubernetesExecutor makes of a task, as its API gets it."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator

    pod = PodGenerator.construct_pod(
        **{"dag_id": "night", "task_id": "train", "map_index": 0, "run_id": "one", "try_number": 1} | named,
        pod_id="night-train",
        kube_image="registry.example.org/easeml-airflow:0.1.0",
        date=None,
        args=["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", "{}"],
        pod_override_object=PodGenerator.from_obj(executor_config or {}),
        base_worker_pod=PodGenerator.deserialize_model_dict(template),
        namespace="airflow",
        scheduler_job_id="1",
        with_mutation_hook=True,
    )
    return ApiClient().sanitize_for_serialization(pod)


def through_the_models(one: Any) -> Any:
    """Return an object after the models that are generated from Kubernetes' OpenAPI: unknown fields are lost."""
    client = ApiClient()
    return client.sanitize_for_serialization(client._ApiClient__deserialize(one, f"V1{one['kind']}"))


def test_every_field_is_one_of_kubernetes(objects: Any, template: Any) -> None:
    for one in (*objects.values(), template, pod_of(template, device_pod(gpus=1))):
        assert through_the_models(one) == one


@pytest.mark.nightly
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_every_object_has_the_schema_of_kubernetes(objects: Any, template: Any, tmp_path: Path, version: str) -> None:
    # 70 MB in 17,000 files, so it is in no extra of ours.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path / "packages")]
    subprocess.run([*pip, "kubernetes-validate>=1.37"], check=True)
    for place, one in enumerate((*objects.values(), template, pod_of(template, device_pod(gpus=1)))):
        (tmp_path / f"{place}.yaml").write_text(yaml.safe_dump(one), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", "--kubernetes-version", version]
        + [str(path) for path in sorted(tmp_path.glob("*.yaml"))],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "packages")},
        check=True,
    )


def test_no_task_gets_the_address_of_airflows_database_or_a_token_of_the_cluster(template: Any) -> None:
    pod = pod_of(template, device_pod(gpus=1))["spec"]
    (container,) = pod["containers"]
    assert {one["name"] for one in container["env"]} == {
        "AIRFLOW__CORE__EXECUTOR",
        "AIRFLOW_CONN_EASEML_DEFAULT",
        "AIRFLOW_IS_K8S_EXECUTOR_POD",
        "EASEML_CACHE",
        "TMPDIR",
    }
    secrets = [one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"] if "valueFrom" in one]
    assert (secrets, container.get("envFrom")) == (["easeml-worker"], None)
    assert pod["automountServiceAccountToken"] is False
    assert not [volume for volume in pod["volumes"] if "secret" in volume or "projected" in volume]


def test_a_device_has_what_it_asks_for_and_all_else_of_the_template(template: Any) -> None:
    usual, gpu = (pod_of(template, config)["spec"] for config in (None, device_pod(gpus=2, cpus=4, memory="24Gi")))
    assert gpu["containers"][0]["resources"] == {
        "requests": {"cpu": "4", "memory": "24Gi"},
        "limits": {"memory": "24Gi", "nvidia.com/gpu": "2"},
    }
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in gpu["containers"][0]["volumeMounts"]
    assert device_pod()["pod_override"].spec.containers[0].resources.to_dict() == {
        "claims": None,
        **usual["containers"][0]["resources"],
    } | {"requests": {"cpu": "1", "memory": "6Gi"}}
    for pod in (usual, gpu):
        mounted = {one["name"] for one in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    rest = [
        {key: value for key, value in pod["containers"][0].items() if key not in ("resources", "volumeMounts")}
        for pod in (usual, gpu)
    ]
    assert rest[0] == rest[1]


@pytest.mark.parametrize("wrong", [{"gpus": -1}, {"gpus": True}, {"memory": "6 GB"}, {"cpus": 0}])
def test_a_device_that_no_pod_can_have_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        device_pod(**wrong)


def test_every_task_of_the_shipped_dags_gets_a_pod(template: Any) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    pods = {}
    for folder in (ROOT / "dags", PLACE):
        bag = DagBag(dag_folder=str(folder))
        assert not bag.import_errors
        for dag in bag.dags.values():
            kept = DagSerialization.from_dict(DagSerialization.to_dict(dag))  # what the scheduler has of it
            for task in kept.tasks:
                pod = pod_of(template, task.executor_config, dag_id=dag.dag_id, task_id=task.task_id)
                assert through_the_models(pod) == pod
                pods[dag.dag_id, task.task_id] = pod["spec"]["containers"][0]["resources"]["limits"]
    assert len(pods) > 20
    assert {key for key, limits in pods.items() if "nvidia.com/gpu" in limits} == {
        ("easeml_devices_by_kind", "run_gpu")
    }


def test_the_values_are_those_of_the_chart(values: Any) -> None:
    path = os.environ.get(SCHEMA)
    if path is None:
        pytest.skip(f"the chart's values.schema.json is in no package: name a copy of it in {SCHEMA}")
    import jsonschema

    schema = json.loads(Path(path).read_text(encoding="utf-8"))
    jsonschema.validate(values, schema)
    # The chart accepts any key at the top, so one that it has dropped would be without effect and without an error.
    assert set(values) - set(schema["properties"]) <= {"webserver"}


def test_both_run_the_image_and_the_airflow_of_the_dockerfile(values: Any, objects: Any) -> None:
    first = next(line for line in (ROOT / "docker" / "Dockerfile").read_text().splitlines() if line.startswith("FROM "))
    assert f":{values['airflowVersion']}-" in first
    image = f"{values['defaultAirflowRepository']}:{values['defaultAirflowTag']}"
    assert {container["image"] for container in containers(objects)} == {image}


def test_only_its_own_process_gets_the_address_of_a_role(values: Any, objects: Any) -> None:
    assert [one["secretName"] for one in values["secret"]] == ["easeml-worker"]
    assert (values["createUserJob"]["enabled"], values["webserver"]["defaultUser"]["enabled"]) == (False, False)
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
