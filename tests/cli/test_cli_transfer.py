"""``easeml export`` and ``easeml import``: a study as a file, and a new study from it, asked of the referee."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def exported(ask: Any, make_study: Any, artifacts: Any, nowhere: Path) -> Path:
    make_study("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}])
    answer = ask("export", "cancer", "cancer.zip", "--artifacts", str(artifacts.root))
    assert (answer.status, answer.err) == (0, "")
    assert "cancer.zip: the definition, 1 data version, 1 candidate, 1 model, 0 artifacts" in answer.out
    return nowhere / "cancer.zip"


def test_there_and_back(ask: Any, exported: Path, artifacts: Any, referee: None) -> None:
    place = ("--artifacts", str(artifacts.root))
    answer = ask("import", str(exported), "--study", "again", *place, "--timeout", "60")
    assert answer.status == 0, answer.err
    assert "waits for the referee" in answer.err
    again = ask("import", str(exported), "--study", "again", *place, "--json").json  # changes nothing
    assert again["answer"]["refused"] is False
    shown = ask("study", "show", "again", "--json").json
    assert [candidate["name"] for candidate in shown["candidates"]] == ["tree"]


def test_what_the_referee_refuses_is_a_no(ask: Any, exported: Path, artifacts: Any, referee: None) -> None:
    words = (
        "import",
        str(exported),
        "--study",
        "again",
        "--source",
        "images:none",
        "--artifacts",
        str(artifacts.root),
    )
    answer = ask(*words, "--timeout", "60")
    assert answer.status == 1
    assert ask(*words, "--json").json["answer"]["refused"] is True


def test_a_look_needs_no_database(run: Any, exported: Path) -> None:
    answer = run("import", str(exported), "--check")
    assert (answer.status, answer.err) == (0, "")
    assert "study cancer, whole and unchanged" in answer.out
    assert "sklearn:breast_cancer" in answer.out
    assert run("import", str(exported), "--check", "--json").json["candidates"] == ["tree"]


def test_errors_are_errors(run: Any, ask: Any, exported: Path, nowhere: Path) -> None:
    (nowhere / "noise.zip").write_bytes(b"noise")
    for words, said in [
        (("import", "noise.zip", "--check"), "noise.zip is no export of a study"),
        (("import", "none.zip", "--check"), "none.zip cannot be read: no such file or directory"),
        (("import", "noise.zip"), "there is no database"),
    ]:
        answer = run(*words)
        assert (answer.status, answer.out, said in answer.err) == (2, "", True), answer.err
    answer = ask("export", "cancer", str(exported))
    assert (answer.status, "is there already" in answer.err) == (2, True)
    answer = ask("export", "dog", "dog.zip")
    assert (answer.status, "there is no study 'dog'" in answer.err) == (2, True)
