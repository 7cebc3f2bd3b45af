"""Computing only what matters, under jit."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

T = TypeVar("T")


def where_needed(
    compute_fn: Callable[[Int[Array, "G"]], T], needed: Bool[Array, "P"], group: int, nothing: T
) -> T:
    """Some function of P individuals, of those for whom it is needed.

    It takes time for as many groups as these fill. Traceable, but not differentiable backwards.

    Args:
        compute_fn: from the places of G individuals to arrays [..., G].
        needed: for whom.
        group: G, at most P.
        nothing: arrays [..., P] of what the others get.

    Returns:
        Arrays [..., P].
    """
    count = needed.shape[0]
    order = jnp.argsort(~needed)  # those needed come first

    def compute(number, found):
        places = order[jnp.minimum(number * group + jnp.arange(group), count - 1)]
        return jax.tree.map(
            lambda all_, some: all_.at[..., places].set(some), found, compute_fn(places)
        )

    found = jax.lax.fori_loop(0, -(-jnp.sum(needed) // group), compute, nothing)
    return jax.tree.map(lambda all_, none: jnp.where(needed, all_, none), found, nothing)
