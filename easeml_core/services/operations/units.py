"""Units of systemd for what of ours runs for ever: referee, scheduler, devices, their announcement, MLflow's mirror.

A unit holds no password: the address of the database is a credential (``LoadCredential=``), which a command reads from
the folder that systemd names in ``CREDENTIALS_DIRECTORY``, or a line of a file that only root reads
(``EnvironmentFile=``).

The referee and devices run models in sandboxes that they make themselves, in namespaces with a separate /proc.
systemd's options that lay something over /proc (ProtectKernelTunables=, ProtectKernelLogs=, ProtectProc=, ProcSubset=)
keep a process without root's rights from mounting one there, see mount_namespaces(7), and RestrictNamespaces= forbids
all of it: they are given to units without models alone.
Man pages: systemd.service(5), systemd.exec(5), systemd.unit(5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError, StateError
from easeml_core.files.local import write_durably

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MARK = (
    "# Written by `easeml service install`. Change it with `systemctl edit`, which keeps what you add in another file."
)
CREDENTIAL = "database-url"
"""Name of the credential that holds the address of the database."""

STEPS_VERSION = 254
"""The first systemd with RestartSteps= and RestartMaxDelaySec=."""

HARDENING = (
    "LockPersonality=yes",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHome=read-only",
    "ProtectHostname=yes",
    "ProtectKernelModules=yes",
    "ProtectSystem=strict",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "UMask=0007",
)
CLOSED = (
    "MemoryDenyWriteExecute=yes",
    "NoNewPrivileges=yes",
    "PrivateDevices=yes",
    "ProcSubset=pid",
    "ProtectKernelLogs=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "RestrictNamespaces=yes",
)
OF_DEVICES = ("MemoryDenyWriteExecute=yes", "PrivateDevices=yes", "ProcSubset=pid")
"""What hides the devices of a driver, /proc/driver and /proc/cpuinfo, or is not known to suit the driver's library."""

FOR_USERS = ("LockPersonality=yes", "RestrictRealtime=yes", "SystemCallArchitectures=native", "UMask=0077")
"""What a service manager without root's rights can do as well."""


@dataclass(frozen=True, slots=True)
class Service:
    """A command of ours that runs for ever.

    Attributes:
        name: As it is asked for.
        unit: File name of the unit; one with ``@`` is a template, whose instance is the device's slot.
        title: What it is, for ``systemctl status``.
        command: Arguments of ``easeml``.
        role: Which role of the database its address names.
        stop_seconds: How long it may take to end what it has begun.
        pause_seconds: The longest pause before a start. systemd counts all starts since the last one by hand, however
            long the service ran in between, so this is what most starts wait; a device ends whenever nothing is left.
        runs_models: Whether it makes sandboxes.
        lists_devices: Whether it asks the driver of GPUs, and reads what the host has.
    """

    name: str
    unit: str
    title: str
    command: tuple[str, ...]
    role: str
    stop_seconds: int
    pause_seconds: int = 15
    runs_models: bool = True
    lists_devices: bool = False


SERVICES = (
    Service("referee", "easeml-referee.service", "Referee of Ease.ml", ("referee",), "easeml_referee", 900),
    Service("scheduler", "easeml-scheduler.service", "Scheduler of Ease.ml", ("scheduler",), "easeml_scheduler", 120,
            runs_models=False),
    Service("device", "easeml-device@.service", "Device of Ease.ml, slot %I", ("device", "run", "--slot", "%I"),
            "easeml_worker", 120, 60),
    Service("announce", "easeml-announce.service", "Devices of this host, announced to Ease.ml", ("device", "announce"),
            "easeml_worker", 30, runs_models=False, lists_devices=True),
    Service("mlflow", "easeml-mlflow.service", "Mirror of Ease.ml in MLflow", ("mlflow", "sync", "--watch"),
            "easeml_worker", 120, runs_models=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the units are to run.

    Attributes:
        program: The words that start ``easeml``; the first one is an absolute path.
        systemd: Its major version.
        is_user: Whether it is a person's own service manager.
        account: Under which the services run; "" for a name per service (not with ``is_user``).
        secrets: Folder of credentials and environment files.
        artifacts: Folder or address of models and data; "" for the one that the database names.
        data: Folder of the tenants' files; "" for none.
    """

    program: tuple[str, ...]
    systemd: int
    is_user: bool
    account: str
    secrets: Path
    artifacts: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """One file of systemd.

    Attributes:
        name: File name.
        text: Its content.
        needs: What must be there before it is started: the file of its credential.
        start: With which name it is enabled; of a template with the instance of the processor.
    """

    name: str
    text: str
    needs: Path
    start: str


def make_unit(service: Service, machine: Machine) -> Unit:
    """The unit of a service on a machine."""
    credential = machine.secrets / f"{service.name}.url"
    sections = {
        "Unit": _unit_lines(service, machine),
        "Service": _service_lines(service, machine, credential),
        "Install": [f"WantedBy={'default' if machine.is_user else 'multi-user'}.target"],
    }
    text = "\n\n".join("\n".join([f"[{name}]", *lines]) for name, lines in sections.items())
    start = service.unit.replace("@.", "@cpu.").removesuffix(".service")
    return Unit(service.unit, f"{MARK}\n\n{text}\n", credential, start)


def _unit_lines(service: Service, machine: Machine) -> list[str]:
    lines = [f"Description={service.title}", "Documentation=man:systemd.service(5)"]
    if not machine.is_user:  # a person's manager has no unit of the network
        lines += ["Wants=network-online.target", "After=network-online.target"]
    return [*lines, "# No limit of starts: the pause between two grows instead, and no outage is too long.",
            "StartLimitIntervalSec=0"]  # fmt: skip


def _service_lines(service: Service, machine: Machine, credential: Path) -> list[str]:
    file = plain_path(machine.secrets / f"{service.name}.env")
    lines = [f"ExecStart={' '.join(_command(service, machine))}"]
    lines += [f"LoadCredential={CREDENTIAL}:{plain_path(credential)}", f"EnvironmentFile=-{file}"]
    if not machine.is_user:
        place = f"easeml/{service.name}"
        lines += [f"User={machine.account or f'easeml-{service.name}'}", f"WorkingDirectory=%S/{place}"]
        lines += [f"StateDirectory={place}", f"CacheDirectory={place}", f"Environment=EASEML_CACHE=%C/{place}"]
    lines += _restart_lines(machine.systemd, service.pause_seconds)
    # The service alone is asked to stop, which ends its children in order; a child that is killed for its memory ends
    # its own job, not the service.
    lines += [f"TimeoutStopSec={service.stop_seconds}", "KillMode=mixed", "OOMPolicy=continue"]
    return lines + _hardening_lines(service, machine)


def _command(service: Service, machine: Machine) -> list[str]:
    words = [*map(quoted, machine.program), *service.command]
    if service.runs_models and machine.artifacts:
        words += ["--artifacts", quoted(machine.artifacts)]
    if service.name == "referee" and machine.data:
        words += ["--data", quoted(machine.data)]
    if service.name == "referee":  # named, so that no change of the working folder is one of the signing key
        words += ["--keys", "%h/.easeml/referee" if machine.is_user else "%S/easeml/referee/.easeml/referee"]
    return words


def _restart_lines(systemd: int, most_seconds: int) -> list[str]:
    """Start again after whatever end, SIGTERM from a stranger included; only ``systemctl stop`` is an end."""
    if systemd >= STEPS_VERSION:
        return ["Restart=always", "RestartSec=1", "RestartSteps=5", f"RestartMaxDelaySec={most_seconds}"]
    return ["Restart=always", "RestartSec=5"]


def _hardening_lines(service: Service, machine: Machine) -> list[str]:
    if machine.is_user:
        return sorted(FOR_USERS)
    closed = [line for line in CLOSED if not (service.lists_devices and line in OF_DEVICES)]
    lines = [*HARDENING, *(() if service.runs_models else closed)]
    folders = [place for place in (machine.artifacts,) if place.startswith("/") and service.runs_models]
    lines += [f"ReadWritePaths={quoted(folder)}" for folder in folders]
    if service.name == "referee" and machine.data.startswith("/"):
        lines.append(f"ReadOnlyPaths={quoted(machine.data)}")
    return sorted(lines)


def quoted(word: str) -> str:
    r"""A word of a command line or a path in a list, as systemd reads it.

    Example:
        >>> quoted("/srv/two words"), quoted("50%$")
        ('"/srv/two words"', '50%%$$')
    """
    plain = _one_line(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("%", "%%")
    return f'"{plain}"' if not plain or any(character in plain for character in " \t'\";") else plain


def plain_path(path: Path) -> str:
    """A path that is the whole value of a line, where systemd knows specifiers but no quotes."""
    return _one_line(str(path)).replace("%", "%%")


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text:
        message = f"{text!r} holds a line break, which no line of a unit can hold; name another path"
        raise InvalidInputError(message)
    return text


def install(units: Iterable[Unit], folder: Path, *, replace: bool = False) -> list[Path]:
    """Write the units whose files differ; gives those files."""
    found = {folder / unit.name: unit.text for unit in units}
    for path in found:
        if path.exists() and not replace and not path.read_text(encoding="utf-8").startswith(MARK):
            message = f"{path} was not written by `easeml service install`; move it away, or give --replace"
            raise StateError(message)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path, text in found.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_durably(path, text, mode=0o644)
            written.append(path)
    return written
