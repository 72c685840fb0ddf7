"""What a device that got no trial may hope for: whether the end of somebody's trial could free another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.store.rows import rows
from easeml_core.store.trials import RUNS_HERE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

# A quota is the tenant's: a trial of any study of that tenant can free something in the studies chosen from.
_OUTLOOK = f"""
WITH chosen AS (
  SELECT id, tenant_id FROM work.studies
  WHERE state = 'ACTIVE' AND (CAST(:names AS text[]) IS NULL OR name = ANY(CAST(:names AS text[])))),
newest AS (
  SELECT DISTINCT ON (study_id) id, study_id, same_training_as FROM work.data_versions
  ORDER BY study_id, version DESC),
known AS (
  SELECT t.state, t.lease_until FROM work.trials t JOIN work.studies s ON s.id = t.study_id
  WHERE s.tenant_id IN (SELECT tenant_id FROM chosen))
SELECT count(*) FILTER (WHERE state IN ('SUGGESTED', 'RUNNING')) AS under_way,
       count(*) FILTER (WHERE state = 'SUGGESTED' AND coalesce(lease_until < now(), true)) AS left_behind,
       count(*) FILTER (WHERE state NOT IN ('SUGGESTED', 'RUNNING')) AS ended,
       (SELECT count(*) FROM chosen JOIN newest ON newest.study_id = chosen.id
        JOIN work.candidates c ON c.study_id = chosen.id
        WHERE (c.devices IS NULL OR CAST(:device AS text) IS NULL OR jsonb_exists(c.devices, :device)) AND {RUNS_HERE}
        AND NOT EXISTS (SELECT FROM work.trials t WHERE t.candidate_id = c.id AND (
          t.data_version_id = newest.id OR t.data_version_id IN (
            SELECT id FROM work.data_versions e WHERE e.study_id = newest.study_id
            AND coalesce(e.same_training_as, e.id) = newest.same_training_as)))
       ) AS untried
FROM known
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How many trials there are of the tenants of the chosen studies, and how many candidates without one.

    Attributes:
        under_way: Trials that are SUGGESTED or RUNNING.
        left_behind: Those of them that nobody holds.
        ended: Trials that have ended.
        untried: Candidates of the chosen active studies that can run here and have no trial on the present data, nor
            on earlier data with the same training part.
    """

    under_way: int
    left_behind: int
    ended: int
    untried: int

    @property
    def may_improve(self) -> bool:
        """Whether the end of a trial could make room for another one, under a budget, a quota or a limit."""
        return self.under_way > 0 and self.untried > 0


def outlook(tx: Connection, studies: Sequence[str] | None, *, device: str | None = None) -> Outlook:
    """The outlook over the active studies of these names, or over all of them, for a device without training functions.

    Args:
        tx: Role ``easeml_worker``.
        studies: Their names; None for all that are active.
        device: Kind of the device that asks; None means that every candidate can run on it.
    """
    (found,) = rows(tx, _OUTLOOK, names=None if studies is None else list(studies), device=device, functions=[])
    return Outlook(**found._mapping)
