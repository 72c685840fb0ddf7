-- Limits: budgets of studies, quotas and parallel trials of tenants, and how many rows a tenant adds.

CREATE FUNCTION work.refuse(name text, what text, owner text, taken double precision,
  allowed double precision) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of % is exceeded: % of %', what, owner, coalesce(taken::text, 'no bound'), allowed
    USING ERRCODE = 'check_violation', CONSTRAINT = name,
          DETAIL = jsonb_build_object('owner', owner, 'taken', taken, 'allowed', allowed);
END $$;

-- Device seconds a trial counts for: reserved while it is open (NULL: no bound), taken once it has ended.
CREATE FUNCTION work.charge(t work.trials) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN t.state IN ('SUGGESTED', 'RUNNING') THEN t.limit_seconds
         ELSE t.lost_seconds + coalesce(t.cost_seconds, 0) + coalesce(t.start_seconds, 0) END
$$;

CREATE FUNCTION work.check_budget(of_study bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  study work.studies;
  unbounded boolean;
  taken double precision;
BEGIN
  SELECT * INTO study FROM work.studies WHERE id = of_study;
  IF study.budget_seconds IS NOT NULL THEN
    SELECT bool_or(work.charge(t) IS NULL), sum(work.charge(t)) INTO unbounded, taken
      FROM work.trials t WHERE t.study_id = of_study;
    IF unbounded OR taken > study.budget_seconds THEN
      PERFORM work.refuse('studies_budget_kept', 'compute budget', study.name,
        CASE WHEN NOT unbounded THEN taken END, study.budget_seconds);
    END IF;
  END IF;
END $$;

CREATE FUNCTION work.check_quota(of_tenant bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  tenant work.tenants;
  unbounded boolean;
  taken double precision;
BEGIN
  SELECT * INTO tenant FROM work.tenants WHERE id = of_tenant;
  IF tenant.quota_seconds IS NOT NULL THEN
    SELECT bool_or(work.charge(t) IS NULL), sum(work.charge(t)) INTO unbounded, taken
      FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.tenant_id = of_tenant;
    IF unbounded OR taken > tenant.quota_seconds THEN
      PERFORM work.refuse('tenants_quota_kept', 'quota', tenant.name,
        CASE WHEN NOT unbounded THEN taken END, tenant.quota_seconds);
    END IF;
  END IF;
END $$;

CREATE FUNCTION work.check_parallel(of_tenant bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  tenant work.tenants;
  taken double precision;
BEGIN
  SELECT * INTO tenant FROM work.tenants WHERE id = of_tenant;
  IF tenant.max_parallel IS NOT NULL THEN
    SELECT count(*) INTO taken FROM work.trials t JOIN work.studies s ON s.id = t.study_id
      WHERE s.tenant_id = of_tenant AND t.state IN ('SUGGESTED', 'RUNNING');
    IF taken > tenant.max_parallel THEN
      PERFORM work.refuse('tenants_parallel_kept', 'number of open trials', tenant.name, taken, tenant.max_parallel);
    END IF;
  END IF;
END $$;

-- The tenant's row is locked first, in every case: the second transaction sees what the first has written. What the
-- tenant may use is read from the locked row; only where it is limited are its trials counted. With the owner's
-- rights: a role that adds a trial cannot always lock the tenant.
CREATE FUNCTION work.trials_within_limits() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  owner record;
BEGIN
  SELECT t.id, t.quota_seconds IS NOT NULL AS has_quota, t.max_parallel IS NOT NULL AS has_most INTO owner
    FROM work.tenants t WHERE t.id = (SELECT tenant_id FROM work.studies WHERE id = NEW.study_id)
    FOR NO KEY UPDATE;
  PERFORM work.check_budget(NEW.study_id);
  IF owner.has_quota THEN
    PERFORM work.check_quota(owner.id);
  END IF;
  IF TG_OP = 'INSERT' THEN  -- a reservation that grows makes no further trial
    IF owner.has_most THEN
      PERFORM work.check_parallel(owner.id);
    END IF;
    -- work.archive_now locks the tenant, too: the second of the two sees what the first has written.
    IF EXISTS (SELECT FROM work.studies WHERE id = NEW.study_id AND state = 'ARCHIVED') THEN
      RAISE EXCEPTION 'study % is archived', (SELECT name FROM work.studies WHERE id = NEW.study_id)
        USING ERRCODE = 'check_violation', CONSTRAINT = 'archived_closed';
    END IF;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER trials_limit_kept AFTER UPDATE OF limit_seconds ON work.trials FOR EACH ROW
  WHEN (NEW.limit_seconds > OLD.limit_seconds OR (NEW.limit_seconds IS NULL AND OLD.limit_seconds IS NOT NULL))
  EXECUTE FUNCTION work.trials_within_limits();
CREATE TRIGGER trials_within_limits AFTER INSERT ON work.trials FOR EACH ROW WHEN (NEW.reevaluates IS NULL)
  EXECUTE FUNCTION work.trials_within_limits();

CREATE FUNCTION work.studies_within_limits() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM FROM work.tenants WHERE id = NEW.tenant_id FOR NO KEY UPDATE;
  PERFORM work.check_budget(NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER studies_within_limits AFTER UPDATE OF budget_seconds ON work.studies FOR EACH ROW
  WHEN (NEW.budget_seconds < coalesce(OLD.budget_seconds, 'Infinity')) EXECUTE FUNCTION work.studies_within_limits();

CREATE FUNCTION work.tenants_within_limits() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NEW.quota_seconds < coalesce(OLD.quota_seconds, 'Infinity') THEN
    PERFORM work.check_quota(NEW.id);
  END IF;
  IF NEW.max_parallel IS NOT NULL AND (OLD.max_parallel IS NULL OR NEW.max_parallel < OLD.max_parallel) THEN
    PERFORM work.check_parallel(NEW.id);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER tenants_within_limits AFTER UPDATE OF max_parallel, quota_seconds ON work.tenants FOR EACH ROW
  EXECUTE FUNCTION work.tenants_within_limits();

-- All tenants wait for a decision over all candidates. Other roles' programs count before they add any.
CREATE FUNCTION work.candidates_of_tenants() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM work.await_turn();
  IF EXISTS (SELECT FROM work.candidates WHERE study_id IN (SELECT study_id FROM added)
             GROUP BY study_id HAVING count(*) > 1000) THEN
    RAISE EXCEPTION 'a study has at most 1000 candidates'
      USING ERRCODE = 'check_violation', CONSTRAINT = 'candidates_of_tenants_check';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER candidates_of_tenants AFTER INSERT ON work.candidates REFERENCING NEW TABLE AS added FOR EACH STATEMENT
  WHEN (current_user NOT IN ('easeml_worker', 'easeml_referee', 'easeml_scheduler') AND NOT pg_has_role(current_user,
  'easeml_owner', 'USAGE')) EXECUTE FUNCTION work.candidates_of_tenants();

-- Rows that tenants add are rows that others read, count and wait for.
CREATE FUNCTION work.rows_of_tenants() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  most integer := TG_ARGV[0];
  found bigint;
BEGIN
  PERFORM work.require_audit_room(); PERFORM work.await_turn();
  IF TG_TABLE_NAME = 'studies' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.studies
      WHERE tenant_id IN (SELECT tenant_id FROM added) GROUP BY tenant_id) c);
  ELSIF TG_TABLE_NAME = 'data_sets' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.data_sets
      WHERE tenant_id IN (SELECT tenant_id FROM added) GROUP BY tenant_id) c);
  ELSIF TG_TABLE_NAME = 'requests' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.requests r
      WHERE study_id IN (SELECT study_id FROM added)
      AND NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id) GROUP BY study_id) c);
  ELSIF TG_TABLE_NAME = 'feeds' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.feeds
      WHERE study_id IN (SELECT study_id FROM added) AND state = 'waiting' GROUP BY study_id) c);
  ELSIF TG_TABLE_NAME = 'switches' THEN
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.switches
      WHERE study_id IN (SELECT study_id FROM added) AND refreshed_by IS NULL GROUP BY study_id) c);
  ELSIF TG_TABLE_NAME = 'models' THEN  -- those that are handed in
    found := (SELECT max(n) FROM (SELECT count(*) AS n FROM work.models
      WHERE study_id IN (SELECT study_id FROM added) AND submitted AND created_at > now() - interval '1 day'
      GROUP BY study_id) c);
  ELSE
    RAISE EXCEPTION 'rows_of_tenants does not count the rows of %', TG_TABLE_NAME;
  END IF;
  IF found > most THEN
    RAISE EXCEPTION '% would be % of at most % %', TG_TABLE_NAME, found, most, TG_ARGV[1]
      USING ERRCODE = 'check_violation', CONSTRAINT = 'rows_of_tenants_check';
  END IF;
  RETURN NULL;
END $$;
DO $do$
DECLARE
  named text; most text; which text;
BEGIN
  FOR named, most, which IN VALUES
    ('studies', '1000', 'of a tenant'), ('data_sets', '1000', 'of a tenant'),
    ('requests', '1000', 'of a study without an answer'), ('feeds', '1000', 'of a study that wait'),
    ('switches', '200000', 'of a study that wait'), ('models', '1000', 'handed in for a study within a day')
  LOOP
    EXECUTE format('CREATE TRIGGER rows_of_tenants AFTER INSERT ON work.%I REFERENCING NEW TABLE AS added
      FOR EACH STATEMENT WHEN (current_user NOT IN (''easeml_worker'', ''easeml_referee'', ''easeml_scheduler'')
        AND NOT pg_has_role(current_user, ''easeml_owner'', ''USAGE''))
      EXECUTE FUNCTION work.rows_of_tenants(%L, %L)', named, most, which);
  END LOOP;
END $do$;
