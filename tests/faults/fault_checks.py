"""What must hold once everything is quiet again, asked of the database, of the files and of what people saw.

The queries run as the administrator. Where the product has a check, that one is asked: chains, signatures
and models in production (``verify_all``), kept rows against counted ones (``out_of_step``), doctor's checks.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from fault_people import KEYS, key_of

from easeml_core.errors import EasemlError
from easeml_core.services.evidence.notary import verify_all
from easeml_core.services.operations import doctor
from easeml_core.services.reports.assessments import assess_changes, out_of_step
from easeml_core.store.artifacts.local import ArtifactStore, is_unfinished
from easeml_core.store.artifacts.orphans import NAMED_FILES, NamedFile, orphans_among, stored_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from easeml_core.store.database import Store

    Rows = Callable[..., list[Any]]

OPEN: Mapping[str, str] = {
    "trials that have not ended": "SELECT id FROM work.trials WHERE finished_at IS NULL",
    "requests without an answer": """SELECT r.id FROM work.requests r
      WHERE NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id)""",
    "requests for suggestions without a decision": "SELECT id FROM work.suggestion_requests WHERE decided_at IS NULL",
    "decisions that have not left": "SELECT request_id FROM sealed.outbox WHERE left_at IS NULL",
    "feeds that nothing has taken": "SELECT id FROM work.feeds WHERE state = 'waiting'",
    "acts that are in no chain": """SELECT a.id FROM work.audit a WHERE NOT EXISTS (
      SELECT FROM sealed.chain c WHERE c.kind = 'audit' AND c.subject = a.id)""",
    "promotions that are in no chain": """SELECT p.id FROM work.promotions p WHERE NOT EXISTS (
      SELECT FROM sealed.chain c WHERE c.kind = 'promotion' AND c.subject = p.id)""",
}
"""Work that is left; each is to be empty in the end."""

_CHARGED = (
    "sum(CASE WHEN t.finished_at IS NULL THEN t.limit_seconds ELSE t.lost_seconds + coalesce(t.cost_seconds, 0) END)"
)

NEVER: Mapping[str, str] = {
    # trials
    "a candidate ran twice on the same data": """SELECT candidate_id FROM work.trials
      GROUP BY candidate_id, data_version_id HAVING count(*) > 1""",
    "a success without its observation, or the reverse": """SELECT t.id FROM work.trials t
      LEFT JOIN work.observations o ON o.trial_id = t.id
      WHERE (t.state = 'SUCCEEDED') <> (o.trial_id IS NOT NULL) OR o.cost_seconds <> t.cost_seconds""",
    "a success without its model, or the reverse": """SELECT t.id FROM work.trials t
      LEFT JOIN work.models m ON m.trial_id = t.id WHERE (t.state = 'SUCCEEDED') <> (m.id IS NOT NULL)""",
    "a model without predictions": """SELECT m.id FROM work.models m WHERE m.trial_id IS NOT NULL AND NOT EXISTS (
      SELECT FROM work.predictions p WHERE p.model_id = m.id)""",
    "a lease of a trial that has ended": """SELECT id FROM work.trials
      WHERE finished_at IS NOT NULL AND (lease_key IS NOT NULL OR state = 'RUNNING')""",
    "a trial without a suggestion": """SELECT id FROM work.trials t
      WHERE NOT EXISTS (SELECT FROM work.suggestions g WHERE g.trial_id = t.id)""",
    "more suggestions than were asked for": """SELECT b.id FROM work.suggestion_batches b
      JOIN work.suggestions g ON g.batch_id = b.id GROUP BY b.id HAVING count(*) > b.requested""",
    "a decided request for suggestions without its batch, or two that one batch answers": """
      SELECT q.request_key FROM work.suggestion_requests q
      LEFT JOIN work.suggestion_batches b ON b.request_key = q.request_key
      WHERE q.decided_at IS NOT NULL AND q.refusal IS NULL
      GROUP BY q.request_key HAVING count(b.id) <> 1 OR max(b.requested) <> max(q.requested)""",
    "a budget is exceeded": f"""SELECT s.name FROM work.studies s JOIN work.trials t ON t.study_id = s.id
      WHERE s.budget_seconds > 0 GROUP BY s.id HAVING {_CHARGED} > s.budget_seconds + 1e-6
      OR count(*) FILTER (WHERE t.limit_seconds IS NULL) > 0""",
    "a trial that failed by another fault than its own": """SELECT id, left(failure, 200) FROM work.trials
      WHERE state = 'FAILED' AND failure !~* '(worker was lost|memory|killed|out of time|starved)'""",
    # requests
    "a seal without its study's state, or the reverse": """SELECT s.id FROM work.studies s
      LEFT JOIN work.requests r ON r.study_id = s.id AND r.kind = 'seal' LEFT JOIN work.answers a ON a.request_id = r.id
      GROUP BY s.id HAVING count(r.id) <> 1 OR count(a.request_id) <> 1
      OR (s.state IN ('ACTIVE', 'PAUSED')) <> bool_and(NOT a.refused)""",
    "an active study without its parts": """SELECT s.id FROM work.studies s WHERE s.state = 'ACTIVE' AND (
      (SELECT count(*) FROM work.data_versions v WHERE v.study_id = s.id AND v.version = 1) <> 1
      OR (SELECT count(*) FROM work.test_sets t JOIN sealed.test_sets z ON z.id = t.id WHERE t.study_id = s.id) < 2)""",
    "a study that was refused": "SELECT id FROM work.studies WHERE state = 'REFUSED'",
    "a request that was refused": "SELECT request_id FROM work.answers WHERE refused",
    "an answer of gate or meter that was not decided": """SELECT r.id FROM work.requests r
      JOIN work.answers a ON a.request_id = r.id LEFT JOIN sealed.outbox o ON o.request_id = r.id
      WHERE r.kind IN ('gate', 'meter') AND (o.left_at IS NULL OR o.refused <> a.refused OR o.message <> a.message)""",
    "a verdict without its answer, or the reverse": """SELECT r.id FROM work.requests r
      LEFT JOIN work.answers a ON a.request_id = r.id AND NOT a.refused
      LEFT JOIN work.gate_verdicts v ON v.request_id = r.id LEFT JOIN work.meter_readings m ON m.request_id = r.id
      WHERE r.kind IN ('gate', 'meter')
      AND (a.request_id IS NOT NULL) <> (num_nonnulls(v.request_id, m.request_id) = 1)""",
    "a refresh without its answer, or the reverse": """SELECT r.id FROM work.requests r
      LEFT JOIN work.answers a ON a.request_id = r.id AND NOT a.refused
      LEFT JOIN work.refreshes f ON f.request_id = r.id
      WHERE r.kind = 'refresh' AND (a.request_id IS NULL) <> (f.request_id IS NULL)""",
    "a verdict without its evidence": """SELECT r.id FROM work.requests r JOIN work.answers a ON a.request_id = r.id
      WHERE r.kind = 'gate' AND NOT a.refused
      AND NOT EXISTS (SELECT FROM work.evidence e WHERE e.request_id = r.id AND e.envelope IS NOT NULL)""",
    "a claim of a request that is decided": """SELECT c.request_id FROM sealed.claims c
      JOIN work.answers a ON a.request_id = c.request_id WHERE c.referee_id IS NOT NULL""",
    "labels that are wanted for a request that is answered": """SELECT w.request_id FROM sealed.wanted w
      JOIN work.answers a ON a.request_id = w.request_id WHERE w.is_open""",
    # the ledger
    "steps of a set that are not 1 to their number": """SELECT test_set_id FROM sealed.ledger
      GROUP BY test_set_id HAVING min(step) <> 1 OR max(step) <> count(*) OR count(DISTINCT step) <> count(*)""",
    "a set that was asked more often than planned": """SELECT l.test_set_id FROM sealed.ledger l
      WHERE NOT l.open_ended GROUP BY l.test_set_id HAVING count(*) > min(l.steps)""",
    "a question that was counted twice": """SELECT test_set_id, cache_key FROM sealed.ledger
      GROUP BY test_set_id, cache_key HAVING count(*) > 1""",
    "a verdict or reading that was not counted, or counted though it was known": """
      SELECT x.request_id FROM (SELECT request_id, test_set_id, step, cached FROM work.gate_verdicts
        UNION ALL SELECT request_id, test_set_id, step, cached FROM work.meter_readings) x
      LEFT JOIN sealed.ledger l ON l.request_id = x.request_id
      WHERE x.cached <> (l.id IS NULL) OR l.test_set_id <> x.test_set_id OR l.system_step <> x.step""",
    "an entry of the ledger that nothing was answered for": """SELECT l.id FROM sealed.ledger l
      WHERE NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = l.request_id)""",
    # production
    "production is not what was promoted last": """SELECT s.id FROM work.studies s
      LEFT JOIN work.production d ON d.study_id = s.id
      LEFT JOIN LATERAL (SELECT id, model_id FROM work.promotions p WHERE p.study_id = s.id ORDER BY id DESC LIMIT 1) p
        ON true WHERE d.promotion_id IS DISTINCT FROM p.id OR d.model_id IS DISTINCT FROM p.model_id""",
    "a promotion without its answer, or the reverse": """SELECT r.id FROM work.requests r
      LEFT JOIN work.answers a ON a.request_id = r.id AND NOT a.refused
      LEFT JOIN work.promotions p ON p.request_id = r.id
      WHERE r.kind IN ('promote', 'rollback', 'force') AND (a.request_id IS NULL) <> (p.id IS NULL)""",
    "a promotion that rests on no pass": """SELECT p.id FROM work.promotions p
      LEFT JOIN work.gate_verdicts v ON v.request_id = p.gate_request_id AND v.symbol = 'pass'
        AND v.model_id = p.model_id WHERE p.kind = 'promote' AND v.request_id IS NULL""",
    # the audit
    "a promotion that is not in the audit once": """SELECT p.id FROM work.promotions p
      LEFT JOIN work.audit a ON a.act IN ('promoted', 'rolled back', 'forced promotion')
        AND (a.after ->> 'request')::bigint = p.request_id GROUP BY p.id HAVING count(a.id) <> 1""",
    "a study whose registration and sealing are not in the audit once": """SELECT s.id FROM work.studies s
      LEFT JOIN work.audit a ON a.study_id = s.id AND a.act IN ('study registered', 'study sealed')
      GROUP BY s.id HAVING count(a.id) <> 2 OR count(DISTINCT a.act) <> 2""",
    "a feed that is not in the audit once": """SELECT f.id FROM work.feeds f LEFT JOIN work.audit a
      ON a.act = 'pairs fed' AND (a.after ->> 'feed')::bigint = f.id GROUP BY f.id HAVING count(a.id) <> 1""",
    "a set whose beginning is not in the audit once": """SELECT t.id FROM work.test_sets t LEFT JOIN work.audit a
      ON a.act IN ('set live', 'set sealed', 'set planned') AND (a.after ->> 'set')::bigint = t.id
      GROUP BY t.id HAVING count(a.id) < 1""",
    # rows
    "a fed row that is there twice": """SELECT study_id, hash FROM work.fed_examples
      GROUP BY study_id, hash HAVING count(*) > 1""",
    "a sealed row that two sets of a study share": """SELECT study_id, hash FROM sealed.examples
      GROUP BY study_id, hash HAVING count(*) > 1""",
    "versions of a study's data that are not 1 to their number": """SELECT study_id FROM work.data_versions
      GROUP BY study_id HAVING min(version) <> 1 OR max(version) <> count(*)""",
    "more than one live set for one purpose": """SELECT study_id, purpose FROM work.test_sets WHERE state = 'live'
      GROUP BY study_id, purpose HAVING count(*) > 1""",
}
"""What must never be; each query returns the offenders."""

_KEPT_BY_DOCTOR = ("sealed sets", "sealed rows", "overview", "evidence", "put-offs")


def left_over(rows: Rows) -> list[str]:
    """Return what is not done yet, in words."""
    return [f"{what}: {_named(found)}" for what, sql in OPEN.items() if (found := rows(sql))]


def broken_rows(rows: Rows) -> list[str]:
    """Return what the database says that must never be."""
    return [f"{what}: {_named(found)}" for what, sql in NEVER.items() if (found := rows(sql))]


def broken_artifacts(rows: Rows, place: Path) -> list[str]:
    """Return artifacts that a row names and that are missing or changed."""
    found, artifacts = [], ArtifactStore(place)
    for tenant, reference, whose, _ in rows(NAMED_FILES):
        path = artifacts.of_tenant(tenant)._place(reference.removeprefix("sha256:"))
        if not path.is_file():
            found.append(f"artifact of {whose} is missing")
        elif f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" != reference:
            found.append(f"artifact of {whose} was changed")
    return found


def orphans(rows: Rows, place: Path) -> list[str]:
    """Return files of the artifact store that no row names: what is stored before its row may stay, as a whole file."""
    named = {NamedFile(tenant, reference) for tenant, reference, *_ in rows(NAMED_FILES)}
    ended = {number for (number,) in rows("SELECT id FROM work.trials WHERE finished_at IS NOT NULL")}
    found = orphans_among(stored_files(ArtifactStore(place)), named, ended)
    return [f"{'unfinished' if is_unfinished(file.path) else 'whole'} {file.path}" for file in found]


def broken_products(worker: Store, referee: Store, keys: Path, artifacts: Path) -> list[str]:
    """Return what the product's own checks find: chains, signatures, promoted models, kept rows, doctor's checks."""
    report = verify_all(referee, keys, ArtifactStore(artifacts))
    found = list(report.broken)  # a chain that people or the schema open has a first entry without a signature
    found += [f"chain {c.chain} has {c.unsigned} entries without a signature" for c in report.chains if c.unsigned > 1]
    assess_changes(worker)
    found += [f"the kept row of {study} is not what is counted" for study in out_of_step(referee)]
    checks = [
        *doctor.check_database(worker._url.render_as_string(hide_password=False), "the harness"),
        doctor.check_overlaps(referee._url.render_as_string(hide_password=False), str(artifacts)),
        doctor.check_put_offs(referee._url.render_as_string(hide_password=False)),
    ]
    return found + [f"doctor: {c.name}: {c.found}" for c in checks if c.state != "ok"]


def broken_promises(rows: Rows, journal: Path, studies: list[str]) -> list[str]:
    """Return where people saw two answers to one request, or one that is not in the database, or none.

    Args:
        rows: Of the administrator.
        journal: Folder with a file for each study.
        studies: Whose people have done all they had to do.
    """
    found = []
    for study in studies:
        noted: defaultdict[str, list[str]] = defaultdict(list)
        for line in _whole_lines(journal / f"{study}.jsonl"):
            noted[line["act"]].append(json.dumps(line["said"], sort_keys=True))
        for act, said in noted.items():
            if len(set(said)) > 1:
                found.append(f"{key_of(study, act)} was answered twice: {said[0][:200]} and {said[-1][:200]}")
        must = {"register", "meter", "gate/1", "feed", "refresh", "gate/2", "bring"}
        found += [f"{key_of(study, act)} was never answered" for act in sorted(must - noted.keys())]
        found += _differing(rows, study, noted)
    return found


def _differing(rows: Rows, study: str, noted: Mapping[str, list[str]]) -> Iterator[str]:
    keys = [key_of(study, act) for act in KEYS]
    there = {
        key: (request, message)
        for key, request, message in rows(
            "SELECT r.request_key, r.id, a.message FROM work.requests r LEFT JOIN work.answers a "
            "ON a.request_id = r.id WHERE r.request_key = ANY(%s)",
            keys,
        )
    }
    for act, said in noted.items():
        last = json.loads(said[-1])
        if "request_id" not in last:
            continue
        known = there.get(key_of(study, act))
        if known != (last["request_id"], last["message"]):
            yield f"{key_of(study, act)}: people saw {last['message']!r}, the database has {known}"


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read a journal, without a last line that a kill has cut."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def every_fault(
    rows: Rows, worker: Store, referee: Store, *, keys: Path, artifacts: Path, journal: Path, studies: list[str]
) -> list[str]:
    """Return all that does not hold; empty where nothing was lost."""
    found = [*broken_rows(rows), *broken_artifacts(rows, artifacts), *broken_promises(rows, journal, studies)]
    try:
        return found + broken_products(worker, referee, keys, artifacts)
    except EasemlError as error:
        return [*found, f"the product's own checks end with {type(error).__name__}: {error}"]


def _named(found: list[Any]) -> str:
    shown = ", ".join("/".join(map(str, row)) for row in found[:5])
    return shown + (f" and {len(found) - 5} more" if len(found) > 5 else "")
