"""Run the migrations on the connection that ``easeml_core.store.schema.upgrade`` hands over."""

from __future__ import annotations

from alembic import context

if hasattr(context, "config"):  # absent where a tool imports every module without running migrations
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, version_table_schema="work")
    with context.begin_transaction():
        context.run_migrations()
