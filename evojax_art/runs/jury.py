"""What networks think of elites: the judges as they judged, others of pictures drawn well."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evojax_art.language.program import Program, take
from evojax_art.nets.base import Classifier, Network, merge_nets, split_nets
from evojax_art.objective.niches import EveryClass
from evojax_art.render.batch import render_population
from evojax_art.render.look import Look, Raster
from evojax_art.runtime.plan import Plan

_AT_ONCE = 64  # pictures, at most
UNKNOWN = -1  # rank of what a network has no class for


class Opinion(NamedTuple):
    """Of one network on P pictures, each in its niche.

    Attributes:
        probability: of the niche's classes; NaN where the network has none of that meaning.
        rank: of them among all others, 0 for the likeliest; `UNKNOWN` likewise.
    """

    probability: Float[np.ndarray, "P"]
    rank: Int[np.ndarray, "P"]


class Jury:
    """Networks that are asked about pictures of formulas.

    Args:
        nets: by name.
        niches: what pictures shall be.
        look: of the formulas.
        raster: of the pictures that they are shown.
        plan: where and how.
    """

    def __init__(
        self,
        nets: Mapping[str, Network],
        niches: EveryClass,
        look: Look,
        raster: Raster,
        plan: Plan,
    ):
        known = {name: niches.matched(net) for name, net in nets.items()}
        self._classes: dict[str, np.ndarray] = {}
        asked: dict[str, Classifier] = {}
        for name, groups in known.items():
            net = nets[name]
            if groups is None or not isinstance(net, Classifier):
                continue
            members = np.zeros((len(groups), len(net.vocabulary)), bool)
            for niche, group in enumerate(groups):
                members[niche, list(group)] = True
            self._classes[name], asked[name] = members, net
        largest = max((raster.height, *(net.size for net in asked.values())))
        self._at_once = min(_AT_ONCE, plan.batch(largest))
        self._graphs, self._weights = split_nets(asked)
        self._draw: Any = {"look": look, "raster": raster, "plan": plan}
        self._examine = jax.jit(self._batch)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the networks that have classes."""
        return tuple(self._classes)

    def __call__(self, programs: Program, niches: Int[np.ndarray, "P"]) -> dict[str, Opinion]:
        """What each thinks of P formulas, each in its niche."""
        count = len(niches)
        found: list[Any] = []
        for first in range(0, count, self._at_once) if self._classes else ():
            places = np.minimum(np.arange(first, first + self._at_once), count - 1)
            batch = take(programs, jnp.asarray(places))
            found.append(jax.device_get(self._examine(self._weights, batch, niches[places])))
        return {
            name: Opinion(
                *(np.concatenate([one[name][n] for one in found])[:count] for n in range(2))
            )
            for name in (self._classes if found else ())
        }

    def _batch(
        self, weights: Any, programs: Program, niches: Int[Array, "P"]
    ) -> dict[str, tuple[Array, Array]]:
        images = render_population(programs, **self._draw)
        opinions = {}
        for name, net in merge_nets(self._graphs, weights).items():
            probabilities = jax.nn.softmax(net.logits(images), axis=-1)
            ours = jnp.asarray(self._classes[name])[niches]
            best = jnp.max(jnp.where(ours, probabilities, -1.0), axis=1, keepdims=True)
            rank = jnp.sum(~ours & (probabilities > best), axis=1)
            is_known = jnp.any(ours, axis=1)
            probability = jnp.sum(jnp.where(ours, probabilities, 0), axis=1)
            opinions[name] = (
                jnp.where(is_known, probability, jnp.nan),
                jnp.where(is_known, rank, UNKNOWN),
            )
        return opinions
