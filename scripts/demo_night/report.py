"""The report of a night as a table and as JSON, and the check that no candidate ran twice on the same data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.table import Table
from stack.failures import NightError

from demo_night.retraining import BASELINE
from easeml_core.entities import TrialState
from easeml_core.formats.encoding import to_json
from easeml_core.services.reports.overview import overview, study_details

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from demo_night.retraining import Night, Worse
    from demo_night.runs import Release
    from easeml_core.services.reports.overview import StudyEntry
    from easeml_core.store.database import Store
    from easeml_core.store.tables.trials import TrialEntry

ENDED = (TrialState.SUCCEEDED, TrialState.FAILED, TrialState.CANCELLED)
Trials: TypeAlias = "Mapping[str, Sequence[TrialEntry]]"


def trials_of_all(store: Store) -> Trials:
    """Study name to its trials."""
    names = [entry.study for entry in overview(store).tenants]
    return {name: study_details(store, study=name).trials for name in names}


def ended_trials(trials: Trials) -> set[int]:
    """Ids of the trials that have ended."""
    return {t.trial_id for listed in trials.values() for t in listed if t.state in ENDED}


def repeated(trials: Trials) -> list[str]:
    """Every (study, candidate, data version) that has more than one trial, in words."""
    counted = Counter((study, t.candidate, t.data_version_id) for study, listed in trials.items() for t in listed)
    return [
        f"{study}: {candidate} ran {n} times on data version {v}"
        for (study, candidate, v), n in counted.items()
        if n > 1
    ]


def require_nothing_repeated(before: set[int], suggested: Iterable[Mapping[str, Any]], after: Trials) -> None:
    """Compare a night with what had ended before it.

    Args:
        before: Ids of the trials that had ended when the night began.
        suggested: What the night suggested.
        after: All trials after the night.

    Raises:
        NightError: If a candidate ran again on the same data, or a suggested trial has not ended.
    """
    given = [int(s["trial_id"]) for s in suggested]
    again = [f"trial {i} had ended before this night" for i in sorted(set(given) & before)]
    twice = [f"trial {i} was given {n} times" for i, n in Counter(given).items() if n > 1]
    open_still = [f"trial {i} has not ended" for i in sorted(set(given) - ended_trials(after))]
    if wrong := again + twice + open_still + repeated(after):
        message = "; ".join(wrong)
        raise NightError(message)


VERDICTS = {"pass": "[green]pass[/]", "fail": "[red]fail[/]", "withheld": "withheld", None: "[dim]not asked[/]"}


@dataclass(frozen=True, slots=True)
class Report:
    """One run of the demo.

    Attributes:
        night: What the night did.
        tenants: The overview after it.
        worse: The deliberately worse model, if one was handed in.
        rejection: What became of it.
        seconds: How long all of it took.
        url: Where Airflow is.
    """

    night: Night
    tenants: Sequence[StudyEntry]
    worse: Worse | None
    rejection: Release | None
    seconds: float
    url: str

    def trained(self) -> Counter[str]:
        """Trials of this night by study."""
        return Counter(str(s["study"]) for s in self.night.suggested)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        tonight = self.trained()
        return {
            "night": asdict(self.night),
            "tenants": [to_json(e) | {"trials_tonight": tonight[e.study]} for e in self.tenants],
            "handed_in": None if self.worse is None else asdict(self.worse),
            "rejection": None if self.rejection is None else asdict(self.rejection),
            "seconds": round(self.seconds, 1),
            "url": self.url,
        }


def print_report(report: Report, console: Console) -> None:
    """Print the table of tenants and the sentences around it."""
    night = report.night
    console.print()
    console.print(_table(report))
    if night.suggested:
        console.print(f"Night {night.number} ran {len(night.suggested)} trials, chosen by policy [b]{night.policy}[/].")
        console.print(f"The first of its reasons: {night.suggested[0]['reason']}", markup=False)
    else:
        console.print(f"Night {night.number} trained nothing: {night.message}", markup=False)
    for release in night.released:
        console.print(_sentence(release))
    if report.worse is not None and report.rejection is not None:
        console.print(_rejection(report.worse, report.rejection))


def _table(report: Report) -> Table:
    tonight = report.trained()
    verdicts = {release.study: release.symbol for release in report.night.released}
    table = Table(title=f"After night {report.night.number}", title_justify="left", header_style="bold")
    for heading in ("tenant", "study"):
        table.add_column(heading)
    for heading in ("trials tonight", "in all", "best quality", "device s"):
        table.add_column(heading, justify="right")
    for heading in ("best candidate", "gate tonight", "meter", "in production"):
        table.add_column(heading)
    for e in report.tenants:
        table.add_row(
            e.tenant,
            e.study,
            str(tonight[e.study]),
            f"{e.trials}/{e.candidates}",
            "-" if e.best_quality is None else f"{e.best_quality:.4f}",
            f"{e.device_seconds:.1f}",
            e.best_candidate or "-",
            VERDICTS[verdicts.get(e.study)],
            _signal(e),
            e.production_candidate or "[dim]baseline[/]",
        )
    return table


def _signal(entry: StudyEntry) -> str:
    if entry.signal is None:
        return "retired" if entry.meter_retired else "-"
    return f"{entry.signal} of {entry.signals}" + (" [red]alert[/]" if entry.open_alerts else "")


def _sentence(release: Release) -> str:
    what = {"pass": "passed the gate", "fail": "did not pass the gate", "withheld": "was judged in secret"}
    end = " and is in production now" if release.promoted else ""
    return f"  {release.study}: model {release.model_id} {what[release.symbol]}{end} [dim]({release.message})[/]"


def _called(origin: str) -> str:
    return f"the {BASELINE}" if origin == BASELINE else origin


def _rejection(worse: Worse, rejection: Release) -> str:
    return (
        f"Handed in on purpose: {_called(worse.candidate)} (quality {worse.quality:.4f}) for {worse.study}, where "
        f"{worse.standing} ({worse.standing_quality:.4f}) stands.\n"
        f"  The gate asks for `{worse.condition}` and answered [red]{rejection.symbol}[/] ({rejection.message}); "
        "its promotion never ran."
    )
