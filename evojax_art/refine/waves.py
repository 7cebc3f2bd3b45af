"""Waves laid over a formula: what an evolved picture needs to climb by gradient.

The constants of an evolved formula stand at the top of what they can do, and it is rugged around
them. A sum of faint waves is smooth in all that it is made of, and can draw whatever is not finer
than its shortest wave, so the gradient of a network's opinion can be followed for many steps. A
picture in terms of waves is how feature visualisation climbs as well (Olah et al. 2017).

F under a wave is `( + F ( * STRENGTH ( isin ( + PHASE ( * VECTOR x_iy ) ) ) ) )`. The product with
x_iy makes four waves of the one, along two directions and across them, and the product with its
strength mixes the four into the three colours. All three are constants that climb, and all other
constants stay, but for those of waves that a formula has already.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from evojax_art.language.ops import BY_NAME
from evojax_art.language.program import Program

_NAMES = ("q", "q", "q", "x_iy", "*", "+", "isin", "*", "+")  # strength, phase and vector first
_PATTERN = np.array([BY_NAME[name].opcode for name in _NAMES], np.int32)
NODES = len(_PATTERN)
_LONGEST, _SHORTEST = 1.0, 60.0  # radians per unit of x, of which a picture has two
# How far a constant moves for an offset of 1, see `ascent`.
_STRENGTH, _PHASE, _VECTOR = 0.4, 1.0, 2.0


def laid_over(key: Key[Array, ""], program: Program, count: int) -> Program:
    """One program under waves of random directions, lengths and phases, of no strength yet.

    Args:
        key: consumed.
        program: without a leading axis. Its picture does not change.
        count: of the waves; fewer where its capacity has no room for them.
    """
    phase_key, vector_key = jax.random.split(key)
    phase = jax.random.uniform(phase_key, (count, 4), minval=-jnp.pi, maxval=jnp.pi)
    constants = jnp.stack([jnp.zeros_like(phase), phase, _vectors(vector_key, count)], axis=1)
    constants = jnp.pad(constants, ((0, 0), (0, NODES - 3), (0, 0))).reshape(-1, 4)
    # A formula in postfix goes on behind its end.
    fitting = jnp.minimum(count, (program.capacity - program.length) // NODES)
    place = jnp.arange(count * NODES)
    place = jnp.where(place < fitting * NODES, program.length + place, program.capacity)
    return Program(
        opcode=program.opcode.at[place].set(jnp.tile(_PATTERN, count), mode="drop"),
        constant=program.constant.at[place].set(constants, mode="drop"),
        length=program.length + fitting * NODES,
    )


def reach_of_waves(program: Program) -> Float[Array, "L 1"]:
    """How far an offset of 1 moves each constant, see `ascent`: of waves alone.

    Args:
        program: without a leading axis.
    """
    ahead = jnp.pad(program.opcode, (0, NODES - 1))
    windows = jnp.stack([ahead[n : n + program.capacity] for n in range(NODES)], axis=1)
    is_wave = jnp.all(windows == _PATTERN, axis=1)
    strength, phase, vector = (
        jnp.where(jnp.pad(is_wave, (n, 0))[: program.capacity], reach, 0.0)
        for n, reach in enumerate((_STRENGTH, _PHASE, _VECTOR))
    )
    return (strength + phase + vector).astype(jnp.float32)[:, None]


def _vectors(key: Key[Array, ""], count: int) -> Float[Array, "N 4"]:
    """Two wave vectors each, of any direction, their lengths log-uniform."""
    length_key, turn_key = jax.random.split(key)
    low, high = jnp.log(_LONGEST), jnp.log(_SHORTEST)
    length = jnp.exp(jax.random.uniform(length_key, (count, 2), minval=low, maxval=high))
    turn = jax.random.uniform(turn_key, (count, 2), maxval=2 * jnp.pi)
    pairs = length[..., None] * jnp.stack([jnp.cos(turn), jnp.sin(turn)], axis=-1)
    return pairs.reshape(count, 4)
