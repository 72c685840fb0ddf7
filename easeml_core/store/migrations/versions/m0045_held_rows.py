"""A login that holds a row, or reads an old snapshot, keeps neither the scheduler nor a name from others (ADR 0035)."""

from alembic import op

revision = "0045"
down_revision = "0044"

# A login withdraws a candidate in a transaction of its own, which it may leave open. And under REPEATABLE READ a
# statement does not see that a study was archived meanwhile, while the index of names already lets its name go.
PATCH = """
DO $patch$
DECLARE
  asked text[];
  body text;
BEGIN
  FOREACH asked SLICE 1 IN ARRAY ARRAY[
    ['work.delete_now(bigint)', 'asked := ARRAY(SELECT id FROM work.requests WHERE study_id = of_study);',
     'PERFORM FROM work.candidates WHERE study_id = of_study FOR UPDATE NOWAIT;'],
    ['work.is_open_for_more()', 'found := (SELECT ''tenant '' || t.name',
     'IF current_setting(''transaction_isolation'') <> ''read committed'' THEN
        RAISE EXCEPTION ''a study is added under READ COMMITTED alone'' USING ERRCODE = ''invalid_transaction_state'';
      END IF;']] LOOP
    body := pg_get_functiondef(asked[1]::regprocedure);
    IF position(asked[2] IN body) = 0 THEN
      RAISE EXCEPTION '% is not the function of revision 0042', asked[1];
    END IF;
    EXECUTE replace(body, asked[2], asked[3] || E'\\n  ' || asked[2]);
  END LOOP;
END $patch$;
"""


def upgrade() -> None:
    op.execute(PATCH)
