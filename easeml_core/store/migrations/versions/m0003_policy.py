"""The service provider's settings of the scheduler: one row for each change, the newest holds, none is ever changed.

Only the owner of the schemas writes them. They decide whose trials run and when a study stops, and everybody who can
write a DAG works under the worker's role: with it one could put one's own candidates first, or stop the others.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

SETTINGS = """
CREATE TABLE work.selection_settings (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT selection_settings_pkey PRIMARY KEY,
  config      jsonb NOT NULL,
  reason      text NOT NULL,
  report      jsonb,
  created_at  timestamptz NOT NULL DEFAULT now(),
  created_by  text NOT NULL DEFAULT session_user,
  -- Every decision reads the newest row; a long order of candidates has room.
  CONSTRAINT selection_settings_config_check
    CHECK (jsonb_typeof(config) = 'object' AND octet_length(config::text) < 100000),
  CONSTRAINT selection_settings_reason_check CHECK (reason ~ '[^[:space:]]' AND length(reason) <= 2000),
  CONSTRAINT selection_settings_report_check
    CHECK (jsonb_typeof(report) = 'object' AND octet_length(report::text) < 1000000)
);

CREATE FUNCTION work.settings_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'settings of the scheduler are append-only: batches of suggestions refer to them'
    USING ERRCODE = 'check_violation', CONSTRAINT = 'selection_settings_append_only';
END $$;
CREATE TRIGGER selection_settings_append_only BEFORE UPDATE OR DELETE ON work.selection_settings
  FOR EACH ROW EXECUTE FUNCTION work.settings_are_kept();
CREATE TRIGGER selection_settings_keep_all BEFORE TRUNCATE ON work.selection_settings
  EXECUTE FUNCTION work.settings_are_kept();

-- Which settings a batch was made under; NULL: those of the program.
ALTER TABLE work.suggestion_batches
  ADD COLUMN settings_id bigint CONSTRAINT suggestion_batches_settings_fkey REFERENCES work.selection_settings;
CREATE INDEX suggestions_trial_idx ON work.suggestions (trial_id);
"""

GRANTS = """
GRANT SELECT ON work.selection_settings TO easeml_worker;
GRANT INSERT (settings_id) ON work.suggestion_batches TO easeml_worker;
"""


def upgrade() -> None:
    for block in (SETTINGS, GRANTS):
        op.execute(block)
