"""What row-level security costs: suggestions, the overview and a page's queries with the rules and without, in one run.

    python benchmarks/row_rules.py --studies 500 --trials 40

A separate server is filled by SQL and thrown away. Each round asks with the rules, without them, and, for what a tenant
reads, as the login of a tenant with its own part of the rows; the order changes from round to round. What counts is
the ratio of the processor times of this process and the server.
"""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

import click
import psutil
from pages import Meter, fill

from easeml_core.cli.output import show_json
from easeml_core.services.reports.overview import overview
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.logins import make_login
from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.rows import rows
from easeml_core.store.server.server import throwaway_server

if TYPE_CHECKING:
    from collections.abc import Callable

_LIST = "SELECT t.id, t.state, o.quality FROM work.trials t LEFT JOIN work.observations o ON o.trial_id = t.id"


def with_rules(owner: Store, *, on: bool) -> None:
    """Switch the row rules of all tables of ``work`` on or off."""
    with owner.begin() as tx:
        tables = rows(tx, "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'work'")
        for table in tables:
            tx.exec_driver_sql(f"ALTER TABLE work.{table.name} {'ENABLE' if on else 'DISABLE'} ROW LEVEL SECURITY")


def ratio(meter: Meter, view: str, on: str, off: str) -> float:
    """The median over the rounds of the processor time of one view with rules by that without."""
    used = {how: [f["processor_ms"] for f in meter.found if f["view"] == f"{view}, {how}"] for how in (on, off)}
    return float(statistics.median(a / b for a, b in zip(used[on], used[off], strict=True)))


@click.command()
@click.option("--studies", default=500, show_default=True)
@click.option("--trials", default=40, show_default=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--calls", default=20, show_default=True, help="Of each view in a round.")
def main(studies: int, trials: int, rounds: int, calls: int) -> None:
    """Measure, and print the ratios as JSON."""
    with throwaway_server() as server:
        server.ensure_installation()
        owner, worker = (Store(server.url(f"easeml_{role}", "easeml")) for role in ("owner", "worker"))
        schema.upgrade(owner)
        fill(owner, studies=studies, trials=trials)
        with owner.begin() as tx:
            (one,) = rows(tx, "SELECT pg_backend_pid() AS pid")
            names = [r.name for r in rows(tx, "SELECT name FROM work.tenants ORDER BY id LIMIT 10")]
        administrator = Store(server.url("postgres", "easeml"))
        made = make_login(administrator, name="measured", tenants=names)
        tenant = Store(owner.address_of(made.login.login, made.password))
        meter, keys = Meter(worker, psutil.Process(one.pid).ppid()), (f"k/{k}" for k in itertools.count())

        def suggest() -> None:
            suggest_trials(worker, count=1, request_key=next(keys))

        def own(store: Store, where: str) -> Callable[[], None]:
            def look() -> None:
                with store.begin() as tx:
                    rows(tx, _LIST + where)

            return look

        ids = "(SELECT s.id FROM work.studies s JOIN work.tenants n ON n.id = s.tenant_id WHERE n.name = ANY (%s))"
        quoted = ", ".join(f"'{name}'" for name in names)
        of_names = " WHERE t.study_id IN " + ids.replace("%s", f"ARRAY[{quoted}]")
        overview(worker)
        suggest()
        for number in range(rounds):
            for on in (True, False) if number % 2 else (False, True):
                with_rules(owner, on=on)
                how = "rules" if on else "no rules"
                for view, call in (("suggestion", suggest), ("overview", lambda: overview(worker))):
                    call()
                    meter.time(f"{view}, {how}", call, repeats=calls)
                if on:
                    meter.time("own trials, rules", own(tenant, ""), repeats=calls)
                else:
                    meter.time("own trials, no rules", own(worker, of_names), repeats=calls)
        views = ("suggestion", "overview", "own trials")
        show_json({view: round(ratio(meter, view, "rules", "no rules"), 3) for view in views})
        for store in (owner, worker, tenant, administrator):
            store.close()


if __name__ == "__main__":
    main()
