"""From formulas to fitness: pictures are drawn as a scene says and judged by a network."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program
from evojax_art.nets.base import Classifier
from evojax_art.objective.evaluation import Metrics, ObjectiveConfig, assess
from evojax_art.objective.goals import ClassGoal, Goal
from evojax_art.render.batch import render_population
from evojax_art.render.look import RasterConfig

Judged = tuple[Float[Array, "P"], Metrics]


class Fixed(NamedTuple):
    """What every judgement reads; an argument of compiled code, not a constant in it.

    Attributes:
        weights: of the network.
        images: pictures that formulas read.
        reference: what `objective.near` keeps to, of any size.
    """

    weights: Any
    images: tuple[Pyramid, ...]
    reference: Float[Array, "h w 3"] | None


class Judge:
    """What turns programs into fitness; its functions are traceable.

    Args:
        net: the network.
        goal: what is wanted of it; indices of classes stand for a `ClassGoal`.
        objective: how fitness is composed.
        scene: how pictures are drawn.
        images: pictures that formulas read, see `images`.
        reference: the picture that `objective.near` keeps to, of any size.

    Raises:
        InputError: pictures of a size that the goal's layer cannot take.
    """

    def __init__(
        self,
        net: Classifier,
        goal: Goal | Sequence[int],
        objective: ObjectiveConfig,
        scene: RasterConfig,
        *,
        images: Sequence[Pyramid] = (),
        reference: Float[Array, "h w 3"] | None = None,
    ):
        self.goal = ClassGoal(net, goal) if isinstance(goal, Sequence) else goal
        self.objective = objective
        self.look, self.raster = scene.look, scene.raster(net.size)
        self._dtype = getattr(net, "dtype", jnp.float32)  # pictures leave as the network takes them
        self._graph, weights = nnx.split(net)
        self.fixed = Fixed(weights, tuple(images), reference)
        pictures = jax.ShapeDtypeStruct((1, self.raster.height, self.raster.width, 3), self._dtype)
        jax.eval_shape(self.assess, pictures, self.fixed)  # refuses what the goal cannot judge

    def judge(
        self,
        population: Program,
        fixed: Fixed,
        threshold: Float[Array, ""] | float = -jnp.inf,
    ) -> Judged:
        """Fitness and metrics of programs, all at once."""
        return self.assess(self.draw(population, fixed), fixed, threshold)

    def draw(self, population: Program, fixed: Fixed) -> Float[Array, "P H W 3"]:
        """The pictures that are judged."""
        return render_population(
            population, self.look, self.raster, dtype=self._dtype, images=fixed.images
        )

    def assess(
        self,
        images: Float[Array, "P H W 3"],
        fixed: Fixed,
        threshold: Float[Array, ""] | float = -jnp.inf,
    ) -> Judged:
        """Fitness and metrics of pictures, see `objective.assess`."""
        net = nnx.merge(self._graph, fixed.weights)
        return assess(images, net, self.goal, self.objective, threshold, fixed.reference)

    def slope(self, images: Float[Array, "P H W 3"], fixed: Fixed) -> Float[Array, "P"]:
        """Fitness as far as it has a gradient: without the gate, and on the scale of log-odds.

        Args:
            images: of any size.
            fixed: as everywhere.
        """
        net = nnx.merge(self._graph, fixed.weights)
        smooth = replace(self.objective, scale="log_odds", noise_gate=0.0)
        images = images.astype(self._dtype)
        return assess(images, net, self.goal, smooth, reference=fixed.reference)[0]
