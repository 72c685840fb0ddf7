"""``easeml study`` and ``easeml tenant``: list, show, register and change studies and tenants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.actions.studies import RegisterStudy
from easeml_core.cli.actions import action_options
from easeml_core.cli.connection import (
    OWNER,
    STUDY,
    installation_options,
    key_option,
    new_key,
    open_installation,
    open_store,
    store_options,
    wait_for_answer,
)
from easeml_core.cli.operations.archive import STUDY_COMMANDS, TENANT_COMMANDS, show_archived
from easeml_core.cli.output import cell, example, plain, short, show_json, show_table
from easeml_core.errors import counted
from easeml_core.formats.encoding import row_of
from easeml_core.settings.limits import PRIORITY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.entities import Parameters
    from easeml_core.services.reports.overview import CandidateEntry, Goal, StudyEntry
    from easeml_core.services.studies.columns import StudyColumns
    from easeml_core.services.studies.limits import StudyLimits, TenantReport


_PRIORITY = f"From {PRIORITY.least} to {PRIORITY.most}"


def changes_of(given: Parameters, flags: Mapping[str, str]) -> Parameters:
    """Return the settings that options name: a value, or None for those that a ``--no-...`` option removes."""
    changes = {name: value for name, value in given.items() if value is not None and name not in flags}
    for name in (setting for flag, setting in flags.items() if given[flag]):
        if name in changes:
            message = f"--{name.replace('_', '-')} is given and taken away at once; name one of the two"
            raise click.UsageError(message)
        changes[name] = None
    if not changes:
        message = "nothing to change; name at least one option, see --help"
        raise click.UsageError(message)
    return changes


def show_settings(settings: StudyLimits | TenantReport, as_json: bool) -> None:
    """Print the present settings, one a line."""
    if as_json:
        show_json(settings)
        return
    for key, value in row_of(settings).items():
        click.echo(f"{key:>16}  {cell(value)}")


@click.group(epilog=example("easeml tenant list"))
def tenant() -> None:
    """Tenants: who shares the devices, and how much of them each may use."""


for _command in TENANT_COMMANDS:
    tenant.add_command(_command)


@tenant.command("list", epilog=example("easeml tenant list"))
@click.option("--archived", is_flag=True, help="Those that are archived, in place of all others.")
@store_options
def list_tenants(archived: bool, database: str | None, as_json: bool) -> None:
    """List the tenants with their limits and what they use now."""
    from easeml_core.services.studies.limits import list_tenants

    found = [one for one in list_tenants(open_store(database)) if (one.archived_at is not None) == archived]
    columns = {
        "Tenant": "tenant",
        "Studies": "studies",
        "Weight": "weight",
        "Open trials": "open_trials",
        "At most": "max_parallel",
        "Used s": "used_seconds",
        "Reserved s": "reserved_seconds",
        "Quota s": "quota_seconds",
        "Checked": "checked_results",
        "Not held": "not_held",
        "To acknowledge": "unacknowledged",
        "Not run": "unmeasurable",
    }
    show_json(found) if as_json else show_table("Tenants", columns, found)


@tenant.command("set", epilog=example("easeml tenant set garden --weight 2 --max-parallel 4"))
@click.argument("name")
@click.option("--weight", type=float, help="Weight in sharing the devices, > 0; multiplies the studies' weights.")
@click.option("--max-parallel", type=int, help="Open trials at once, over all its studies, >= 1.")
@click.option("--no-max-parallel", is_flag=True, help="As many as there are.")
@click.option("--quota-seconds", type=float, help="Device seconds, over all its studies, > 0.")
@click.option("--no-quota", is_flag=True, help="No limit of device seconds.")
@store_options
def set_tenant(name: str, database: str | None, as_json: bool, **given: Any) -> None:
    """Set what a tenant may use; settings that are not named stay.

    A limit below what the tenant has used and reserved, or of fewer trials than it has open now, is refused.
    """
    from easeml_core.services.studies.limits import set_tenant

    changes = changes_of(given, {"no_max_parallel": "max_parallel", "no_quota": "quota_seconds"})
    show_settings(set_tenant(open_store(database), tenant=name, **changes), as_json)


@tenant.command("acknowledge", epilog=example("easeml tenant acknowledge garden --why 'a wrong metric, mended'"))
@click.argument("name")
@click.option("--why", required=True, help="The reason, of at most 500 characters; the audit has it.")
@click.option("--trial", "trials", type=int, multiple=True, help="Only this trial; repeatable. Default: all of them.")
@store_options
def acknowledge_results(name: str, why: str, trials: tuple[int, ...], database: str | None, as_json: bool) -> None:
    """Acknowledge results of a tenant that did not hold when the referee measured them anew.

    They stay unused; the tenant is flagged no longer, and its studies wait for no operator. A tenant's login may not.
    """
    from easeml_core.services.studies.limits import acknowledge_results

    done = acknowledge_results(open_store(database), tenant=name, why=why, trials=trials)
    text = f"{counted(len(done.trials), 'result')} of {name} acknowledged: trials {', '.join(map(str, done.trials))}"
    show_json(done) if as_json else click.echo(text)


@tenant.command("login", epilog=example("easeml tenant login garden --to garden.url"))
@click.argument("name")
@click.option("--tenant", "tenants", multiple=True, help="Whose rows it has; repeatable. Default: the tenant NAME.")
@click.option("--device", is_flag=True, help="For workers that train for all tenants, in place of a tenant.")
@click.option(
    "--to", type=click.Path(dir_okay=False, path_type=Path), help="Write the address to this file, mode 0600."
)
@store_options
def make_login(
    name: str, tenants: tuple[str, ...], device: bool, to: Path | None, database: str | None, as_json: bool
) -> None:
    """Make a login of the database that sees the rows of one tenant, or give it a new password.

    Needs the address of the role easeml_owner; the embedded server is asked as its superuser. Where that role cannot
    make roles, the SQL for an administrator of the server is shown. The password is shown once, or written with --to.
    """
    from easeml_core.files.local import write_durably
    from easeml_core.services.studies.logins import make_login

    if device and tenants:
        message = "--device and --tenant exclude each other: a worker trains for all tenants"
        raise click.UsageError(message)
    store = open_store(database, role="postgres" if database is None else OWNER)
    of = () if device else tenants or (name.removeprefix("easeml_t_"),)
    made = make_login(store, name=name, tenants=of, device=device)
    address = store.address_of(made.login.login, made.password)
    if to is not None:
        write_durably(to, address + "\n", mode=0o600)
    shown = {**row_of(made.login), "address": address if to is None else str(to)}
    if as_json:
        show_json(shown)
        return
    whose = "trains for all tenants" if device else f"sees the rows of: {', '.join(made.login.tenants)}"
    click.echo(f"{made.login.login} {whose}")
    click.echo(f"its address, shown this once: {address}" if to is None else f"its address is in {to}")
    _show_sql(made.login.sql)


@tenant.command("folder", epilog=example("easeml tenant folder garden --group easeml-garden"))
@click.argument("name")
@click.option(
    "--group", required=True, help="Of the accounts of the tenant's workers, devices, referee and API server."
)
@installation_options
def give_folder(name: str, group: str, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Keep a tenant's models, checkpoints and data from the accounts of other tenants.

    Its folder in the artifact store is made where there is none, belongs to the group, and is closed to all other
    accounts (mode 2770). It gets the owner of the artifact store, and no ACL stays. What lies above it may from then
    on be written by that owner alone (the store's folder gets mode 0711), so that each tenant needs a folder, and a
    group that no other tenant's folder has. Run it as root. In a bucket policies do it: docs/production.md.
    """
    from easeml_core.store.artifacts.tenant_folders import give_folder

    _, place = open_installation(database, artifacts)
    made = give_folder(place, name, group=group)
    text = f"{made.folder}: group {made.group}, mode {made.mode}"
    show_json(made) if as_json else click.echo(text)


@tenant.command("logout", epilog=example("easeml tenant logout garden"))
@click.argument("name")
@click.option("--device", is_flag=True, help="A login of workers that train for all tenants.")
@store_options
def end_login(name: str, device: bool, database: str | None, as_json: bool) -> None:
    """Take a tenant's login away and end its sessions; needs the same role as `easeml tenant login`."""
    from easeml_core.services.studies.logins import end_login

    store = open_store(database, role="postgres" if database is None else OWNER)
    ended = end_login(store, name=name, device=device)
    if as_json:
        show_json(ended)
        return
    click.echo(f"{ended.login} sees no row any more")
    _show_sql(ended.sql)


def _show_sql(sql: tuple[str, ...]) -> None:
    """Print what an administrator of the server has to run."""
    if sql:
        click.echo("this role cannot make or end roles; an administrator of the server runs, in the database easeml:")
        for statement in sql:
            click.echo(f"  {statement};")


_MOST_COLUMNS = 20
_LONGEST_PROGRAM = 300
_EXAMPLES = """\b
Examples:
  easeml study register flowers --tenant garden --source csv:flowers.csv --target species
  easeml study register flats --tenant homes --source csv:flats.csv --target price --metric rmse --hit within:20
  easeml study register mail --tenant office --source csv:mail.csv --target spam \\
    --candidates '[{"name": "tree", "kind": "decision_tree", "parameters": {"max_depth": 5}}]'
  easeml study register leaves --tenant garden --source images:leaves \\
    --candidates '[{"kind": "torch_mlp", "space": {"hidden_width": {".choice": [32, 128]}}}]'
"""


@click.group(epilog=example("easeml study list", "easeml study show flowers"))
def study() -> None:
    """Studies: one model-selection problem of one tenant each."""


for _command in STUDY_COMMANDS:
    study.add_command(_command)


@study.command("list", epilog=example("easeml study list --json", "easeml study list --archived"))
@click.option("--archived", is_flag=True, help="Those that are archived, in place of all others.")
@store_options
def list_(archived: bool, database: str | None, as_json: bool) -> None:
    """List the studies."""
    from easeml_core.services.reports.overview import overview

    if archived:
        show_archived(database, as_json)
        return
    entries = overview(open_store(database)).tenants
    columns = {"Study": "study", "Tenant": "tenant", "State": "state", "Source": "source", "Weight": "weight"}
    columns |= {
        "Priority": "priority",
        "Budget s": "budget_seconds",
        "Deadline": "deadline",
        "Target": "target_quality",
    }
    show_json(entries) if as_json else show_table("Studies", columns, entries)


@study.command(epilog=example("easeml study show flowers"))
@click.argument("name", type=STUDY)
@store_options
def show(name: str, database: str | None, as_json: bool) -> None:
    """Show one study: input columns, classes, candidates, trials, sealed sets (public side), alerts, limits.

    `easeml trial show` has the whole reason of a failure.
    """
    from easeml_core.services.reports.overview import ShownStudy, study_details
    from easeml_core.services.studies.columns import study_columns

    store = open_store(database)
    details, inputs = study_details(store, study=name), study_columns(store, name)
    if as_json:
        show_json(ShownStudy(**row_of(details), **row_of(inputs)))
        return
    summary = details.summary
    click.echo(f"{name} of {summary.tenant}: {summary.state}; next: {summary.next}")
    lines = [*_goal(details.goal), *_limits(summary), *_inputs_and_classes(inputs)]
    for line in [*lines, _candidates(details.candidates), *map(plain, details.waiting)]:
        click.echo(line)
    columns: dict[str, str | Callable[[Any], object]] = {
        "Trial": "trial_id",
        "Candidate": "candidate",
        "State": "state",
        "Quality": "quality",
        "Cost s": "cost_seconds",
        "Model": "model_id",
        "Failure": lambda trial: short(trial.failure),
    }
    show_table("Trials", columns, details.trials)
    sets = {"Set": "id", "For": "purpose", "State": "state", "Rows": "rows", "Steps": "steps"}
    show_table("Sealed sets", sets, details.sealed_sets)
    for alert in details.alerts:
        click.echo(f"alert: {alert}")


def _goal(goal: Goal) -> list[str]:
    """Return the target, the metric, and the rule of gate and meter for a right answer."""
    right = "" if goal.hit == "accuracy" else f"; an answer is right {goal.hit.replace(':', ' ')}"
    lines = [f"{goal.task}; candidates are compared by {goal.metric}{right}"]
    program = goal.program or ""
    shown = program if len(program) <= _LONGEST_PROGRAM else f"{program[:_LONGEST_PROGRAM]}... (--json has all)"
    return lines + ([f"program: {shown}"] if program else [])


def _inputs_and_classes(inputs: StudyColumns) -> list[str]:
    """Return a model's inputs and outputs; the first columns only, since there may be thousands."""
    from easeml_core.services.studies.columns import class_numbers

    if inputs.features is None:
        return []
    names = inputs.columns
    if names is None:
        columns = f"columns: {inputs.features:,}; their names were not kept"
    else:
        more = f" and {len(names) - _MOST_COLUMNS:,} more (--json has all)" if len(names) > _MOST_COLUMNS else ""
        columns = f"columns: {', '.join(names[:_MOST_COLUMNS])}{more}"
    # One line each, whatever stands in a name.
    lines = [columns] + ([f"classes: {class_numbers(inputs.classes)}"] if inputs.classes else [])
    return [" ".join(plain(line).split("\n")) for line in lines]


def _candidates(candidates: list[CandidateEntry]) -> str:
    """Return their names, the first ones only, since there may be a thousand."""
    names = ", ".join(candidate.name for candidate in candidates[:_MOST_COLUMNS]) or "none"
    more = len(candidates) - _MOST_COLUMNS
    return plain(f"candidates: {names}" + (f" and {more:,} more (--json has all)" if more > 0 else ""))


def _limits(summary: StudyEntry) -> list[str]:
    """Return one line for each limit that the study or its tenant has."""
    used, reserved = summary.device_seconds, summary.reserved_seconds
    lines = [
        (summary.priority, f"priority {summary.priority}"),
        (
            summary.budget_seconds,
            f"compute budget {summary.budget_seconds} s: {used:,.1f} used, {reserved:,.1f} reserved",
        ),
        (summary.deadline, f"deadline {summary.deadline and summary.deadline.isoformat()}"),
        (summary.target_quality, f"target quality {summary.target_quality}"),
        (
            summary.tenant_quota_seconds,
            f"quota of the tenant {summary.tenant_quota_seconds} s: "
            f"{summary.tenant_charged_seconds:,.1f} used or reserved",
        ),
        (
            summary.tenant_max_parallel,
            f"open trials of the tenant {summary.tenant_open_trials}, at most {summary.tenant_max_parallel}",
        ),
    ]
    return [line for limit, line in lines if limit]


@study.command(epilog=_EXAMPLES)
@action_options(RegisterStudy, arguments=["study"], files=["program"], leaves=["keep"])
@key_option
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the referee's answer.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait at most.")
@store_options
def register(
    request: RegisterStudy, database: str | None, as_json: bool, wait: bool, timeout: float, request_key: str | None
) -> None:
    """Register a study; the referee splits its data, seals some parts, and activates it.

    A study that is refused is registered again, corrected, under the same name.

    Exit status: 0 registered, 1 refused by the referee (unless --no-wait), 2 any error.
    """
    from msgspec import UNSET

    from easeml_core.services.referee.place_in_queue import place_of, place_text
    from easeml_core.services.referee.requests import Registration
    from easeml_core.services.registration.register import register_study

    store = open_store(database)
    filed = register_study(store, request, request_key=new_key(request_key))
    if wait:
        click.echo(f"request {filed.request_id} waits for the referee, at most {timeout:g} s", err=True)
    answer = wait_for_answer(store, filed.request_id, timeout) if wait else None
    place = UNSET if wait else place_of(store, filed.request_id)
    if as_json:
        show_json(Registration(**row_of(filed), answer=answer, place=place))
    elif answer is not None:
        click.echo(answer.message)
    else:
        ahead = f"; {place_text(place)}" if place else ""
        click.echo(f"registered; request {filed.request_id} waits for the referee{ahead}")
    if answer and answer.refused:
        raise SystemExit(1)


@study.command("set", epilog=example("easeml study set flowers --budget 7200 --deadline 2030-08-01T18:00"))
@click.argument("name", type=STUDY)
@click.option("--weight", type=float, help="Weight in sharing the devices, > 0.")
@click.option("--priority", type=int, help=f"{_PRIORITY}; higher ones come first.")
@click.option("--budget-seconds", "--budget", type=float, help="Device seconds that the study may use, > 0.")
@click.option("--no-budget", is_flag=True, help="No limit of device seconds.")
@click.option("--deadline", metavar="TIME", help="No trial begins that would end later, e.g. 2026-08-01T18:00 (UTC).")
@click.option("--no-deadline", is_flag=True, help="No deadline.")
@click.option("--target-quality", "--target", type=float, help="The study ends once a trial reaches it, > 0 and <= 1.")
@click.option("--no-target", is_flag=True, help="Run every candidate.")
@store_options
def set_(name: str, database: str | None, as_json: bool, **given: Any) -> None:
    """Set a study's weight, priority and limits, also while it runs; settings that are not named stay.

    A budget below what the study has used, and reserved for open trials, is refused.
    """
    from easeml_core.services.studies.limits import set_study

    flags = {"no_budget": "budget_seconds", "no_deadline": "deadline", "no_target": "target_quality"}
    changes = changes_of(given, flags)
    show_settings(set_study(open_store(database), study=name, **changes), as_json)


@study.command(epilog=example("easeml study pause flowers"))
@click.argument("name", type=STUDY)
@store_options
def pause(name: str, database: str | None, as_json: bool) -> None:
    """Give the study no new trials until it is resumed."""
    _set_paused(name, database, as_json, paused=True)


@study.command(epilog=example("easeml study resume flowers"))
@click.argument("name", type=STUDY)
@store_options
def resume(name: str, database: str | None, as_json: bool) -> None:
    """Let a paused study have trials again."""
    _set_paused(name, database, as_json, paused=False)


def _set_paused(name: str, database: str | None, as_json: bool, *, paused: bool) -> None:
    from easeml_core.services.registration.register import pause_study

    state = pause_study(open_store(database), study=name, paused=paused)
    show_json(state) if as_json else click.echo(f"{name} is {state.state}")
