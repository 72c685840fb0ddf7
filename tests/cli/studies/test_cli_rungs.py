"""``easeml trial show`` and ``easeml explain`` say what was decided at a trial's rungs."""

from __future__ import annotations

from typing import Any

from easeml_core.formats.encoding import row_of
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import claim
from easeml_core.services.trials.rungs import Ladder
from easeml_core.store.tables import trials


def test_decisions_are_shown_in_words_and_as_numbers(ask: Any, make_study: Any, database: Any, recorded: Any) -> None:
    make_study("cancer", candidates=[{"name": "net", "kind": "torch_mlp"}])
    (trial,) = suggest_trials(database.worker, count=1, request_key="s").trials
    lease = claim(database.worker, trial_id=trial.trial_id, request_key="w")
    Ladder(lease).progress({"step": 1, "of": 8, "quality": 0.5})
    decision = trials.RungDecision(2, 3, 8, 0.5, hoped=0.6, needed=0.9, known=12, rule="gains", goes_on=False)
    with database.worker.begin() as tx:
        trials.add_decision(tx, trial_id=trial.trial_id, attempt=1, decision=decision)
    number = str(trial.trial_id)
    goes_on, stopped = ask("trial", "show", number).out.splitlines()[-2:]
    recorded(f"{goes_on}\n{stopped}\n", "trial_show_rungs")
    assert stopped.removeprefix("It ") in ask("explain", number).text
    for command in (("trial", "show"), ("explain",)):
        shown = ask(*command, number, "--json").json["rungs"]
        assert [(each["rung"], each["goes_on"]) for each in shown] == [(1, True), (2, False)]
        assert shown[1] == row_of(decision)
