"""The five chapters of the life of a study, each played through the pages of a running stack."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import skops.io
from demo_night.registration import await_answers
from demo_night.runs import await_dag, follow
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from stack.failures import LifecycleError

from easeml_core.data.parts import load_open_parts
from easeml_core.entities import TrialState
from easeml_core.gate.attack import CONDITION, DELTA, STEPS, Attack, false_answers
from easeml_core.services.registration.register import register_study
from easeml_core.services.reports.overview import study_details
from easeml_core.store.tables import studies
from lifecycle.material import PHOTOS, PHOTOS_GATE, bring_published, pause_published
from lifecycle.stage import NEWCOMER, OPERATOR, REFEREE, TENANT

if TYPE_CHECKING:
    from easeml_core.store.tables.trials import TrialEntry
    from lifecycle.material import Published
    from lifecycle.stage import Chapter, Stage
    from lifecycle.window import Window


ANSWERS = 4
"""Of the gate's set: so many models may be handed in before it is spent."""

DIGITS_CONDITION = "n > 0.9 +/- 0.1"
WISHES = {
    "d-condition": DIGITS_CONDITION,
    "d-gate_steps": str(ANSWERS),
    "d-gate_reliability": "0.9",
    "d-ranges": "0.2, 0.6",
    "d-meter_tolerance": "0.1",
    "d-meter_steps": str(2 * ANSWERS),
    "d-meter_reliability": "0.9",
}


def bring_a_study(stage: Stage, chapter: Chapter) -> None:
    """Upload, look, set, register, and wait until the referee has sealed the sets."""
    window = stage.window(NEWCOMER)
    window.go("/new")
    window.fill({"n-tenant": TENANT, "n-study": stage.study})
    window.page.set_input_files("#n-file", stage.digits.write_table(stage.folder / "digits.csv"))
    chapter.keep(window.picture("1a-bring-data"))
    window.press("text=Look at the data", "the button that looks at the data")
    seen = window.text("main:has(#d-condition) p.now")
    candidates = window.texts("#program-match .chips li:not(.off)")
    window.fill(WISHES)
    window.await_seen(f"#condition-check .code:has-text('{DIGITS_CONDITION}')", "the condition, read by the server")
    window.await_seen("#parts-check tr:has-text('gate') >> text=/[0-9]/", "the sizes of the sealed parts")
    parts = dict(text.rsplit(" ", 1) for text in window.texts("#parts-check tbody tr"))
    chapter.keep(window.picture("1b-program-and-settings"))
    window.press("text=Register the study", "the button that registers")
    window.await_anew("dt:has-text('Training examples')", "the study's data, once the referee has sealed its sets")
    chapter.keep(window.picture("1c-registered"))
    sizes = ", ".join(f"{name.strip()} {rows}" for name, rows in parts.items())
    chapter.tell(f"{NEWCOMER} of {TENANT} uploads digits.csv and reads: “{seen}”")
    chapter.tell(f"The inferred program brings {len(candidates)} candidates, from {candidates[0]} to {candidates[-1]}.")
    chapter.tell(f"A model shall pass where {DIGITS_CONDITION}, {ANSWERS} times at most.")
    chapter.tell(f"The rows are divided: {sizes}; only the referee reads the sealed rows from now on.")


STREAM_DAG = "easeml_stream"
TRIALS_A_DEVICE = 6
ENOUGH, MOST_RUNS = 4, 4
"""Trials that the newcomer's study needs for what comes later; where studies of earlier plays compete, one run of the
DAG may be too few."""

LOOKED_AT = 8
"""Decisions that are opened at most, to find one whose runner-up is another study's."""

KINDS = ("nearest_centroid", "gaussian_naive_bayes", "logistic_regression")
OTHERS = (("clinic", "tumour", "sklearn:breast_cancer"), ("cellar", "wine", "sklearn:wine"))
GATE = {"condition": "n > 0.7 +/- 0.2", "reliability": 0.9, "steps": 4}
METER = {"ranges": [0.4], "tolerance": 0.25, "reliability": 0.9, "steps": 4}
RUNNER_UP = "dt:has-text('Runner-up')"


def register_others(stage: Stage) -> None:
    """Let two more tenants be there, before the newcomer comes.

    Raises:
        LifecycleError: The stack fell ill, or a study was refused.
    """
    requests = {}
    for tenant, name, source in OTHERS:
        study = f"{name}{stage.ending}"
        wish: dict[str, Any] = {"tenant": tenant, "study": study, "source": source, "gate": GATE, "meter": METER}
        candidates = [{"name": kind, "kind": kind} for kind in KINDS]
        filed = register_study(stage.store, **wish, candidates=candidates, request_key=f"lifecycle/{study}")
        requests[study] = filed.request_id
    await_answers(stage.store, requests, stage.check, lambda _: None)


def compete(stage: Stage, chapter: Chapter) -> None:
    """Let two devices train, watch, and open a decision."""
    window = stage.window(OPERATOR)
    chapter.tell(f"Airflow runs {STREAM_DAG}: two devices, at most {TRIALS_A_DEVICE} trials each, over all tenants.")
    for _ in range(MOST_RUNS):
        run_id = _train(stage, chapter, window)
        if len(_ended(stage, stage.study)) >= ENOUGH:
            break
    else:
        message = f"{stage.study} has fewer than {ENOUGH} trials after {MOST_RUNS} runs of {STREAM_DAG}"
        raise LifecycleError(message)
    window.go("/")
    chapter.keep(window.picture("2b-after-training"))
    window.go_airflow(f"/dags/{STREAM_DAG}/runs/{run_id}")
    window.await_seen("text=run_device", "the run's tasks in Airflow")
    chapter.keep(window.picture("2c-run-in-airflow"))
    for tenant, name, _ in (("school", "digits", ""), *OTHERS):
        trials = _ended(stage, f"{name}{stage.ending}")
        best = max((t.quality for t in trials if t.quality is not None), default=None)
        reached = "none has ended" if best is None else f"best quality {best:.4f}"
        chapter.tell(f"{tenant} {name}: {len(trials)} trials, {reached}.")
    window.go(stage.path)
    window.await_seen("table.trials tbody tr", "the study's trials")
    chapter.keep(window.picture("2d-study"))
    _explain(stage, chapter, window)


def _train(stage: Stage, chapter: Chapter, window: Window) -> str:
    rest = stage.access.rest()
    await_dag(rest, STREAM_DAG, stage.check)
    rest.pause(STREAM_DAG, False)
    run_id = rest.trigger(STREAM_DAG, {"devices": ["cpu", "cpu"], "max_trials": TRIALS_A_DEVICE})
    if not chapter.pictures:
        window.go("/")
        window.await_seen("td.t .busy", "a trial that runs, on the overview")
        chapter.keep(window.picture("2a-competition"))
    *_, (state, _) = follow(rest, STREAM_DAG, run_id, stage.check)
    if state != "success":
        message = f"run {run_id} of {STREAM_DAG} ended as {state}; its logs are in {stage.places.task_logs}"
        raise LifecycleError(message)
    return run_id


def _ended(stage: Stage, study: str) -> list[TrialEntry]:
    return [t for t in study_details(stage.store, study=study).trials if t.state == TrialState.SUCCEEDED]


def _explain(stage: Stage, chapter: Chapter, window: Window) -> None:
    """Open the newest decision whose runner-up is another study's, else the newest that had a runner-up."""
    pages: dict[bool, str] = {}
    for trial in sorted(_ended(stage, stage.study), key=lambda t: -t.trial_id)[:LOOKED_AT]:
        window.go(f"{stage.path}/decisions/{trial.trial_id}")
        window.await_seen("p.now", "the reason of the decision")
        if found := window.texts(RUNNER_UP):
            pages.setdefault(stage.study not in found[0], window.page.url)
    if not pages:
        message = f"none of the newest {LOOKED_AT} decisions of {stage.study} had a runner-up"
        raise LifecycleError(message)
    window.go(pages[max(pages)].partition("/easeml")[2])
    chapter.keep(window.picture("2e-decision"))
    chapter.tell(f"Why one of them ran: “{window.text('p.now')}”")


MESSAGE = "a tree, tuned until the validation data showed no error"


def hand_in_overfitted(stage: Stage) -> tuple[int, float]:
    """Hand it in as any own model, by ``easeml submit``; its number and validation quality."""
    with stage.store.begin() as tx:
        study = studies.get_study(tx, stage.study)
        version = studies.latest_data_version(tx, study.id)
    with stage.artifacts.of_tenant(study.tenant).copy(version.artifact) as path:
        parts = load_open_parts(path)
    tree = make_pipeline(DecisionTreeClassifier(splitter="random", max_features=1, random_state=0))
    tree.fit(parts.validation_inputs, parts.validation_labels)
    file = stage.folder / "tree.skops"
    skops.io.dump(tree, file)
    words = ("submit", str(file), "--study", stage.study, "--format", "skops", "-m", MESSAGE, "--no-gate", "--json")
    handed = json.loads(stage.easeml(*words))
    return int(handed["model_id"]), float(handed["validation_quality"])


GAUGE = "p.now"
_OPTION = re.compile(r"(?P<called>.*), model (?P<id>\d+): (?P<quality>[\d.]+)")


@dataclass(frozen=True, slots=True)
class Offered:
    """A model that the page offers to hand in."""

    model_id: int
    called: str
    quality: float


def develop(stage: Stage, chapter: Chapter) -> None:
    """Published models where they are at hand; what was trained; and then one that was tuned on the validation data."""
    window = stage.window(NEWCOMER)
    if stage.published is not None:
        _hand_in_published(stage, chapter, window, stage.published)
    window.go(f"{stage.path}/submissions")
    for model in rising(offered(window), ANSWERS - 1):
        window.mark()
        chapter.tell(f"{model.called} with {model.quality:.4f} on the validation data: {hand_in(window, model)}.")
        window.require_mark()
    chapter.keep(window.picture("3a-honest-models"))
    model_id, quality = hand_in_overfitted(stage)
    window.go(f"{stage.path}/submissions")
    overfitted = Offered(model_id, "a tree that was fitted to the validation data", quality)
    chapter.tell(f"Then {overfitted.called}, with {quality:.4f} there: {hand_in(window, overfitted)}.")
    chapter.keep(window.picture("3b-overfitted-model"))
    chapter.tell(f"The gauge says: “{window.text(GAUGE)}”")


def _hand_in_published(stage: Stage, chapter: Chapter, window: Window, found: Published) -> None:
    """Models of CIFAR-10, the oldest first: the badge turns when one is good enough, the gauge with how it holds up."""
    brought = bring_published(stage, found)
    window.go(f"/studies/{PHOTOS}{stage.ending}/submissions")
    old, new = found.sizes
    chapter.tell(
        f"{NEWCOMER} hands in what published models said of CIFAR-10, one by one; validation and gate have its "
        f"{old:,} test images, the meter the {new:,} of CIFAR-10.1. Shall pass: {PHOTOS_GATE['condition']}."
    )
    window.mark()
    for handed in brought:
        model = Offered(handed["model_id"], handed["called"], handed["validation_quality"])
        answer = hand_in(window, model)
        gauge = window.text(GAUGE)
        chapter.tell(f"{model.called} with {model.quality:.4f} on the validation data: {answer}; “{gauge}”")
    window.require_mark()
    chapter.keep(window.picture("3-published-models"))
    pause_published(stage)


def offered(window: Window) -> list[Offered]:
    """What the page's form offers, the worst first.

    Raises:
        LifecycleError: It offers nothing that can be read.
    """
    window.await_seen("[data-open=d-submit]", "the button to submit a model")
    options = window.page.locator("#submit-model option").all_text_contents()
    read = [found for text in options if (found := _OPTION.search(text))]
    models = [Offered(int(m["id"]), m["called"].strip(), float(m["quality"])) for m in read]
    if not models:
        message = f"{window.page.url} offers no model to hand in, but {options}"
        raise LifecycleError(message)
    return sorted(models, key=lambda m: m.quality)


def hand_in(window: Window, model: Offered, *, meter: bool = True) -> str:
    """Submit a model through the page's form, and wait for its symbol and signal; both in words."""
    window.press("[data-open=d-submit]", "the button to submit a model")
    window.page.select_option("#submit-model", str(model.model_id))
    if not meter:
        window.page.uncheck("#d-submit input[name=meter]")
    window.press("#d-submit button.primary", "the button that submits")
    row = f"table.cards tbody tr:has-text('model {model.model_id},')"
    symbol = window.text(f"{row} >> td[data-l=Gate] :is(.st.ok, .st.bad)", f"the symbol of {model}").lower()
    if not meter:
        return symbol
    window.await_seen(f"{row} >> .sig", f"the signal of {model}")
    return f"{symbol}, signal {window.text(f'{row} >> td[data-l=Meter]')}"


def rising(models: list[Offered], count: int) -> list[Offered]:
    """So many of them, evenly from the worst to the best.

    Raises:
        LifecycleError: There are fewer.
    """
    if len(models) < count:
        message = f"{count} models are to be handed in, but {len(models)} were trained"
        raise LifecycleError(message)
    return [models[round(k * (len(models) - 1) / (count - 1))] for k in range(count)]


RUNS = 60
POWER = "td[data-l='Exact, power 0.9']"


def attack_sets(stage: Stage, chapter: Chapter) -> None:
    """Read both sizes from the planner, and attack sets of both.

    Raises:
        LifecycleError: The attack on the small set fails, or that on the planned one does not.
    """
    window = stage.window(REFEREE)
    window.go(f"{stage.path}/gate")
    plan(window, CONDITION, steps=STEPS, reliability=1 - DELTA)
    small, planned = _size(window, "none"), _size(window, "full")
    chapter.keep(window.picture("4a-planner"))
    fooled, held = _attacked(small, "none", counted=False), _attacked(planned, "full", counted=True)
    chapter.tell(f"A model shall pass where {CONDITION}; no model is better than a coin, 0.5.")
    chapter.tell(
        f"A set of {small:,} examples suffices for {STEPS} models of a developer who learns nothing. A developer who "
        f"learns pass or fail each time, and hands in what the answers teach, made a coin pass on {fooled} of {RUNS} "
        "such sets."
    )
    chapter.tell(
        f"The planner asks for {planned:,} examples where pass or fail is released each time, and the gate then counts "
        f"what can have been learnt: the same attack got through on {held} of {RUNS}."
    )
    if fooled < RUNS / 4 or held > DELTA * RUNS:
        message = f"the attack got through on {fooled} of {RUNS} small sets and {held} of {RUNS} planned ones"
        raise LifecycleError(message)


def plan(window: Window, condition: str, *, steps: int, reliability: float) -> None:
    """Type a condition into the planner, move its sliders, and wait for the numbers."""
    window.await_seen("#plan-form", "the planner")
    _slide(window, "p-steps", steps)
    _slide(window, "p-reliability", reliability)
    window.page.check("#plan-form input[name=power][value='0.9']", force=True)
    window.fill({"p-condition": condition})
    window.await_seen(f"#p-commands:has-text('--steps {steps} '):has-text('{condition}')", "the plan of what was typed")
    window.await_seen("#p-result:not([data-again])", "the numbers of the whole plan")


def _slide(window: Window, field: str, value: float) -> None:
    """Move a slider to a value, as a hand would: held, it keeps the page from being put anew with the old values."""
    window.page.locator(f"#{field}").evaluate(
        """(slider, value) => {
            slider.focus();
            slider.value = slider.dataset.stops.split(" ").findIndex((stop) => Number(stop) === value);
            for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));
        }""",
        value,
    )


def _size(window: Window, adaptivity: str) -> int:
    row = f"#p-result tbody tr:has(input[value='{adaptivity}'])"
    return int(window.text(f"{row} >> {POWER}").replace(",", ""))


def _attacked(examples: int, adaptivity: str, *, counted: bool) -> int:
    """On how many of RUNS sets of this size the attack makes a coin pass; always the same number."""
    rng = np.random.default_rng(examples)
    return int(false_answers(rng, Attack(), adaptivity, runs=RUNS, counted=counted, examples=examples).sum())


NAME, RENEWED_STEPS = "autumn", 8
TOO_FEW = 20
SETS = "section:has(#sets-h)"


def renew(stage: Stage, chapter: Chapter) -> None:
    """Alarm, release, validation, plan, seal, and the first verdict of the new set."""
    window = stage.window(REFEREE)
    _hear_the_alarm(stage, chapter, window)
    _release(stage, chapter, window)
    _seal(stage, chapter, window)
    developer = stage.window(NEWCOMER)
    developer.go(f"{stage.path}/submissions")
    best = offered(developer)[-1]
    chapter.tell(f"The new cycle's first answer, for {best.called}: {hand_in(developer, best)}.")
    chapter.keep(developer.picture("5g-first-answer"))
    window.go(f"{stage.path}/lifecycle")
    chapter.keep(window.picture("5h-lifecycle"))


def _hear_the_alarm(stage: Stage, chapter: Chapter, window: Window) -> None:
    window.go("/")
    alarm = f"#needs li:has-text('{stage.study}:')"
    window.await_seen(alarm, "the alarm about the study")
    announced = window.texts(f"{alarm} b")
    chapter.keep(window.picture("5a-alarm"))
    window.go(f"{stage.path}/gate")
    window.await_seen(f"{SETS} .is:has-text('retired')", "the spent set, retired")
    chapter.keep(window.picture("5b-spent"))
    chapter.tell("The last answer spent the gate set, and the meter saw the tuned tree.")
    chapter.tell(f"The overview shows: {'; '.join(announced)}. The gate says: “{window.text('p.now')}”")


def _release(stage: Stage, chapter: Chapter, window: Window) -> None:
    """Release the used-up gate set, and validate on it."""
    window.go(f"{stage.path}/data")
    row = f"{SETS} tbody tr:has(small:text-is('gate'))"
    spent = window.text(f"{row} >> th span")
    chapter.keep(window.picture("5c-data"))
    window.press(f"{row} >> button:text-is('Release')", "the button that releases the spent gate set")
    window.press("dialog[open] button.danger", "the button that confirms the release")
    window.press(f"{row} >> button:text-is('Validate on it')", "the button that makes a released set validation data")
    window.press("dialog[open] button.primary", "the button that confirms the new validation set")
    version = window.await_seen("#val-h:has-text('version 2')", "the second validation set").inner_text()
    chapter.keep(window.picture("5d-released"))
    chapter.tell(
        f"The referee releases set {spent.split()[0]}; it is “{version}” now, and models are measured anew on it."
    )


def _seal(stage: Stage, chapter: Chapter, window: Window) -> None:
    """Plan a set on the gate page, and seal new examples under its name; too few are refused."""
    window.go(f"{stage.path}/gate")
    plan(window, DIGITS_CONDITION, steps=RENEWED_STEPS, reliability=0.9)
    chapter.keep(window.picture("5e-plan"))
    title = window.text("#p-result h2")
    window.press("[data-open=d-plan]", "the button that plans the set")
    window.fill({"plan-name": NAME})
    window.press("#d-plan button.primary", "the button that confirms the plan")
    window.await_seen(f"{SETS} tr:has-text('{NAME}')", "the planned set")
    refused = _sealed(stage, "few", TOO_FEW, fails=True)
    _sealed(stage, "new", stage.digits.held_back)
    window.await_seen(f"{SETS} tr:has-text('{NAME}') .is:has-text('live')", "the new set, live")
    chapter.keep(window.picture("5f-sealed"))
    chapter.tell(f"The next set is planned as {NAME}: {title}.")
    chapter.tell(f"{TOO_FEW} rows are refused: “{refused.removeprefix('easeml: ')}”")
    chapter.tell(f"All {stage.digits.held_back} rows that came since are sealed under its name, and the set is live.")


def _sealed(stage: Stage, file: str, rows: int, *, fails: bool = False) -> str:
    inputs, labels = stage.digits.write_examples(stage.folder, file, rows)
    words = ("--study", stage.study, "--name", NAME, "--inputs", str(inputs), "--labels", str(labels))
    return stage.easeml("test-set", "seal", *words, role="easeml_referee", fails=fails)


CHAPTERS = (
    ("A newcomer submits a study", bring_a_study),
    ("Tenants compete for two devices", compete),
    ("A developer hands in models, one by one", develop),
    ("A set that is too small is learnt by heart", attack_sets),
    ("The set is spent, and a new cycle begins", renew),
)
"""Title and function of each."""
