"""A request for suggestions names the span of its task, so that the scheduler's decision is a child of it."""

from alembic import op

revision = "0044"
down_revision = "0043"

TRACES = """
ALTER TABLE work.suggestion_requests
  -- W3C Trace Context, version 00; NULL where the caller is not traced.
  ADD COLUMN traceparent text CONSTRAINT suggestion_requests_traceparent_check
    CHECK (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$');
GRANT INSERT (traceparent) ON work.suggestion_requests TO easeml_worker;
"""


def upgrade() -> None:
    op.execute(TRACES)
