"""Locks and generated secrets of the embedded server's home."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import NotFoundError, StateError
from easeml_core.store.server.place import SecretFile, locked, new_password, owner_lock

if TYPE_CHECKING:
    from pathlib import Path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_lock_keeps_threads_apart(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count(_: int) -> None:
        with locked(tmp_path / "lock"):
            counter.write_text(str(int(counter.read_text()) + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(200)))
    assert counter.read_text() == "200"
    assert mode_of(tmp_path / "lock") == 0o600


def test_a_second_owner_is_refused_and_reported_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "owner.lock"
    path.write_text("1234567 and more of a former owner\n")
    with owner_lock(path, "the thing"):
        with pytest.raises(StateError, match=rf"process {os.getpid()} owns the thing; stop that process"):
            owner_lock(path, "the thing").__enter__()
        assert path.read_text() == f"{os.getpid()}\n"
    with owner_lock(path, "the thing"):
        pass


def test_ownership_ends_with_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "owner.lock"
    code = (
        "import pathlib, sys, time\n"
        "from easeml_core.store.server.place import owner_lock\n"
        "with owner_lock(pathlib.Path(sys.argv[1]), 'it'):\n"
        "    print('mine', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "mine\n"
        with pytest.raises(StateError, match=f"process {owner.pid} owns it"):
            owner_lock(path, "it").__enter__()
        owner.kill()
    with owner_lock(path, "it"):
        pass


def test_secrets_are_made_once_and_kept_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    first = SecretFile(path).get_or_make("fernet_key", new_password)
    assert SecretFile(path).get_or_make("fernet_key", lambda: "another") == first
    assert SecretFile(path)["fernet_key"] == first
    assert SecretFile(path).get_or_make("jwt_secret", new_password) != first
    assert set(SecretFile(path).read()) == {"fernet_key", "jwt_secret"}
    assert mode_of(path) == 0o600


def test_whoever_asks_at_once_is_given_the_same_secret(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"] * 8
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda name: SecretFile(tmp_path / "s").get_or_make(name, new_password), names))
    assert len(set(zip(names, values, strict=True))) == 4
    assert set(SecretFile(tmp_path / "s").read()) == {"a", "b", "c", "d"}


def test_a_secret_that_was_never_made_and_a_damaged_file_say_so(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    with pytest.raises(NotFoundError, match="there is no secret 'x'"):
        SecretFile(path)["x"]
    path.write_text('{"postgres": "half')
    with pytest.raises(StateError, match="is damaged"):
        SecretFile(path).read()


@settings(deadline=None, max_examples=examples(30))
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")), max_size=4))
def test_any_text_survives_the_file(tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]) -> None:
    file = SecretFile(tmp_path_factory.mktemp("secrets") / "s")
    for name, value in values.items():
        file.get_or_make(name, lambda value=value: value)
    assert file.read() == values


def test_passwords_are_long_random_and_safe_in_an_address() -> None:
    passwords = {new_password() for _ in range(100)}
    assert len(passwords) == 100
    assert all(len(p) == 32 and p.replace("-", "").replace("_", "").isalnum() for p in passwords)
