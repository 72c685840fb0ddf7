"""Uploads: kept apart for each tenant, read by the referee for that tenant's study alone, and removed in time."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from registering import register_study

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.preview import look_at_data
from easeml_core.services.studies.uploads import KEPT_DAYS, PART, forget_uploads, keep_upload
from easeml_core.store.artifacts.local import ArtifactStore

if TYPE_CHECKING:
    from pathlib import Path

GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}
TODAY = datetime.now(UTC).date()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    values = np.random.default_rng(1).normal(size=(600, 2))
    path = tmp_path / "table"
    lines = [f"{a:.6f},{b:.6f},{'red' if a > 0 else 'blue'},{'yes' if a + b > 0 else 'no'}" for a, b in values]
    path.write_text("\n".join(["a,b,colour,label", *lines]))
    return path


def register(lab: Any, source: str, *, tenant: str = "lab", study: str = "brought", **more: Any) -> Any:
    given = {"gate": GATE, "meter": METER, "target": "label", "request_key": lab.key()} | more
    filed = register_study(lab.worker, tenant=tenant, study=study, source=source, **given)
    while Referee(lab.referee, lab.artifacts).answer_one() is not None:
        pass
    return answer_of(lab.worker, filed.request_id)


def test_a_tenants_upload_is_looked_at_and_read_and_no_other_users(bare: Any, table: Path) -> None:
    upload = keep_upload(bare.artifacts, table, tenant="lab", file="My Table.csv", today=TODAY)
    assert upload.file == "My_Table.csv"
    found = look_at_data(bare.artifacts, tenant="lab", source=f"csv:{upload}", asked={})
    assert found is not None
    assert (found.source, found.target, found.task) == (f"csv:{upload}", "label", "classification")
    assert found.columns == ["a", "b", "colour", "label"]
    assert [len(row) for row in found.head] == [4] * 5
    assert "Category[2]" in found.program

    answer = register(bare, found.source, tenant="other")
    assert answer.refused
    assert f"no upload 'My_Table.csv' of {TODAY} of tenant 'other'" in answer.message
    with pytest.raises(InvalidInputError, match="no upload"):
        look_at_data(bare.artifacts, tenant="other", source=f"csv:{upload}", asked={})

    answer = register(bare, found.source, program=found.program, study="mine")
    assert answer.message.endswith("; rows: train 196, validation 90, gate 254, meter 60")


def test_a_zip_of_images_is_a_study(bare: Any, tmp_path: Path) -> None:
    content = io.BytesIO()
    rng = np.random.default_rng(2)
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(480):
            label = ("dark", "light")[number % 2]
            pixels = rng.integers(0, 90, (6, 6)) + 160 * (number % 2)
            image = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8), "L").save(image, "PNG")
            archive.writestr(f"leaves/{label}/{number}.png", image.getvalue())
    (tmp_path / "leaves").write_bytes(content.getvalue())
    upload = keep_upload(bare.artifacts, tmp_path / "leaves", tenant="lab", file="leaves.zip", today=TODAY)
    found = look_at_data(bare.artifacts, tenant="lab", source=f"images:{upload}", asked={})
    assert found is not None
    assert found.source == f"images:{upload}?size=6x6&colour=grey"
    answer = register(bare, found.source, target=None, candidates=[{"name": "c", "kind": "nearest_centroid"}])
    assert "brought is active" in answer.message


def test_what_is_wrong_with_an_upload_is_reported_with_its_name_alone(bare: Any, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("a,b\n1,2\n3\n")
    upload = keep_upload(bare.artifacts, tmp_path / "bad", tenant="lab", file="bad.csv", today=TODAY)
    with pytest.raises(InvalidInputError) as shown:
        look_at_data(bare.artifacts, tenant="lab", source=f"csv:{upload}", asked={})
    assert str(shown.value) == "source 'csv:bad.csv': the file line 3 has 1 cells, the header has 2"
    answer = register(bare, f"csv:{upload}", target="b")
    assert answer.refused
    assert "/tmp" not in answer.message


def test_sources_that_only_the_referee_reads_are_not_looked_at(bare: Any) -> None:
    for source in ("csv:a.csv", "sql:flowers", "url:https://data.example/a.csv"):
        assert look_at_data(bare.artifacts, tenant="lab", source=source, asked={}) is None
    found = look_at_data(bare.artifacts, tenant="lab", source="sklearn:iris", asked={})
    assert found is not None
    assert [entry.name for entry in found.classes] == ["setosa", "versicolor", "virginica"]


@pytest.mark.parametrize("tenant", ["", "..", "a/b", "Lab", "x" * 64])
def test_a_tenant_that_cannot_be_has_no_uploads(tenant: str, bare: Any, table: Path) -> None:
    with pytest.raises(ConfigError, match="tenant must be"):
        keep_upload(bare.artifacts, table, tenant=tenant, file="a.csv", today=TODAY)
    assert not bare.artifacts.root.exists()


def test_an_upload_is_removed_once_its_study_is_sealed_and_kept_while_it_is_needed(bare: Any, table: Path) -> None:
    upload = keep_upload(bare.artifacts, table, tenant="lab", file="a.csv", today=TODAY)
    part = bare.artifacts.of_tenant("lab").part(PART, str(TODAY))
    refused = register(bare, f"csv:{upload}", target="none")
    assert refused.refused
    forget_uploads(bare.referee, bare.artifacts, TODAY)
    assert part.path(upload.reference).exists(), "a refused study is corrected and registered again"

    register(bare, f"csv:{upload}")
    waiting = {"gate": GATE, "meter": METER, "target": "label", "request_key": bare.key()}
    register_study(bare.worker, tenant="lab", study="second", source=f"csv:{upload}?rows=500", **waiting)
    forget_uploads(bare.referee, bare.artifacts, TODAY)
    assert part.path(upload.reference).exists(), "another study waits for it"

    while Referee(bare.referee, bare.artifacts).answer_one() is not None:
        pass
    Referee(bare.referee, bare.artifacts).run_once()  # work without requests
    with pytest.raises(InvalidInputError, match="uploads are removed"):
        look_at_data(bare.artifacts, tenant="lab", source=f"csv:{upload}", asked={})


def test_uploads_are_removed_where_tenants_cannot_be_listed(
    bare: Any, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The referee need not own the store: `tenants/` has mode 0711 then."""
    upload = keep_upload(bare.artifacts, table, tenant="lab", file="a.csv", today=TODAY)
    register(bare, f"csv:{upload}")
    old = TODAY - timedelta(days=KEPT_DAYS + 1)
    keep_upload(bare.artifacts, table, tenant="lab", file="old.csv", today=old)
    monkeypatch.setattr(type(bare.artifacts), "tenants", lambda _: [])
    forget_uploads(bare.referee, bare.artifacts, TODAY)
    part = bare.artifacts.of_tenant("lab")
    assert part.parts(PART) == [str(TODAY)]
    assert not part.part(PART, str(TODAY)).holds(upload.reference)


def test_old_uploads_are_removed_in_any_case(bare: Any, table: Path) -> None:
    old, fresh = TODAY - timedelta(days=KEPT_DAYS + 1), TODAY - timedelta(days=KEPT_DAYS)
    for day in (old, fresh):
        keep_upload(bare.artifacts, table, tenant="lab", file="a.csv", today=day)
    forget_uploads(bare.referee, bare.artifacts, TODAY)
    assert bare.artifacts.of_tenant("lab").parts(PART) == [str(fresh)]


def test_uploads_that_the_referees_account_may_not_remove_are_named_in_its_log(
    bare: Any, table: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They hold sealed rows, and lie where tasks read: in the store of another account, or a closed folder."""
    old = TODAY - timedelta(days=KEPT_DAYS + 1)
    upload = keep_upload(bare.artifacts, table, tenant="lab", file="a.csv", today=TODAY)
    keep_upload(bare.artifacts, table, tenant="lab", file="old.csv", today=old)
    register(bare, f"csv:{upload}")
    for removes in ("discard", "remove_part"):
        monkeypatch.setattr(type(bare.artifacts), removes, lambda *_: None)
        monkeypatch.setattr(ArtifactStore, removes, lambda *_: None)
    Referee(bare.referee, bare.artifacts).run_once()
    (said,) = [record.getMessage() for record in caplog.records if "may not remove" in record.getMessage()]
    assert said.startswith("2 uploads")
    assert f"{PART}/{old}" in said
    assert upload.reference in said
