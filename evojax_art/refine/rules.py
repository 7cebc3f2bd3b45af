"""How pixels climb a gradient: what is climbed in their place, and how far a step goes."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from evojax_art.refine.views import by_bands

_EDGE = 1 / 64  # how far from their ends the sigmoid takes black and white
_NOTHING = 1e-30  # a gradient that is 0 everywhere stays so
Field = Float[Array, "h w 3"]


class Rule(NamedTuple):
    """A way to climb.

    Attributes:
        climbed: what is climbed, of a picture.
        colours: the picture in [0, 1], of what is climbed.
        direction: of a step, of a gradient in what is climbed.
        step: length of a step of 1.
        confined: of a base and what was added to it, what may be added, so that it has colours.
        beyond: its edges a shifted picture is mirrored, or begins again.
    """

    climbed: Callable[[Field], Field]
    colours: Callable[[Field], Field]
    direction: Callable[[Field], Field]
    step: float
    confined: Callable[[Field, Field], Field]
    beyond: Literal["reflect", "wrap"]

    def optimizer(self, learning_rate: float, momentum: float) -> optax.GradientTransformation:
        """Steps of that length, which keep a share of the last one."""

        def direction(update: ArrayLike, _: Any) -> Array:
            return self.direction(jnp.asarray(update))

        return optax.chain(
            optax.stateless_with_tree_map(direction),
            optax.ema(momentum, debias=False),
            optax.scale(learning_rate * self.step),
        )


def bands(smoothness: float) -> Rule:
    """Colours are a sigmoid of what is climbed, and each band of a gradient has its own length."""
    return Rule(
        climbed=log_odds,
        colours=colours,
        direction=lambda gradient: by_bands(gradient, smoothness),
        step=1.0,
        confined=lambda base, added: added,
        beyond="reflect",
    )


def plain() -> Rule:
    """DeepDream as published (Mordvintsev et al. 2015): pixels, and the mean absolute gradient."""
    return Rule(
        climbed=_within,
        colours=lambda climbed: climbed,
        direction=lambda gradient: gradient / (jnp.mean(jnp.abs(gradient)) + _NOTHING),
        step=1 / 255,
        confined=lambda base, added: _within(base + added) - base,
        beyond="wrap",
    )


def colours(logits: Float[Array, "..."]) -> Float[Array, "..."]:
    """Colours in [0, 1]: a sigmoid, stretched a little, so that it takes black and white."""
    return jnp.clip((jax.nn.sigmoid(logits) - _EDGE) / (1 - 2 * _EDGE), 0, 1)


def log_odds(picture: Float[Array, "..."]) -> Float[Array, "..."]:
    """What `colours` makes the picture of."""
    inside = _EDGE + (1 - 2 * _EDGE) * _within(picture)
    return jnp.log(inside) - jnp.log1p(-inside)


def _within(picture: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.clip(picture, 0, 1)
