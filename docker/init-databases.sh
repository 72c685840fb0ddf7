#!/bin/bash
# Run once by the PostgreSQL image on an empty volume: two databases, our roles, and no role enters what is not its own.
# The tables, and who may do what with each of them, come from `easeml db upgrade`.
set -euo pipefail

# The password of a role that this installation does not use.
unknown() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<SQL
CREATE ROLE airflow         LOGIN PASSWORD '$AIRFLOW_DATABASE_PASSWORD';
CREATE ROLE easeml_owner    LOGIN PASSWORD '$EASEML_OWNER_PASSWORD';
CREATE ROLE easeml_worker   LOGIN PASSWORD '$EASEML_WORKER_PASSWORD';
CREATE ROLE easeml_referee  LOGIN PASSWORD '$EASEML_REFEREE_PASSWORD';
CREATE ROLE easeml_scheduler LOGIN PASSWORD '${EASEML_SCHEDULER_PASSWORD:-$(unknown)}';
CREATE ROLE easeml_device   LOGIN PASSWORD '${EASEML_DEVICE_PASSWORD:-$(unknown)}';
CREATE ROLE easeml_tenant   NOLOGIN;
CREATE ROLE easeml_viewer   NOLOGIN;
CREATE ROLE easeml_person   NOLOGIN;
GRANT pg_read_all_stats, pg_signal_backend TO easeml_owner;
ALTER ROLE easeml_worker NOINHERIT;
GRANT easeml_viewer, easeml_person TO easeml_worker;
ALTER ROLE easeml_owner SET lock_timeout = '300s';
ALTER ROLE easeml_owner SET statement_timeout = '0s';
ALTER ROLE easeml_owner SET idle_in_transaction_session_timeout = '3600s';
ALTER ROLE easeml_worker SET lock_timeout = '60s';
ALTER ROLE easeml_worker SET statement_timeout = '600s';
ALTER ROLE easeml_worker SET idle_in_transaction_session_timeout = '600s';
ALTER ROLE easeml_referee SET lock_timeout = '60s';
ALTER ROLE easeml_referee SET statement_timeout = '3600s';
ALTER ROLE easeml_referee SET idle_in_transaction_session_timeout = '3600s';
ALTER ROLE easeml_scheduler SET lock_timeout = '60s';
ALTER ROLE easeml_scheduler SET statement_timeout = '600s';
ALTER ROLE easeml_scheduler SET idle_in_transaction_session_timeout = '600s';
ALTER ROLE easeml_device SET lock_timeout = '30s';
ALTER ROLE easeml_device SET statement_timeout = '120s';
ALTER ROLE easeml_device SET idle_in_transaction_session_timeout = '120s';
CREATE DATABASE airflow OWNER airflow TEMPLATE template0;
CREATE DATABASE easeml  OWNER easeml_owner TEMPLATE template0;
REVOKE ALL ON DATABASE airflow   FROM PUBLIC;
REVOKE ALL ON DATABASE easeml    FROM PUBLIC;
REVOKE ALL ON DATABASE postgres  FROM PUBLIC;
REVOKE ALL ON DATABASE template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE easeml TO easeml_worker, easeml_referee, easeml_scheduler, easeml_device, easeml_tenant;
\connect easeml
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA work   AUTHORIZATION easeml_owner;
CREATE SCHEMA sealed AUTHORIZATION easeml_owner;
REVOKE ALL ON SCHEMA work, sealed FROM PUBLIC;
GRANT USAGE ON SCHEMA work   TO easeml_worker, easeml_referee, easeml_scheduler, easeml_device, easeml_tenant;
GRANT USAGE ON SCHEMA sealed TO easeml_referee;
DO \$\$
DECLARE asked regprocedure;
BEGIN
  FOR asked IN
    SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
    AND p.proname ~ ('^(pg_stat_|pg_(relation|table|total_relation|indexes|database|tablespace)_size\$'
                     '|pg_lock_status\$|pg_current_wal_|pg_control_|pg_last_wal_|pg_logical_emit_message\$'
                     '|pg_(try_)?advisory_(xact_)?lock(_shared)?\$|lo_creat\$|lo_create\$|lo_from_bytea\$'
                     '|pg_column_toast_chunk_id\$|pg_notification_queue_usage\$)')
    AND has_function_privilege('easeml_worker', p.oid, 'EXECUTE')
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', asked);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO easeml_owner', asked);
  END LOOP;
  IF has_column_privilege('easeml_worker', 'pg_catalog.pg_class', 'reltuples', 'SELECT') THEN
    REVOKE SELECT ON pg_catalog.pg_class FROM PUBLIC;
    EXECUTE (SELECT format('GRANT SELECT (%s) ON pg_catalog.pg_class TO PUBLIC', string_agg(quote_ident(attname), ', '))
             FROM pg_catalog.pg_attribute WHERE attrelid = 'pg_catalog.pg_class'::regclass AND attnum > 0
             AND attname NOT IN ('relpages', 'reltuples', 'relallvisible', 'relallfrozen'));
    GRANT SELECT ON pg_catalog.pg_class TO easeml_owner;
  END IF;
END \$\$;
SQL
