"""GPUs and CPUs: networks wait for one of two GPUs, all else trains on the CPUs beside them."""

from airflow.sdk import DAG

from easeml_airflow import operators as easeml

GPUS, CPUS = 2, 4  # airflow pools set easeml_gpus 2 "GPUs"; airflow pools set easeml_cpus 4 "CPUs"

with DAG("cookbook_gpu_pool", schedule=None, catchup=False, max_active_runs=1):
    for kind, slots in (("gpu", GPUS), ("cpu", CPUS)):
        for number in range(slots):
            easeml.RunDeviceOperator(
                task_id=f"{kind}_{number}",
                device=kind,
                pool=f"easeml_{kind}s",
                queue=kind,  # workers with such devices listen to it
                until=8 * 3600,
            )
