"""Computing only what matters, under jit."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

T = TypeVar("T")


def where_needed(
    compute_fn: Callable[[Int[Array, "G"]], T],
    needed: Bool[Array, "P"],
    group: int,
    nothing: T,
    axis: int = 0,
) -> T:
    """Some function of P individuals, of those for whom it is needed.

    It takes time for as many groups as these fill. Traceable, but not differentiable backwards.

    Args:
        compute_fn: from the places of G individuals to arrays that have G of them along
            the axis.
        needed: for whom.
        group: G, at most P.
        nothing: arrays of what the others get, P of them along the axis.
        axis: of the individuals in all arrays, counted from the first.

    Returns:
        Arrays as those of `nothing`.
    """
    count = needed.shape[0]
    before = (slice(None),) * axis
    order = jnp.argsort(~needed)  # those needed come first

    def compute(number, found):
        places = order[jnp.minimum(number * group + jnp.arange(group), count - 1)]
        return jax.tree.map(
            lambda all_, some: all_.at[*before, places].set(some), found, compute_fn(places)
        )

    found = jax.lax.fori_loop(0, -(-jnp.sum(needed) // group), compute, nothing)

    def chosen(all_, none):
        return jnp.where(needed.reshape(-1, *(1,) * (all_.ndim - axis - 1)), all_, none)

    return jax.tree.map(chosen, found, nothing)
