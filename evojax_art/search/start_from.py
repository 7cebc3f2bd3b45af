"""Formulas to start from where a photograph is given: variations of its leaf.

Each is a warp of the coordinates at which the photograph is read, `( at WARP photo )`, then a
change of its colours, or one of both alone. Some of them take a random formula with them, kept
small by `isin`, so that evolution has something to work on from the first generation.

The strength of each is drawn log-uniformly from a thirtieth to 1, so most are gentle. At 1 the
picture can still be told: turns of half a radian, waves of a twelfth of the picture, colours
turned round by a radian.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Key

from evojax_art.language.formula import Expression, image_ops, parse
from evojax_art.language.program import decode
from evojax_art.runtime.errors import InputError
from evojax_art.search.variation import GrowthConfig, grow

_RANDOM = GrowthConfig(max_depth=4)  # the formulas that variations take with them
_RANDOM_LENGTH = 16
_SQUARED = "( * x_iy ( conj x_iy ) )"  # of the distance from the middle
_grown = jax.jit(jax.vmap(partial(grow, capacity=_RANDOM_LENGTH, config=_RANDOM)))
_TRIES = 4  # as many as are wanted, where some turn out too long


class _Chance:
    """What a variation draws from.

    Args:
        rng: consumed.
        formulas: random ones, at least one.
    """

    def __init__(self, rng: np.random.Generator, formulas: Sequence[str]):
        self._rng = rng
        self._formulas = formulas

    def strength(self) -> float:
        """From 1/30 to 1, log-uniform."""
        return float(30 ** -self._rng.random())

    def signed(self) -> float:
        """The same with either sign."""
        return self.strength() * self.sign()

    def sign(self) -> int:
        """-1 or 1."""
        return 1 if self._rng.random() < 0.5 else -1

    def between(self, low: float, high: float) -> float:
        """Uniform."""
        return float(self._rng.uniform(low, high))

    def one(self, choices: Sequence):
        """Any of them."""
        return choices[int(self._rng.integers(len(choices)))]

    def formula(self) -> str:
        """A random one whose components stay within [-1, 1]."""
        return f"( isin {self.one(self._formulas)} )"


def leaf_name(file: Path, taken: Sequence[str]) -> str:
    """A name for a photograph's leaf: its file's, or else one that any formula can have.

    Args:
        file: of the photograph.
        taken: names of other pictures.
    """
    numbered = ("photo" + str(number or "") for number in range(len(taken) + 1))
    for name in (file.stem, *numbered):
        with contextlib.suppress(InputError):
            image_ops([*taken, name])
            return name
    return "photo"  # what is wrong lies in the others


def variations(
    key: Key[Array, ""],
    name: str,
    count: int,
    max_length: int,
    images: Sequence[str],
    *,
    detailed: bool = False,
) -> list[Expression]:
    """The photograph's leaf, then variations of it; fewer where the rest would be too long.

    Args:
        key: consumed.
        name: of the photograph's leaf, one of `images`.
        count: how many, with the bare leaf.
        max_length: nodes that each may have.
        images: names of all pictures.
        detailed: without those that lose detail, which what is fed back would never get again.
    """
    grow_key, number_key = jax.random.split(key)
    keys = jax.random.split(grow_key, 128)
    formulas = decode(_grown(keys))
    seed = np.asarray(jax.random.bits(number_key, (4,))).tolist()
    chance = _Chance(np.random.default_rng(seed), formulas)
    found = [parse(name, images=images)]
    for _ in range(_TRIES * count):
        if len(found) >= count:
            break
        expression = parse(_variation(chance, name, detailed), images=images)
        if len(expression) <= max_length:
            found.append(expression)
    return found


def _variation(chance: _Chance, name: str, detailed: bool) -> str:
    which = chance.one(("warp", "warp", "colour", "both"))
    warps = [warp for warp in _WARPS if not (detailed and warp is _mosaic)]
    colours = [colour for colour in _COLOURS if not (detailed and colour is _steps)]
    picture = name
    if which != "colour":
        picture = f"( at {chance.one(warps)(chance)} {name} )"
    return picture if which == "warp" else chance.one(colours)(chance, picture)


def _q(e: float, i: float = 0.0, j: float = 0.0, k: float = 0.0) -> str:
    return f"( q {e:.4g} {i:.4g} {j:.4g} {k:.4g} )"


def _similarity(chance: _Chance) -> str:
    """Turned, and enlarged until it has no empty corners; moved as far as it then can be."""
    angle = 0.5 * chance.signed()
    scale = (1 - 0.4 * chance.strength()) / (math.cos(angle) + abs(math.sin(angle)))
    room = 0.5 - scale * (math.cos(angle) + abs(math.sin(angle))) / 2
    moved = _q(*(chance.between(-room, room) for _ in range(2)))
    return f"( + {moved} ( * {_q(scale * math.cos(angle), scale * math.sin(angle))} x_iy ) )"


def _affine(chance: _Chance) -> str:
    """Sheared and squeezed."""
    shear, squeeze = (0.3 * chance.signed() for _ in range(2))
    row, column = (1 - abs(shear), shear), (shear * chance.sign(), 1 - abs(shear) - abs(squeeze))
    return f"( + ( * {_q(row[0], column[0])} x ) ( * {_q(row[1], column[1])} y ) )"


def _waves(chance: _Chance) -> str:
    """To both sides along both axes."""
    turned = f"( * {_q(0, chance.between(4, 40))} x_iy )"  # by a right angle: across the way
    phase = _q(chance.between(-3, 3), chance.between(-3, 3))
    return f"( + x_iy ( * {_q(chance.strength() / 12)} ( isin ( + {phase} {turned} ) ) ) )"


def _rings(chance: _Chance) -> str:
    """Ripples around the middle."""
    height = 0.15 * chance.strength()
    rings = f"( isin ( * {_q(chance.between(20, 100))} {_SQUARED} ) )"
    return f"( * x_iy ( + {_q(1 - height)} ( * {_q(height)} {rings} ) ) )"


def _swirl(chance: _Chance) -> str:
    """Turned, the more the further from the middle."""
    return f"( * x_iy ( exp ( * {_q(0, 3 * chance.signed())} {_SQUARED} ) ) )"


def _bulge(chance: _Chance) -> str:
    """Nearer in the middle, or at the edge."""
    power = 1.2 * chance.signed()
    middle = 1 - max(0.0, power) / 2
    return f"( * x_iy ( + {_q(middle)} ( * {_q(power)} {_SQUARED} ) ) )"


def _exponential(chance: _Chance) -> str:
    """(exp(s w) - 1) / s of w = x + iy: bent without shearing anything."""
    angle, size = chance.between(-math.pi, math.pi), 1.2 * chance.strength()
    s = complex(size * math.cos(angle), size * math.sin(angle))
    inverse = (1 - size / 5) / s
    power = f"( exp ( * {_q(s.real, s.imag)} x_iy ) )"
    return f"( * {_q(inverse.real, inverse.imag)} ( - {power} 1 ) )"


def _moebius(chance: _Chance) -> str:
    """Bent by w / (1 + c w), where circles stay circles."""
    c = [0.8 * chance.signed() for _ in range(2)]
    return f"( / x_iy ( + {_q(1 + math.hypot(*c) / 2)} ( * {_q(*c)} x_iy ) ) )"


def _mosaic(chance: _Chance) -> str:
    """Squares of one colour each."""
    squares = chance.between(12, 60)
    centre = _q(0.5, 0.5)
    cells = f"( + {centre} ( floor ( * {_q(squares)} x_iy ) ) )"
    return f"( * {_q(1 / squares)} {cells} )"


def _bent(chance: _Chance) -> str:
    """By a random formula."""
    return f"( + x_iy ( * {_q(chance.strength() / 8)} {chance.formula()} ) )"


def _tint(chance: _Chance, picture: str) -> str:
    """Another contrast, another tint."""
    tint = _q(0, *(1.5 * chance.signed() for _ in range(3)))
    return f"( + {tint} ( * {_q(2 ** chance.signed())} {picture} ) )"


def _hue(chance: _Chance, picture: str) -> str:
    """Colours turned around grey."""
    half = chance.signed() / 2
    axis = math.sin(half) / math.sqrt(3)
    return f"( orth1 {_q(math.cos(half), axis, axis, axis)} {picture} )"


def _steps(chance: _Chance, picture: str) -> str:
    """Few colours."""
    step = chance.between(0.4, 1.5)
    middle = _q(0.5, 0.5, 0.5, 0.5)
    return f"( * {_q(step)} ( + {middle} ( floor ( * {_q(1 / step)} {picture} ) ) ) )"


def _solarised(chance: _Chance, picture: str) -> str:
    """Bands of light along lines of equal light."""
    bands = f"( isin ( * {_q(chance.between(2, 6))} {picture} ) )"
    return f"( + {picture} ( * {_q(1.5 * chance.strength())} {bands} ) )"


def _washed(chance: _Chance, picture: str) -> str:
    """A random formula laid over it."""
    return f"( + {picture} ( * {_q(3 * chance.strength())} {chance.formula()} ) )"


def _turned(chance: _Chance, picture: str) -> str:
    """Colours turned by a random formula."""
    return f"( * ( exp ( * {_q(chance.strength())} {chance.formula()} ) ) {picture} )"


def _masked(chance: _Chance, picture: str) -> str:
    """A random formula shows where it is lighter, or darker, than the photograph."""
    name, sign = chance.one((("imax", -1), ("imin", 1)))
    offset = 3 * sign * chance.strength()
    laid = f"( + {_q(0, offset, offset, offset)} ( * {_q(3)} {chance.formula()} ) )"
    return f"( {name} {picture} {laid} )"


_WARPS: tuple[Callable[[_Chance], str], ...] = (
    _similarity,
    _affine,
    _waves,
    _rings,
    _swirl,
    _bulge,
    _exponential,
    _moebius,
    _mosaic,
    _bent,
    _bent,
)
_COLOURS: tuple[Callable[[_Chance, str], str], ...] = (
    _tint,
    _hue,
    _steps,
    _solarised,
    _washed,
    _washed,
    _turned,
    _masked,
)
