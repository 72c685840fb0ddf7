"""Parsing a DAG and importing every public name brings in nothing heavy."""

import json
import subprocess
import sys

import pytest

HEAVY = ("numpy", "scipy", "torch", "sklearn", "pandas", "sqlalchemy", "psycopg2", "fastapi", "skops", "jinja2.sandbox")
PROGRAM = """
import json, runpy, sys, time
import airflow.sdk, airflow.plugins_manager, airflow.triggers.base, pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, Param, dag, task, task_group
before, start = set(sys.modules), time.perf_counter()
for path in sys.argv[1:]:
    if path.endswith(".py"):
        runpy.run_path(path)
    else:
        package = __import__(path, fromlist=["*"])
        [getattr(package, name) for name in package.__all__]
print(json.dumps({"new": sorted(set(sys.modules) - before), "seconds": time.perf_counter() - start}))
"""


def parse(*what):
    found = subprocess.run([sys.executable, "-c", PROGRAM, *what], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


KINDS = ("operators", "sensors", "decorators", "notifications")
PACKAGES = [f"easeml_airflow.{kind}" for kind in KINDS]


@pytest.mark.parametrize("what", ["names", "dags"])
def test_no_heavy_module_is_added(root, what):
    cost = parse(*(PACKAGES if what == "names" else map(str, sorted((root / "dags").glob("*.py")))))
    assert [m for m in cost["new"] if m.startswith(HEAVY)] == []
    ours = {m for m in cost["new"] if m.startswith("easeml_core.")}
    # Airflow has imported msgspec by then, which is what `encoding` needs.
    light = ("errors", "faults", "config", "connection", "entities", "gate", "lazy", "encoding", "limits")
    assert ours <= {f"easeml_core.{name}" for name in light}
    # About 0.1 s on the machine this was written on; generous, since other tests run beside this one.
    assert cost["seconds"] < 3.0


def test_the_plugin_class_is_light():
    program = (
        "import sys\nimport airflow.sdk, airflow.plugins_manager\nbefore = set(sys.modules)\n"
        "from easeml_airflow.plugin import EasemlPlugin\nEasemlPlugin().external_views\n"
        f"print([m for m in set(sys.modules) - before if m.startswith({HEAVY!r})])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stdout.splitlines()[-1] == "[]", found.stderr
