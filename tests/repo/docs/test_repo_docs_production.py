"""docs/production.md: commands, manifests and cron are read; numbers are those of the code."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from doc_pages import ROOT, Page, parse

from easeml_core.store.database import Store

PAGE = Page("production.md")
BLOCKS = [
    re.sub(r"^ {4}", "", block, flags=re.MULTILINE)
    for block in re.findall(r"(?:^\n)((?:^ {4}.*\n|^\n(?= {4}))+)", PAGE.text, re.MULTILINE)
]


def block(start: str) -> str:
    (found,) = [b for b in BLOCKS if b.startswith(start)]
    return found


def test_every_block_of_the_page_is_looked_at() -> None:
    assert [b.split(maxsplit=1)[0] for b in BLOCKS] == [
        "env:",
        "cd",
        "easeml",
        "scrape_configs:",
        "MAILTO=operations@example.org",
    ]


def test_the_command_writes_a_unit_that_tells_the_referee_alone_to_stop() -> None:
    from easeml_core.services.operations.units import SERVICES

    given = parse(block("easeml service").splitlines()[0])
    assert (given["names"], given["artifacts"]) == (("referee", "device"), "/var/lib/easeml/artifacts")
    (referee,) = (service for service in SERVICES if service.name == "referee")
    manifest = (ROOT / "docs" / "examples" / "kubernetes" / "easeml.yaml").read_text(encoding="utf-8")
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", manifest)
    assert referee.stop_seconds == int(grace)
    for service in SERVICES:
        assert (
            f"up to {service.pause_seconds} s later" in PAGE.text or f"a device {service.pause_seconds} s" in PAGE.text
        )


def test_the_environment_of_tasks_is_what_ours_read() -> None:
    from easeml_airflow.doctor import VARIABLE

    assert [one["name"] for one in yaml.safe_load(block("env:"))["env"]] == [VARIABLE, "EASEML_CACHE"]


def test_the_line_for_cron_parses() -> None:
    *_, line = block("MAILTO").strip().splitlines()
    call = line.partition("easeml/bin/")[2].partition(" >")[0]
    assert parse(call)["as_json"] is True


def test_the_extra_of_the_connection_is_that_of_the_hook() -> None:
    from easeml_core.settings.connection import ConnectionExtra

    for page in (PAGE, Page("install.md")):
        told = {key for key in ConnectionExtra if f"`{key}`" in page.text or f'"{key}"' in page.text}
        assert told == set(ConnectionExtra)


def test_connections_are_counted_as_the_store_opens_them() -> None:
    pool: Any = Store("postgresql+psycopg2://nobody:x@127.0.0.1:1/none")._engine.pool
    kept, most = pool.size(), pool.size() + pool._max_overflow
    assert (kept, most, pool.timeout()) == (2, 10, 30)
    told = dict(re.findall(r"^\| (each [a-z]+)[^|]*\|[^|]*\| (\d+)", PAGE.text, re.MULTILINE))
    assert told == {"each running": "10", "each triggerer": "11", "each process": "11", "each referee": "20",
                    "each command": "10"}  # fmt: skip
    usual, worst = 20 * 2 + 2 * 2 + 4 * 5 + 10, 20 * most + 2 * 11 + 4 * 21 + 20
    assert (round(usual, -1), round(worst, -1)) == (70, 330)


@pytest.mark.parametrize(
    ("module", "name", "value", "words"),
    [
        ("easeml_airflow.web.live", "SILENCE_SECONDS", 15, "read timeout is above 15 s"),
        ("easeml_airflow.web.live", "LIFE_SECONDS", 120, "ends by itself after 120 s"),
        ("easeml_airflow.web.live", "MOST_OF_ONE", 12, "12 of one person"),
        ("easeml_airflow.web.live", "MOST", 1200, "1,200 of all"),
        ("easeml_airflow.web.pages.new_study", "MOST_UPLOAD_BYTES", 256_000_000, "bodies up to 256 MB"),
        ("easeml_airflow.web.pages.labeling", "MOST_BYTES", 8_000_000, "labels 8 MB"),
        ("easeml_airflow.web.pages.use", "MOST_FILE_BYTES", 16_000_000, "rows to answer 16 MB"),
        ("easeml_airflow.web.server.service", "MOST_BYTES", 4 << 20, "the service 4 MB"),
        ("easeml_airflow.web.server.request_limits", "LEAST_BYTES_A_SECOND", 300_000, "300 kB/s"),
        ("easeml_core.services.referee.dispatch", "MAX_ATTEMPTS", 5, "died five times"),
        ("easeml_core.services.datasets.fetching", "MOST_FETCHES", 4, "up to four fetches"),
        ("easeml_core.store.server.cluster", "DEFAULT_SETTINGS", {"max_connections": "200", "io_method": "sync"},
         "the embedded server's 200"),
    ],
)  # fmt: skip
def test_a_number_of_the_page_is_that_of_the_code(module: str, name: str, value: Any, words: str) -> None:
    from importlib import import_module

    assert getattr(import_module(module), name) == value
    assert words in PAGE.text
