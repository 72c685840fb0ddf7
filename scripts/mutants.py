"""Change the product in one small place at a time and look whether a test notices: which rules does no test keep?

``mutants.py run`` draws changes over the areas below, the named ones of earlier reviews first, and runs for each the
tests that run the changed lines, nearest first, until one fails. Everything happens in a separate git worktree;
results are appended to a file, and a run that was killed goes on where it stopped. Which tests run which lines
is measured once for each commit (``mutants.py map``).

mutmut and cosmic-ray were considered. mutmut 3 rewrites functions into trampolines that import its own package, which
our child processes and ``--import-mode=importlib`` do not survive, and it changes neither constants of a module nor
SQL. cosmic-ray runs one fixed command for each change, so it needs the whole suite for each. What both share with
this script, changes of the syntax tree, is the smaller part of the work.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from measuring.mutations import Mutation, is_valid, mutations_of
from measuring.test_map import TestMap, environment_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPOSITORY = Path(__file__).resolve().parents[1]
PLACE = REPOSITORY / "build" / "mutants"
AREAS = {
    "stats": ("easeml_core/stats/**/*.py",),
    "gate": ("easeml_core/gate/**/*.py", "easeml_core/services/gate/**/*.py"),
    "meter": ("easeml_core/meter/**/*.py", "easeml_core/services/meter/**/*.py"),
    "selection": (
        "easeml_core/selection/*.py",
        "easeml_core/selection/[!s]*/**/*.py",
        "easeml_core/services/selection/*.py",
    ),
    "store": ("easeml_core/store/*.py", "easeml_core/store/tables/*.py", "easeml_core/store/queries/*.py"),
    "leases": ("easeml_core/services/trials/lease.py", "easeml_core/store/tables/leases.py"),
    "promotion": ("easeml_core/services/models/promotion.py", "easeml_core/store/tables/model_life.py"),
    "artifacts": ("easeml_core/store/artifacts/*.py",),
    "publishing": ("easeml_core/services/referee/publishing.py", "easeml_core/store/tables/outbox.py"),
    "claiming": (
        "easeml_core/services/trials/execution.py",
        "easeml_core/services/trials/attempts.py",
        "easeml_core/services/referee/*.py",
        "easeml_core/store/tables/requests.py",
        "easeml_core/store/tables/referee_claims.py",
    ),
}
"""Each area has the same share of the changes; a file of two areas belongs to the later one."""

NAMED = (
    ("leases", "progress", "comparison", 'news.get("resumed") is False'),
    ("leases", "_record_uploaded", "boolean", "self._saved is None and not self.lost"),
    ("promotion", "force", "statement", "hold_study("),
    ("artifacts", "", "statement", "os.close(descriptor)"),
    ("gate", "", "bound", "_MOST_RUNS)"),
    ("gate", "", "bound", "MOST_EXAMPLES)"),
)
"""Survivors of an earlier run: area, end of the scope, operator, text on the line."""

KILLED, ENDED = ("killed", "timeout"), "ended"
DECIDED = (*KILLED, ENDED)
"""Outcomes after which no more tests are run."""
FAST, JOURNEYS = "not nightly and not journey", "journey and not nightly"


@dataclass(frozen=True)
class Result:
    """What became of a change.

    Attributes:
        id: Of the change.
        area: Where it lies.
        kind: Its operator.
        outcome: ``killed`` by a failing test, ``timeout``, ``survived``, ``unreached``: no test runs the lines, or
            ``ended``: a signal ended pytest, which tells nothing; the next run tries it again.
        by: The test that failed, or the end of pytest's output.
        tests: How many tests were chosen.
        left_out: How many more run the lines and were not chosen, for lack of time.
        seconds: That it took.
    """

    id: str
    area: str
    kind: str
    outcome: str
    by: str
    tests: int
    left_out: int
    seconds: float


def changes_of(tree: Path, only: Sequence[str]) -> dict[str, list[Mutation]]:
    """Return every change of every area, or of the files whose path contains one of these texts."""
    area_of: dict[str, str] = {}
    for area, patterns in AREAS.items():
        for pattern in patterns:
            area_of |= {str(path.relative_to(tree)): area for path in tree.glob(pattern)}
    found: dict[str, list[Mutation]] = defaultdict(list)
    for path, area in sorted(area_of.items()):
        if not only or any(text in path for text in only):
            found[area] += mutations_of(path, (tree / path).read_bytes())
    return dict(found)


def draw(tree: Path, count: int, seed: int, only: Sequence[str] = ()) -> list[tuple[str, Mutation]]:
    """Draw changes: the named ones first, then one area after the other, in it each operator alike.

    Args:
        tree: The source tree.
        count: How many.
        seed: Of the draw.
        only: Parts of paths that are wanted; empty for all areas.

    Raises:
        LookupError: If a named change is not there any more.
    """
    generator, changes = random.Random(seed), changes_of(tree, only)
    drawn = {one.id: (area, one) for area, one in _named(tree, changes, is_complete=not only)}
    left = {area: _by_operator(generator, found) for area, found in changes.items()}
    while len(drawn) < count and left:
        for area in list(left):
            kinds = left[area]
            if not kinds:
                del left[area]
                continue
            kind = generator.choice(sorted(kinds))
            one = kinds[kind].pop()
            if not kinds[kind]:
                del kinds[kind]
            if len(drawn) < count and is_valid(one, (tree / one.path).read_bytes()):
                drawn.setdefault(one.id, (area, one))
    return list(drawn.values())


def _by_operator(generator: random.Random, changes: list[Mutation]) -> dict[str, list[Mutation]]:
    found: dict[str, list[Mutation]] = defaultdict(list)
    for one in generator.sample(changes, len(changes)):
        found[one.kind].append(one)
    return dict(found)


def _named(tree: Path, changes: dict[str, list[Mutation]], *, is_complete: bool) -> Iterator[tuple[str, Mutation]]:
    for area, scope, kind, text in NAMED:
        found = [
            one
            for one in changes.get(area, [])
            if one.kind == kind
            and one.scope.endswith(scope)
            and text in (tree / one.path).read_text(encoding="utf-8").splitlines()[one.line - 1]
        ]
        if not found and is_complete:
            message = f"no {kind} of {text!r} in {scope or area}: the code has changed, so change NAMED"
            raise LookupError(message)
        yield from ((area, one) for one in found)


class Bench:
    """A git worktree in which one change after the other is made, and the tests are run.

    Args:
        tree: Its folder.
        tests: Which tests run which lines.
        first_seconds: What the nearest tests may take in the unchanged tree.
        budget_seconds: What all tests of a change may take.
    """

    def __init__(self, tree: Path, tests: TestMap, *, first_seconds: float, budget_seconds: float) -> None:
        self._tree, self._tests = tree, tests
        self._first, self._budget = first_seconds, budget_seconds

    def try_out(self, area: str, mutation: Mutation, *, journeys: bool) -> Result:
        """Make the change, run tests until one fails, and undo it."""
        started, path = time.monotonic(), self._tree / mutation.path
        chosen = self._tests.choose(mutation, first_seconds=self._first, budget_seconds=self._budget)
        outcome, by = "unreached", ""
        clean(self._tree)
        path.write_bytes(mutation.apply(path.read_bytes()))
        try:
            for batch in filter(None, (chosen.nearest, chosen.others)):
                outcome, by = self._run(batch, sum(self._tests.seconds.get(test, 0.0) for test in batch))
                if outcome in DECIDED:
                    break
            if outcome not in DECIDED and journeys:
                outcome, by = self._run(["-m", JOURNEYS, "tests"], 3600.0)
        finally:
            clean(self._tree)
        count = len(chosen.nearest) + len(chosen.others)
        took = round(time.monotonic() - started, 1)
        return Result(mutation.id, area, mutation.kind, outcome, by, count, chosen.left_out, took)

    def _run(self, arguments: list[str], seconds: float) -> tuple[str, str]:
        """Run tests; a run that takes several times as long as without the change counts as noticed."""
        listed = self._tree.parent / f"{self._tree.name}.tests"
        listed.write_text("\n".join(arguments) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
        command += ["-p", "no:randomly", "--hypothesis-seed=0", "--test-seconds=0", f"@{listed}"]
        process = subprocess.Popen(
            command, cwd=self._tree, env=environment_of(self._tree), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            shown, _ = process.communicate(timeout=90 + 5 * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "timeout", f"more than {90 + 5 * seconds:.0f} s"
        if process.returncode == 0:
            return "survived", ""
        if process.returncode == 5:
            return "unreached", ""
        if -process.returncode in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            return ENDED, f"by signal {-process.returncode}"
        lines = [line for line in shown.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return "killed", (lines or shown.splitlines()[-1:] or [""])[0][:300]


def clean(tree: Path) -> None:
    """Undo every change in a worktree."""
    subprocess.run(["git", "checkout", "-q", "--", "."], cwd=tree, check=True)


@contextlib.contextmanager
def worktree(name: str, revision: str) -> Iterator[Path]:
    """Yield a worktree at a revision that no other run uses; a killed run may have left it, so it is made whole."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another run uses {PLACE / name}; wait for its end, or use --bench with another name")
        tree = PLACE / name
        if not (tree / ".git").exists():
            subprocess.run(["git", "worktree", "prune"], cwd=REPOSITORY, check=True)
            subprocess.run(
                ["git", "worktree", "add", "-q", "--detach", str(tree), revision], cwd=REPOSITORY, check=True
            )
        commit = commit_of(REPOSITORY, revision)
        subprocess.run(["git", "checkout", "-q", "--force", "--detach", commit], cwd=tree, check=True)
        subprocess.run(["git", "clean", "-fdq"], cwd=tree, check=True)
        yield tree


def commit_of(tree: Path, revision: str = "HEAD") -> str:
    """Return the commit that a revision names, by default the one that is checked out."""
    command = ["git", "rev-parse", f"{revision}^{{commit}}"]
    return subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout.strip()


def read_results(path: Path) -> list[Result]:
    """Return the results of a file; a last line that was cut short is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(Result(**json.loads(line)))
    return found


def summary(results: Sequence[Result]) -> str:
    """Return a table of the areas, and the changes that no test noticed."""
    lines = [f"{'area':<12}{'changes':>9}{'killed':>9}{'share':>8}"]
    by_area: dict[str, list[Result]] = defaultdict(list)
    for one in results:
        by_area[one.area].append(one)
    for area, found in [*by_area.items(), ("in all", list(results))]:
        killed = sum(one.outcome in KILLED for one in found)
        lines.append(f"{area:<12}{len(found):>9}{killed:>9}{killed / max(1, len(found)):>8.1%}")
    outcomes = Counter(one.outcome for one in results)
    lines += ["", ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common()), ""]
    lines += [
        f"{one.outcome}: {one.id}  ({one.tests} tests run, {one.left_out} left out)"
        for one in results
        if one.outcome not in KILLED
    ]
    return "\n".join(lines)


@click.group(help=__doc__)
def main() -> None:
    """Draw changes and try them out."""


_only = click.option("--only", multiple=True, help="Part of a path; only these files are changed. May be repeated.")
_count = click.option("--count", default=200, show_default=True, help="How many changes.")
_seed = click.option("--seed", default=16, show_default=True, help="Of the draw.")
_bench = click.option("--bench", default="tree", show_default=True, help="Name of the worktree in build/mutants.")
_revision = click.option("--revision", default="HEAD", show_default=True, help="The commit that is changed.")
_processes = click.option("--processes", default=2, show_default=True, help="That measure which tests run which lines.")
_tests = click.option("--tests", multiple=True, help="Folder or file of tests; default: all.")


@main.command("list")
@_only
@_count
@_seed
def list_(only: tuple[str, ...], count: int, seed: int) -> None:
    """Print the changes that a run would make."""
    for area, one in draw(REPOSITORY, count, seed, only):
        click.echo(f"{area:<12}{one.id}")


@main.command("map")
@_tests
@_processes
@_bench
@_revision
def map_(tests: tuple[str, ...], processes: int, bench: str, revision: str) -> None:
    """Measure which tests run which lines; it takes as long as the suite does under coverage."""
    with worktree(bench, revision) as tree:
        found = TestMap.measure(tree, _map_folder(tree, tests), tests, processes=processes, marks=FAST)
        click.echo(f"{len(found.seconds)} tests, {sum(found.seconds.values()):.0f} s")
        click.echo("".join(f"fails without a change, left out: {test}\n" for test in found.failed), nl=False)


@main.command()
@_only
@_count
@_seed
@_bench
@_revision
@_processes
@_tests
@click.option("--results", type=click.Path(path_type=Path), help="Default: build/mutants/COMMIT.jsonl.")
@click.option("--first", default=20.0, show_default=True, help="Seconds of the nearest tests, which run first.")
@click.option("--budget", default=240.0, show_default=True, help="Seconds of all tests of one change.")
@click.option("--journeys", is_flag=True, help="Try the journeys, too, on what the other tests do not notice.")
@click.option("--at-least", default=0.95, show_default=True, help="Share that must be noticed, else status 1.")
def run(
    only: tuple[str, ...],
    count: int,
    seed: int,
    bench: str,
    revision: str,
    processes: int,
    tests: tuple[str, ...],
    results: Path | None,
    first: float,
    budget: float,
    at_least: float,
    *,
    journeys: bool,
) -> None:
    """Try the changes out, and print what no test notices."""
    with worktree(bench, revision) as tree:
        folder = _map_folder(tree, tests)
        if TestMap.is_complete(folder):
            known = TestMap(tree, folder)
        else:
            click.echo("measuring which tests run which lines", err=True)
            known = TestMap.measure(tree, folder, tests, processes=processes, marks=FAST)
        path = results or PLACE / f"{commit_of(tree)[:12]}.jsonl"
        done = {one.id: one for one in read_results(path)}
        place = Bench(tree, known, first_seconds=first, budget_seconds=budget)
        drawn = draw(tree, count, seed, only)
        for area, mutation in drawn:
            before = done.get(mutation.id)
            if before is not None and before.outcome != ENDED and (before.outcome in KILLED or not journeys):
                continue
            done[mutation.id] = place.try_out(area, mutation, journeys=journeys)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(done[mutation.id])) + "\n")
            one = done[mutation.id]
            click.echo(f"{one.outcome:<10}{one.seconds:>7.1f} s  {one.id}  {one.by}", err=True)
    found = [done[mutation.id] for _, mutation in drawn]
    click.echo(summary(found))
    killed = sum(one.outcome in KILLED for one in found)
    sys.exit(killed < at_least * len(found))


def _map_folder(tree: Path, tests: Sequence[str]) -> Path:
    """Return the folder of a map, which is one of a commit and of the tests that were measured."""
    return PLACE / "-".join(["map", commit_of(tree)[:12], *(name.strip("/").replace("/", ".") for name in tests)])


if __name__ == "__main__":
    main()
