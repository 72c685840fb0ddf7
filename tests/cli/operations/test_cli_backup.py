"""``easeml db backup`` and ``restore``: private, whole or not at all, and checked before anything is changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import InvalidInputError, StoreError
from easeml_core.services.operations import backup
from easeml_core.store import dump, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TREE = [{"name": "tree", "kind": "decision_tree"}]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The commands take SIGTERM for themselves."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def own(run: Any, database: Any, artifacts: Any, make_study: Any) -> Callable[..., Any]:
    """Run a command of the owner on an installation with a study."""
    make_study("cancer", candidates=TREE)
    owner = ("--database", database.url("easeml_owner"))
    place = ("--artifacts", str(artifacts.root))
    return lambda *asked: run("db", *asked, *owner, *(place if asked[0] == "backup" else ()))


@pytest.fixture
def kept(own: Any, nowhere: Path) -> Path:
    assert own("backup", "kept").status == 0
    return nowhere / "kept"


def test_a_backup_is_private_whatever_the_umask_and_its_folder_are(own: Any, nowhere: Path, artifacts: Any) -> None:
    before = os.umask(0)
    try:
        nowhere.chmod(0o777)
        answer = own("backup", "kept", "--json")
        assert os.umask(0) == 0  # as it was
    finally:
        os.umask(before)
    found, folder = answer.json, nowhere / "kept"
    assert [f["name"] for f in found["files"]] == ["easeml.dump", "artifacts.tar"]
    assert (found["schema"], found["artifacts"]) == (schema.REVISION, str(artifacts.root))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}
    assert "into easeml.dump" in answer.err
    with tarfile.open(folder / "artifacts.tar") as archive:
        names = set(archive.getnames())
    assert names == {str(p.relative_to(artifacts.root)) for p in artifacts.root.rglob("*")}
    again = own("backup", "kept")
    assert (again.status, "already exists" in again.err) == (2, True)


def test_a_restore_goes_through_no_link_and_opens_nothing_that_was_closed(
    own: Any, nowhere: Path, artifacts: Any
) -> None:
    """A tenant may have put a link into its folder, which leads to another tenant's; groups are not restored."""
    tenants = artifacts.root / "tenants"
    left = tenants / f"homes/.new-{'0' * 32}"  # of a process that was killed while it made a folder
    for path in (tenants / "homes/ab", tenants / "homes", tenants / "garden", tenants / "new-york", left):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o2770)
    (tenants / "homes/ab/file").write_text("as backed up")
    (tenants / "garden/link").symlink_to("../homes")
    kept = own("backup", "kept")
    assert f"left out of artifacts.tar: {tenants}/garden/link" in kept.err
    backup._extract(nowhere / "kept/artifacts.tar", nowhere / "new")
    closed = [nowhere / "new/tenants" / name for name in ("homes", "homes/ab", "new-york")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in closed} == {0o700}
    assert not (nowhere / "new/tenants/homes" / left.name).exists()
    assert (nowhere / "new/tenants/homes/ab/file").read_text() == "as backed up"
    (nowhere / "new/tenants/homes/ab/file").write_text("there")
    backup._extract(nowhere / "kept/artifacts.tar", nowhere / "new")
    assert (nowhere / "new/tenants/homes/ab/file").read_text() == "there"

    def no_links(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", no_links)  # a file system without them
        backup._extract(nowhere / "kept/artifacts.tar", nowhere / "unlinked")
    assert (nowhere / "unlinked/tenants/homes/ab/file").read_text() == "as backed up"
    shutil.rmtree(nowhere / "new/tenants/homes")
    (nowhere / "new/tenants/homes").symlink_to(nowhere / "new/tenants/garden")
    with pytest.raises(InvalidInputError, match="cannot be restored"):
        backup._extract(nowhere / "kept/artifacts.tar", nowhere / "new")
    assert list((nowhere / "new/tenants/garden").iterdir()) == []


def test_the_password_is_in_no_argument(own: Any, nowhere: Path, database: Any, monkeypatch: Any) -> None:
    seen: list[list[str]] = []

    class Watched(subprocess.Popen[bytes]):
        def __init__(self, command: Any, **options: Any) -> None:
            seen.append([str(word) for word in command])
            super().__init__(command, **options)

    monkeypatch.setattr("easeml_core.store.dump.subprocess.Popen", Watched)
    assert own("backup", "kept").status == 0
    assert own("restore", "kept", "--replace").status == 0
    used = [words for words in seen if "--version" not in words]
    assert [Path(words[0]).name for words in used] == ["pg_dump", "psql", "pg_restore"]
    assert database.server.secrets["easeml_owner"] not in " ".join(word for words in seen for word in words)


def test_only_the_owner_backs_up_and_nothing_is_left(
    run: Any, own: Any, database: Any, nowhere: Path, artifacts: Any
) -> None:
    there = sorted(p.name for p in nowhere.iterdir())
    for role in ("easeml_worker", "easeml_referee"):
        asked = ("--database", database.url(role), "--artifacts", str(artifacts.root))
        answer = run("db", "backup", "kept", *asked)
        assert (answer.status, answer.out) == (2, ""), role
        assert "pg_dump failed" in answer.err, role
        assert "permission denied" in answer.err, role
        assert sorted(p.name for p in nowhere.iterdir()) == there, role


def test_an_interrupted_backup_leaves_no_half_file(own: Any, database: Any, nowhere: Path, artifacts: Any) -> None:
    """A pg_dump that never ends, and SIGTERM."""
    programs = nowhere / "programs"
    programs.mkdir()
    (programs / "pg_dump").write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'pg_dump 99' && exit\nexec sleep 600\n"
    )
    (programs / "pg_dump").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    started = [sys.executable, "-m", "easeml_core.cli", "db", "backup", "kept", "--artifacts", str(artifacts.root)]
    with subprocess.Popen(
        [*started, "--database", database.url("easeml_owner")], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not list(nowhere.glob(".kept.partial-*/easeml.dump")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, "interrupted" in err) == (130, True)
    assert [p.name for p in nowhere.iterdir() if "kept" in p.name] == []


def damage(kept: Path, what: str) -> None:
    manifest = json.loads((kept / "manifest.json").read_text())
    if what == "changed":
        with (kept / "easeml.dump").open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 1]))
    elif what == "missing":
        (kept / "artifacts.tar").unlink()
    elif what == "added":
        (kept / "more").touch()
    elif what == "link":
        (kept / "artifacts.tar").rename(kept.parent / "moved")
        (kept / "artifacts.tar").symlink_to(kept.parent / "moved")
    elif what == "format":
        manifest["format"] = 2
    elif what == "path":
        manifest["files"][0]["name"] = "../easeml.dump"
    elif what == "text":
        manifest = ["no manifest"]
    elif what == "newer":
        manifest["schema"] = "9999"
    if what in ("format", "path", "text", "newer"):
        (kept / "manifest.json").write_text(json.dumps(manifest))


DAMAGES = {
    "changed": "easeml.dump is not",
    "missing": "artifacts.tar is missing",
    "added": "more was added",
    "link": "artifacts.tar is missing",
    "format": "format is 2",
    "path": "no plain files",
    "text": "is no manifest",
    "newer": "schema 9999",
}


def test_a_backup_that_is_not_whole_changes_nothing(own: Any, kept: Path) -> None:
    for what, words in DAMAGES.items():
        damaged = shutil.copytree(kept, kept.parent / what / "kept")
        damage(damaged, what)
        answer = own("restore", str(damaged), "--replace", "--artifacts", "back")
        assert (answer.status, answer.out) == (2, ""), what
        assert words in answer.err, what
        assert not (kept.parent / "back").exists(), what


def test_a_database_with_studies_is_replaced_only_when_asked(
    own: Any, kept: Path, ask: Any, run: Any, database: Any
) -> None:
    answer = own("restore", "kept")
    assert (answer.status, answer.out, "has studies," in answer.err) == (2, "", True)
    assert ask("tenant", "set", "lab", "--weight", "7").status == 0
    kept.chmod(0o755)
    (kept / "easeml.dump").chmod(0o644)
    answer = own("restore", "kept", "--replace", "--artifacts", "back", "--json")
    assert answer.status == 0, answer.err
    assert "kept, easeml.dump" in answer.json["warnings"][0]
    assert ask("tenant", "list", "--json").json[0]["weight"] == 1.0
    assert ask("db", "artifacts", "--json").json["place"] == str(kept.parent / "back")
    assert run("db", "restore", "kept", "--check").status == 0  # needs no database


def as_superuser(database: Any, *statements: str) -> None:
    with closing(database.server.connect(database=database.name)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_a_restore_that_fails_on_its_way_leaves_the_database_as_it_was(
    own: Any, kept: Path, ask: Any, monkeypatch: Any
) -> None:
    program = kept.parent / "programs" / "pg_restore"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for ends in ("exit 1", "kill -9 $$", "echo 'SELECT 1 / 0;'"):
        said = f"[ \"$1\" = --version ] && echo 99 && exit\necho 'CREATE SCHEMA work;'\n{ends}"
        program.write_text(f"#!/bin/sh\n{said}\n")
        program.chmod(0o755)
        answer = own("restore", "kept", "--replace")
        assert (answer.status, answer.out, "nothing is used" in answer.err) == (2, "", True), ends
        assert [one["tenant"] for one in ask("tenant", "list", "--json").json] == ["lab"], ends


def test_what_others_made_is_named_and_never_removed(own: Any, kept: Path, database: Any) -> None:
    as_superuser(
        database,
        "CREATE SCHEMA reports",
        "CREATE TABLE reports.notes (study bigint REFERENCES work.studies, text text)",
        "CREATE VIEW reports.daily AS SELECT id FROM work.trials",
        "CREATE TABLE work.others (id int PRIMARY KEY)",
        "CREATE EXTENSION btree_gist SCHEMA work",
        "CREATE PUBLICATION feed FOR TABLE work.trials",
    )
    answer = own("restore", "kept", "--replace", "--artifacts", "back")
    assert (answer.status, answer.out) == (2, "")
    foreign = ("extension btree_gist", "publication feed", "notes_study_fkey", "work.others", "view reports.daily")
    assert [name for name in foreign if name not in answer.err] == []
    assert not (kept.parent / "back").exists()
    with pytest.raises(StoreError, match="others would be lost: extension btree_gist, "):
        dump.restore(database.url("easeml_owner"), kept / "easeml.dump", server=18, replaces=True)
    as_superuser(
        database,
        "DROP PUBLICATION feed",
        "DROP EXTENSION btree_gist",
        "DROP TABLE work.others",
        "DROP VIEW reports.daily",
        "ALTER TABLE reports.notes DROP CONSTRAINT notes_study_fkey",
        "INSERT INTO reports.notes VALUES (1, 'theirs')",
    )
    assert own("restore", "kept", "--replace").status == 0
    with closing(database.server.connect(database=database.name)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT text FROM reports.notes")
        assert cursor.fetchall() == [("theirs",)]


def test_a_study_that_was_registered_meanwhile_is_not_replaced(
    own: Any, kept: Path, ask: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(dump, "is_in_use", lambda _: False)  # as it was when the restore began
    answer = own("restore", "kept")
    assert (answer.status, "studies by now" in answer.err) == (2, True)
    assert [one["tenant"] for one in ask("tenant", "list", "--json").json] == ["lab"]


def test_a_server_that_is_newer_than_every_program_is_named(own: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(dump, "server_version", lambda _: 99)
    answer = own("backup", "kept")
    assert answer.status == 2
    assert "pg_dump of PostgreSQL 99" in answer.err
