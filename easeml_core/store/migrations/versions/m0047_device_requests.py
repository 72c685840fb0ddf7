"""A trial asks for several devices at once (gpu:4) or for a part of one (gpu/4), and is charged in device seconds."""

from alembic import op

revision = "0047"
down_revision = "0046"

CHECKS = """
-- How many devices a trial holds: its device seconds are so many times the seconds on the clock.
CREATE FUNCTION work.device_weight(device text) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN position(':' IN device) > 0 THEN split_part(device, ':', 2)::double precision
  WHEN position('/' IN device) > 0 THEN 1 / split_part(device, '/', 2)::double precision ELSE 1 END;

-- Whether a candidate may run on what is offered; the rule of easeml_core/settings/device_requests.py.
CREATE FUNCTION work.device_fits(devices jsonb, offered text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN devices IS NULL THEN coalesce(offered !~ '[:/]', true)
  WHEN offered IS NULL THEN jsonb_path_exists(devices, 'strict $[*] ? (!(@ like_regex "[:/]"))')
  ELSE jsonb_exists(devices, offered) END;

ALTER TABLE work.candidates DROP CONSTRAINT candidates_devices_check, ADD CONSTRAINT candidates_devices_check CHECK (
  jsonb_typeof(devices) = 'array' AND jsonb_array_length(devices) BETWEEN 1 AND 20
  AND NOT jsonb_path_exists(devices, 'strict $[*] ? (@.type() != "string")')
  AND NOT jsonb_path_exists(devices, 'strict $[*] ?
    (!(@ like_regex "^[a-z0-9][a-z0-9_.-]{0,62}(:([2-9]|[1-5][0-9]|6[0-4])|/([2-9]|1[0-6]))?$"))'));
ALTER TABLE work.trials DROP CONSTRAINT trials_device_check,
  ADD CONSTRAINT trials_device_check CHECK (
  device ~ '^[a-z0-9][a-z0-9_.-]{0,62}(:([2-9]|[1-5][0-9]|6[0-4])|/([2-9]|1[0-6]))?$');
"""

# What a lease takes of a reservation, and what an attempt is charged, in device seconds.
CHARGES = """
DO $patch$
DECLARE
  asked text[];
  body text;
BEGIN
  FOREACH asked SLICE 1 IN ARRAY ARRAY[
    ['work.claim_trial(bigint, text, text, jsonb)', 'wall := greatest(0, extract(',
     'wall := work.device_weight(t.device) * greatest(0, extract('],
    ['work.claim_trial(bigint, text, text, jsonb)', 'limit_seconds - saved - lost_seconds)),',
     '(limit_seconds - saved - lost_seconds) / work.device_weight(device))),'],
    ['work.trials_by_lease()', 'greatest(1e-6, extract(epoch FROM now_is - OLD.attempt_started_at))',
     'work.device_weight(OLD.device) * greatest(1e-6, extract(epoch FROM now_is - OLD.attempt_started_at))']] LOOP
    body := pg_get_functiondef(asked[1]::regprocedure);
    IF position(asked[2] IN body) = 0 THEN
      RAISE EXCEPTION '% is not the function of revision 0036', asked[1];
    END IF;
    EXECUTE replace(body, asked[2], asked[3]);
  END LOOP;
END $patch$;
"""


def upgrade() -> None:
    for block in (CHECKS, CHARGES):
        op.execute(block)
