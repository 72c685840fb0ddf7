"""Chapter 3: a developer submits models one by one; badge and gauge move without a reload of the page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import skops.io
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from stack.failures import LifecycleError

from easeml_core.data.parts import load_open_parts
from easeml_core.store.tables import studies
from lifecycle import published
from lifecycle.newcomer import ANSWERS
from lifecycle.stage import NEWCOMER

if TYPE_CHECKING:
    from lifecycle.published import Published
    from lifecycle.stage import Stage
    from lifecycle.story import Chapter
    from lifecycle.window import Window


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


TITLE = "A developer hands in models, one by one"
GAUGE = "p.now"
_OPTION = re.compile(r"(?P<called>.*), model (?P<id>\d+): (?P<quality>[\d.]+)")


@dataclass(frozen=True, slots=True)
class Offered:
    """A model that the page offers to hand in."""

    model_id: int
    called: str
    quality: float


def play(stage: Stage, chapter: Chapter) -> None:
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
    brought = published.bring(stage, found)
    window.go(f"/studies/{published.STUDY}{stage.ending}/submissions")
    old, new = found.sizes
    chapter.tell(
        f"{NEWCOMER} hands in what published models said of CIFAR-10, one by one; validation and gate have its "
        f"{old:,} test images, the meter the {new:,} of CIFAR-10.1. Shall pass: {published.GATE['condition']}."
    )
    window.mark()
    for handed in brought:
        model = Offered(handed["model_id"], handed["called"], handed["validation_quality"])
        answer = hand_in(window, model)
        gauge = window.text(GAUGE)
        chapter.tell(f"{model.called} with {model.quality:.4f} on the validation data: {answer}; “{gauge}”")
    window.require_mark()
    chapter.keep(window.picture("3-published-models"))
    published.rest(stage)


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
