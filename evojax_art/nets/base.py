"""What every classifier offers, whatever its architecture."""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from types import MappingProxyType

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.runtime.errors import InputError, suggest


class Classifier(nnx.Module):
    """An image classifier that owns its preprocessing.

    Subclasses set the attributes below and define `logits_from_input` and `activations`.

    Attributes:
        classes: the names of its K classes, in order.
        groups: names that stand for several classes, and their indices.
        size: pictures are resized to this height and width.
        mean: of each channel, subtracted from pictures in [0, 1].
        std: of each channel, divided by.
        dtype: of the arithmetic; weights stay float32.
        multiple: pictures that are not resized must have sides that are multiples of this.
    """

    classes: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dtype: DTypeLike
    multiple: int = 1

    def logits_from_input(self, x: Float[Array, "P S S 3"]) -> Float[Array, "P K"]:
        """Logits of preprocessed pictures, in `dtype`."""
        raise NotImplementedError

    def activations(self, x: Float[Array, "P h w 3"]) -> dict[str, Array]:
        """Every stage's output, of preprocessed pictures of any size that it can take, in order."""
        raise NotImplementedError

    def preprocess(
        self, images: Float[Array, "P H W 3"], *, resize: bool = True
    ) -> Float[Array, "P S S 3"]:
        """Pictures in [0, 1] as the network takes them, in `dtype`.

        Args:
            images: of any size and aspect ratio.
            resize: to `size`; without, they keep theirs.

        Raises:
            InputError: pictures that are not resized, of a size that the network cannot take.
        """
        height, width = images.shape[1:3]
        if not resize and (height % self.multiple or width % self.multiple):
            raise InputError(
                f"the network's layers take pictures whose sides are multiples of {self.multiple}, "
                f"got {width}x{height}"
            )
        if resize and (height, width) != (self.size, self.size):
            shape = (images.shape[0], self.size, self.size, 3)
            images = jax.image.resize(images, shape, "bilinear", antialias=True)
        x = (images - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        return x.astype(self.dtype)

    def logits(self, images: Float[Array, "P H W 3"]) -> Float[Array, "P K"]:
        """Logits, float32, of pictures in [0, 1] of any size and aspect ratio."""
        logits = self.logits_from_input(self.preprocess(images))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def probabilities(self, images: Float[Array, "P H W 3"]) -> Float[Array, "P K"]:
        """Class probabilities of pictures in [0, 1] of any size; each row sums to one."""
        return _probabilities(self, images)


@nnx.jit
def _probabilities(net: Classifier, images: Array) -> Array:
    return jax.nn.softmax(net.logits(images), axis=-1)


def read_lines(file: str) -> tuple[str, ...]:
    """The lines of a data file of this package."""
    text = resources.files("evojax_art.nets").joinpath(file).read_text(encoding="utf-8")
    return tuple(text.splitlines())


def find_classes(
    classes: Sequence[str],
    query: str,
    groups: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> list[int]:
    """The classes that a user means by `query`.

    Args:
        classes: names; a comma separates synonyms.
        query: an index, a name or synonym, a group, a word of names ("crab" is in five), or a part
            of a name or group; the first reading that fits counts. Neither case nor `_` for a
            space matters.
        groups: names that stand for several classes, and their indices.

    Returns:
        Indices in ascending order, at least one.

    Raises:
        InputError: nothing fits; names the nearest.
    """
    wanted = query.strip().lower().replace("_", " ")
    if wanted.isdecimal():
        digits = wanted.lstrip("0") or "0"
        if len(digits) <= len(str(len(classes))) and int(digits) < len(classes):
            return [int(digits)]
        raise InputError(
            f"target {query:.20}: there is no class of that index, "
            f"they go from 0 to {len(classes) - 1}"
        )
    lowered = [name.lower() for name in classes]
    synonyms = [[name, *(part.strip() for part in name.split(","))] for name in lowered]
    word = re.compile(rf"\b{re.escape(wanted)}\b")
    readings = (
        [index for index, names in enumerate(synonyms) if wanted in names],
        groups.get(wanted, ()),
        [index for index, name in enumerate(lowered) if word.search(name)],
        [index for index, name in enumerate(lowered) if wanted in name],
        [index for name, members in groups.items() if wanted in name for index in members],
    )
    for found in readings:
        if wanted and found:
            return sorted(set(found))
    words = {word for names in synonyms for name in names for word in (name, *name.split())}
    near = suggest(wanted, sorted(words | groups.keys()))
    raise InputError(
        f"target {query!r}: no class of that name"
        f"{near or '; `evojax-art nets NAME --classes` lists all'}"
    )
