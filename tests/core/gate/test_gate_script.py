"""Scripts: the published form and ours, and every mistake with its line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import InvalidInputError
from easeml_core.gate.script import MAX_LENGTH, Script, read_script

PUBLISHED = """\
ml:
  - script     : ./test_model.py
  - condition  : n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01
  - reliability: 0.9999
  - mode       : fp-free
  - adaptivity : none -> xx@abc.com
  - steps      : 32
"""
LINES = PUBLISHED.splitlines()
MAP = "\n".join(["ml:", *(line.replace("- ", "  ", 1) for line in LINES[1:])])


def changed(line: int, text: str) -> str:
    """The published script with one line (from 1) replaced."""
    return "\n".join([*LINES[: line - 1], text, *LINES[line:]])


def test_the_published_form():
    assert read_script(PUBLISHED) == Script(
        script="./test_model.py",
        condition="n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01",
        reliability=0.9999,
        mode="fp-free",
        adaptivity="none",
        steps=32,
        mail="xx@abc.com",
    )


@pytest.mark.parametrize(
    "text",
    [
        MAP,
        "\n".join(line.strip().replace("- ", "", 1) for line in LINES[1:]),
        "\n".join(line.strip() for line in LINES[1:]),
        "\n".join(["ml:", *reversed(LINES[1:])]),
        "# a comment\n---\n" + PUBLISHED,
    ],
)
def test_other_forms_mean_the_same(text):
    assert read_script(text) == read_script(PUBLISHED)


@settings(max_examples=examples(30))
@given(st.permutations(LINES[1:]))
def test_any_order(lines):
    assert read_script("\n".join(["ml:", *lines])) == read_script(PUBLISHED)


@pytest.mark.parametrize(
    ("written", "adaptivity", "mail"),
    [
        ("none", "none", ""),
        ("none -> boss@example.org", "none", "boss@example.org"),
        ("full", "full", ""),
        ("firstChange", "firstChange", ""),
        ("hybrid", "firstChange", ""),
        ("upTo:3", "upTo:3", ""),
        ("recycle", "recycle", ""),
    ],
)
def test_adaptivities(written, adaptivity, mail):
    found = read_script(changed(6, f"  - adaptivity: {written}"))
    assert (found.adaptivity, found.mail) == (adaptivity, mail)


def test_our_own_keys():
    more = "\n  - estimator: exact\n  - power: 0.9\n  - sampling: early\n  - mail: xx@abc.com"
    found = read_script(PUBLISHED + more.lstrip("\n"))
    config = found.to_config()
    assert (config.estimator, config.power, config.sampling, config.mail) == ("exact", 0.9, "early", "xx@abc.com")
    assert read_script(PUBLISHED + "  - power: same").power is None
    assert read_script("\n".join([LINES[0], *LINES[2:]])).script == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PUBLISHED + "  - data_mode: local", "line 8: unknown key 'data_mode'; known are script, condition"),
        (PUBLISHED + "  - steps: 32", "line 8: steps comes twice"),
        (MAP + "\n    steps: 32", "line 8: steps comes twice"),
        (PUBLISHED + "  - power: 0.9\n    mail: a@b", "line 8: every entry of the list must be one 'key: value'"),
        (PUBLISHED + "  - steps", "line 8: every entry of the list must be one 'key: value'"),
        (PUBLISHED + "language: python", "unknown key 'ml'"),
        (changed(4, "  - reliability: 1.0"), "line 4: reliability must be > 0 and < 1, got 1.0"),
        (changed(4, "  - reliability: 0"), "line 4: reliability must be > 0 and < 1"),
        (changed(4, "  - reliability: high"), "line 4: reliability must be a number, got 'high'"),
        (changed(4, "  - reliability: nan"), "line 4: reliability must be a number"),
        (changed(4, "  - reliability: [0.9]"), "line 4: reliability must be one value"),
        (changed(5, "  - mode: strict"), "line 5: mode must be one of fp-free, fn-free"),
        (changed(5, "  - mode:"), "line 5: mode has no value"),
        (changed(6, "  - adaptivity: some"), "line 6: adaptivity must be none, full, firstChange, recycle, or upTo:K"),
        (changed(6, "  - adaptivity: upTo:33"), "line 6: adaptivity must be upTo:K with K at most the steps"),
        (changed(6, "  - adaptivity: full -> a@b"), "line 6: '->' and an address"),
        (changed(6, "  - adaptivity: none ->"), "line 6: an address such as name@host must follow '->'"),
        (changed(6, "  - adaptivity: none -> boss"), "line 6: mail must be an address such as name@host, got 'boss'"),
        (PUBLISHED + "  - mail: other@abc.com", "line 8: mail 'other@abc.com' and the address behind '->'"),
        (changed(7, "  - steps: 0"), "line 7: steps must be a whole number, 1 to 1000000, got 0"),
        (changed(7, "  - steps: 2.5"), "line 7: steps must be a whole number >= 1, got '2.5'"),
        (changed(7, "  - steps: -1"), "line 7: steps must be a whole number >= 1, got '-1'"),
        (changed(7, ""), "missing: steps; needed are condition, reliability, mode, adaptivity, steps"),
        ("", "it is empty"),
        ("ml:", "line 1: expected 'ml:' with a list"),
        ("ml: yes", "line 1: expected 'ml:' with a list"),
        ("ml: [", "line 1: this is not YAML"),
        (changed(2, "  - script: 'open"), "this is not YAML: found unexpected end of stream"),
        ("a: 1\x07", "this is not YAML: special characters are not allowed"),
        (changed(2, "  - script: !!python/object/apply:os.system [echo]"), "line 2: anchors, aliases and tags"),
        (changed(2, "  - script: &a b"), "line 2: anchors, aliases and tags are not allowed"),
        ("[" * 5000, "line 1: it is nested too deeply"),
        (PUBLISHED + "---\n" + PUBLISHED, "line 8: it must be one document"),
        ("? [a]\n: b", "line 1: a key must be one word"),
        ("x" * (MAX_LENGTH + 1), "at most 20,000 characters are read"),
    ],
)
def test_mistakes_are_named_with_their_line(text, words):
    with pytest.raises(InvalidInputError) as caught:
        read_script(text)
    assert str(caught.value).startswith("script")
    assert words in str(caught.value)


def test_a_wrong_condition_has_line_and_caret():
    with pytest.raises(InvalidInputError) as caught:
        read_script(changed(3, "  - condition: n - x > 0.02 +/- 0.01"))
    first, source, caret = str(caught.value).splitlines()
    assert first == "script, line 3: condition: unknown variable 'x'; known are n, o, d"
    assert caret.index("^") == source.index("x")


@settings(max_examples=examples(200))
@given(st.text(max_size=200))
def test_nothing_but_our_error_comes_out(text):
    for source in (text, changed(3, f"  - condition: {text}"), "ml:\n" + text):
        with contextlib.suppress(InvalidInputError):
            assert read_script(source).steps == 32
