"""Whether an alert still asks for something, as SQL over ``work.alerts a``: the state of the study says so, no memory.

An alert is open until somebody clears it, or until what it asks for was done; then it has been served, and only the
study's history tells of it.

    kind           is served once
    overfitting    the validation set that it is about was replaced, and the one in use does not go on with it; where a
                   set ended too soon, once another is sealed
    drift          the validation set that it is about was replaced likewise
    new-test-set   for each system that the set served, one was sealed since, or one waits behind a live one, or a later
                   set has ended: its own alert takes the place of this one

A better reading serves none: else a harmless model could hide how far the validation set is used up.
"""

from __future__ import annotations

# Versions are compared, not times: an answer may leave long after it was decided. Readings of a time with one version
# only do not name it.
_READ_ON = """SELECT v.version FROM work.meter_readings n JOIN work.data_versions v ON v.id = n.data_version_id
WHERE n.request_id = a.reading_id"""

# The newest version, and back from each to that whose validation part it goes on with (``meter.heritage``): a few new
# rows serve nothing. With another training part it has the very same one as the version before.
_REPLACED = f"""NOT EXISTS (
WITH RECURSIVE asked AS (SELECT coalesce(({_READ_ON}), 1) AS version), in_use AS (
  (SELECT version, same_training_as, goes_on_with FROM work.data_versions
   WHERE study_id = a.study_id ORDER BY version DESC LIMIT 1)
  UNION ALL
  SELECT b.version, b.same_training_as, b.goes_on_with FROM in_use u JOIN asked ON u.version > asked.version
  JOIN work.data_versions b ON b.study_id = a.study_id AND b.version = CASE WHEN u.same_training_as IS NULL
    THEN u.version - 1 ELSE (SELECT version FROM work.data_versions WHERE id = u.goes_on_with) END)
SELECT FROM in_use JOIN asked USING (version))"""

# When a set was sealed stands in the audit alone: it may have been planned long before, or be live at once.
_SEALED_SINCE = """(SELECT min(w.at) FROM work.audit w WHERE w.study_id = a.study_id
AND w.act IN ('set sealed', 'set live') AND w.after ->> 'set' = z.id::text) > a.created_at"""

_ANOTHER_METER_SET = f"""EXISTS (SELECT FROM work.test_sets z WHERE z.study_id = a.study_id
AND z.purpose IN ('meter', 'joint') AND {_SEALED_SINCE})"""

# A row for each system that the ended set has served: the purposes of sets that serve it. A set that only waits, while
# nothing is live, gives no answer.
_FOLLOWED = f"""NOT EXISTS (
SELECT FROM work.test_sets e,
  (VALUES (ARRAY['gate', 'joint']), (ARRAY['meter', 'joint']), (ARRAY['direct'])) k (serving)
WHERE e.id = a.test_set_id AND e.purpose = ANY (k.serving) AND NOT EXISTS (
  SELECT FROM work.test_sets z WHERE z.study_id = a.study_id AND z.purpose = ANY (k.serving) AND z.id <> e.id
  AND CASE z.state WHEN 'planned' THEN false
    WHEN 'sealed' THEN EXISTS (SELECT FROM work.test_sets l WHERE l.study_id = a.study_id
      AND l.purpose = ANY (k.serving) AND l.state = 'live')
    ELSE EXISTS (SELECT FROM work.alerts b WHERE b.test_set_id = z.id AND b.id > a.id) OR {_SEALED_SINCE} END))"""

IS_SERVED = f"""CASE WHEN a.kind = 'new-test-set' THEN {_FOLLOWED}
WHEN a.kind = 'overfitting' AND EXISTS (
  SELECT FROM work.meter_readings n WHERE n.request_id = a.reading_id AND n.signal IS NULL) THEN {_ANOTHER_METER_SET}
ELSE {_REPLACED} END"""
"""True of an alert whose reason is gone."""

IS_OPEN = f"(a.cleared_at IS NULL AND NOT ({IS_SERVED}))"
"""True of an alert that asks for something."""
