"""Execute the notebook of this folder on a separate installation, and keep the outputs.

The installation is a throw-away server with a referee at work and a study whose candidates were trained. With
``--check`` nothing is written: what the cells give must be what the notebook holds, pictures apart.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import nbformat
from nbclient import NotebookClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode

NOTEBOOK = Path(__file__).with_name("from-python.ipynb")
CANDIDATES = [
    {"name": "stump", "kind": "decision_tree", "parameters": {"max_depth": 1}},
    {"name": "logistic", "kind": "logistic_regression", "parameters": {}},
]


@contextmanager
def installation() -> Iterator[str]:
    """Start an installation with the trained study ``cancer``; yield the address of its database."""
    from easeml_core.actions.studies import RegisterStudy
    from easeml_core.client.installation import open_artifacts
    from easeml_core.services.referee.process import Referee
    from easeml_core.services.referee.requests import wait_for_answer
    from easeml_core.services.registration.register import register_study
    from easeml_core.services.trials.worker import run_device
    from easeml_core.store import schema
    from easeml_core.store.database import Store
    from easeml_core.store.server.server import throwaway_server

    with tempfile.TemporaryDirectory() as folder, throwaway_server() as server:
        server.ensure_installation()
        owner, worker, sealed = (
            Store(server.url(f"easeml_{role}", "easeml")) for role in ("owner", "worker", "referee")
        )
        with closing(owner), closing(worker), closing(sealed):
            schema.upgrade(owner)
            artifacts = open_artifacts(folder, worker)
            stop = threading.Event()
            referee = threading.Thread(target=Referee(sealed, artifacts, poll_seconds=0.5).run, args=(stop,))
            referee.start()
            try:
                study = RegisterStudy(
                    tenant="lab",
                    study="cancer",
                    source="sklearn:breast_cancer",
                    candidates=CANDIDATES,
                    gate={"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3},
                )
                filed = register_study(worker, study, request_key="register")
                wait_for_answer(worker, filed.request_id, timeout=120)
                run_device(worker, artifacts, device=None, request_key="train", poll_seconds=0.5)
                yield server.url("easeml_worker", "easeml")
            finally:
                stop.set()
                referee.join()


def executed(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook with the outputs that its cells give now."""
    with installation() as url:
        os.environ["EASEML_DATABASE_URL"] = url
        # The interpreter of this environment, whatever kernels the machine names.
        client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": "."}})
        found: NotebookNode = client.execute(env=os.environ | {"PYTHONWARNINGS": "ignore"})
    for cell in found.cells:
        cell.metadata.pop("execution", None)
        cell.setdefault("id", "")
    return found


def texts(notebook: NotebookNode) -> list[Any]:
    """Return what the cells give, without pictures and numbers of executions."""
    return [
        [
            output.get("text") or {kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"}
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Compare, and write nothing.")
def main(check: bool) -> None:
    """Execute the notebook."""
    kept = nbformat.read(NOTEBOOK, as_version=4)
    before = texts(kept)
    found = executed(kept)
    if not check:
        nbformat.write(found, NOTEBOOK)
        click.echo(f"{NOTEBOOK.name}: {len(found.cells)} cells")
        return
    different = [n for n, (old, new) in enumerate(zip(before, texts(found), strict=True), start=1) if old != new]
    if different:
        click.echo(f"cells of code with other outputs: {different}; run `make notebook`", err=True)
        for number in different:
            click.echo(f"{number}: kept {before[number - 1]}\n{number}: now {texts(found)[number - 1]}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
