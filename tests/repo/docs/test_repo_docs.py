"""The documentation names what there is: entities, errors, settings, operators, grammar, links."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import attrs
import pytest
from doc_pages import section_of

from easeml_core import entities, errors
from easeml_core.settings import config

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_a_page_opens_with_what_its_reader_can_do_afterwards(page: Path) -> None:
    opening = page.read_text(encoding="utf-8").split("\n\n")[1]
    assert re.fullmatch(r"After this page you (can|have|know) (?:[^.]|\.(?=\w)){20,240}\.", opening), opening


OF_AIRFLOW = {
    "No module named 'easeml_airflow'",
    "ArgNotSet is not JSON serializable",
    "Tasks using non-existent pool 'easeml_devices' will not be scheduled",
    "password authentication failed",
}
"""Messages on the page of symptoms that Airflow, Python or PostgreSQL write."""


def test_messages_among_the_symptoms_are_those_of_the_code() -> None:
    rows = [line.split(" | ")[0] for line in read("troubleshooting.md").splitlines() if line.startswith("| ")]
    told = [message for row in rows for message in re.findall(r'"([^"]+)"', re.sub(r"`[^`]*`", "", row))]
    parts = {part.strip() for message in told for part in re.split(r"\.\.\.", message) if len(part.strip()) > 7}
    places = ("easeml_core/**/*.py", "plugins/**/*.py", "plugins/**/*.html", "scripts/launch.py")
    sources = [path for place in places for path in ROOT.glob(place)]
    text = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    assert len(told) > 25
    assert {part for part in parts - OF_AIRFLOW if part not in text} == set()


def classes_of(module: object) -> list[str]:
    members = inspect.getmembers(module, inspect.isclass)
    return [name for name, kind in members if kind.__module__ == module.__name__ and not name.startswith("_")]


@pytest.mark.parametrize("name", classes_of(entities))
def test_every_entity_is_in_the_glossary(name: str) -> None:
    assert f"`{name}`" in read("glossary.md")


ERRORS = [name for name in classes_of(errors) if issubclass(getattr(errors, name), Exception)]


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_has_a_row(name: str) -> None:
    assert f"| `{name}` |" in read("troubleshooting.md")


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_derives_from_the_base_and_is_in_the_drawn_tree(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.EasemlError)
    assert name in (errors.__doc__ or "")


def options() -> list[tuple[str, str]]:
    from easeml_airflow.settings import OPTIONS

    return [(option.name, option.default) for option in OPTIONS]


@pytest.mark.parametrize(("name", "default"), options())
def test_every_airflow_option_is_documented_with_its_default(name: str, default: str) -> None:
    assert f"| `{name}` | `{default}` |" in read("settings.md")


def default_as_shown(default: object) -> str:
    """A default as the tables of settings have it."""
    if default in (None, (), ""):
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return f"`{default}`" if isinstance(default, str) else f"{default:g}"


@pytest.mark.parametrize(
    ("kind", "heading"),
    [
        (config.GateConfig, "A study's gate"),
        (config.MeterConfig, "A study's meter"),
        (config.TrainingConfig, "A study's training"),
        (config.SelectionConfig, "How the next trial is chosen"),
    ],
)
def test_every_setting_is_documented_with_its_default(kind: type, heading: str) -> None:
    section = section_of(read("settings.md"), heading)
    shown = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.MULTILINE))
    assert {field.name: default_as_shown(field.default) for field in attrs.fields(kind)} == shown


@pytest.mark.parametrize(("name", "kind"), [("joint", config.JointConfig), ("direct", config.DirectConfig)])
def test_settings_of_shared_and_second_sets_are_documented(name: str, kind: type) -> None:
    for field in attrs.fields(kind):
        row = rf"^\| `{name}`: (`\w+`, )?`{field.name}`"
        assert re.search(row, read("settings.md"), re.MULTILINE), field.name


def test_every_variable_that_the_product_reads_is_documented() -> None:
    sources = [*ROOT.glob("easeml_core/**/*.py"), *ROOT.glob("plugins/**/*.py")]
    read_names = {n for path in sources for n in re.findall(r"[\"'](EASEML_[A-Z_]+)[\"']", path.read_text("utf-8"))}
    section = section_of(read("settings.md"), "Environment variables")
    assert len(read_names) > 6
    assert read_names - set(re.findall(r"`(EASEML_[A-Z_]+)`", section)) == set()


@pytest.mark.parametrize("policy", config.POLICIES)
def test_every_policy_is_documented(policy: str) -> None:
    assert f"`{policy}`" in read("settings.md")


def public_names() -> list[str]:
    import easeml_airflow.decorators
    import easeml_airflow.operators
    import easeml_airflow.sensors

    packages = (easeml_airflow.operators, easeml_airflow.sensors, easeml_airflow.decorators)
    return [name for package in packages for name in package.__all__]


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_of_the_plugin_is_documented(name: str) -> None:
    assert re.search(rf"`@?{name}\b", read("operators.md"))


def test_the_page_of_installation_knows_how_small_a_table_may_be() -> None:
    from easeml_core.errors import SealedSetTooSmallError
    from easeml_core.services.registration import sealing

    plans = sealing.planned_sets({"gate": config.GateConfig().to_json(), "meter": config.MeterConfig().to_json()})
    told = re.search(r"of ([\d,]+) different rows or more", read("install.md"))
    assert told is not None
    least = int(told[1].replace(",", ""))
    assert sum(sealing.part_sizes(least, plans).values()) < least
    with pytest.raises(SealedSetTooSmallError):
        sealing.part_sizes(least - 1, plans)


def test_grammar_of_the_docs_is_that_of_the_parser() -> None:
    from easeml_core.gate import condition

    shown = re.search(r"## Grammar\n\n```\n(.*?)```", read("gate.md"), re.DOTALL)
    assert shown is not None
    rules = [line.strip("`.") for line in condition.grammar().splitlines()]
    assert shown[1].splitlines() == rules


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_decision_says_what_violates_it() -> None:
    records = sorted((DOCS / "adr").glob("*.md"))
    assert [r.name[:4] for r in records] == [f"{n:04d}" for n in range(1, len(records) + 1)]
    for record in records:
        assert "## A change violates this decision when it" in record.read_text(encoding="utf-8")


def test_every_test_and_file_of_tests_that_the_docs_name_is_there() -> None:
    """A promise with a test's name beside it is held by that test."""
    source = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", source))
    files = {path.name for path in (ROOT / "tests").rglob("*.py")}
    missing = [
        f"{page.name}: {name}"
        for page in sorted((ROOT / "docs").glob("*.md"))
        for name in re.findall(r"\btest_\w+(?:\.py)?\b", page.read_text())
        if name not in defined | files | {"test_set", "test_sets", "test_set_id"}
    ]
    assert missing == []


POINTER = re.compile(r'docs/([\w/-]+\.md)`*(?:, "([^"]+)"|, ([A-Z][^.,;)"`]+)| \(([A-Z][^)]+)\))?')
"""A page that a file names, with a heading of it behind a comma, as it is or quoted, or in brackets."""


def pointers() -> list[tuple[str, str, str]]:
    """File, page and heading ("" for none) of what files that are no pages say of the documentation."""
    places = ("dags", "docker", "docs/examples", "easeml_core", "plugins", "scripts")
    files = [path for place in places for path in sorted((ROOT / place).rglob("*"))]
    found = []
    for path in files:
        if path.suffix not in {".py", ".sh", ".yaml", ".yml", ".env", ".html", ".sql", ""} or not path.is_file():
            continue
        text = re.sub(r'"\s*\n\s*f?"|\n\s*#?\s*', lambda cut: "" if '"' in cut[0] else " ", path.read_text("utf-8"))
        found += [(path.name, page, "".join(heading).strip()) for page, *heading in POINTER.findall(text)]
    return found


def test_pages_and_headings_that_other_files_name_are_there() -> None:
    found = pointers()
    assert sum(bool(heading) for _, _, heading in found) > 10
    titles = {p: re.findall(r"^#+ (.+)$", read(p), re.MULTILINE) for _, p, _ in found if (DOCS / p).is_file()}
    assert [one for one in found if one[1] not in titles or (one[2] and one[2] not in titles[one[1]])] == []
