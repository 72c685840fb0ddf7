"""A whole stack with real studies in it, Debian's Chromium, and a person logged in for each role of Airflow.

Where there is no Chromium the tests here are skipped; where ``CI`` is set they fail instead, so that none is forgotten.
``make browser`` installs it.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright
from registering import register_study
from rich.console import Console

from easeml_core.data.sources.load import load_source
from easeml_core.entities import SealedSetPurpose
from easeml_core.services.models.submission import submit_model
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request
from easeml_core.services.reports.overview import study_state
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
from easeml_core.store.server.server import Server, throwaway_folder
from easeml_core.store.tables import labels, studies, test_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Page, StorageState

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "browser")]

from looks import ZONE  # noqa: E402 - the launcher's modules are scripts, not a package
from patience import SECONDS, until  # noqa: E402 - the launcher is a script, not a package
from stack.keys import USERS  # noqa: E402 - the launcher is a script, not a package
from stack.launcher import Stack  # noqa: E402 - the launcher is a script, not a package
from stack.places import Places  # noqa: E402 - the launcher is a script, not a package
from stack.progress import Progress  # noqa: E402 - the launcher is a script, not a package

DAGS = ("easeml_register_study", "easeml_feed_retraining", "easeml_forced_promotion")
KINDS = ("nearest_centroid", "gaussian_naive_bayes", "decision_tree")
CANDIDATES = [{"name": kind, "kind": kind} for kind in KINDS]
METER = {"ranges": [0.2, 0.6], "tolerance": 0.2, "reliability": 0.9, "steps": 4}
CANCER = {"condition": "n > 0.7 +/- 0.2", "reliability": 0.9, "steps": 4}
DIGITS = {"condition": "n > 0.5 +/- 0.2", "reliability": 0.9, "steps": 4}
UNLABELLED = 300
VIEWPORT: Any = {"width": 1280, "height": 900}


@dataclass
class Installation:
    """A running stack and what the tests need to know of it.

    Attributes:
        stack: The running stack.
        worker: Our database as ``easeml_worker``.
        referee: Our database as ``easeml_referee``.
        artifacts: Where models lie.
        trials: Trials that have ended, by study.
        models: Their models.
        numbers: Of request keys.
    """

    stack: Stack
    worker: Store
    referee: Store
    artifacts: ArtifactStore
    trials: dict[str, list[int]] = field(default_factory=dict)
    models: dict[str, list[int]] = field(default_factory=dict)
    numbers: int = 0

    @property
    def url(self) -> str:
        return self.stack.access.url

    def path(self, asked: str) -> str:
        """The path with a trial of ``cancer`` for ``{trial}``: its number depends on which study was first."""
        return asked.replace("{trial}", str(self.trials["cancer"][0]))

    def key(self) -> str:
        self.numbers += 1
        return f"browser/{self.numbers}"

    def answered(self, filed: int) -> Any:
        """The referee's answer; it is a process of its own here, so this waits."""
        answer = until(lambda: answer_of(self.worker, filed), "the referee's answer")
        assert not answer.refused, answer.message
        return answer

    def hand_in(self, label: int) -> int:
        """A model of the study ``cancer`` that always answers the same; its id."""
        path = self.stack.places.home / "constant.json"
        path.write_text(f'{{"label": {label}}}')
        asked: dict[str, Any] = {
            "study": "cancer",
            "path": path,
            "format": "constant",
            "message": f"always class {label}",
        }
        return int(submit_model(self.worker, self.artifacts, **asked, request_key=self.key()).model_id)


@pytest.fixture(scope="session")
def installation(chromium: str) -> Iterator[Installation]:
    """Two tenants: ``cancer`` with trials, verdicts and signals, and ``digits`` that waits for labels."""
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        for name in DAGS:
            shutil.copy(ROOT / "dags" / f"{name}.py", dags)
        places, progress = Places.of(folder / "home", dags), Progress(Console(quiet=True))
        with Stack(places, progress, referee_options=["--allow-forced"]) as stack:
            server = Server(stack.places.database)
            worker, referee = (Store(server.url(f"easeml_{role}", "easeml")) for role in ("worker", "referee"))
            made = Installation(stack, worker, referee, ArtifactStore(stack.places.artifacts))
            _furnish(made, folder)
            yield made
            for store in (worker, referee):
                store.close()
        server.stop()


def _is_active(made: Installation, study: str) -> bool:
    return study_state(made.worker, study=study) == "ACTIVE"


def _furnish(made: Installation, folder: Path) -> None:
    wishes: dict[str, tuple[str, str, dict[str, Any]]] = {
        "cancer": ("lab", "breast_cancer", CANCER),
        "digits": ("post", "digits", DIGITS),
    }
    for study, (tenant, source, gate) in wishes.items():
        asked: dict[str, Any] = {
            "tenant": tenant,
            "study": study,
            "source": f"sklearn:{source}",
            "gate": gate,
            "meter": METER,
        }
        register_study(made.worker, **asked, candidates=CANDIDATES, request_key=made.key())
    for study in wishes:
        until(partial(_is_active, made, study), f"the sealing of {study}")
    for _ in range(4):
        suggested = suggest_trials(made.worker, count=2, policy=None, request_key=made.key())
        for trial in suggested.trials:
            ended = run_trial(made.worker, made.artifacts, trial_id=trial.trial_id, request_key=made.key())
            made.trials.setdefault(trial.study, []).append(trial.trial_id)
            assert ended.model_id is not None
            made.models.setdefault(trial.study, []).append(ended.model_id)
    for model in made.models["cancer"][:2]:
        for ask in (file_gate_request, file_meter_request):
            asked = {"study": "cancer", "model_id": model, "request_key": made.key()}
            made.answered(ask(made.worker, **asked))
    _ask_for_labels(made, folder / "digits.csv")


def _ask_for_labels(made: Installation, path: Path) -> None:
    """Seal examples without labels for ``digits`` in place of its first set, and let a model ask for a verdict."""
    table, rng = load_source("sklearn:digits"), np.random.default_rng(1)
    chosen = rng.choice(len(table.labels), UNLABELLED, replace=False)
    shifted = table.inputs[chosen] + rng.uniform(0.01, 0.02, (UNLABELLED, table.inputs.shape[1]))  # no row is known
    with path.open("w", newline="") as file:
        named = (["example", *table.feature_names], *([f"scan {n}", *row] for n, row in enumerate(shifted)))
        csv.writer(file).writerows(named)
    with made.referee.begin() as tx:
        sets = test_sets.list_sets(tx, studies.get_study(tx, "digits").id)
    first = next(found for found in sets if found.purpose == SealedSetPurpose.GATE)
    retire_test_set(made.referee, test_set=str(first.id))
    seal_test_set(made.referee, made.artifacts, study="digits", inputs=path, name="autumn")
    asked: dict[str, Any] = {"study": "digits", "model_id": made.models["digits"][0], "request_key": made.key()}
    file_gate_request(made.worker, **asked)
    until(lambda: any_wanted(made.referee), "the referee's wish for labels")


def any_wanted(store: Store) -> bool:
    """Whether labels are asked for."""
    with store.begin() as tx:
        return bool(labels.open_wanted(tx))


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium, closed with its file: an event loop runs in this thread until then, and Airflow starts its own."""
    expect.set_options(timeout=SECONDS * 1000)  # five seconds are not enough where every core is busy
    with sync_playwright() as playwright:
        # Root's Chromium cannot use its own sandbox; it sees no page but ours.
        options = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        started = playwright.chromium.launch(executable_path=chromium, args=options)
        yield started
        started.close()


@pytest.fixture(scope="session")
def logins() -> dict[str, StorageState]:
    """What the browser keeps of each user who has logged in; the first file that asks does so."""
    return {}


@pytest.fixture(scope="module")
def people(browser: Browser, installation: Installation, logins: dict[str, StorageState]) -> dict[str, BrowserContext]:
    """A browser's state for each user, who logged in through Airflow's own form."""
    for name in USERS:
        if name not in logins:
            logins[name] = _logged_in(browser, installation, name)
    return {name: _context(browser, logins[name]) for name in USERS}


def _context(browser: Browser, login: StorageState | None = None) -> BrowserContext:
    context = browser.new_context(storage_state=login, viewport=VIEWPORT, timezone_id=str(ZONE))
    context.set_default_timeout(SECONDS * 1000)
    return context


def _logged_in(browser: Browser, installation: Installation, name: str) -> StorageState:
    context = _context(browser)
    page = context.new_page()
    page.goto(f"{installation.url}/api/v2/auth/login?next={quote(f'{installation.url}/', safe='')}")
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", installation.stack.access.keys.passwords[name])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{installation.url}/", wait_until="commit")  # no need to wait for Airflow's first page
    login = context.storage_state()
    context.close()
    return login


@dataclass
class Watched:
    """A page and what its browser complained of since the last address."""

    page: Page
    installation: Installation
    complaints: list[str] = field(default_factory=list)

    def visit(self, path: str) -> None:
        """Open a page of ours by its own address."""
        self.complaints.clear()
        self.page.goto(f"{self.installation.url}/easeml{self.installation.path(path)}", wait_until="load")


@pytest.fixture
def open_as(people: dict[str, BrowserContext], installation: Installation) -> Iterator[Callable[..., Watched]]:
    """``open_as("op", "/labels")``: a page of ours by its own address; ``frame=False`` for one of Airflow's."""
    opened: list[Page] = []

    def open_page(name: str, path: str, *, frame: bool = True) -> Watched:
        page = people[name].new_page()
        opened.append(page)
        watched = Watched(page, installation)
        page.on("console", lambda said: watched.complaints.extend([said.text] if said.type == "error" else []))
        page.on("pageerror", lambda error: watched.complaints.append(str(error)))
        if frame:
            watched.visit(path)
        else:
            page.goto(f"{installation.url}{path}", wait_until="load")
        return watched

    yield open_page
    for page in opened:
        page.close()


@pytest.fixture
def opened(
    browser: Browser, people: dict[str, BrowserContext], installation: Installation
) -> Iterator[Callable[..., Page]]:
    """``opened("op", "/", before=...)``: a page of ours, prepared by ``before`` before it is loaded.

    Each is in a context of its own: a clock that is stopped stands still for all pages of its context.
    """
    contexts: list[BrowserContext] = []

    def open_page(name: str, path: str, *, before: Callable[[Page], Any] = lambda _page: None) -> Page:
        contexts.append(_context(browser, people[name].storage_state()))
        page: Page = contexts[-1].new_page()
        before(page)
        page.goto(f"{installation.url}/easeml{installation.path(path)}", wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()
