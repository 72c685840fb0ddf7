"""Claims of GPUs: whole ones and parts, among processes and accounts, until the holder ends in whatever way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import DevicesHeldError, StateError
from easeml_core.sandbox.child_start import clean_environment
from easeml_core.training import devices
from easeml_core.training.devices import DetectedDevice, claimed, described, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GPUS = tuple(DetectedDevice("h", f"cuda:{n}", "L4", 23_034, "550", 1, f"GPU-{n}{n}") for n in range(4))
HOLD = """
import sys, time
from easeml_core.training.devices import claimed
from easeml_core.training.devices import DetectedDevice

gpu = DetectedDevice("h", "cuda:0", None, None, None, 1, "GPU-00")
with claimed([gpu], holder="trial 7", should_stop=lambda: False, log=print, wait_seconds=0):
    print("held", flush=True)
    time.sleep(600)
"""
NOBODY = 65_534


@pytest.fixture(autouse=True)
def folder(monkeypatch: Any, tmp_path: Path) -> Path:
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o1777)
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(place))
    return place


@contextlib.contextmanager
def held(count: int = 1, *, parts: int = 1, gpus: tuple[DetectedDevice, ...] = GPUS) -> Iterator[list[str]]:
    """What is claimed at once, or an error."""
    given: dict[str, Any] = {"holder": "trial 8", "should_stop": lambda: False, "log": lambda _: None}
    with claimed(gpus, count=count, parts=parts, wait_seconds=0, **given) as claim:
        assert claim is not None
        yield [device.name for device in claim.devices]


def is_free(*, parts: int = 1, gpu: DetectedDevice = GPUS[0]) -> bool:
    try:
        with held(parts=parts, gpus=(gpu,)):
            return True
    except DevicesHeldError:
        return False


def as_account(number: int, work: Callable[[], bool]) -> bool:
    """What the work says in a process of another account."""
    child = os.fork()
    if child == 0:
        status = 2
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            status = 0 if work() else 1
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1), "the work itself failed"
    return status == 0


def test_no_gpu_is_held_twice_and_all_of_a_gang_or_none_is_taken() -> None:
    with held(2) as first, held(1) as second:
        assert (first, second) == (["cuda:0", "cuda:1"], ["cuda:2"])
        with pytest.raises(
            DevicesHeldError, match="2 GPUs for trial 8: not free within 0 s; cuda:0 is held by process"
        ):
            held(2).__enter__()
        with held(1) as last:  # the one that was free is not kept by who asked for two
            assert last == ["cuda:3"]
    with held(4) as every:
        assert every == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]


def test_parts_fill_a_gpu_up_and_are_never_beside_a_whole_one() -> None:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(held(parts=parts)) for parts in (4, 4, 2)]
        assert taken == [["cuda:0"]] * 3  # an idle GPU stays whole
        assert not is_free(parts=16)
        assert not is_free()
        assert "cuda:0 is held to 25% by process" in described(GPUS)
        assert stack.enter_context(held(parts=4)) == ["cuda:1"]
        assert stack.enter_context(held(2)) == ["cuda:2", "cuda:3"]
        assert not is_free(parts=16, gpu=GPUS[2])
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(held(parts=4, gpus=GPUS[:2])) for _ in range(8)]
        assert taken == [["cuda:0"]] * 4 + [["cuda:1"]] * 4
        with pytest.raises(DevicesHeldError, match="1/4 of a GPU for trial 8: not free"):  # the ninth
            stack.enter_context(held(parts=4, gpus=GPUS[:2]))


def test_a_claim_ends_with_its_process_and_what_it_started_does_not_keep_it(folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        said = described(GPUS[:1])
        assert not is_free()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert is_free()
    assert said.startswith(f"cuda:0 is held by process {process.pid} of the account")
    assert "for trial 7, since " in said
    with held():
        sleeper = subprocess.Popen(["sleep", "60"])  # a training, which is not to inherit the lock
        open_files = [os.readlink(f"/proc/{sleeper.pid}/fd/{n}") for n in os.listdir(f"/proc/{sleeper.pid}/fd")]
        assert not any(path.startswith(str(folder)) for path in open_files)
        child = os.fork()  # as a training function may
        if child == 0:
            signal.pause()
    assert is_free()
    for pid in (child, sleeper.pid):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(child, 0)
    sleeper.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
def test_accounts_exclude_each_other_and_a_hostile_one_steals_nothing(tmp_path: Path, folder: Path) -> None:
    for way in (tmp_path, *tmp_path.parents):
        if way.stat().st_mode & 0o005 != 0o005:  # how many folders pytest closes follows from how it was started
            way.chmod(0o755)
    assert as_account(NOBODY, lambda: is_free(gpu=GPUS[1]))  # it makes the file
    with held(gpus=GPUS[1:2]):
        assert not as_account(NOBODY, lambda: is_free(gpu=GPUS[1]))
        assert not as_account(NOBODY + 1, lambda: is_free(gpu=GPUS[1]))

    def spoils() -> bool:
        path_of(GPUS[0]).touch()
        path_of(GPUS[0]).chmod(0o600)
        os.mkfifo(path_of(GPUS[2]))
        path_of(GPUS[3]).symlink_to("/etc/passwd")
        path_of(GPUS[1]).write_text("\x1b[2J {" * 300)
        return True

    assert as_account(NOBODY, spoils)
    assert not as_account(NOBODY + 1, lambda: is_free(gpu=GPUS[0]))  # never an end of the wait, and never a claim
    for gpu in GPUS[2:]:
        assert not is_free(gpu=gpu)
        assert "cannot be claimed" in described([gpu])
    with held(gpus=GPUS[1:2]):
        assert "is held by process" in described(GPUS[1:2])


def test_files_that_a_restart_or_a_cleaner_leaves_or_takes_claim_nothing(folder: Path) -> None:
    with held():
        kept = path_of(GPUS[0]).read_bytes()
    path_of(GPUS[0]).write_bytes(kept)  # in a folder on a disk it is still there after a restart
    assert is_free()
    path_of(GPUS[0]).unlink()
    with held() as found:
        assert found == ["cuda:0"]
    folder.rename(folder.with_name("gone"))
    with pytest.raises(StateError, match="name a folder that every account which trains here may write to"):
        is_free()


def test_the_child_sees_the_claimed_gpus_whatever_else_is_said(monkeypatch: Any) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,2,1")
    for device in (None, "cuda", "cuda:1"):
        assert clean_environment(1, device, ("GPU-11", "GPU-22"))["CUDA_VISIBLE_DEVICES"] == "GPU-11,GPU-22"
    with devices.shown(devices.Claim(GPUS[:2])):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-00,GPU-11"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,2,1"
