"""Devices announce themselves: a row for each process that holds slots of one, and its heartbeat by this clock."""

from alembic import op

revision = "0046"
down_revision = "0045"

# One process holds slots of a device at a time; the row without a holder says that the device is there.
DEVICES = """
CREATE TABLE work.devices (
  login         text NOT NULL CONSTRAINT devices_login_check CHECK (length(login) BETWEEN 1 AND 63),
  -- Of a tenant's login its tenants; empty where the device is the provider's.
  tenants       bigint[] NOT NULL,
  host          text NOT NULL CONSTRAINT devices_host_check CHECK (length(host) BETWEEN 1 AND 253),
  name          text NOT NULL CONSTRAINT devices_name_check CHECK (name ~ '^(cpu|cuda:[0-9]{1,3})$'),
  holder        text NOT NULL CONSTRAINT devices_holder_check CHECK (length(holder) <= 1000),
  kind          text NOT NULL CONSTRAINT devices_kind_check CHECK (kind ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  model         text CONSTRAINT devices_model_check CHECK (length(model) BETWEEN 1 AND 200),
  memory_mb     integer CONSTRAINT devices_memory_check CHECK (memory_mb > 0),
  driver        text CONSTRAINT devices_driver_check CHECK (length(driver) BETWEEN 1 AND 100),
  slots         integer NOT NULL CONSTRAINT devices_slots_check CHECK (slots BETWEEN 1 AND 1024),
  held          integer NOT NULL CONSTRAINT devices_held_check
                CHECK (held BETWEEN 0 AND slots AND (held > 0) = (holder <> '')),
  announced_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat_at       timestamptz NOT NULL DEFAULT clock_timestamp()
                CONSTRAINT devices_beat_check CHECK (beat_at >= announced_at),
  CONSTRAINT devices_pkey PRIMARY KEY (login, host, name, holder)
) WITH (fillfactor = 50);
GRANT SELECT ON work.devices TO easeml_worker;
"""

# No role writes the table: whose the device is, and when it was heard of, is never the caller's word.
ANNOUNCE = """
CREATE FUNCTION work.announce_device(of_host text, of_name text, of_holder text, of_kind text, of_model text,
  of_memory_mb integer, of_driver text, of_slots integer, of_held integer) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  of_login text := work.caller();
BEGIN
  DELETE FROM work.devices WHERE login = of_login AND (beat_at < clock_timestamp() - interval '1 hour'
    OR of_held = 0 AND host = of_host AND name = of_name AND holder = of_holder AND of_holder <> '');
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
REVOKE EXECUTE ON FUNCTION work.announce_device(text, text, text, text, text, integer, text, integer, integer)
  FROM PUBLIC;
GRANT EXECUTE ON FUNCTION work.announce_device(text, text, text, text, text, integer, text, integer, integer)
  TO easeml_worker;
"""


def upgrade() -> None:
    for block in (DEVICES, ANNOUNCE):
        op.execute(block)
