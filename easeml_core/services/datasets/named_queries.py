"""The file of queries that the referee is started with: names for studies, SQL by whoever runs the referee.

    flowers:
      url_env: FLOWERS_URL          # or url_file: /etc/easeml/flowers-url
      sql: SELECT petal, sepal, species FROM garden.flowers
      tenants: [garden]             # without it: all
      timeout_seconds: 60           # without it: 300

The database's address stands in the environment or in a file of its own, never here: this file may be shown.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from easeml_core.config import require
from easeml_core.data.sources.load import check_source
from easeml_core.errors import InvalidInputError, reason_of
from easeml_core.store.external_query import NamedQuery
from easeml_core.yaml_text import YamlFaultError, compose

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_BYTES = 1 << 20
LONGEST_SECONDS = 3600.0
_KNOWN = frozenset({"url_env", "url_file", "sql", "tenants", "timeout_seconds"})


def read_queries(path: Path) -> dict[str, NamedQuery]:
    """The queries of a file, by name.

    Raises:
        InvalidInputError: If the file cannot be read, or a query is not as it must be; no address is ever shown.
    """
    text = _text(path, "file of queries")
    try:
        compose(text, deepest=4)
        entries = yaml.safe_load(text)  # checked above: no alias, no tag, not deep
    except (YamlFaultError, yaml.YAMLError) as error:
        message = f"file of queries {path}: it is not YAML as it must be: {error}"
        raise InvalidInputError(message) from error
    require(isinstance(entries, dict) and bool(entries), f"file of queries {path}", entries, "a mapping of names")
    return {str(name): _named_query(str(name), entry) for name, entry in entries.items()}


def _named_query(name: str, entry: Any) -> NamedQuery:
    check_source(f"sql:{name}", "any")
    where = f"query {name!r}"
    if not isinstance(entry, dict) or set(entry) - _KNOWN or not isinstance(entry.get("sql"), str):
        message = (
            f"{where} must be a mapping with sql and url_env or url_file, and nothing but {', '.join(sorted(_KNOWN))}"
        )
        raise InvalidInputError(message)
    tenants, seconds = entry.get("tenants", []), entry.get("timeout_seconds", 300)
    is_list = isinstance(tenants, list) and all(isinstance(tenant, str) for tenant in tenants)
    require(is_list and (bool(tenants) or "tenants" not in entry), f"{where}: tenants", tenants, "a list of names")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    in_range = is_number and 0 < seconds <= LONGEST_SECONDS
    require(in_range, f"{where}: timeout_seconds", seconds, f"above 0 and at most {LONGEST_SECONDS:g}")
    return NamedQuery(name, _address(where, entry), entry["sql"], frozenset(tenants), float(seconds))


def _address(where: str, entry: Mapping[str, Any]) -> str:
    by_env, by_file = entry.get("url_env"), entry.get("url_file")
    if isinstance(by_env, str) == isinstance(by_file, str):
        message = f"{where} must have url_env, the name of a variable, or url_file, the path of a file"
        raise InvalidInputError(message)
    found = _text(Path(str(by_file)), where) if by_env is None else os.environ.get(by_env, "")
    if not found.strip():
        message = f"{where}: {by_env or by_file} is empty; put the database's address there"
        raise InvalidInputError(message)
    return found.strip()


def _text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{what}: {path} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error
    if len(content) > LARGEST_BYTES:
        message = f"{what}: {path} is larger than 1 MB"
        raise InvalidInputError(message)
    return text
