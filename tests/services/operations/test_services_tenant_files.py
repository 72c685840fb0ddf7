"""Files by tenant through the product: whose they are, where an earlier version has kept them, and the move."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from easeml_core.errors import ArtifactError
from easeml_core.services.operations import tenant_files
from easeml_core.services.operations.artifact_store import set_artifacts
from easeml_core.services.operations.doctor import check_artifacts
from easeml_core.services.operations.tenant_files import closed_folders, move_files, open_folders
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.candidates import bring_program
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.artifacts.local import MOVED, ArtifactStore
from easeml_core.store.artifacts.location import MARKER
from easeml_core.store.artifacts.orphans import named_files
from easeml_core.store.rows import rows

AWK = Path(__file__).parents[3] / "docs" / "examples" / "awk"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.name not in (MARKER, MOVED)}


def trained(database: Any, artifacts: Any, study: str) -> Any:
    (trial,) = suggest_trials(database.worker, studies_only=[study], count=1, request_key=f"ask/{study}").trials
    return run_trial(database.worker, artifacts, trial_id=trial.trial_id, request_key=f"train/{study}")


def programs(program: str) -> list[dict[str, Any]]:
    return [{"name": "middles", "kind": "command", "parameters": {"program": program}}]


def test_a_tenant_that_names_the_hash_of_anothers_program_does_not_get_it(
    make_study: Any, database: Any, artifacts: Any
) -> None:
    """The row says whose study it is, and so in whose folder the file must lie."""
    place = ArtifactStore(artifacts.root)
    program = bring_program(place.of_tenant("homes"), AWK)
    make_study("hers", tenant="homes", candidates=programs(program))
    make_study("his", tenant="garden", source="sklearn:digits", candidates=programs(program))
    report = trained(database, place, "his")
    assert report.state == "FAILED"
    assert "is missing under" in report.failure
    assert trained(database, place, "hers").state == "SUCCEEDED"
    assert files(artifacts.root / "tenants" / "garden").isdisjoint({program[7:]})
    # All that the product has written lies with a tenant.
    assert {path.name for path in artifacts.root.iterdir()} == {"tenants"}
    assert move_files(database.owner, place) == tenant_files.MovedFiles(
        0, 0, (f"{program} of tenant garden",), (), False
    )


def as_before(artifacts: Any) -> None:
    """Put all files into one place, as the version before tenants' folders kept them."""
    for path in sorted((artifacts.root / "tenants").rglob("*")):
        if path.is_file():
            target = artifacts.root / path.parent.name / path.name
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    shutil.rmtree(artifacts.root / "tenants")


def test_files_of_an_earlier_version_are_read_and_moved(
    make_study: Any, database: Any, artifacts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ArtifactStore(artifacts.root)
    tree = [{"name": "tree", "kind": "decision_tree"}]
    make_study("hers", tenant="homes", candidates=tree)
    make_study("his", tenant="garden", source="sklearn:digits", candidates=tree)
    assert trained(database, place, "hers").state == "SUCCEEDED"
    as_before(artifacts)
    everything = files(artifacts.root)
    assert trained(database, place, "his").state == "SUCCEEDED"  # on data in the old place
    before = move_files(database.owner, place, dry_run=True)
    assert (before.moved, before.missing, files(artifacts.root) - files(artifacts.root / "tenants")) == (
        len(everything), (), everything,
    )  # fmt: skip
    with database.owner.begin() as tx:
        named = named_files(tx)

    def killed(place: ArtifactStore, reference: str, tenants: list[str]) -> None:
        with place.copy(reference) as path:
            place.of_tenant(tenants[0]).put(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(tenant_files, "_move", killed)
    for _ in range(2):
        try:
            move_files(database.owner, place)
        except KeyboardInterrupt:
            assert all(place.of_tenant(tenant).holds(reference) for tenant, reference in named)
    monkeypatch.undo()
    said: list[str] = []
    done = move_files(database.owner, place, tell=said.append)
    assert (done.missing, len(said)) == ((), done.moved)
    assert all(place.of_tenant(tenant).holds_itself(reference) for tenant, reference in named)
    assert files(artifacts.root) == files(artifacts.root / "tenants")
    assert move_files(database.owner, place).moved == 0


def test_a_move_gives_no_tenant_what_it_only_claims(make_study: Any, database: Any, artifacts: Any) -> None:
    """A tenant can write any hash into a candidate; and a damaged copy of its owner is made good, not kept."""
    place = ArtifactStore(artifacts.root)
    make_study("hers", tenant="homes", candidates=[{"name": "tree", "kind": "decision_tree"}])
    assert trained(database, place, "hers").state == "SUCCEEDED"
    with database.owner.begin() as tx:
        (model,) = (found.artifact for found in rows(tx, "SELECT artifact FROM work.models WHERE trial_id IS NOT NULL"))
    shared = bring_program(place, AWK)
    make_study("his", tenant="garden", source="sklearn:digits", candidates=programs(model))
    for study, tenant in (("one", "homes"), ("two", "garden")):
        make_study(study, tenant=tenant, source="sklearn:wine", candidates=programs(shared))
    as_before(artifacts)
    damaged = artifacts.root / "tenants" / "homes" / model[7:9] / model[7:]
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"")
    done = move_files(database.owner, place)
    names = sorted([f"{model} of tenant garden", f"{shared} of tenant garden", f"{shared} of tenant homes"])
    assert (done.missing, sorted(done.claimed)) == ((), names)
    assert not place.of_tenant("garden").holds(model)
    assert place.of_tenant("homes").path(model) == damaged
    assert place.holds_itself(shared)
    for tenant in ("garden", "homes"):  # who has written the hash is not given the file
        own = ArtifactStore(artifacts.root).of_tenant(tenant)
        assert not own.holds(shared)
        with pytest.raises(ArtifactError, match="is missing under"), own.copy(shared):
            pass


def test_doctor_names_the_folders_that_are_open(database: Any, artifacts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_folders(database.worker, artifacts) is None  # one team
    monkeypatch.setattr(tenant_files.health, "logins_of_tenants", lambda _: SimpleNamespace(logins=1, devices=0))
    monkeypatch.setattr(tenant_files.studies, "list_tenants", lambda _: [type("Tenant", (), {"name": "lab"})])
    for mode, said in (
        (0o755, "folders that others may enter: lab"),
        (0o775, f"{artifacts.root} can be written by others than its owner; folders that others may enter: lab"),
    ):
        artifacts.root.mkdir(exist_ok=True)
        artifacts.root.chmod(mode)
        assert open_folders(database.worker, artifacts) == said
    monkeypatch.setattr(tenant_files.health, "logins_of_tenants", lambda _: SimpleNamespace(logins=1, devices=1))
    assert "code that a device trains" in str(open_folders(database.worker, artifacts))


def test_doctor_says_how_folders_are_opened_that_the_group_of_the_store_may_not_use(
    database: Any, artifacts: Any, make_study: Any
) -> None:
    """As an earlier version has left them, where several tenants were registered at once."""
    place = ArtifactStore(artifacts.root)
    make_study()
    set_artifacts(database.owner, place)
    home = place.of_tenant("lab").root
    for folder, mode in ((place.root, 0o2770), (home.parent, 0o2770), (home, 0o2700)):
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
    assert closed_folders(database.worker, place) == (home,)
    found = check_artifacts(database.url("easeml_worker"), str(place.root))
    assert (found.state, found.found) == ("warning", f"accounts that share {place.place} may not use lab in it")
    command = found.remedy.partition("as root: ")[2]
    subprocess.run(command, shell=True, check=True)
    assert stat.S_IMODE(home.stat().st_mode) == 0o2770
    assert closed_folders(database.worker, place) == ()
