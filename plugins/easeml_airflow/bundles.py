"""The DAGs that come with this package, as a DAG bundle: they change with each upgrade, and nothing is copied.

In Airflow's configuration, beside the folder of your own DAGs::

    [dag_processor]
    dag_bundle_config_list = [
      {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}},
      {"name": "easeml", "classpath": "easeml_airflow.bundles.ExampleDagBundle", "kwargs": {}}]
"""

from __future__ import annotations

from typing import Any

from airflow.dag_processing.bundles.local import LocalDagBundle


class ExampleDagBundle(LocalDagBundle):
    """The folder of the installed package, wherever each machine has it.

    Args:
        kwargs: As of Airflow's ``BaseDagBundle``.
    """

    def __init__(self, **kwargs: Any) -> None:
        from easeml_core.services.operations.example_dags import shipped_folder

        super().__init__(path=str(shipped_folder()), **kwargs)
