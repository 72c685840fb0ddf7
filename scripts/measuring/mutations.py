"""Single small changes of a Python file, each of which a test should notice.

A change replaces a piece of text that belongs to one node of the syntax tree, so that the rest of the file, line
numbers included, stays as it is. Left alone is what cannot matter to a test: annotations, decorators, docstrings,
``__all__``, log lines, and what only type checkers read.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"),
    ast.Pow: (r"\*\*", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: (r"\|", "&"),
}
SQL = (
    (r"\bAND\b", "OR"),
    (r"\bOR\b", "AND"),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bNOT EXISTS\b", "EXISTS"),
    (r"(?<!IF )(?<!NOT )\bEXISTS\b", "NOT EXISTS"),
    (r"\bFOR (NO KEY )?UPDATE\b", ""),
    (r"\bSKIP LOCKED\b", ""),
    (r"\bDESC\b", "ASC"),
    (r"\bmin\(", "max("),
    (r"\bgreatest\(", "least("),
    (r"\bleast\(", "greatest("),
    (r"(?<= )<(?= )", "<="),
    (r"(?<= )>(?= )", ">="),
    (r"(?<= )<=(?= )", "<"),
    (r"(?<= )>=(?= )", ">"),
    (r"(?<= )<>(?= )", "="),
)
"""What is changed in a statement of SQL, as pattern and replacement."""

_STATEMENT = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WHERE|JOIN)\b")


@dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes:
        path: The file, relative to the tree.
        line: Of the change, from 1.
        last_line: Of the statement that contains it.
        first_line: Of the statement that contains it.
        scope: Qualified name of the function or class around it; empty at the top level.
        kind: The operator, such as ``comparison``.
        before: The text that is replaced.
        after: What takes its place.
        start: Offset of the text in the file, in bytes.
        names: Names that the statement binds outside functions: a test notices it where these are used.
    """

    path: str
    line: int
    first_line: int
    last_line: int
    scope: str
    kind: str
    before: str
    after: str
    start: int
    names: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The change as one line, which names it in results."""
        before, after = (" ".join(text.split())[:60] for text in (self.before, self.after))
        return f"{self.path}:{self.line} {self.kind}: {before} -> {after} @{self.start}"

    def apply(self, source: bytes) -> bytes:
        """Return the changed file."""
        end = self.start + len(self.before.encode())
        return source[: self.start] + self.after.encode() + source[end:]


def mutations_of(path: str, source: bytes) -> list[Mutation]:
    """Return every change of a file, in its order; of a few ``is_valid`` finds that they are none.

    Args:
        path: What the changes name it.
        source: Its content.
    """
    found = {one.id: one for one in _Walk(path, source).of(ast.parse(source))}
    return sorted(found.values(), key=lambda one: one.start)


def is_valid(mutation: Mutation, source: bytes) -> bool:
    """Return whether the changed file is a program, and another one."""
    try:
        return ast.dump(ast.parse(mutation.apply(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


class _Walk:
    """Walks a syntax tree and yields changes.

    Args:
        path: Of the file.
        source: Of the file.
    """

    def __init__(self, path: str, source: bytes) -> None:
        self._path, self._source = path, source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._scope: list[str] = []
        self._functions = 0
        self._statement: ast.stmt | None = None

    def of(self, node: ast.AST) -> Iterator[Mutation]:
        """Yield the changes of a node and of all below it."""
        if _is_left_alone(node):
            return
        outer = self._statement
        if isinstance(node, ast.stmt):
            self._statement = node
        is_scope = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        is_function = is_scope and not isinstance(node, ast.ClassDef)
        if is_scope:
            self._scope.append(node.name)  # type: ignore[attr-defined]  # mypy forgets the check behind the name
            self._functions += is_function
        yield from self._own(node)
        if not isinstance(node, ast.JoinedStr):  # before Python 3.12 what is in an f-string has no position
            for child in _children(node):
                yield from self.of(child)
        if is_scope:
            self._scope.pop()
            self._functions -= is_function
        self._statement = outer

    def _own(self, node: ast.AST) -> Iterator[Mutation]:
        for kind, of in _OPERATORS.items():
            if isinstance(node, kind):
                yield from of(self, node)

    def _make(self, kind: str, start: int, end: int, after: str) -> Mutation:
        statement = self._statement
        assert statement is not None
        first = statement.lineno
        last = first if _is_compound(statement) else (statement.end_lineno or first)
        line = self._source.count(b"\n", 0, start) + 1
        before = self._source[start:end].decode()
        names = () if self._functions else tuple(bound_names(statement))
        scope = ".".join(self._scope)
        return Mutation(self._path, line, first, max(last, line), scope, kind, before, after, start, names)

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._lines[node.lineno - 1] + node.col_offset
        return start, self._lines[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()

    def _between(self, left: ast.expr, right: ast.expr, pattern: str, after: str, kind: str) -> Iterator[Mutation]:
        """Replace an operator that stands between two operands."""
        start, end = self._span(left)[1], self._span(right)[0]
        found = re.search(pattern.encode(), self._source[start:end])
        if found is not None:
            yield self._make(kind, start + found.start(), start + found.end(), after)

    def comparison(self, node: ast.Compare) -> Iterator[Mutation]:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, node.comparators, strict=False):
            yield from self._between(left, right, *COMPARISONS[type(operator)], "comparison")

    def boolean(self, node: ast.BoolOp) -> Iterator[Mutation]:
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from self._between(left, right, rf"\b{words[0]}\b", words[1], "boolean")

    def arithmetic(self, node: ast.BinOp) -> Iterator[Mutation]:
        if type(node.op) in ARITHMETIC and not any(_is_text(side) for side in (node.left, node.right)):
            yield from self._between(node.left, node.right, *ARITHMETIC[type(node.op)], "arithmetic")

    def constant(self, node: ast.Constant) -> Iterator[Mutation]:
        start, end = self._span(node)
        if isinstance(node.value, bool):
            yield self._make("constant", start, end, str(not node.value))
        elif isinstance(node.value, int | float):
            yield self._make("constant", start, end, f"({node.value + 1!r})")
            yield self._make("constant", start, end, f"({node.value - 1!r})")
        elif isinstance(node.value, str):
            yield from self._sql(node)

    def _sql(self, node: ast.expr) -> Iterator[Mutation]:
        start, end = self._span(node)
        text = self._source[start:end]
        if not _STATEMENT.search(text.decode()):
            return
        for pattern, after in SQL:
            for found in re.finditer(pattern.encode(), text):
                ahead = text[: found.start()]
                if ahead.count(b"{") == ahead.count(b"}"):  # else in an expression of an f-string
                    yield self._make("sql", start + found.start(), start + found.end(), after)

    def returned(self, node: ast.Return) -> Iterator[Mutation]:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield self._make("return", *self._span(node.value), "None")

    def condition(self, node: ast.If | ast.While | ast.IfExp | ast.comprehension) -> Iterator[Mutation]:
        for test in node.ifs if isinstance(node, ast.comprehension) else [node.test]:
            yield self._make("condition", *self._span(test), f"(not ({self._text(test)}))")

    def negation(self, node: ast.UnaryOp) -> Iterator[Mutation]:
        if isinstance(node.op, ast.Not):
            yield self._make("negation", *self._span(node), f"({self._text(node.operand)})")

    def bound(self, node: ast.Call) -> Iterator[Mutation]:
        if isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
            yield self._make("bound", *self._span(node.func), "max" if node.func.id == "min" else "min")

    def statement(self, node: ast.stmt) -> Iterator[Mutation]:
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call | ast.Await):
            return
        if isinstance(node, ast.Assign) and not all(isinstance(t, ast.Attribute | ast.Subscript) for t in node.targets):
            return
        yield self._make("statement", *self._span(node), "pass")


_OPERATORS: dict[type[ast.AST], Callable[[_Walk, ast.AST], Iterator[Mutation]]] = {
    kind: of  # type: ignore[misc]  # each takes nodes of the kind under which it stands
    for kinds, of in (
        ((ast.Compare,), _Walk.comparison),
        ((ast.BoolOp,), _Walk.boolean),
        ((ast.BinOp,), _Walk.arithmetic),
        ((ast.Constant,), _Walk.constant),
        ((ast.JoinedStr,), _Walk._sql),
        ((ast.Return,), _Walk.returned),
        ((ast.If, ast.While, ast.IfExp, ast.comprehension), _Walk.condition),
        ((ast.UnaryOp,), _Walk.negation),
        ((ast.Call,), _Walk.bound),
        ((ast.Expr, ast.Assign, ast.AugAssign, ast.Delete, ast.Raise, ast.Continue, ast.Break), _Walk.statement),
    )
    for kind in kinds
}


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What is below a node, without annotations and decorators."""
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list", "bases"):
            yield from (part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST))


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    if isinstance(node, ast.Expr):
        value = node.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            return isinstance(value.func.value, ast.Name) and value.func.value.id in ("logger", "log", "logging")
        return isinstance(value, ast.Constant)
    return False


def _is_compound(statement: ast.stmt) -> bool:
    return hasattr(statement, "body")


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """Return the names that an assignment binds; of other statements none."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    for target in targets:
        if target is not None:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
