"""The work of one round on a stack: DAG runs as users start them, over REST, and what they said.

A study is registered by the form; then either a night trains, judges and promotes, or a stream trains and the commit
gate judges its best model. Half of the rounds have the connection of the tenant's login, whose requests for
suggestions `easeml scheduler` decides.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo_night.runs import kind_of, require_no_broken_tasks
from fault_people import BUDGET_SECONDS, CANDIDATES, GATE, METER, ROWS, Table
from stack.failures import StackError
from stack_world import GATE as COMMIT_GATE
from stack_world import LOGIN_TENANT, NIGHT, OF_LOGIN, REGISTER, STREAM, TENANT

if TYPE_CHECKING:
    import random

    from stack_world import StackWorld

KINDS = ("night", "stream")
_ANSWERED = ("register", "gate", "meter", "promote")


@dataclass(frozen=True, slots=True)
class Said:
    """What a task said that the referee answered it.

    Attributes:
        dag_id: Of the run.
        task: The task and its map index.
        request_id: Number of the request.
        message: The public sentence; None where the task left none.
    """

    dag_id: str
    task: str
    request_id: int
    message: str | None


class StackWork(threading.Thread):
    """Starts the runs of a round one after the other, and follows each to its end.

    Args:
        world: The installation.
        study: Name of the new study.
        rng: Of the round: which way it goes.
        needs_login: Whether it must go with the tenant's login.
    """

    def __init__(self, world: StackWorld, study: str, rng: random.Random, *, needs_login: bool = False) -> None:
        super().__init__(name=f"work on {study}", daemon=True)
        self.world, self.study, self.rest = world, study, world.new_rest()
        self.kind, self.has_login = rng.choice(KINDS), rng.random() < 0.5 or needs_login
        self.broken: list[str] = []
        self.said: list[Said] = []
        self.runs: list[tuple[str, str]] = []

    def __str__(self) -> str:
        """Say what the work is."""
        return f"{self.kind} {'with the login' if self.has_login else 'of one team'}"

    def run(self) -> None:
        """Do it; what does not end well is in ``broken``."""
        tenant = LOGIN_TENANT if self.has_login else TENANT
        folder = self.world.places.data / tenant
        folder.mkdir(parents=True, exist_ok=True)
        Table.of(self.study, 0, ROWS).write(folder / f"{self.study}.csv")
        wish = {
            "tenant": tenant, "study": self.study, "source": f"csv:{self.study}.csv", "target": "label",
            "gate": dict(GATE), "meter": dict(METER), "budget_seconds": BUDGET_SECONDS,
            "candidates": [{"name": kind, "kind": kind} for kind in CANDIDATES],
        }  # fmt: skip
        steps: list[tuple[str, dict[str, Any]]] = [(REGISTER, wish)]
        if self.kind == "night":
            steps.append((NIGHT, {"trials_per_round": len(CANDIDATES)}))
        else:
            steps += [(STREAM, {"devices": ["cpu", "cpu"]}), (COMMIT_GATE, {"study": self.study})]
        for dag_id, conf in steps:
            try:
                self._follow(dag_id + (OF_LOGIN if self.has_login else ""), conf)
            except StackError as error:  # a red run that no verdict explains, or a server that stays away
                self.broken.append(f"{dag_id}: {error}")
                return

    def _follow(self, dag_id: str, conf: dict[str, Any]) -> None:
        run_id = self.rest.trigger(dag_id, conf)
        self.runs.append((dag_id, run_id))
        for _ in self.rest.wait(dag_id, run_id):
            pass
        self._note(dag_id, run_id)
        require_no_broken_tasks(self.rest, dag_id, run_id)

    def _note(self, dag_id: str, run_id: str) -> None:
        """Note what the tasks of an ended run said of their requests."""
        for task in self.rest.tasks(dag_id, run_id):
            if kind_of(task) not in _ANSWERED:
                continue
            place = {"map_index": task["map_index"]}
            number = self.rest.xcom(dag_id, run_id, task["task_id"], key="request_id", **place)
            if number is not None and task["state"] == "success":
                message = self.rest.xcom(dag_id, run_id, task["task_id"], key="message", **place)
                self.said.append(Said(dag_id, f"{task['task_id']}[{task['map_index']}]", int(number), message))

    def differing(self) -> list[str]:
        """What tasks said that the database does not have, in words."""
        found = []
        for said in self.said:
            rows = self.world.rows("SELECT message FROM work.answers WHERE request_id = %s", said.request_id)
            known = rows[0][0] if rows else None
            if known is None or (said.message is not None and said.message != known):
                found.append(f"{said.dag_id} {said.task} said {said.message!r} of {said.request_id}, not {known!r}")
        return found
