"""The door for folder installs: Airflow's loader reads this file, and this file alone, in the plugins folder.

Where the wheel is installed too, its entry point already offers the plugin. A second one under the same name would be
an import error on the server, and on a worker it would silently stop the loading of all other plugins.
"""

from __future__ import annotations

from importlib.metadata import entry_points

if not any(entry.value.startswith("easeml_airflow.") for entry in entry_points(group="airflow.plugins")):
    from easeml_airflow.plugin import EasemlPlugin as EasemlPlugin
