"""What the pod of a training task asks for on Kubernetes: GPUs, memory, the nodes that have them.

It is laid over the pod template in the values of the chart (``docs/examples/kubernetes/values.yaml``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import ConfigError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

SHARED_MEMORY = "shared-memory"


def device_pod(
    *,
    gpus: int = 0,
    cpus: float | str = 1,
    memory: str = "6Gi",
    gpu_resource: str = "nvidia.com/gpu",
    node_selector: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the ``executor_config`` of a task whose pod has this device, on KubernetesExecutor; others ignore it.

    It is laid over the installation's pod template, so that image, volumes and secrets stay those of every task; the
    container's resources are these alone, since Airflow does not merge them. A pod with GPUs has shared memory up to
    its memory, as processes that train together need; the default of Kubernetes is 64 MB.

    Args:
        gpus: Whole GPUs of the pod, >= 0. Several are for candidates that train on several devices.
        cpus: Cores that are reserved, as Kubernetes writes them: ``4`` or ``"500m"``. A task may use more.
        memory: Memory that is reserved, and the limit: ``memory_limit_mb`` of the study, and 2 GiB for Airflow's task
            and the fork server.
        gpu_resource: Name under which the cluster counts GPUs or parts of them, such as ``nvidia.com/mig-1g.10gb``.
        node_selector: Labels of the nodes that may run it.

    Raises:
        ConfigError: A number is negative, or no quantity of Kubernetes.
        InvalidInputError: The provider for Kubernetes is not installed.

    Example:
        One task for each kind of device::

            for kind, pod in {"cpu": device_pod(), "gpu": device_pod(gpus=1, memory="24Gi")}.items():
                RunDeviceOperator(task_id=f"run_{kind}", device=kind, executor_config=pod)
    """
    try:
        from kubernetes.client import models as k8s
    except ImportError as error:
        message = f"device_pod needs a package ({error}): pip install apache-airflow-providers-cncf-kubernetes"
        raise InvalidInputError(message) from error
    if type(gpus) is not int or gpus < 0:
        raise ConfigError(field="gpus", value=gpus, allowed="a whole number >= 0")
    requests = {"cpu": _quantity("cpus", cpus), "memory": _quantity("memory", memory)}
    limits = {"memory": requests["memory"]}
    container, spec = k8s.V1Container(name="base"), k8s.V1PodSpec(containers=[])
    if gpus:
        limits[gpu_resource] = str(gpus)  # the request of such a resource is its limit
        container.volume_mounts = [k8s.V1VolumeMount(name=SHARED_MEMORY, mount_path="/dev/shm")]  # noqa: S108 - in the container
        spec.volumes = [k8s.V1Volume(name=SHARED_MEMORY, empty_dir=k8s.V1EmptyDirVolumeSource(medium="Memory"))]
    container.resources = k8s.V1ResourceRequirements(requests=requests, limits=limits)
    spec.containers, spec.node_selector = [container], dict(node_selector) if node_selector else None
    return {"pod_override": k8s.V1Pod(spec=spec)}


def _quantity(name: str, value: float | str) -> str:
    """Return a quantity as Kubernetes writes it."""
    from kubernetes.utils.quantity import parse_quantity

    try:
        if parse_quantity(str(value)) > 0:
            return str(value)
    except ValueError:
        pass  # the same error as for a number that is too small
    raise ConfigError(name, value, "a positive quantity of Kubernetes, such as 4, 500m or 16Gi")
