"""Programs: formulas as fixed-size arrays, the genome of every algorithm.

The format. A `Program` of capacity L is three arrays; a population carries a leading axis P.

    opcode    int32   [L]     rows of `ops.OPS`, operands before operators (postfix), left operand
                              first; from `length` on, 0 (`padding`)
    constant  float32 [L, 4]  e, i, j, k of a `q` leaf; 0 everywhere else
    length    int32   []      nodes in use, 1 to L

It is valid when the first `length` opcodes form one complete postfix expression, everything behind
them is zero, and constants are finite. Opcodes are only ever appended, so stored programs stay
readable.

Heights. After node t of a postfix program `height[t]` values are waiting on the stack. It starts
at 1, ends at 1, and moves by 1 - arity. The subtree of t begins right behind the last node whose
height is below t's, which is what makes subtrees pure array arithmetic.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from evojax_art.language.formula import Expression, Node, constant_node, ops_with, parse
from evojax_art.language.ops import CONSTANT, OPS, PADDING
from evojax_art.language.quaternions import Coordinates
from evojax_art.runtime.errors import InputError

T = TypeVar("T")
ARITY = np.array([op.arity for op in OPS], np.int32)  # [number of opcodes]


def _named_constants() -> tuple[np.ndarray, np.ndarray]:
    """Which opcodes are constants, `q` included, and the named ones' components."""
    is_constant, components = np.zeros(len(OPS), bool), np.zeros((len(OPS), 4), np.float32)
    origin = Coordinates(*np.zeros((3, 1)))
    for op in OPS:
        if op.arity == 0 and not op.structural and not op.reads_coordinates:
            is_constant[op.opcode] = True
            components[op.opcode] = np.concatenate(op.fn(np, origin))
    is_constant[CONSTANT] = True
    return is_constant, components


IS_CONSTANT, COMPONENTS = _named_constants()  # [number of opcodes], [..., 4]


class Program(NamedTuple):
    """One formula, or a population of them with a leading axis P; see the module's docstring."""

    opcode: Int[Array, "*P L"]
    constant: Float[Array, "*P L 4"]
    length: Int[Array, "*P"]

    @property
    def capacity(self) -> int:
        """L, the longest formula that fits."""
        return self.opcode.shape[-1]


def encode(
    formulas: Sequence[str | Expression],
    max_length: int | None = None,
    images: Sequence[str] = (),
) -> Program:
    """Packs formulas into one population.

    Args:
        formulas: texts (read strictly) or expressions, at least one.
        max_length: capacity L; None makes it just long enough.
        images: names of pictures in the texts, slot by slot.

    Raises:
        InputError: a formula that does not parse or has more than `max_length` nodes.
    """
    if not formulas:
        raise InputError("no formulas to encode: the list is empty")
    expressions = [
        parse(item, images=images) if isinstance(item, str) else item for item in formulas
    ]
    longest = max(map(len, expressions))
    capacity = longest if max_length is None else max_length
    if longest > capacity:
        index = next(n for n, item in enumerate(expressions) if len(item) > capacity)
        raise InputError(
            f"formula {index + 1} of {len(expressions)} has {len(expressions[index])} nodes, more "
            f"than max_length = {capacity}; raise max_length or shorten the formula"
        )
    opcode = np.full((len(expressions), capacity), PADDING, np.int32)
    constant = np.zeros((len(expressions), capacity, 4), np.float32)
    for row, expression in enumerate(expressions):
        for position, node in enumerate(expression.postfix):
            opcode[row, position] = node.op.opcode
            if node.constant is not None:
                constant[row, position] = node.constant
    length = np.array([len(item) for item in expressions], np.int32)
    return Program(jnp.asarray(opcode), jnp.asarray(constant), jnp.asarray(length))


def decode(population: Program, images: Sequence[str] = ()) -> list[str]:
    """Canonical text of every formula of a population, pictures under their names."""
    return [str(expression) for expression in to_expressions(population, images)]


def to_expressions(population: Program, images: Sequence[str] = ()) -> list[Expression]:
    """The formulas of a population as expressions.

    Args:
        population: P programs.
        images: names of pictures, slot by slot.

    Raises:
        InputError: a program that is not valid.
    """
    opcodes, constants, lengths = (np.asarray(field) for field in population)
    ops = ops_with(tuple(images))
    expressions = []
    for row, length in enumerate(lengths):
        opcode, constant = opcodes[row, : max(0, length)], constants[row, : max(0, length)]
        if len(opcode) != length or not _is_complete(opcode, constant):
            raise InputError(
                f"program {row + 1} is not a complete formula; it was damaged or cut off"
            )
        nodes = (
            constant_node(components) if code == CONSTANT else Node(ops[code])
            for code, components in zip(opcode, constant, strict=True)
        )
        expressions.append(Expression(tuple(nodes)))
    return expressions


def _is_complete(opcode: np.ndarray, constant: np.ndarray) -> bool:
    if not (opcode.size and np.all((opcode > PADDING) & (opcode < len(OPS)))):
        return False
    height = np.cumsum(1 - ARITY[opcode])
    return bool(height.min() >= 1 and height[-1] == 1 and np.isfinite(constant).all())


def heights(program: Program) -> Int[Array, "L"]:
    """Stack height after each node of one program; behind its end, that of the last node."""
    in_use = jnp.arange(program.capacity) < program.length
    return jnp.cumsum(jnp.where(in_use, 1 - jnp.asarray(ARITY)[program.opcode], 0))


def subtree_starts(program: Program) -> Int[Array, "L"]:
    """Where the subtree under each node of one program begins.

    Right behind the last node that is lower. It is found from behind in strides of falling powers
    of two, each taken if the lowest height on it is still not below the node's: a few gathers,
    where comparing all pairs of nodes costs a CPU five times as much.
    """
    height = heights(program)
    lowest = [jnp.pad(height, (1, 0))]  # a place before the first, lower than all
    levels = (program.capacity - 1).bit_length()
    for level in range(levels):  # of the 2**level heights that end here
        behind = jnp.pad(lowest[-1], (1 << level, 0))[: program.capacity + 1]
        lowest.append(jnp.minimum(lowest[-1], behind))
    table = jnp.stack(lowest)

    def stride(step: Array, before: Int[Array, "L"]) -> Int[Array, "L"]:
        level = levels - step
        passes = table[level, before] >= height
        return before - jnp.where(passes, 1 << level, 0)

    return jax.lax.fori_loop(0, levels + 1, stride, jnp.arange(program.capacity))


def free_constants(program: Program) -> Program:
    """The same formula with every named constant as a `q` leaf, whose components may move."""
    is_named = jnp.asarray(IS_CONSTANT)[program.opcode] & (program.opcode != CONSTANT)
    components = jnp.asarray(COMPONENTS)[program.opcode]
    return program._replace(
        opcode=jnp.where(is_named, CONSTANT, program.opcode),
        constant=jnp.where(is_named[..., None], components, program.constant),
    )


def is_valid(program: Program) -> Bool[Array, ""]:
    """Whether one program keeps every rule of the format; for tests and loaded files."""
    position = jnp.arange(program.capacity)
    in_use = position < program.length
    known = jnp.where(
        in_use,
        (program.opcode > PADDING) & (program.opcode < len(OPS)),
        program.opcode == PADDING,
    )
    height = heights(program)
    is_constant = (program.opcode == CONSTANT)[:, None]
    constants = jnp.isfinite(program.constant) & (is_constant | (program.constant == 0))
    return (
        (program.length >= 1)
        & (program.length <= program.capacity)
        & jnp.all(known)
        & jnp.all(height >= 1)
        & (height[-1] == 1)
        & jnp.all(constants)
    )


def take(population: T, index: int | Int[Array | np.ndarray, "..."]) -> T:
    """The individuals at `index`: an integer, or an array of them; of any tree of arrays."""
    return jax.tree.map(lambda field: field[index], population)


def select(condition: Bool[Array, "N"], one: T, other: T) -> T:
    """Row by row, from one population or the other, or other trees of arrays with an axis N."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, one, other)
