import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import expressions

import evojax_art as ea
from evojax_art.language.formula import parse
from evojax_art.language.ops import BY_NAME, CONSTANT, OPS, PADDING, SUBST
from evojax_art.language.program import (
    Program,
    decode,
    encode,
    heights,
    is_valid,
    subtree_starts,
    take,
    to_expressions,
)
from evojax_art.runtime.errors import InputError

CAPACITY = 64
valid = jax.jit(jax.vmap(is_valid))

# Stored programs hold these numbers: a change here makes every checkpoint unreadable.
OPCODES = [
    *["padding", "q", "1", "i", "j", "k", "golden"],
    *["x", "y", "x_k", "y_k", "x_iy", "x_iy_jx_ky", "std"],
    *["inv", "conj", "exp", "floor", "normalize", "normp", "isin", "ilog", "iexp", "rolL", "rolR"],
    *["+", "-", "*", "/", "A1", "A2", "mod", "orth1", "orth2", "imin", "imax", "subst"],
]


def test_opcodes_are_those_of_stored_programs():
    assert [op.name for op in OPS][: len(OPCODES)] == OPCODES
    assert [op.opcode for op in OPS] == list(range(len(OPS)))
    assert (PADDING, CONSTANT, SUBST) == (0, 1, 36)


@given(st.lists(expressions(max_length=CAPACITY), min_size=1, max_size=8))
def test_decoding_gives_back_what_was_encoded(formulas):
    population = encode(formulas, max_length=CAPACITY)
    assert to_expressions(population) == formulas
    assert decode(population) == [str(formula) for formula in formulas]
    assert population.length.tolist() == [len(formula) for formula in formulas]
    padded = encode([*formulas, *[parse("x")] * (8 - len(formulas))], max_length=CAPACITY)
    assert bool(valid(padded).all())


def test_layout_is_postfix_with_zeros_behind():
    population = encode(["( - ( exp x ) ( q 1 -2 0 0.5 ) )", "x_iy"], max_length=5)
    names = [[OPS[code].name for code in row] for row in population.opcode]
    assert names == [["x", "exp", "q", "-", "padding"], ["x_iy"] + ["padding"] * 4]
    assert population.opcode.dtype == population.length.dtype == np.int32
    assert population.constant.dtype == np.float32
    assert population.constant[0].tolist() == [[0] * 4, [0] * 4, [1, -2, 0, 0.5], [0] * 4, [0] * 4]
    assert population.capacity == 5
    assert encode(["( exp x )", "x"]).capacity == 2


@given(expressions(max_length=CAPACITY))
def test_subtrees_and_heights_agree_with_the_expression(expression):
    program = take(encode([expression], max_length=CAPACITY), 0)
    starts, stack, stack_sizes = [], [], []
    for position, (op, _) in enumerate(expression.postfix):
        operands = [stack.pop() for _ in range(op.arity)]
        starts.append(operands[-1] if operands else position)
        stack.append(starts[-1])
        stack_sizes.append(len(stack))
    length = len(expression)
    assert jax.jit(subtree_starts)(program)[:length].tolist() == starts
    assert jax.jit(heights)(program)[:length].tolist() == stack_sizes


def test_take_picks_individuals():
    population = encode(["x", "y", "( exp i )"])
    assert decode(take(population, np.array([2, 0]))) == ["( exp i )", "x"]


def test_a_formula_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"formula 2 of 3 has 4 nodes, more than max_length = 3"):
        encode(["x", "( + x ( exp y ) )", "( exp ( exp ( exp ( exp y ) ) ) )"], max_length=3)
    with pytest.raises(InputError, match="no formulas"):
        encode([])
    with pytest.raises(InputError, match="missing operand"):
        encode(["( + x )"])


def program_of(names: str, length: int | None = None, constants=()) -> Program:
    codes = [BY_NAME[name].opcode if name in BY_NAME else int(name) for name in names.split()]
    opcode = np.array(codes)
    constant = np.zeros((len(opcode), 4), np.float32)
    for position, value in constants:
        constant[position, 1] = value
    length = int((opcode != PADDING).sum()) if length is None else length
    return Program(opcode.astype(np.int32)[None], constant[None], np.array([length], np.int32))


INCOMPLETE = {
    "operand missing": program_of("x + 0 0"),
    "operator first": program_of("exp x 0 0"),
    "two formulas": program_of("x y 0 0"),
    "cut off": program_of("x y + exp", length=2),
    "no nodes": program_of("0 0 0 0"),
    "padding inside": program_of("x 0 exp 0", length=3),
    "opcode behind the table": program_of(f"x {len(OPS)} 0 0"),
    "negative opcode": program_of("x -1 0 0"),
}
OTHERWISE_BAD = {
    "node behind the end": program_of("x exp 0 0", length=1),
    "length beyond the capacity": program_of("x exp exp exp", length=5),
    "negative length": program_of("x exp exp exp", length=-1),
    "NaN": program_of("q exp 0 0", constants=[(0, np.nan)]),
    "infinity": program_of("q exp 0 0", constants=[(0, np.inf)]),
    "constant of another op": program_of("x exp 0 0", constants=[(0, 1.0)]),
    "constant behind the end": program_of("x exp 0 0", constants=[(3, 1.0)]),
}


def test_intact_programs_are_valid():
    for program in (program_of("x y + exp"), program_of("q 0 0 0", constants=[(0, -3.5)])):
        assert valid(program).tolist() == [True]


@pytest.mark.parametrize("damage", [*INCOMPLETE, *OTHERWISE_BAD])
def test_damaged_programs_are_not_valid(damage):
    assert valid((INCOMPLETE | OTHERWISE_BAD)[damage]).tolist() == [False]


@pytest.mark.parametrize("damage", INCOMPLETE)
def test_damaged_programs_are_refused_by_decoding(damage):
    good = encode(["x"], max_length=4)
    both = jax.tree.map(lambda *parts: np.concatenate(parts), good, INCOMPLETE[damage])
    with pytest.raises(InputError, match="program 2 is not a complete formula"):
        decode(both)


@pytest.mark.parametrize(
    "damage", ["length beyond the capacity", "negative length", "NaN", "infinity"]
)
def test_other_damage_is_refused_by_decoding(damage):
    with pytest.raises(InputError, match="program 1"):
        decode(OTHERWISE_BAD[damage])


def test_the_largest_recorded_size_encodes_and_renders():
    formula = "x_iy"
    for _ in range(216):  # 1,082 nodes; the largest of 2015 has 1,079
        formula = f"( isin ( + ( * {formula} ( q 1.5 0.25 -1 0.5 ) ) y_k ) )"
    formula = f"( exp {formula} )"
    population = encode([formula])
    assert population.capacity == len(parse(formula)) > 1079
    assert decode(population) == [str(parse(formula))]
    picture = np.asarray(ea.render(population, 16, 16))
    assert np.isfinite(picture).all()
    assert picture.std() > 0.01
