"""``easeml artifacts`` and ``easeml tenant folder``: what they print, and their exit statuses."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def asked(make_study: Any, database: Any, artifacts: Any, ask: Any) -> Any:
    make_study(candidates=[{"name": "tree", "kind": "decision_tree"}])
    owner = ("--database", database.url("easeml_owner"))
    return lambda *words: ask(*words, *owner, "--artifacts", str(artifacts.root))


def test_files_are_moved_swept_and_closed(asked: Any, artifacts: Any, recorded: Any) -> None:
    data = next(path for path in (artifacts.root / "tenants" / "lab").rglob("*") if path.is_file())
    common: Path = artifacts.root / data.parent.name / data.name
    common.parent.mkdir()
    data.rename(common)
    recorded(asked("artifacts", "move", "--dry-run").out.replace(data.name, "(hash)"), "artifacts_move_dry_run")
    assert asked("artifacts", "move", "--json").json == {
        "moved": 1,
        "copies": 1,
        "missing": [],
        "claimed": [],
        "dry_run": False,
    }
    assert (data.exists(), common.exists()) == (True, False)

    (artifacts.root / "new-1").write_text("x")
    os.utime(artifacts.root / "new-1", (0, 0))
    found = asked("artifacts", "sweep", "--dry-run", "--json").json
    assert [one["path"] for one in found["orphans"]] == ["new-1"]
    recorded(re.sub(r"[\d,.]+ days", "(many) days", asked("artifacts", "sweep").out), "artifacts_sweep")
    assert not (artifacts.root / "new-1").exists()
    assert asked("artifacts", "sweep", "--days", "0").status == 2

    made = asked("tenant", "folder", "lab", "--group", str(os.getgid()), "--json").json
    assert (made["mode"], made["apart"], made["tenant"]) == ("2770", True, "lab")
    assert "mode 2770" in asked("tenant", "folder", "lab", "--group", str(os.getgid())).out
    assert asked("tenant", "folder", "..", "--group", "0").status == 2

    data.unlink()
    lost = asked("artifacts", "move")
    assert (lost.status, f"missing: sha256:{data.name} of tenant lab" in lost.err) == (1, True)
