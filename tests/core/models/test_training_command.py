"""Models that are programs: what they are given, what they may answer, and archives that are refused."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.errors import ArtifactError, InvalidInputError, TrainingError
from easeml_core.files import local as files
from easeml_core.models.command_model import load_command, pack_command
from easeml_core.models.formats import load_predictor
from easeml_core.models.predict import predict_in_child

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = np.array([[0.0, 1.0], [2.0, np.nan], [4.0, 5.0]], dtype=np.float32)


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a program answers for INPUTS, run without a child or a sandbox."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(code: str, command: str = "python predict.py") -> list[int]:
        (tmp_path / "predict.py").write_text(code)
        pack_command(tmp_path / "predict.py", tmp_path / "model", command=command)
        labels = load_predictor(tmp_path / "model", "command").predict(INPUTS)
        assert labels.dtype == np.int64
        return list(labels.tolist())

    return run


def test_inputs_lie_beside_the_program_and_labels_are_lines(answer: Any) -> None:
    code = """
import os
import numpy as np
inputs = np.load("inputs.npy")
assert inputs.dtype == np.float32 and np.isnan(inputs[1, 1]) and sorted(os.listdir()) == [
    "command.json", "inputs.npy", "predict.py"]
for row in inputs:
    print(int(row[0]) + 1)
"""
    assert answer(code) == [1, 3, 5]


@pytest.mark.parametrize("kind", ["<i8", ">i4", "u1"])
def test_labels_may_be_an_array_of_whole_numbers(answer: Any, kind: str) -> None:
    code = f"import sys, numpy as np\nnp.save(sys.stdout.buffer, np.array([2, 1, 0], {kind!r}))"
    assert answer(code.replace("np.save(sys.stdout.buffer, ", "np.lib.format.write_array(sys.stdout.buffer, ")) == [
        2,
        1,
        0,
    ]


def test_python_is_this_interpreter_and_arguments_are_words(answer: Any) -> None:
    code = f"import sys\nassert sys.executable == {sys.executable!r}\nprint(len(sys.argv), len(sys.argv[1]), 0)"
    assert answer(code, "python predict.py 'a b'") == [2, 3, 0]
    assert answer(code, "python3 predict.py 'a b'") == [2, 3, 0]


def test_a_program_may_import_its_neighbours_and_start_itself(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "weights.py").write_text("LABEL = 4")
    (folder / "predict").write_text(f"#!{sys.executable}\nfrom inner.weights import LABEL\nprint(LABEL, LABEL, LABEL)")
    (folder / "predict").chmod(0o755)
    (folder / "command.json").write_text('{"command": ["./predict"]}')
    pack_command(folder, tmp_path / "model", command=None)
    assert predict_in_child(tmp_path / "model", "command", INPUTS).tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print(1, 2)", r"must answer with 3 whole numbers, one a line or as \.npy; it gave int64 of shape \(2,\)"),
        ("print(1, 2, 3, 4)", r"it gave int64 of shape \(4,\)"),
        ("print('1.0 2.0 3.0')", "^the model answered '1.0'; a class number is wanted$"),
        ("print('yes', 1, 1)", "^the model answered 'yes'; a class number is wanted$"),
        ("print(1, 'x' * 61, 'yes')", "the model answered 'x{60}[.]{3}'; a class number is wanted$"),
        (
            "import sys, numpy as np\nnp.lib.format.write_array(sys.stdout.buffer, np.array(['no', 'yes', 'no']))",
            "^the model answered 'no'; a class number is wanted$",
        ),
        ("print(10**30, 1, 1)", "its answer is neither"),
        ("pass", r"it gave int64 of shape \(0,\)"),
        ("print('1' * 100_000)", "wrote more than 4,168 bytes to standard output; it must write labels only"),
        ("while True: print(1)", "wrote more than 4,168 bytes"),
        ("import sys, numpy as np\nnp.lib.format.write_array(sys.stdout.buffer, np.ones(3))", "it gave float64"),
        ("import sys\nsys.exit('no luck')", "'python predict.py' ended with exit status 1: no luck"),
        ("print('a line')\nraise KeyError('dose')", "exit status 1: KeyError: 'dose'\nTraceback .*line 2"),
        ("import os\nos.kill(os.getpid(), 9)", "ended with exit status -9 and said nothing on standard error"),
        ("import sys\nsys.stderr.write('x' * 10**6)\nsys.exit(5)", "ended with exit status 5: x{1500}$"),
    ],
)
def test_any_other_answer_is_the_models_failure(answer: Any, code: str, words: str) -> None:
    with pytest.raises(TrainingError, match=f"(?s){words}"):
        answer(code)


def test_an_array_of_objects_is_not_unpickled(answer: Any) -> None:
    code = (
        "import sys, numpy as np\nclass Bomb:\n    def __reduce__(self):\n        return (print, ('unpickled',))\n"
        "np.lib.format.write_array(sys.stdout.buffer, np.array([Bomb()] * 3), allow_pickle=True)\n"
    )
    with pytest.raises(TrainingError, match="its answer is neither"):
        answer(code)


def test_a_program_that_is_not_there_is_named(answer: Any) -> None:
    with pytest.raises(TrainingError, match=r"the command '\./absent -x' cannot be started: No such file"):
        answer("", "./absent -x")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fill(folder: Path, order: tuple[str, ...]) -> Path:
    (folder / "inner").mkdir(parents=True)
    for n, name in enumerate(order):
        (folder / name).write_text(name)
        os.utime(folder / name, (10**6 * n, 10**6 * n))
    return folder


def test_the_same_folder_has_the_same_content_hash(tmp_path: Path) -> None:
    names = ("predict.py", "inner/weights", "a.txt", "B")
    first, again = fill(tmp_path / "1", names), fill(tmp_path / "2" / "elsewhere", names[::-1])
    for cache in (".git", "__pycache__", "inner/__pycache__"):
        (again / cache).mkdir()
        (again / cache / "x").write_text("left out")
    for n, folder in enumerate((first, again)):
        pack_command(folder, tmp_path / f"model{n}", command="python predict.py")
    assert digest(tmp_path / "model0") == digest(tmp_path / "model1")
    (again / "a.txt").write_text("other")
    pack_command(again, tmp_path / "model2", command="python predict.py")
    (first / "predict.py").chmod(0o755)
    pack_command(first, tmp_path / "model3", command="python predict.py")
    assert len({digest(tmp_path / f"model{n}") for n in range(4)}) == 3


def test_a_packed_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = fill(tmp_path / "1", ("predict.py",))
    pack_command(folder, tmp_path / "model", command="python predict.py")
    pack_command(tmp_path / "model", tmp_path / "again", command=None)
    assert digest(tmp_path / "model") == digest(tmp_path / "again")
    assert load_command(tmp_path / "again").command == ("python", "predict.py")


def test_what_cannot_be_packed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(tmp_path / "1", ("predict.py",))
    pack = lambda command="python predict.py": pack_command(folder, tmp_path / "model", command=command)  # noqa: E731 - short, and used once
    with pytest.raises(InvalidInputError, match=r"has no command\.json; say how it is run with --command"):
        pack(None)
    with pytest.raises(InvalidInputError, match="is no archive; say how it is run with --command"):
        pack_command(folder / "predict.py", tmp_path / "model", command=None)
    for command, words in (("python 'x", "cannot be read: No closing quotation"), ("  ", "the command is empty")):
        with pytest.raises(InvalidInputError, match=words):
            pack(command)
    monkeypatch.setattr(files, "LARGEST_BYTES", 50)
    (folder / "predict.py").write_text("x" * 20)
    with pytest.raises(InvalidInputError, match=r"may have at most 50 bytes; predict\.py goes beyond"):
        pack()
    monkeypatch.setattr(files, "MOST_FILES", 1)
    with pytest.raises(InvalidInputError, match="at most 1 files, got 2"):
        pack()
    for make in (lambda p: p.symlink_to("/etc/passwd"), lambda p: p.symlink_to("/etc"), os.mkfifo):
        make(folder / "link")
        with pytest.raises(InvalidInputError, match="link is a link or no plain file"):
            pack()
        (folder / "link").unlink()


MANIFEST = ("command.json", '{"command": ["python", "predict.py"]}')


def zipped(path: Path, *entries: tuple[str | zipfile.ZipInfo, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in entries:
            packed.writestr(name, content)
    return path


def entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize(
    "bad",
    [
        ("../out", "x"), ("/etc/out", "x"), ("a/../../out", "x"), ("a//b", "x"), ("./a", "x"), ("a\\..\\b", "x"),
        ("c:/out", "x"), ("a\nb", "x"), ("x" * 500, "x"), MANIFEST,
        (entry("link", stat.S_IFLNK | 0o777), "/etc/passwd"), (entry("device", stat.S_IFCHR | 0o666), ""),
        (entry("pipe", stat.S_IFIFO | 0o666), ""),
    ],
    ids=lambda b: str(getattr(b[0], "filename", b[0]))[:20],
)  # fmt: skip
def test_an_archive_that_leads_elsewhere_is_not_unpacked(bad: Any, tmp_path: Path) -> None:
    path = zipped(tmp_path / "model", MANIFEST, bad)
    with pytest.raises(ArtifactError):
        load_command(path)
    folder = tmp_path / "inner" / "folder"
    folder.mkdir(parents=True)
    with pytest.raises(ArtifactError):
        files.unpack(path, folder)
    assert [p for p in tmp_path.rglob("*") if p.name not in ("model", "inner", "folder", "command.json")] == []


def test_a_bomb_is_stopped_while_it_unfolds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_BYTES", 3 << 20)
    path = zipped(tmp_path / "model", MANIFEST, *((f"f{n}", "0" * (1 << 20)) for n in range(4)))
    assert path.stat().st_size < 10_000
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="holds more than 3,145,728 bytes"):
        files.unpack(path, tmp_path / "folder")
    monkeypatch.setattr(files, "MOST_FILES", 4)
    with pytest.raises(ArtifactError, match="holds 5 entries, at most 4"):
        load_command(path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([f"{'d/' * 50}f"], "lies in 50 folders, at most 49"),
        ([f"{number}/{'d/' * 39}f" for number in range(251)], "in more than 10,000 folders"),
    ],
)
def test_names_that_stand_for_very_many_folders_are_neither_packed_nor_unpacked(
    names: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match=message):
        files.unpack(zipped(tmp_path / "model", *((name, "") for name in names)), tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []
    with pytest.raises(InvalidInputError, match=message):
        files.pack_files(tmp_path / "packed", {}, extra=dict.fromkeys(names, b""))
    most = [f"{number}/{'d/' * 39}f" for number in range(249)]
    files.unpack(zipped(tmp_path / "model", *((name, "") for name in most)), tmp_path / "folder")


def test_sizes_that_an_archive_states_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "model", MANIFEST, ("f", "0" * 5000))
    content = path.read_bytes().replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(content)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="cannot be unpacked"):
        files.unpack(path, tmp_path / "folder")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"command": []}', '{"command": "python x"}', '{"command": [1]}', '{"command": [""]}', "{" * 5000,
     '{"command": ["a"], "more": 1}', '{"command": ["a\\u0000"]}', '{"command": ["' + "a" * 10_000 + '"]}'],
)  # fmt: skip
def test_a_command_must_be_said_plainly(content: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"command\.json of the model file model must be"):
        load_command(zipped(tmp_path / "model", ("command.json", content)))


def test_what_is_no_archive_is_no_command(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"PK\x03\x04 nothing")
    for path in (tmp_path / "model", zipped(tmp_path / "empty", ("other", "x"))):
        with pytest.raises(ArtifactError, match=r"is no archive with a command\.json"):
            load_command(path)
