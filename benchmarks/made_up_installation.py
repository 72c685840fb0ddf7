"""A simulated installation of any size, for benchmarks and tests: in memory, and as rows of a database.

``World`` holds qualities and costs of every pair of tenant and candidate, and which of them have run. ``fill`` writes
the rows of such an installation in bulk, as the owner of the schemas; they are valid, so every service works on them,
but no model was trained. ``clear`` deletes them by their key.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.selection.problem import Arms, Past, Problem, Pull
from easeml_core.store.rows import as_json, change, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sqlalchemy import Connection

    from easeml_core.selection.surrogate.posterior import Array

FEATURES = 5
"""Latent traits of a candidate, of which its quality for a tenant is a random linear function (in logits)."""


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Everything that is true of an installation.

    Attributes:
        names: Candidates, shape ``(n_candidates,)``.
        features: Traits of the candidates, shape ``(n_candidates, FEATURES)``.
        qualities: In (0, 1), shape ``(n_tenants, n_candidates)``.
        costs: Seconds, > 0, shape ``(n_tenants, n_candidates)``.
        rows: Training rows of each tenant, shape ``(n_tenants,)``.
        runs: (tenant, candidate) of what has run already, in order of its end. The n-th run of a candidate is on the
            tenant's n-th data version; the newest version is that of the last run.
    """

    names: tuple[str, ...]
    features: Array
    qualities: Array
    costs: Array
    rows: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]

    def problem(self) -> Problem:
        """Return the problem that a scheduler receives; the study id of a tenant is its index.

        Results on earlier data versions are history.
        """
        last = Counter(self.runs)
        newest = {tenant: max(last[tenant, k] for k in range(len(self.names))) for tenant in range(len(self.rows))}
        seen: Counter[tuple[int, int]] = Counter()
        pulls, past = [], dict[tuple[int, int], list[int]]()
        for order, (i, k) in enumerate(self.runs):
            seen[i, k] += 1
            if seen[i, k] == newest[i]:
                pulls.append(Pull(i, k, float(self.qualities[i, k]), float(self.costs[i, k]), order=order))
            else:
                past.setdefault((i, seen[i, k]), []).append(k)
        return Problem(
            tuple(Arms(i, 1.0, self.names, rows=rows) for i, rows in enumerate(self.rows)),
            tuple(pulls),
            history=tuple(
                Past(
                    i,
                    tuple(self.names[k] for k in arms),
                    tuple(self.qualities[i, arms].tolist()),
                    tuple(self.costs[i, arms].tolist()),
                )
                for (i, _), arms in past.items()
            ),
        )


def make_world(*, tenants: int, candidates: int, observations: int, seed: int = 0) -> World:
    """Make an installation in which every tenant has run ``observations`` random candidates, in random order.

    Args:
        tenants: >= 1.
        candidates: >= 1.
        observations: Trials of each tenant that have ended, >= 0 and no multiple of the number of candidates but 0.
            From that number on, the first ones are all candidates on earlier data versions, version after version.
        seed: Of everything random.

    Raises:
        InvalidInputError: If a number is out of its range.
    """
    if min(tenants, candidates) < 1 or observations < 0 or (observations and observations % candidates == 0):
        message = (
            "tenants and candidates must be >= 1, observations >= 0 and no multiple of candidates, so that something "
            f"is left to run; got {tenants}, {candidates} and {observations}"
        )
        raise InvalidInputError(message)
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(candidates, FEATURES))
    tastes = rng.normal(0, 0.3, (tenants, FEATURES)) + rng.normal(0, 0.3, FEATURES)
    logits = rng.normal(1.5, 1.0, (tenants, 1)) + tastes @ features.T + rng.normal(0, 0.1, (tenants, candidates))
    rows = np.exp(rng.normal(8, 1.5, tenants)).astype(int) + 10
    logs = rng.normal(0, 1.5, candidates) + 0.7 * (np.log(rows) - 8)[:, None]
    costs = np.exp(logs + rng.normal(0, 0.5, (tenants, candidates)))
    past, present = divmod(observations, candidates)
    everything = [(i, k) for i in range(tenants) for k in range(candidates)]
    runs = [everything[j] for _ in range(past) for j in rng.permutation(len(everything)).tolist()]
    last = [(i, k) for i in range(tenants) for k in rng.permutation(candidates)[:present].tolist()]
    runs += [last[j] for j in rng.permutation(len(last)).tolist()]
    return World(
        names=tuple(f"candidate-{k:03d}" for k in range(candidates)),
        features=features,
        qualities=1 / (1 + np.exp(-logits)),
        costs=costs,
        rows=tuple(rows.tolist()),
        runs=tuple(runs),
    )


# -- rows of a database -------------------------------------------------------------------------------------------


def holds_anything(tx: Connection) -> bool:
    """Whether the database has a tenant, and with it anything that matters."""
    return bool(scalar(tx, "SELECT EXISTS (SELECT FROM work.tenants)"))


def fill(
    tx: Connection,
    *,
    key: str,
    candidates: Sequence[str],
    config: Mapping[str, Any],
    trials: Sequence[tuple[int, int, float, float]],
    rows: Sequence[int],
) -> None:
    """Add active studies, one of each tenant, with finished trials.

    A candidate that has run n times in a study did so on n data versions of it, which all have the same rows.

    Args:
        tx: A transaction of the owner.
        key: Begins every name, followed by ``-``; what ``clear`` takes away.
        candidates: Names of the candidates, the same in each study.
        config: Settings of each study.
        trials: (study, candidate, quality, seconds) of each finished trial in the order of their end; studies and
            candidates are counted from 0.
        rows: Training rows of each study.
    """
    change(tx, _TENANTS, key=key, n=len(rows))
    change(tx, _DATA_SETS, key=key)
    change(tx, _STUDIES, key=key, config=as_json(config))
    runs = Counter((study, arm) for study, arm, *_ in trials)
    change(tx, _VERSIONS, key=key, n=max(runs.values(), default=1))
    change(tx, _PARTS, key=key, rows=list(rows))
    change(tx, _CANDIDATES, key=key, names=list(candidates))
    studies, arms, qualities, seconds = (list(column) for column in zip(*trials, strict=True)) if trials else ([],) * 4
    values = {"studies": studies, "arms": arms, "qualities": qualities, "seconds": seconds}
    for statement in (_TRIALS, _OBSERVATIONS):
        if trials:
            analyse(tx)  # without statistics of the new rows the joins take the square of their number
            change(tx, statement, key=key, names=list(candidates), **values)


def analyse(tx: Connection) -> None:
    """Let the planner know of the new rows, as the server does by itself after a minute."""
    for table in ("tenants", "studies", "candidates", "data_versions", "data_parts", "trials", "observations"):
        change(tx, f"ANALYZE work.{table}")


def clear(tx: Connection, *, key: str) -> None:
    """Take away the rows of ``fill``, and the suggestions that were made under request keys ``KEY-...``."""
    mine = "IN (SELECT id FROM work.studies WHERE starts_with(name, :key || '-'))"
    trials = f"IN (SELECT id FROM work.trials WHERE study_id {mine})"
    versions = f"IN (SELECT id FROM work.data_versions WHERE study_id {mine})"
    tenants = "IN (SELECT id FROM work.tenants WHERE starts_with(name, :key || '-'))"
    for statement in (
        f"DELETE FROM work.suggestions WHERE trial_id {trials}",
        "DELETE FROM work.suggestion_batches WHERE starts_with(request_key, :key || '-')",
        f"DELETE FROM work.observations WHERE trial_id {trials}",
        f"DELETE FROM work.trials WHERE study_id {mine}",
        f"DELETE FROM work.candidates WHERE study_id {mine}",
        f"DELETE FROM work.data_parts WHERE data_version_id {versions}",
        f"DELETE FROM work.data_versions WHERE study_id {mine}",
        "DELETE FROM work.studies WHERE starts_with(name, :key || '-')",
        f"DELETE FROM work.data_sets WHERE tenant_id {tenants}",
        "DELETE FROM work.tenants WHERE starts_with(name, :key || '-')",
    ):
        change(tx, statement, key=key)


_TENANTS = """
INSERT INTO work.tenants (name) SELECT :key || '-' || i FROM generate_series(0, :n - 1) AS i ORDER BY i
"""
_DATA_SETS = """
INSERT INTO work.data_sets (tenant_id, source)
SELECT id, 'benchmark' FROM work.tenants WHERE starts_with(name, :key || '-') ORDER BY id
"""
_STUDIES = """
INSERT INTO work.studies (name, tenant_id, data_set_id, state, metric, config, request_key)
SELECT t.name, t.id, d.id, 'ACTIVE', 'accuracy', CAST(:config AS jsonb), t.name
FROM work.tenants t JOIN work.data_sets d ON d.tenant_id = t.id WHERE starts_with(t.name, :key || '-') ORDER BY t.id
"""
_VERSIONS = """
INSERT INTO work.data_versions (study_id, data_set_id, version, content_hash, artifact, features, class_names)
SELECT s.id, s.data_set_id, v, s.name || '-' || v, 'sha256:' || repeat('0', 64), 10, '["no", "yes"]'
FROM work.studies s CROSS JOIN generate_series(1, :n) AS v WHERE starts_with(s.name, :key || '-') ORDER BY s.id, v
"""
_PARTS = """
INSERT INTO work.data_parts (data_version_id, part, rows)
SELECT v.id, 'train', r.rows FROM unnest(CAST(:rows AS integer[])) WITH ORDINALITY AS r (rows, number)
JOIN work.studies s ON s.name = :key || '-' || (r.number - 1) JOIN work.data_versions v ON v.study_id = s.id
"""
_CANDIDATES = """
INSERT INTO work.candidates (study_id, name, kind)
SELECT s.id, c.name, 'decision_tree' FROM work.studies s
CROSS JOIN unnest(CAST(:names AS text[])) WITH ORDINALITY AS c (name, number)
WHERE starts_with(s.name, :key || '-') ORDER BY s.id, c.number
"""
_RESULTS = """
(SELECT *, row_number() OVER (PARTITION BY study, arm ORDER BY number) AS version
 FROM unnest(CAST(:studies AS integer[]), CAST(:arms AS integer[]), CAST(:qualities AS double precision[]),
             CAST(:seconds AS double precision[])) WITH ORDINALITY AS u (study, arm, quality, seconds, number)) r
JOIN work.studies s ON s.name = :key || '-' || r.study
JOIN work.candidates c ON c.study_id = s.id AND c.name = (CAST(:names AS text[]))[r.arm + 1]
JOIN work.data_versions v ON v.study_id = s.id AND v.version = r.version
"""
_TRIALS = f"""
INSERT INTO work.trials (study_id, candidate_id, data_version_id, state, attempt, cost_seconds, started_at, finished_at,
  executor)
SELECT s.id, c.id, v.id, 'SUCCEEDED', 1, r.seconds, now(), now() + r.number * interval '1 microsecond', c.implementation
FROM {_RESULTS} ORDER BY r.number
"""
_OBSERVATIONS = f"""
INSERT INTO work.observations (trial_id, quality, cost_seconds)
SELECT t.id, r.quality, r.seconds FROM {_RESULTS}
JOIN work.trials t ON t.candidate_id = c.id AND t.data_version_id = v.id
"""
