"""A stream on Kubernetes: three pods that train on the CPU, and two with a GPU each, until nothing is left to train.

Airflow maps no ``executor_config``, so there is one task for each kind of device, mapped over its devices. A candidate
names the kinds that it may run on in its `devices`; the device asks for those alone.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from easeml_airflow.operators import RunDeviceOperator
from easeml_airflow.operators.pods import device_pod

DEVICES = {"cpu": 3, "gpu": 2}
PODS = {
    "cpu": device_pod(cpus=1, memory="6Gi"),
    "gpu": device_pod(gpus=1, cpus=4, memory="24Gi", node_selector={"accelerator": "nvidia-l4"}),
}

with DAG(
    dag_id="easeml_devices_by_kind",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1000,
    default_args={"easeml_conn_id": "easeml_default", "retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["easeml"],
):
    for kind, count in DEVICES.items():
        RunDeviceOperator.partial(
            task_id=f"run_{kind}",
            until=8 * 3600,
            pool="easeml_devices",
            executor_config=PODS[kind],
        ).expand(device=[kind] * count)
