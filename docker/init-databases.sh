#!/bin/bash
# Run once by the PostgreSQL image on an empty volume: two databases, four roles, nobody enters what is not theirs.
# The tables, and who may do what with each of them, come from `easeml db upgrade`.
set -euo pipefail

psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<SQL
CREATE ROLE airflow         LOGIN PASSWORD '$AIRFLOW_DATABASE_PASSWORD';
CREATE ROLE easeml_owner    LOGIN PASSWORD '$EASEML_OWNER_PASSWORD';
CREATE ROLE easeml_worker   LOGIN PASSWORD '$EASEML_WORKER_PASSWORD';
CREATE ROLE easeml_referee  LOGIN PASSWORD '$EASEML_REFEREE_PASSWORD';
CREATE DATABASE airflow OWNER airflow TEMPLATE template0;
CREATE DATABASE easeml  OWNER easeml_owner TEMPLATE template0;
REVOKE ALL ON DATABASE airflow   FROM PUBLIC;
REVOKE ALL ON DATABASE easeml    FROM PUBLIC;
REVOKE ALL ON DATABASE postgres  FROM PUBLIC;
REVOKE ALL ON DATABASE template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE easeml TO easeml_worker, easeml_referee;
\connect easeml
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA work   AUTHORIZATION easeml_owner;
CREATE SCHEMA sealed AUTHORIZATION easeml_owner;
REVOKE ALL ON SCHEMA work, sealed FROM PUBLIC;
GRANT USAGE ON SCHEMA work   TO easeml_worker, easeml_referee;
GRANT USAGE ON SCHEMA sealed TO easeml_referee;
SQL
