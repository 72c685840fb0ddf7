"""Which tenants a database login belongs to. The rights of such logins are in store/grants.py (ADR 0032)."""

from alembic import op

revision = "0030"
down_revision = "0029"

TABLES = """
-- Only the owner writes it, and no other role reads it but by work.my_tenants().
CREATE TABLE work.tenant_logins (
  login      text NOT NULL CONSTRAINT tenant_logins_login_check CHECK (login ~ '^easeml_t_[a-z0-9][a-z0-9_.-]{0,62}$'),
  tenant_id  bigint NOT NULL CONSTRAINT tenant_logins_tenant_fkey REFERENCES work.tenants,
  made_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  made_by    text NOT NULL DEFAULT session_user,
  CONSTRAINT tenant_logins_pkey PRIMARY KEY (login, tenant_id)
);
"""

# The setting "role" is what SET ROLE has chosen, also within a function that runs with its owner's rights, where
# current_user is the owner; without a SET ROLE it is 'none', which no role can be called.
FUNCTIONS = """
CREATE FUNCTION work.caller() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;

CREATE FUNCTION work.my_tenants() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (SELECT coalesce(array_agg(tenant_id), '{}') FROM work.tenant_logins WHERE login = work.caller());
REVOKE EXECUTE ON FUNCTION work.my_tenants() FROM PUBLIC;
"""


def upgrade() -> None:
    for block in (TABLES, FUNCTIONS):
        op.execute(block)
