"""Text that other people wrote, on a terminal: it is shown, and it does nothing."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_core.cli.output import cell, plain, show_table


@pytest.mark.parametrize("name", ["[/bold]", "[red]x", ":smile:", "[link=http://a]b"])
def test_a_name_in_a_table_is_no_markup(name: str, capsys: Any) -> None:
    show_table("[/title]", {"Name": "name"}, [{"name": name}])
    shown = "".join(capsys.readouterr().out.split())
    assert name in shown
    assert "[/title]" in shown


def test_control_characters_are_escaped() -> None:
    assert cell("\x1b[2J\x07\r\x9b") == r"\x1b[2J\x07\r\x9b"
    assert plain("two\nlines\tand a ü") == "two\nlines\tand a ü"
