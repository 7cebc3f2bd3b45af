"""Children of chosen parents: by `vary` of a host and a donor, or between a host and its kin.

A search that has settled on a few families holds many formulas of one structure, which differ in
their constants. On the line between two of those lie pictures that are better than either far
oftener than around one of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from evojax_art.language.program import Program, select, take
from evojax_art.search.protocol import fingerprint, in_groups, structures
from evojax_art.search.splicing import LARGEST_CONSTANT, draw
from evojax_art.search.variation import GrowthConfig, VariationConfig, vary

_BEYOND = 0.25  # of the distance of two parents, at either end of the line


def breed(
    key: Key[Array, ""],
    programs: Program,
    hosts: Int[Array, "O"],
    donors: Int[Array, "O"],
    variation: VariationConfig,
    growth: GrowthConfig,
) -> tuple[Program, Int[Array, "O 2"]]:
    """A child of every host.

    Args:
        key: consumed.
        programs: P of them.
        hosts: places among them.
        donors: likewise, for ways that need one.
        variation: `variation.blend` is the weight of a child between a host and one of its kin, as
            far as it has any; the other weights are those of `vary`.
        growth: how random subtrees grow.

    Returns:
        The children, and the places of both parents of each.
    """
    vary_key, kin_key, choice_key, blend_key = jax.random.split(key, 4)
    count = len(hosts)
    varied = in_groups(
        lambda draws, host, donor: vary(draws, host, donor, variation, growth),
        draw(vary_key, count, programs.capacity),
        take(programs, hosts),
        take(programs, donors),
    )
    kin, has_kin = kin_of(kin_key, programs, hosts)
    blended = blend(blend_key, take(programs, hosts), take(programs, kin))
    share = variation.blend / (variation.blend + sum(variation.weights.values()))
    chosen = jax.random.bernoulli(choice_key, share, (count,)) & has_kin
    children = select(chosen, blended, varied)
    return children, jnp.stack([hosts, jnp.where(chosen, kin, donors)], axis=1)


def kin_of(
    key: Key[Array, ""], programs: Program, hosts: Int[Array, "O"]
) -> tuple[Int[Array, "O"], Bool[Array, "O"]]:
    """For each host a program of the same nodes.

    Returns:
        Places, uniform among all others that there are, else the host's own; whether constants
        differ: an elite of several classes is there several times.
    """
    known = structures(programs)
    order = jnp.argsort(known, stable=True)
    ranked = known[order]
    first, end = (jnp.searchsorted(ranked, known[hosts], side=side) for side in ("left", "right"))
    size = end - first  # of the host's family, itself among them
    own = jnp.argsort(order, stable=True)[hosts] - first
    draw = jax.random.uniform(key, hosts.shape)
    step = 1 + jnp.minimum((draw * (size - 1)).astype(jnp.int32), jnp.maximum(size - 2, 0))
    kin = order[first + (own + step) % size]
    marks = jax.vmap(fingerprint)(programs)
    return kin, marks[kin] != marks[hosts]


def blend(key: Key[Array, ""], hosts: Program, kin: Program) -> Program:
    """Between both, or a little beyond: on the line through them, or each node by itself.

    Extended line and extended intermediate recombination of Mühlenbein and Schlierkamp-Voosen,
    "Predictive models for the breeder genetic algorithm" (1993), each in half of the cases.

    Args:
        key: consumed.
        hosts: O of them.
        kin: one of the same nodes for each.
    """
    line_key, reach_key = jax.random.split(key)
    shape = hosts.opcode.shape
    reach = jax.random.uniform(reach_key, shape, minval=-_BEYOND, maxval=1 + _BEYOND)
    on_line = jax.random.bernoulli(line_key, shape=(shape[0], 1))
    reach = jnp.where(on_line, reach[:, :1], reach)
    constant = hosts.constant + reach[..., None] * (kin.constant - hosts.constant)
    return hosts._replace(constant=jnp.clip(constant, -LARGEST_CONSTANT, LARGEST_CONSTANT))
