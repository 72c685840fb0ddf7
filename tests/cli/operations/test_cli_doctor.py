"""``easeml doctor``: a table for people, JSON for programs, and a status for both."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from easeml_core.services.operations.doctor import ApiServer, Installation

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_sound_database_is_a_zero(ask: Any) -> None:
    answer = ask("doctor")
    assert (answer.status, answer.err) == (0, "")
    for words in ("sealed sets", "closed to easeml_worker", "0 checks failed", "skipped"):
        assert words in answer.text
    found = ask("doctor", "--json").json
    assert {check["state"] for check in found} <= {"ok", "warning", "skipped"}
    assert all(set(check) == {"name", "state", "found", "remedy"} for check in found)


def test_without_a_database_it_is_a_no_and_says_what_to_do(run: Any) -> None:
    answer = run("doctor")
    assert answer.status == 1
    for word in ("1 check failed", "EASEML_DATABASE_URL", "embedded"):
        assert word in answer.out
    (failed,) = [check for check in run("doctor", "--json").json if check["state"] == "failed"]
    assert (failed["name"], "no EASEML_DATABASE_URL" in failed["found"]) == ("database", True)
    assert "`make up` or `easeml db start`" in failed["remedy"]


def test_where_the_address_came_from(run: Any, database: Any) -> None:
    environment = {"EASEML_DATABASE_URL": database.url("easeml_worker")}
    (check,) = [c for c in run("doctor", "--json", **environment).json if c["name"] == "database"]
    assert check["found"].startswith("EASEML_DATABASE_URL: PostgreSQL")


def test_a_password_comes_from_a_file(run: Any, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = run("doctor", "--airflow", "http://127.0.0.1:9")
    assert (answer.status, "--airflow-password-file" in answer.err) == (2, True)
    missing = run("doctor", "--airflow", "http://127.0.0.1:9", "--airflow-password-file", "no.txt")
    assert (missing.status, "no.txt cannot" in missing.err) == (2, True)
    (nowhere / "password.txt").write_text("secret-word\n")
    places: list[Installation] = []
    monkeypatch.setattr("easeml_core.services.operations.doctor.examine", lambda place, _: places.append(place) or [])
    answer = run("doctor", "--airflow", "http://127.0.0.1:9/", "--airflow-password-file", "password.txt", "--pool", "p")
    assert places[0].api_server == ApiServer("http://127.0.0.1:9", "admin", "secret-word", "p")
    assert "secret-word" not in answer.out + answer.err + repr(places)


def test_torch_is_not_imported() -> None:
    look = (
        "import sys; from easeml_core.services.operations.doctor import check_torch; check_torch();"
        "import easeml_airflow.doctor; print([m for m in ('torch', 'airflow', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
