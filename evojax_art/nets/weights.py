"""Weights from files into networks, and back.

Nothing here touches the network: `load_net` takes a given file, the one that is part of this
package or of another that is installed, or the one in the cache, which `download` fetches by
explicit request.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from safetensors.numpy import load_file, save_file

from evojax_art.nets import caffe_files, torch_files
from evojax_art.nets.base import Network
from evojax_art.nets.entry import Published
from evojax_art.nets.registry import DEFAULT, lookup, missing_weights, weights_path
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import written_whole
from evojax_art.runtime.plan import Plan, current_plan


def load_net(
    name: str = DEFAULT,
    weights: str | Path | None = None,
    *,
    dtype: DTypeLike | None = None,
    plan: Plan | None = None,
) -> Any:
    """A network with its weights: a `Classifier`, or a `Clip`.

    Args:
        name: a name of the registry, see `evojax-art nets`.
        weights: a `.safetensors`, `.pth` or `.caffemodel` file; None takes the one that the
            registry knows of.
        dtype: of the arithmetic, float32 or bfloat16; None: as the plan says, float32 by default.
            The embedded networks keep to float32 on a CPU.
        plan: where it will run; None: on JAX's default device.

    Raises:
        InputError: an unknown name; a missing, damaged or wrong file, saying what to place where.
    """
    entry, plan = lookup(name), plan or current_plan()
    dtype = jnp.dtype(plan.network_dtype if dtype is None else dtype)
    if plan.platform in entry.float32_on:
        dtype = jnp.dtype(jnp.float32)
    path = _expected_file(name) if weights is None else Path(weights)
    # Shapes only: random weights, to be replaced at once, would take longer than the file.
    tensors = read_tensors(path)
    try:
        sizes = entry.sizes(tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    net: Any = nnx.eval_shape(lambda: entry.build(dtype=dtype, rngs=nnx.Rngs(0), **sizes))
    try:
        converted = entry.convert(tensors)
    except (ValueError, IndexError):
        raise InputError(f"{path}: not the weights of {name}, of tensors of other shapes") from None
    _assign(net, converted, path, name)
    net.eval()
    net.implementation = plan.network_implementation
    return net


def save_net(path: Path, net: Network, text: Mapping[str, str]) -> None:
    """Writes a network's weights whole, as float16 safetensors that `load_net` takes.

    Args:
        path: the file.
        net: whose weights.
        text: what else to keep in the file, such as how they came about.

    Raises:
        InputError: the place cannot be written.
    """
    tensors = {_path(keys): np.asarray(value[...], np.float16) for keys, value in _stored(net)}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, dict(text))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a weights file, its format recognised by its content.

    Raises:
        InputError: unreadable or damaged.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for its other end
            raise InputError(f"{path} is no file of weights; check the path")
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:9] == b"{":  # eight bytes of length, then a JSON object
            return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"no weights at {path}; check the path") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except InputError:
        raise
    except Exception as error:  # safetensors has an exception class of its own
        raise InputError(f"{path}: a damaged safetensors file ({error}); get it again") from error
    if path.suffix == ".caffemodel" or head[:1] == b"\n":  # its first field, the name
        return caffe_files.read_tensors(path)
    return torch_files.read_tensors(path)


def _expected_file(name: str) -> Path:
    """The file in this package, the cache or another; of the latter that it is what is known."""
    path, known = weights_path(name), lookup(name).weights
    if not path.exists():
        raise missing_weights(name)
    if isinstance(known, str):
        return path
    try:
        digest = known.digest_of(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if digest != known.digest:
        is_published = isinstance(known, Published)
        what = f"was published at {known.url}" if is_published else f"belongs to {known.package}"
        again = f"evojax-art nets {name} --download" if is_published else known.command
        raise InputError(
            f"{path} is not the file that {what}: its {known.checksum} is {digest} in place of "
            f"{known.digest}; delete it and run `{again}`, or name it with --weights if you trust "
            "it"
        )
    return path


def _stored(net: nnx.Module) -> list[tuple[tuple, nnx.Variable]]:
    """What a weights file holds: where in the module, and the variable; all but random keys."""
    return list(nnx.to_flat_state(nnx.state(net, nnx.Not(nnx.RngState))))


def _path(keys: tuple) -> str:
    return "/".join(map(str, keys))


def _assign(net: nnx.Module, tensors: dict[str, np.ndarray], path: Path, name: str) -> None:
    wanted = {_path(keys): variable for keys, variable in _stored(net)}
    missing = sorted(set(wanted) - set(tensors))
    unknown = sorted(set(tensors) - set(wanted))
    if missing or unknown:
        # The names in a file may be anything, and long.
        what = f"lacks {missing[0]}" if missing else f"holds {unknown[0]!r:.80}, which is unknown"
        raise InputError(f"{path}: not the weights of {name}, it {what}")
    if odd := [key for key, tensor in tensors.items() if tensor.dtype.kind == "c"]:
        raise InputError(f"{path}: not the weights of {name}, {odd[0]} holds complex numbers")
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # numbers beyond float32 become infinite, and are found below
        tensors = {key: tensor.astype(np.float32) for key, tensor in tensors.items()}
    for key, variable in wanted.items():
        if tensors[key].shape != variable.shape:
            raise InputError(
                f"{path}: not the weights of {name}, {key} has shape {tensors[key].shape} in place "
                f"of {variable.shape}"
            )
        if not np.isfinite(tensors[key]).all():
            raise InputError(f"{path}: damaged, {key} holds numbers that are not finite")
    loaded = [
        (keys, variable.replace(jnp.asarray(tensors[_path(keys)])))
        for keys, variable in _stored(net)
    ]
    nnx.update(net, nnx.from_flat_state(loaded))
