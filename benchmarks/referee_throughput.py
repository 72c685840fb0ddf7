"""How many answers a second referees give, and what one answer costs: tiny models, one database, real processes.

Each round files one gate request a study, about a model that never ran, at 1, 2 and 4 referees in turn; the wrapper of
``predict_in_child`` notes what is really run, so that a run that was made twice is seen. With ``--answer-delay`` above
0 an answer counts when it is decided: it leaves later, at its fixed time. Then single answers at one referee: gate with
both models new, gate with known predictions, and a reading of the meter. Wall and processor seconds; the latter are
those of the referees with their children, and of the database.

    python benchmarks/referee_throughput.py --studies 48 --answer-delay 0 60 --save
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from installation import TARGET, Installation, installation
from result_files import FOLDER, write_rows
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from easeml_core.actions.studies import RegisterStudy
from easeml_core.data.parts import load_open_parts
from easeml_core.models.formats import save_model
from easeml_core.models.skops_format import PipelinePredictor
from easeml_core.services.referee.requests import (
    answer_of,
    file_forced_promotion,
    file_gate_request,
    file_meter_request,
)
from easeml_core.services.registration.register import register_study
from easeml_core.store.rows import scalar
from easeml_core.store.tables import models, sealed, studies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE = "large"
COLUMNS = 8
RESULTS = FOLDER / "referee_throughput.csv"
GATE = {"condition": "n - o > 0 +/- 0.5", "reliability": 0.5, "steps": 16}
LARGE_GATE = {"condition": "n - o > 0 +/- 0.13", "reliability": 0.9, "steps": 16, "estimator": "paper"}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.3, "reliability": 0.5, "steps": 16}


@dataclass(frozen=True, slots=True)
class Round:
    """One round of answers.

    Attributes:
        referees: Processes.
        workers: Of each.
        delay: Seconds after the request at which an answer leaves; 0 for at once.
        answers: Requests that were answered.
        runs: Runs of models that were really made: two for each answer, since a part of the rows is run again, and
            those that an idle referee makes on other sets.
        repeated: How many of them had been made before.
        wall_seconds: From the first request to the last answer.
        referee_seconds: Processor time of the referees and their children.
        database_seconds: Processor time of the database.
    """

    referees: int
    workers: int
    delay: float
    answers: int
    runs: int
    repeated: int
    wall_seconds: float
    referee_seconds: float
    database_seconds: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.answers / self.wall_seconds


def serve(url: str, artifacts: str, duties: dict[str, Any], log: str, warm: str, stop: Any) -> None:
    """Be a referee until ``stop`` is set, and note the runs of models: which file, on how many rows.

    Its fork server imports the libraries first, for a run of the model ``warm``.
    """
    from easeml_core.sandbox.child_start import own_fork_server
    from easeml_core.sandbox.isolation import Sandbox, probe_isolation
    from easeml_core.services.evaluation import sealed_runs
    from easeml_core.services.referee.process import Referee
    from easeml_core.services.referee.publishing import Timetable
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

    module = vars(sealed_runs)  # it hands on no name that it imports
    predict = module["predict_in_child"]

    def noted(model: Path, form: str, inputs: Any, **more: Any) -> Any:
        with Path(log).open("a") as file:
            file.write(f"{hashlib.sha256(model.read_bytes()).hexdigest()} {len(inputs)}\n")
        return predict(model, form, inputs, **more)

    module["predict_in_child"] = noted
    probe_isolation(Sandbox())
    store = Store(url, lock_timeout_seconds=5, connections=16)
    over = threading.Event()

    def end() -> None:
        stop.wait()
        over.set()

    threading.Thread(target=end, daemon=True).start()
    delay = duties.pop("answer_delay")
    referee = Referee(store, ArtifactStore(artifacts), timetable=Timetable(delay), allow_forced=True, **duties)
    with own_fork_server():  # as of `easeml referee`; its processor time is the referee's
        predict(Path(warm), "skops", np.zeros((1, COLUMNS), dtype=np.float32))
        referee.run(over)


class Bench:
    """An installation with sealed studies, one tenant each.

    Args:
        found: The installation.
        rows: Of each study's table.
    """

    def __init__(self, found: Installation, rows: int) -> None:
        self.found, self.rows, self.studies = found, rows, list[str]()
        self._fitted = self._tables = 0
        self.log = found.folder / "runs"
        self.log.touch()
        self._warm = found.folder / "warm"
        rng = np.random.default_rng(0)
        fitted = make_pipeline(GaussianNB()).fit(rng.normal(size=(9, COLUMNS)), np.arange(9) % 2)
        save_model(PipelinePredictor(fitted), self._warm)

    def register(self, study: str, *, rows: int, gate: dict[str, Any], meter: dict[str, Any] | None = None) -> None:
        """Register and seal a study of a separate tenant; without a meter no idle referee runs models on its set."""
        self._tables += 1
        write_table(self.found.folder / "data" / study / "coins.csv", rows=rows, seed=self._tables)
        asked: dict[str, Any] = {"tenant": study, "source": "csv:coins.csv", "target": TARGET, "gate": gate}
        candidates = [{"name": "tree", "kind": "decision_tree"}]
        key = self.found.key()
        wanted = RegisterStudy(study=study, meter=meter, candidates=candidates, **asked)
        filed = register_study(self.found.worker, wanted, request_key=key)
        self.found.judge.answer_one()
        answer = answer_of(self.found.worker, filed.request_id)
        if answer is None or answer.refused:
            message = f"the study was not sealed: {answer}"
            raise RuntimeError(message)

    def add_model(self, study: str) -> int:
        """One more model that was fitted on the study's open rows; another file each time."""
        self._fitted += 1
        with self.found.worker.begin() as tx:
            row = studies.get_study(tx, study)
            version = studies.latest_data_version(tx, row.id)
        parts = load_open_parts(self.found.artifacts.of_tenant(row.tenant).path(version.artifact))
        fitted = GaussianNB(var_smoothing=1e-9 * (1 + self._fitted)).fit(parts.train_inputs, parts.train_labels)
        with tempfile.TemporaryDirectory() as folder:
            save_model(PipelinePredictor(make_pipeline(fitted)), Path(folder) / "model")
            artifact = self.found.artifacts.put(Path(folder) / "model")
        of_model: dict[str, Any] = {
            "study_id": row.id,
            "data_version_id": version.id,
            "trial_id": None,
            "validation_loss": 0.5,
        }
        with self.found.worker.begin() as tx:
            return models.add_model(tx, **of_model, format="skops", artifact=artifact, submitted=True)

    @contextlib.contextmanager
    def referees(self, count: int, **duties: Any) -> Iterator[list[psutil.Process]]:
        """So many referees, once all of them are at work."""
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        url = str(self.found.server.url("easeml_referee", "easeml"))
        given = (url, str(self.found.artifacts.root), duties, str(self.log), str(self._warm), stop)
        started = [context.Process(target=serve, args=given) for _ in range(count)]
        with self.found.referee.begin() as tx:
            before = scalar(tx, "SELECT count(*) FROM sealed.referees")
        for process in started:
            process.start()
        while True:
            with self.found.referee.begin() as tx:
                if scalar(tx, "SELECT count(*) FROM sealed.referees") >= before + count:
                    break
            time.sleep(0.05)
        try:
            yield [psutil.Process(process.pid) for process in started]
        finally:
            stop.set()
            for process in started:
                process.join()

    def wait(self, asked: list[int]) -> list[Any]:
        """The answers, once all are there."""
        found = [answer_of(self.found.worker, request_id) for request_id in asked]
        while not all(found):
            time.sleep(0.005 if len(asked) == 1 else 0.05)
            found = [one or answer_of(self.found.worker, i) for one, i in zip(found, asked, strict=True)]
        refused = [one for one in found if one is None or one.refused]
        if refused:
            message = f"refused: {refused[0]}"
            raise RuntimeError(message)
        return [one for one in found if one is not None]

    def ask(self, file: Callable[..., int], study: str, model_id: int) -> int:
        """File one request."""
        return file(self.found.worker, study=study, model_id=model_id, request_key=self.found.key())

    def round(self, referees: int, workers: int, delay: float) -> Round:
        """One gate request a study, all at once."""
        new = {study: self.add_model(study) for study in self.studies}
        with self.referees(referees, workers=workers, answer_delay=delay) as processes:
            self._decided([self.ask(file_gate_request, self.studies[0], self.add_model(self.studies[0]))])  # warm
            made, used, base = self.log.read_text().split("\n"), _seconds(processes), self.found.database_processor_ms()
            began = time.perf_counter()
            self._decided([self.ask(file_gate_request, study, model) for study, model in new.items()])
            wall = time.perf_counter() - began
            runs = self.log.read_text().split("\n")
            return Round(
                referees=referees,
                workers=workers,
                delay=delay,
                answers=len(new),
                runs=len(runs) - len(made),
                repeated=len(runs) - len(set(runs)) - (len(made) - len(set(made))),
                wall_seconds=wall,
                referee_seconds=_seconds(processes) - used,
                database_seconds=(self.found.database_processor_ms() - base) / 1e3,
            )

    def _decided(self, asked: list[int]) -> None:
        """Wait until all are decided."""
        query = "SELECT count(*) FROM sealed.outbox WHERE request_id = ANY (:ids) AND NOT refused"
        while True:
            with self.found.referee.begin() as tx:
                if scalar(tx, query, ids=asked) == len(asked):
                    return
            time.sleep(0.05)

    def singles(self, repeats: int) -> dict[str, float]:
        """Median wall seconds of single answers on the large study."""
        took: dict[str, list[float]] = {"gate_both_new": [], "gate_known": [], "meter": []}
        with self.referees(1, workers=2, answer_delay=0.0):
            self.wait([self.ask(file_gate_request, LARGE, self.add_model(LARGE))])
            for _ in range(repeats):
                words: dict[str, Any] = {
                    "who": "bench",
                    "why": "bench",
                    "request_key": self.found.key(),
                    "directly": True,
                }
                file_forced_promotion(self.found.referee, study=LARGE, model_id=self.add_model(LARGE), **words)
                took["gate_both_new"].append(self._timed(file_gate_request, self.add_model(LARGE)))
                took["meter"].append(self._timed(file_meter_request, self.add_model(LARGE)))
                known = self.add_model(LARGE)
                self._let_answer(known)
                took["gate_known"].append(self._timed(file_gate_request, known))
        return {name: float(np.median(values)) for name, values in took.items()}

    def _timed(self, file: Callable[..., int], model_id: int) -> float:
        began = time.perf_counter()
        self.wait([self.ask(file, LARGE, model_id)])
        return time.perf_counter() - began

    def _let_answer(self, model_id: int) -> None:
        with self.found.referee.begin() as tx:
            study = studies.get_study(tx, LARGE)
            for set_id, rows in self.sets(tx):
                identity = models.get_model(tx, study.id, model_id).identity
                labels = np.zeros(rows, dtype=np.int64)
                sealed.keep_predictions(tx, set_id, identity, labels=labels, failure=None)

    @staticmethod
    def sets(tx: Any) -> list[tuple[int, int]]:
        """The large study's sets with their sizes."""
        query = (
            "SELECT t.id, t.rows FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id "
            f"WHERE s.name = '{LARGE}' ORDER BY t.purpose"
        )
        return [(int(found[0]), int(found[1])) for found in tx.exec_driver_sql(query)]


def write_table(path: Path, *, rows: int, seed: int) -> None:
    """Eight random numbers and a coin a row; no two tables share a row, as those of several tenants may not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    numbers, coins = rng.normal(size=(rows, COLUMNS)), rng.integers(0, 2, rows)
    names = ",".join(f"x{place}" for place in range(COLUMNS))
    lines = [
        ",".join(f"{x:.6f}" for x in row) + f",{'heads' if coin else 'tails'}\n"
        for row, coin in zip(numbers, coins, strict=True)
    ]
    path.write_text(f"{names},{TARGET}\n" + "".join(lines))


def keep(rounds: list[Round], singles: dict[str, float]) -> None:
    """Write the figures into the file of results."""
    load = f"{os.getloadavg()[0]:.1f}"
    lines: list[dict[str, Any]] = [
        {
            "kind": "round",
            "referees": one.referees,
            "workers": one.workers,
            "delay": one.delay,
            "per_second": f"{one.per_second:.3f}",
            "seconds_an_answer": f"{(one.referee_seconds + one.database_seconds) / one.answers:.4f}",
            "load": load,
        }
        for one in rounds
    ]
    lines += [{"kind": kind, "wall_seconds": f"{seconds:.4f}", "load": load} for kind, seconds in singles.items()]
    write_rows(RESULTS, lines, [*lines[0], "wall_seconds"])


def _seconds(processes: list[psutil.Process]) -> float:
    """Processor seconds of the processes, their living children, and those that they have waited for."""
    total = 0.0
    for process in processes:
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:4])
    return total


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=24, help="studies, and answers of a round")
    parser.add_argument("--rows", type=int, default=600, help="rows of each study's table")
    parser.add_argument("--workers", type=int, default=2, help="of each referee")
    parser.add_argument("--referees", type=int, nargs="*", default=[1, 2, 4], help="processes, one round for each")
    parser.add_argument("--answer-delay", type=float, nargs="*", default=[0.0], help="as that of the referee")
    parser.add_argument("--repeats", type=int, default=5, help="single answers of each kind; 0 for none")
    parser.add_argument("--save", action="store_true", help=f"keep the figures in benchmarks/results/{RESULTS.name}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with installation() as found:
        bench = Bench(found, options.rows)
        for number in range(options.studies):
            bench.register(f"study{number}", rows=options.rows, gate=GATE)
            bench.studies.append(f"study{number}")
        rounds = [
            bench.round(count, options.workers, delay) for delay in options.answer_delay for count in options.referees
        ]
        singles, large = dict[str, float](), list[tuple[int, int]]()
        if options.repeats:
            bench.register(LARGE, rows=12_000, gate=LARGE_GATE, meter=METER)
            with found.referee.begin() as tx:
                large = bench.sets(tx)
            singles = bench.singles(options.repeats)
    result = {
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "rounds": [asdict(one) | {"per_second": one.per_second} for one in rounds],
        "singles": singles,
        "large_sets": [rows for _, rows in large],
    }
    if options.save:
        keep(rounds, singles)
    if options.json:
        print(json.dumps(result, indent=1))
        return
    print("| referees | workers | delay | answers/s | runs / repeated | referee s/answer | database s/answer |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for one in rounds:
        cost = f"{one.referee_seconds / one.answers:.3f} | {one.database_seconds / one.answers:.3f}"
        setting = f"{one.referees} | {one.workers} | {one.delay:g}"
        print(f"| {setting} | {one.per_second:.2f} | {one.runs} / {one.repeated} | {cost} |")
    for name, seconds in singles.items():
        print(f"{name}: {seconds:.3f} s (sets of {result['large_sets']} rows)")


if __name__ == "__main__":
    main()
