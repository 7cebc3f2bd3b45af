"""The registry of networks, and where their weights come from.

`load_net` never touches the network: it takes a given file, the one that is part of this package,
or the one in the cache. Only `download` fetches, by explicit request.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pooch
from flax import nnx
from safetensors.numpy import load_file, save_file

from evojax_art.nets import cifar, squeezenet, torch_files, vocabulary
from evojax_art.nets.base import Classifier
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.runtime.cache import cache_folder
from evojax_art.runtime.errors import InputError, suggest
from evojax_art.runtime.files import written_whole

_PACKAGE = Path(__file__).parent
_REINSTALL = "they are part of the package: install evojax-art again"


@dataclass(frozen=True, kw_only=True)
class NetEntry:
    """One network of the registry.

    Attributes:
        build: makes the module, weights still random.
        vocabulary: its classes, without building it.
        embedded: name of its weights file in this package; empty where they must be fetched.
        url: where the weights are published otherwise; the file's name carries the first digits of
            its SHA-256 behind the last `-`, as all of torchvision's do.
        convert: tensors of the file to this module's paths.
        unseen: another network, whose opinion of what evolved for this one is reported; empty for
            none.
        summary: one line for people.
    """

    build: Callable[..., Classifier]
    vocabulary: Callable[[], Vocabulary]
    embedded: str = ""
    url: str = ""
    convert: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda tensors: tensors
    unseen: str = ""
    summary: str

    @property
    def file_name(self) -> str:
        """Of the published file, and of its copy in the cache."""
        return self.url.rpartition("/")[2]

    @property
    def hash_prefix(self) -> str:
        """First digits of the published file's SHA-256."""
        return self.file_name.rpartition("-")[2].partition(".")[0]


DEFAULT = "cifar100"

REGISTRY: dict[str, NetEntry] = {
    "cifar100": NetEntry(
        build=cifar.CifarResNet,
        vocabulary=vocabulary.cifar100,
        embedded="cifar100.safetensors",
        unseen="cifar100_judge",
        summary="residual network, CIFAR-100's 100 classes, 32x32, 1.4 M parameters",
    ),
    "cifar100_judge": NetEntry(
        build=cifar.CifarVgg,
        vocabulary=vocabulary.cifar100,
        embedded="cifar100_judge.safetensors",
        unseen="cifar100",
        summary="plain network, CIFAR-100's 100 classes, 32x32, 1.0 M parameters",
    ),
    "squeezenet1_1": NetEntry(
        build=squeezenet.SqueezeNet,
        vocabulary=vocabulary.imagenet,
        convert=squeezenet.from_torchvision,
        url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        summary="SqueezeNet 1.1, 1000 ImageNet classes, 224x224, 1.2 M parameters (torchvision)",
    ),
}


def load_net(
    name: str = DEFAULT, weights: str | Path | None = None, *, dtype=jnp.float32
) -> Classifier:
    """A classifier with its weights.

    Args:
        name: a name of the registry, see `evojax-art nets`.
        weights: a `.safetensors` or `.pth` file; None takes the one in this package, or else the
            one in the cache.
        dtype: of the arithmetic, float32 or bfloat16; embedded networks keep to float32 on a CPU.

    Raises:
        InputError: an unknown name; a missing, damaged or wrong file, saying what to place where.
    """
    entry = lookup(name)
    path = Path(weights) if weights is not None else weights_path(name)
    if not path.exists():
        if weights is not None:
            hint = "check the path"
        elif entry.embedded:
            hint = _REINSTALL
        else:
            hint = (
                f"run `evojax-art nets {name} --download`, or place {entry.file_name} there "
                f"(from {entry.url}), or give a file with --weights"
            )
        raise InputError(f"no weights at {path}; {hint}")
    if entry.embedded and jax.default_backend() == "cpu":
        dtype = jnp.float32  # compiled in bfloat16, JAX 0.12 on a CPU gives NaN and wrong logits
    # Shapes only: random weights, to be replaced at once, would take longer than the file.
    net = nnx.eval_shape(lambda: entry.build(dtype=dtype, rngs=nnx.Rngs(0)))
    _assign(net, entry.convert(read_tensors(path)), path, name)
    net.eval()
    return net


def lookup(name: str) -> NetEntry:
    """The registry's row of that name.

    Raises:
        InputError: no such network; names the nearest.
    """
    if name not in REGISTRY:
        near = suggest(name, REGISTRY) or f"; there are {', '.join(REGISTRY)}"
        raise InputError(f"unknown network {name!r}{near}")
    return REGISTRY[name]


def weights_path(name: str) -> Path:
    """Where the weights of a network are expected: in this package, or in the cache."""
    entry = lookup(name)
    return _PACKAGE / entry.embedded if entry.embedded else cache_folder() / entry.file_name


def save_net(path: Path, net: Classifier, text: Mapping[str, str]) -> None:
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
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:9] == b"{":  # eight bytes of length, then a JSON object
            return load_file(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # safetensors has an exception class of its own
        raise InputError(f"{path}: a damaged safetensors file ({error}); get it again") from error
    return torch_files.read_tensors(path)


def download(name: str, *, progress=True, url: str | None = None) -> Path:
    """Fetches a network's published weights into the cache, unless they are there.

    The file is checked against the hash in its name and appears in one step.

    Args:
        name: a name of the registry.
        progress: True for a bar on standard error, or an object with pooch's progress methods.
        url: another address of the same file.

    Returns:
        Where it lies.

    Raises:
        InputError: no network, a wrong file, or a folder that cannot be written; says which file
            to place where by hand.
    """
    entry = lookup(name)
    path = weights_path(name)
    if path.exists():
        return path
    if entry.embedded:
        raise InputError(f"no weights at {path}; {_REINSTALL}")
    source = url or entry.url
    by_hand = f"place {entry.file_name} at {path} by hand, or give a file with --weights"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / entry.file_name
            pooch.HTTPDownloader(progressbar=progress, timeout=30)(source, part, None)
            digest = hashlib.sha256(part.read_bytes()).hexdigest()
            if not digest.startswith(entry.hash_prefix):
                raise InputError(
                    f"what came from {source} is not {entry.file_name}: its SHA-256 begins with "
                    f"{digest[:8]}; {by_hand}"
                )
            part.replace(path)
    except InputError:
        raise
    except OSError as error:  # requests' errors are OSErrors too
        raise InputError(f"cannot fetch {source} ({_reason(error)}); {by_hand}") from error
    return path


def _reason(error: OSError) -> str:
    """What happened in few words; the text of requests' errors holds addresses of objects."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP status {status}" if status else error.strerror or type(error).__name__


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
        what = f"lacks {missing[0]}" if missing else f"holds {unknown[0]}, which is unknown"
        raise InputError(f"{path}: not the weights of {name}, it {what}")
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, and are found below
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
