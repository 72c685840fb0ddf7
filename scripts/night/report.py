"""What happened, for a person as a table, for a program as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from easeml_core.encoding import to_json
from night.worse_model import BASELINE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from easeml_core.services.reports.overview import StudyEntry
    from night.retraining import Night
    from night.runs import Release
    from night.worse_model import Worse

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
