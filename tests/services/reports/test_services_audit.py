"""The audit in words: filters, who may read what, and a table that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from device_rows import add_study

from easeml_core.errors import ConfigError
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.audit import ACTS, AuditPart, Group, act_in_words, as_csv, audit, recent_figures
from easeml_core.services.selection.policy import set_policy
from easeml_core.services.studies.limits import set_study, set_tenant
from easeml_core.store.callers import acting, because
from easeml_core.store.rows import change, rows


@pytest.fixture
def busy(database: Any) -> None:
    """Two tenants' studies; a user changes limits of each, and the owner the policy."""
    add_study(database, "mine")
    add_study(database, "theirs", tenant="rivals")
    with acting("ada", door="page"), because("storm season"):
        set_study(database.worker, study="mine", budget_seconds=162_000.0)
    with acting("=cmd|' /C calc'!A0", door="command line", reason="@SUM(1)"):
        set_tenant(database.worker, tenant="rivals", weight=2.0)
        pause_study(database.worker, study="theirs", paused=True)
    set_policy(database.owner, changes={"price_per_second": 1e-6}, reason="devices are dear")


def acts(found: AuditPart) -> list[str]:
    return [event.act for event in found.events]


def test_the_newest_comes_first_in_words(database: Any, busy: None, recorded: Any) -> None:
    found = audit(database.worker)
    policy, paused, tenant, study = found.events[:4]
    assert [event.act for event in (policy, paused, tenant, study)] == [
        "policy changed", "study paused", "tenant changed", "study changed",
    ]  # fmt: skip
    assert (policy.study, paused.study, paused.tenant) == (None, "theirs", "rivals")
    assert (study.who, study.reason) == ("ada", "storm season")
    recorded("\n".join(f"{event.title}: {event.detail}" for event in found.events[:4]), "audit")
    assert found.total == len(found.events) == sum(found.groups.values())


@pytest.mark.parametrize("group", list(Group))
def test_a_group_holds_its_acts_and_no_other(database: Any, busy: None, group: Group) -> None:
    found = audit(database.worker, group=group)
    assert set(acts(found)) <= set(ACTS[group])
    assert found.total == len(found.events) == found.groups[group]


def test_every_act_that_a_trigger_writes_is_in_a_group(database: Any) -> None:
    with database.owner.begin() as tx:
        bodies = " ".join(r.prosrc for r in rows(tx, "SELECT prosrc FROM pg_proc WHERE proname LIKE 'audit%'"))
    nouns = "study|tenant|policy|set|candidate|trial|alert|request|pairs|model|promotion|rollback|forced|rolled|result"
    written = set(re.findall(rf"'((?:{nouns})[a-z ]*? (?:[a-z]+)|promoted)'", bodies))
    assert len(written) > 15
    assert written <= {act for members in ACTS.values() for act in members}


@pytest.mark.parametrize("act", sorted({act for members in ACTS.values() for act in members}))
def test_every_act_has_a_title_and_a_detail(act: str) -> None:
    facts = {"set": 3, "name": None, "purpose": "gate", "steps": 4, "why": "by hand", "model": 7, "request": 2}
    facts |= {"kind": "force", "metric": "accuracy", "budget_seconds": 3600.0, "candidate": "forest", "trial": 5}
    facts |= {"alert": 1, "rows": 9, "origin": "file", "policy": "default", "verdict": "pass", "gate_request": 6}
    facts |= {"quality": 0.5}
    if act in ("study changed", "tenant changed"):
        facts = {"weight": 2.0}
    before = {
        "validation set replaced": {"version": 1},
        "trial retried": {"trial": 4},
        "result did not hold": {"quality": 0.9},
    }.get(act, {})
    title, detail = act_in_words(act, before, facts | {"version": 2})
    assert title[0].isupper()
    assert detail
    assert "{" not in title + detail


def test_filters_of_study_person_text_and_time(database: Any, busy: None) -> None:
    assert {e.study for e in audit(database.worker, study="mine").events} == {"mine"}
    assert acts(audit(database.worker, who="ada")) == ["study changed"]
    assert acts(audit(database.worker, text="STORM")) == ["study changed"]
    assert acts(audit(database.worker, text="100%_")) == []
    assert audit(database.worker, since=datetime.now(UTC) + timedelta(hours=1)).total == 0
    everything = acts(audit(database.worker))
    assert acts(audit(database.worker, limit=2, offset=1)) == everything[1:3]


def test_tenants_read_of_their_own_and_never_of_the_installation(database: Any, busy: None) -> None:
    mine = audit(database.worker, studies=["mine"])
    assert {e.study for e in mine.events} == {"mine"}
    theirs = audit(database.worker, studies=["theirs"])
    assert "tenant changed" in acts(theirs)  # its own weight
    assert "policy changed" not in acts(theirs)
    assert "ada" not in repr(theirs)
    assert audit(database.worker, studies=["mine"], study="theirs").total == 0
    assert audit(database.worker, studies=[]).total == 0


def test_the_alert_of_a_team_is_that_team_s(database: Any, busy: None) -> None:
    with database.owner.begin() as tx:
        for team in ("null", "2"):
            change(
                tx,
                "INSERT INTO work.audit (who, door, act, study_id, after) SELECT 'ann', 'page', 'alert cleared', id, "
                f'\'{{"alert": 1, "kind": "overfitting", "team": {team}}}\' FROM work.studies WHERE name = \'mine\'',
            )
    assert acts(audit(database.worker, who="ann")) == ["alert cleared"] * 2
    assert acts(audit(database.worker, who="ann", studies=["mine"])) == ["alert cleared"]


def test_figures_are_of_the_last_thirty_days(database: Any, busy: None) -> None:
    figures = recent_figures(database.worker)
    assert (figures["study changed"], figures["tenant changed"], figures["waiting"]) == (1, 1, 0)
    assert "tenant changed" not in recent_figures(database.worker, studies=["mine"])


def test_no_cell_of_the_table_is_a_formula(database: Any, busy: None) -> None:
    table = list(csv.reader(io.StringIO(as_csv(audit(database.worker).events))))
    assert table[0][:3] == ["at", "act", "who"]
    assert len(table) == audit(database.worker).total + 1
    assert "'=cmd|' /C calc'!A0" in {row[2] for row in table}
    assert "'@SUM(1)" in {row[8] for row in table}
    assert not [cell for row in table for cell in row if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("asked", [{"limit": 0}, {"limit": 20_001}, {"offset": -1}, {"group": "all"}])
def test_what_is_no_page_is_refused(database: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        audit(database.worker, **asked)
