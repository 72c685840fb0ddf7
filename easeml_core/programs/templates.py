"""The table of templates: which candidates a program calls for. Read top to bottom; the first row that matches wins.

Source: the ease.ml paper (PVLDB 2018); 5a, 5b, the exact patterns of 5 to 7, and candidates younger than the paper are
ours. Patterns are explained in ``pattern``. A candidate is a name only: what trains it lies elsewhere. Rows of other
distributions come first, in the order of their names: an entry point of the group ``easeml.templates`` leads to a
``Template`` or a sequence of them.

What a program demands of the data of a study is here too: the kind of its rows, their shape, what is to be predicted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.programs.language import parse_pattern
from easeml_core.programs.pattern import Seen, SeenField, as_seen, check_letters, match_patterns
from easeml_core.programs.schema_match import Mismatch, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.programs.data_type import DataType, Program
    from easeml_core.programs.schema import Schema

_NOT_STORED = "data of this shape cannot be brought to a study yet; its rows are tables, images, series or binary trees"

_LINKED = ("series", "tree")  # by the number of links

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Demands:
    """What data a program is about.

    Attributes:
        kind: ``table``, ``image``, ``series`` or ``tree``: as of a layout.
        shape: Sizes that a row must have, ``(height, width, channels)`` of an image, ``(channels,)`` of series or tree;
            None for a table, whose columns may become several numbers, and where a size is not fixed.
        task: Whether classes or numbers are predicted.
        classes: How many; None for numbers, and where it is not fixed.
        target: Kind of layout of an answer of several numbers; empty for one class or number.
        target_shape: Its sizes, of a table ``(numbers,)``; None where they are not fixed.
        are_scores: Whether the output is a tensor of one dimension and more than one number: classes, unless the
            registration says that numbers are predicted (``as_numbers``).
    """

    kind: str
    shape: Sizes | None
    task: Task
    classes: int | None
    target: str = ""
    target_shape: Sizes | None = None
    are_scores: bool = False

    def as_numbers(self) -> Demands:
        """The same where numbers are predicted: scores of classes become several numbers a row."""
        if not self.are_scores:
            return self
        sizes = None if self.classes is None else (self.classes,)
        return replace(self, task=Task.REGRESSION, classes=None, target="table", target_shape=sizes, are_scores=False)


def demands_of(program: Program) -> Demands:
    """What data the program is about.

    One class, or one of so many scores, is predicted, or a single number, or an image or a series. A tensor of several
    numbers as output is the paper's way of writing a class: one score each.

    Example:
        >>> from easeml_core.programs.language import parse_program
        >>> found = demands_of(parse_program("{input: {[Tensor[28,28,1]], []}, output: {[Tensor[10]], []}}"))
        >>> found.kind, found.shape, str(found.task), found.classes
        ('image', (28, 28, 1), 'classification', 10)
    """
    kind, shape = _rows("input", _seen("input", program.input))
    output = _seen("output", program.output)
    target, sizes = _rows("output", output)
    if target == "tree":
        message = f"the output {program.output} is a tree; {_NOT_STORED}, and what is predicted is no tree"
        raise InvalidInputError(message)
    if target != "table":
        return Demands(kind, shape, Task.REGRESSION, None, target, sizes)
    if len(output.fields) != 1:
        message = f"the output {program.output} is neither one class nor one number; {_NOT_STORED}"
        raise InvalidInputError(message)
    size = output.fields[0].dims[0]
    is_tensor = output.fields[0].kind == "Tensor"
    if is_tensor and size == 1:
        return Demands(kind, shape, Task.REGRESSION, None)
    classes = size if isinstance(size, int) else None
    return Demands(kind, shape, Task.CLASSIFICATION, classes, are_scores=is_tensor)


def _seen(side: str, of_program: DataType | Schema) -> Seen:
    seen = as_seen(of_program)
    if isinstance(seen, str):
        message = f"the {side} of the program: {seen}; {_NOT_STORED}"
        raise InvalidInputError(message)
    return seen


def _rows(side: str, seen: Seen) -> tuple[str, Sizes | None]:
    """Kind and sizes of an object, as a layout has them."""
    widths = [_width(field) for field in seen.fields]
    if 1 <= len(seen.links) <= len(_LINKED) and None not in widths:
        return _LINKED[len(seen.links) - 1], (sum(width or 0 for width in widths),)
    dims = seen.fields[0].dims if len(seen.fields) == 1 else ()
    if not seen.links and len(dims) == 3:
        return "image", tuple(size for size in dims if isinstance(size, int)) if _is_fixed(dims) else None
    if not seen.links and all(len(field.dims) == 1 for field in seen.fields):
        return "table", None
    fields = ", ".join(map(str, seen.fields))
    message = f"the {side} has fields {fields} and {len(seen.links)} links; {_NOT_STORED}"
    raise InvalidInputError(message)


def _width(field: SeenField) -> int | None:
    """Numbers of a step; None where it is no list of numbers of a fixed size."""
    if field.kind == "Category" or len(field.dims) != 1 or not isinstance(field.dims[0], int):
        return None
    return field.dims[0]


def _is_fixed(dims: tuple[int | str, ...]) -> bool:
    return all(isinstance(size, int) for size in dims)


ONE_HOT, NUMBERS, SEVERAL = "one-hot", "numbers", "several"
TARGETS = (ONE_HOT, NUMBERS, SEVERAL)
"""What the rows of the target are: all zeros but for a single one, one number, or several that are no scores."""

ONE = f"{ONE_HOT} or {NUMBERS}"
"""Of a workload that answers with one class or number, whichever it is."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of work, and what can do it.

    Attributes:
        name: Of the kind of work.
        candidates: Names of what could be trained, the better known first.
        targets: One of ``TARGETS``, or ``ONE``, where the rows of the target decide; empty where they do not matter.
    """

    name: str
    candidates: tuple[str, ...]
    targets: str = ""

    def __post_init__(self) -> None:
        wrong = [name for name in (self.name, *self.candidates) if not isinstance(name, str) or not name.strip()]
        if not isinstance(self.candidates, tuple) or not self.candidates or wrong:
            message = (
                f"workload {self.name!r}: it has a name and a tuple of names of candidates, got {self.candidates!r}"
            )
            raise InvalidInputError(message)
        if len(set(self.candidates)) < len(self.candidates):
            message = f"workload {self.name!r}: a candidate comes twice in {self.candidates!r}"
            raise InvalidInputError(message)
        check_targets(None if self.targets in ("", ONE) else self.targets)

    def suits(self, targets: str | None) -> bool:
        """Return whether the template fits such rows of the target; unknown rows fit every template."""
        return not (self.targets and targets) or targets in self.targets.split(" or ")


@dataclass(frozen=True, slots=True)
class Template:
    """A row of the table.

    Attributes:
        name: Of the row.
        input: Pattern of the input, as text.
        output: Pattern of the output, as text.
        workloads: What such a program calls for; several only where the rows of the target decide.
    """

    name: str
    input: str
    output: str
    workloads: tuple[Workload, ...]

    def __post_init__(self) -> None:
        check_letters(parse_pattern(self.input), parse_pattern(self.output))
        if not self.workloads:
            message = f"template {self.name!r} has no workload"
            raise InvalidInputError(message)


def check_targets(targets: str | None) -> None:
    """One of ``TARGETS`` or None, or InvalidInputError."""
    if targets is not None and targets not in TARGETS:
        message = f"targets must be one of {', '.join(TARGETS)}, got {targets!r}"
        raise InvalidInputError(message)


GROUP = "easeml.templates"
"""Of the entry points."""


@dataclass(frozen=True, slots=True)
class Matched:
    """What a program calls for.

    Attributes:
        template: The first row that matches; None if none does.
        workloads: Of the row; more than one only while the rows of the target are unknown.
        mapping: What letters and names of its patterns stand for.
        rejected: Name of each row before it, and why that did not match.
    """

    template: Template | None
    workloads: tuple[Workload, ...]
    mapping: Mapping[str, object]
    rejected: tuple[tuple[str, str], ...]


TABLE_CLASSIFIERS = (
    "hist_gradient_boosting",
    "random_forest",
    "extra_trees",
    "logistic_regression",
    "linear_svm",
    "rbf_svm",
    "multilayer_perceptron",
    "nearest_neighbors",
    "gaussian_naive_bayes",
    "decision_tree",
    "linear_discriminant",
    "nearest_centroid",
    "lightgbm",
    "xgboost",
)
TABLE_REGRESSORS = (
    "hist_gradient_boosting",
    "random_forest",
    "extra_trees",
    "ridge_regression",
    "linear_svm",
    "rbf_svm",
    "multilayer_perceptron",
    "nearest_neighbors",
    "decision_tree",
    "lightgbm",
    "xgboost",
)
IMAGE_NETWORKS = (
    "alexnet",
    "resnet",
    "googlenet",
    "squeezenet",
    "vgg",
    "network_in_network",
    "alexnet_batch_norm",
    "mobilenet",
    "efficientnet",
)
SERIES_NETWORKS = ("rnn", "lstm", "bi_lstm", "gru", "cnn_1d", "rocket")

TEMPLATES: tuple[Template, ...] = (
    Template(
        name="1",
        input="{[Tensor[A,B,C]], []}",
        output="{[Tensor[D]], []}",
        workloads=(Workload("image or tensor classification", IMAGE_NETWORKS, targets=ONE),),
    ),
    Template(
        name="2",
        input="{[Tensor[A,B,C]], []}",
        output="{[Tensor[D,E,F]], []}",
        workloads=(Workload("image or tensor recovery", ("auto_encoder", "u_net", "gan", "pix2pix")),),
    ),
    Template(
        name="3",
        input="{[Tensor[A]], [a]}",
        output="{[Tensor[D]], []}",
        workloads=(Workload("time-series classification", SERIES_NETWORKS, targets=ONE),),
    ),
    Template(
        name="4",
        input="{[Tensor[A]], [a]}",
        output="{[Tensor[D]], [b]}",
        workloads=(Workload("time-series translation", ("seq2seq",)),),
    ),
    Template(
        name="5",
        input="{[Tensor[A]], [a,b]}",
        output="{[Tensor[D]], []}",
        workloads=(Workload("tree classification", ("tree_rnn", "tree_kernel_svm"), targets=ONE),),
    ),
    Template(
        name="5a",
        input="{[Tensor[A]+], []}",
        output="{[Category[D]], []}",
        workloads=(Workload("table classification", TABLE_CLASSIFIERS),),
    ),
    Template(
        name="5b",
        input="{[Tensor[A]+], []}",
        output="{[Tensor[D]], []}",
        workloads=(
            Workload("table classification", TABLE_CLASSIFIERS, targets=ONE_HOT),
            Workload("table regression", TABLE_REGRESSORS, targets=NUMBERS),
        ),
    ),
    Template(
        name="6",
        input="*",
        output="{[Tensor[D]], []}",
        workloads=(Workload("general classification", ("bit_rnn",), targets=ONE),),
    ),
    Template(
        name="7",
        input="*",
        output="*",
        workloads=(Workload("general auto-encoder", ("bit_auto_encoder",)),),
    ),
)


def match_program(
    program: Program, templates: Sequence[Template] | None = None, *, targets: str | None = None
) -> Matched:
    """Find the first row that a program matches.

    Args:
        program: In either form.
        templates: The rows, in order; ``load_templates()`` where none are given.
        targets: ``one-hot`` if every row of the target is all zeros but for a single one, ``numbers`` if it is one
            number, ``several`` if it is several numbers that are no scores of classes; None while there are no data,
            and then every workload of the row is listed.

    Raises:
        InvalidInputError: ``targets`` is none of these, or the work was too much.

    Example:
        >>> from easeml_core.programs.language import parse_program
        >>> series = parse_program("{input: {[Tensor[10]], [next]}, output: {[Tensor[3]], []}}")
        >>> found = match_program(series, TEMPLATES)
        >>> found.workloads[0].candidates, dict(found.mapping)
        (('rnn', 'lstm', 'bi_lstm', 'gru', 'cnn_1d', 'rocket'), {'A': 10, 'a': 'next', 'D': 3})
    """
    check_targets(targets)
    steps, rejected = Steps(), []
    for template in load_templates() if templates is None else templates:
        wanted = parse_pattern(template.input), parse_pattern(template.output)
        answer = match_patterns(wanted, program, steps)
        workloads = tuple(w for w in template.workloads if w.suits(targets))
        if isinstance(answer, Mismatch):
            rejected.append((template.name, answer.reason))
        elif not workloads:
            rejected.append((template.name, f"output: the rows of the target are {targets}"))
        else:
            return Matched(template, workloads, answer, tuple(rejected))
    return Matched(None, (), {}, tuple(rejected))


def load_templates() -> tuple[Template, ...]:
    """The rows of installed distributions, in the order of their entry points' names, and then the table.

    Raises:
        InvalidInputError: An entry point leads to something else, or to nothing.
    """
    found: list[Template] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            loaded: object = point.load()
        except (ImportError, AttributeError) as error:
            message = f"the entry point {point.name!r} of {GROUP} cannot be loaded from {point.value!r}: {error}"
            raise InvalidInputError(message) from error
        rows = [loaded] if isinstance(loaded, Template) or not isinstance(loaded, Iterable) else list(loaded)
        for row in rows:
            if not isinstance(row, Template):
                message = f"the entry point {point.name!r} of {GROUP} must lead to templates, got {type(row).__name__}"
                raise InvalidInputError(message)
            found.append(row)
    return (*found, *TEMPLATES)
