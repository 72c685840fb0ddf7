"""A web server with tables, and a referee that is asked to seal a study with what it may read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from registering import register_study
from tables_elsewhere import GATE, METER, table
from web_server import Web, serving

from easeml_core.files import download
from easeml_core.files.cache import FileCache
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(download, "REST_SECONDS", 0.0)
    with serving() as found:
        found.files["/lab/own.csv"] = found.files["/other/theirs.csv"] = table().encode()
        yield found


@pytest.fixture
def ask(bare: Any, tmp_path: Path) -> Callable[..., Any]:
    """Register a study and let a referee with this reach answer."""

    def register(
        source: str, *, tenant: str = "lab", study: str = "table", split: str = "", target: str = "label", **duties: Any
    ) -> Any:
        given = {"gate": GATE, "meter": METER, "target": target, "split": split, "request_key": bare.key()}
        filed = register_study(bare.worker, tenant=tenant, study=study, source=source, **given)
        duties = {"cache": FileCache(tmp_path / "cache", limit_mb=100), **duties}
        referee = Referee(bare.referee, bare.artifacts, **duties)  # one: while it fetches, no other may decide
        while referee.answer_one() is not None:
            pass
        return answer_of(bare.worker, filed.request_id)

    return register
