"""Quaternions, and what the language's operators do with them.

A function works on `Quaternion`s, whose four components are arrays of one shape, and takes the
array namespace `xp` first (`numpy` for the float64 reference, `jax.numpy` for the device), so that
one definition serves every interpreter. Components stay separate arrays because a stacked last axis
makes XLA recompute products once per component. A namespace may offer `where_due(due, fn, value)`,
which must equal `fn(value)` but may skip the work where no point of `due` is true.

Overflow follows IEEE arithmetic.
"""

from typing import Any, NamedTuple

Array = Any  # a NumPy or JAX array: the functions below serve both
TINY_NORM = 1e-9  # at or below this squared norm a quaternion has no inverse and no direction


class Quaternion(NamedTuple):
    """A field of quaternions e + i I + j J + k K; the components share one shape."""

    e: Array
    i: Array
    j: Array
    k: Array


class Coordinates(NamedTuple):
    """Where a leaf is evaluated: three arrays of one shape."""

    x: Array
    y: Array
    z: Array


def norm_squared(a: Quaternion) -> Array:
    """N(a), the sum of the squared components."""
    return a.e * a.e + a.i * a.i + a.j * a.j + a.k * a.k


def multiply(xp, a: Quaternion, b: Quaternion) -> Quaternion:
    """The Hamilton product."""
    del xp
    return Quaternion(
        a.e * b.e - a.i * b.i - a.j * b.j - a.k * b.k,
        a.e * b.i + a.i * b.e + a.j * b.k - a.k * b.j,
        a.e * b.j - a.i * b.k + a.j * b.e + a.k * b.i,
        a.e * b.k + a.i * b.j - a.j * b.i + a.k * b.e,
    )


def scale(a: Quaternion, factor: Array) -> Quaternion:
    """Times a number."""
    return Quaternion(*(t * factor for t in a))


def conjugate(xp, a: Quaternion) -> Quaternion:
    """The conjugate."""
    del xp
    return Quaternion(a.e, -a.i, -a.j, -a.k)


def invert(xp, a: Quaternion) -> Quaternion:
    """The inverse; 0 where there is none."""
    norm = norm_squared(a)
    usable = norm > TINY_NORM
    safe = xp.where(usable, norm, xp.ones_like(norm))
    return scale(conjugate(xp, a), xp.where(usable, 1 / safe, xp.zeros_like(norm)))


def divide(xp, a: Quaternion, b: Quaternion) -> Quaternion:
    """The product of a and the inverse of b."""
    return multiply(xp, a, invert(xp, b))


def modulo(xp, a: Quaternion, b: Quaternion) -> Quaternion:
    """What is left of a once its whole multiples of b are gone."""
    quotient = Quaternion(*map(xp.floor, divide(xp, a, b)))
    return Quaternion(*(t - s for t, s in zip(a, multiply(xp, quotient, b), strict=True)))


def conjugation(xp, a: Quaternion, b: Quaternion) -> Quaternion:
    """The second operand turned by the first: `A1`."""
    return multiply(xp, a, multiply(xp, b, invert(xp, a)))


def conjugation2(xp, a: Quaternion, b: Quaternion) -> Quaternion:
    """The conjugate of the second operand turned by the first: `A2`."""
    return conjugation(xp, a, conjugate(xp, b))


def normalize(xp, a: Quaternion) -> Quaternion:
    """Of norm 1; 0 where there is no direction."""
    norm = norm_squared(a)
    usable = norm > TINY_NORM
    safe = xp.where(usable, norm, xp.ones_like(norm))
    return scale(a, xp.where(usable, 1 / xp.sqrt(safe), xp.zeros_like(norm)))


def normalize_positive(xp, a: Quaternion) -> Quaternion:
    """Of norm 1, its first component that is not 0 positive."""
    leading = xp.where(a.e != 0, a.e, xp.where(a.i != 0, a.i, xp.where(a.j != 0, a.j, a.k)))
    sign = xp.where(leading < 0, -xp.ones_like(leading), xp.ones_like(leading))
    return scale(normalize(xp, a), sign)


def orth1(xp, a: Quaternion, b: Quaternion) -> Quaternion:
    """The second operand turned by the direction of the first."""
    direction = normalize(xp, a)
    return multiply(xp, direction, multiply(xp, b, conjugate(xp, direction)))


def orth2(xp, a: Quaternion, b: Quaternion) -> Quaternion:
    """The same, negated."""
    return Quaternion(*(-t for t in orth1(xp, a, b)))


_INVERSE_FACTORIALS = tuple(
    1 / f for f in (362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0)
)  # 1/9! down to 1/0!


def _divide_by_tens(xp, a: Quaternion) -> Quaternion:
    """Divides by ten, point by point, while N(a) >= 900; infinities stay what they are.

    The original loops. Here every point takes the same few steps: a division by 10**n is due where
    n - 1 of them would still leave N >= 900, and steps of halving size make up any count. Points
    whose N overflows take whole strides first.
    """
    double = a.e.dtype.itemsize == 8
    stride = 128 if double else 16
    for _ in range(2):
        overflows = norm_squared(a) >= (1e300 if double else 1e36)
        a = scale(a, xp.where(overflows, xp.full_like(a.e, 10.0**-stride), xp.ones_like(a.e)))
    norm, factor = norm_squared(a), xp.ones_like(a.e)
    while stride:
        due = norm >= 900 * 100.0 ** (stride - 1)
        factor = xp.where(due, factor * 10.0**-stride, factor)
        norm = xp.where(due, norm * 100.0**-stride, norm)
        stride //= 2
    return scale(a, factor)


def exponential(xp, a: Quaternion) -> Quaternion:
    """The power series up to a**9 / 9!, by Horner's rule.

    Powers of a = e + v stay in the plane of 1 and v, and v * v = -|v|**2, so a pair of reals
    (p + q v) carries the sum.
    """
    where_due = getattr(xp, "where_due", lambda due, fn, value: fn(value))
    a = where_due(norm_squared(a) >= 900, lambda value: _divide_by_tens(xp, value), a)
    minus_v2 = -(a.i * a.i + a.j * a.j + a.k * a.k)
    p, q = xp.full_like(a.e, _INVERSE_FACTORIALS[0]), xp.zeros_like(a.e)
    for coefficient in _INVERSE_FACTORIALS[1:]:
        p, q = p * a.e + q * minus_v2 + coefficient, p + q * a.e
    return Quaternion(p, q * a.i, q * a.j, q * a.k)


def absolute(xp, t: Array) -> Array:
    """|t|."""
    return xp.maximum(t, -t)


def gaussian(xp, t: Array) -> Array:
    """A bell of height 1."""
    return xp.exp(-xp.minimum(t * t, xp.full_like(t, 30)))


def hyperbolic_tangent(xp, t: Array) -> Array:
    """A soft step from -1 to 1."""
    return 2 / (1 + xp.exp(-2 * xp.clip(t, -15, 15))) - 1


def length_of(xp, a: Quaternion) -> Quaternion:
    """The square root of N(a), a real quaternion."""
    norm = norm_squared(a)
    usable = norm > TINY_NORM
    length = xp.where(
        usable, xp.sqrt(xp.where(usable, norm, xp.ones_like(norm))), xp.zeros_like(norm)
    )
    return Quaternion(length, *(xp.zeros_like(norm) for _ in range(3)))


_OCTAVES = 4


def clouds(xp, a: Quaternion) -> Quaternion:
    """Noise of several sizes: each octave has half the cells' width and half the strength."""
    total = noise(xp, a)
    for octave in range(1, _OCTAVES):
        finer = noise(xp, scale(a, 2.0**octave))
        total = Quaternion(*(t + 0.5**octave * s for t, s in zip(total, finer, strict=True)))
    return total


_SOFT_EDGE = 40.0  # steepness of the edge of `over`, whose coordinates are one a picture


def over(xp, a: Quaternion, b: Quaternion) -> Quaternion:
    """A shape on a ground: a where its e is positive, b elsewhere, with a soft edge."""
    mask = 1 / (1 + xp.exp(-xp.clip(_SOFT_EDGE * a.e, -30, 30)))
    return Quaternion(*(t + mask * (s - t) for s, t in zip(a, b, strict=True)))


_CELLS = 8.0  # of `noise` in a picture's width
_MODULUS = 289.0  # 34 * 289**2 is exact in float32


def _modulus_of(xp, t: Array) -> Array:
    """Of whole numbers; the half keeps rounding away from multiples."""
    return t - xp.floor((t + 0.5) / _MODULUS) * _MODULUS


def _permuted(xp, t: Array) -> Array:
    """A permutation of the whole numbers below 289 that looks random."""
    return _modulus_of(xp, (34 * t + 1) * t)


def noise(xp, a: Quaternion) -> Quaternion:
    """Value noise: random values at the corners of square cells, between them a smooth step."""
    places = (a.e * _CELLS, a.i * _CELLS)
    cells = [xp.floor(t) for t in places]
    inside = [t - cell for t, cell in zip(places, cells, strict=True)]
    right, below = (t * t * (3 - 2 * t) for t in inside)
    rows = []
    for down in (0, 1):
        corners = []
        for across in (0, 1):
            row = _permuted(xp, _modulus_of(xp, cells[0] + across))
            where = _permuted(xp, _modulus_of(xp, row + _modulus_of(xp, cells[1] + down)))
            drawn = (_permuted(xp, _modulus_of(xp, where + 57 * n)) for n in range(4))
            corners.append([t * (2 / (_MODULUS - 1)) - 1 for t in drawn])
        rows.append([s + right * (t - s) for s, t in zip(*corners, strict=True)])
    return Quaternion(*(s + below * (t - s) for s, t in zip(*rows, strict=True)))
