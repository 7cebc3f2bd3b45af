from typing import Any

import jax
import numpy as np
import pytest

from evojax_art.interpreter.reference import evaluate
from evojax_art.language.formula import parse
from evojax_art.language.program import decode, encode, is_valid, take
from evojax_art.language.quaternions import Coordinates
from evojax_art.search.affine import move, overlay, recolour
from evojax_art.search.splicing import draw, parent, splice
from evojax_art.search.variation import GrowthConfig, VariationConfig, vary

HOST = "( over ( isin ( * x_iy k ) ) ( exp ( + y_k ( q 0.5 -1 0.25 2 ) ) ) )"
RECOLOURED = "( + ( q 0.1 0.2 -0.3 0.1 ) ( * ( q 0.9 0.3 0.1 -0.2 ) {} ) )"
MOVED = "( at ( + ( q 0.1 0.2 0 0 ) ( * ( q 0.9 0.3 0 0 ) x_iy ) ) {} )"
COUNT = 200
WAYS = {"move": move, "recolour": recolour}


def made(fn, formula: str, capacity: int = 64) -> Any:
    host = take(encode([formula], capacity), 0)
    draws = draw(jax.random.key(0), COUNT, capacity)
    return jax.jit(jax.vmap(lambda draws: fn(draws, host)))(draws)


def mapped(way: str, formula: str, capacity: int = 64) -> Any:
    def child(draws, host):
        edit, fits = WAYS[way](draws, parent(host))
        return splice(edit, host, host), fits

    return made(child, formula, capacity)


def varied(way: str, formula: str, capacity: int) -> Any:
    weights = {**dict.fromkeys(VariationConfig().weights, 0.0), way: 1.0}
    config, growth = VariationConfig(**weights), GrowthConfig()
    return made(lambda draws, host: vary(draws, host, host, config, growth), formula, capacity)


@pytest.mark.parametrize("way", WAYS)
def test_children_are_valid_and_of_two_shapes(way):
    children, fits = mapped(way, HOST)
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
    capacity = len(parse(HOST))
    _, fits = mapped(way, HOST, capacity)
    assert not bool(fits.any())
    children = varied(way, HOST, capacity)
    assert bool(jax.vmap(is_valid)(children).all())
    assert set(np.asarray(children.length)) == {capacity}
    assert decode(children) == decode(varied("constant", HOST, capacity))


def drawn(text: str) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-0.9, 1, 5))
    return np.array(evaluate(parse(text), Coordinates(x, y, np.zeros_like(x))))


@pytest.mark.parametrize(
    ("way", "around"),
    [
        ("recolour", RECOLOURED),
        ("recolour", RECOLOURED.format(MOVED)),
        ("recolour", MOVED.format(RECOLOURED)),
        ("move", MOVED),
        ("move", MOVED.format(RECOLOURED)),
        ("move", RECOLOURED.format(MOVED)),
    ],
)
def test_a_map_that_is_there_is_changed_wherever_it_lies(way, around):
    inside = "( isin x_iy )"
    outer = around.format(inside)
    once, twice = (decode(mapped(way, text)[0]) for text in (inside, outer))
    whole = draw(jax.random.key(0), COUNT, 64).single[:, 8] < 0.5
    for index in np.flatnonzero(whole):  # both are made of the same numbers
        assert len(parse(twice[index])) == len(parse(outer))
        assert np.allclose(
            drawn(twice[index]), drawn(once[index].replace(inside, outer)), atol=1e-4
        )


@pytest.mark.parametrize("source", ["donor", "fresh"])
def test_an_overlay_adds_a_little_of_something_else(source):
    donor, fresh = (take(encode([text], 64), 0) for text in ("( conj golden )", "( exp y_k )"))

    def child(draws, host):
        edit, fits = overlay(draws, parent(host), parent(donor), fresh, 1e-4)
        return splice(edit, host, donor, fresh), fits

    children, fits = made(child, HOST)
    texts = [text for text in decode(children) if ("golden" in text) == (source == "donor")]
    assert bool(fits.all())
    assert bool(jax.vmap(is_valid)(children).all())
    assert 0.35 < len(texts) / COUNT < 0.65
    whole = [text for text in texts if text.startswith(f"( + {HOST} ( * ( q ")]
    assert 0.4 < len(whole) / len(texts) < 0.7
    far = [np.median(np.abs(drawn(text) - drawn(HOST))) for text in whole]
    assert 0 < np.median(far) < 0.05


def test_overlays_lie_inside_the_maps_around_the_whole_and_one_may_replace_the_last():
    def child(draws, host):
        donor = take(encode(["( conj y_k )"], host.capacity), 0)
        edit, fits = overlay(draws, parent(host), parent(donor), donor)
        return splice(edit, host, donor, donor), fits

    def share(host: str, start: str) -> float:
        return sum(start in text for text in decode(made(child, host)[0])) / COUNT

    assert share(RECOLOURED.format(MOVED.format("std")), "( + std ( * ( q ") > 0.5
    last = "( * ( q 0.5 0 0 0 ) golden )"
    host = RECOLOURED.format(f"( + std {last} )")
    assert 0.2 < share(host, f"( + ( + std {last} ) ( * ( q ") < 0.6
    assert 0.2 < 1 - share(host, last) < 0.6
    assert not bool(made(child, HOST, capacity=12)[1].any())


@pytest.mark.parametrize("way", WAYS)
def test_children_look_like_their_host(way):
    whole = [text for text in decode(mapped(way, HOST)[0]) if HOST in text]
    far = [np.median(np.abs(drawn(text) - drawn(HOST))) for text in whole]
    assert 0 < min(far) < 0.1
    assert np.median(far) < 0.5
