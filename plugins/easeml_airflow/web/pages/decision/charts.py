"""The two pictures of a decision: what was believed of the trial before it ran, and what it told while it trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Axis, Band, Dot, Line, Note, Plot, nice_axis
from easeml_airflow.web.server.formats import chance_text, quality_text
from easeml_core.selection.surrogate.logit_normal import chance_above, density

if TYPE_CHECKING:
    from easeml_core.entities import Study
    from easeml_core.services.reports.decision import Chosen, TrialEnding
    from easeml_core.services.reports.study import DecisionFacts


def belief_plot(chosen: Chosen, study: Study, outcome: TrialEnding) -> Plot | None:
    """The density, what of it lies above the best so far, and what was reached; None where there was no doubt."""
    curve = density(chosen.mean, chosen.std)
    if not curve:
        return None
    best, reached = chosen.best, outcome.quality
    ends = [curve[0][0], curve[-1][0], *([best] if best else []), *([reached] if reached is not None else [])]
    x = nice_axis(ends, title=f"{study.metric} on validation data", most=5)
    above = [(place, 0.0, height) for place, height in curve if best and place >= best]
    marks = [(chosen.mean, "ln thin k1"), *([(best, "ln thin dash kf")] if best else [])]
    beside, other = (("end", -8), ("start", 8))[:: 1 if (best or 0.0) > chosen.mean else -1]
    notes = [Note(chosen.mean, 1.0, f"mean {chosen.mean:.4f}", "t", *beside, -4, free=True)]
    if best:
        notes.append(Note(best, 1.2, f"best {best:.4f}", "t", *other, 8, free=True))
    dots = [] if reached is None else [Dot(reached, 0.0, f"it reached {reached:.4f}", "f1")]
    if reached is not None:
        notes.append(Note(reached, 0.0, f"reached {reached:.4f}", "h w", "middle", 0, -10, free=True))
    chance = f", {chance_text(chance_above(best, chosen.mean, chosen.std))} chance to beat it" if best else ""
    sentence = f"Belief before it ran: mean {chosen.mean:.4f}, best so far {quality_text(best or None)}{chance}."
    bands = [Band(above, "a3")] if len(above) > 1 else []
    title = "What was believed about it before it ran"
    y = Axis(0.0, 1.25)
    return Plot(title, sentence, x, y, bands, [Line(curve)], marks, dots, notes, height=190)


def curve_plot(facts: DecisionFacts, chosen: Chosen | None, study: Study) -> Plot | None:
    """Quality over the share of the steps, with the best so far; None where no quality was reported."""
    curve = [(100 * share, quality) for share, quality in facts.trial.learning_curve]
    if not curve:
        return None
    best = (chosen.best if chosen else None) or facts.best_before
    y = nice_axis([q for _, q in curve] + ([best] if best else []), title=study.metric)
    x = nice_axis([0.0, 100.0], title="% of its steps")
    lines = [Line(curve), *([Line([(0.0, best), (100.0, best)], "ln thin dash kf")] if best else [])]
    at, reached = curve[-1]
    title = f"What it told while it trained: {reached:.4f} after {at:.0f} % of its steps"
    note = Note(at, reached, f"{reached:.4f}", "t", "end", -8, 18, free=True)
    sentence = f"Learning curve of trial {facts.trial.trial_id}: {reached:.4f} after {at:.0f} per cent of its steps."
    return Plot(title, sentence, x, y, lines=lines, dots=[Dot(at, reached, f"{reached:.4f}")], notes=[note], height=150)
