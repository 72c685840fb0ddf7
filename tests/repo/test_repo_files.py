"""Sizes and names of files and folders, public names that two modules share, and modules that documentation names."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600
EXCEPTIONS = {}
"""File -> why it may be longer."""

FORBIDDEN_STEMS = {"utils", "helpers", "common", "misc", "types", "token", "queue", "select", "ast", "logging"}


def tracked(*patterns: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / line for line in out.splitlines() if (ROOT / line).is_file()]


def test_no_file_is_too_long() -> None:
    sizes = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in tracked("*.py")}
    assert {n: s for n, s in sizes.items() if s > LIMIT and n not in EXCEPTIONS} == {}


def test_no_module_is_a_drawer_or_hides_a_standard_one() -> None:
    product = [p for p in tracked("*.py") if p.parts[len(ROOT.parts)] in {"easeml_core", "plugins", "dags"}]
    assert [p for p in product if p.stem in FORBIDDEN_STEMS] == []


def test_dag_files_are_short_and_named_for_their_dag() -> None:
    for path in tracked("dags/*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.stem.startswith("easeml_")
        assert f'dag_id="{path.stem}"' in text
        assert len(text.splitlines()) <= 110


def test_nothing_is_pickled() -> None:
    for path in tracked("easeml_core/*.py", "plugins/*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, path
        assert "allow_pickle=True" not in text, path
        assert "joblib" not in text, path


RAW_CSV = {
    "easeml_core/formats/csv_text.py": "the writer that guards",
    "easeml_core/services/models/inference.py": "answers for programs, from the rows of the same user",
}
"""Modules that write CSV, and why they may: all other files are for people (``csv_text.GuardedWriter``)."""


def test_a_csv_file_for_people_is_written_by_the_guarded_writer() -> None:
    product = [p for p in tracked("*.py") if p.relative_to(ROOT).parts[0] in ("easeml_core", "plugins", "dags")]
    raw = [str(p.relative_to(ROOT)) for p in product if re.search(r"csv\.(Dict)?[wW]riter", p.read_text("utf-8"))]
    assert sorted(raw) == sorted(RAW_CSV)


@pytest.mark.parametrize(("status", "made"), [(0, 0), (3, 0), (1, 2)])
def test_that_nothing_runs_is_an_answer_of_make_status(status: int, made: int, tmp_path: Path) -> None:
    (tmp_path / "stamp").touch()  # newer than all that would have to be installed
    fake = f"sh -c 'exit {status}'"
    command = ["make", "--silent", "status", f"DEMO_STAMP={tmp_path / 'stamp'}", f"RUN={fake}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "Error" in done.stderr) == (made, made != 0)


MOST_ENTRIES = 22
CROWDED: Mapping[str, tuple[int, str]] = {
    "easeml_core/store/tables": (25, "a module a subject"),
    "docs/adr": (40, "one file a decision; their numbers are their order"),
    "benchmarks": (24, "one script a measurement, and what several of them use"),
    "docs": (30, "at most 25 pages, and five folders"),
    "easeml_core": (31, "the packages of the layers, and the modules that several layers use"),
    "tests/services": (27, "a folder a subject, and what their tests share"),
}
"""Folder -> how many entries it may have, and why; it may only shrink."""


def test_no_folder_is_crowded() -> None:
    entries: dict[str, set[str]] = defaultdict(set)
    for path in tracked():
        parts = path.relative_to(ROOT).parts
        for depth in range(1, len(parts)):
            entries["/".join(parts[:depth])].add(parts[depth].removesuffix("i"))  # a package and its stub are one
    crowded = {folder: len(names) for folder, names in entries.items() if len(names) > MOST_ENTRIES}
    assert {folder for folder, size in crowded.items() if size > CROWDED.get(folder, (MOST_ENTRIES,))[0]} == set()


ALIKE: Mapping[str, str] = {
    "routes": "each page has its routes, and the app asks each module for them by this name",
    "TAB": "each page has its entry in the tabs",
    "STUDY_TAB": "each page of a study has its entry in the study's tabs",
    "logger": "each module has its logger",
    "main": "what `python -m` of a module runs",
    "T": "a type variable",
    "show": "a command of several nouns",
    "list_": "a command of several nouns",
    "set_": "a command of several nouns",
    "plan": "a command of several nouns, and its function in Python",
    "infer": "a command of several nouns",
    "meter": "a command, and a group of commands",
}
"""Public name -> why several modules of a layer may define it."""

# Names to give one meaning each, by layer; the list may only shrink.
STILL_TWICE: Mapping[str, str] = {
    "data": "Cells MAX_BYTES Rows shown",
    "gate": "MAX_LENGTH",
    "models": "CHILD LARGEST_BYTES checked_model predictor_of",
    "plugin/.": "NAME policy",
    "plugin/web": (
        "Bar Box CELL COLOURS LONGEST_SECONDS LONGEST_TEXT Lane MOST_BYTES MOST_FIELDS "
        "MOST_OF_ONE MOST_PIXELS MOST_ROWS NAMED Number PAGE_SIZE Page Place RELIABILITIES ROWS Row SHOWN "
        "SORTS STEPS Slider TICKS WAITS Wanted Word page_of rows_of spark_of"
    ),
    "programs": "MAX_LENGTH MAX_NAME Node",
    "selection": "FOLDS JITTER LEVEL OWN REPEATS expected_improvement",
    "services": (
        "Asked CHILD Goal LARGEST_BYTES LONGEST_WAIT_SECONDS LOOK_SECONDS Look MOST MOST_DRAWN MOST_SHOWN "
        "Memory OVERLAP at_once examine say settle silent"
    ),
    "stats": "MOST_EXAMPLES",
    "store": (
        "CONNECT_SECONDS MOST Reading add_decision count_waiting ended_trials events hold list_submissions totals"
    ),
}


def test_no_public_name_is_defined_twice_in_a_layer() -> None:
    found: dict[str, dict[str, set[Path]]] = defaultdict(lambda: defaultdict(set))
    for path in tracked("easeml_core/*.py", "plugins/easeml_airflow/*.py"):
        layer = _layer_of(path.relative_to(ROOT))
        if layer is not None:
            for name in _public_names(path):
                found[layer][name].add(path)
    twice = {
        layer: {name for name, paths in names.items() if len(paths) > 1} - ALIKE.keys()
        for layer, names in found.items()
    }
    still = {layer: set(names.split()) for layer, names in STILL_TWICE.items()}
    assert {layer: names for layer, names in twice.items() if names} == still


def _layer_of(path: Path) -> str | None:
    """Return the package of a module, such as ``services`` or ``plugin/web``; None for migrations."""
    if "migrations" in path.parts:
        return None
    depth = 1 if path.parts[0] == "easeml_core" else 2
    layer = path.parts[depth] if len(path.parts) > depth + 1 else "."
    return layer if depth == 1 else f"plugin/{layer}"


def _public_names(path: Path) -> Iterator[str]:
    """Yield the names without an underscore that a module defines at its top."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        yield from (name for name in names if not name.startswith("_"))


NO_MODULES = {
    "easeml.doctor": "a group of entry points",
    "easeml.policies": "a group of entry points",
    "easeml.sources": "a group of entry points",
    "easeml.templates": "a group of entry points",
    "plugin/ROUTE": "a path of Airflow's pages",
    "sealed.outbox": "a table",
    "shop/metrics.py": "a file of a user",
}
"""What looks like a module's name in documentation -> what it is."""

# Of Python files between double backticks, of Markdown between single ones: ``file.py``, ``folder/file.py``,
# ``package/package``, ``module.name``.
_REFERENCES = {".py": re.compile(r"``([a-z_]\w*(?:[./]\w+)*[./]\w+)``"), ".md": re.compile(r"`([a-z_][\w/]*\.py)`")}


def test_modules_that_documentation_names_exist() -> None:
    """A reference to a module that was moved or renamed leads to the wrong place."""
    product = [*tracked("easeml_core/*.py", "easeml_core/*.pyi"), *tracked("plugins/*.py", "plugins/*.pyi")]
    words: dict[str, set[str]] = defaultdict(set)
    for path in product:
        module = path.relative_to(ROOT).with_suffix("")
        name = module.parent if module.name == "__init__" else module
        words["/" + name.as_posix()] |= set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    files = ["/" + path.relative_to(ROOT).as_posix() for path in tracked()]
    released = ROOT / "easeml_core" / "store" / "migrations"
    missing = {
        f"{path.relative_to(ROOT)}: {reference}"
        for path in (*product, *tracked("CONTRIBUTING.md", "docs/*.md"))
        if released not in path.parents
        for reference in _REFERENCES.get(path.suffix, _REFERENCES[".py"]).findall(path.read_text(encoding="utf-8"))
        if reference not in NO_MODULES and not _is_there(reference, words, files)
    }
    assert missing == set()


def test_tests_that_documentation_names_exist() -> None:
    """A promise of documentation has its test beside it, which is found by its name."""
    names = re.compile(r"def (test_\w+)")
    there = {name for path in tracked("tests/*.py") for name in names.findall(path.read_text(encoding="utf-8"))}
    pages = ("operations", "troubleshooting", "security", "install", "benchmarks")
    texts = "".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"`(test_\w+)`", texts))
    assert len(named) > 150
    assert named - there == set()


def _is_there(reference: str, words: Mapping[str, set[str]], files: Sequence[str]) -> bool:
    """Return whether a file, package or name is there; what begins with no module of the product is taken as such.

    Args:
        reference: As written.
        words: Path of each module and package, without its ending, to the words in it.
        files: Paths of all files.
    """
    if reference.endswith(".py"):
        return any(file.endswith("/" + reference) for file in files)
    parts = re.split(r"[./]", reference)
    places = ("/easeml_core/", "/plugins/easeml_airflow/") if "/" in reference else ("/",)
    if parts[-1] == "json" or not any(name.endswith(place + parts[0]) for name in words for place in places):
        return True
    for length in range(len(parts), 0, -1):
        found = [name for name in words if name.endswith("/" + "/".join(parts[:length]))]
        if found:
            return length == len(parts) or any(parts[length] in words[name] for name in found)
    return False
