"""``easeml test-set``, ``ledger`` and ``labels``: sealed sets from plan to release, their answers, their labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    REFEREE,
    STUDY,
    account_name,
    installation_options,
    open_artifacts,
    open_installation,
    open_store,
    store_options,
)
from easeml_core.cli.datasets import NEW_ROWS
from easeml_core.cli.gate_plan import settings_given, settings_options
from easeml_core.cli.operations.archive import confirm
from easeml_core.cli.operations.evidence import keys_option, open_notary
from easeml_core.cli.output import example, plain, show_json, show_table
from easeml_core.errors import counted
from easeml_core.formats.csv_text import GuardedWriter
from easeml_core.settings.config import GateConfig, JointConfig, MeterConfig

if TYPE_CHECKING:
    from easeml_core.cli.output import Columns
    from easeml_core.services.labeling.requests import Conflict, WantedLabels
    from easeml_core.services.test_sets.answers import ShownEntry
    from easeml_core.services.test_sets.lifecycle import ShownSet
    from easeml_core.settings.config import SetConfig


_FILE = click.Path(dir_okay=False, path_type=Path)
_study_option = click.option("--study", type=STUDY, help="Its study, where several have a set of this name.")


@click.group("test-set", epilog=example("easeml test-set list --study flowers"))
def test_set() -> None:
    """Test sets: planned, sealed, live, retired, released.

    The address of plan, seal, retire and release is that of the role easeml_referee.
    """


@test_set.command("list", epilog=example("easeml test-set list --study flowers"))
@click.option("--study", type=STUDY, help="Of this study only.")
@store_options
def list_(study: str | None, database: str | None, as_json: bool) -> None:
    """List test sets, newest first, without sealed facts."""
    from easeml_core.services.test_sets.lifecycle import list_test_sets

    found = list_test_sets(open_store(database), study=study)
    if as_json:
        show_json(found)
        return
    columns: Columns = {
        "Set": "test_set_id",
        **({} if study else {"Study": "study"}),
        "Name": "name",
        "For": "purpose",
        "State": "state",
        "Examples": "rows",
        "Steps used": _used,
    }
    show_table("Test sets", columns, found)
    for one in found:
        plan = _plan_words(one.plan, labels_on_demand=one.labels_on_demand)
        click.echo(plain(f"{one.name or one.test_set_id}: {plan}{_end(one)}"))


def _end(found: ShownSet) -> str:
    """Return why the set gives no further answer; empty while it may."""
    from easeml_core.services.test_sets.lifecycle import WHY

    why = found.retired_why
    return f"; ended: {WHY.get(why, why)}" if why else ""


def _used(found: ShownSet) -> str:
    """Return how many steps are used of how many; by system where two draw on the set."""
    counts = {name: f"{count.steps_used}/{count.steps}" for name, count in found.systems.items()}
    return ", ".join(f"{name} {text}" if len(counts) > 1 else text for name, text in counts.items())


def _steps(found: ShownSet) -> str:
    """Return how many steps the set has; by system where two draw on it."""
    by_system = " and ".join(f"{count.steps} of the {name}" for name, count in found.systems.items())
    return counted(found.steps, "step") + (f" ({by_system})" if len(found.systems) > 1 else "")


def _plan_words(plan: SetConfig, *, labels_on_demand: bool) -> str:
    if isinstance(plan, JointConfig):
        return "; ".join(_plan_words(part, labels_on_demand=labels_on_demand) for part in (plan.gate, plan.meter))
    if isinstance(plan, MeterConfig):
        return f"ranges {list(plan.ranges)}, tolerance {plan.tolerance}"
    labels = ", labels on demand" if labels_on_demand else ""
    slices = "".join(f"; {name}: {condition}" for name, condition in plan.slices)
    return f"{plan.condition}, {plan.adaptivity}{labels}{slices}"


@test_set.command(epilog=example("easeml test-set plan --study flowers --name spring --steps 8"))
@click.option("--study", type=STUDY, required=True, help="Whose set it will be.")
@click.option("--name", required=True, help="Name of the set; sealing examples under it fulfils the plan.")
@settings_options
@store_options
def plan(study: str, name: str, database: str | None, as_json: bool, **given: Any) -> None:
    """Announce publicly which set a study needs next, and how many examples."""
    from easeml_core.services.test_sets.lifecycle import plan_test_set
    from easeml_core.services.test_sets.planning import labels_of_submissions

    store = open_store(database, role=REFEREE)
    settings = settings_given(**given)
    found = plan_test_set(store, study=study, name=name, purpose=given["purpose"] or "gate", settings=settings)
    text = f"set {name} of {study} is planned: at least {counted(found.rows, 'example')} for {_steps(found)}"
    words = labels_of_submissions(found.plan, found.rows) if isinstance(found.plan, GateConfig) else None
    text += f"\n  {words}" if words else ""
    show_json(found) if as_json else click.echo(text)


@test_set.command(
    epilog="\b\nExamples:\n  easeml test-set seal --study flowers --name spring --inputs new.csv --labels truth.csv"
    "\n  easeml test-set seal --study digits --inputs images-by-class/"
)
@click.option("--study", type=STUDY, required=True, help="Whose set it will be.")
@click.option("--name", help="Name of the set; of a planned one, the plan is fulfilled. Default: none.")
@click.option("--inputs", type=click.Path(path_type=Path), required=True, help=NEW_ROWS)
@click.option(
    "--labels",
    type=_FILE,
    help="CSV: example,label. Default: those that the inputs have, else labels are asked for when they are needed.",
)
@click.option("--slices", "slices_column", metavar="COLUMN", help="Column of the inputs that tells the slice.")
@settings_options
@installation_options
def seal(artifacts: str | None, database: str | None, as_json: bool, **given: Any) -> None:
    """Seal new examples for a study; live at once, or after the set that is live now."""
    from easeml_core.services.test_sets.upload import seal_test_set

    place = open_installation(database, artifacts, role=REFEREE)
    own = {name: given.pop(name) for name in ("study", "name", "inputs", "labels", "slices_column")}
    found = seal_test_set(*place, **own, purpose=given["purpose"], settings=settings_given(**given))
    if as_json:
        show_json(found)
        return
    for warning in found.warnings:
        click.echo(f"easeml: {plain(warning)}", err=True)
    again = "was sealed before and " if found.sealed_before else ""
    needed = "" if found.sealed_before else f"{found.needed:,} needed, "  # a sealed set keeps its plan
    click.echo(
        f"set {found.name or found.test_set_id} of {found.study} {again}is {found.state}: {found.rows:,} "
        f"examples, {needed}{_steps(found)}" + (plain(f"; {found.when_live}") if found.when_live else "")
    )


@test_set.command(epilog=example("easeml test-set retire spring"))
@click.argument("handle", metavar="SET")
@_study_option
@click.option(
    "--why",
    type=click.Choice(["by hand", "steps", "changes", "tolerance", "signals"]),
    default="by hand",
    show_default=True,
    help="Public; of a set that ends by hand no pass can be promoted any more.",
)
@store_options
def retire(handle: str, study: str | None, why: str, database: str | None, as_json: bool) -> None:
    """Retire a set; the oldest one that waits becomes live."""
    from easeml_core.services.test_sets.lifecycle import retire_test_set

    found = retire_test_set(open_store(database, role=REFEREE), test_set=handle, study=study, why=why)
    live = "no set is live now" if found.live is None else f"set {found.live} is live now"
    show_json(found) if as_json else click.echo(f"set {handle} is {found.state}; {live}")


@test_set.command(epilog=example("easeml test-set overlaps --retire"))
@click.option("--retire", "is_asked", is_flag=True, help="End the life of each set that is listed.")
@installation_options
def overlaps(is_asked: bool, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """List sets in use whose rows are open in another study: of databases from before rows were registered."""
    from easeml_core.services.test_sets.lifecycle import retire_overlapping

    store = open_store(database, role=REFEREE)
    found = retire_overlapping(store, open_artifacts(artifacts, store), retire=is_asked)
    if as_json:
        show_json(found)
        return
    for one in found:
        done = "; retired" if is_asked else ""
        click.echo(f"set {one.test_set} of {one.study}: {one.shown:,} of {one.rows:,} rows are open elsewhere{done}")
    if not found:
        click.echo("no set in use has rows that are open in another study")


@test_set.command(epilog=example("easeml test-set release spring"))
@click.argument("handle", metavar="SET")
@_study_option
@installation_options
def release(handle: str, study: str | None, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Release the examples of a retired set to all users."""
    from easeml_core.services.test_sets.release import release_test_set

    store = open_store(database, role=REFEREE)
    found = release_test_set(store, open_artifacts(artifacts, store), test_set=handle, study=study)
    text = f"set {handle} is {found.state}; `easeml test-set fetch {handle} --to FILE.npz` brings its examples"
    show_json(found) if as_json else click.echo(text)


@test_set.command(epilog=example("easeml test-set delete spring --why 'the wrong file' --dry-run"))
@click.argument("handle", metavar="SET")
@_study_option
@click.option("--why", required=True, help="The reason, of at most 500 characters; audit and chain keep it.")
@click.option("--dry-run", is_flag=True, help="Check it; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for a confirmation.")
@keys_option
@store_options
def delete(
    handle: str, study: str | None, why: str, dry_run: bool, yes: bool, keys: Path, database: str | None, as_json: bool
) -> None:
    """Delete a set that never served: its rows, labels and predictions; its name is free again.

    A live set is retired first. One that has answered anything stays, since evidence rests on it: retire it, and
    release it where its rows shall be public. The rows of a deleted set stay known to the installation: no study opens
    them, and no set takes them again.
    """
    from easeml_core.services.test_sets.release import delete_test_set

    confirm(f"delete test set {handle} for good?", yes=yes, dry_run=dry_run, as_json=as_json)
    notary = open_notary(database, keys)
    done = delete_test_set(notary, test_set=handle, study=study, who=account_name(), why=why, dry_run=dry_run)
    state = "would be deleted" if dry_run else "is deleted" if done.changed else "is deleted already"
    show_json(done) if as_json else click.echo(plain(f"set {handle} of {done.study} {state}: {done.rows:,} examples"))


@test_set.command(epilog=example("easeml test-set fetch spring --to validation.csv"))
@click.argument("handle", metavar="SET")
@click.option("--to", type=_FILE, required=True, help="File to write: .npz with arrays, or .csv.")
@_study_option
@installation_options
def fetch(handle: str, to: Path, study: str | None, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Write a released set into a file, as data to validate on."""
    from easeml_core.services.test_sets.release import fetch_test_set

    found = fetch_test_set(*open_installation(database, artifacts), test_set=handle, to=to, study=study)
    text = f"{found.file}: {counted(found.rows, 'example')}, {found.labelled:,} with a label"
    show_json(found) if as_json else click.echo(text)


@click.command(epilog=example('easeml ledger flowers --database "$(easeml db url --role easeml_referee)"'))
@click.argument("study", type=STUDY)
@store_options
def ledger(study: str, database: str | None, as_json: bool) -> None:
    """Show every answer of STUDY's sealed sets: step, models, verdict, price in nats, isolation of the run.

    The address is that of the role easeml_referee. Developers must not see this. --json has more: condition, level,
    what later steps lose, changes, times, and the "isolation": the account that the model ran under and what it was
    "kept_from".
    """
    from easeml_core.services.test_sets.answers import study_ledger

    found = study_ledger(open_store(database, role=REFEREE), study=study)
    if as_json:
        show_json(found)
        return
    columns: Columns = {
        "Set": "test_set_id",
        "Step": lambda entry: f"{entry.system} {entry.step}",
        "Model": _compared,
        "Verdict": "verdict",
        "Released": "released",
        "Nats": lambda entry: f"{entry.log_cost:.2f}",
        "Ran": _ran,
    }
    show_table(f"Ledger of {study}", columns, found)


def _compared(entry: ShownEntry) -> str:
    against = "" if entry.incumbent_id is None else f" vs {entry.incumbent_id}"
    return f"{entry.model_id}{against}"


def _ran(entry: ShownEntry) -> str:
    """Return how the model was isolated, in a few words."""
    if entry.isolation is None:
        return ""
    reached = list(entry.isolation.reaches())
    if not entry.isolation.account:
        reached.insert(0, "the referee's account")
    return f"reaches {', '.join(reached)}" if reached else "cut off"


_set_option = click.option("--set", "test_set", metavar="SET", help="Name or number; default: the live gate set.")


@click.group(epilog=example("easeml labels wanted flowers --to wanted.csv"))
def labels() -> None:
    """Labels of sealed examples, requested when a verdict needs them.

    The address is that of the role easeml_referee.
    """


@labels.command(epilog=example("easeml labels wanted flowers --to wanted.csv"))
@click.argument("study", type=STUDY)
@_set_option
@click.option("--labeler", metavar="NAME", help="Leave out what this labeler has given; default: what any has.")
@click.option("--limit", default=200, show_default=True, help="Examples at most.")
@click.option("--to", type=_FILE, help="CSV file to write; default: CSV on standard output.")
@store_options
def wanted(to: Path | None, database: str | None, as_json: bool, **given: Any) -> None:
    """Write the examples whose labels are wanted, in the set's fixed order."""
    from easeml_core.services.labeling.requests import wanted_labels

    found = wanted_labels(open_store(database, role=REFEREE), **given, to=to)
    if as_json:
        show_json(found)
    elif to is not None:
        click.echo(f"{to}: {len(found.examples):,} of {found.wanted:,} examples whose labels are wanted")
    else:
        _show_csv(found)


def _show_csv(found: WantedLabels) -> None:
    text = io.StringIO()
    writer = GuardedWriter(text)
    writer.row(["example", *found.columns])
    for entry in found.examples:
        writer.row([entry.example, *entry.inputs])
    click.echo(plain(text.getvalue()), nl=False)


@labels.command(epilog=example("easeml labels give --study flowers --labeler ann ann.csv"))
@click.option("--study", type=STUDY, required=True, help="Whose test set is labelled.")
@click.option("--labeler", required=True, metavar="NAME", help="Who says so; referee settles conflicts.")
@_set_option
@click.argument("file", type=_FILE)
@store_options
def give(study: str, labeler: str, test_set: str | None, file: Path, database: str | None, as_json: bool) -> None:
    """Give the labels of FILE, a CSV example,label with class names or indices; all of them or none."""
    from easeml_core.services.labeling.requests import give_labels

    store = open_store(database, role=REFEREE)
    found = give_labels(store, study=study, labeler=labeler, labels=file, test_set=test_set)
    if as_json:
        show_json(found)
        return
    click.echo(
        f"labels: {found.new:,} new, {found.replaced:,} replaced, {found.unchanged:,} known; "
        f"{found.wanted:,} still wanted, {found.conflicts:,} in conflict"
    )
    if found.conflicts:
        click.echo("what is in conflict waits for the labeler referee; see `easeml labels conflicts`")


@labels.command(epilog=example("easeml labels conflicts flowers"))
@click.argument("study", type=STUDY)
@_set_option
@store_options
def conflicts(study: str, test_set: str | None, database: str | None, as_json: bool) -> None:
    """List the examples on which two labelers differ; the labeler referee decides them."""
    from easeml_core.services.labeling.requests import label_conflicts

    found = label_conflicts(open_store(database, role=REFEREE), study=study, test_set=test_set)
    if as_json:
        show_json(found)
        return
    show_table("Conflicts", {"Example": "example", "Said": _said}, found.conflicts)


def _said(conflict: Conflict) -> str:
    return ", ".join(f"{who}: {said}" for who, said in conflict.labels.items())


@labels.command(epilog=example("easeml labels unsure flowers", "easeml labels unsure flowers --again"))
@click.argument("study", type=STUDY)
@_set_option
@click.option("--again", is_flag=True, help="Ask about all of them once more, those who could not tell included.")
@store_options
def unsure(study: str, test_set: str | None, again: bool, database: str | None, as_json: bool) -> None:
    """List examples that labelers passed and that have no label; the referee adjudicates them."""
    from easeml_core.services.labeling.adjudication import list_unsure

    found = list_unsure(open_store(database, role=REFEREE), study=study, test_set=test_set, again=again)
    if as_json:
        show_json(found)
        return
    show_table("Unsure", {"Example": "example", "Labelers who passed": lambda e: str(e.passed)}, found.unsure)
    if again:
        click.echo(f"asked again: {counted(found.asked, 'word')} taken back")
