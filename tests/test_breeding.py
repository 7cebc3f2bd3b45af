"""Children between a host and its kin."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evojax_art.language.program import decode, encode, is_valid, take
from evojax_art.runtime.errors import InputError
from evojax_art.search.breeding import blend, breed, kin_of
from evojax_art.search.variation import GrowthConfig, VariationConfig

FAMILY = [f"( + ( q {n} 0 0 1 ) ( isin ( * ( q 1 0 {n} 0 ) x_iy ) ) )" for n in (0, 4, 8)]
OTHERS = ["( isin x_iy )", "( + ( q 0 0 0 1 ) ( exp ( * ( q 1 0 2 0 ) x_iy ) ) )"]
ONLY_KIN = replace(VariationConfig(), blend=1e9)
COUNT = 400


def everyone(capacity: int = 16):
    """The family at places 0, 2 and 3, strangers at 1 and 4."""
    return encode([FAMILY[0], OTHERS[0], *FAMILY[1:], OTHERS[1]], capacity)


def test_kin_are_others_of_the_same_nodes_all_equally_often():
    hosts = jnp.repeat(jnp.arange(5), COUNT)
    kin, has_kin = kin_of(jax.random.key(0), everyone(), hosts)
    kin, has_kin = (np.asarray(found).reshape(5, COUNT) for found in (kin, has_kin))
    for host, theirs in {0: {2, 3}, 2: {0, 3}, 3: {0, 2}}.items():
        assert has_kin[host].all()
        assert set(kin[host]) == theirs
        assert 0.4 < np.mean(kin[host] == min(theirs)) < 0.6
    for host in (1, 4):
        assert not has_kin[host].any()
        assert set(kin[host]) == {host}


def test_children_lie_on_the_line_or_each_node_between():
    programs = everyone()
    ends = [take(programs, jnp.full(COUNT, place)) for place in (0, 2)]
    children = blend(jax.random.key(1), *ends)
    np.testing.assert_array_equal(children.opcode, ends[0].opcode)
    moved = np.asarray(children.constant)[:, [0, 1], [0, 2]] / 4  # of both constants
    assert moved.min() < -0.2
    assert moved.max() > 1.2
    assert (np.abs(moved - 0.5) <= 0.75 + 1e-6).all()
    on_line = np.isclose(moved[:, 0], moved[:, 1])
    assert 0.4 < on_line.mean() < 0.6
    assert np.ptp(moved[on_line, 0]) > 1
    rest = np.asarray(children.constant).copy()
    rest[:, [0, 1], [0, 2]] = np.asarray(ends[0].constant)[:, [0, 1], [0, 2]]
    np.testing.assert_array_equal(rest, ends[0].constant)  # what they share stays


def test_constants_stay_within_their_range():
    ends = [take(encode([f"( q {n} 0 0 0 )"], 8), jnp.zeros(COUNT, int)) for n in (0, 1e6)]
    constant = np.asarray(blend(jax.random.key(4), *ends).constant)
    assert constant.max() == 1e6
    assert constant.min() < -1e5


def test_the_same_formula_twice_is_no_kin():
    programs = encode([FAMILY[0], FAMILY[0], OTHERS[0]], 16)
    _, has_kin = kin_of(jax.random.key(0), programs, jnp.arange(3))
    assert not has_kin.any()


def test_parents_are_told_and_who_has_no_kin_is_varied():
    hosts = jnp.tile(jnp.arange(5), 40)
    donors = jnp.full(len(hosts), 1)
    growth = GrowthConfig()
    bred = jax.jit(lambda key: breed(key, everyone(), hosts, donors, ONLY_KIN, growth))
    children, parents = bred(jax.random.key(2))
    assert bool(jax.vmap(is_valid)(children).all())
    np.testing.assert_array_equal(parents[:, 0], hosts)
    related = np.isin(hosts, (0, 2, 3))
    assert np.isin(parents[related, 1], (0, 2, 3)).all()
    assert (parents[related, 1] != parents[related, 0]).all()
    assert (parents[~related, 1] == 1).all()
    structure = np.asarray(everyone().opcode[hosts])
    assert (np.asarray(children.opcode) == structure).all(axis=1)[related].all()
    assert not (np.asarray(children.opcode) == structure).all(axis=1)[~related].all()


def test_without_blending_nobody_is_kin():
    never = replace(VariationConfig(), blend=0.0)
    hosts, donors = jnp.zeros(COUNT, int), jnp.ones(COUNT, int)
    children, parents = breed(jax.random.key(3), everyone(), hosts, donors, never, GrowthConfig())
    assert (parents[:, 1] == 1).all()
    assert len(set(decode(children))) > COUNT / 3


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_wrong_weights_are_refused(weight):
    with pytest.raises(InputError, match=r"variation\.blend must be 0 or more"):
        VariationConfig(blend=weight)
