"""Whether an alert still asks for something, as SQL over ``work.alerts a``: the state of the study says so, no memory.

An alert is open until somebody clears it, or until what it asks for was done; then it has been served, and only the
study's history tells of it.

    kind           is served once
    overfitting    the validation set that it is about was replaced; where a set ended too soon, once another is sealed
    drift          the validation set that it is about was replaced
    new-test-set   for each system that the set served, one was sealed since, or one waits behind a live one, or a later
                   set has ended: its own alert takes the place of this one

A better reading serves none: else a harmless model could hide how far the validation set is used up.
"""

from __future__ import annotations

# A version with a validation part of its own beside an earlier training part. Versions are compared, not times: an
# answer may leave long after it was decided. Readings of a time with one version only do not name it.
_REPLACED = """EXISTS (SELECT FROM work.data_versions v WHERE v.study_id = a.study_id AND v.same_training_as IS NOT NULL
AND v.id > coalesce((SELECT data_version_id FROM work.meter_readings n WHERE n.request_id = a.reading_id), 0))"""

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
