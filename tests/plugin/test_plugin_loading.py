"""The three ways of installing (folder, wheel, both), each in a fresh process that has Airflow but not this package."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.journey

UNFINISHED = shutil.ignore_patterns("*.pyc.*")
"""Bytecode that another process of the tests is about to write: gone before it is copied."""

OURS = ("easeml_airflow", "_editable_impl_easeml_airflow", "__editable__")
BARE = {"plugin", "errors", "links", "settings", "gate", "meter", "trial", "view", "app", "source", "base", "config"}
BARE |= {"entities", "version_compat", "provider_info", "__init__", "listen", "database", "referee", "infer"}

PROGRAM = """
import json, sys
import airflow.plugins_manager as server
import airflow.sdk.plugins_manager as tasks
found = {}
for side, manager in (("server", server), ("tasks", tasks)):
    plugins, errors = manager._get_plugins()
    found[side] = {
        "plugins": [[p.name, str(p.source), type(p).__module__] for p in plugins],
        "errors": {str(k): str(v) for k, v in errors.items()},
    }
from easeml_airflow.plugin import EasemlPlugin
from easeml_airflow.operators import GateOperator
import easeml_core
mine = [p for p in server._get_plugins()[0] if p.name == "easeml"]
found["same_class"] = [type(p) is EasemlPlugin for p in mine]
found["modules"] = sorted(m for m in sys.modules if "." not in m)
found["apps"] = [a["url_prefix"] for a in mine[0].fastapi_apps]
found["views"] = [v["url_route"] for v in mine[0].external_views]
found["core"] = easeml_core.__file__
found["types"] = sys.modules["types"].__file__
print("FOUND " + json.dumps(found))
"""

OTHER = """
from airflow.plugins_manager import AirflowPlugin
class {name}(AirflowPlugin):
    name = "{name}"
"""


def build(root, out, *options):
    """Build offline, as `python -m build` does; return the wheel."""
    command = [sys.executable, "-m", "build", *options, "--no-isolation", "--outdir", str(out), str(root)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    """The wheel of the working tree, by way of the source distribution."""
    return build(root, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Everything installed here but for this package, which an installed one must not be found beside."""
    folder = tmp_path_factory.mktemp("libraries")
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith(OURS) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def load(libraries, tmp_path):
    """Load all plugins with these extra folders on the path, and tell what came of it."""

    def run(plugins, *path):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(libraries), *map(str, path)]),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        }
        # -S: without the site module no .pth file runs, so the editable install of this checkout stays out.
        command = [sys.executable, "-S", "-W", "ignore", "-c", PROGRAM]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=home)
        lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
        assert lines, done.stdout + done.stderr
        return json.loads(lines[0].removeprefix("FOUND "))

    return run


@pytest.fixture
def folder(root, tmp_path):
    """A plugins folder as a person would copy it, without the core."""
    copied = tmp_path / "plugins"
    shutil.copytree(root / "plugins", copied, ignore=UNFINISHED)  # with its bytecode, which need not be compiled anew
    return copied


def unpacked(wheel, tmp_path):
    """The wheel as pip would lay it out."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def check(found, *, source):
    for side in ("server", "tasks"):
        ours = [p for p in found[side]["plugins"] if p[0] == "easeml"]
        assert len(ours) == 1, found[side]
        assert source in ours[0][1]
        assert ours[0][2] == "easeml_airflow.plugin"
        assert found[side]["errors"] == {}
    assert found["same_class"] == [True]
    assert BARE.isdisjoint(found["modules"])
    assert found["apps"] == ["/easeml"]
    assert found["views"] == ["easeml", "easeml-run", "easeml-task"]
    assert found["types"].endswith("types.py")
    assert "easeml" not in found["types"]


def test_folder_with_the_core_beside(load, folder, root):
    shutil.copytree(root / "easeml_core", folder / "easeml_core", ignore=UNFINISHED)
    found = load(folder)
    check(found, source="easeml_plugin.py")
    assert found["core"] == str(folder / "easeml_core" / "__init__.py")


@pytest.mark.nightly
def test_folder_with_the_core_elsewhere_on_the_path(load, folder, root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "easeml_core").symlink_to(root / "easeml_core")
    check(load(folder, tmp_path / "elsewhere"), source="easeml_plugin.py")


def test_wheel_with_an_empty_plugins_folder(load, wheel, tmp_path):
    (tmp_path / "plugins").mkdir()
    found = load(tmp_path / "plugins", unpacked(wheel, tmp_path))
    check(found, source="easeml-airflow==")
    assert found["core"].startswith(str(tmp_path / "site"))


@pytest.mark.nightly
def test_both_at_once_lose_nobody(load, wheel, folder, root, tmp_path):
    """A second plugin of our name would end the loading on the worker's side: the last ones must still be there."""
    shutil.copytree(root / "easeml_core", folder / "easeml_core", ignore=UNFINISHED)
    for name in ("aaa_first", "zzz_last"):
        (folder / f"{name}.py").write_text(OTHER.format(name=name))
    found = load(folder, unpacked(wheel, tmp_path))
    check(found, source="easeml-airflow==")
    for side in ("server", "tasks"):
        assert {p[0] for p in found[side]["plugins"]} >= {"aaa_first", "easeml", "zzz_last"}


@pytest.mark.nightly
def test_without_the_ignore_file_our_files_would_be_modules_of_their_own(load, folder, root, tmp_path):
    """What the ignore file is for; and proof that the checks above would see it."""
    (folder / ".airflowignore").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "easeml_core").symlink_to(root / "easeml_core")
    found = load(folder, tmp_path / "elsewhere")
    assert not BARE.isdisjoint(found["modules"])


def test_the_wheel_holds_both_packages_and_the_page_and_nothing_of_airflow(wheel, root):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = next(archive.read(n).decode() for n in names if n.endswith("entry_points.txt"))
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name.split("/")[0]}
    assert tops == {"easeml_core", "easeml_airflow"}
    web = root / "plugins" / "easeml_airflow" / "web"
    for path in [*web.glob("static/*"), *web.glob("pages/*/*.html"), *web.glob("templates/*")]:
        assert f"easeml_airflow/web/{path.relative_to(web)}" in names
    dags = {name for name in names if name.startswith("easeml_airflow/example_dags/")}
    assert dags == {f"easeml_airflow/example_dags/{path.name}" for path in (root / "dags").glob("*.py")}
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests", "plugins"))]
    assert "easeml = easeml_airflow.plugin:EasemlPlugin" in points
    assert "provider_info = easeml_airflow.provider_info:get_provider_info" in points
    assert any("easeml_core/store/migrations/versions/" in name and "r0001" in name for name in names)
    assert any(name.endswith("easeml_core/store/migrations/initial/studies.sql") for name in names)


def test_the_source_distribution_builds_the_same_wheel(wheel, root, tmp_path):
    assert build(root, tmp_path, "--wheel").read_bytes() == wheel.read_bytes()


def test_an_editable_installation_has_no_second_package_that_hides_the_checkout(root, tmp_path, monkeypatch):
    from hatchling.build import build_editable

    monkeypatch.chdir(root)
    with zipfile.ZipFile(tmp_path / build_editable(str(tmp_path))) as archive:
        assert not [name for name in archive.namelist() if name.startswith(("easeml_airflow/", "easeml_core/"))]


def test_the_dags_of_the_wheel_are_those_that_its_command_copies(wheel, libraries, tmp_path):
    site, target = unpacked(wheel, tmp_path), tmp_path / "dags"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(site), str(libraries)])}
    command = [sys.executable, "-S", "-m", "easeml_core.cli", "dags", "copy", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shipped = {path.name: path.read_text() for path in (site / "easeml_airflow" / "example_dags").iterdir()}
    assert {path.name: path.read_text() for path in target.glob("*.py")} == shipped != {}
