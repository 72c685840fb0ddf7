"""Hatch's build hook: a wheel carries the files of ``dags/`` as ``easeml_airflow/example_dags``.

An editable installation must not: the folder would be copied into site-packages as a second ``easeml_airflow``, which
hides the package of the checkout. There `easeml dags copy` reads ``dags/`` itself.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ExampleDagsHook(BuildHookInterface[Any]):
    """Adds the DAGs to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them, unless the installation is editable.

        Args:
            version: ``standard`` or ``editable``.
            build_data: What hatch builds from; changed.
        """
        if version == "standard":
            build_data["force_include"]["dags"] = "easeml_airflow/example_dags"
