"""The checker of language: where it looks, what it finds, and that its list is well formed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def language(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import language

    yield language
    sys.modules.pop("language", None)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.md", "Whoever asks.\n```\nwhoever\n```\n`whoever` [x](whoever.md)\n", [(1, "Whoever")]),
        ("a.py", '"""Nobody.\n\nwhoever\n"""\nnobody_here = 1\n', [(1, "Nobody"), (3, "whoever")]),
        ("b.py", "told_now = 1  # somebody\nthreshold_told: int\nisTold = f'{told} anybody'\n",
         [(1, "told_now"), (1, "somebody"), (2, "threshold_told"), (3, "isTold")]),
        ("c.py", "untold = retold_ = 'a user'\n", []),
        ("a.html", "<p title='whoever'>{{ whoever }} {% if nobody %}somebody</p>", [(1, "somebody")]),
    ],
)  # fmt: skip
def test_phrases_are_found_in_prose_and_names(
    language: Any, tmp_path: Path, name: str, text: str, found: list[tuple[int, str]]
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    seen = [(f.line, f.found) for f in language.findings(path, language.read_list())]
    if sys.version_info < (3, 12):  # an f-string is one token until 3.11, and its text is searched too
        seen = [s for s in seen if s != (3, "anybody")]
        found = [f for f in found if f != (3, "told")]
    assert sorted(seen) == sorted(found)


def test_an_entry_with_an_unknown_key_is_refused(language: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "phrases.toml"
    wrong.write_text('paths = []\nexempt = []\n[[words]]\npattern = "a"\ninsted = "b"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="an entry of words has the keys"):
        language.read_list(wrong)


def test_findings_are_printed_with_what_to_write(language: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = SCRIPTS.parent / "tests" / "repo" / "test_repo_language.py"
    assert language.main([str(path)]) == 1
    assert "'Whoever'" in capsys.readouterr().out
