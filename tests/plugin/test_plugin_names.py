"""What DAG authors import, that it brings in nothing heavy, and the decorator's two forms."""

import doctest
import importlib
import json
import subprocess
import sys

PACKAGES = [
    "easeml_airflow.operators",
    "easeml_airflow.sensors",
    "easeml_airflow.decorators",
    "easeml_airflow.notifications",
]
HEAVY = ("numpy", "scipy", "torch", "sklearn", "pandas", "sqlalchemy", "psycopg2", "fastapi", "skops", "jinja2.sandbox")
PROGRAM = """
import json, runpy, sys, time
import airflow.sdk, airflow.plugins_manager, airflow.triggers.base, pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, Param, dag, task, task_group
for what in sys.argv[1:]:
    before, start = set(sys.modules), time.process_time()
    for path in what.split():
        if path.endswith(".py"):
            runpy.run_path(path)
        elif path == "plugin":
            from easeml_airflow.plugin import EasemlPlugin
            EasemlPlugin().external_views
        else:
            package = __import__(path, fromlist=["*"])
            [getattr(package, name) for name in package.__all__]
    print(json.dumps({"new": sorted(set(sys.modules) - before), "seconds": time.process_time() - start}))
"""


def test_the_examples_in_docstrings_hold(root):
    """Of every module; pytest itself collects those of two."""
    texts = {path: path.read_text() for path in sorted((root / "plugins" / "easeml_airflow").rglob("*.py"))}
    shown = [
        ".".join(path.relative_to(root / "plugins").with_suffix("").parts) for path in texts if ">>>" in texts[path]
    ]
    found = {name: doctest.testmod(importlib.import_module(name)) for name in shown}
    assert len(found) > 20
    assert {name: done for name, done in found.items() if done.failed or not done.attempted} == {}


def test_the_decorator_with_and_without_parentheses():
    from airflow.sdk import DAG

    from easeml_airflow.decorators import trial

    with DAG("decorated", schedule=None) as dag:

        @trial
        def plain(data, parameters, report):
            """Fit something."""

        @trial(task_id="named", pool="easeml_devices", on_failed="skip", easeml_conn_id="other")
        def fitted(data, parameters, report):
            """Fit something else."""

        plain(trial={"trial_id": 3})
        fitted(4)
    one, two = dag.task_dict["plain"], dag.task_dict["named"]
    assert (one.op_kwargs, one.on_failed, one.doc_md) == ({"trial": {"trial_id": 3}}, "fail", "Fit something.")
    assert (two._trial(), two.on_failed, two.pool, two.easeml_conn_id) == (4, "skip", "easeml_devices", "other")


def test_star_names_match_the_specified_ones():
    """Those of operators and sensors are in ``test_plugin_templates.py``."""
    _, _, decorators, notifications = (importlib.import_module(p) for p in PACKAGES)
    assert notifications.__all__ == ["EasemlNotifier", "FunctionNotifier", "MailNotifier", "WebhookNotifier"]
    assert decorators.__all__ == ["trial"]


def test_no_heavy_module_is_added_by_the_plugin_class_by_dags_and_by_public_names(root):
    """In this order, so that each has what it needs by itself, or what Airflow loads before it in any component."""
    dags = map(str, sorted((root / "dags").glob("*.py")))
    given = ["plugin", " ".join(dags), " ".join(PACKAGES)]
    found = subprocess.run([sys.executable, "-c", PROGRAM, *given], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    for what, line in zip(given, found.stdout.splitlines()[-3:], strict=True):
        cost = json.loads(line)
        assert [m for m in cost["new"] if m.startswith(HEAVY)] == [], what
        ours = {m for m in cost["new"] if m.startswith("easeml_core.")}
        # Airflow has imported msgspec by then, which is what `encoding` needs.
        light = ("errors", "entities", "gate", "lazy", "actions", "actions.action", "actions.studies")
        light += (
            "formats",
            "formats.encoding",
            "settings",
            *(f"settings.{n}" for n in ("config", "connection", "limits")),
        )
        assert ours <= {f"easeml_core.{name}" for name in light}, what
        # Of processor time; about 0.1 s on the machine this was written on.
        assert cost["seconds"] < 3.0, what
