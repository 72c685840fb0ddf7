-- Tenants with their logins, data sets, studies, versions of their data, and candidates.

-- Who owns data, studies and logins, and what they may use: a weight, open trials, device seconds.
CREATE TABLE work.tenants (
  id             bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT tenants_pkey PRIMARY KEY,
  name           text NOT NULL CONSTRAINT tenants_name_key UNIQUE
                 CONSTRAINT tenants_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  weight         double precision NOT NULL DEFAULT 1
                 CONSTRAINT tenants_weight_check CHECK (weight >= 1e-6 AND weight <= 1e6),
  created_at     timestamptz NOT NULL DEFAULT now(),
  max_parallel   integer CONSTRAINT tenants_max_parallel_check CHECK (max_parallel >= 1),
  quota_seconds  double precision,
  archived_at    timestamptz,
  archived_why   text,
  CONSTRAINT tenants_quota_check CHECK (quota_seconds > 0 AND quota_seconds < 'Infinity'),
  CONSTRAINT tenants_archived_check
    CHECK ((archived_at IS NULL) = (archived_why IS NULL) AND length(archived_why) <= 2000)
);

-- Only the owner writes it, and no other role reads it but by work.my_tenants().
CREATE TABLE work.tenant_logins (
  login      text NOT NULL,
  tenant_id  bigint NOT NULL CONSTRAINT tenant_logins_tenant_fkey REFERENCES work.tenants,
  made_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  made_by    text NOT NULL DEFAULT session_user,
  CONSTRAINT tenant_logins_login_check CHECK (login ~ '^easeml_t_[a-z0-9][a-z0-9_.-]{0,62}$'),
  CONSTRAINT tenant_logins_pkey PRIMARY KEY (login, tenant_id)
);

-- Where data come from: a source as its reader names it, and the target column.
CREATE TABLE work.data_sets (
  id          bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT data_sets_pkey PRIMARY KEY,
  tenant_id   bigint NOT NULL CONSTRAINT data_sets_tenant_fkey REFERENCES work.tenants,
  source      text NOT NULL,
  target      text NOT NULL DEFAULT '',
  created_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT data_sets_source_key UNIQUE (tenant_id, source, target),
  CONSTRAINT data_sets_tenant_key UNIQUE (id, tenant_id),
  CONSTRAINT data_sets_source_check CHECK (length(source) <= 2000 AND length(target) <= 500)
);

-- A task on one data set: settings, limits, state. An archived study keeps all its rows. The state that it comes from
-- is where it returns to. Its name may be used again by its tenant alone: pages say by name whose rows a person sees.
CREATE TABLE work.studies (
  id              bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT studies_pkey PRIMARY KEY,
  name            text NOT NULL CONSTRAINT studies_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_.-]{0,62}$'),
  tenant_id       bigint NOT NULL,
  data_set_id     bigint NOT NULL,
  state           text NOT NULL DEFAULT 'REGISTERED',
  metric          text NOT NULL CONSTRAINT studies_metric_check CHECK (metric ~ '^[[:alnum:]_.:+-]{1,200}$'),
  weight          double precision NOT NULL DEFAULT 1
                  CONSTRAINT studies_weight_check CHECK (weight >= 1e-6 AND weight <= 1e6),
  budget_seconds  double precision,
  config          jsonb NOT NULL,
  request_key     text NOT NULL CONSTRAINT studies_request_key UNIQUE,
  created_at      timestamptz NOT NULL DEFAULT now(),
  priority        integer NOT NULL DEFAULT 0 CONSTRAINT studies_priority_check CHECK (priority BETWEEN -100 AND 100),
  deadline        timestamptz,
  target_quality  double precision,
  active_since    timestamptz,
  task            text NOT NULL DEFAULT 'classification',
  hit             text NOT NULL DEFAULT 'accuracy',
  program         text CONSTRAINT studies_program_check CHECK (octet_length(program) <= 100000),
  archived_at     timestamptz,
  archived_from   text,
  archived_why    text,
  CONSTRAINT studies_budget_check CHECK (budget_seconds > 0 AND budget_seconds < 'Infinity'),
  CONSTRAINT studies_data_set_key UNIQUE (id, data_set_id),
  -- A study runs on data of its own tenant.
  CONSTRAINT studies_data_set_fkey FOREIGN KEY (data_set_id, tenant_id) REFERENCES work.data_sets (id, tenant_id),
  -- Python knows no year beyond 9999 and none before 1: one such row would stop whoever reads all studies.
  CONSTRAINT studies_deadline_check CHECK (deadline >= '2000-01-01 00:00+00' AND deadline < '3000-01-01 00:00+00'),
  CONSTRAINT studies_target_check CHECK (target_quality > 0 AND target_quality <= 1),
  -- SQL counts with the two settings, and no number may have more digits than Python reads.
  CONSTRAINT studies_config_check CHECK (jsonb_typeof(config) = 'object' AND octet_length(config::text) < 4000
    AND (config -> 'training' IS NULL OR jsonb_typeof(config -> 'training') = 'object')
    AND jsonb_typeof(config #> '{training,max_attempts}') = 'number'
    AND config #>> '{training,max_attempts}' ~ '^([1-9][0-9]{0,2}|1000)$'
    AND NOT jsonb_path_exists(config #> '{training,time_limit_seconds}',
    'strict $ ? (@.type() != "number" || @ <= 0 || @ > 1e8)')),
  CONSTRAINT studies_task_check CHECK (task IN ('classification', 'regression')),
  CONSTRAINT studies_hit_check
    CHECK (CASE task WHEN 'regression' THEN hit ~ '^within:[0-9.e+-]{1,40}$' ELSE hit = 'accuracy' END),
  CONSTRAINT studies_state_check CHECK (state IN ('REGISTERED', 'ACTIVE', 'PAUSED', 'REFUSED', 'ARCHIVED')),
  CONSTRAINT studies_archived_check CHECK (CASE state WHEN 'ARCHIVED' THEN archived_at IS NOT NULL
    AND archived_why IS NOT NULL AND length(archived_why) <= 2000 AND (archived_from IN ('REGISTERED', 'ACTIVE',
    'PAUSED', 'REFUSED')) IS TRUE ELSE num_nonnulls(archived_at, archived_from, archived_why) = 0 END)
);
CREATE INDEX studies_tenant_idx ON work.studies (tenant_id);
CREATE INDEX studies_any_name_idx ON work.studies (name);
CREATE UNIQUE INDEX studies_name_key ON work.studies (name) WHERE state NOT IN ('REFUSED', 'ARCHIVED');

-- The content of a study's data at one time: an artifact, its hash and its layout. same_training_as: an earlier
-- version with the same training part; goes_on_with: the version whose sealed sets it goes on with.
CREATE TABLE work.data_versions (
  id                bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT data_versions_pkey PRIMARY KEY,
  study_id          bigint NOT NULL,
  data_set_id       bigint NOT NULL,
  version           integer NOT NULL CONSTRAINT data_versions_version_check CHECK (version >= 1),
  content_hash      text NOT NULL,
  artifact          text NOT NULL,
  features          integer NOT NULL CONSTRAINT data_versions_features_check CHECK (features >= 1),
  class_names       jsonb NOT NULL,
  created_at        timestamptz NOT NULL DEFAULT now(),
  -- Names of the columns after words became columns of 0 and 1: whoever brings new examples brings them encoded alike.
  feature_names     jsonb,
  same_training_as  bigint,
  layout            jsonb,
  goes_on_with      bigint,
  CONSTRAINT data_versions_artifact_check CHECK (artifact ~ '^sha256:[0-9a-f]{64}$'),
  CONSTRAINT data_versions_version_key UNIQUE (study_id, version),
  CONSTRAINT data_versions_content_key UNIQUE (study_id, content_hash),
  CONSTRAINT data_versions_study_key UNIQUE (id, study_id),
  CONSTRAINT data_versions_study_fkey FOREIGN KEY (study_id, data_set_id) REFERENCES work.studies (id, data_set_id),
  CONSTRAINT data_versions_training_fkey FOREIGN KEY (same_training_as, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT data_versions_training_check CHECK (same_training_as < id),
  CONSTRAINT data_versions_layout_check CHECK (layout ->> 'kind' IN ('table', 'image', 'series', 'tree')
    AND jsonb_typeof(layout -> 'shape') = 'array' AND (NOT layout ? 'target'
    OR (layout -> 'target' ->> 'kind' IN ('table', 'image', 'series')
    AND jsonb_typeof(layout -> 'target' -> 'shape') = 'array') IS TRUE)),
  CONSTRAINT data_versions_goes_on_fkey FOREIGN KEY (goes_on_with, study_id)
    REFERENCES work.data_versions (id, study_id),
  CONSTRAINT data_versions_goes_on_check CHECK (goes_on_with < id)
);

-- How many rows each part of a version has.
CREATE TABLE work.data_parts (
  data_version_id  bigint NOT NULL CONSTRAINT data_parts_version_fkey REFERENCES work.data_versions,
  part             text NOT NULL,
  rows             integer NOT NULL CONSTRAINT data_parts_rows_check CHECK (rows > 0),
  CONSTRAINT data_parts_pkey PRIMARY KEY (data_version_id, part),
  CONSTRAINT data_parts_part_check CHECK (part IN ('train', 'validation', 'gate', 'meter', 'joint', 'direct'))
);

-- What a study may train, each with its parameters. implementation: what executes it.
CREATE TABLE work.candidates (
  id              bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT candidates_pkey PRIMARY KEY,
  study_id        bigint NOT NULL CONSTRAINT candidates_study_fkey REFERENCES work.studies,
  name            text NOT NULL,
  kind            text NOT NULL,
  parameters      jsonb NOT NULL DEFAULT '{}',
  devices         jsonb,
  implementation  text NOT NULL GENERATED ALWAYS AS (CASE kind WHEN 'function' THEN 'function:' || split_part(name, '-', 1)
    WHEN 'command' THEN 'command:' || coalesce(parameters ->> 'program', '')
    WHEN 'container' THEN 'container:' || coalesce(parameters ->> 'image', '')
    ELSE 'trainer:' || kind END) STORED,
  withdrawn_at    timestamptz,
  withdrawn_why   text,
  CONSTRAINT candidates_parameters_check
    CHECK (jsonb_typeof(parameters) = 'object' AND octet_length(parameters::text) < 4000),
  CONSTRAINT candidates_name_key UNIQUE (study_id, name),
  CONSTRAINT candidates_study_key UNIQUE (id, study_id),
  CONSTRAINT candidates_name_check
    CHECK (length(name) BETWEEN 1 AND 200 AND name !~ '[[:cntrl:]]' AND length(kind) <= 200),
  CONSTRAINT candidates_implementation_key UNIQUE (id, implementation),
  CONSTRAINT candidates_withdrawn_check
    CHECK ((withdrawn_at IS NULL) = (withdrawn_why IS NULL) AND length(withdrawn_why) <= 2000),
  CONSTRAINT candidates_devices_check CHECK (jsonb_typeof(devices) = 'array' AND jsonb_array_length(devices) BETWEEN 1
    AND 20 AND NOT jsonb_path_exists(devices, 'strict $[*] ? (@.type() != "string")')
    AND NOT jsonb_path_exists(devices, 'strict $[*] ?
    (!(@ like_regex "^[a-z0-9][a-z0-9_.-]{0,62}(:([2-9]|[1-5][0-9]|6[0-4])|/([2-9]|1[0-6]))?$"))'))
);
CREATE INDEX candidates_functions_idx ON work.candidates (study_id) WHERE kind = 'function';

-- Whose rows the caller sees. The roles of people are taken by the pages alone, which say whose rows the person may
-- read, and whose change.
CREATE FUNCTION work.my_tenants() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN work.caller() IN ('easeml_viewer', 'easeml_person')
  THEN coalesce(nullif(current_setting('easeml.viewer_tenants', true), '')::bigint[], '{}')
  ELSE (SELECT coalesce(array_agg(tenant_id), '{}') FROM work.tenant_logins WHERE login = work.caller()) END;
REVOKE EXECUTE ON FUNCTION work.my_tenants() FROM PUBLIC;

-- Of which tenants the caller may change rows: a person may see more than that.
CREATE FUNCTION work.my_changes() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN CASE work.caller() WHEN 'easeml_viewer' THEN '{}'
  WHEN 'easeml_person' THEN coalesce(nullif(current_setting('easeml.person_tenants', true), '')::bigint[], '{}')
  ELSE work.my_tenants() END;
REVOKE EXECUTE ON FUNCTION work.my_changes() FROM PUBLIC;

-- A study is split and sealed once: nothing leads back to REGISTERED.
CREATE FUNCTION work.studies_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  is_owner boolean := pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE');
BEGIN
  IF NOT ((OLD.state = 'REGISTERED' AND NEW.state IN ('ACTIVE', 'REFUSED')
           AND (current_user = 'easeml_referee' OR is_owner))
       OR (OLD.state IN ('ACTIVE', 'PAUSED') AND NEW.state IN ('ACTIVE', 'PAUSED'))
       -- By work.archive_now alone, which cancels the trials as well.
       OR (is_owner AND (NEW.state = 'ARCHIVED' OR OLD.state = 'ARCHIVED' AND (NEW.state = OLD.archived_from
           OR NEW.state = 'REFUSED' AND OLD.archived_from = 'REGISTERED'))))
  THEN
    RAISE EXCEPTION 'study % cannot go from % to %', OLD.name, OLD.state, NEW.state
      USING ERRCODE = 'check_violation', CONSTRAINT = 'studies_forward_check';
  END IF;
  NEW.archived_at := CASE NEW.state WHEN 'ARCHIVED' THEN clock_timestamp() END;
  NEW.archived_from := CASE NEW.state WHEN 'ARCHIVED' THEN OLD.state END;
  NEW.archived_why := CASE NEW.state WHEN 'ARCHIVED'
    THEN left(coalesce(current_setting('easeml.reason', true), ''), 2000) END;
  RETURN NEW;
END $$;
CREATE TRIGGER studies_forward BEFORE UPDATE OF state ON work.studies FOR EACH ROW WHEN (OLD.state <> NEW.state)
  EXECUTE FUNCTION work.studies_forward();

CREATE FUNCTION work.studies_active_since() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.active_since := clock_timestamp();
  RETURN NEW;
END $$;
CREATE TRIGGER studies_active_since BEFORE UPDATE OF state ON work.studies FOR EACH ROW WHEN (OLD.state <> NEW.state
  AND NEW.state = 'ACTIVE') EXECUTE FUNCTION work.studies_active_since();
