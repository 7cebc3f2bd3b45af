"""Compiled code, kept from one start to the next.

The command line switches this on; whoever imports the package calls `keep_compiled` if they like.
"""

import os
from pathlib import Path

import jax
import pooch

CACHE_VARIABLE = "EVOJAX_ART_CACHE"
_MOST_BYTES = 1 << 30  # then what was used longest ago is forgotten


def cache_folder() -> Path:
    """Where what can be had again is kept: $EVOJAX_ART_CACHE, or the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("evojax_art"))


def keep_compiled() -> None:
    """Switches JAX's persistent compilation cache on, in the user's cache folder.

    A cache that was chosen before, by $JAX_COMPILATION_CACHE_DIR or `jax.config`, stays. A folder
    that cannot be written costs the compilation each time, and nothing else.
    """
    if getattr(jax.config, "jax_compilation_cache_dir") is not None:  # noqa: B009
        return
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    for name, value in (
        ("jax_compilation_cache_dir", str(folder)),
        ("jax_compilation_cache_max_size", _MOST_BYTES),
        ("jax_persistent_cache_min_compile_time_secs", 0.1),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        jax.config.update(name, value)
