"""Claims of requests: which referee works on a request, for as long as that referee lives."""

from alembic import op

revision = "0025"
down_revision = "0024"

CLAIMS = """
-- One row a process. It extends its lease at a fixed interval from its start, whatever it works on, so that nothing of
-- a model's run can be read from when the row changes.
CREATE TABLE sealed.referees (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT referees_pkey PRIMARY KEY,
  started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  until       timestamptz NOT NULL,
  CONSTRAINT referees_until_check CHECK (until >= beat_at AND until <= beat_at + interval '1 hour')
) WITH (autovacuum_enabled = false);

-- A request, or a duty of the whole installation, belongs to at most one referee; to none where referee_id is NULL.
CREATE TABLE sealed.claims (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT claims_pkey PRIMARY KEY,
  request_id  bigint CONSTRAINT claims_request_key UNIQUE CONSTRAINT claims_request_fkey REFERENCES work.requests,
  duty        text CONSTRAINT claims_duty_key UNIQUE
              CONSTRAINT claims_duty_check CHECK (duty IN ('earlier models')),
  referee_id  bigint CONSTRAINT claims_referee_fkey REFERENCES sealed.referees,
  claimed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT claims_subject_check CHECK (num_nonnulls(request_id, duty) = 1)
) WITH (autovacuum_enabled = false, fillfactor = 50);

CREATE FUNCTION sealed.keep_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM sealed.referees f WHERE f.id = OLD.referee_id AND f.until > clock_timestamp()) THEN
    RAISE EXCEPTION 'another referee works on it' USING ERRCODE = 'check_violation', CONSTRAINT = 'claims_held';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER claims_held BEFORE UPDATE ON sealed.claims FOR EACH ROW
  WHEN (NEW.referee_id IS NOT NULL AND OLD.referee_id IS NOT NULL AND OLD.referee_id <> NEW.referee_id)
  EXECUTE FUNCTION sealed.keep_claim();

GRANT SELECT, INSERT ON sealed.referees, sealed.claims TO easeml_referee;
GRANT UPDATE (beat_at, until) ON sealed.referees TO easeml_referee;
GRANT UPDATE (referee_id, claimed_at) ON sealed.claims TO easeml_referee;
"""


def upgrade() -> None:
    op.execute(CLAIMS)
