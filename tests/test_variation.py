from collections import Counter
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evojax_art.language.formula import Expression, Node, parse, subexpressions
from evojax_art.language.ops import BY_NAME, OPS
from evojax_art.language.program import (
    ARITY,
    Program,
    decode,
    encode,
    is_valid,
    take,
    to_expressions,
)
from evojax_art.runtime.errors import InputError
from evojax_art.search import splicing, variation
from evojax_art.search.variation import GrowthConfig, VariationConfig

BATCH = 64
ALIKE = dict.fromkeys(VariationConfig().weights, 1.0)
SETTINGS = {  # by capacity
    1: (GrowthConfig(), VariationConfig(**ALIKE)),
    3: (GrowthConfig(max_depth=31, binary=0, unary=1), VariationConfig(**ALIKE, regrow_depth=1)),
    7: (GrowthConfig(max_depth=31, binary=1, unary=0), VariationConfig(**ALIKE, regrow_depth=31)),
    64: (GrowthConfig(binary=0.5, unary=0.4), VariationConfig(**ALIKE)),
}


@cache
def families(capacity: int):
    """Jitted `seed -> (BATCH programs of each kind, whether each is valid)`."""
    growth, config = SETTINGS[capacity]

    constants = VariationConfig(**{**dict.fromkeys(ALIKE, 0.0), "constant": 1.0})

    def family(key):
        grow_key, draws_key = jax.random.split(key)
        keys = jax.random.split(grow_key)
        both = jax.vmap(lambda key: variation.grow(key, capacity, growth))(keys)
        draws = splicing.draw(draws_key, 4, capacity)
        host, donor = (
            variation.vary(take(draws, n), one, one, constants, growth)  # now with `q` leaves
            for n, one in enumerate((take(both, 0), take(both, 1)))
        )
        point = variation.mutate_point(take(draws, 2), splicing.parent(host), subst_bias=0.5)
        return {
            "host": host,
            "biased": splicing.splice(point, host, host),
            "child": variation.vary(take(draws, 3), host, donor, config, growth),
        }

    def batch(seed):
        made = jax.vmap(family)(jax.random.split(jax.random.key(seed), BATCH))
        return made, {kind: jax.vmap(is_valid)(programs) for kind, programs in made.items()}

    return jax.jit(batch)


@pytest.mark.parametrize("capacity", SETTINGS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_children_are_valid_and_fit(capacity, seed):
    made, valid = families(capacity)(np.uint32(seed))
    for kind, programs in made.items():
        assert bool(valid[kind].all()), kind
        assert programs.capacity == capacity, kind
        assert int(programs.length.max()) <= capacity, kind


def test_one_key_makes_one_child():
    first, again, other = (
        to_expressions(families(64)(np.uint32(seed))[0]["child"]) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len(set(first)) > BATCH / 2


def grown(count: int, capacity: int, config: GrowthConfig, seed: int = 0) -> list[Expression]:
    keys = jax.random.split(jax.random.key(seed), count)
    grow = jax.jit(jax.vmap(partial(variation.grow, capacity=capacity, config=config)))
    return to_expressions(grow(keys))


def test_growth_draws_the_root_as_configured():
    count = 4000
    arities = Counter(formula.root.op.arity for formula in grown(count, 64, GrowthConfig()))
    for arity, share in ((2, 4 / 11), (1, 6 / 11), (0, 1 / 11)):
        deviation = np.sqrt(share * (1 - share) / count)
        assert abs(arities[arity] / count - share) < 5 * deviation


def test_growth_uses_every_sampled_op_and_no_other():
    formulas = grown(2000, 64, GrowthConfig(binary=0.4, unary=0.5))
    used = Counter(node.op.name for formula in formulas for node in formula.postfix)
    assert set(used) == {op.name for op in OPS if op.sampled}
    for arity in range(3):  # uniform among the ops of one arity
        counts = [used[op.name] for op in OPS if op.sampled and op.arity == arity]
        assert max(counts) < 1.3 * min(counts)


@pytest.mark.parametrize("max_depth", [1, 3, 6])
def test_growth_respects_the_depth(max_depth):
    binary = grown(20, 63, GrowthConfig(max_depth=max_depth, binary=1, unary=0))
    assert {len(formula) for formula in binary} == {2**max_depth - 1}
    unary = grown(20, 63, GrowthConfig(max_depth=max_depth, binary=0, unary=1))
    assert {formula.depth for formula in unary} == {max_depth}
    mixed = grown(500, 63, GrowthConfig(max_depth=max_depth))
    assert max(formula.depth for formula in mixed) == max_depth


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"max_depth": 0}, "max_depth"),
        ({"max_depth": 32}, "max_depth"),
        ({"binary": 0.6, "unary": 0.5}, "probabilities"),
        ({"binary": -0.1}, "probabilities"),
    ],
)
def test_growth_settings_are_checked(settings_, message):
    with pytest.raises(InputError, match=message):
        GrowthConfig(**settings_)


def test_variation_settings_are_checked():
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"variation\.move must be 0 or more, and finite"):
            VariationConfig(move=wrong)
    with pytest.raises(InputError, match="one of the weights must be above 0"):
        VariationConfig(**dict.fromkeys(VariationConfig().weights, 0))
    with pytest.raises(InputError, match="regrow_depth"):
        VariationConfig(regrow_depth=0)


HOST_CAPACITY, DONOR_CAPACITY = 12, 7


@jax.jit
def jitted_splice(start, end, before, behind, edited, source, first, last, host, donor):
    edit = splicing.edit(
        start,
        end,
        source,
        first,
        last,
        own=tuple(range(300, 308)),
        constant=jnp.multiply.outer(jnp.arange(300.0, 308.0), jnp.arange(1.0, 5.0)),
        before=before,
        behind=behind,
        edited=edited,
    )
    return splicing.splice(edit, host, donor)


@st.composite
def splices(draw):
    def part(capacity):
        length = draw(st.integers(1, capacity))
        start = draw(st.integers(0, length))
        return length, start, draw(st.integers(start, length))

    host, donor = part(HOST_CAPACITY), part(DONOR_CAPACITY)
    room = HOST_CAPACITY - host[0] + host[2] - host[1]
    last = min(donor[2], donor[1] + room)
    room -= last - donor[1]
    before = draw(st.integers(0, min(room, 5)))
    return host, (donor[0], donor[1], last), (before, draw(st.integers(0, min(room - before, 3))))


def numbered(length: int, capacity: int, first: int) -> Program:
    """A program of distinct numbers: `splice` only moves them."""
    opcode = np.where(np.arange(capacity) < length, first + np.arange(capacity), 0)
    constant = np.multiply.outer(opcode, [1, 2, 3, 4])
    return Program(jnp.int32(opcode), jnp.float32(constant), jnp.int32(length))


def widened(program: Program) -> Program:
    """The same of the host's capacity."""
    more = HOST_CAPACITY - program.capacity
    opcode = jnp.pad(program.opcode, (0, more))
    return Program(opcode, jnp.pad(program.constant, ((0, more), (0, 0))), program.length)


@given(splices())
def test_splice_is_that_of_a_list(ranges):
    (host_length, start, end), (donor_length, first, last), (before, behind) = ranges
    host = numbered(host_length, HOST_CAPACITY, 100)
    donor = numbered(donor_length, DONOR_CAPACITY, 200)
    places = start, end, before, behind
    edited = jitted_splice(*places, splicing.HOST, splicing.DONOR, first, last, host, donor)
    swapped = jitted_splice(
        *places, splicing.DONOR, splicing.HOST, first, last, widened(donor), host
    )
    own = list(range(300, 308))
    expected = host.opcode.tolist()[:host_length]
    comes = donor.opcode.tolist()[first:last]
    expected[start:end] = own[:before] + comes + own[before : before + behind]
    length = len(expected)
    expected += [0] * (HOST_CAPACITY - length)
    for result in (edited, swapped):
        assert int(result.length) == length
        assert result.opcode.tolist() == expected
        assert result.constant.tolist() == np.multiply.outer(expected, [1, 2, 3, 4]).tolist()


HOST = parse("( - ( exp ( q 1 2 3 4 ) ) ( * x golden ) )")
DONOR = parse("( / ( isin y ) ( q 5 6 7 8 ) )")
SAMPLES = 3000


def children(function, *parents: Expression, capacity: int = 12, seed: int = 1) -> Counter:
    """How often each child appears, whose edit `function(draws, *parents)` is."""
    population = encode(parents, max_length=capacity)
    programs = [take(population, index) for index in range(len(parents))]

    def child(draws):
        edit = function(draws, *map(splicing.parent, programs))
        edit, fits = (edit, True) if isinstance(edit, splicing.Edit) else edit
        return splicing.splice(edit, programs[0], programs[-1]), fits

    made, fits = jax.jit(jax.vmap(child))(splicing.draw(jax.random.key(seed), SAMPLES, capacity))
    assert bool(jnp.all(fits))
    return Counter(to_expressions(made))


def only(way: str, **others) -> VariationConfig:
    """Children made in that way alone."""
    return VariationConfig(**{**dict.fromkeys(ALIKE, 0.0), way: 1.0}, **others)


def varied(way: str, *parents: Expression, capacity: int = 12, growth=variation.OF_2015) -> Counter:
    """How often each child of `vary` appears that is made in that way, or what it falls back to."""
    population = encode(parents, max_length=capacity)
    host, donor = take(population, 0), take(population, len(parents) - 1)
    config = only(way, regrow_depth=3)
    vary = jax.jit(jax.vmap(lambda draws: variation.vary(draws, host, donor, config, growth)))
    return Counter(to_expressions(vary(splicing.draw(jax.random.key(1), SAMPLES, capacity))))


def replacements(host: Expression, options) -> Counter:
    """Every way to put an option, given the subtree it replaces, in that subtree's place."""
    found = Counter()
    for end, old in enumerate(subexpressions(host), 1):
        for new in options(old):
            nodes = host.postfix[: end - len(old)] + new.postfix + host.postfix[end:]
            found[Expression(nodes)] += 1
    return found


def test_crossover_puts_a_subtree_of_the_donor_into_the_host():
    capacity = len(HOST) + 1

    def fitting(old):
        return [new for new in subexpressions(DONOR) if len(HOST) - len(old) + len(new) <= capacity]

    made = children(variation.crossover, HOST, DONOR, capacity=capacity)
    assert set(made) == set(replacements(HOST, fitting))


def test_crossover_chooses_uniformly():
    made = children(variation.crossover, HOST, DONOR)
    ways = replacements(HOST, lambda old: subexpressions(DONOR))
    assert set(made) == set(ways)
    for child, count in made.items():
        expected = SAMPLES * ways[child] / ways.total()
        assert abs(count - expected) < 5 * np.sqrt(expected)


def test_shrink_replaces_a_subtree_by_one_inside_it():
    assert set(children(variation.shrink, HOST)) == set(replacements(HOST, subexpressions))


def test_hoist_keeps_one_subtree():
    assert set(children(variation.hoist, HOST)) == set(subexpressions(HOST))


def test_breeding_by_subst_joins_both_in_either_order():
    subst = Node(BY_NAME["subst"])
    made = children(variation.breed_subst, HOST, DONOR)
    assert set(made) == {
        Expression((*left.postfix, *right.postfix, subst))
        for left, right in ((HOST, DONOR), (DONOR, HOST))
    }
    assert min(made.values()) > SAMPLES / 3


def test_breeding_by_subst_falls_back_to_crossover():
    made = varied("subst", HOST, DONOR, capacity=10)
    fits = replacements(
        HOST, lambda old: [s for s in subexpressions(DONOR) if len(HOST) - len(old) + len(s) <= 10]
    )
    assert set(made) == set(fits)


def test_insert_puts_one_operator_above_a_node():
    leaves = [op for op in OPS if op.sampled and op.arity == 0]
    made = children(variation.insert, parse("( exp x )"))
    lengths = Counter()
    for child, count in made.items():
        lengths[len(child)] += count
        without = {
            Expression(tuple(child.postfix[:start] + kept.postfix + child.postfix[end:]))
            for end, subtree in enumerate(subexpressions(child), 1)
            for start in [end - len(subtree)]
            for kept in subtree.operands
            if all(other == kept or other.root.op in leaves for other in subtree.operands)
        }
        assert parse("( exp x )") in without, str(child)
    assert set(lengths) == {3, 4}
    assert 0.4 < lengths[3] / SAMPLES < 0.6
    above = [[str(operand) for operand in child.operands] for child in made]
    for place in (0, -1):  # the leaf goes to either side
        assert any(len(both) == 2 and both[place] == "( exp x )" for both in above)


def test_insert_keeps_to_the_room_that_is_left():
    for room in (0, 1):
        made = children(variation.insert, HOST, capacity=len(HOST) + room)
        assert {len(child) for child in made} == {len(HOST) + room}
    assert set(children(variation.insert, HOST, capacity=len(HOST))) == {HOST}


def test_regrow_replaces_one_subtree():
    growth = GrowthConfig(binary=0.4, unary=0.4)
    made = varied("regrow", HOST, capacity=9, growth=growth)
    ends = [(end - len(old), end) for end, old in enumerate(subexpressions(HOST), 1)]
    for child in made:
        assert any(
            child.postfix[:start] == HOST.postfix[:start]
            and child.postfix[len(child) - len(HOST) + end :] == HOST.postfix[end:]
            for start, end in ends
            if len(child) - len(HOST) + end > start
        ), str(child)
    assert len(made) > 100


def differing(child: Expression, host: Expression = HOST) -> list[int]:
    pairs = zip(child.postfix, host.postfix, strict=True)
    return [position for position, (new, old) in enumerate(pairs) if new != old]


def test_point_mutation_keeps_the_shape():
    made = children(variation.mutate_point, HOST)
    changed = Counter()
    for child, count in made.items():
        positions = differing(child)
        assert len(positions) <= 1
        for position in positions:
            new, old = child.postfix[position], HOST.postfix[position]
            assert new.op.arity == old.op.arity
            assert new.op.sampled
            changed[position] += count
    assert set(changed) == set(range(len(HOST)))
    assert {child.root.op.name for child in made} == {
        op.name for op in OPS if op.arity == 2 and op.sampled
    }


def test_full_subst_bias_turns_binary_operators_into_subst():
    made = children(partial(variation.mutate_point, subst_bias=1.0), HOST)
    for child in made:
        for position in differing(child):
            if HOST.postfix[position].op.arity == 2:
                assert child.postfix[position].op.name == "subst"
    assert {child.root.op.name for child in made} == {"-", "subst"}


def test_perturbing_changes_exactly_one_constant():
    made = children(variation.perturb_constant, HOST)
    old = {1: np.array([1.0, 2, 3, 4]), 4: np.array([1.618034, 0, 0, 0])}
    old = {HOST.postfix.index(Node(BY_NAME["golden"])): old[4], 0: old[1]}
    steps = []
    seen = Counter()
    for child, count in made.items():
        (position,) = differing(child)
        assert child.postfix[position].op.name == "q"
        seen[position] += count
        moved = np.array(child.postfix[position].constant) - old[position]
        steps.append(np.abs(moved / np.maximum(1, np.abs(old[position]))))
    assert set(seen) == set(old)
    assert len(made) > SAMPLES / 2
    # Sizes are log-uniform from 0.01 to 1, so their median is 0.1 and a normal's 0.67 of that.
    assert 0.04 < np.median(steps) < 0.1
    assert np.max(steps) < 6


def test_perturbing_without_constants_is_point_mutation():
    host = parse("( - ( exp y ) ( * x std ) )")
    made = varied("constant", host)
    assert all(len(differing(child, host)) <= 1 for child in made)
    assert len(made) > 20


@pytest.mark.parametrize("way", ["constant", "move", "recolour"])
def test_steps_are_as_small_as_they_may_be(way):
    def median(least_step: float) -> float:
        config = only(way, least_step=least_step)
        host = take(encode(["( + ( q 0 0 0 0 ) ( * ( q 1 0 0 0 ) x_iy ) )"], max_length=16), 0)
        draws = splicing.draw(jax.random.key(0), 200, 16)
        vary_fn = jax.vmap(lambda draws: variation.vary(draws, host, host, config, GrowthConfig()))
        made = jax.jit(vary_fn)(draws)
        from_identity = jnp.minimum(
            jnp.abs(made.constant).max(axis=2), jnp.abs(made.constant - jnp.eye(4)[0]).max(axis=2)
        )
        return float(jnp.median(from_identity.max(axis=1)))

    assert median(1e-4) < 0.15 * median(0.03)


def test_impossible_steps_are_refused():
    for step in (0.0, -1.0, 0.7, float("nan")):
        with pytest.raises(InputError, match=r"variation\.least_step must be 1e-06 to 0\.6"):
            VariationConfig(least_step=step)


def test_vary_chooses_by_weight():
    weights = {way: float(number) for number, way in enumerate(ALIKE)}  # the first never
    config = VariationConfig(**{**weights, "hoist": 0.0})
    draws = splicing.draw(jax.random.key(0), SAMPLES, 1).way
    ways = jax.vmap(lambda draw: variation._drawn_way(draw, config))(draws)
    counts = np.bincount(ways, minlength=len(ALIKE))
    shares = np.array(list(config.weights.values()))
    expected = SAMPLES * shares / shares.sum()
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected)).all()
    last = variation._drawn_way(jnp.float32(1 - 2**-24), only("move"))
    assert list(ALIKE)[int(last)] == "move"


@pytest.mark.parametrize("way", [way for way in ALIKE if way not in ("regrow", "fresh", "overlay")])
def test_vary_makes_children_in_the_chosen_way(way):
    functions = {"point": "mutate_point", "subst": "breed_subst", "constant": "perturb_constant"}
    function = getattr(variation, functions.get(way, way))
    parents = (HOST, DONOR) if way in ("crossover", "subst") else (HOST,)
    assert varied(way, *parents, capacity=20) == children(function, *parents, capacity=20)


def test_arities_are_those_of_the_table():
    assert ARITY.tolist() == [op.arity for op in OPS]


def test_operators_are_left_out_and_added():
    growth = GrowthConfig(leave_out=("isin", "subst"), add=("noise", "over"))
    keys = jax.random.split(jax.random.key(3), 400)
    grown = " ".join(decode(jax.jit(jax.vmap(lambda key: variation.grow(key, 32, growth)))(keys)))
    made = " ".join(map(str, children(partial(variation.mutate_point, growth=growth), HOST)))
    for text in (grown, made):
        assert "noise" in text
        assert "over" in text
        assert "igauss" not in text
    assert "isin" not in grown
    assert "subst" not in grown
    with pytest.raises(InputError, match=r"growth\.leave_out 'isine'.*isin"):
        GrowthConfig(leave_out=("isine",))
    with pytest.raises(InputError, match=r"growth\.add 'exp'"):
        GrowthConfig(add=("exp",))
    with pytest.raises(InputError, match=r"keep an operator of 2 operands"):
        GrowthConfig(leave_out=tuple(op.name for op in OPS if op.sampled and op.arity == 2))
