"""The cache of compiled code."""

import jax
import pytest

from evojax_art.runtime.cache import CACHE_VARIABLE, keep_compiled

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def nothing_set():
    """JAX as it starts; put back afterwards."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_cache_is_the_users(nothing_set, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")
    assert (tmp_path / "compiled").is_dir()


def test_a_cache_chosen_before_stays(nothing_set, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir == "elsewhere"
    assert not (tmp_path / "compiled").exists()


def test_no_cache_where_none_can_be(nothing_set, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None
