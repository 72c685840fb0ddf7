"""Of PostgreSQL's functions, a developer's role may call none that tells how much another session writes or waits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

HARMLESS = {
    # The definitions of the schema, which every role reads in the catalogue anyway.
    "pg_get_(acl|expr|function.*|.*def|statisticsobjdef_.*|object_address|serial_sequence|userbyid)": "the catalogue",
    "pg_get_(catalog_foreign_keys|publication_tables|replica_identity_index)": "the catalogue",
    "pg_(describe|identify)_object(_as_address)?|pg_options_to_table|pg_partition_.*": "the catalogue",
    "pg_.*_is_(visible|updatable|publishable)|pg_index.*_has_property|pg_sequence_parameters": "the catalogue",
    "pg_collation_for|pg_.*_collation_actual_version|pg_collation_actual_version": "the catalogue",
    "pg_has_role|has_.*_privilege": "rights, which every role reads in the catalogue",
    "pg_relation_(filenode|filepath)|pg_filenode_relation": "the name of a file, which nothing that is decided changes",
    # The session itself, or the arguments.
    "pg_advisory_unlock(_all|_shared)?|pg_sleep(_for|_until)?|pg_notify|pg_export_snapshot": "acts on the session",
    "pg_(cursor|prepared_statement|listening_channels|my_temp_schema|trigger_depth|backend_pid)": "the session",
    "pg_(client_encoding|is_other_temp_schema|event_trigger_.*)|curr(ent_.*|val)|lastval": "the session",
    "pg_(typeof|basetype|column_size|column_compression|input_.*|char_to_encoding|encoding_to_char)": "the arguments",
    "pg_split_walfile_name|pg_mcv_list_items|(pg|brin)_.*_(recv|send)": "the arguments",
    # The server's version, settings and machine.
    "pg_(available_extension.*|extension_update_paths|get_keywords|get_wait_events|timezone_.*)": "the version",
    "pg_(show_all_settings|settings_get_flags|jit_available|get_loaded_modules|numa_available)": "the settings",
    "pg_(conf_load_time|postmaster_start_time|is_in_recovery)|pg_tablespace_(databases|location)": "the server",
    "pg_prepared_xact": "transactions that are prepared for a commit in two phases, which none of ours is",
    # Numbers and states of transactions: every role sees them in its own rows (docs/security.md).
    "txid_(current.*|status)|pg_(current_snapshot|current_xact_id.*|xact_status)": "transactions",
    # The function itself asks for a right that none of our roles has.
    "nextval|setval|pg_sequence_last_value|pg_get_sequence_data|currtid2": "rights on the sequence or table",
    "(brin|gin)_(summarize|desummarize|clean)_.*|pg_(clear|restore)_.*_stats": "the owner of the table",
    "lo_.*|lo(read|write|wrote)|lowrite": "rights on a large object, of which no role can make one",
    "pg_(cancel|terminate)_backend": "the same role; it says whether there is a session of a number",
    "binary_upgrade_.*|pg_extension_config_dump": "a server in the mode of an upgrade, or CREATE EXTENSION",
    "pg_(nextoid|import_system_collations|stop_making_pinned_objects|read_file_old|rotate_logfile_old)": "a superuser",
}
"""Functions that were looked at, PostgreSQL 15 to 18: what they read, or the right that they ask for."""

OPEN = """
SELECT DISTINCT p.proname FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
AND p.provolatile <> 'i' AND p.proname ~ '^(pg|txid|mxid|lo|currtid|binary|brin|gin)_?'
AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'index_am_handler'::regtype)
AND EXISTS (SELECT FROM unnest(ARRAY['easeml_worker', 'easeml_device', 'easeml_tenant', 'easeml_viewer']) AS role
            WHERE has_function_privilege(role, p.oid, 'EXECUTE'))
"""


def test_every_function_of_the_server_that_a_role_may_call_was_looked_at(ask: Callable[..., Any]) -> None:
    """A later PostgreSQL brings others: close them in ``roles.CLOSED_FUNCTIONS``, or say why they do no harm."""
    found = {name for (name,) in ask(OPEN)}
    assert {"pg_column_size", "txid_current", "lo_get"} <= found
    assert not [name for name in sorted(found) if not re.fullmatch("|".join(f"({p})" for p in HARMLESS), name)]


@pytest.mark.parametrize(
    "name", ["pg_available_wal_summaries", "pg_get_replication_slots", "pg_blocking_pids", "pg_total_relation_size"]
)
def test_no_reason_covers_a_function_that_tells_of_other_sessions(name: str) -> None:
    assert not any(re.fullmatch(pattern, name) for pattern in HARMLESS)
