"""Training by a command: the contract, real programs in two languages, and every way in which one can go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from easeml_core.errors import (
    InvalidInputError,
    TrainingCancelled,
    TrainingError,
    TrainingKilled,
    TrainingTaskError,
)
from easeml_core.files import local as archive
from easeml_core.models.command_model import load_command, pack_command, run_command
from easeml_core.models.predict import predict_in_child
from easeml_core.training.supervisor import run_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.data.parts import OpenParts
    from easeml_core.training.job import TrainingJob

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
REFERENCE = "sha256:" + 64 * "0"

ARGUMENTS = """
import json, sys
from pathlib import Path
import numpy as np
assert sys.argv[1::2] == ["--data", "--parameters", "--output"]
data, parameters, output = map(Path, sys.argv[2::2])
"""
MEAN = ARGUMENTS + "np.save(output / 'mean.npy', np.load(data / 'train_labels.npy').mean(dtype='float64'))"
ANSWER_MEAN = """
import numpy as np
print(*np.full(len(np.load("inputs.npy")), np.load("model/mean.npy")), sep="\\n")
"""
CONSTANT = "import numpy as np\nprint(*[3] * len(np.load('inputs.npy')))"


@pytest.fixture
def job(make_job: Any, tmp_path: Path) -> Callable[..., TrainingJob]:
    """A job of a program of two files; ``job(TRAIN, PREDICT, parameters)``."""

    def make(train: str, predict: str = CONSTANT, parameters: Any = None, **changes: Any) -> TrainingJob:
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "train.py").write_text(train)
        (folder / "predict.py").write_text(predict)
        pack_command(folder, tmp_path / "program", command="python predict.py", train="python train.py")
        files = {"program": tmp_path / "program"}
        made: TrainingJob = make_job("command", {"program": REFERENCE, **(parameters or {})}, files=files, **changes)
        return made

    return make


def train(job: TrainingJob, news: list[Any] | None = None, should_stop: Callable[[], bool] = lambda: False) -> Any:
    return run_job(
        job, on_progress=(news if news is not None else []).append, should_stop=should_stop, poll_seconds=0.05
    )


def test_a_program_for_several_devices_is_started_once_and_torchrun_finds_their_number(job: Any) -> None:
    once = "\nimport os\nassert os.environ['PET_NPROC_PER_NODE'] == '3'\n(output / 'once').touch(exist_ok=False)"
    assert train(job(ARGUMENTS + once, device="cpu", devices=3)).format == "command"


def test_the_shell_example_learns_digits(make_job: Any, tmp_path: Path, digits: OpenParts) -> None:
    pack_command(EXAMPLES / "awk", tmp_path / "program", command=None)
    job = make_job("command", {"program": REFERENCE, "power": 2}, files={"program": tmp_path / "program"})
    news: list[Any] = []
    result = train(job, news)
    middles = np.stack([digits.train_inputs[digits.train_labels == c].mean(axis=0) for c in range(10)])
    nearest = ((digits.validation_inputs[:, None] - middles) ** 2).sum(axis=2).argmin(axis=1)
    assert np.array_equal(result.validation_predictions, nearest)  # computed here, without the program
    assert result.quality == np.mean(nearest == digits.validation_labels) > 0.8
    assert {"progress": 0.8, "note": "the middle of each class", "step": 1, "of": 1} in news
    assert result.format == "command"
    with zipfile.ZipFile(result.artifact_path) as packed:
        assert packed.namelist() == ["command.json", "model/middles", "numbers.sh", "predict.sh", "train.sh"]
    again = predict_in_child(result.artifact_path, "command", digits.validation_inputs[:50])
    assert np.array_equal(again, nearest[:50])


def test_numbers_may_be_predicted(job: Any, diabetes: OpenParts, diabetes_file: Path) -> None:
    result = train(job(MEAN, ANSWER_MEAN, data_path=diabetes_file, metric="within:60"))
    mean = float(diabetes.train_labels.mean(dtype=np.float64))
    assert result.validation_predictions.dtype == np.float64
    assert result.validation_predictions.tolist() == [mean] * len(diabetes.validation_labels)
    assert result.quality == np.mean(np.abs(diabetes.validation_labels - mean) <= 60)
    numbers = load_command(result.artifact_path).numbers(diabetes.validation_inputs[:2])
    assert (numbers.tolist(), numbers.dtype) == ([mean, mean], np.float64)


def test_what_the_program_is_given(job: Any, digits: OpenParts, tmp_path: Path) -> None:
    code = (
        ARGUMENTS
        + f"""
import os
assert sys.executable == {sys.executable!r}
found = {{"data": json.loads((data / "data.json").read_text()), "own": json.loads(parameters.read_text()),
         "files": sorted(os.listdir()), "there": sorted(os.listdir(data)), "names": sorted(os.environ),
         "sums": [float(np.load(data / f"{{n}}.npy").sum()) for n in ("train_inputs", "validation_labels")]}}
Path({str(tmp_path / "seen.json")!r}).write_text(json.dumps(found))
"""
    )
    own = {"layers": [64, 32], "name": "ü", "rate": 0.5, "last": None}
    os.environ["EASEML_TEST_SECRET"] = "s3cret"
    try:
        train(job(code, parameters=own, seed=11))
    finally:
        del os.environ["EASEML_TEST_SECRET"]
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["own"] == own
    assert seen["data"] == {
        "task": "classification", "classes": 10, "layout": {"kind": "image", "shape": [8, 8, 1]}, "features": 64,
        "train_rows": 400, "validation_rows": 200, "seed": 11,
    }  # fmt: skip
    assert seen["files"] == ["command.json", "predict.py", "train.py"]
    arrays = ["train_inputs.npy", "train_labels.npy", "validation_inputs.npy", "validation_labels.npy"]
    assert seen["there"] == ["data.json", *arrays]
    assert seen["sums"] == [digits.train_inputs.sum(), digits.validation_labels.sum()]
    assert "EASEML_TEST_SECRET" not in seen["names"]


def test_lines_of_json_are_progress_and_all_else_is_dropped(job: Any) -> None:
    code = """
import json, sys
print("epoch one")
print(json.dumps({"step": 1, "of": 4, "quality": 0.25, "note": "a\\x1b[31m" + "b" * 500}))
print(json.dumps({"step": 2, "of": 4, "quality": 7, "loss": 3}))
for line in ('[1]', '{"step": 9, "of": 4}', '{"step": "1", "of": 4}', '{"step": 1, "of": 0}', '{"step": NaN, "of": 1}',
             '{"step": true, "of": 2}', '{"step": 1' + 400 * '0' + ', "of": 1}', '{', '{"quality": 0.9}'):
    print(line)
print("chatter", file=sys.stderr)
"""
    news: list[Any] = []
    train(job(code), news)
    assert news[2:4] == [
        {"progress": 0.275, "note": "a [31m" + "b" * 194, "quality": 0.25, "step": 1, "of": 4},
        {"progress": 0.45, "note": "step 2 of 4", "step": 2, "of": 4, "loss": 3},
    ]
    assert len(news) == 6  # the others are ours


CHECKPOINTED = """
import argparse, json, time
from pathlib import Path
arguments = argparse.ArgumentParser()
for name in ("--data", "--parameters", "--output", "--resume"):
    arguments.add_argument(name, type=Path)
given = arguments.parse_args()
done = int((given.resume / "state" / "done").read_text()) if given.resume else 0
for step in range(done + 1, 4):
    folder = given.output / "checkpoints" / f"step-{step}" / "state"
    folder.mkdir(parents=True)
    (folder / "done").write_text(str(step))
    print(json.dumps({"step": step, "of": 3, "checkpoint": f"step-{step}"}), flush=True)
    if step == 2 and not given.resume:
        time.sleep(60)
(given.output / "begun_at").write_text(str(done))
"""


def test_a_training_is_taken_up_from_the_programs_own_checkpoint(job: Any, tmp_path: Path) -> None:
    asked = job(CHECKPOINTED, checkpoint_seconds=0.0)
    kept: list[Any] = []

    def keep(path: Path, seconds: float, progress: float) -> None:
        kept.append(progress)
        shutil.copyfile(path, tmp_path / "checkpoint")

    with pytest.raises(TrainingCancelled):
        run_job(
            asked, on_progress=lambda _: None, should_stop=lambda: 0.5667 in kept, on_checkpoint=keep, poll_seconds=0.05
        )
    news: list[Any] = []
    result = train(replace(asked, resume=tmp_path / "checkpoint", output_dir=tmp_path / "again"), news)
    with zipfile.ZipFile(result.artifact_path) as packed:
        assert packed.namelist() == ["command.json", "model/begun_at", "predict.py", "train.py"]
        assert packed.read("model/begun_at") == b"2"
    assert [n.get("step") for n in news if "step" in n] == [3]
    assert {"progress": 0.1, "note": "taken up again", "resumed": True} in news


def test_a_checkpoint_that_is_none_is_reported_and_training_goes_on(job: Any) -> None:
    no_name = "was not kept: it is to be the name of a file or folder in checkpoints/"
    reasons = {"../../program": no_name, "..": no_name, "link": no_name, "absent": "cannot be read: No such file"}
    code = (
        ARGUMENTS
        + f"""
(output / "checkpoints").mkdir()
(output / "checkpoints" / "link").symlink_to("/etc")
for step, name in enumerate({list(reasons)!r}, start=1):
    print(json.dumps({{"step": step, "of": 5, "checkpoint": name}}))
"""
    )
    news: list[Any] = []
    train(job(code, checkpoint_seconds=0.0), news)
    reported = {name: n for name, n in zip(reasons, [n for n in news if "step" in n], strict=True)}
    for name, words in reasons.items():
        assert words in reported[name]["note"], name
        assert "checkpoint" not in reported[name], name


@pytest.mark.parametrize("name", ["secret", "folder"])
def test_the_folder_of_checkpoints_is_no_link_either(name: str, job: Any, tmp_path: Path) -> None:
    """What runs in a container sees other files under that name than the process that packs them."""
    (tmp_path / "private" / "folder").mkdir(parents=True)
    for path in ("secret", "folder/secret"):
        (tmp_path / "private" / path).write_text("s3cret")
    code = (
        ARGUMENTS
        + f"""
(output / "checkpoints").symlink_to({str(tmp_path / "private")!r})
print(json.dumps({{"step": 1, "of": 3, "checkpoint": {name!r}}}))
"""
    )
    kept: list[Path] = []
    with pytest.raises(TrainingError, match="checkpoints is a link or no plain file"):
        run_job(
            job(code, checkpoint_seconds=0.0), on_progress=lambda _: None, should_stop=lambda: False,
            on_checkpoint=lambda path, *_: kept.append(path),
        )  # fmt: skip
    assert kept == []


@pytest.mark.parametrize("linked", ["a", "a/b", "a/b/file"])
def test_a_part_that_was_exchanged_for_a_link_is_not_followed(linked: str, tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for place in (outside, inside):
        (place / "a" / "b").mkdir(parents=True)
        (place / "a" / "b" / "file").write_text(place.name)
    source = inside / "a" / "b" / "file"
    archive.pack_files(tmp_path / "fine", {"file": source}, extra={}, beneath=inside)
    (inside / linked).rename(tmp_path / "before")
    (inside / linked).symlink_to(outside / linked)
    assert source.read_text() == "outside"
    with pytest.raises(InvalidInputError, match="cannot be read"):
        archive.pack_files(tmp_path / "archive", {"file": source}, extra={}, beneath=inside)


def test_a_pipe_makes_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInputError, match="is no plain file"):
        archive.pack_files(tmp_path / "archive", {"pipe": tmp_path / "pipe"}, extra={})


def test_a_checkpoint_that_cannot_be_read_is_left_aside(job: Any, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_text("none")
    news: list[Any] = []
    train(job("import sys\nassert '--resume' not in sys.argv", resume=tmp_path / "checkpoint"), news)
    assert any("begun anew: the archive checkpoint cannot be unpacked" in n["note"] for n in news)


def test_a_program_cannot_say_how_good_it_is(job: Any) -> None:
    result = train(job('print(\'{"step": 1, "of": 1, "quality": 1.0}\')'))
    assert result.quality < 0.2


def test_what_training_leaves_in_its_own_folder_is_no_part_of_the_model(job: Any) -> None:
    code = (
        ARGUMENTS
        + """
Path("predict.py").write_text("print('changed')")
Path("left").mkdir()
(output / "deep").mkdir()
(output / "deep" / "weights").write_text("w")
"""
    )
    result = train(job(code))
    with zipfile.ZipFile(result.artifact_path) as packed:
        assert packed.namelist() == ["command.json", "model/deep/weights", "predict.py", "train.py"]
        assert packed.read("predict.py").decode() == CONSTANT


FAILURES = {
    "fails": ("import sys\nsys.exit('no luck')", CONSTANT, "'python train.py' ended with exit status 1: no luck"),
    "leaves a link": (ARGUMENTS + "(output / 'a').symlink_to('/etc')", CONSTANT, "is a link or no plain file"),
    "predicts words": ("", "print(*['yes'] * 200)", "the model answered 'yes'; a class number is wanted"),
    "needs its data": (
        ARGUMENTS + "(output / 'where').write_text(str(data))",
        "from pathlib import Path\nimport numpy as np\nnp.load(Path('model/where').read_text() + '/train_inputs.npy')",
        "'python predict.py' ended with exit status 1: FileNotFoundError",
    ),
    "looks at the others": (
        "",
        "import numpy as np\nx = np.load('inputs.npy').sum(axis=1)\nprint(*(x > x.mean()).astype(int))",
        "no gate would judge this model: its answers depend on which examples it sees",
    ),
    "takes memory": (
        "import time\nkept = bytearray(b'x' * 400_000_000)\ntime.sleep(60)", CONSTANT, "out of memory: .* MB in use"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
def test_what_goes_wrong_is_a_reason(what: str, job: Any) -> None:
    code, predict, words = FAILURES[what]
    limits = {"memory_limit_mb": 300} if what == "takes memory" else {}
    with pytest.raises(TrainingError, match=f"(?s){words}"):
        train(job(code, predict, **limits))


def running(word: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if word in " ".join(p.info["cmdline"] or [])]


def test_a_cancel_ends_the_program_and_all_that_it_started(job: Any, tmp_path: Path) -> None:
    sleeper = f"import time; time.sleep(300)  # {tmp_path}"
    code = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {sleeper!r}])
print('{{"step": 1, "of": 2}}', flush=True)
time.sleep(300)
"""
    news: list[Any] = []
    with pytest.raises(TrainingCancelled):
        train(job(code), news, should_stop=lambda: len(news) > 2)
    deadline = time.monotonic() + 60
    while running(sleeper) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(sleeper) == []


DAEMON = """
import os, time
from pathlib import Path
reported = Path({reported!r})
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (0, 1, 2):
        os.close(number)
    reported.with_suffix(".part").write_text(str(os.getpid()))
    reported.with_suffix(".part").rename(reported)
    time.sleep(300)
while not reported.exists():
    time.sleep(0.01)
"""


def gone_soon(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(timeout=20)
    return not process.is_running()


@pytest.mark.parametrize("ends", [True, False], ids=["a good end", "a cancel"])
def test_a_daemon_uses_the_device_no_longer_than_its_training(ends: bool, job: Any, tmp_path: Path) -> None:
    reported, found = tmp_path / "daemon", list[psutil.Process]()
    code = DAEMON.format(reported=str(reported)) + ("" if ends else "time.sleep(300)")

    def should_stop() -> bool:
        if reported.exists() and not found:
            found.append(psutil.Process(int(reported.read_text())))
        return bool(found) and not ends

    asked = job(code + "\ntime.sleep(0.5)")  # for as long as it is looked for
    with contextlib.nullcontext() if ends else pytest.raises(TrainingCancelled):
        train(asked, should_stop=should_stop)
    assert gone_soon(found[0])


def test_a_program_that_kills_its_parent_does_not_go_on_without_it(job: Any, tmp_path: Path) -> None:
    reported = tmp_path / "daemon"
    code = (
        DAEMON.format(reported=str(reported)) + "import signal\ntime.sleep(1.5)\nos.kill(os.getppid(), signal.SIGKILL)"
    )
    with pytest.raises(TrainingKilled, match="SIGKILL"):
        train(job(code))
    with contextlib.suppress(psutil.NoSuchProcess):
        assert gone_soon(psutil.Process(int(reported.read_text())))


FLOOD = """
import os
parent, own = os.getppid(), {os.readlink(f"/proc/self/fd/{n}") for n in (1, 2)}
for name in os.listdir(f"/proc/{parent}/fd"):
    where = f"/proc/{parent}/fd/{name}"
    if int(name) > 2 and os.readlink(where).startswith("pipe") and os.readlink(where) not in own:
        pipe = os.open(where, os.O_WRONLY)
        while True:
            os.write(pipe, b"{}\\n" * 16000)
"""


@pytest.mark.journey
def test_a_program_that_writes_in_its_parents_name_takes_no_longer_than_it_may(job: Any) -> None:
    """A slow receiver of reports must still check the limits. (Only root can write there.)"""
    heard: list[Any] = []

    def slowly(news: Any) -> None:
        heard.append(news)
        time.sleep(3e-5)

    asked = job(FLOOD, time_limit_seconds=4.0)
    with pytest.raises(TrainingError, match=r"out of time|Permission denied"):
        run_job(asked, on_progress=slowly, should_stop=lambda: False, poll_seconds=0.05)


def test_a_program_ends_with_a_worker_that_is_killed(job: Any, killed_worker: Any) -> None:
    asked = job("import time\ntime.sleep(63)  # program-of-the-killed-worker", time_limit_seconds=120.0)
    words = f"--output {asked.output_dir}"
    deadline = time.monotonic() + 60
    with killed_worker(asked):
        while not running(words) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(running(words)) == 1
    while running(words) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(words) == []


@pytest.mark.parametrize(
    ("command", "of_task"),
    [
        (["/nowhere/to/be/found"], True),
        (["sh", "-c", "no_such_program_of_anybody"], True),
        (["sh", "-c", "exit 126"], True),
        (["python", "-c", "import no_such_package_of_anybody"], True),
        (["python", "-c", "raise ValueError('ImportError: of no package')"], False),
        (["sh", "-c", "exit 1"], False),
    ],
)
def test_what_is_missing_on_the_worker_is_a_failure_of_the_task(
    command: list[str], of_task: bool, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError) as caught:
        run_command(command, cwd=tmp_path, take=lambda output: output.read())
    assert isinstance(caught.value, TrainingTaskError) is of_task


def test_a_program_without_its_package_fails_the_task_through_the_whole_job(job: Any) -> None:
    with pytest.raises(TrainingTaskError, match="No module named 'no_such_package_of_anybody'"):
        run_job(job("import no_such_package_of_anybody"), on_progress=lambda _: None, should_stop=lambda: False)
