"""A study from Python, on a real database: trials, submissions, the gate's symbol, predictions, the login's rights."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from page_reader import Page
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import easeml_core as easeml
from easeml_core.errors import EasemlError, NotFoundError, StateError
from easeml_core.services.models.promotion import ShownModel
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.logins import make_login
from easeml_core.store.database import Store
from easeml_core.store.tables.trials import TrialEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INPUTS, CLASSES = load_breast_cancer(return_X_y=True, as_frame=True)
CANDIDATES = [{"name": "<b>tree", "kind": "decision_tree", "parameters": {}}]


@pytest.fixture
def client(database: Any, artifacts: Any) -> Iterator[easeml.Client]:
    with easeml.connect(database.url("easeml_worker"), artifacts=str(artifacts.root)) as opened:
        yield opened


def test_a_model_is_submitted_gated_promoted_and_asked(client: easeml.Client, make_study: Any, referee: None) -> None:
    make_study(gate={"condition": "n - o > 0 +/- 0.3", "reliability": 0.9, "adaptivity": "full", "steps": 3})
    study = client.study("cancer")
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(INPUTS.to_numpy(), CLASSES)
    handed = study.submit(model, message="scaled", request_key="commit/1")
    assert study.submit(model, message="scaled", request_key="commit/1") == handed
    assert study.submissions()["state"].tolist() == ["handed in"]

    request = study.gate(handed, request_key="commit/1/gate")
    answer = request.wait(60)
    assert answer.symbol == "pass"
    assert {*answer.__dataclass_fields__} == {
        *("request_id", "kind", "study", "model_id", "refused", "message"),
        *("symbol", "planned", "step", "steps", "cached"),
    }
    again = study.gate(handed.model_id, request_key="commit/1/gate")

    async def both() -> list[Any]:
        return await asyncio.gather(again, again.wait_async(60))

    assert asyncio.run(both()) == [answer, answer]
    assert answer.message in again._repr_html_()
    assert study.models().set_index("model_id")["verdict"][handed.model_id] == "pass"

    assert study.promote(handed).wait(60).promoted
    shuffled = INPUTS.sample(20, random_state=0)[INPUTS.columns[::-1]]
    answers = study.predict(shuffled)
    assert answers.index.equals(shuffled.index)
    assert answers.tolist() == study.predict(INPUTS.loc[shuffled.index].to_numpy())
    chances = study.predict(shuffled, model=handed.model_id, probabilities=True)
    assert chances.idxmax(axis=1).equals(answers.rename(None))
    with pytest.raises(EasemlError, match="column name twice"):
        study.predict(pd.concat([shuffled, shuffled], axis=1))


def test_a_study_without_a_result_says_what_there_is(client: easeml.Client, make_study: Any, database: Any) -> None:
    make_study(candidates=CANDIDATES)
    study = client.study("cancer")
    assert study.trials().empty
    assert study.trials().columns.tolist() == [*TrialEntry.__dataclass_fields__]
    with pytest.raises(StateError, match="its trials: none"):
        study.best()
    suggest_trials(database.worker, count=1, request_key="night")
    trials = study.trials()
    assert trials["state"].tolist() == ["SUGGESTED"]
    with pytest.raises(StateError, match="its trials: 1 SUGGESTED"):
        study.best()
    shown = Page(study.explain(trials["trial_id"][0])._repr_html_())
    assert (CANDIDATES[0]["name"] in shown.text, shown.has("b")) == (True, False)
    make_study("other")
    for trial in (trials["trial_id"][0], 99):
        with pytest.raises(NotFoundError, match=f"no trial {trial}"):
            client.study("other").explain(trial)


def test_a_best_model_has_its_trial(client: easeml.Client, make_study: Any, artifacts: Any, database: Any) -> None:
    make_study(candidates=CANDIDATES)
    (trial,) = suggest_trials(database.worker, count=1, request_key="night").trials
    easeml.run_trial(database.worker, artifacts, trial_id=trial.trial_id, request_key="task")
    best = client.study("cancer").best()
    assert isinstance(best, ShownModel)
    assert (best.trial_id, best.candidate) == (trial.trial_id, CANDIDATES[0]["name"])
    assert client.studies()[["study", "tenant"]].to_numpy().tolist() == [["cancer", "lab"]]


def test_a_wait_ends_with_what_is_ahead(client: easeml.Client, make_study: Any) -> None:
    make_study()
    study = client.study("cancer")
    request = study.gate(study.submit(LogisticRegression().fit([[0] * 30, [1] * 30], [0, 1]), message="x"))
    assert request.place().ahead == 0
    for wait in (lambda: request.wait(0.1), lambda: asyncio.run(request.wait_async(0.1))):
        with pytest.raises(StateError, match=r"request \d+ within 0\.1 s: .*request key"):
            wait()
    assert "no answer seen" in repr(request)


def test_a_tenants_login_reaches_its_own_studies_alone(make_study: Any, database: Any, artifacts: Any) -> None:
    make_study("zeppelin", tenant="lab")
    make_study("cancer", tenant="mallory")
    administrator = Store(database.url("postgres"))
    made = make_login(administrator, name="mallory", tenants=["mallory"])
    administrator.close()
    url = database.owner.address_of(made.login.login, made.password).replace("+psycopg2", "")
    with easeml.connect(url, artifacts=str(artifacts.root)) as client:
        assert client.studies()["study"].tolist() == ["cancer"]
        for asked in (None, ["cancer"]):
            assert {step.study for step in next_steps(client.store, studies_only=asked)} == {"cancer"}
        assert made.password not in repr(client.study("cancer"))
        with pytest.raises(NotFoundError, match="study 'zeppelin'"):
            client.study("zeppelin")
        with pytest.raises(NotFoundError, match="no model of this"):
            client.study("cancer").gate(99)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((5,), "url must be"),
        (("mysql://me:secret@h/d",), "begins with 'mysql'"),
        (("me:secret@h/d",), "without ://"),
        (("postgresql://me:secret@h:port/d",), "must look like"),
        ((), "EASEML_DATABASE_URL is not set"),
    ],
)
def test_what_is_no_address_is_refused_without_its_password(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(EasemlError, match=re.escape(message)) as caught:
        easeml.connect(*given)
    assert "secret" not in str(caught.value)


REFUSED: tuple[tuple[Callable[[easeml.Study], object], str], ...] = (
    (lambda study: study.submit("gone.skops", message="x"), "format must be given"),
    (lambda study: study.submit("gone.skops", format="skops", message="x"), "gone.skops"),
    (lambda study: study.submit({"a": 1}, message="x"), "a fitted estimator"),
    (lambda study: study.submit(LogisticRegression(), message="x"), "not fitted"),
    (lambda study: study.submit(LogisticRegression(), format="skops", message="x"), "format must be left out"),
    (lambda study: study.gate("7"), "got '7'"),
    (lambda study: study.gate(condition="n >"), "condition: "),
    (lambda study: study.promote(99), "no model 99"),
    (lambda study: study.explain(True), "trial must be"),
    (lambda study: study.predict([]), "in production"),
    (lambda study: study.predict(INPUTS, model="best"), "no trained model"),
)


def test_what_a_study_cannot_do_is_refused(client: easeml.Client, make_study: Any) -> None:
    make_study()
    for call, message in REFUSED:
        with pytest.raises(EasemlError, match=re.escape(message)):
            call(client.study("cancer"))
