"""Make the virtual environment and install the product into it, with what the demo needs or with everything.

Run by the Makefile with the system's Python before anything is installed; standard library only. uv installs, with
pip's settings (``pip_settings.py``); pip does where uv cannot. The installers' report goes to ``.venv/install.log``; a
terminal shows what is being fetched now.

An installation can be interrupted at any moment, by kill -9 too: a mark in the environment names it unfinished, and the
next one begins with an empty environment. Two at a time wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pip_settings import UnsupportedSettingError, settings_of, uv_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[1]
UV = "uv>=0.9,<1"
EDITABLES = "editables>=0.5"  # the editable installation imports it, and does not declare it
UNFINISHED = ".installing"
TAIL = 25
NOT_STARTED = 126  # as of a shell
QUIET_SECONDS = 20

# Bytecode is compiled beforehand for what the stack's processes import: as root, some of them run under accounts that
# cannot write into the environment and would compile it at every start. These parts are not imported by them.
NOT_COMPILED = (
    r"/site-packages/(.*/)?(tests?|testing|_inductor|physics|lexers)/"
    r"|/site-packages/(PIL|_pytest|dns|fontTools|google|grpc|git|hypothesis|matplotlib|mkdocs|material|mlflow|mpl_toolkits"
    r"|mypy|mypyc|networkx|numpy/distutils|pip|playwright|pyarrow|setuptools|torch/_vendor|torchvision|wcwidth/table_\w+)/"
)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is installed, and the file in the environment that says so.

    Attributes:
        title: For people.
        extras: Of pyproject.toml.
        stamp: Name of the file; it is as old as the beginning of the installation.
        covers: Names of the stamps of the selections that this one contains.
    """

    title: str
    extras: str
    stamp: str
    covers: tuple[str, ...] = ()


SELECTIONS = {
    "demo": Selection("what the demo needs", "boosting,demo,embedded,torch", ".installed-demo"),
    "celery": Selection(
        "what the demo on Celery needs",
        "boosting,celery,demo,embedded,torch",
        ".installed-celery",
        (".installed-demo",),
    ),
    "everything": Selection(
        "everything", "celery,demo,dev,embedded,torch", ".installed", (".installed-celery", ".installed-demo")
    ),
}
STAMPS = tuple(selection.stamp for selection in SELECTIONS.values())


class InstallationFailedError(Exception):
    """No installer could do it.

    Attributes:
        status: The last one's exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[int]:
    """Hold the lock of a folder; gives its descriptor, which installers inherit.

    An installer that outlives its parent thus keeps the lock until it ends.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another installation is under way in this folder; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


class Environment:
    """The virtual environment in a folder.

    Args:
        folder: Where it is or shall be.
        lock: A descriptor that every process started here inherits.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder, self.lock = folder, lock
        self.python = folder / "bin" / "python"
        self.log = folder / "install.log"
        self.unfinished = folder / UNFINISHED

    def make(self) -> None:
        """Make it, unless it is there, works, and no installation into it was interrupted."""
        if self.unfinished.exists():
            print("The last installation was interrupted: beginning with an empty environment", flush=True)
        elif self.python.exists() and self._ended_well("-m", "pip", "--version"):
            return
        self.folder.mkdir(exist_ok=True)
        self.unfinished.touch()
        for entry in self.folder.iterdir():
            if entry == self.unfinished:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        print(f"Making a virtual environment in {self.folder.name} with Python {sys.version.split()[0]}", flush=True)
        venv.create(self.folder, with_pip=True, symlinks=True)
        self.unfinished.unlink()

    def is_current(self, selection: Selection, inputs: Iterable[Path]) -> bool:
        """Whether the selection, or one that contains it, was installed after the last change of the inputs."""
        containing = [s.stamp for s in SELECTIONS.values() if s is selection or selection.stamp in s.covers]
        changed = max(path.stat().st_mtime for path in inputs)
        stamps = [self.folder / name for name in containing]
        return not self.unfinished.exists() and any(s.exists() and s.stat().st_mtime >= changed for s in stamps)

    def install(self, selection: Selection) -> None:
        """Install a selection, by uv or else by pip, and compile its bytecode.

        Raises:
            InstallationFailedError: Neither could.
        """
        wanted = ["-c", "constraints.txt", "-e", f".[{selection.extras}]", EDITABLES]
        print(f"Installing {selection.title} (report: {self.log.relative_to(REPOSITORY)})", flush=True)
        self.log.write_text("", encoding="utf-8")
        # uv alone is no change that could leave the environment half made.
        has_uv = self._run(self._pip("install", "--retries", "1", "-c", "constraints.txt", UV)) == 0
        with self._changing():
            reason = self._install_by_uv(wanted) if has_uv else "pip could not install uv"
            if reason:
                show_above(f"pip installs it, which takes longer: {reason}")
                self._require(self._run(self._pip("install", "--no-compile", *wanted)))
            self._compile()

    def _compile(self) -> None:
        """Compile on all cores; some packages bring files for other versions of Python, so the status says nothing."""
        folders = [str(self._packages()), "easeml_core", "plugins"]
        command = [str(self.python), "-m", "compileall", "-qq", "-j", "0", "-x", NOT_COMPILED, *folders]
        self._run(command, os.environ | {"PYTHONWARNINGS": "ignore"})

    def _install_by_uv(self, wanted: Sequence[str]) -> str:
        """Install by uv; gives the reason why it could not, or an empty text."""
        try:
            options, variables = uv_options(settings_of(self.python), os.environ)
        except UnsupportedSettingError as error:
            return str(error)
        command = [str(self.python.parent / "uv"), "pip", "install", "--python", str(self.python), *options, *wanted]
        status = self._run(command, os.environ | variables)
        return f"uv ended with status {status}{self._first_error()}" if status else ""

    def _first_error(self) -> str:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return next((f" ({line.strip()})" for line in lines if line.startswith("error:")), "")

    def _pip(self, *arguments: str) -> list[str]:
        quiet = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
        return [str(self.python), "-m", "pip", arguments[0], *quiet, *arguments[1:]]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Mark the environment as unfinished for as long as it changes, and afterwards unless it ended well.

        What failed before it changed anything, such as a resolution without a network, leaves it as it was.
        """
        stamps = {path: path.stat() for path in (self.folder / name for name in STAMPS) if path.exists()}
        before = self._packages().stat().st_mtime_ns
        self.unfinished.touch()
        for path in stamps:
            path.unlink()
        try:
            yield
        except InstallationFailedError:
            if self._packages().stat().st_mtime_ns == before:
                for path, status in stamps.items():
                    path.touch()
                    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
                self.unfinished.unlink()
            raise
        self.unfinished.unlink()

    def _require(self, status: int) -> None:
        if status:
            raise InstallationFailedError(status)

    def _packages(self) -> Path:
        return next((self.folder / "lib").glob("python3.*")) / "site-packages"

    def _ended_well(self, *arguments: str) -> bool:
        return subprocess.run([self.python, *arguments], capture_output=True, check=False).returncode == 0

    def _run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        """Run an installer in the repository, its output in the report; gives its exit status."""
        show = Ticker()
        with self.log.open("a", encoding="utf-8") as report:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=REPOSITORY,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(self.lock,),
                    text=True,
                    errors="replace",
                )
            except OSError as error:  # such as uv in a folder from which nothing may be executed
                report.write(f"error: {command[0]} cannot be started: {error.strerror}\n")
                return NOT_STARTED
            with process:
                for line in process.stdout or ():
                    report.write(line)
                    report.flush()
                    show(line)
        return process.returncode


class Ticker:
    """Shows what an installer does now: in place on a terminal, elsewhere one line every now and then."""

    VERBS = ("Building", "Collecting", "Downloading", "Installing", "Prepared", "Resolved", "Using")

    def __init__(self) -> None:
        self.reported_at = time.monotonic()

    def __call__(self, line: str) -> None:
        """Look at one line of its report."""
        if not line.lstrip().startswith(self.VERBS):
            return
        text = line.strip()[:100]
        if sys.stdout.isatty():
            print(f"\r\033[K  {text}", end="", flush=True)
        elif time.monotonic() - self.reported_at > QUIET_SECONDS:
            self.reported_at = time.monotonic()
            print(f"  {text}", flush=True)


def show_above(text: str) -> None:
    """Print a line that stays, in place of what a terminal shows at the moment."""
    print(("\r\033[K" if sys.stdout.isatty() else "") + text, flush=True)


def main(folder: Path, selection: Selection, inputs: Sequence[Path]) -> int:
    """Make, install, leave the stamps for make.

    Args:
        folder: Of the environment.
        selection: What is to be installed.
        inputs: Files after whose change it is installed again.

    Returns:
        An exit status.
    """
    began = time.time()
    with one_at_a_time(REPOSITORY) as lock:
        environment = Environment(folder, lock)
        if not environment.is_current(selection, inputs):
            try:
                environment.make()
                environment.install(selection)
            except InstallationFailedError as error:
                show_above(f"The installation failed; the end of {environment.log}:")
                print(*environment.log.read_text(encoding="utf-8").splitlines()[-TAIL:], sep="\n")
                print(f"pip ended with {error}")
                return error.status
            except KeyboardInterrupt:
                show_above("Interrupted; the next installation begins anew.")
                return 130
            show_above(f"Installed in {time.time() - began:.0f} s")
        for name in (selection.stamp, *selection.covers):
            (folder / name).touch()
            os.utime(folder / name, (began, began))
    return 0


if __name__ == "__main__":
    sys.exit(main(REPOSITORY / sys.argv[1], SELECTIONS[sys.argv[2]], [REPOSITORY / name for name in sys.argv[3:]]))
