from typing import Any

import jax
import numpy as np
import pytest

from evojax_art.interpreter.reference import evaluate
from evojax_art.language.formula import parse
from evojax_art.language.program import decode, encode, is_valid, take
from evojax_art.language.quaternions import Coordinates
from evojax_art.search.affine import move, recolour
from evojax_art.search.variation import moved, perturb_constant, recoloured

HOST = "( over ( isin ( * x_iy k ) ) ( exp ( + y_k ( q 0.5 -1 0.25 2 ) ) ) )"
COUNT = 200
WAYS = {"move": (move, moved), "recolour": (recolour, recoloured)}


def made(fn, formula: str, capacity: int = 64, seed: int = 0) -> Any:
    host = take(encode([formula], capacity), 0)
    keys = jax.random.split(jax.random.key(seed), COUNT)
    return jax.jit(jax.vmap(lambda key: fn(key, host)))(keys)


@pytest.mark.parametrize("way", WAYS)
def test_children_are_valid_and_of_two_shapes(way):
    children, fits = made(WAYS[way][0], HOST)
    assert bool(fits.all())
    assert bool(jax.vmap(is_valid)(children).all())
    added = {"move": 6, "recolour": 4}[way]
    assert set(np.asarray(children.length - len(parse(HOST)))) == {added}
    whole = sum(
        text.endswith(f"{HOST} )" if way == "move" else f"{HOST} ) )") for text in decode(children)
    )
    assert 0.4 < whole / COUNT < 0.7


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_fit_is_said_and_moves_a_constant(way):
    map_fn, mutate_fn = WAYS[way]
    capacity = len(parse(HOST))
    _, fits = made(map_fn, HOST, capacity)
    assert not bool(fits.any())
    children = made(mutate_fn, HOST, capacity)
    assert bool(jax.vmap(is_valid)(children).all())
    assert set(np.asarray(children.length)) == {capacity}
    others = decode(made(perturb_constant, HOST, capacity))
    assert len(set(decode(children)) | set(others)) > COUNT


def drawn(text: str) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-0.9, 1, 5))
    return np.array(evaluate(parse(text), Coordinates(x, y, np.zeros_like(x))))


@pytest.mark.parametrize(
    ("way", "around"),
    [
        ("recolour", "( + ( q 0.1 0.2 -0.3 0.1 ) ( * ( q 0.9 0.3 0.1 -0.2 ) {} ) )"),
        ("move", "( at ( + ( q 0.1 0.2 0 0 ) ( * ( q 0.9 0.3 0 0 ) x_iy ) ) {} )"),
    ],
)
def test_a_map_that_is_there_is_changed(way, around):
    inside = "( isin x_iy )"
    mapped = around.format(inside)
    once, twice = (decode(made(WAYS[way][0], text)[0]) for text in (inside, mapped))
    compared = 0
    for step, child in zip(once, twice, strict=True):  # of the same keys
        if len(parse(child)) == len(parse(mapped)) and step.count("isin") == 1:
            nested = step.replace(inside, mapped)
            if len(parse(nested)) == len(parse(mapped)) + (6 if way == "move" else 4):
                assert np.allclose(drawn(child), drawn(nested), atol=1e-4)
                compared += 1
    assert compared > COUNT / 3


@pytest.mark.parametrize("way", WAYS)
def test_children_look_like_their_host(way):
    whole = [text for text in decode(made(WAYS[way][0], HOST)[0]) if HOST in text]
    far = [np.median(np.abs(drawn(text) - drawn(HOST))) for text in whole]
    assert 0 < min(far) < 0.1
    assert np.median(far) < 0.5
