"""Making new genomes: growth, crossover, mutation, on the device.

Every way to make a child is a function of one individual, for `jax.vmap`, that says what becomes of
its host: an `Edit`. Programs stay valid and never outgrow their capacity L. Where a result would
not fit, the choice that makes it too long is drawn again from those that fit (crossover,
insertion), or the documented fallback is taken. Children that keep their host's shape and are
elsewhere in it are made by `affine`.
"""

import math
from dataclasses import dataclass, field, fields

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from evojax_art.language.ops import BY_NAME, CONSTANT, IMAGES, OPS, SUBST
from evojax_art.language.program import ARITY, COMPONENTS, IS_CONSTANT, Program
from evojax_art.runtime.errors import InputError, suggest
from evojax_art.runtime.tables import INTERNAL
from evojax_art.search.affine import LARGEST_STEP, LEAST_STEP, move, overlay, recolour
from evojax_art.search.splicing import (
    DONOR,
    FRESH,
    HOST,
    LARGEST_CONSTANT,
    Draws,
    Edit,
    Parent,
    choose,
    choose_subtree,
    edit,
    in_use,
    normal,
    parent,
    splice,
)

_OF_2015 = tuple(op.name for op in OPS if op.sampled)
_LATER = tuple(op.name for op in OPS if op.is_later)
_IMAGE_WEIGHT = 3  # a picture's leaf is drawn as often as so many others


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """How random formulas grow; the defaults are those of the 2015 program.

    Attributes:
        max_depth: levels of the tree at most, 1 to 31.
        binary: probability that a node above the last level is a binary operator.
        unary: that it is a unary one; the rest are leaves.
        leave_out: names of operators and leaves that are not drawn.
        add: names of others that are: of those that the 2015 program did not have, "all" for all.
        images: how many pictures leaves can read; a run sets it to those that it is given.
    """

    max_depth: int = 8
    binary: float = 4 / 11
    unary: float = 6 / 11
    leave_out: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    images: int = field(default=0, metadata=INTERNAL)

    def __post_init__(self):
        if not 1 <= self.max_depth <= 31:
            raise InputError(f"growth.max_depth must be 1 to 31, got {self.max_depth}")
        if not (self.binary >= 0 and self.unary >= 0 and self.binary + self.unary <= 1):  # nor NaN
            raise InputError("growth.binary and growth.unary must be probabilities, sum at most 1")
        if not 0 <= self.images <= len(IMAGES):
            raise InputError(f"growth.images must be 0 to {len(IMAGES)}, got {self.images}")
        for name, known in (("leave_out", _OF_2015), ("add", ("all", *_LATER))):
            for word in getattr(self, name):
                if word not in known:
                    raise InputError(
                        f"growth.{name} {word!r}: no such operator{suggest(word, known)}"
                    )
        lacking = [arity for arity, row in enumerate(self.drawn) if not row]
        if lacking:
            raise InputError(f"growth.leave_out: keep an operator of {lacking[0]} operands")

    @property
    def drawn(self) -> tuple[tuple[int, ...], ...]:
        """The opcodes that are drawn, of 0, 1 and 2 operands, a picture's several times."""
        added = _LATER if "all" in self.add else self.add
        names = [name for name in (*_OF_2015, *added) if name not in self.leave_out]
        rows = [
            [BY_NAME[name].opcode for name in names if BY_NAME[name].arity == n] for n in range(3)
        ]
        rows[0] += [op.opcode for op in IMAGES[: self.images]] * _IMAGE_WEIGHT
        return tuple(map(tuple, rows))


@dataclass(frozen=True, kw_only=True)
class VariationConfig:
    """Relative weights of the ways to make a child of a host and a donor.

    Attributes:
        crossover: a subtree of the host becomes a subtree of the donor.
        subst: `( subst host donor )` or the reverse; falls back to crossover where it is too long.
        regrow: a subtree becomes a random one.
        insert: a new operator above a subtree, its other operand a random leaf.
        point: one node becomes another op of the same arity.
        constant: one constant moves; falls back to point mutation where there is none.
        move: the picture, or a subtree's, is shifted, turned and stretched; falls back to
            `constant` where that does not fit.
        recolour: its colours are mapped; likewise.
        overlay: a little of a subtree of the donor's, or of a random one, is added to it; likewise.
        shrink: a subtree becomes a smaller one from inside it.
        hoist: a subtree becomes the whole.
        fresh: a random formula that owes nothing to either parent.
        blend: constants between those of the host and of another of the same nodes, if there is one
            (see `breeding`).
        regrow_depth: levels of a subtree that `regrow` makes.
        least_step: of `move`, `recolour` and `overlay`, three times that of `constant`. All steps
            between it and about 1 are made, any order of magnitude as often as another: small ones
            climb a hill to its top, large ones find another.
    """

    crossover: float = 0.2
    subst: float = 0.07
    regrow: float = 0.08
    insert: float = 0.1
    point: float = 0.1
    constant: float = 0.1
    move: float = 0.12
    recolour: float = 0.13
    overlay: float = 0.15
    shrink: float = 0.05
    hoist: float = 0.02
    fresh: float = 0.03
    blend: float = 0.5
    regrow_depth: int = 4
    least_step: float = LEAST_STEP

    @property
    def weights(self) -> dict[str, float]:
        """The weights of what `vary` does, by name."""
        others = ("blend", "regrow_depth", "least_step")
        names = [field.name for field in fields(self) if field.name not in others]
        return {name: getattr(self, name) for name in names}

    def __post_init__(self):
        for name, weight in {**self.weights, "blend": self.blend}.items():
            if not 0 <= weight < math.inf:  # nor NaN
                raise InputError(f"variation.{name} must be 0 or more, and finite, got {weight}")
        if not any(self.weights.values()):
            raise InputError("variation: one of the weights must be above 0")
        if not 1 <= self.regrow_depth <= 31:
            raise InputError(f"variation.regrow_depth must be 1 to 31, got {self.regrow_depth}")
        if not 1e-6 <= self.least_step <= LARGEST_STEP:
            raise InputError(
                f"variation.least_step must be 1e-06 to {LARGEST_STEP}, got {self.least_step:g}"
            )


OF_2015 = GrowthConfig()
_WAYS = tuple(VariationConfig().weights)


def grow(
    key: Key[Array, ""], capacity: int, config: GrowthConfig, max_depth: int | None = None
) -> Program:
    """A random program.

    Args:
        key: consumed.
        capacity: L.
        config: the distribution.
        max_depth: in place of the config's.
    """
    draws = jax.random.uniform(key, (2, capacity), jnp.float32)
    return _grown(draws, config, config.max_depth if max_depth is None else max_depth, capacity)


def _grown(
    draws: Float[Array, "2 L"],
    config: GrowthConfig,
    deepest: Int[Array, ""] | int,
    largest: Int[Array, ""] | int,
) -> Program:
    """A random program of so many levels and nodes at most, and capacity L.

    Nodes are drawn root first, right operand before left: that is postfix order backwards. A node
    for whose operands there is no room is drawn as one of smaller arity.
    """

    def step(carry, draws):
        emitted, depth, waiting, alive = carry
        kind, choice = draws
        arity = jnp.where(
            kind < config.binary, 2, jnp.where(kind < config.binary + config.unary, 1, 0)
        )
        room = largest - emitted - 1 - jax.lax.population_count(waiting)
        arity = jnp.where(depth >= deepest, 0, jnp.minimum(arity, room))
        opcode = _drawn_op(choice, arity, config)
        # `waiting` has a bit for the depth of every left operand still to be drawn: there is at
        # most one per level, and the deepest comes next.
        waiting = jnp.where(arity == 2, waiting | (jnp.uint32(1) << (depth + 1)), waiting)
        deepest_waiting = (31 - jax.lax.clz(waiting)).astype(jnp.uint32)
        next_depth = jnp.where(arity > 0, depth + 1, deepest_waiting)
        ends = (arity == 0) & (waiting == 0)
        waiting = jnp.where(arity > 0, waiting, waiting & ~(jnp.uint32(1) << deepest_waiting))
        carry = (emitted + alive, next_depth, waiting, alive & ~ends)
        return carry, jnp.where(alive, opcode, 0)

    start = (jnp.int32(0), jnp.uint32(1), jnp.uint32(0), jnp.bool_(True))
    (length, *_), backwards = jax.lax.scan(step, start, tuple(draws))
    position = jnp.arange(draws.shape[1])
    opcode = jnp.where(position < length, backwards[jnp.maximum(length - 1 - position, 0)], 0)
    return Program(opcode, jnp.zeros((draws.shape[1], 4), jnp.float32), length)


def crossover(draws: Draws, host: Parent, donor: Parent) -> Edit:
    """A uniform node's subtree of the host becomes a uniform one of the donor's that fits."""
    start, end = choose_subtree(draws.nodes[0], host)
    room = host.program.capacity - host.program.length + (end - start)
    first, last = choose_subtree(draws.nodes[1], donor, largest=room)
    return edit(start, end, DONOR, first, last)


def breed_subst(draws: Draws, host: Parent, donor: Parent) -> tuple[Edit, Bool[Array, ""]]:
    """`( subst a b )` of both in random order, and whether it fits."""
    swap = draws.single[0] < 0.5
    own, other = host.program.length, donor.program.length
    left, right = jnp.where(swap, other, own), jnp.where(swap, own, other)
    source, edited = jnp.where(swap, HOST, DONOR), jnp.where(swap, DONOR, HOST)
    joined = edit(left, left, source, 0, right, own=(SUBST,), behind=1, edited=edited)
    return joined, own + other < host.program.capacity


def regrow(draws: Draws, host: Parent, fresh: Program) -> Edit:
    """A uniform node's subtree becomes a random one; where that does not fit, its root leaf.

    Args:
        draws: of which only a row for the choice of the node is taken.
        host: whose subtree.
        fresh: the random one.
    """
    start, end = choose_subtree(draws.nodes[0], host)
    fits = host.program.length - (end - start) + fresh.length <= host.program.capacity
    # The first node of a postfix program is a leaf.
    return edit(start, end, FRESH, 0, jnp.where(fits, fresh.length, 1))


def regrown(draws: Draws, host: Program, growth: GrowthConfig, max_depth: int) -> Program:
    """`regrow` carried out, by a random subtree of so many levels at most."""
    largest = min(host.capacity, 1 << max_depth)
    fresh = _grown(draws.nodes[1:, :largest], growth, max_depth, largest)
    return splice(regrow(draws, parent(host), fresh), host, host, fresh)


def insert(draws: Draws, host: Parent, growth: GrowthConfig = OF_2015) -> Edit:
    """A random operator above a uniform node, its other operand (if any) a random leaf."""
    start, end = choose_subtree(draws.nodes[0], host)
    op_draw, leaf_draw, arity_draw, side_draw = draws.single[:4]
    room = host.program.capacity - host.program.length
    arity = jnp.minimum(jnp.where(arity_draw < 0.5, 2, 1), room)
    leaf = _drawn_op(leaf_draw, jnp.int32(0), growth)
    operator = _drawn_op(op_draw, arity, growth)
    own = jnp.where(arity == 2, jnp.stack([leaf, operator]), operator)
    before = ((arity == 2) & (side_draw < 0.5)).astype(jnp.int32)  # the leaf, or nothing
    return edit(start, end, HOST, start, end, own=own, before=before, behind=arity - before)


def mutate_point(
    draws: Draws, host: Parent, growth: GrowthConfig = OF_2015, subst_bias: float = 0.0
) -> Edit:
    """A uniform node becomes a uniform op of its arity.

    Args:
        draws: as everywhere.
        host: whose node.
        growth: which ops there are.
        subst_bias: probability that a binary operator becomes `subst` outright (0.5 in 2015).
    """
    node = choose(draws.nodes[0], in_use(host.program))
    arity = jnp.asarray(ARITY)[host.program.opcode[node]]
    opcode = _drawn_op(draws.single[0], arity, growth)
    to_subst = (arity == 2) & (draws.single[1] < subst_bias)
    return edit(node, node + 1, own=jnp.where(to_subst, SUBST, opcode)[None], before=1)


def perturb_constant(
    draws: Draws, host: Parent, least_step: float = LEAST_STEP
) -> tuple[Edit, Bool[Array, ""]]:
    """A uniform constant, named or `q`, moves and becomes `q`; and whether there is one.

    The step is normal, of a size drawn log-uniformly from a third of the least step to 1, relative
    for components beyond 1.
    """
    program = host.program
    is_constant = jnp.asarray(IS_CONSTANT)[program.opcode] & in_use(program)
    node = choose(draws.nodes[1], is_constant)
    named = jnp.asarray(COMPONENTS)[program.opcode[node]]
    value = jnp.where(program.opcode[node] == CONSTANT, program.constant[node], named)
    size = jnp.exp(math.log(least_step / 3) * (1 - draws.single[0]))
    step = size * normal(draws.single[1:5]) * jnp.maximum(1, jnp.abs(value))
    moved = jnp.clip(value + step, -LARGEST_CONSTANT, LARGEST_CONSTANT)
    child = edit(node, node + 1, own=(CONSTANT,), constant=moved[None], before=1)
    return child, jnp.any(is_constant)


def shrink(draws: Draws, host: Parent) -> Edit:
    """A uniform node's subtree becomes a uniform subtree of itself."""
    start, end = choose_subtree(draws.nodes[0], host)
    position = jnp.arange(host.program.capacity)
    inner = choose(draws.nodes[1], (position >= start) & (position < end))
    return edit(start, end, HOST, host.starts[inner], inner + 1)


def hoist(draws: Draws, host: Parent) -> Edit:
    """A uniform node's subtree becomes the whole formula."""
    start, end = choose_subtree(draws.nodes[0], host)
    return edit(0, host.program.length, HOST, start, end)


def vary(
    draws: Draws,
    host: Program,
    donor: Program,
    config: VariationConfig,
    growth: GrowthConfig,
) -> Program:
    """One child, made in one of the config's ways."""
    way = _drawn_way(draws.way, config)
    is_fresh = way == _WAYS.index("fresh")
    small = min(host.capacity, 1 << config.regrow_depth)
    fresh = _grown(
        draws.nodes[1:],
        growth,
        jnp.where(is_fresh, growth.max_depth, config.regrow_depth),
        jnp.where(is_fresh, host.capacity, small),
    )
    this, other = parent(host), parent(donor)
    subst, subst_fits = breed_subst(draws, this, other)
    constant, has_constant = perturb_constant(draws, this, config.least_step)
    moved, moved_fits = move(draws, this, config.least_step)
    recoloured, recoloured_fits = recolour(draws, this, config.least_step)
    overlaid, overlaid_fits = overlay(draws, this, other, fresh, config.least_step)
    edits = {
        "crossover": crossover(draws, this, other),
        "subst": subst,
        "regrow": regrow(draws, this, fresh),
        "insert": insert(draws, this, growth),
        "point": mutate_point(draws, this, growth),
        "constant": constant,
        "move": moved,
        "recolour": recoloured,
        "overlay": overlaid,
        "shrink": shrink(draws, this),
        "hoist": hoist(draws, this),
        "fresh": edit(0, host.length, FRESH, 0, fresh.length),
    }
    for name, is_possible, other_name in (  # in this order: `move` may end as `point`
        ("subst", subst_fits, "crossover"),
        ("move", moved_fits, "constant"),
        ("recolour", recoloured_fits, "constant"),
        ("overlay", overlaid_fits, "constant"),
        ("constant", has_constant, "point"),
    ):
        fails = (way == _WAYS.index(name)) & ~is_possible
        way = jnp.where(fails, _WAYS.index(other_name), way)
    in_order = [edits[name] for name in _WAYS]
    chosen = jax.tree.map(lambda *leaves: jnp.stack(leaves)[way], *in_order)
    return splice(chosen, host, donor, fresh)


def _drawn_way(draw: Float[Array, ""], config: VariationConfig) -> Int[Array, ""]:
    """The number of one of the ways, by their weights."""
    weights = np.array([config.weights[name] for name in _WAYS])
    ends = np.cumsum(weights) / weights.sum()
    possible = np.flatnonzero(weights)  # the last of which is at the end of rounding, too
    before = jnp.sum(draw >= ends.astype(np.float32)).astype(jnp.int32)
    return jnp.minimum(before, int(possible[-1]))


def _drawn_op(draw: Float[Array, ""], arity: Int[Array, ""], growth: GrowthConfig):
    """The op of that arity at `draw` in [0, 1), of those that are drawn."""
    rows = growth.drawn
    counts = [len(row) for row in rows]
    table = np.array([[*row, *[0] * (max(counts) - len(row))] for row in rows], np.int32)
    count = jnp.asarray(counts)[arity]
    index = jnp.minimum((draw * count).astype(jnp.int32), count - 1)
    return jnp.asarray(table)[arity, index]
