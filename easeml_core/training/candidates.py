"""The candidates of a study: from entries with search spaces, from grids of networks, and from a program.

An entry without a space is one candidate. An entry with a space is several::

    {"kind": "random_forest", "space": {"max_depth": {".int": [2, 20]}}, "count": 8}
    {"space": {".choice": [{"kind": "decision_tree", "max_depth": {".int": [2, 9]}}, {"kind": "linear_svm"}]}}

The second chooses the kind as well. The whole space is checked against the rules of its trainers, not only the points
drawn from it, so no seed hides a mistake. A grid makes a network into one candidate for each learning rate of the paper
and each normalisation of images. A program selects the candidates of the template that it matches. Standard library
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from easeml_core.data.program import program_of_data, sizes_of
from easeml_core.entities import Parameters, Task
from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.models.networks.architecture import NORMALISATIONS
from easeml_core.programs.search_space.reader import (
    Choice,
    Constant,
    Group,
    Node,
    RealRange,
    SearchSpace,
    WholeRange,
    data_of,
    parts_of,
    read_space,
    space_of,
)
from easeml_core.programs.templates import NUMBERS, ONE_HOT, SEVERAL, demands_of, match_program
from easeml_core.settings.config import GRIDS
from easeml_core.settings.device_requests import stored_devices
from easeml_core.training.trainers import NOT_TRAINED, TRAINERS, trainer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from easeml_core.data.layout import Layout
    from easeml_core.programs.data_type import Program
    from easeml_core.training.trainer import Trainer


MOST_CANDIDATES = 1000
"""Of one study, so that the scheduler weighs them in a moment; and of one space."""

_FIELDS = {"name", "kind", "parameters", "devices", "space", "count", "seed"}
_BETWEEN = 0.6180339887
"""A place in a range that is no whole number where the ends are."""


def check_spaces(entries: Sequence[Parameters]) -> None:
    """Check the entries that have a space, without making a candidate; standard library and YAML only.

    Example:
        >>> check_spaces([{"kind": "decision_tree", "space": {"max_depth": {".int": [0, 9]}}, "count": 3}])
        Traceback (most recent call last):
        easeml_core.errors.ConfigError: decision_tree.max_depth must be a whole number from 1 to 1,000, got 0
    """
    for entry in entries:
        if _has_space(entry):
            _checked_space(entry)


def expand_candidates(entries: Sequence[Parameters]) -> list[Parameters]:
    """Finite candidates, the same for the same entries on every machine.

    Example:
        >>> space = {"kind": {".choice": ["nearest_centroid", "gaussian_naive_bayes"]}}
        >>> [c["kind"] for c in expand_candidates([{"space": space}])]
        ['nearest_centroid', 'gaussian_naive_bayes']
    """
    found: dict[str, Parameters] = {}
    plain = []
    for entry in entries:
        made = _drawn(entry) if _has_space(entry) else [_plain_entry(entry)]
        for candidate in made:
            # Overlapping spaces give the same candidate under the same name: it is one.
            if not _has_space(entry) or found.setdefault(candidate["name"], candidate) is candidate:
                plain.append(candidate)
        if len(found) > MOST_CANDIDATES:
            message = f"the search spaces give more than {MOST_CANDIDATES:,} candidates; lower a count"
            raise InvalidInputError(message)
    return plain


def _plain_entry(entry: Any) -> Any:
    """The entry itself, a mapping with its devices as they are stored."""
    if not isinstance(entry, Mapping):
        return entry
    devices = stored_devices(f"candidate {entry.get('name')!r}", entry.get("devices"))
    return dict(entry) if devices is None else {**entry, "devices": devices}


def _has_space(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "space" in entry


def _drawn(entry: Parameters) -> list[Parameters]:
    """The candidates of an entry with a space."""
    from easeml_core.programs.search_space.candidate_names import names_of
    from easeml_core.programs.search_space.sampling import candidates_of

    space = _checked_space(entry)
    count = entry.get("count", MOST_CANDIDATES)
    points = [{"kind": entry.get("kind"), **point} for point in candidates_of(space, count, entry.get("seed", 0))]
    fixed = dict(entry.get("parameters") or {})
    devices = stored_devices(f"candidate {entry.get('name')!r}", entry.get("devices"))
    drawn: list[Parameters] = []
    for kind in dict.fromkeys(point["kind"] for point in points):
        own = [{k: v for k, v in point.items() if k != "kind"} for point in points if point["kind"] == kind]
        head = str(entry.get("name") or kind)
        for name, parameters in zip(names_of(own), own, strict=True):
            candidate = {"name": f"{head}-{name}", "kind": kind, "parameters": fixed | parameters}
            drawn.append(candidate if devices is None else candidate | {"devices": devices})
    return drawn


def _checked_space(entry: Parameters) -> SearchSpace:
    unknown = sorted(map(str, set(entry) - _FIELDS))
    if unknown:
        message = f"an entry with a space has the fields {', '.join(sorted(_FIELDS))}, got {unknown[0]!r}"
        raise InvalidInputError(message)
    given = entry["space"]
    space = read_space(given) if isinstance(given, str) else space_of(given)
    fixed = entry.get("parameters") or {}
    if not isinstance(fixed, Mapping):
        message = f"parameters beside a space are a mapping that all its candidates share, got {fixed!r}"
        raise InvalidInputError(message)
    for group in _groups(space.root):
        for kind in _kinds(entry.get("kind"), group):
            _check_group(trainer_of(kind), group, fixed)
    _check_numbers(entry, space)
    return space


def _check_numbers(entry: Parameters, space: SearchSpace) -> None:
    count, seed = entry.get("count"), entry.get("seed", 0)
    if count is None and space.size > MOST_CANDIDATES:
        message = f"a space of more than {MOST_CANDIDATES:,} points needs a count, 1 to {MOST_CANDIDATES:,}: {space}"
        raise InvalidInputError(message)
    if count is not None and not (type(count) is int and 1 <= count <= MOST_CANDIDATES):
        name = "count"
        raise ConfigError(name, count, f"a whole number from 1 to {MOST_CANDIDATES:,}")
    if not (type(seed) is int and 0 <= seed < 2**63):
        name = "seed"
        raise ConfigError(name, seed, "a whole number >= 0, below 2^63")


def _groups(root: Node) -> Iterator[Group]:
    """The mappings of which every point is one; the reader has seen to it that there is nothing else."""
    if isinstance(root, Group):
        yield root
    for option in parts_of(root) if isinstance(root, Choice) else ():
        yield from _groups(option)


def _kinds(kind: object, group: Group) -> list[str]:
    """The kinds that the candidates of a mapping may have."""
    inside = dict(group.entries).get("kind")
    if (inside is None) == (kind is None):
        where = "both beside the space and inside it" if inside else "neither beside the space nor inside it"
        message = f"a candidate needs one kind; it is given {where}, in {_shown(group)}"
        raise InvalidInputError(message)
    found = [kind] if inside is None else list(_values(inside))
    for one in found:
        if not isinstance(one, str):
            message = f"the kind of a trainer is a word, or a .choice of words, got {one!r} in {_shown(group)}"
            raise InvalidInputError(message)
    return [str(one) for one in found]


def _check_group(trainer: Trainer, group: Group, fixed: Parameters) -> None:
    """Every value that a parameter can have is one that its trainer takes."""
    domains = {name: node for name, node in group.entries if name != "kind"}
    twice = sorted(set(domains) & set(fixed))
    if twice:
        message = f"the parameter {twice[0]!r} of {trainer.kind} is given both beside the space and inside it"
        raise InvalidInputError(message)
    first = {name: next(_values(node)) for name, node in domains.items()}
    trainer.parameters({**fixed, **first})  # names, what is required, and sizes
    for name, node in domains.items():
        rule = trainer.rules.get(name)
        for value in _values(node) if rule is not None else ():
            rule.check(f"{trainer.kind}.{name}", value)  # type: ignore[union-attr]  # the loop is empty for None


def _values(node: Node) -> Iterator[Any]:
    """Values that stand for all that a node can have: each constant, and of each range the ends and a place between.

    A rule takes an interval, whole numbers of one, or words; one that takes these values takes all.
    """
    if isinstance(node, Constant):
        yield node.value
    elif isinstance(node, WholeRange):
        yield from (10**end if node.scale == "exp" else end for end in (node.low, node.high))
    elif isinstance(node, RealRange):
        middle = node.low + _BETWEEN * (node.high - node.low)
        yield from (10.0**end if node.scale == "exp" else end for end in (node.low, node.high, middle))
    elif isinstance(node, Choice):
        for option in node.options:
            yield from _values(option)
    else:  # a mapping or a list: only a tenant's own parameters are such
        yield data_of(node)


def _shown(group: Group) -> str:
    text = str(SearchSpace(group))
    return text if len(text) <= 120 else f"{text[:116]}..."


RATES = ("0.1", "0.01", "0.001", "0.0001", "0.00001")
"""Of Adam, in the paper's studies (Li et al., PVLDB 2018)."""


def grid_of(candidate: Parameters, grid: str = "one") -> list[Parameters]:
    """The candidates that a candidate stands for.

    Example:
        >>> [c["name"] for c in grid_of({"name": "resnet", "kind": "resnet"}, "rates")][:2]
        ['resnet-lr0.1', 'resnet-lr0.01']
        >>> grid_of({"name": "resnet", "kind": "resnet"}, "full")[7]["name"]
        'resnet-lr0.01-f0.4'
    """
    if grid not in GRIDS:
        message = f"there is no grid {grid!r}; allowed: {', '.join(GRIDS)}"
        raise InvalidInputError(message)
    rules, given = trainer_of(candidate["kind"]).rules, dict(candidate.get("parameters") or {})
    free = set(rules) - set(given)
    is_network = "epochs" in rules  # boosted trees have a learning rate, too, which means something else
    rates = RATES if grid != "one" and is_network and "learning_rate" in free else ("",)
    normalisations = NORMALISATIONS if grid == "full" and "normalisation" in free else ("",)
    return [
        {"name": "-".join([candidate["name"], *_words(rate, power)]), "kind": candidate["kind"],
         "parameters": {**given, **_changed(rate, power)}}
        for rate, power in product(rates, normalisations)
    ]  # fmt: skip


def _words(rate: str, power: str) -> Iterator[str]:
    """What a name says of them; nothing of the identity."""
    if rate:
        yield f"lr{rate}"
    if power not in ("", "identity"):
        yield f"f{power}"


def _changed(rate: str, power: str) -> Parameters:
    rates = {"learning_rate": float(rate)} if rate else {}
    return {**rates, "normalisation": power} if power else rates


def require_data_of(program: Program, layout: Layout, task: Task, classes: int, target: Layout | None = None) -> None:
    """The data are what the program says."""
    wanted = demands_of(program)
    wanted = wanted.as_numbers() if task == Task.REGRESSION else wanted
    there_target = "" if target is None else target.kind
    for what, asked, there in (
        ("rows", wanted.kind, layout.kind),
        ("the shape of a row", wanted.shape, wanted.shape and sizes_of(layout)),
        ("the task", str(wanted.task), str(task)),
        ("the number of classes", wanted.classes, wanted.classes and classes),
        ("answers", wanted.target or _ONE, there_target or _ONE),
        ("the shape of an answer", wanted.target_shape, sizes_of(target) if wanted.target_shape and target else None),
    ):
        if asked != there:
            message = (
                f"the program and the data differ in {what}: {_said(asked)} in the program, {_said(there)} in the "
                f"data, whose program is {program_of_data(layout, task, classes, target)}; correct the program, or "
                "leave it out"
            )
            raise InvalidInputError(message)


def candidates_of_program(
    program: Program, layout: Layout, task: Task, target: Layout | None = None
) -> list[Parameters]:
    """What the program's template calls for, as far as it can be trained on such data here.

    Example:
        >>> from easeml_core.data.layout import table_layout
        >>> table = program_of_data(table_layout(4), Task.REGRESSION, 0)
        >>> candidates_of_program(table, table_layout(4), Task.REGRESSION)[0]["name"]
        'hist_gradient_boosting'
    """
    one = NUMBERS if task == Task.REGRESSION else ONE_HOT
    matched = match_program(program, targets=one if target is None else SEVERAL)
    if matched.template is None:
        message = f"no template matches the program {program}; name the study's candidates yourself"
        raise InvalidInputError(message)
    names = [name for workload in matched.workloads for name in workload.candidates]
    why_not = {name: _why_not(name, layout, task, target) for name in names}
    fitting = [name for name in names if not why_not[name]]
    if not fitting:
        reasons = "; ".join(f"{name}: {why}" for name, why in why_not.items())
        called = f"nothing that template {matched.template.name} calls for can be trained on these data here"
        message = f"{called}: {reasons}"
        raise InvalidInputError(message)
    return [{"name": name, "kind": name, "parameters": {}} for name in fitting]


def _why_not(kind: str, layout: Layout, task: Task, target: Layout | None) -> str:
    """Why it cannot be trained; empty if it can."""
    trainer = TRAINERS.get(kind)
    if trainer is None:
        return NOT_TRAINED.get(kind, "there is no trainer of that name")
    if not trainer.is_available():
        return f"it needs {trainer.library}: pip install 'easeml-airflow[{trainer.requires}]'"
    return trainer.misfit(layout, task, target)


_ONE = "one class or number"


def _said(value: str | int | Sequence[int] | None) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)
