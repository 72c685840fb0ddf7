"""Who executes a trial is part of its claim, and a trial that failed because of its task is retried by another one.

A candidate names its implementation: the trainer's kind, or for kinds that bring their own code which code that is. The
claim of a trial states what the worker executes, and a foreign key refuses a claim that states anything else. Before,
the check was Python's: a function that was mapped over every trial trained all of them, and its models were promoted
under the names of other candidates.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

IMPLEMENTATION = """
-- What trains the candidate, and the only thing that may: entities.implementation_of says the same in Python.
ALTER TABLE work.candidates
  ADD COLUMN implementation text NOT NULL GENERATED ALWAYS AS (
    CASE kind WHEN 'function' THEN 'function:' || split_part(name, '-', 1)
              WHEN 'command' THEN 'command:' || coalesce(parameters ->> 'program', '')
              WHEN 'container' THEN 'container:' || coalesce(parameters ->> 'image', '')
              ELSE 'trainer:' || kind END) STORED,
  ADD CONSTRAINT candidates_implementation_key UNIQUE (id, implementation);
"""

EXECUTOR = """
-- executor: what the worker of the newest attempt stated that it executes. executor_details: of which code that is, as
-- entities.Executor; NULL for an attempt that began before this was kept.
ALTER TABLE work.trials
  ADD COLUMN executor text,
  ADD COLUMN executor_details jsonb,
  ADD CONSTRAINT trials_executor_fkey FOREIGN KEY (candidate_id, executor)
    REFERENCES work.candidates (id, implementation),
  ADD CONSTRAINT trials_executor_details_check CHECK (executor_details IS NULL OR (
    executor IS NOT NULL AND jsonb_typeof(executor_details) = 'object'
    AND octet_length(executor_details::text) < 4000));
UPDATE work.trials t SET executor = c.implementation FROM work.candidates c
  WHERE c.id = t.candidate_id AND t.state = 'RUNNING';
-- Trials that ended before this was kept name no executor: NOT VALID.
ALTER TABLE work.trials ADD CONSTRAINT trials_executor_check CHECK (
  executor IS NOT NULL OR reevaluates IS NOT NULL OR state NOT IN ('RUNNING', 'SUCCEEDED')) NOT VALID;

-- An attempt keeps its executor: another one is another attempt, with a claim of its own.
CREATE FUNCTION work.trials_executor_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'attempt % of trial % is executed by %; another executor claims another attempt',
    OLD.attempt, OLD.id, OLD.executor
    USING ERRCODE = 'check_violation', CONSTRAINT = 'trials_executor_kept';
END $$;
CREATE TRIGGER trials_executor_kept BEFORE UPDATE ON work.trials
  FOR EACH ROW WHEN (NEW.attempt = OLD.attempt AND OLD.executor IS NOT NULL
    AND (NEW.executor, NEW.executor_details) IS DISTINCT FROM (OLD.executor, OLD.executor_details))
  EXECUTE FUNCTION work.trials_executor_kept();
"""

RETRIES = """
-- failure_kind: 'task' where what executes failed (a package, a program or a column is missing), 'candidate' where what
-- was tried did; NULL where neither is known, as when workers were lost. retries: the trial whose place this one takes.
ALTER TABLE work.trials
  ADD COLUMN failure_kind text,
  ADD COLUMN retries bigint,
  ADD COLUMN retries_kind text GENERATED ALWAYS AS (CASE WHEN retries IS NOT NULL THEN 'task' END) STORED,
  ADD CONSTRAINT trials_failure_kind_check CHECK (
    failure_kind IS NULL OR (failure_kind IN ('task', 'candidate') AND state = 'FAILED')),
  -- It says nothing of the candidate, so it has no cost of the candidate's either: what it took is lost.
  ADD CONSTRAINT trials_task_cost_check CHECK (failure_kind <> 'task' OR cost_seconds IS NULL),
  ADD CONSTRAINT trials_retries_check CHECK (retries < id),
  ADD CONSTRAINT trials_failure_kind_key UNIQUE (id, candidate_id, data_version_id, failure_kind),
  -- Only a trial that failed because of its task is retried, on the same data, and by one trial.
  ADD CONSTRAINT trials_retries_fkey FOREIGN KEY (retries, candidate_id, data_version_id, retries_kind)
    REFERENCES work.trials (id, candidate_id, data_version_id, failure_kind),
  DROP CONSTRAINT trials_once_per_data_key,
  -- No candidate runs twice on the same data, whoever asks, but in place of such a trial.
  ADD CONSTRAINT trials_once_per_data_key UNIQUE NULLS NOT DISTINCT (candidate_id, data_version_id, retries);
CREATE INDEX trials_retries_idx ON work.trials (retries) WHERE retries IS NOT NULL;
CREATE INDEX trials_task_failures_idx ON work.trials (study_id) WHERE failure_kind = 'task';
"""

OFFERS = """
-- What was able to execute trials of a study when it last asked for some: study '' stands for all studies.
CREATE TABLE work.offers (
  implementation  text NOT NULL,
  study           text NOT NULL,
  asked_at        timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT offers_pkey PRIMARY KEY (implementation, study),
  CONSTRAINT offers_length_check CHECK (octet_length(implementation) <= 1000 AND octet_length(study) <= 500)
);
"""

GRANTS = """
GRANT UPDATE (executor, executor_details, failure_kind) ON work.trials TO easeml_worker;
GRANT INSERT (retries) ON work.trials TO easeml_worker;
GRANT SELECT ON work.offers TO easeml_worker, easeml_referee;
GRANT INSERT (implementation, study), UPDATE (asked_at) ON work.offers TO easeml_worker;
"""


def upgrade() -> None:
    for block in (IMPLEMENTATION, EXECUTOR, RETRIES, OFFERS, GRANTS):
        op.execute(block)
