r"""Policies where tenants and devices come and go: how far are the tenants that are present from their best candidates?

    python benchmarks/at_scale/arrivals.py --quality tabzilla18.csv --cost tabzilla18-cost.csv \
        --policy default --policy hybrid --devices 16 --json

Tenants of a table are present and away in turn, and so are devices; how long, is exponential. What a tenant has learnt
stays while it is away, and its results are part of the past for the others. At each arrival and departure of a tenant
the scheduler is made anew from what is known, as the live one is (ADR 0034). A device that goes loses its trial, which
the next free device is given again; the lost time is spent.

All times are compute: seconds of wall time x devices, in percent of the cost of everything, so that a perfect division
among M devices gives the same loss as one device. The loss is the mean over the tenants present, averaged over time.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from easeml_core.selection.problem import Arms, Past, Pending, Problem, Pull
from easeml_core.selection.simulate.protocol import parse_contestants
from easeml_core.selection.simulate.run import ClairvoyantScheduler
from easeml_core.selection.simulate.tables import read_table
from easeml_core.selection.suggestion import scheduler_for
from easeml_core.settings.config import SelectionConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.selection.scheduler_interface import Scheduler
    from easeml_core.selection.simulate.protocol import Contestant
    from easeml_core.selection.simulate.tables import Table

END, TENANT, DEVICE = range(3)
"""Kinds of event, in the order in which those of one moment happen."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How long who stays; all in percent of the cost of everything, infinite for ever.

    Attributes:
        devices: M >= 1.
        until: When a repeat ends.
        tenant_stays: Mean time for which a tenant is present, and
        tenant_away: is away; it begins present with the probability that these give.
        device_stays: Mean time for which a device is up, and
        device_away: is down; all begin up.
    """

    devices: int
    until: float
    tenant_stays: float
    tenant_away: float
    device_stays: float
    device_away: float


@dataclass(frozen=True, slots=True)
class Met:
    """What happened in one repeat.

    Attributes:
        loss: Mean over the tenants present, averaged over time.
        last_loss: The same over the last half.
        trials: Finished ones.
        lost: Trials that went with their device.
        changes: Arrivals and departures of tenants.
        up: Share of the devices' time in which they were up.
    """

    loss: float
    last_loss: float
    trials: int
    lost: int
    changes: int
    up: float


@dataclass
class Fleet:
    """One repeat under one policy.

    Attributes:
        now: Wall time.
        events: (time, kind, number, generation): an end of a device's trial, or a tenant or device that comes or goes.
        running: Trial of each busy device, as tenant and arm.
        left: Trials whose device went, to be given again.
        results: Finished trials, as tenant and arm, in the order of their ends.
        joined: Finished trials when each tenant came last.
    """

    table: Table
    contestant: Contestant
    setting: Setting
    rng: np.random.Generator
    now: float = 0.0
    events: list[tuple[float, int, int, int]] = field(default_factory=list)
    running: dict[int, tuple[int, int]] = field(default_factory=dict)
    left: list[tuple[int, int]] = field(default_factory=list)
    results: list[tuple[int, int]] = field(default_factory=list)
    joined: dict[int, int] = field(default_factory=dict)
    lost: int = 0
    changes: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)
    _scheduler: Scheduler | None = None

    def __post_init__(self) -> None:
        """Let the first tenants come, and all devices."""
        n, setting = len(self.table.tenants), self.setting
        self.arms = [np.flatnonzero(~np.isnan(row)) for row in self.table.quality]
        self.quality = [row[arms] for row, arms in zip(self.table.quality, self.arms, strict=True)]
        self.cost = [row[arms] for row, arms in zip(self.table.cost, self.arms, strict=True)]
        self.best, self.optimum = np.zeros(n), np.array([quality.max() for quality in self.quality])
        self.percent = sum(cost.sum() for cost in self.cost) / 100 / setting.devices
        """Wall time of one percent."""
        self.generation = [0] * setting.devices
        self.up = [True] * setting.devices
        self.up_time = 0.0
        share = (
            1.0
            if np.isinf(setting.tenant_stays)
            else setting.tenant_stays / (setting.tenant_stays + setting.tenant_away)
        )
        self.present = self.rng.random(n) < share
        for tenant in range(n):
            self._later(TENANT, tenant, setting.tenant_stays if self.present[tenant] else setting.tenant_away)
        for device in range(setting.devices):
            self._later(DEVICE, device, setting.device_stays)

    def _later(self, kind: int, number: int, mean: float) -> None:
        drawn = self.rng.exponential()  # drawn always: two settings with one seed differ in nothing else
        if not np.isinf(mean):
            heapq.heappush(self.events, (self.now + drawn * mean * self.percent, kind, number, 0))

    def run(self) -> Met:
        """Let everything happen until the end."""
        end = self.setting.until * self.percent
        while True:
            self._hand_out()
            moment = min(self.events[0][0] if self.events else end, end)
            here = self.optimum[self.present] - self.best[self.present]
            self.losses.append((moment - self.now, float(here.mean()) if len(here) else 0.0))
            self.up_time += (moment - self.now) * sum(self.up)
            self.now = moment
            if moment >= end:
                return self._met()
            while self.events and self.events[0][0] == moment:
                self._happen(*heapq.heappop(self.events)[1:])

    def _happen(self, kind: int, number: int, generation: int) -> None:
        if kind == END:
            self._end(number, generation)
        elif kind == TENANT:
            self._turn(number)
        else:
            self._switch(number)

    def _hand_out(self) -> None:
        for device in range(self.setting.devices):
            if not self.up[device] or device in self.running:
                continue
            if (found := self._next()) is None:
                return
            self.running[device] = found
            self.generation[device] += 1
            tenant, arm = found
            end = self.now + float(self.cost[tenant][arm])
            heapq.heappush(self.events, (end, END, device, self.generation[device]))

    def _next(self) -> tuple[int, int] | None:
        for trial in self.left:
            if self.present[trial[0]]:
                self.left.remove(trial)
                return trial
        if not self.present.any():
            return None
        if self._scheduler is None:
            self._make()
        assert self._scheduler is not None
        choice = self._scheduler.choose()
        if choice is None:
            return None
        index, arm = choice.chosen.tenant, choice.chosen.arm
        self._scheduler.start(index, arm)
        return int(self.here[index]), arm

    def _make(self) -> None:
        """Make the scheduler from what is known, as a load does."""
        self.here = np.flatnonzero(self.present)
        place = {int(tenant): index for index, tenant in enumerate(self.here)}
        under_way = [t for t in (*self.left, *(self.running[d] for d in sorted(self.running))) if t[0] in place]
        if self.contestant.config is None:
            self._scheduler = ClairvoyantScheduler(
                [self.quality[t] for t in self.here], [self.cost[t] for t in self.here]
            )
            for tenant, arm in (*self.results, *under_way):
                if tenant in place:
                    self._scheduler.start(place[tenant], arm)
            return
        studies = tuple(
            Arms(int(t), 1.0, self._names(int(t)), study=self.table.tenants[t], joined=self.joined.get(int(t), 0))
            for t in self.here
        )
        away: dict[int, list[int]] = {}
        for tenant, arm in self.results:
            if tenant not in place:
                away.setdefault(tenant, []).append(arm)
        self._scheduler = scheduler_for(
            Problem(
                studies,
                pulls=tuple(
                    Pull(t, k, float(self.quality[t][k]), float(self.cost[t][k]), order=order)
                    for order, (t, k) in enumerate(self.results)
                    if t in place
                ),
                pending=tuple(Pending(t, k) for t, k in under_way),
                history=tuple(
                    Past(
                        t,
                        tuple(self._names(t)[k] for k in arms),
                        *(tuple(a[t][arms].tolist()) for a in (self.quality, self.cost)),
                    )
                    for t, arms in away.items()
                ),
            ),
            config=self.contestant.config,
            known_costs={int(t): self.cost[t] for t in self.here},
        )

    def _names(self, tenant: int) -> tuple[str, ...]:
        return tuple(self.table.candidates[arm] for arm in self.arms[tenant])

    def _end(self, device: int, generation: int) -> None:
        if generation != self.generation[device]:
            return  # it went with its device
        tenant, arm = self.running.pop(device)
        self.results.append((tenant, arm))
        self.best[tenant] = max(self.best[tenant], self.quality[tenant][arm])
        if self._scheduler is not None and self.present[tenant]:
            index = int(np.searchsorted(self.here, tenant))
            self._scheduler.record(index, arm, float(self.quality[tenant][arm]), float(self.cost[tenant][arm]))

    def _turn(self, tenant: int) -> None:
        self.present[tenant] = not self.present[tenant]
        self.joined[tenant] = len(self.results)
        self._scheduler = None
        self.changes += 1
        self._later(TENANT, tenant, self.setting.tenant_stays if self.present[tenant] else self.setting.tenant_away)

    def _switch(self, device: int) -> None:
        self.up[device] = not self.up[device]
        if not self.up[device] and (trial := self.running.pop(device, None)) is not None:
            self.left.append(trial)
            self.generation[device] += 1
            self.lost += 1
        self._later(DEVICE, device, self.setting.device_stays if self.up[device] else self.setting.device_away)

    def _met(self) -> Met:
        spans, losses = np.array(self.losses).T
        late = np.clip(np.cumsum(spans) - self.now / 2, 0.0, spans)
        share_up = self.up_time / (self.now * self.setting.devices)
        mean, last = (float(np.average(losses, weights=weights)) for weights in (spans, late))
        return Met(mean, last, len(self.results), self.lost, self.changes, share_up)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quality", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True)
@click.option("--cost", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True)
@click.option("--policy", "policies", multiple=True, default=("default", "hybrid", "roundrobin"), show_default=True)
@click.option("--devices", multiple=True, type=click.IntRange(min=1), default=(1, 16), show_default=True)
@click.option("--until", default=2.0, show_default=True, help="Percent of the cost where a repeat ends.")
@click.option("--tenant-stays", default=0.2, show_default=True, help="Percent; `inf` for ever.")
@click.option("--tenant-away", default=0.2, show_default=True, help="Percent.")
@click.option("--device-stays", default=0.2, show_default=True, help="Percent; `inf` for ever.")
@click.option("--device-away", default=0.05, show_default=True, help="Percent.")
@click.option("--repeats", default=30, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def main(
    quality: Path,
    cost: Path,
    policies: Sequence[str],
    devices: Sequence[int],
    until: float,
    tenant_stays: float,
    tenant_away: float,
    device_stays: float,
    device_away: float,
    repeats: int,
    seed: int,
    *,
    as_json: bool,
) -> None:
    """Run every policy with every number of devices on the same draws."""
    table = read_table(quality, cost)
    contestants = parse_contestants(policies, base=SelectionConfig(), candidates=table.candidates)
    found = []
    for count in devices:
        setting = Setting(count, until, tenant_stays, tenant_away, device_stays, device_away)
        for contestant in contestants:
            met = [
                Fleet(table, contestant, setting, np.random.default_rng([seed, repeat])).run()
                for repeat in range(repeats)
            ]
            means = {name: float(np.mean([getattr(one, name) for one in met])) for name in Met.__dataclass_fields__}
            error = float(np.std([one.loss for one in met], ddof=1) / np.sqrt(repeats)) if repeats > 1 else 0.0
            found.append({"policy": contestant.name, "devices": count, **means, "loss_standard_error": error})
            if not as_json:
                click.echo(
                    " ".join(
                        f"{name} {value:.4g}" if isinstance(value, float) else str(value)
                        for name, value in found[-1].items()
                    )
                )
    if as_json:
        click.echo(json.dumps({"setting": asdict(setting), "repeats": repeats, "seed": seed, "found": found}))


if __name__ == "__main__":
    main()
