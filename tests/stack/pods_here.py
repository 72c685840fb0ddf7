"""An executor of Airflow that runs pods of tasks here: a process in place of each pod, with no more than a pod has.

The pod is what Airflow's own generator makes of the installation's template. Its process sees this machine's folders
read-only, as an image; of what is not in an image, the state folder above all, it sees what the template mounts. Its
environment is that of the container, its account one without privileges.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACE = "PODS_HERE"
"""Environment variable: a JSON file with the fields of ``Cluster``."""

NEW = ("opt", "proc", "tmp")
"""Folders of the root folder that are new in each pod; an image holds all others."""

CODE = {Path(__file__).resolve().parents[2], Path(sys.prefix), Path(sys.base_prefix)}
"""The project and its interpreter, which an image holds wherever they lie here."""

HOME = Path("/opt/airflow")
NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")


RUN_TASK = ("python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string")
"""What KubernetesExecutor runs in the container, before the task's own JSON."""


@dataclass(frozen=True)
class Cluster:
    """What a cluster would hold.

    Attributes:
        template: The pod template, with plain names in place of the chart's expressions.
        secrets: Name -> key -> value.
        claims: Claim -> folder.
        config: The file that the ConfigMap holds.
        image: Environment of the image.
        hidden: Folders of the machine that no image holds.
    """

    template: dict[str, Any]
    secrets: dict[str, dict[str, str]]
    claims: dict[str, str]
    config: str
    image: dict[str, str]
    hidden: list[str]


def environment_of(cluster: Cluster, container: dict[str, Any]) -> dict[str, str]:
    """Return the environment of the container."""
    found = dict(cluster.image)
    for one in container["env"]:
        if "value" in one:
            found[one["name"]] = one["value"]
        else:
            asked = one["valueFrom"]["secretKeyRef"]
            found[one["name"]] = cluster.secrets[asked["name"]][asked["key"]]
    return found


def script_of(cluster: Cluster, pod: dict[str, Any], scratch: Path) -> str:
    """Return the lines of a shell that mount what the pod has into a new root, and become its container."""
    (container,) = pod["spec"]["containers"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    root = scratch / "root"
    lines = ["set -e", "mount --make-rprivate /", f"mkdir {root}", f"mount -t tmpfs tmpfs {root}"]
    for place in sorted(Path("/").iterdir()):
        if place.is_symlink():
            lines.append(f"ln -s {os.readlink(place)} {root}{place}")
        elif place.is_dir() and place.name not in NEW:
            lines += _bound(place, root, read_only=place.name not in ("dev", "sys"))
    lines += [line for place in sorted(CODE) if place.parts[1] in NEW for line in _bound(place, root, read_only=True)]
    # Numbers of processes are the pod's own: in the machine's /proc they would be those of others.
    lines += [f"mkdir {root}/proc", f"mount -t proc proc {root}/proc", f"mount -t tmpfs tmpfs {root}/dev/shm"]
    lines += [f"mount -t tmpfs tmpfs {root}{folder}" for folder in cluster.hidden if Path(folder).is_dir()]
    lines += [f"mkdir -p {root}/tmp {root}{HOME}"]
    for mount in container["volumeMounts"]:
        volume, target = volumes[mount["name"]], f"{root}{mount['mountPath']}"
        if "emptyDir" in volume:
            lines.append(f"mkdir -p {target}")
        elif "configMap" in volume:
            lines += [f"touch {target}", f"mount --bind {cluster.config} {target}"]
        else:
            folder = cluster.claims[volume["persistentVolumeClaim"]["claimName"]]
            lines += [f"mkdir -p {target}", f"mount --bind {folder} {target}"]
    words = [f"{name}={value}" for name, value in environment_of(cluster, container).items()]
    lines.append(f"cd {root}{HOME}")
    lines.append(f"exec chroot {root} env -i -C {HOME} {shlex.join(words)} {shlex.join(container['args'])}")
    return "\n".join(lines)


def _bound(place: Path, root: Path, *, read_only: bool) -> list[str]:
    lines = [f"mkdir -p {root}{place}", f"mount --rbind {place} {root}{place}"]
    return [*lines, f"mount -o bind,remount,ro {root}{place}"] if read_only else lines


class PodsHere(BaseExecutor):
    """Starts a process for each pod, and says how it ended."""

    is_local = False

    def start(self) -> None:
        """Read what the cluster holds."""
        self._cluster = Cluster(**json.loads(Path(os.environ[PLACE]).read_text(encoding="utf-8")))
        self._pods: dict[Any, tuple[subprocess.Popen[bytes], Path]] = {}

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for workload in workload_items:
            key = workload.ti.key
            self.queued_tasks.pop(key)
            self.running.add(key)
            scratch = Path(tempfile.mkdtemp(prefix="pod-"))
            script = script_of(self._cluster, self._pod_of(workload), scratch)
            with (scratch / "output").open("wb") as output:
                # Through a file: the command line would show the task's token.
                (scratch / "pod.sh").write_text(script, encoding="utf-8")
                process = subprocess.Popen(
                    [*NAMESPACES, "bash", str(scratch / "pod.sh")], stdout=output, stderr=output, start_new_session=True
                )
            self._pods[key] = process, scratch

    def _pod_of(self, workload: Any) -> dict[str, Any]:
        from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
        from kubernetes.client import ApiClient

        pod = PodGenerator.construct_pod(
            dag_id=workload.ti.dag_id,
            task_id=workload.ti.task_id,
            run_id=workload.ti.run_id,
            try_number=workload.ti.try_number,
            map_index=workload.ti.map_index,
            pod_id=f"pod-{workload.ti.id}",
            kube_image="",
            date=None,
            args=[*RUN_TASK, workload.model_dump_json()],
            pod_override_object=PodGenerator.from_obj(workload.ti.executor_config or {}),
            base_worker_pod=PodGenerator.deserialize_model_dict(self._cluster.template),
            namespace="airflow",
            scheduler_job_id="1",
            with_mutation_hook=True,
        )
        found: dict[str, Any] = ApiClient().sanitize_for_serialization(pod)
        return found

    def sync(self) -> None:
        """Say which pods have ended, with the last lines of those that failed."""
        for key, (process, scratch) in list(self._pods.items()):
            status = process.poll()
            if status is None:
                continue
            del self._pods[key]
            if status == 0:
                self.success(key)
            else:
                sys.stderr.buffer.write((scratch / "output").read_bytes()[-4000:])
                self.fail(key)
            shutil.rmtree(scratch, ignore_errors=True)

    def end(self) -> None:
        """End what runs."""
        self.terminate()

    def terminate(self) -> None:
        """End what runs."""
        for process, _ in self._pods.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
