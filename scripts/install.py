"""Make the virtual environment and install the product with its extras into it; standard library only.

Run by the Makefile with the system's Python before anything is installed. Pip's full report goes to
``.venv/install.log``; a terminal shows what is being fetched now.
"""

from __future__ import annotations

import subprocess
import sys
import time
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
EXTRAS = "embedded,demo,torch,dev"
TAIL = 25
QUIET_SECONDS = 20


def make_environment(folder: Path) -> Path:
    """The Python of the environment in the folder, made if there is none that works."""
    python = folder / "bin" / "python"
    works = python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    if not works:
        print(f"Making a virtual environment in {folder.name} with Python {sys.version.split()[0]}", flush=True)
        venv.create(folder, with_pip=True, clear=folder.exists(), symlinks=True)
    return python


def install(python: Path, log: Path) -> int:
    """Install under the committed constraints; gives pip's exit status."""
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
    ]
    command += ["-c", "constraints.txt", "-e", f".[{EXTRAS}]"]
    print(f"Installing the product and what it needs (report: {log.relative_to(REPOSITORY)})", flush=True)
    show = Ticker()
    with log.open("w", encoding="utf-8") as report:
        pip = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in pip.stdout or ():
            report.write(line)
            show(line)
    return pip.wait()


class Ticker:
    """Shows what pip does now: in place on a terminal, elsewhere one line every now and then."""

    def __init__(self) -> None:
        self.reported_at = time.monotonic()

    def __call__(self, line: str) -> None:
        """Look at one line of pip's report."""
        if not line.lstrip().startswith(("Collecting", "Downloading", "Using", "Installing", "Building")):
            return
        text = line.strip()[:100]
        if sys.stdout.isatty():
            print(f"\r\033[K  {text}", end="", flush=True)
        elif time.monotonic() - self.reported_at > QUIET_SECONDS:
            self.reported_at = time.monotonic()
            print(f"  {text}", flush=True)


def main(folder: Path) -> int:
    """Make, install, leave a stamp for make."""
    began = time.monotonic()
    python = make_environment(folder)
    log = folder / "install.log"
    status = install(python, log)
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    if status:
        print(*log.read_text(encoding="utf-8").splitlines()[-TAIL:], sep="\n")
        print(f"The installation failed (pip ended with status {status}); the whole report is in {log}")
        return status
    (folder / ".installed").touch()
    print(f"Installed in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(REPOSITORY / sys.argv[1]))
