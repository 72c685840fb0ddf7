"""An installation for a benchmark: a separate PostgreSQL server that waits for its disk, with one sealed study."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.actions.studies import RegisterStudy
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import register_study
from easeml_core.store import schema
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
from easeml_core.store.server.cluster import find_postmaster
from easeml_core.store.server.server import Server
from easeml_core.store.tables import models, studies

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TENANT, STUDY, TARGET = "bench", "coins", "coin"
GATE = {"condition": "n - o > 0 +/- 0.5", "reliability": 0.5, "steps": 1}


@dataclass(slots=True)
class Installation:
    """One study of coin flips, and the two roles that deal with it.

    Attributes:
        folder: Where everything lies; the tenant's tables are in ``data``.
        artifacts: Models and open data.
        worker: Store of the tasks' role.
        referee: Store of the referee's role.
        server: The database's.
        judge: The referee, in this process.
    """

    folder: Path
    artifacts: ArtifactStore
    worker: Store
    referee: Store
    server: Server
    judge: Referee = field(init=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        """Let the referee read the folder ``data``."""
        self.judge = Referee(self.referee, self.artifacts, data=self.folder / "data")

    def key(self) -> str:
        """Return an unused request key."""
        return f"bench/{next(self._numbers)}"

    def database_processor_ms(self) -> float:
        """Processor milliseconds of the database's living processes so far (Linux)."""
        postmaster = find_postmaster(self.server.data)
        if postmaster is None:
            return 0.0
        family = Path(f"/proc/{postmaster.pid}/task/{postmaster.pid}/children").read_text().split()
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in family) / 1e6

    def register(self, *, rows: int, meter: Mapping[str, Any]) -> Any:
        """Register and seal a study of so many coin flips; the referee's answer."""
        write_coins(self.folder / "data" / TENANT / "coins.csv", rows=rows)
        candidates = [{"name": "tree", "kind": "decision_tree"}]
        asked: dict[str, Any] = {"tenant": TENANT, "source": "csv:coins.csv", "target": TARGET, "gate": GATE}
        wanted = RegisterStudy(study=STUDY, meter=meter, candidates=candidates, **asked)
        filed = register_study(self.worker, wanted, request_key=self.key())
        self.judge.answer_one()
        answer = answer_of(self.worker, filed.request_id)
        if answer is None or answer.refused:
            message = f"the study was not sealed: {answer}"
            raise RuntimeError(message)
        return answer

    def add_constant(self, study: str = STUDY) -> int:
        """The id of one more model that always names class 0: another file each time, so that none is cached."""
        number = next(self._numbers)
        path = self.folder / "constant"
        path.write_text("{" + " " * (number // 90) + '"label": 0' + " " * (number % 90) + "}")
        artifact = self.artifacts.put(path)
        with self.worker.begin() as tx:
            found = studies.get_study(tx, study)
            version = studies.latest_data_version(tx, found.id)
            return models.add_model(
                tx,
                study_id=found.id,
                data_version_id=version.id,
                trial_id=None,
                format="constant",
                artifact=artifact,
                validation_loss=0.5,
                submitted=True,
            )


@contextlib.contextmanager
def installation() -> Iterator[Installation]:
    """A fresh one, gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="easeml-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the database's account passes through
        (folder / "data" / TENANT).mkdir(parents=True)
        with Server(folder / "home").owned() as server:
            server.ensure_installation()
            with contextlib.closing(Store(server.url("easeml_owner", "easeml"))) as owner:
                schema.upgrade(owner)
            roles = [Store(server.url(f"easeml_{role}", "easeml")) for role in ("worker", "referee")]
            with contextlib.closing(roles[0]) as worker, contextlib.closing(roles[1]) as referee:
                yield Installation(folder, ArtifactStore(folder / "artifacts"), worker, referee, server)


def write_coins(path: Path, *, rows: int, seed: int = 0) -> None:
    """A table of one random number and one coin a row: every model has a true loss of 1/2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    numbers, coins = rng.permutation(rows), rng.integers(0, 2, rows)
    lines = [f"{number},{'heads' if coin else 'tails'}\n" for number, coin in zip(numbers, coins, strict=True)]
    path.write_text(f"number,{TARGET}\n" + "".join(lines))
