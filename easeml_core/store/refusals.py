"""What the database says where a study, a tenant or a model that is put away would be changed or used (ADR 0035)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import AlreadyExistsError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.errors import EasemlError

OF_ARCHIVE: Mapping[str, Callable[[Mapping[str, Any]], EasemlError]] = {
    "studies_name_archived": lambda v: AlreadyExistsError(
        "study", v.get("name"), remedy="choose another name: one of another tenant had it, and is archived"
    ),
    "archived_closed": lambda v: StateError(
        f"{v['said']} and takes nothing new; restore it first (`easeml study restore`, `easeml tenant restore`)"
    ),
    "studies_production_kept": lambda v: StateError(
        f"{v['said']}, which answers no rows any more once the study is archived; say so with --withdraw "
        "(`withdraw=True` in Python)"
    ),
    "studies_kept": lambda v: StateError(
        f"{v['said']}, which its evidence rests on; archive it instead of deleting it"
    ),
    "studies_counted": lambda v: StateError(
        f"{v['said']}; such refusals of a tenant are counted, so it is deleted after that time; archive it until then"
    ),
    "studies_worked_on": lambda v: StateError(f"{v['said']} right now; ask again once its request has an answer"),
    "test_sets_served": lambda v: StateError(
        f"{v['said']}: its ledger and the evidence of its answers rest on it; retire it, and release it where its rows "
        "shall be public (`easeml test-set release`)"
    ),
    "test_sets_in_use": lambda v: StateError(
        f"{v['said']}; a live set is retired first (`easeml test-set retire`), and a released one is public"
    ),
    "tenants_kept": lambda v: StateError(
        f"{v['said']}; delete or archive its studies, end its logins (`easeml tenant logout`), or archive the tenant"
    ),
    "requests_file_check": lambda v: StateError(f"{v['said']}; train it again, or submit it again"),
}
"""Name of a violated constraint to the error; ``said`` of its values is the database's first line."""
