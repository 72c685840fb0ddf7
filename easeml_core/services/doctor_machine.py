"""This machine: room on its disks, who may read the secrets, and whether there is a GPU that torch can use."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from importlib import util
from pathlib import Path

from easeml_core.errors import EasemlError, reason_of
from easeml_core.remote.cache import default_folder
from easeml_core.services.checks import Check

LITTLE_BYTES, NO_BYTES = 5_000_000_000, 500_000_000
CUDA_SECONDS = 120.0
_CUDA = (
    "import torch; n = torch.cuda.device_count(); print(*[torch.cuda.get_device_name(i) for i in range(n)], sep=', ')"
)
_SECRETS = ("postgres/secrets.json", "keys.json", "airflow/passwords.json")


def check_disk(artifacts: str, home: Path) -> list[Check]:
    """Free room where models and data, the cache, and the embedded installation's state lie."""
    places: dict[str, str | Path] = {"artifacts": artifacts, "data": home}
    try:
        places["cache"] = default_folder()
    except EasemlError as error:
        return [*_rooms(places), Check("disk: cache", "warning", str(error))]
    return _rooms(places)


def _rooms(places: dict[str, str | Path]) -> list[Check]:
    return [_room(f"disk: {name}", place) for name, place in places.items()]


def _room(name: str, place: str | Path) -> Check:
    if "://" in str(place):
        return Check(name, "skipped", f"{str(place).partition('://')[0]}:// has no disk of this machine")
    there = _nearest(Path(place))
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check(name, "failed", f"{place} cannot be looked at: {reason_of(error)}", "give this account access")
    found = f"{free / 1e9:,.1f} GB free at {place}"
    if free >= LITTLE_BYTES:
        return Check(name, "ok", found)
    remedy = "make room, or name another place (--artifacts, EASEML_CACHE)"
    return Check(name, "failed" if free < NO_BYTES else "warning", found, remedy)


def _nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above that is there already."""
    path = path.absolute()
    return path if path.exists() or path == path.parent else _nearest(path.parent)


def check_temporary_folder() -> Check:
    """Trainings and uploads need a folder for what they throw away."""
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile():
            pass
    except OSError as error:
        remedy = "set TMPDIR to a folder that this account may write to"
        return Check("TMPDIR", "failed", f"nothing can be written: {reason_of(error)}", remedy)
    found = _room("TMPDIR", folder)
    remedy = "set TMPDIR to a folder with more room" if found.state != "ok" else ""
    return Check("TMPDIR", found.state, found.found, remedy)


def check_secrets(home: Path) -> Check:
    """Passwords and keys of the embedded installation are for its owner alone."""
    if not home.is_dir():
        return Check("secrets", "skipped", f"there is no {home} here")
    try:
        open_to_others = [name for name in _SECRETS if _is_open(home / name)]
        others_may_write = bool(stat.S_IMODE(home.stat().st_mode) & 0o022)
    except OSError as error:
        return Check("secrets", "skipped", f"{home} cannot be looked at: {reason_of(error)}")
    if open_to_others:
        files = " ".join(str(home / name) for name in open_to_others)
        remedy = f"chmod 600 {files}, and make new passwords: others may have read these"
        return Check("secrets", "failed", f"other accounts may read {files}", remedy)
    if others_may_write:
        return Check("secrets", "failed", f"other accounts may write to {home}", f"chmod go-w {home}")
    return Check("secrets", "ok", f"those in {home} are readable by their owner alone")


def _is_open(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except (FileNotFoundError, PermissionError):  # the latter: a folder that is not ours is closed to others
        return False


def check_cuda() -> Check:
    """Whether torch finds a GPU; asked in a process of its own, since importing it takes seconds and memory."""
    if util.find_spec("torch") is None:
        return Check("devices", "skipped", "torch is not installed")
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidia0").exists():
        return Check("devices", "ok", f"no NVIDIA GPU; trainings use {os.cpu_count()} processor cores")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CUDA], capture_output=True, text=True, timeout=CUDA_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("devices", "warning", f"torch does not say what it finds: {error}", "try `import torch` by hand")
    names = done.stdout.strip()
    if not names:
        remedy = "install a torch that is built for this driver's CUDA, see pytorch.org"
        return Check("devices", "warning", "there is an NVIDIA driver, but torch finds no GPU", remedy)
    return Check("devices", "ok", f"GPU: {names}")
