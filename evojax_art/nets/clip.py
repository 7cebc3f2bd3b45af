"""CLIP (Radford et al. 2021, arXiv:2103.00020): pictures and texts as directions of one space.

A vision transformer and a text transformer, whose outputs point the same way where a text describes
a picture. All sizes are read from the weights file, so any of OpenAI's `clip-vit-*` will do, under
the names of Hugging Face or of OpenAI's own release. Both transformers normalise before each part
of a block, and their activation is x times the sigmoid of 1.702 x.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from evojax_art.nets.base import Network, Pictures
from evojax_art.nets.entry import NetEntry, Published
from evojax_art.runtime.errors import InputError

_HEAD = 64  # channels of an attention head in all of OpenAI's
_MOST_BLOCKS = 48  # of a tower; OpenAI's largest has 24, and building takes the square of it


class TowerSizes(NamedTuple):
    """Of a transformer: channels, of its inner layers, blocks, attention heads."""

    width: int
    inner: int
    blocks: int
    heads: int


class ClipSizes(NamedTuple):
    """Of a CLIP.

    Attributes:
        vision: the transformer of pictures.
        text: that of texts.
        patch: pixels to a side of what is one token of a picture.
        grid: patches to a side of a picture.
        context: tokens of a text.
        vocabulary: how many tokens there are; the last one ends a text.
        space: dimensions of what both lead to.
    """

    vision: TowerSizes
    text: TowerSizes
    patch: int
    grid: int
    context: int
    vocabulary: int
    space: int


VIT_B32 = ClipSizes(
    vision=TowerSizes(768, 3072, 12, 12),
    text=TowerSizes(512, 2048, 12, 8),
    patch=32,
    grid=7,
    context=77,
    vocabulary=49_408,
    space=512,
)


class Block(nnx.Module):
    """Attention, then two dense layers; each adds to what it normalises."""

    def __init__(self, sizes: TowerSizes, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width = sizes.width
        self.heads = sizes.heads
        self.norm1 = nnx.LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.attention_in = nnx.Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.attention_out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.inner = nnx.Linear(width, sizes.inner, dtype=dtype, rngs=rngs)
        self.outer = nnx.Linear(sizes.inner, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "P T C"], *, is_causal: bool) -> Float[Array, "P T C"]:
        """Of T tokens, which see all others or those before them."""
        count, tokens, width = x.shape
        apart = self.attention_in(self.norm1(x))
        apart = apart.reshape(count, tokens, 3, self.heads, width // self.heads)
        query, key, value = (apart[:, :, number] for number in range(3))
        seen = jax.nn.dot_product_attention(query, key, value, is_causal=is_causal)
        x = x + self.attention_out(seen.reshape(count, tokens, width))
        inner = self.inner(self.norm2(x))
        return x + self.outer(inner * jax.nn.sigmoid(1.702 * inner))


class Clip(Network):
    """Both transformers of a CLIP.

    Args:
        sizes: of its parts.
        dtype: of the arithmetic.
        rngs: for weights.
    """

    def __init__(
        self,
        *,
        sizes: ClipSizes = VIT_B32,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.sizes = sizes
        self.size = sizes.patch * sizes.grid
        self.multiple = sizes.patch
        self.mean = (0.48145466, 0.4578275, 0.40821073)
        self.std = (0.26862954, 0.26130258, 0.27577711)
        self.dtype = dtype

        def noise(*shape: int) -> nnx.Param:
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, jnp.float32))

        def blocks(tower: TowerSizes) -> nnx.List:
            return nnx.List(Block(tower, dtype=dtype, rngs=rngs) for _ in range(tower.blocks))

        width, text_width = sizes.vision.width, sizes.text.width
        options = {"use_bias": False, "dtype": dtype, "rngs": rngs}
        norm = {"epsilon": 1e-5, "dtype": dtype, "rngs": rngs}
        self.patches = nnx.Linear(3 * sizes.patch**2, width, **options)
        self.summary = noise(width)
        self.places = noise(1 + sizes.grid**2, width)
        self.norm_in = nnx.LayerNorm(width, **norm)
        self.blocks = blocks(sizes.vision)
        self.norm_out = nnx.LayerNorm(width, **norm)
        self.project = nnx.Linear(width, sizes.space, **options)
        self.words = noise(sizes.vocabulary, text_width)
        self.text_places = noise(sizes.context, text_width)
        self.text_blocks = blocks(sizes.text)
        self.text_norm = nnx.LayerNorm(text_width, **norm)
        self.text_project = nnx.Linear(text_width, sizes.space, **options)
        self.log_scale = nnx.Param(jnp.float32(np.log(1 / 0.07)))

    def image_embedding(self, images: Pictures) -> Float[Array, "P D"]:
        """Directions of pictures in [0, 1], of length 1, float32; they are resized."""
        return _of_length_1(self.activations(self.preprocess(images))["embedding"])

    def text_embedding(self, tokens: Int[Array | np.ndarray, "N T"]) -> Float[Array, "N D"]:
        """Directions of texts, of length 1, float32.

        Args:
            tokens: see `tokens.encode`; what comes after the mark that ends a text has no say.

        Raises:
            InputError: texts of more tokens than the weights are for; or, in an array of NumPy,
                tokens that they lack.
        """
        known, longest = self.sizes.vocabulary, self.sizes.context
        if tokens.shape[1] > longest:
            raise InputError(
                f"the weights are for texts of {longest} tokens, not {tokens.shape[1]}"
            )
        if isinstance(tokens, np.ndarray) and tokens.size and tokens.max() >= known:
            raise InputError(f"the weights are for {known} tokens, not for {tokens.max()}")
        tokens = jnp.asarray(tokens)
        x = self.words[...][tokens] + self.text_places[...][: tokens.shape[1]]
        x = x.astype(self.dtype)
        for block in self.text_blocks:
            x = block(x, is_causal=True)
        end = jnp.argmax(tokens == self.sizes.vocabulary - 1, axis=1)
        last = self.text_norm(x)[jnp.arange(len(tokens)), end]
        return _of_length_1(self.text_project(last))

    def activations(self, x: Float[Array, "P h w 3"]) -> dict[str, Array]:
        """Outputs of `stem`, `block0` and so on, as pictures of patches; and `embedding`.

        Of other sizes than the network's own the places of patches lie between those it knows.
        """
        count, height, width, _ = x.shape
        patch, grid = self.sizes.patch, self.sizes.grid
        rows, columns = height // patch, width // patch
        apart = x.reshape(count, rows, patch, columns, patch, 3).swapaxes(2, 3)
        x = self.patches(apart.reshape(count, rows * columns, -1))
        places = self.places[...]
        if (rows, columns) != (grid, grid):
            known = places[1:].reshape(grid, grid, -1)
            known = jax.image.resize(known, (rows, columns, known.shape[-1]), "bilinear")
            places = jnp.concatenate([places[:1], known.reshape(rows * columns, -1)])
        first = jnp.broadcast_to(self.summary[...], (count, 1, x.shape[-1])).astype(x.dtype)
        x = self.norm_in(jnp.concatenate([first, x], axis=1) + places.astype(x.dtype))
        outputs = {}

        def keep(name: str) -> None:
            outputs[name] = x[:, 1:].reshape(count, rows, columns, -1)

        keep("stem")
        for number, block in enumerate(self.blocks):
            x = block(x, is_causal=False)
            keep(f"block{number}")
        outputs["embedding"] = self.project(self.norm_out(x[:, 0]))
        return outputs


def _of_length_1(x: Float[Array, "N D"]) -> Float[Array, "N D"]:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x / jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-20)


def from_published(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names and layouts of Hugging Face, or of OpenAI, as this module's paths and layouts."""
    converted: dict[str, np.ndarray] = {}
    for name, tensor in _as_openai(tensors).items():
        path = _path(name)
        if name == "visual.conv1.weight" and tensor.ndim == 4:
            tensor = tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])
        elif path.endswith("/kernel") and name not in _PATHS:
            tensor = tensor.T  # but for projections out of the towers, which stand on the right
        converted[path] = tensor
    return converted


def sizes_of(tensors: dict[str, np.ndarray]) -> dict[str, ClipSizes]:
    """What `Clip` is built with for a file; heads have 64 channels, as all of OpenAI's do.

    Raises:
        InputError: no weights of a CLIP with a vision transformer.
    """
    try:
        found = _as_openai(tensors)
        out, _, patch, _ = found["visual.conv1.weight"].shape
        places = found["visual.positional_embedding"].shape[0]
        if places < 2:
            raise ValueError
        context, text_width = found["positional_embedding"].shape

        def tower(start: str, width: int) -> TowerSizes:
            numbers = {
                int(match[1])
                for name in found
                if (
                    match := re.match(
                        re.escape(start) + r"transformer\.resblocks\.(\d{1,3})\.", name
                    )
                )
            }
            inner = found[f"{start}transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
            if numbers != set(range(len(numbers))) or len(numbers) > _MOST_BLOCKS:
                last = _MOST_BLOCKS - 1
                raise InputError(
                    f"not the weights of a CLIP: blocks other than 0 to at most {last}"
                )
            if not width or width % _HEAD:
                raise InputError(f"a width of {width} is not that of whole heads of {_HEAD}")
            return TowerSizes(width, inner, len(numbers), width // _HEAD)

        sizes = ClipSizes(
            vision=tower("visual.", out),
            text=tower("", text_width),
            patch=patch,
            grid=round((places - 1) ** 0.5),
            context=context,
            vocabulary=found["token_embedding.weight"].shape[0],
            space=found["text_projection"].shape[1],
        )
        if not all(sizes[2:]):
            raise ValueError
    except InputError:  # a ValueError too
        raise
    except KeyError as error:
        raise InputError(f"not the weights of a CLIP: no {error.args[0]}") from None
    except (ValueError, IndexError):
        raise InputError("not the weights of a CLIP: tensors of other shapes") from None
    return {"sizes": sizes}


_PARTS = {  # of a block
    "ln_1": "norm1",
    "attn.in_proj": "attention_in",
    "attn.out_proj": "attention_out",
    "ln_2": "norm2",
    "mlp.c_fc": "inner",
    "mlp.c_proj": "outer",
}
_PATHS = {
    "visual.conv1.weight": "patches/kernel",
    "visual.class_embedding": "summary",
    "visual.positional_embedding": "places",
    "visual.ln_pre": "norm_in",
    "visual.ln_post": "norm_out",
    "visual.proj": "project/kernel",
    "token_embedding.weight": "words",
    "positional_embedding": "text_places",
    "ln_final": "text_norm",
    "text_projection": "text_project/kernel",
    "logit_scale": "log_scale",
}


def _path(name: str) -> str:
    """This module's path of what OpenAI calls by a name."""
    if name in _PATHS:
        return _PATHS[name]
    part, _, kind = name.rpartition(".")
    kind = {"weight": "scale" if "ln_" in part else "kernel"}.get(kind, kind)
    kind = kind.replace("in_proj_weight", "kernel").replace("in_proj_bias", "bias")
    if part in _PATHS:
        return f"{_PATHS[part]}/{kind}"
    block = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d{1,3})\.(.+)", part)
    if not block:
        return name
    tower = "blocks" if block[1] else "text_blocks"
    inside = f"{block[3]}.in_proj" if name.rpartition(".")[2].startswith("in_proj_") else block[3]
    return f"{tower}/{block[2]}/{_PARTS.get(inside, inside)}/{kind}"


_SCALARS = ("input_resolution", "context_length", "vocab_size")  # which shapes say as well
_HUGGING_FACE = (
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding", "visual.conv1"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm", "visual.ln_pre"),  # so spelled in the files
    ("vision_model.post_layernorm", "visual.ln_post"),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("text_model.embeddings.token_embedding", "token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm", "ln_final"),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)


def _as_openai(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face's names as OpenAI's; those of OpenAI stay."""
    renamed: dict[str, np.ndarray] = {}
    apart: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        if name.endswith("position_ids") or name in _SCALARS:
            continue
        if name in ("visual_projection.weight", "text_projection.weight"):
            renamed["visual.proj" if name[0] == "v" else "text_projection"] = tensor.T
            continue
        for theirs, openais in _HUGGING_FACE:
            name = name.replace(theirs, openais)
        attention = re.fullmatch(r"(.+)\.self_attn\.([qkv])_proj\.(weight|bias)", name)
        if attention:
            joined = f"{attention[1]}.attn.in_proj_{attention[3]}"
            apart.setdefault(joined, {})[attention[2]] = tensor
        else:
            renamed[name] = tensor
    for name, parts in apart.items():
        if set(parts) == set("qkv"):
            renamed[name] = np.concatenate([parts[part] for part in "qkv"])
    return renamed


NETS = {
    "clip_vit_b32": NetEntry(
        build=Clip,
        sizes=sizes_of,
        # Of Hugging Face's `pytorch_model.bin`, 605,247,071 bytes, as public repositories of
        # several authors have it on record.
        weights=Published(
            url="https://huggingface.co/openai/clip-vit-base-patch32/resolve/main/pytorch_model.bin",
            sha256="a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
            copy="clip_vit_b32.pth",
        ),
        multiply_adds=4.4,
        convert=from_published,
        summary="CLIP ViT-B/32, any text as a target (--prompt), 224x224, 151 M parameters",
    ),
}
