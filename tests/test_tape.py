"""Lowering: a tape computes what its program says, with less work."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import expressions

from evojax_art.artwork.formula_files import read_formulas
from evojax_art.interpreter import reference
from evojax_art.language.formula import Expression, parse
from evojax_art.language.ops import BY_NAME, CONSTANT, OPS, frame_coordinates
from evojax_art.language.program import encode, take, to_expressions
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.lowering.tape import LEAVES, NUM_LEAVES, Tape, lower
from evojax_art.lowering.values import UNWRAPPED, read_nodes, subtree_hashes
from evojax_art.search.variation import GrowthConfig, grow

CAPACITY = 63
POPULATION = 16
AT = Coordinates(*np.random.default_rng(0).uniform(-0.5, 0.5, (3, 20)))

_lower = jax.jit(jax.vmap(lower))


def tapes_of(formulas: list[Expression], capacity: int = CAPACITY) -> list[Tape]:
    tapes = jax.tree.map(np.asarray, _lower(encode(formulas, capacity)))
    return [take(tapes, index) for index in range(len(formulas))]  # type: ignore[arg-type]


def tape_of(text: str) -> Tape:
    return tapes_of([parse(text)] * POPULATION)[0]


def ops_of(tape: Tape) -> list[str]:
    return [OPS[code].name for code in tape.opcode[: tape.length]]


def execute(tape: Tape, at: Coordinates) -> Quaternion:
    """What a tape computes, in float64 with the specification's own arithmetic."""
    leaves = {index: op.fn(np, at) for index, op in enumerate(LEAVES)}
    tail, registers = dict(leaves), dict(leaves)

    def instruction(place: int, file: dict[int, Quaternion]) -> None:
        op = OPS[tape.opcode[place]]
        first, second = int(tape.first[place]), int(tape.second[place])
        if op.opcode != CONSTANT:
            operands = [file[register] for register in (first, second)[: max(1, op.arity)]]
            if op.reads_coordinates:
                operands = [frame_coordinates(np, operands[0], second == UNWRAPPED)]
            value = op.fn(np, *operands)
        elif first >= NUM_LEAVES:
            value = tail[first]
        else:
            value = Quaternion(*(np.full_like(at.x, c) for c in tape.constant[place]))
        file[int(tape.target[place])] = value

    with np.errstate(all="ignore"):
        for place in range(tape.length, tape.length + tape.num_folded):
            instruction(place, tail)
        for place in range(tape.length):
            instruction(place, registers)
    return registers[int(tape.result)]


def assert_same_values(formulas: list[Expression], capacity: int = CAPACITY) -> None:
    for formula, tape in zip(formulas, tapes_of(formulas, capacity), strict=True):
        value, expected = execute(tape, AT), reference.evaluate(formula, AT)
        np.testing.assert_array_equal(value, expected, err_msg=str(formula))
        used = np.append(tape.target[: tape.length], tape.result)
        assert used.max() < tape.num_registers, str(formula)


# Few leaves and ops, so that subtrees repeat, under frames too.
REPETITIVE = [
    BY_NAME[name] for name in ("q", "1", "x", "x_iy", "conj", "exp", "-", "*", "subst", "at")
]


@settings(max_examples=40)
@given(
    st.lists(
        expressions(CAPACITY, REPETITIVE, st.sampled_from([0.0, 1.0, -0.5])),
        min_size=POPULATION,
        max_size=POPULATION,
    )
)
def test_a_tape_computes_what_its_program_says_bit_for_bit(formulas):
    assert_same_values(formulas)


def test_so_do_tapes_of_random_growth():
    growth = GrowthConfig(binary=0.45, unary=0.4)
    keys = jax.random.split(jax.random.key(1), 1000)
    population = jax.jit(jax.vmap(lambda key: grow(key, CAPACITY, growth)))(keys)
    assert_same_values(to_expressions(population))


def test_so_do_tapes_of_the_archive(gart):
    formulas = [f for f in read_formulas(gart / "archive_even.json") if len(f) <= 128]
    assert_same_values(formulas, 128)
    tapes = tapes_of(formulas, 128)
    operators = sum(node.op.arity > 0 for formula in formulas for node in formula.postfix)
    assert sum(int(tape.length) for tape in tapes) < 0.87 * operators
    own = [int(tape.target[: tape.length].max(initial=0)) - NUM_LEAVES + 1 for tape in tapes]
    assert max(own) <= 10


@pytest.mark.parametrize(
    ("formula", "instructions"),
    [
        ("( * ( exp x ) ( exp x ) )", ["exp", "*"]),
        ("( - ( exp x ) ( exp y ) )", ["exp", "exp", "-"]),
        ("( + ( * x ( exp y ) ) ( * x ( exp y ) ) )", ["exp", "*", "+"]),
        ("( subst ( exp x ) i )", []),  # nobody reads the frame
        ("( - ( subst ( exp x ) 1 ) ( exp x ) )", ["exp", "-"]),
        ("( - ( subst y ( exp x ) ) ( subst y ( exp x ) ) )", ["x", "exp", "-"]),
        ("( - ( subst y ( exp x ) ) ( subst x ( exp x ) ) )", ["x", "exp", "x", "exp", "-"]),
        ("( subst y ( - ( exp x ) ( exp x ) ) )", ["x", "exp", "-"]),
        ("( - ( at y ( exp x ) ) ( at y ( exp x ) ) )", ["x", "exp", "-"]),
        ("( - ( at y ( exp x ) ) ( subst y ( exp x ) ) )", ["x", "exp", "x", "exp", "-"]),
        ("( exp ( * i ( + j 1 ) ) )", ["q"]),
        ("( + x ( exp ( * i j ) ) )", ["q", "+"]),
        ("( + ( q 1 2 3 4 ) ( * x ( q 1 2 3 4 ) ) )", ["q", "*", "+"]),
        ("( + ( q 0 0 0 0 ) ( * x ( q -0.0 0 0 0 ) ) )", ["q", "*", "q", "+"]),
        ("( - ( conj x ) ( exp ( * y x ) ) )", ["*", "exp", "conj", "-"]),  # the larger first
        ("x_iy", []),
    ],
)
def test_instructions(formula, instructions):
    assert sorted(ops_of(tape_of(formula))) == sorted(instructions)
    assert_same_values([parse(formula)] * POPULATION)


def test_constants_are_folded_once():
    tape = tape_of("( + ( * x ( exp ( + i j ) ) ) ( exp ( + i j ) ) )")
    assert (ops_of(tape), int(tape.num_folded)) == (["q", "*", "+"], 2)


def test_frames_deeper_than_their_hashes_share_nothing_and_stay_right():
    deep = "( exp x )"
    for frame in ("y", "( rolL x_iy )", "( conj x_iy )", "x_iy", "( isin x_iy )"):
        deep = f"( subst {frame} ( + x {deep} ) )"
    assert_same_values([parse(f"( - {deep} {deep} )")] * POPULATION)


def test_a_collision_of_hashes_changes_nothing():
    formulas = [parse("( - ( exp x ) ( * y ( conj x_iy ) ) )")] * POPULATION

    def all_equal(program, nodes):
        return subtree_hashes(program, nodes) * 0

    lower_fn = jax.jit(jax.vmap(partial(lower, hash_fn=all_equal)))
    tapes = jax.tree.map(np.asarray, lower_fn(encode(formulas, CAPACITY)))
    value = execute(take(tapes, 0), AT)  # type: ignore[arg-type]
    np.testing.assert_array_equal(value, reference.evaluate(formulas[0], AT))


def test_hashes_of_different_subtrees_differ(gart):
    formulas = [f for f in read_formulas(gart / "runlog_odd.json") if len(f) <= 512]
    population = encode(formulas, 512)
    hash_fn = jax.jit(jax.vmap(lambda program: subtree_hashes(program, read_nodes(program))))
    for formula, row in zip(formulas, np.asarray(hash_fn(population)), strict=True):
        texts: dict[int, str] = {}
        stack: list[str] = []
        for node, hash_ in zip(formula.postfix, row, strict=False):
            operands = [stack.pop() for _ in range(node.op.arity)][::-1]
            stack.append(" ".join([node.op.name, *operands]))
            assert texts.setdefault(int(hash_), stack[-1]) == stack[-1]
