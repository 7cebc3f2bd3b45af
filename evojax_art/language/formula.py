"""Expressions: reading, canonical text, and nothing that needs a device.

An `Expression` keeps its nodes flat, in postfix order, so that neither a deep nor a long formula
meets Python's recursion limit; the tree is a view of it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from evojax_art.language.ops import BY_NAME, IMAGES, OPS, Op
from evojax_art.runtime.errors import InputError, suggest

_TOKEN = re.compile(r"[()]|[^\s()]+")
_FALLBACK = BY_NAME["x_iy"]  # what the original reads in place of anything it does not know
_READABLE = {name.lower(): op for name, op in BY_NAME.items()} | {"_": BY_NAME["+"]}
_IDENTIFIER = re.compile(r"[^\W\d]\w*", re.ASCII)


class Node(NamedTuple):
    """One node: its op, and for `q` the four components (finite, exact in float32).

    A picture's leaf may have an op with the name that a user gave the picture.
    """

    op: Op
    constant: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Expression:
    """An immutable formula; equal when written the same.

    Attributes:
        postfix: the nodes, operands before operators, the root last.
    """

    postfix: tuple[Node, ...]

    def __len__(self) -> int:
        """Number of nodes, operators and leaves."""
        return len(self.postfix)

    def __str__(self) -> str:
        return to_text(self)

    @property
    def root(self) -> Node:
        """The operator or leaf at the top."""
        return self.postfix[-1]

    @property
    def operands(self) -> tuple["Expression", ...]:
        """The subtrees under the root, left to right."""
        found: list[Expression] = []
        end = len(self.postfix) - 1
        for _ in range(self.root.op.arity):
            start = _subtree_start(self.postfix, end - 1)
            found.append(Expression(self.postfix[start:end]))
            end = start
        return tuple(reversed(found))

    @property
    def operand_roots(self) -> tuple[tuple[int, ...], ...]:
        """For each node where its operands' roots are, left to right."""
        roots: list[tuple[int, ...]] = []
        stack: list[int] = []
        for index, (op, _) in enumerate(self.postfix):
            roots.append(tuple(stack.pop() for _ in range(op.arity))[::-1])
            stack.append(index)
        return tuple(roots)

    @property
    def depth(self) -> int:
        """Levels of the tree; a leaf has one."""
        stack: list[int] = []
        for op, _ in self.postfix:
            below = [stack.pop() for _ in range(op.arity)]
            stack.append(1 + max(below, default=0))
        return stack[0]


class _Token(NamedTuple):
    text: str
    position: int


def parse(text: str, *, lenient: bool = False, images: Sequence[str] = ()) -> Expression:
    """Reads a formula in prefix notation.

    Names ignore case, and `+` inside a name equals `_`. Brackets are optional because every name
    has a fixed arity; where they stand they must enclose exactly one formula.

    Args:
        text: one formula, for example `"( exp ( * x_iy ( q 0 1 0 0.5 ) ) )"`.
        lenient: read as the 1995 program does, which never fails: brackets are ignored, an unknown
            name or missing operand is the leaf `x_iy`, text behind a complete formula is dropped.
        images: names of pictures: the first stands for the leaf `image1`, and so on.

    Raises:
        InputError: strict reading only; names the line, the column and the nearest known name. Or
            names that pictures cannot have.
    """
    names = _readable(tuple(images))
    return _parse_lenient(text, names) if lenient else _StrictReader(text, names).read()


def to_text(expression: Expression) -> str:
    """Canonical text: `( op arg arg )`, single spaces, bare leaves; `parse` reads it back equal."""
    backwards: list[str] = []
    open_: list[tuple[str, int]] = []  # operators, and how many operands each still lacks
    for op, constant in reversed(expression.postfix):
        if op.arity:
            backwards.append(")")
            open_.append((op.name, op.arity))
            continue
        numbers = "" if constant is None else " ".join(map(_number_text, constant))
        backwards.append(f"( q {numbers} )" if constant is not None else op.name)
        while open_:
            name, missing = open_.pop()
            if missing > 1:
                open_.append((name, missing - 1))
                break
            backwards += [name, "("]
    return " ".join(reversed(backwards))


def image_ops(names: Sequence[str]) -> tuple[Op, ...]:
    """The picture leaves, the first of which have these names; the others keep their own.

    Raises:
        InputError: too many names, or one that no picture can have.
    """
    if len(names) > len(IMAGES):
        raise InputError(f"at most {len(IMAGES)} pictures can be bound, got {len(names)}")
    for slot, name in enumerate(names):
        if not _IDENTIFIER.fullmatch(name):
            raise InputError(
                f"a picture cannot be named {name!r}: letters, digits and _ only, no digit first"
            )
        if name.lower() in (other.lower() for other in names[:slot]):
            raise InputError(f"two pictures cannot both be named {name!r}")
        taken = _READABLE.get(name.lower())
        if taken is not None and taken is not IMAGES[slot]:
            raise InputError(
                f"a picture cannot be named {name!r}: there is an operator of that name"
            )
    named = (replace(op, name=name) for op, name in zip(IMAGES, names, strict=False))
    return (*named, *IMAGES[len(names) :])


def check_images(expression: Expression, count: int) -> None:
    """Refuses a formula that reads a picture which is not bound.

    Args:
        expression: the formula.
        count: of bound pictures; they have the first slots.

    Raises:
        InputError: it does.
    """
    for op, _ in expression.postfix:
        if op.image is not None and op.image >= count:
            raise InputError(
                f"the formula reads picture {op.image + 1}, {op.name!r}, which is not bound; "
                f"bind it with --image {op.name}=FILE"
            )


@lru_cache
def ops_with(images: tuple[str, ...]) -> tuple[Op, ...]:
    """The op table, opcode by opcode, with pictures' leaves under the names they are given."""
    named = {op.opcode: op for op in image_ops(images)}
    return tuple(named.get(op.opcode, op) for op in OPS)


@lru_cache
def _readable(images: tuple[str, ...]) -> Mapping[str, Op]:
    """What can be read, by lower-case name; pictures also by the names of their slots."""
    named = image_ops(images)
    slots = {slot.name: op for slot, op in zip(IMAGES, named, strict=True)}
    return _READABLE | slots | {op.name.lower(): op for op in named}


def constant_node(components) -> Node:
    """A `q` leaf; components are rounded to float32, the precision of a program."""
    e, i, j, k = (float(np.float32(component)) for component in components)
    return Node(BY_NAME["q"], (e, i, j, k))


def _number_text(value: float) -> str:
    """The shortest text that reads back as the same float32."""
    return (
        np.format_float_positional(np.float32(value), trim="-")
        if (value == 0 or 1e-4 <= abs(value) < 1e9)
        else np.format_float_scientific(np.float32(value), trim="-")
    )


def _subtree_start(postfix: tuple[Node, ...], end: int) -> int:
    missing = 1
    for position in range(end, -1, -1):
        missing += postfix[position].op.arity - 1
        if missing == 0:
            return position
    raise ValueError("not a postfix sequence")


def _from_prefix(prefix: list[Node]) -> Expression:
    postfix: list[Node] = []
    open_: list[tuple[Node, int]] = []  # operators, and how many operands each still lacks
    for node in prefix:
        if node.op.arity:
            open_.append((node, node.op.arity))
            continue
        postfix.append(node)
        while open_:
            operator, missing = open_.pop()
            if missing > 1:
                open_.append((operator, missing - 1))
                break
            postfix.append(operator)
    return Expression(tuple(postfix))


def _lookup(name: str, names: Mapping[str, Op]) -> Op | None:
    return names.get(name.lower() if name == "+" else name.lower().replace("+", "_"))


def _finite_float32(text: str) -> float | None:
    try:
        with np.errstate(over="ignore"):
            value = np.float32(text)
    except ValueError:
        return None
    return float(value) if np.isfinite(value) else None


def _parse_lenient(text: str, names: Mapping[str, Op]) -> Expression:
    tokens = [token for token in _TOKEN.findall(text) if token not in "()"]
    prefix: list[Node] = []
    position, missing = 0, 1
    while missing:
        op = _lookup(tokens[position], names) if position < len(tokens) else None
        position += 1
        node = Node(op or _FALLBACK)
        if op is BY_NAME["q"]:
            numbers = [_finite_float32(token) for token in tokens[position : position + 4]]
            if len(numbers) == 4 and None not in numbers:
                node, position = constant_node(numbers), position + 4
            else:
                node = Node(_FALLBACK)  # to the original, q is a name like any unknown one
        prefix.append(node)
        missing += node.op.arity - 1
    return _from_prefix(prefix)


class _StrictReader:
    """One strict reading; the state is the position and what is still open around it."""

    def __init__(self, text: str, names: Mapping[str, Op]):
        self._text = text
        self._names = names
        self._tokens = [_Token(m.group(), m.start()) for m in _TOKEN.finditer(text)]
        self._position = 0

    def read(self) -> Expression:
        """The expression, or an `InputError`."""
        prefix: list[Node] = []
        open_: list[_Token | list] = []  # a bracket, or [operator's token, op, operands missing]
        while True:
            token = self._next(open_)
            if token.text == "(":
                open_.append(token)
                continue
            if token.text == ")":
                raise self._misplaced_bracket(token, open_)
            node = self._node(token)
            prefix.append(node)
            if node.op.arity:
                open_.append([token, node.op, node.op.arity])
            else:
                self._close(open_)
            if not open_:
                break
        if self._position < len(self._tokens):
            extra = self._tokens[self._position]
            raise self._error(
                extra, f"text left over after a complete formula: {extra.text!r}; remove it"
            )
        return _from_prefix(prefix)

    def _close(self, open_: list) -> None:
        """Counts a finished operand, and closes what it completes."""
        while open_:
            top = open_[-1]
            if isinstance(top, list):
                top[2] -= 1
                if top[2]:
                    return
                open_.pop()
                continue
            closing = self._peek()
            if closing is None:
                raise self._error(top, "this bracket is never closed; add `)` at the end")
            if closing.text != ")":
                raise self._error(
                    closing, f"expected `)` here, found {closing.text!r}: too many operands"
                )
            self._position += 1
            open_.pop()

    def _node(self, token: _Token) -> Node:
        op = _lookup(token.text, self._names)
        if op is None:
            near = suggest(token.text.replace("+", "_"), self._names)
            if _IDENTIFIER.fullmatch(token.text):
                near += f" (or bind a picture with --image {token.text}=FILE)"
            raise self._error(token, f"unknown operator {token.text!r}{near}")
        if op is not BY_NAME["q"]:
            return Node(op)
        numbers = []
        for _ in range(4):
            number = self._peek()
            value = None if number is None else _finite_float32(number.text)
            if value is None:
                raise self._error(
                    number, "`q` needs four finite numbers (e i j k), each within float32"
                )
            numbers.append(value)
            self._position += 1
        return constant_node(numbers)

    def _peek(self) -> _Token | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def _next(self, open_: list) -> _Token:
        token = self._peek()
        if token is None:
            raise self._missing(None, open_)
        self._position += 1
        return token

    def _misplaced_bracket(self, token: _Token, open_: list) -> InputError:
        if not any(isinstance(entry, list) for entry in open_):
            what = "empty brackets" if open_ else "`)` without `(`"
            return self._error(token, f"{what}; a formula is a leaf or ( op arg ... )")
        return self._missing(token, open_)

    def _missing(self, token: _Token | None, open_: list) -> InputError:
        for entry in reversed(open_):
            if isinstance(entry, list):
                _, op, missing = entry
                have = op.arity - missing
                return self._error(
                    token, f"missing operand: {op.name!r} takes {op.arity}, found {have}"
                )
        return self._error(token, "no formula here; for example: ( exp ( * x_iy j ) )")

    def _error(self, token: _Token | None, what: str) -> InputError:
        position = len(self._text.rstrip()) if token is None else token.position
        line_number = self._text.count("\n", 0, position) + 1
        start = self._text.rfind("\n", 0, position) + 1
        line = self._text[start:].split("\n", 1)[0]
        column = position - start
        # A window of the line, so that a formula of a thousand nodes still shows its caret.
        left = max(0, column - 40)
        # It may be a stranger's, so nothing in it is left that a terminal would obey.
        window = line[left : left + 80]
        excerpt = "".join(letter if letter.isprintable() else " " for letter in window)
        caret = " " * (column - left) + "^"
        return FormulaError(
            f"formula, line {line_number}, column {column + 1}: {what}", f"{excerpt}\n{caret}"
        )


class FormulaError(InputError):
    """A formula that cannot be read; `excerpt` holds the line and a caret under the place."""

    def __init__(self, message: str, excerpt: str):
        super().__init__(f"{message}\n{excerpt}")
        self.message = message
        self.excerpt = excerpt


def subexpressions(expression: Expression) -> Iterator[Expression]:
    """Every subtree, in postfix order, the whole last."""
    for end in range(len(expression)):
        start = _subtree_start(expression.postfix, end)
        yield Expression(expression.postfix[start : end + 1])
