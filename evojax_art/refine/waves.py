"""Waves laid over a formula: what an evolved picture needs to climb by gradient.

The constants of an evolved formula stand at the top of what they can do, and it is rugged around
them. A sum of faint waves is smooth in all that it is made of, and can draw whatever is not finer
than its shortest wave, so the gradient of a network's opinion can be followed for many steps. A
picture in terms of waves is how feature visualisation climbs as well (Olah et al. 2017).

F under a wave is `( + F ( * STRENGTH ( isin ( + PHASE ( * VECTOR x_iy ) ) ) ) )`. The product with
x_iy makes four waves of the one, along two directions and across them, and the product with its
strength mixes the four into the three colours. All three are constants that climb; those of F stay.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from evojax_art.language.formula import Expression, Node, constant_node
from evojax_art.language.ops import BY_NAME

NODES = 9  # of a wave
_LONGEST, _SHORTEST = 1.0, 60.0  # radians per unit of x, of which a picture has two
# How far a constant moves for an offset of 1, see `ascent`.
_STRENGTH, _PHASE, _VECTOR = 0.4, 1.0, 2.0


class Waved(NamedTuple):
    """A formula under waves.

    Attributes:
        expression: the formula, whose picture is not changed yet.
        reach: of its constants, see `ascent`.
    """

    expression: Expression
    reach: Float[Array, "L 1"]


def waved(expression: Expression, count: int, key: Key[Array, ""]) -> Waved:
    """Lays waves of random directions, lengths and phases over a formula, of no strength yet.

    Args:
        expression: the formula.
        count: of the waves.
        key: consumed.
    """
    phase_key, vector_key = jax.random.split(key)
    phases = jax.random.uniform(phase_key, (count, 4), minval=-jnp.pi, maxval=jnp.pi)
    nodes = list(expression.postfix)
    reach = [0.0] * len(nodes)
    for phase, vector in zip(phases.tolist(), _vectors(vector_key, count).tolist(), strict=True):
        constants = [constant_node(tuple(each)) for each in ([0.0] * 4, phase, vector)]
        rest = [Node(BY_NAME[name]) for name in ("x_iy", "*", "+", "isin", "*", "+")]
        nodes += [*constants, *rest]
        reach += [_STRENGTH, _PHASE, _VECTOR, *([0.0] * len(rest))]
    return Waved(Expression(tuple(nodes)), jnp.array(reach)[:, None])


def _vectors(key: Key[Array, ""], count: int) -> Float[Array, "N 4"]:
    """Two wave vectors each, of any direction, their lengths log-uniform."""
    length_key, turn_key = jax.random.split(key)
    low, high = jnp.log(_LONGEST), jnp.log(_SHORTEST)
    length = jnp.exp(jax.random.uniform(length_key, (count, 2), minval=low, maxval=high))
    turn = jax.random.uniform(turn_key, (count, 2), maxval=2 * jnp.pi)
    pairs = length[..., None] * jnp.stack([jnp.cos(turn), jnp.sin(turn)], axis=-1)
    return pairs.reshape(count, 4)
