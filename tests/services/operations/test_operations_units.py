"""Units of systemd: what each holds, what none holds, and that systemd itself accepts them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from easeml_core.errors import InvalidInputError, StateError
from easeml_core.services.operations.units import MARK, SERVICES, Machine, install, make_unit

BY_NAME = {service.name: service for service in SERVICES}
PROGRAM = ("/bin/true",)  # systemd-analyze looks for the program


def machine(**changes):
    facts = {"program": PROGRAM, "systemd": 257, "is_user": False, "account": "", "secrets": Path("/etc/easeml")}
    return Machine(**facts | {"artifacts": "/srv/two words", "data": "/srv/50%"} | changes)


def lines(name, **changes):
    return make_unit(BY_NAME[name], machine(**changes)).text.splitlines()


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize(
    ("systemd", "pauses"), [(252, {"RestartSec=5"}), (257, {"RestartSec=1", "RestartSteps=5", "RestartMaxDelaySec={}"})]
)
def test_what_ends_is_started_again_for_ever_with_growing_pauses_where_systemd_has_them(name, systemd, pauses):
    text = set(lines(name, systemd=systemd))
    pauses = {line.format(60 if name == "device" else 15) for line in pauses}
    assert {line for line in text if line.startswith("Restart") and line != "Restart=always"} == pauses
    assert {"Restart=always", "StartLimitIntervalSec=0", "KillMode=mixed", "OOMPolicy=continue"} <= text


def test_paths_are_quoted_and_secrets_are_files_of_their_own():
    text = lines("referee")
    keys = "%S/easeml/referee/.easeml/referee"
    assert f'ExecStart=/bin/true referee --artifacts "/srv/two words" --data /srv/50%% --keys {keys}' in text
    assert "LoadCredential=database-url:/etc/easeml/referee.url" in text
    assert "EnvironmentFile=-/etc/easeml/referee.env" in text
    assert 'ReadWritePaths="/srv/two words"' in text
    assert "ExecStart=/bin/true device run --slot %I --artifacts s3://b/c" in lines("device", artifacts="s3://b/c")
    with pytest.raises(InvalidInputError, match="line break"):
        lines("referee", artifacts="/srv/a\nUser=root")


PROC = {"ProtectKernelTunables=yes", "ProtectKernelLogs=yes", "ProcSubset=pid", "RestrictNamespaces=yes"}


@pytest.mark.parametrize(
    ("name", "is_closed"), [("referee", False), ("device", False), ("mlflow", True), ("scheduler", True)]
)
def test_what_makes_sandboxes_keeps_its_namespaces_and_its_own_proc(name, is_closed):
    assert (set(lines(name)) & PROC == PROC) is is_closed
    assert {"ProtectSystem=strict", "PrivateTmp=yes"} <= set(lines(name))


def test_what_announces_devices_sees_them_and_is_closed_otherwise():
    text = set(lines("announce"))
    assert "ExecStart=/bin/true device announce" in text
    assert not {"PrivateDevices=yes", "ProcSubset=pid", "MemoryDenyWriteExecute=yes"} & text
    assert {
        "NoNewPrivileges=yes",
        "RestrictNamespaces=yes",
        "LoadCredential=database-url:/etc/easeml/announce.url",
    } <= text


def test_units_are_written_once_and_those_of_another_hand_are_left(tmp_path):
    units = [make_unit(service, machine()) for service in SERVICES]
    folder = tmp_path / "units"
    assert {path.name for path in install(units, folder)} == {unit.name for unit in units}
    assert install(units, folder) == []
    for other in ("", "[Unit]\nDescription=mine\n"):
        (folder / units[0].name).write_text(other)
        with pytest.raises(StateError, match="--replace"):
            install(units, folder)
    assert [path.name for path in install(units, folder, replace=True)] == [units[0].name]
    assert (folder / units[0].name).read_text().startswith(MARK)
    assert (folder / units[0].name).stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
@pytest.mark.parametrize("is_user", [False, True])
def test_systemd_accepts_them(tmp_path, is_user):
    units = [make_unit(service, machine(is_user=is_user, account="" if is_user else "root")) for service in SERVICES]
    install(units, tmp_path)
    names = [str(tmp_path / f"{unit.start}.service") for unit in units]
    manager = ["--user"] if is_user else ["--system"]
    done = subprocess.run(
        ("systemd-analyze", *manager, "verify", "--man=no", "--recursive-errors=no", *names),
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:", "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
