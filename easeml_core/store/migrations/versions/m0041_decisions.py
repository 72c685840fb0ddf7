"""The statements of a decision are functions, whose plans a session keeps; a trial without limits is checked in two."""

from alembic import op

revision = "0041"
down_revision = "0040"

# With the rights of the caller. To parse, to rewrite for the rules of rows and to plan took the server longer than to
# execute. The plan is made for any ids, so it is written to be good for all of them: ids first, then rows by their ids.
# One row of JSON, since a driver that reads twenty columns of each row takes longer than the server with all of it.
SEEN = """
CREATE FUNCTION work.seen(of_key text, last bigint, known bigint[]) RETURNS json LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  ids bigint[] := known || ARRAY(
    SELECT t.id FROM work.trials t WHERE t.id > last AND t.id <= (SELECT max(m.id) FROM work.trials m));
BEGIN
  RETURN json_build_array(
    now(),
    (SELECT k.version FROM work.catalogue k) + (SELECT count(*) FROM work.catalogue_changes),
    (SELECT max(s.id) FROM work.selection_settings s),
    (SELECT b.id FROM work.suggestion_batches b WHERE b.request_key = of_key),
    (SELECT json_agg(json_build_array(
        t.id, t.study_id, t.candidate_id, t.data_version_id,
        -- A result that the referee has measured and that did not hold counts as a failure of its candidate.
        CASE WHEN z.broken THEN 'FAILED' ELSE t.state END,
        CASE WHEN NOT z.broken THEN (SELECT o.quality FROM work.observations o WHERE o.trial_id = t.id) END,
        t.cost_seconds, t.lost_seconds, t.limit_seconds, t.device, t.finished_at,
        t.finished_at IS NULL AND coalesce(t.lease_until < now(), true),
        t.reevaluates, t.retries, t.failure_kind, t.start_seconds) ORDER BY t.id)
      FROM work.trials t, LATERAL (SELECT EXISTS (SELECT FROM work.quality_checks q
        WHERE q.trial_id = t.id AND q.outcome = 'not held') AS broken) z
      WHERE t.id = ANY (ids)));
END $$;

-- The lock first: what is seen then is what was committed before it was granted, as each statement looks anew.
CREATE FUNCTION work.look(of_key text, last bigint, known bigint[]) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM work.locks WHERE name = 'suggest' FOR UPDATE;
  RETURN work.seen(of_key, last, known);
END $$;

CREATE FUNCTION work.add_decision(
  INOUT batch_id bigint, of_key text, of_policy text, trials_requested integer, of_position integer, of_study bigint,
  of_candidate bigint, of_data_version bigint, of_device text, of_limit double precision, of_reasons jsonb,
  of_rival jsonb, reserve_seconds double precision, channel text, topics text[], OUT trial_id bigint)
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify(channel, topic) FROM unnest(topics) AS topic;
  IF batch_id IS NULL THEN
    INSERT INTO work.suggestion_batches (request_key, policy, requested, settings_id)
    VALUES (of_key, of_policy, trials_requested, (SELECT max(id) FROM work.selection_settings))
    RETURNING id INTO batch_id;
  END IF;
  INSERT INTO work.trials (study_id, candidate_id, data_version_id, device, limit_seconds, lease_until)
  VALUES (of_study, of_candidate, of_data_version, of_device, of_limit, now() + make_interval(secs => reserve_seconds))
  RETURNING id INTO trial_id;
  INSERT INTO work.suggestions (batch_id, position, trial_id, reasons, rival)
  VALUES (batch_id, of_position, trial_id, of_reasons, of_rival);
END $$;
"""

# The tenant's row is locked first, in every case: the second transaction sees what the first has written. What the
# tenant may use is read from the locked row; only where it is limited are its trials counted.
LIMITS = """
CREATE OR REPLACE FUNCTION work.trials_within_limits() RETURNS trigger LANGUAGE plpgsql
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
  IF owner.has_most AND TG_OP = 'INSERT' THEN  -- a reservation that grows makes no further trial
    PERFORM work.check_parallel(owner.id);
  END IF;
  RETURN NULL;
END $$;
"""


def upgrade() -> None:
    for block in (SEEN, LIMITS):
        op.execute(block)
