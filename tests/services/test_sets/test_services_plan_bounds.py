"""No settings that a worker can store let the referee plan for long: it plans for all studies, one after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from easeml_core.errors import ConfigError
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration import sealing
from easeml_core.services.test_sets.planning import needed_examples
from easeml_core.settings.config import MOST_COUNTED, MOST_SLICES, MOST_STEPS, GateConfig, JointConfig, MeterConfig

TABLE = [[[1, 0], [2, 1]], [[1, 0], [2, None]]]
SLICES = [[f"s{i}", "n > 0.5 +/- 0.1"] for i in range(MOST_SLICES + 1)]

TOO_LARGE: list[tuple[type[Any], dict[str, Any], str]] = [
    (MeterConfig, {"steps": MOST_STEPS + 1}, "steps must .* 1 to 1000000"),
    (MeterConfig, {"steps": True}, "steps must .* got True"),
    (MeterConfig, {"steps": 8.0}, "steps must .* got 8.0"),
    (MeterConfig, {"method": "multitenant", "steps": MOST_STEPS, "teams": MOST_COUNTED + 1}, "teams must be .* 100000"),
    (MeterConfig, {"method": "multitenant", "steps": 10**15, "teams": 10**15}, "steps must be"),
    (MeterConfig, {"method": "deviations", "deviations": MOST_COUNTED + 1}, "deviations must be .* 0 to 100000"),
    (MeterConfig, {"deviations": 10**15}, "deviations must be"),  # also where no method looks at it
    (
        MeterConfig,
        {"method": "automaton", "automaton": TABLE, "ranges": [0.2], "steps": MOST_COUNTED + 1},
        "steps .* 100000 .*'automaton'",
    ),
    (GateConfig, {"steps": MOST_STEPS + 1}, "steps must .* 1 to 1000000"),
    (GateConfig, {"slices": SLICES}, "slices .* 50, got '51 "),
    (JointConfig, {"gate": {"slices": SLICES}}, "slices .* 50"),
    (JointConfig, {"gate": {"steps": MOST_STEPS + 1}}, "steps must be"),
    (JointConfig, {"meter": {"steps": MOST_STEPS + 1}}, "steps must be"),
]


@pytest.mark.parametrize(("kind", "given", "words"), TOO_LARGE)
def test_larger_settings_are_refused(kind: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        kind.from_json(given)


LARGEST: list[tuple[type[Any], dict[str, Any]]] = [
    (MeterConfig, {"steps": MOST_STEPS, "ambiguous": MOST_STEPS}),
    (MeterConfig, {"steps": MOST_STEPS, "method": "multitenant", "teams": MOST_COUNTED}),
    (MeterConfig, {"steps": MOST_STEPS, "method": "deviations", "deviations": MOST_COUNTED}),
    (MeterConfig, {"steps": MOST_COUNTED, "method": "automaton", "automaton": TABLE, "ranges": [0.2]}),
    (GateConfig, {"steps": MOST_STEPS, "adaptivity": f"upTo:{MOST_STEPS // 2}"}),
    (GateConfig, {"slices": SLICES[:MOST_SLICES]}),
    (JointConfig, {"gate": {"steps": MOST_STEPS}, "meter": {"steps": MOST_STEPS}}),
]


@pytest.mark.parametrize(("kind", "given"), LARGEST)
def test_the_largest_settings_are_planned(kind: Any, given: dict[str, Any]) -> None:
    assert needed_examples(kind.from_json(given)) > 0


def stored(lab: Any, **changes: dict[str, Any]) -> int:
    """A request to seal a study whose settings a worker has written with SQL; the request's id."""
    with lab.worker.begin() as tx:
        tenant, data_set, config = tx.execute(
            text("SELECT tenant_id, data_set_id, config FROM work.studies WHERE name = 'full'")
        ).one()
        config = {k: (v or {}) | changes[k] if k in changes else v for k, v in config.items()}
        study = tx.execute(
            text(
                "INSERT INTO work.studies (name, tenant_id, data_set_id, metric, config, request_key) "
                "VALUES ('odd', :tenant, :data_set, 'accuracy', CAST(:config AS jsonb), 'odd') RETURNING id"
            ),
            {"tenant": tenant, "data_set": data_set, "config": json.dumps(config)},
        ).scalar()
        filed = tx.execute(
            text(
                "INSERT INTO work.requests (request_key, kind, study_id, arguments) "
                "VALUES ('odd/seal', 'seal', :study, '{}') RETURNING id"
            ),
            {"study": study},
        )
        return int(filed.scalar() or 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"meter": {"method": "multitenant", "steps": 10**15, "teams": 10**15}},
        {"meter": {"method": "deviations", "steps": 10**15, "deviations": 10**15}, "direct": {"share": 0.5}},
    ],
)
def test_a_study_with_settings_that_are_too_large_is_refused_and_others_are_answered(lab: Any, changes: Any) -> None:
    odd = stored(lab, **changes)
    assert lab.gate("good").symbol == "pass"
    found = answer_of(lab.worker, odd)
    assert found is not None
    assert found.refused
    assert "1 to 1000000" in found.message


def test_slices_of_a_study_are_refused_before_anything_is_planned(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sealing, "planned_sets", lambda settings: pytest.fail("planned"))
    odd = stored(lab, gate={"slices": SLICES[:20]})
    lab.answer_all()
    found = answer_of(lab.worker, odd)
    assert found is not None
    assert "slices need" in found.message
