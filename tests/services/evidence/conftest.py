"""A laboratory whose referee has signed three answers, made once a session and copied for every test."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from evidence_office import Office, open_office

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def furnished_office(
    server: Any, all_databases: Any, furnished: Any, template_maker: Any, tmp_path_factory: Any
) -> Iterator[Office]:
    """The office that every other one is copied from, with its keys."""
    original, handed = furnished
    lab = template_maker(server, original.name, original.artifacts)
    lab.models = handed
    made = open_office(lab, tmp_path_factory.mktemp("office") / "keys")
    lab.close()
    yield made
    all_databases.forget(lab.name)
    server.drop_database(lab.name)


@pytest.fixture
def office(databases: Any, furnished_office: Office, lab_opener: Any, tmp_path: Path) -> Iterator[Office]:
    """An office of this test's own: one pass, promoted, and one fail, both signed; nothing is wrong."""
    template = furnished_office.lab
    lab = lab_opener(databases, template.name, template.artifacts)
    lab.models, lab._keys = template.models, template._keys  # no key is used twice
    yield Office(lab, shutil.copytree(furnished_office.keys, tmp_path / "keys"))
    lab.end()
