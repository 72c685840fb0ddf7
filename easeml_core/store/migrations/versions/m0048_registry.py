"""The registry of devices: partitions of a GPU have names, and whoever announces a device removes what fell silent."""

from alembic import op

revision = "0048"
down_revision = "0047"

NAMES = """
ALTER TABLE work.devices DROP CONSTRAINT devices_name_check,
  ADD CONSTRAINT devices_name_check CHECK (name ~ '^(cpu|cuda:[0-9]{1,3}(:[0-9]{1,2})?)$');
"""

# Rows of any login, an hour after their last heartbeat by this clock: a login that is not used any more announces
# nothing. What another announcement holds is left to it, so that no two wait for each other.
SWEEP = """
CREATE OR REPLACE FUNCTION work.announce_device(of_host text, of_name text, of_holder text, of_kind text, of_model text,
  of_memory_mb integer, of_driver text, of_slots integer, of_held integer) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  of_login text := work.caller();
BEGIN
  DELETE FROM work.devices d USING (
    SELECT login, host, name, holder FROM work.devices WHERE beat_at < clock_timestamp() - interval '1 hour'
    FOR UPDATE SKIP LOCKED) silent
    WHERE d.login = silent.login AND d.host = silent.host AND d.name = silent.name AND d.holder = silent.holder;
  DELETE FROM work.devices WHERE login = of_login AND of_held = 0 AND host = of_host AND name = of_name
    AND holder = of_holder AND of_holder <> '';
  INSERT INTO work.devices AS d (login, tenants, host, name, holder, kind, model, memory_mb, driver, slots, held)
    VALUES (of_login, work.my_tenants(), of_host, of_name, CASE WHEN of_held = 0 THEN '' ELSE of_holder END, of_kind,
      of_model, of_memory_mb, of_driver, of_slots, of_held)
    ON CONFLICT ON CONSTRAINT devices_pkey DO UPDATE SET tenants = excluded.tenants, kind = excluded.kind,
      model = excluded.model, memory_mb = excluded.memory_mb, driver = excluded.driver, slots = excluded.slots,
      held = excluded.held, beat_at = greatest(d.beat_at, clock_timestamp());
  IF (SELECT count(*) FROM work.devices WHERE login = of_login) > 5000 THEN
    RAISE EXCEPTION 'a login announces at most 5000 devices an hour'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'devices_of_login_check';
  END IF;
END $$;
"""


def upgrade() -> None:
    for block in (NAMES, SWEEP):
        op.execute(block)
