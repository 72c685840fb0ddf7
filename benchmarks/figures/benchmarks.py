"""Every figure of ``docs/benchmarks.md`` by name: published results as Markdown, and policies replayed on them."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "at_scale"))

import adversarial_lives
import scale

from figures.blocks import FOLDER, canvas, embedded, table
from figures.commands import ROOT
from figures.selection.losses import PriceFigure, Section
from figures.selection.tables import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from figures.commands import Runner

    Row = Mapping[str, str]

RESULTS = ROOT / "benchmarks" / "results"
BINARY = Source("two-class tables 22 x 8", ("--quality", "binary.csv", "--cost", "binary-cost.csv"))
POLICIES = (
    "default", "mm-gp-ei", "hybrid", "hybrid@0.05", "roundrobin", "random", "fcfs", "cheapest", "clairvoyant",
)  # fmt: skip
COST = "cpu_seconds"
"""Column that the replays pay with: other load on the machine goes into it least."""

PROCESSOR = "processor_seconds"
AT_SCALE, GROWTH = "easeml_night_at_scale", "night-growth.png"
SCALE_CURVES = "scale.png"
LARGER = (10**8,)
"""Arms of 100,000 studies with 1,000 candidates each, which were not run."""

SCALE_WORDS = {
    "cold_seconds": "load of everything, s",
    "resident_mb": "memory of the scheduler, MB",
    "decision_milliseconds": "decision, ms",
    "filled_mb": "database before the first trial, MB",
}

SHORT = {
    "gaussian_naive_bayes": "naive Bayes",
    "logistic_regression": "logistic",
    "linear_svm": "linear SVM",
    "rbf_svm": "RBF SVM",
    "decision_tree": "tree",
    "random_forest": "forest",
    "hist_gradient_boosting": "boosting",
    "multilayer_perceptron": "network",
}
RULES = {
    "none": "no rungs",
    "decide": "the product's",
    "gains": "gains alone",
    "halving": "successive halving",
    "median": "median stopping",
}
SINGLES = {
    "gate_both_new": "gate, both models new",
    "gate_known": "gate, predictions known",
    "meter": "reading of the meter",
}


def rows_of(name: str) -> list[dict[str, str]]:
    """The lines of a file of results."""
    with (RESULTS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def prepare(folder: Path) -> None:
    """Write the matrix as ``easeml simulate`` reads it: ``binary.csv`` and ``binary-cost.csv``."""
    rows = rows_of("binary_tables.csv")
    candidates = list(dict.fromkeys(row["candidate"] for row in rows))
    for name, column in (("binary.csv", "quality"), ("binary-cost.csv", COST)):
        cells = {(row["table"], row["candidate"]): row[column] for row in rows}
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["table", *candidates])
            for key in dict.fromkeys(row["table"] for row in rows):
                writer.writerow([key, *(cells.get((key, candidate), "") for candidate in candidates)])


def referees(_: Runner | None = None) -> str:
    """Answers a second of several referees, and seconds of single answers."""
    rows = rows_of("referee_throughput.csv")
    header = ["referees x workers", "answer delay", "answers a second", "processor ms an answer", "load"]
    body = [
        [f"{row['referees']} x {row['workers']}", f"{float(row['delay']):g} s", f"{float(row['per_second']):.1f}",
         f"{1e3 * float(row['seconds_an_answer']):,.0f}", row["load"]]
        for row in rows if row["kind"] == "round"
    ]  # fmt: skip
    singles = [
        [SINGLES[row["kind"]], f"{1e3 * float(row['wall_seconds']):,.0f}"] for row in rows if row["wall_seconds"]
    ]
    return f"{table(header, body)}\n\n{table(['single answer', 'wall ms'], singles)}"


def sealing(_: Runner | None = None) -> str:
    """Processor milliseconds of a registration, by number of studies before it."""
    figures = ("referee", "database", "all_sources")
    body = [
        [row["tables"], f"{int(row['studies']):,}", *(f"{float(row[name]):,.0f}" for name in figures)]
        for row in rows_of("sealing.csv")
    ]
    return table(["tables", "studies before", "referee ms", "database ms", "look-up in all sources, ms"], body)


def pages(_: Runner | None = None) -> str:
    """Milliseconds of each view, by the numbers of studies and of trials of each."""
    found = rows_of("pages.csv")
    sizes = list(dict.fromkeys((row["studies"], row["trials"]) for row in found))
    cells = {(row["view"], row["studies"], row["trials"]): _page(row) for row in found}
    views = list(dict.fromkeys(row["view"] for row in found))
    body = [[view, *(cells.get((view, *size), "") for size in sizes)] for view in views]
    return table(["view", *(f"{int(studies):,} x {int(trials):,}" for studies, trials in sizes)], body)


def _page(row: Row) -> str:
    median, processor = float(row["median_ms"]), float(row["processor_ms"])
    return f"{median:,.0f} ({processor:,.0f})"


def matrix(_: Runner | None = None) -> str:
    """Quality and seconds of every cell, the best of each table in bold."""
    lines: dict[str, list[Row]] = {}
    for row in rows_of("binary_tables.csv"):
        lines.setdefault(row["table"], []).append(row)
    body = []
    for name, cells in lines.items():
        best = max(float(cell["quality"]) for cell in cells)
        shown = {cell["candidate"]: _cell(cell, best) for cell in cells}
        size = f"{int(cells[0]['rows']):,} x {cells[0]['features']}"
        body.append([name, size, *(shown.get(candidate, "") for candidate in SHORT)])
    return table(["table", "rows x columns", *SHORT.values()], body)


def _cell(cell: Row, best: float) -> str:
    quality = f"{float(cell['quality']):.3f}"
    return f"{f'**{quality}**' if float(cell['quality']) == best else quality} / {float(cell[COST]):.2g}"


def rungs(_: Runner | None = None) -> str:
    """What each rule saved and lost."""
    body = [
        [
            row["rates"],
            "yes" if row["early_stopping"] == "True" else "no",
            RULES[row["rule"]],
            *(f"{float(row[name]):.0%}" for name in ("seconds", "to_close", "stopped")),
            f"{float(row['loss']):.5f}",
            f"{float(row['worst_loss']):.4f}",
            f"{float(row['missed']):.1%}",
        ]
        for row in rows_of("rungs.csv")
    ]
    header = ["rates", "early stopping", "rule", "seconds", "to .01", "stopped", "loss", "worst loss", "never at .01"]
    return table(header, body)


def lives(_: Runner | None = None) -> str:
    """Broken promises of gate and meter, by what the developer does."""
    return adversarial_lives.table_of(adversarial_lives.read_results())


def lines_of(name: str) -> list[dict[str, Any]]:
    """The lines of a file of results in JSON; none where it is missing."""
    path = RESULTS / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def scaled(runner: Runner) -> str:
    """Simulated days by size, the powers that were fitted to them, and what these give for sizes that were not run."""
    rows = sorted(lines_of("scale.jsonl"), key=lambda row: (arms_of(row), row["size"]["devices"]))
    if not rows:
        return "not measured yet"
    header = ["studies x candidates", "devices", "load of everything, s", "decision, ms", "after a study paused, ms"]
    header += ["memory, MB", "database, MB", "bytes a trial", "messages a trial", "trials a second, 4 threads"]
    body = [
        [f"{row['size']['studies']:,} x {row['size']['candidates']:,}", f"{row['size']['devices']:,}",
         f"{row['cold_seconds']:.1f}", f"{row['decision_milliseconds']['median']:.1f}",
         f"{row['changed_milliseconds']['median']:,.0f}", f"{row['resident_mb']:,.0f}", f"{row['filled_mb']:,.0f}",
         f"{row['bytes_a_trial']:,.0f}",
         "" if row["messages_a_trial"] is None else f"{row['messages_a_trial']:.2f}", f"{row['trials_a_second']:.1f}",
         f"{row['waiting']:.2f}", f"{row['load']:.1f}"]
        for row in rows
    ]  # fmt: skip
    fits = scale.fitted(rows, LARGER)
    figure, axes = canvas(panels=len(fits))
    grid = [10**exponent for exponent in range(4, 9)]
    for axis, fit, curve in zip(axes, fits, scale.fitted(rows, grid), strict=True):
        values = [row[fit.measure] for row in rows]
        heights = [value["median"] if isinstance(value, dict) else value for value in values]
        axis.plot([arms_of(row) for row in rows], heights, "o")
        axis.plot(list(curve.at), list(curve.at.values()), linestyle="--", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel="arms", ylabel=SCALE_WORDS[fit.measure])
    figure.savefig(runner.folder / FOLDER / SCALE_CURVES)
    laws = [
        [SCALE_WORDS[fit.measure], f"{fit.base:,.3g} + {fit.factor:.2g} arms^{fit.power:.2f}",
         f"{100 * math.expm1(fit.largest_error):.0f}%", *(f"{fit.at[number]:,.3g}" for number in LARGER)]
        for fit in fits
    ]  # fmt: skip
    return "\n\n".join(
        [
            table([*header, "waiting for a lock", "machine's load"], body),
            table(["measure", "fitted", "largest error", *(f"at {number:,} arms" for number in LARGER)], laws),
            embedded(SCALE_CURVES, "Load, memory, decision and database by number of arms, measured and fitted"),
        ]
    )


def arms_of(row: Mapping[str, Any]) -> int:
    """Studies times candidates."""
    return int(row["size"]["studies"]) * int(row["size"]["candidates"])


FIGURES: Mapping[str, Callable[[Runner], str]] = {
    "binary-matrix": matrix,
    "pages": pages,
    "referees": referees,
    "sealing": sealing,
    "binary-policies": PriceFigure((Section("", BINARY, POLICIES),), worst=True, commands=1),
    "rungs": rungs,
    "lives": lives,
    "scale": scaled,
}
"""Name of the block in the page, and what makes it."""
