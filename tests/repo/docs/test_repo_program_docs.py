"""docs/data.md, programs: they are read, its module takes its data, its table and bounds are those of the code."""

from __future__ import annotations

import re

import pytest
from doc_pages import Page, parse

from easeml_core.errors import ProgramError
from easeml_core.models.networks.architecture import NORMALISATIONS
from easeml_core.programs import schema, schema_match
from easeml_core.programs.language import grammar, parse_data_type, parse_pattern, parse_program
from easeml_core.programs.schema import Schema
from easeml_core.programs.schema_match import Match, Mismatch, match_schema
from easeml_core.programs.templates import TABLE_CLASSIFIERS, TEMPLATES, Template, match_program
from easeml_core.training.candidates import GRIDS, RATES, grid_of
from easeml_core.training.trainers import NOT_TRAINED

_PAGE = Page("data.md", "Programs")
TEXT, COMMANDS = _PAGE.text, _PAGE.commands


def fenced(kind: str) -> list[str]:
    return [body for found, body in re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL) if found == kind]


@pytest.mark.parametrize("text", fenced("program"))
def test_every_program_of_the_page_is_read_and_falls_to_a_row(text: str) -> None:
    program = parse_program(text)
    assert parse_program(str(program)) == program
    assert match_program(program, TEMPLATES).template is not None


def test_there_are_programs_of_both_forms() -> None:
    forms = [isinstance(parse_program(text).input, Schema) for text in fenced("program")]
    assert (forms.count(False), forms.count(True)) == (3, 2)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_parses(command: str) -> None:
    assert parse(command)["file"]


def test_the_grammar_of_the_page_is_that_of_the_parser() -> None:
    rules = [line.strip("`.") for line in grammar().splitlines()]
    assert "```\n" + "\n".join(rules) + "\n```" in TEXT


def test_the_mistake_of_the_page_is_shown_so() -> None:
    (shown,) = [block for block in fenced("") if block.startswith("images.txt, line")]
    with pytest.raises(ProgramError) as caught:
        parse_program(shown.splitlines()[1].strip())
    assert f"{caught.value.in_file('images.txt')}\n" == shown


def test_the_module_of_the_page_takes_its_data() -> None:
    (module,), (data,) = fenced("module"), fenced("data")
    wanted, given, other = (parse_data_type(t) for t in (module, data, data.replace("{dim: 10}", "{dim: 11}")))
    assert isinstance(wanted, Schema)
    assert isinstance(given, Schema)
    assert isinstance(other, Schema)
    found = match_schema(wanted, given)
    assert isinstance(found, Match)
    assert found.dims == {"a": 10, "b": 20}
    assert isinstance(match_schema(wanted, other), Mismatch)


def test_the_table_of_the_page_is_the_table() -> None:
    lines = [line for line in _PAGE.blocks["templates"].splitlines() if line.startswith("|")]
    expected = []
    for row in TEMPLATES:
        for work in row.workloads:
            name = f"{work.name} (targets {work.targets})" if work.targets else work.name
            candidates = ", ".join(work.candidates)
            if row.name == "5b" and work.candidates == TABLE_CLASSIFIERS:
                candidates = "as 5a"
            patterns = [f"`{parse_pattern(text)}`" for text in (row.input, row.output)]
            expected.append(f"| {row.name} | {' | '.join(patterns)} | {name} | {candidates} |")
    assert lines[2:] == expected


def test_what_is_not_trained_yet_is_told_with_the_reason() -> None:
    lines = [line for line in _PAGE.blocks["not-trained"].splitlines() if line.startswith("| `")]
    told = {name: why for names, why in (line.strip("| ").split(" | ") for line in lines) for name in names.split(", ")}
    assert told == {f"`{name}`": why for name, why in NOT_TRAINED.items()}


def test_the_grid_of_the_page_is_the_grid() -> None:
    section = " ".join(TEXT.split("### Normalisation of images")[1].split("## ")[0].split())
    assert f"learning rates {', '.join(RATES[:-1])} and {RATES[-1]}" in section
    assert f"{', '.join(NORMALISATIONS[1:-1])} or {NORMALISATIONS[-1]}" in section
    assert "resnet-lr0.01-f0.4" in [c["name"] for c in grid_of({"name": "resnet", "kind": "resnet"}, "full")]
    assert all(f"`{grid}`" in section for grid in GRIDS)


def test_the_rows_of_another_distribution_are_rows() -> None:
    names: dict[str, list[Template]] = {}
    (code,) = fenced("python")
    exec(compile(code, "docs/data.md", "exec"), names)
    program = parse_program("{input: {[Tensor[4096]], []}, output: {[Category[3]], []}}")
    assert match_program(program, [*names["rows"], *TEMPLATES]).template == names["rows"][0]
    assert '[project.entry-points."easeml.templates"]' in TEXT


def test_the_bounds_of_the_page_are_the_bounds() -> None:
    numbers = (schema.MAX_LENGTH, schema.MAX_PARTS, schema.MAX_DIMS, schema.MAX_NAME, schema.MAX_SIZE)
    section = TEXT.split("## Bounds")[1]
    for number in (*numbers, schema_match.MAX_STEPS):
        assert re.search(rf"(?<![\d,]){number:,}(?![\d,])", section)
