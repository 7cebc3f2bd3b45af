"""The op table: every operator of the language, once.

Parser, random growth, encoder, interpreters, tests and the README's table all derive from `OPS`.
A row's position is its opcode, and opcodes are part of the program format (`program.py`): append
rows, never reorder or remove them.

The language is John Mount's genetic art of 1995. What the operators compute is in `quaternions`;
what a value that is not finite looks like is decided once, in `crunch`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from evojax_art.language import quaternions as q
from evojax_art.language.quaternions import Array, Coordinates, Quaternion

Crunch = Literal["sigmoid", "1995"]
Keep = Literal["raw", "sigmoid", "1995"]
KEPT: tuple[Keep, ...] = get_args(Keep)
GOLDEN = 1.61803398875
NUM_IMAGES = 4  # pictures that a formula can read


@dataclass(frozen=True, kw_only=True)
class Op:
    """One row of the table.

    Attributes:
        name: canonical name; reading ignores case and takes `+` within a name for `_`.
        opcode: position in `OPS`.
        arity: number of operands, 0 to 2.
        fn: `(xp, *operands) -> Quaternion`. For a leaf the operand is the `Coordinates`.
        summary: what it computes, for the README.
        reads_coordinates: whether a leaf depends on where it is evaluated.
        sampled: whether random growth and point mutation choose it: those that did in 2015.
        is_later: whether they may where somebody asks for it: what neither 1995 nor 2015 had.
        structural: whether interpreters give it its meaning, not `fn`: `padding`, `q`, and those
            of `FRAMING`.
        image: for a leaf that reads a picture, its slot among the pictures of a render; `fn` is
            its value where none is bound there, 0 everywhere (see `images`).
    """

    name: str
    opcode: int
    arity: int
    fn: Callable[..., Quaternion]
    summary: str
    reads_coordinates: bool = False
    sampled: bool = True
    is_later: bool = False
    structural: bool = False
    image: int | None = None


def frame_coordinates(xp, frame: Quaternion, unwrapped: Array = None) -> Coordinates:
    """The coordinates that `subst` hands to its right side: e, i, j wrapped into [-0.5, 0.5).

    Where `unwrapped` is true, a condition of any shape that broadcasts, they stay what they are:
    those of `at`.
    """

    def turns(t: Array) -> Array:
        whole = xp.floor(t + 0.5)
        return whole if unwrapped is None else xp.where(unwrapped, xp.zeros_like(t), whole)

    return Coordinates(*(t - turns(t) for t in frame[:3]))


def crunch(xp, t: Array, kind: str) -> Array:
    """Maps a component to a colour in [0, 1]; NaN is black.

    Args:
        xp: array namespace.
        t: component values, any shape.
        kind: "sigmoid", the logistic function with its ends at +-30 made exact, or "1995", which
            is black above 30 as well (the original's default, its author calls it a bug).
    """
    inside = xp.clip(t, -30, 30)
    colour = 1 / (1 + xp.exp(-inside))
    if kind == "1995":
        visible = (t >= -30) & (t <= 30)
    else:
        colour = xp.where(t >= 30, xp.ones_like(t), colour)
        visible = t > -30
    return xp.where(visible, colour, xp.zeros_like(t))  # NaN compares false: black


def uncrunch(xp, t: Array) -> Array:
    """The inverse of the sigmoid, from a colour to [-30, 30]."""
    inside = (t > 0) & (t < 1)
    value = -xp.log(1 / xp.where(inside, t, xp.full_like(t, 0.5)) - 1)
    return xp.where(t >= 1, xp.full_like(t, 30), xp.where(t <= 0, xp.full_like(t, -30), value))


def keep(xp, value: Quaternion, kept: Keep) -> tuple[Array, ...]:
    """What is kept of a formula's value: all components as they are, or colours."""
    if kept == "raw":
        return value
    return tuple(crunch(xp, t, kept) for t in value[1:])


def num_kept(kept: Keep) -> int:
    """How many arrays `keep` returns."""
    return 4 if kept == "raw" else 3


def _constant(*components: float):
    def leaf(xp, at: Coordinates) -> Quaternion:
        return Quaternion(*(xp.full_like(at.x, component) for component in components))

    return leaf


def _leaf(build):
    """A coordinate leaf from `build(at, zero, one)`."""

    def leaf(xp, at: Coordinates) -> Quaternion:
        return Quaternion(*build(at, xp.zeros_like(at.x), xp.ones_like(at.x)))

    return leaf


def _std(xp, at: Coordinates) -> Quaternion:
    colours = (uncrunch(xp, (t + 1) / 2) for t in at)
    return Quaternion(xp.zeros_like(at.x), *colours)


def _radius(xp, at: Coordinates) -> Quaternion:
    zero = xp.zeros_like(at.x)
    length = q.length_of(xp, Quaternion(at.x, at.y, zero, zero)).e
    return Quaternion(length, zero, zero, at.z)


def _each(function):
    """An op that works on each of the four components on its own."""

    def op(xp, *operands: Quaternion) -> Quaternion:
        return Quaternion(*(function(xp, *t) for t in zip(*operands, strict=True)))

    return op


def _structural(xp, *operands) -> Quaternion:
    raise TypeError("this op has no function of its own; interpreters handle it")


def _table() -> tuple[Op, ...]:
    rows: list[Op] = []

    def row(name: str, arity: int, fn, summary: str, **flags: Any) -> None:
        rows.append(Op(name=name, opcode=len(rows), arity=arity, fn=fn, summary=summary, **flags))

    def coordinate_leaf(name: str, fn, summary: str, **flags: Any) -> None:
        row(name, 0, fn, summary, reads_coordinates=True, **flags)

    row("padding", 0, _structural, "fills a program behind its end", sampled=False, structural=True)
    row("q", 0, _structural, "a constant, written `( q e i j k )`", sampled=False, structural=True)

    row("1", 0, _constant(1, 0, 0, 0), "(1, 0, 0, 0)")
    row("i", 0, _constant(0, 1, 0, 0), "(0, 1, 0, 0)")
    row("j", 0, _constant(0, 0, 1, 0), "(0, 0, 1, 0)")
    row("k", 0, _constant(0, 0, 0, 1), "(0, 0, 0, 1)")
    row("golden", 0, _constant(GOLDEN, 0, 0, 0), "(1.61803398875, 0, 0, 0)")
    coordinate_leaf("x", _leaf(lambda at, o, _: (at.x, o, o, o)), "(x, 0, 0, 0)")
    coordinate_leaf("y", _leaf(lambda at, o, _: (at.y, o, o, o)), "(y, 0, 0, 0)")
    coordinate_leaf("x_k", _leaf(lambda at, o, one: (at.x, o, o, one + at.z)), "(x, 0, 0, 1+z)")
    coordinate_leaf("y_k", _leaf(lambda at, o, one: (at.y, o, o, one + at.z)), "(y, 0, 0, 1+z)")
    coordinate_leaf("x_iy", _leaf(lambda at, *_: (at.x, at.y, at.z, at.z)), "(x, y, z, z)")
    coordinate_leaf(
        "x_iy_jx_ky",
        _leaf(lambda at, *_: (at.x, at.y, at.x + at.z, at.y + at.z)),
        "(x, y, x+z, y+z)",
    )
    coordinate_leaf("std", _std, "(0, U((x+1)/2), U((y+1)/2), U((z+1)/2)), U the inverse sigmoid")

    row("inv", 1, q.invert, "conj(a) / N(a); 0 where N(a) <= 1e-9")
    row("conj", 1, q.conjugate, "(e, -i, -j, -k)")
    row(
        "exp", 1, q.exponential, "power series up to a^9/9!, after dividing by 10 while N(a) >= 900"
    )
    row("floor", 1, _each(lambda xp, t: xp.floor(t)), "each component rounded down")
    row("normalize", 1, q.normalize, "a / sqrt(N(a)); 0 where N(a) <= 1e-9")
    row(
        "normp",
        1,
        q.normalize_positive,
        "`normalize`, negated where its first non-zero component is negative",
    )
    row("isin", 1, _each(lambda xp, t: xp.sin(t)), "sine of each component")
    row(
        "ilog",
        1,
        _each(lambda xp, t: xp.log(xp.maximum(t, 1e-6))),
        "ln(max(t, 1e-6)) of each component t",
    )
    row(
        "iexp",
        1,
        _each(lambda xp, t: xp.exp(xp.clip(t, -30, 30))),
        "e^t of each component t, clamped to [-30, 30] first",
    )
    row("rolL", 1, lambda xp, a: Quaternion(a.i, a.j, a.k, a.e), "(i, j, k, e)")
    row("rolR", 1, lambda xp, a: Quaternion(a.k, a.e, a.i, a.j), "(k, e, i, j)")

    row("+", 2, _each(lambda xp, s, t: s + t), "a + b")
    row("-", 2, _each(lambda xp, s, t: s - t), "a - b")
    row("*", 2, q.multiply, "Hamilton product (i j = k)")
    row("/", 2, q.divide, "a * inv(b)")
    row("A1", 2, q.conjugation, "a * (b * inv(a))")
    row("A2", 2, q.conjugation2, "a * (conj(b) * inv(a))")
    row("mod", 2, q.modulo, "a - floor(a / b) * b")
    row("orth1", 2, q.orth1, "n * (b * conj(n)), n = normalize(a)")
    row("orth2", 2, q.orth2, "-orth1(a, b)")
    row("imin", 2, _each(lambda xp, s, t: xp.minimum(s, t)), "the smaller, by component")
    row("imax", 2, _each(lambda xp, s, t: xp.maximum(s, t)), "the larger, by component")
    row(
        "subst",
        2,
        _structural,
        "b at the point (e, i, j) of a, each wrapped into [-0.5, 0.5), in place of (x, y, z)",
        structural=True,
    )

    for slot in range(NUM_IMAGES):
        name = f"image{slot + 1}"
        summary = f"(1, U(r), U(g), U(b)) of picture {slot + 1} at (x, y); it may have another name"
        nothing = _leaf(lambda at, o, _: (o, o, o, o))
        coordinate_leaf(name, nothing, summary, sampled=False, image=slot)

    row(
        "at",
        2,
        _structural,
        "b at the point (e, i, j) of a: `subst` without wrapping",
        sampled=False,
        structural=True,
    )

    later = {"sampled": False, "is_later": True}
    # Not of 1995: shapes, shadings and grounds as pictures of things have them.
    row("iabs", 1, _each(q.absolute), "absolute value of each component", **later)
    row("igauss", 1, _each(q.gaussian), "e^(-t^2) of each component t", **later)
    row("itanh", 1, _each(q.hyperbolic_tangent), "tanh(t) of each component t", **later)
    row("norm", 1, q.length_of, "(sqrt(N(a)), 0, 0, 0)", **later)
    row("noise", 1, q.noise, "four smooth random functions of (8 e, 8 i) in [-1, 1]", **later)
    row("clouds", 1, q.clouds, "noise(a) + noise(2 a)/2 + noise(4 a)/4 + noise(8 a)/8", **later)
    row(
        "over",
        2,
        q.over,
        "a where e of a is above 0, else b, with a soft edge: m a + (1 - m) b, "
        "m = 1/(1 + exp(-40 e))",
        **later,
    )
    coordinate_leaf(
        "mirror",
        lambda xp, at: Quaternion(q.absolute(xp, at.x), at.y, at.z, at.z),
        "(abs(x), y, z, z)",
        **later,
    )
    coordinate_leaf("radius", _radius, "(sqrt(x^2 + y^2), 0, 0, z)", **later)
    return tuple(rows)


OPS: tuple[Op, ...] = _table()
BY_NAME: dict[str, Op] = {op.name: op for op in OPS if op.name != "padding"}
PADDING = 0
CONSTANT = BY_NAME["q"].opcode
SUBST, AT = BY_NAME["subst"].opcode, BY_NAME["at"].opcode
FRAMING = (SUBST, AT)  # whose left side, the frame, is where the leaves of the right side are read
IMAGES = tuple(op for op in OPS if op.image is not None)  # slot by slot
INSTRUCTIONS = tuple(  # what an interpreter executes; constant leaves are operands only
    op
    for op in OPS
    if op.opcode == CONSTANT or (not op.structural and (op.arity > 0 or op.reads_coordinates))
)
