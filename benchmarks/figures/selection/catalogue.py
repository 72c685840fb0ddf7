"""Every figure of ``docs/selection.md`` by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.config import PUBLISHED
from figures.pictures import Picture
from figures.selection.losses import PriceFigure, Section
from figures.selection.tables import CLASSIFIER, CLASSIFIER_UNIT, DEEPLEARNING, TABZILLA_18, TABZILLA_35, synthetic
from figures.selection.trade_offs import ablation, bench, come_and_go, cost_error, devices, fairness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from figures.commands import Runner

SYN = ("SYN(0.01,0.1)", "SYN(0.01,1.0)", "SYN(0.5,0.1)", "SYN(0.5,1.0)")
BETAS = ("hybrid", "hybrid@0.05", "hybrid@0.01")
ORDERS = ("order:mostcited.txt", "order:mostrecent.txt")
RIVALS = ("default", *BETAS, "roundrobin", "random")
COST_AWARE = (*RIVALS, "mm-gp-ei", "cheapest", "clairvoyant")
COLD = ("default", "default:cold_start=false", "hybrid", "mm-gp-ei", "cheapest", "clairvoyant")

DEEP = Section(
    "",
    DEEPLEARNING,
    (*RIVALS, "fcfs", "mm-gp-ei", "cheapest", *ORDERS, "backtested", "clairvoyant"),
    aims={"0.02": 0.75, "0.01": 2.8},
)
PUBLISHED_ALL = Section("", DEEPLEARNING, tuple(name for name in PUBLISHED if name != "order"))
U01 = Section("", CLASSIFIER, COST_AWARE, {"until": 20}, {"0.02": 1.0, "0.01": 5.0})
UNIT = Section("", CLASSIFIER_UNIT, (*RIVALS, "mm-gp-ei", "clairvoyant"), {"until": 30})
SHRUNK = ("hybrid:pseudo_studies=5", "mm-gp-ei:kernel=squared-exponential")
TABZILLA = tuple(
    Section(f"{source.title[-2:]} candidates", source, (*COST_AWARE[:-2], *SHRUNK, *COST_AWARE[-2:]), {}, aims)
    for source, aims in ((TABZILLA_18, {"0.02": 0.027, "0.01": 0.11}), (TABZILLA_35, {"0.02": 0.026, "0.01": 0.17}))
)
HISTORY = tuple(
    Section(f"{source.title}, {past} past", source, ("default", "roundrobin", "hybrid"), {"history": past})
    for source in (DEEPLEARNING, TABZILLA_18, TABZILLA_35)
    for past in (3, 5, 10)
)
CLASSIFIER_HISTORY = tuple(
    Section(f"{past} past", CLASSIFIER, ("default", "roundrobin", "hybrid"), {"history": past, "until": 20})
    for past in (3, 5, 10)
)
SYNTHETIC = tuple(
    Section(f"{name}, {label}", synthetic(name), ("default", "roundrobin", "random", "clairvoyant"), options)
    for name in SYN
    for label, options in (("unit", {"cost_mode": "unit"}), ("U(0,1)", {}))
)
COLD_START = (
    Section("none", TABZILLA_18, COLD, {"served": 50, "history": 0}),
    Section("54 tenants", TABZILLA_18, ("default", "hybrid"), {"served": 50}),
)
COSTS = tuple(
    Section(
        f"{source.title[-2:]} candidates, {label}",
        source,
        policies,
        options,
        base=f"{source.title[-2:]} candidates, known" if label == "predicted" else "",
    )
    for source in (TABZILLA_18, TABZILLA_35)
    for label, policies, options in (
        ("known", ("default", "hybrid"), {}),
        ("predicted", ("default", "hybrid"), {"cost_mode": "predicted"}),
        ("ignored", ("default:cost_aware=false", "hybrid:cost_aware=false"), {}),
        ("unit: percent of the trials", ("default", "hybrid"), {"cost_mode": "unit"}),
    )
)

FIGURES: Mapping[str, Callable[[Runner], str]] = {
    "deeplearning": PriceFigure((DEEP,), worst=True),
    "deeplearning-picture": Picture(
        "losses-deeplearning.png", DEEPLEARNING, ("default", "hybrid", "random", *ORDERS, "clairvoyant")
    ),
    "published": PriceFigure((PUBLISHED_ALL,), losses=("0.05", "0.02", "0.01"), against="hybrid", worst=True),
    "classifier": PriceFigure((U01,), seeds=2),
    "classifier-unit": PriceFigure((UNIT,), seeds=2),
    "tabzilla": PriceFigure(TABZILLA, losses=("0.02", "0.01")),
    "tabzilla-picture": Picture(
        "losses-tabzilla.png",
        TABZILLA_18,
        ("default", "hybrid", "roundrobin", "cheapest", "clairvoyant"),
    ),
    "history": PriceFigure(HISTORY, seeds=3, losses=("0.02", "0.01"), against="roundrobin", commands=1),
    "history-classifier": PriceFigure(
        CLASSIFIER_HISTORY, seeds=1, losses=("0.02", "0.01"), against="roundrobin", commands=1
    ),
    "synthetic": PriceFigure(SYNTHETIC, losses=("0.05", "0.02"), commands=2),
    "cold-start": PriceFigure(COLD_START, seeds=3),
    "devices": devices,
    "come-and-go": come_and_go,
    "costs": PriceFigure(COSTS, seeds=3, losses=("0.02", "0.01"), against=None, commands=4),
    "cost-error": cost_error,
    "ablation": ablation((DEEPLEARNING, TABZILLA_18, TABZILLA_35), seeds=3),
    "ablation-classifier": ablation((CLASSIFIER, CLASSIFIER_UNIT), seeds=1),
    "fairness-guard": fairness("guard"),
    "fairness-objective": fairness("objective"),
    "bench": bench,
}
"""Name of the block in the page, and what makes it."""
