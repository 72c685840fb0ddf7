"""Five studies from raw files to production on a whole stack: the DAG files of ``docs/examples/studies`` as they are.

A table, a folder of images, series, numbers to predict, and training functions of one's own. Nobody does anything but
put the files there and let the DAGs run.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
from demo_night.runs import await_dag, follow
from PIL import Image
from sklearn.datasets import load_digits

from easeml_core.services.reports.overview import overview, study_details
from easeml_core.store.database import Store

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples" / "studies"
STUDIES = {
    "table": "customers",
    "images": "digits",
    "series": "machines",
    "regression": "flats",
    "own_function": "mail",
}
TENANTS = {"customers": "sales", "digits": "post", "machines": "plant", "flats": "homes", "mail": "office"}
ROWS = 2000


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def customers(folder, rng):
    """The young who seldom come leave; on the cheapest plan more of them."""
    age, visits = rng.integers(18, 80, ROWS), rng.poisson(6, ROWS)
    spent, plan = rng.gamma(2.0, 30.0, ROWS).round(2), rng.choice(["basic", "plus", "pro"], ROWS)
    chance = 1 / (1 + np.exp(-(3 - 0.05 * age - 0.4 * visits + 1.5 * (plan == "basic"))))
    leaves = np.where(rng.random(ROWS) < chance, "yes", "no")
    rows = zip(age, visits, spent, plan, leaves, strict=True)
    write_csv(folder / "customers.csv", ["age", "visits", "spent", "plan", "leaves"], rows)


def digits(folder, _):
    """Real handwriting (UCI, in scikit-learn), a picture each."""
    found = load_digits()
    for number, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
        path = folder / "digits" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(path)


def machines(folder, rng):
    """The vibration of worn machines grows within twelve minutes; heat only wanders."""
    worn = rng.integers(0, 2, ROWS)
    slope = np.where(worn, 0.12, 0.0)[:, None] * np.arange(12)
    vibration, heat = rng.normal(slope, 0.5), rng.normal(60, 3, (ROWS, 12))
    rows = [
        (machine, minute, f"{vibration[machine, minute]:.4f}", f"{heat[machine, minute]:.3f}", worn[machine])
        for machine in range(ROWS)
        for minute in range(12)
    ]
    write_csv(folder / "machines.csv", ["machine", "minute", "vibration", "heat", "worn"], rows)


def flats(folder, rng):
    """Area and floor decide the price but for noise of 15."""
    area, floor, built = rng.uniform(20, 120, ROWS), rng.integers(0, 12, ROWS), rng.integers(1900, 2020, ROWS)
    price = 2.5 * area + 4 * floor + rng.normal(0, 15, ROWS)
    rows = zip(area.round(1), floor, built, price.round(2), strict=True)
    write_csv(folder / "flats.csv", ["area", "floor", "built", "price"], rows)


def mail(folder, rng):
    """Counts of twelve words, of which three tell."""
    spam = rng.integers(0, 2, ROWS)
    counts = rng.poisson(2.0 + np.outer(spam, [1.5, 1.0, 1.0, *[0.0] * 9]))
    weight = rng.uniform(1, 30, ROWS).round(3)  # of the letter in kB: keeps rows apart
    header = [*(f"word_{k}" for k in range(12)), "kilobytes", "spam"]
    write_csv(folder / "mail.csv", header, [(*row, w, s) for row, w, s in zip(counts, weight, spam, strict=True)])


RAW = {"customers": customers, "digits": digits, "machines": machines, "flats": flats, "mail": mail}


@pytest.fixture(scope="module")
def stack(shared_stack):
    """With the raw files of all five."""
    for number, (study, write) in enumerate(RAW.items()):
        write(shared_stack.places.data / TENANTS[study], np.random.default_rng(number))
    return shared_stack


def story(store, study):
    """What became of the study, in words."""
    details = study_details(store, study=study)
    lines = [f"{study} of {details.summary.tenant}, {details.summary.state}"]
    for trial in details.trials:
        quality = "" if trial.quality is None else f"quality {trial.quality:.4f}, "
        lines.append(f"  {trial.candidate}: {trial.state}, {quality}{trial.failure or ''}")
    return "\n".join(lines)


@pytest.mark.timeout(900)
@pytest.mark.nightly
@pytest.mark.journey
@pytest.mark.parametrize("studies", [("customers", "mail"), ("digits", "machines", "flats")], ids="+".join)
def test_studies_go_from_raw_files_to_production(stack, studies):
    rest, store = stack.access.rest(), Store(stack.access.worker_url)
    runs = {}
    for study in studies:
        await_dag(rest, study, stack.check)
        rest.pause(study, False)  # which begins no run by itself: their timetable never runs a night that is past
        runs[study] = rest.trigger(study)
    for study, run_id in runs.items():
        *_, (state, tasks) = follow(rest, study, run_id, stack.check)
        print(story(store, study))
        failed = [t for t in tasks if t["state"] == "failed"]
        places = [(t["task_id"], t["map_index"]) for t in failed]
        logs = {place: rest.log(study, run_id, place[0], map_index=place[1])[-15:] for place in places}
        assert state == "success", (story(store, study), failed, logs)
    standing = {t.study: t.production_model_id for t in overview(store).tenants}
    for study in studies:
        trials = study_details(store, study=study).trials
        made = [t.candidate for t in trials if t.model_id == standing[study] and t.state == "SUCCEEDED"]
        assert made, f"{study}: {standing[study]}\n{story(store, study)}"
        print(f"{study}: {made[0]} is in production")
    if "mail" in studies:
        mixed = study_details(store, study="mail").trials  # two functions and a kind of easeml, in one mapped task
        ran = {t.candidate.partition("-")[0]: (t.state, t.executor) for t in mixed}
        assert ran == {
            "line": ("SUCCEEDED", "function:line"),
            "tree": ("SUCCEEDED", "function:tree"),
            "bayes": ("SUCCEEDED", "trainer:gaussian_naive_bayes"),
        }
        assert len(mixed) == 5
