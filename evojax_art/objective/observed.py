"""What is known of pictures, computed when somebody first asks for it, once per trace."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evojax_art.nets.base import Classifier, Network, by_name
from evojax_art.nets.clip import Clip
from evojax_art.objective.tv import total_variation
from evojax_art.objective.views import Views, ViewsConfig, view
from evojax_art.runtime.plan import Plan


class Observed:
    """P pictures and what networks see in them; for one trace, not to be kept.

    Attributes:
        images: [P, H, W, 3] in [0, 1], as networks take them; perhaps of less than float32.
        nets: the networks, by name; the first is asked where no name is given.
        reference: a picture [h, w, 3] that others are compared with, of any size; or None.
        plan: where and how what is asked for is computed; None: `current_plan`.
        views: other ways to see them, and their settings; None for none.
        sizes: each draws some of the pictures, given by their places, at another size.
    """

    def __init__(
        self,
        images: Float[Array, "P H W 3"],
        nets: Network | Mapping[str, Any],
        reference: Float[Array, "h w 3"] | None = None,
        plan: Plan | None = None,
        views: tuple[Views, ViewsConfig] | None = None,
        sizes: Sequence[Callable[[Int[Array, "G"]], Float[Array, "G h w 3"]]] = (),
    ):
        self.images = images
        self.nets: Mapping[str, Any] = by_name(nets)
        self.reference = reference
        self.plan = plan
        self.views = views
        self.sizes = tuple(sizes)
        self._found: dict[tuple[str, str], Any] = {}

    @cached_property
    def pictures(self) -> Float[Array, "P H W 3"]:
        """The images, float32 or more."""
        return self.images.astype(jnp.promote_types(self.images.dtype, jnp.float32))

    @property
    def num_views(self) -> int:
        """How many there are besides the pictures as they are."""
        return len(self.views[0].turn) if self.views else 0

    @cached_property
    def viewed(self) -> "Observed":
        """All pictures in the first view, then all in the second, and so on, as pictures."""
        if self.views is None:
            raise ValueError("there are no views")
        seen = view(self.images, *self.views)
        return Observed(seen.reshape(-1, *seen.shape[2:]), self.nets, None, self.plan)

    def at_size(self, number: int) -> "Observed":
        """All pictures, drawn at one of the other sizes."""
        images = self.sizes[number](jnp.arange(len(self.images)))
        return Observed(images, self.nets, None, self.plan)

    def some(self, places: Int[Array, "G"]) -> "Observed":
        """Some of the pictures."""
        sizes = [lambda some, draw_fn=draw_fn: draw_fn(places[some]) for draw_fn in self.sizes]
        return Observed(
            self.images[places], self.nets, self.reference, self.plan, self.views, sizes
        )

    @cached_property
    def total_variation(self) -> Float[Array, "P"]:
        """See `tv.total_variation`."""
        return total_variation(self.pictures)

    def net(self, name: str = "") -> Any:
        """A network by its name, or the first."""
        return self.nets[name] if name in self.nets else next(iter(self.nets.values()))

    def log_probabilities(self, name: str = "") -> Float[Array, "P K"]:
        """Of a classifier's classes; pictures are resized as it expects."""
        net: Classifier = self.net(name)
        return self._once(
            "log_probabilities",
            name,
            lambda: jax.nn.log_softmax(net.logits(self.images), axis=-1),
        )

    def image_embedding(self, name: str = "") -> Float[Array, "P D"]:
        """Directions of pictures in a network that reads, see `nets.clip`."""
        net: Clip = self.net(name)
        return self._once("image_embedding", name, lambda: net.image_embedding(self.images))

    def activations(self, name: str = "") -> dict[str, Array]:
        """Of every layer of a network, at the pictures' own size.

        Raises:
            InputError: pictures of a size that the network cannot take.
        """
        net: Network = self.net(name)
        return self._once("activations", name, lambda: net.features(self.images, resize=False))

    def _once(self, what: str, name: str, compute_fn: Any) -> Any:
        if (what, name) not in self._found:
            self._found[what, name] = compute_fn()
        return self._found[what, name]
