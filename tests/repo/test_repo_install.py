"""Installation: pip's settings as uv's, what an interruption or a failure leaves, and what each selection contains."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
install = importlib.import_module("install")
pip_settings = importlib.import_module("pip_settings")
uv_options = pip_settings.uv_options

PROXY = {"ALL_PROXY": "p", "HTTP_PROXY": "p", "HTTPS_PROXY": "p"}


@pytest.mark.parametrize(
    ("settings", "environment", "options", "variables"),
    [
        ({"find-links": "https://u:secret@a /b", "quiet": "1"}, {}, [], {"UV_FIND_LINKS": "https://u:secret@a,/b"}),
        ({"find-links": "/a"}, {"UV_FIND_LINKS": "/own"}, [], {}),
        ({"pre": "1", "constraint": "/c"}, {"UV_PRERELEASE": "disallow", "UV_CONSTRAINT": "/d"}, [], {}),
        ({"constraint": "/c"}, {}, ["--constraint", "/c"], {}),
        ({"no-index": "1", "pre": "false"}, {}, ["--no-index"], {}),
        ({"trusted-host": "h"}, {}, ["--allow-insecure-host", "h"], {}),
        ({"index-url": "i"}, {}, [], {"UV_DEFAULT_INDEX": "i"}),
        ({"index-url": "i"}, {"UV_INDEX_URL": "own"}, [], {}),
        ({"extra-index-url": "x y"}, {}, [], {"UV_INDEX": "x y", "UV_INDEX_STRATEGY": "unsafe-best-match"}),
        ({"extra-index-url": "x"}, {"UV_INDEX_STRATEGY": "first-index"}, [], {"UV_INDEX": "x"}),
        ({"extra-index-url": "x"}, {"UV_INDEX": "own"}, [], {}),
        ({"cert": "/pem"}, {"SSL_CERT_FILE": "/all"}, [], {"SSL_CERT_FILE": "/pem"}),
        ({"default-timeout": "9"}, {}, [], {"UV_HTTP_TIMEOUT": "9"}),
        ({"proxy": "p"}, {"HTTPS_PROXY": "all"}, [], PROXY),
    ],
)  # fmt: skip
def test_uv_gets_the_settings_of_pip(
    settings: dict[str, str], environment: dict[str, str], options: list[str], variables: dict[str, str]
) -> None:
    assert uv_options(settings, environment) == (options, variables)


def test_a_setting_that_uv_does_not_have_is_refused() -> None:
    with pytest.raises(pip_settings.UnsupportedSettingError, match="require-hashes"):
        uv_options({"require-hashes": "true"}, {})


def test_a_variable_takes_precedence_over_a_section_and_that_over_the_global_one() -> None:
    lines = ["install.pre='true'", "global.pre='no'", ":env:.timeout='60'", "global.timeout='9'", "wheel.no-index='1'"]
    assert pip_settings.merge_settings(lines) == {"pre": "true", "timeout": "60"}


def test_everything_contains_what_the_demo_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(selection: str) -> set[str]:
        extras = install.SELECTIONS[selection].extras.split(",")
        return {Requirement(text).name for extra in extras for text in project["optional-dependencies"][extra]}

    assert names("demo") < names("everything")
    assert not names("demo") & {"mkdocs-material", "mlflow", "mypy", "pytest", "ruff"}


class Bench:
    """An environment in a folder, whose installers are the test's functions.

    Args:
        folder: An empty one.
        monkeypatch: Replaces what would start a process.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.packages = folder / "venv", folder / "venv/lib/python3.11/site-packages"
        self.input = folder / "input"
        self.input.touch()
        os.utime(self.input, (1, 1))
        self.ran: list[str] = []
        self.made = 0
        monkeypatch.setattr(install, "REPOSITORY", folder)
        monkeypatch.setattr(install.venv, "create", self._create)
        monkeypatch.setattr(install, "settings_of", lambda python: {})
        monkeypatch.setattr(install.Environment, "_ended_well", lambda *arguments: True)
        monkeypatch.setattr(install.Environment, "_run", self._run)
        self.statuses: dict[str, int] = {}
        self.changes = self.interrupted = ""

    def _create(self, folder: Path, **options: bool) -> None:
        self.made += 1
        self.packages.mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "python").touch()

    def _run(self, command: Sequence[str], variables: object = None) -> int:
        tool = "compileall" if "compileall" in command else "get uv" if install.UV in command else Path(command[0]).name
        self.ran.append(tool)
        if tool == self.changes:
            (self.packages / "half").mkdir()
            os.utime(self.packages, (2, 2))
        if tool == self.interrupted:
            raise KeyboardInterrupt
        return self.statuses.get(tool, 0)

    def install(self, selection: str) -> int:
        self.ran.clear()
        status: int = install.main(self.folder, install.SELECTIONS[selection], [self.input])
        return status

    @property
    def stamps(self) -> set[str]:
        return {entry.name for entry in self.folder.iterdir() if entry.name.startswith(".inst")}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_everything_satisfies_the_demo_until_an_input_changes(bench: Bench) -> None:
    assert bench.install("everything") == 0
    assert bench.ran == ["get uv", "uv", "compileall"]
    assert bench.stamps == {".installed", ".installed-celery", ".installed-demo"}
    (bench.folder / ".installed-demo").unlink()  # as an environment of an earlier release has none
    assert (bench.install("demo"), bench.ran) == (0, [])
    assert bench.stamps == {".installed", ".installed-celery", ".installed-demo"}
    os.utime(bench.input, (1e10, 1e10))
    assert (bench.install("demo"), bench.ran) == (0, ["get uv", "uv", "compileall"])
    assert bench.stamps == {".installed-demo"}
    assert bench.made == 1


@pytest.mark.parametrize("failed", ["get uv", "uv"])
def test_pip_installs_where_uv_cannot(bench: Bench, failed: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench.statuses[failed] = 2
    assert bench.install("demo") == 0
    assert bench.ran[-2:] == ["python", "compileall"]
    assert "pip installs it" in capsys.readouterr().out
    assert bench.stamps == {".installed-demo"}


def test_a_failure_before_any_change_leaves_the_environment_as_it_was(bench: Bench) -> None:
    bench.install("demo")
    stamp = bench.folder / ".installed-demo"
    before = stamp.stat().st_mtime_ns
    bench.changes = "get uv"  # a newer one, or the first
    bench.statuses |= {"uv": 2, "python": 1}
    assert bench.install("everything") == 1
    assert bench.stamps == {".installed-demo"}
    assert stamp.stat().st_mtime_ns == before


@pytest.mark.parametrize("way", ["failed", "interrupted"])
def test_a_half_made_environment_is_made_anew(bench: Bench, way: str) -> None:
    bench.install("demo")
    bench.changes = "uv"
    if way == "interrupted":
        bench.interrupted = "uv"
    else:
        bench.statuses |= {"uv": 2, "python": 1}
    assert bench.install("everything") == (130 if way == "interrupted" else 1)
    assert bench.stamps == {".installing"}
    bench.changes = bench.interrupted = ""
    bench.statuses.clear()
    assert bench.install("demo") == 0
    assert bench.stamps == {".installed-demo"}
    assert bench.made == 2
    assert not (bench.packages / "half").exists()
