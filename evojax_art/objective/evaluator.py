"""From formulas to evaluations: pictures are drawn, networks look at them, terms add up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program, take
from evojax_art.nets.base import Network, by_name, merge_nets, split_nets
from evojax_art.objective.classes import ClassTarget
from evojax_art.objective.evaluation import Evaluation, Objective
from evojax_art.objective.naturalness import ContrastGate
from evojax_art.objective.observed import Observed
from evojax_art.objective.settings import ObjectiveConfig, build_objective
from evojax_art.objective.terms import Target
from evojax_art.objective.views import Views, ViewsConfig, draw_views
from evojax_art.render.batch import render_population
from evojax_art.render.look import Raster, RasterConfig
from evojax_art.runtime.plan import Plan, current_plan


class Params(NamedTuple):
    """What every evaluation reads; an argument of compiled code, not a constant in it.

    Attributes:
        weights: of each network.
        photographs: that formulas read.
        reference: what `objective.near` keeps to, of any size.
        views: that pictures are judged in besides; None for none.
        niche: in which each picture shall become fitter, by `smooth_fitness`; None: as a whole.
    """

    weights: Mapping[str, Any]
    photographs: tuple[Pyramid, ...]
    reference: Float[Array, "h w 3"] | None
    views: Views | None = None
    niche: Int[Array, "P"] | None = None


class Evaluator:
    """What turns programs into evaluations; its functions are traceable.

    Args:
        nets: the network, or several by name, the first of which is asked by default.
        target: what is wanted of it; indices of classes stand for a `ClassTarget`.
        views: in which pictures are judged besides, if the target asks for them (`Ensemble`);
            at other sizes where programs are known.
        config: the settings of the objective; or an objective, which then knows its target itself.
        raster: how pictures are drawn.
        photographs: that formulas read, see `language.photographs`.
        reference: the picture that `objective.near` keeps to, of any size.
        plan: where and how; None: `current_plan`.

    Raises:
        InputError: pictures of a size that the target's layer cannot take.
    """

    def __init__(
        self,
        nets: Network | Mapping[str, Network],
        target: Target | Sequence[int],
        config: ObjectiveConfig | Objective,
        raster: RasterConfig,
        *,
        photographs: Sequence[Pyramid] = (),
        reference: Float[Array, "h w 3"] | None = None,
        views: ViewsConfig | None = None,
        plan: Plan | None = None,
    ):
        named = by_name(nets)
        first: Any = next(iter(named.values()))
        if isinstance(target, Sequence):
            target = ClassTarget(first.vocabulary, target)
        self.target = target
        self.plan = plan or current_plan()
        size = max(net.size for net in named.values())
        self.look, self.raster = raster.look, raster.raster(size)
        self._objective = (
            config if isinstance(config, Objective) else build_objective(config, target)
        )
        self._dtype = first.dtype  # pictures leave as the network takes them
        self._graphs, weights = split_nets(named)
        self._views = views if views and views.count else None
        self._sizes = views.sizes if views else ()
        self.params = self.seen_anew(
            Params(weights, tuple(photographs), reference), jax.random.key(0)
        )
        for side in (self.raster.height, *self._sizes):
            pictures = jax.ShapeDtypeStruct((1, side, side, 3), self._dtype)
            jax.eval_shape(self.look_at, pictures, self.params)  # refuses what cannot be judged

    @property
    def has_views(self) -> bool:
        """Whether pictures are judged in views besides."""
        return self._views is not None

    def seen_anew(self, params: Params, key: Key[Array, ""]) -> Params:
        """With other random views; consumes the key, if there are any."""
        return params._replace(views=draw_views(key, self._views)) if self._views else params

    def evaluate(
        self,
        population: Program,
        params: Params,
        threshold: Float[Array, "*K"] | float = -jnp.inf,
    ) -> Evaluation:
        """Of P programs, all at once; see `Objective` for the threshold."""

        def draw_at(size: int, places: Int[Array, "G"]) -> Array:
            raster = replace(self.raster, height=size, width=size)
            return self.draw(take(population, places), params, raster)

        images = self.draw(population, params)
        sizes = [partial(draw_at, size) for size in self._sizes]
        return self._objective(self._observed(images, params, sizes), threshold)

    def evaluate_all(
        self,
        population: Program,
        params: Params,
        threshold: Float[Array, "*K"] | float = -jnp.inf,
        *,
        batch: int,
    ) -> Evaluation:
        """In batches, one after the other, so that memory does not grow with the population."""
        count = population.length.shape[0]
        num_batches = -(-count // batch)
        size = -(-count // num_batches)  # so that the last batch is no smaller than the others
        index = jnp.minimum(jnp.arange(num_batches * size), count - 1)

        def one_batch(batch: Program) -> Evaluation:
            return self.evaluate(batch, params, threshold)

        batches = take(population, index.reshape(num_batches, size))
        results = jax.lax.map(one_batch, batches)
        return jax.tree.map(lambda field: field.reshape(-1, *field.shape[2:])[:count], results)

    def draw(
        self, population: Program, params: Params, raster: Raster | None = None
    ) -> Float[Array, "P H W 3"]:
        """The pictures that are judged, or others."""
        return render_population(
            population,
            self.look,
            raster or self.raster,
            dtype=self._dtype,
            images=params.photographs,
            plan=self.plan,
        )

    def sketch(
        self, population: Program, params: Params, size: int
    ) -> Float[Array, "P size size 3"]:
        """The same pictures small, of one sample a pixel."""
        small = Raster(height=size, width=size, samples=1)
        return render_population(
            population, self.look, small, images=params.photographs, plan=self.plan
        )

    @property
    def least_contrast(self) -> float:
        """Of pictures that may win, see `naturalness`; 0 where there is no such gate."""
        gates = (gate for gate in self._objective.constraints if isinstance(gate, ContrastGate))
        return max((gate.limit for gate in gates), default=0.0)

    def unknown(self, population: Program, params: Params) -> Evaluation:
        """What is known of P programs that are not evaluated: nothing, so they are not valid."""
        shapes = jax.eval_shape(self.evaluate, population, params)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return nothing._replace(fitness=jnp.full_like(nothing.fitness, -jnp.inf))

    def look_at(
        self,
        images: Float[Array, "P H W 3"],
        params: Params,
        threshold: Float[Array, "*K"] | float = -jnp.inf,
    ) -> Evaluation:
        """Evaluates pictures of any size."""
        return self._objective(self._observed(images, params), threshold)

    def smooth_fitness(self, images: Float[Array, "P H W 3"], params: Params) -> Array:
        """Fitness [P] as far as it has a gradient; -inf where it is not finite.

        Args:
            images: of any size.
            params: as everywhere.
        """
        images = images.astype(self._dtype)
        evaluation = self._objective.smooth()(self._observed(images, params))
        if params.niche is None or evaluation.scores is None:
            return evaluation.fitness
        return jnp.take_along_axis(evaluation.scores, params.niche[:, None], axis=1)[:, 0]

    def _observed(
        self,
        images: Array,
        params: Params,
        sizes: Sequence[Callable[[Int[Array, "G"]], Array]] = (),
    ) -> Observed:
        nets = merge_nets(self._graphs, params.weights)
        views = (params.views, self._views) if params.views and self._views else None
        return Observed(images, nets, params.reference, self.plan, views, sizes)
