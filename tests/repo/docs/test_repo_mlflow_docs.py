"""The page on MLflow: its commands are commands, its names are those of the mirror."""

from __future__ import annotations

import pytest
from doc_pages import Page, parse

from easeml_core.services.operations.mlflow_sync import STATUS, Mirror

_PAGE = Page("operations.md", "A mirror in MLflow")


@pytest.mark.parametrize("command", _PAGE.commands)
def test_every_command_can_be_given(command: str) -> None:
    assert set(parse(command)) >= {"tracking_uri", "studies", "prefix", "alias"}


def test_the_names_on_the_page_are_the_default_ones() -> None:
    names = Mirror()
    given = parse(_PAGE.commands[0])
    assert (given["prefix"], given["alias"]) == (names.prefix, names.alias)
    for word in (f"`{names.prefix}/TENANT/STUDY`", f"`{names.prefix}.STUDY`", f"alias `{names.alias}`"):
        assert word in _PAGE.text


@pytest.mark.parametrize("status", STATUS.values())
def test_every_status_of_a_run_is_on_the_page(status: str) -> None:
    assert status in _PAGE.text
