"""Making new genomes: growth, crossover, mutation, on the device.

Every function takes one individual and a key and is meant for `jax.vmap`. Programs stay valid and
never outgrow their capacity L. Where a result would not fit, the choice that makes it too long is
drawn again from those that fit (crossover, insertion), or the documented fallback is taken.

All of it is cutting and pasting of postfix ranges, so one function, `splice`, does the moving.
Children that keep their host's shape and are elsewhere in it are made by `affine`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from evojax_art.language.ops import BY_NAME, CONSTANT, IMAGES, OPS, SUBST
from evojax_art.language.program import ARITY, COMPONENTS, IS_CONSTANT, Program, subtree_starts
from evojax_art.runtime.errors import InputError, suggest
from evojax_art.runtime.tables import INTERNAL
from evojax_art.search.affine import LARGEST_STEP, LEAST_STEP, move, recolour
from evojax_art.search.splicing import (
    LARGEST_CONSTANT,
    choose,
    choose_subtree,
    either,
    in_use,
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
        shrink: a subtree becomes a smaller one from inside it.
        hoist: a subtree becomes the whole.
        fresh: a random formula that owes nothing to either parent.
        blend: constants between those of the host and of another of the same nodes, if there is one
            (see `breeding`).
        regrow_depth: levels of a subtree that `regrow` makes.
        least_step: of `move` and `recolour`, three times that of `constant`. All steps between it
            and about 1 are made, any order of magnitude as often as another: small ones climb a
            hill to its top, large ones find another.
    """

    crossover: float = 0.2
    subst: float = 0.07
    regrow: float = 0.08
    insert: float = 0.1
    point: float = 0.1
    constant: float = 0.1
    move: float = 0.12
    recolour: float = 0.13
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


def grow(
    key: Key[Array, ""], capacity: int, config: GrowthConfig, max_depth: int | None = None
) -> Program:
    """A random program.

    Nodes are drawn root first, right operand before left: that is postfix order backwards. A node
    for whose operands there is no room is drawn as one of smaller arity.

    Args:
        key: consumed.
        capacity: L.
        config: the distribution.
        max_depth: in place of the config's.
    """
    deepest = config.max_depth if max_depth is None else max_depth
    kind, choice = jax.random.uniform(key, (2, capacity))

    def step(carry, draws):
        emitted, depth, waiting, alive = carry
        kind, choice = draws
        arity = jnp.where(
            kind < config.binary, 2, jnp.where(kind < config.binary + config.unary, 1, 0)
        )
        room = capacity - emitted - 1 - jax.lax.population_count(waiting)
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
    (length, *_), backwards = jax.lax.scan(step, start, (kind, choice))
    position = jnp.arange(capacity)
    opcode = jnp.where(position < length, backwards[jnp.maximum(length - 1 - position, 0)], 0)
    return Program(opcode, jnp.zeros((capacity, 4)), length)


def crossover(key: Key[Array, ""], host: Program, donor: Program) -> Program:
    """A uniform node's subtree of the host becomes a uniform one of the donor's that fits."""
    host_key, donor_key = jax.random.split(key)
    start, end = choose_subtree(host_key, host)
    room = host.capacity - host.length + (end - start)
    donor_start, donor_end = choose_subtree(donor_key, donor, largest=room)
    return splice(host, start, end, donor, donor_start, donor_end)


def breed_subst(key: Key[Array, ""], host: Program, donor: Program) -> Program:
    """`( subst a b )` of both in random order; crossover where it does not fit."""
    order_key, fallback_key = jax.random.split(key)
    swap = jax.random.bernoulli(order_key)
    left, right = (
        jax.tree.map(lambda a, b: jnp.where(swap, a, b), *pair)
        for pair in ((donor, host), (host, donor))
    )
    length = host.length + donor.length + 1
    joined = splice(left, left.length, left.length, right, jnp.int32(0), right.length)
    last = jnp.arange(host.capacity) == length - 1
    joined = Program(jnp.where(last, SUBST, joined.opcode), joined.constant, length)
    return either(length <= host.capacity, joined, crossover(fallback_key, host, donor))


def regrow(key: Key[Array, ""], host: Program, growth: GrowthConfig, max_depth: int) -> Program:
    """A uniform node's subtree becomes a random one; where that does not fit, its root leaf."""
    node_key, grow_key = jax.random.split(key)
    start, end = choose_subtree(node_key, host)
    fresh = grow(grow_key, min(host.capacity, 1 << max_depth), growth, max_depth)
    fits = host.length - (end - start) + fresh.length <= host.capacity
    # The first node of a postfix program is a leaf.
    return splice(host, start, end, fresh, jnp.int32(0), jnp.where(fits, fresh.length, 1))


def insert(key: Key[Array, ""], host: Program, growth: GrowthConfig = OF_2015) -> Program:
    """A random operator above a uniform node, its other operand (if any) a random leaf."""
    node_key, op_key, shape_key = jax.random.split(key, 3)
    start, end = choose_subtree(node_key, host)
    op_draw, leaf_draw = jax.random.uniform(op_key, (2,))
    arity_draw, side_draw = jax.random.uniform(shape_key, (2,))
    room = host.capacity - host.length
    arity = jnp.minimum(jnp.where(arity_draw < 0.5, 2, 1), room)
    leaf = _drawn_op(leaf_draw, jnp.int32(0), growth)
    operator = _drawn_op(op_draw, arity, growth)
    leaf_first = (arity == 2) & (side_draw < 0.5)
    before = leaf_first.astype(jnp.int32)
    tail = jnp.where((arity == 2) & ~leaf_first, jnp.stack([leaf, operator]), operator)
    pieces = Program(
        jnp.stack([leaf, tail[0], tail[1]]), jnp.zeros((3, 4)), jnp.int32(3)
    )  # the leaf that goes before, then what goes behind
    behind = jnp.where(arity == 2, jnp.where(leaf_first, 1, 2), arity)
    child = splice(host, end, end, pieces, jnp.int32(1), 1 + behind)
    return splice(child, start, start, pieces, jnp.int32(0), before)


def mutate_point(
    key: Key[Array, ""], host: Program, growth: GrowthConfig = OF_2015, subst_bias: float = 0.0
) -> Program:
    """A uniform node becomes a uniform op of its arity.

    Args:
        key: consumed.
        host: whose node.
        growth: which ops there are.
        subst_bias: probability that a binary operator becomes `subst` outright (0.5 in 2015).
    """
    node_key, op_key, bias_key = jax.random.split(key, 3)
    node = choose(node_key, in_use(host))
    arity = jnp.asarray(ARITY)[host.opcode[node]]
    opcode = _drawn_op(jax.random.uniform(op_key), arity, growth)
    to_subst = (arity == 2) & jax.random.bernoulli(bias_key, subst_bias)
    opcode = jnp.where(to_subst, SUBST, opcode)
    return Program(host.opcode.at[node].set(opcode), host.constant.at[node].set(0.0), host.length)


def perturb_constant(
    key: Key[Array, ""],
    host: Program,
    growth: GrowthConfig = OF_2015,
    least_step: float = LEAST_STEP,
) -> Program:
    """A uniform constant, named or `q`, moves and becomes `q`; point mutation where there is none.

    The step is normal, of a size drawn log-uniformly from a third of the least step to 1, relative
    for components beyond 1.
    """
    node_key, size_key, step_key, fallback_key = jax.random.split(key, 4)
    is_constant = jnp.asarray(IS_CONSTANT)[host.opcode] & in_use(host)
    node = choose(node_key, is_constant)
    named = jnp.asarray(COMPONENTS)[host.opcode[node]]
    value = jnp.where(host.opcode[node] == CONSTANT, host.constant[node], named)
    size = jnp.exp(jax.random.uniform(size_key, minval=math.log(least_step / 3), maxval=0.0))
    step = size * jax.random.normal(step_key, (4,)) * jnp.maximum(1, jnp.abs(value))
    moved = jnp.clip(value + step, -LARGEST_CONSTANT, LARGEST_CONSTANT)
    child = Program(
        host.opcode.at[node].set(CONSTANT), host.constant.at[node].set(moved), host.length
    )
    return either(jnp.any(is_constant), child, mutate_point(fallback_key, host, growth))


def mapped(
    affine_fn: Callable[[Key[Array, ""], Program, float], tuple[Program, Bool[Array, ""]]],
    key: Key[Array, ""],
    host: Program,
    growth: GrowthConfig = OF_2015,
    least_step: float = LEAST_STEP,
) -> Program:
    """By a function of `affine`; a constant moves where that does not fit."""
    map_key, fallback_key = jax.random.split(key)
    child, fits = affine_fn(map_key, host, least_step)
    return either(fits, child, perturb_constant(fallback_key, host, growth, least_step))


moved, recoloured = partial(mapped, move), partial(mapped, recolour)


def shrink(key: Key[Array, ""], host: Program) -> Program:
    """A uniform node's subtree becomes a uniform subtree of itself."""
    outer_key, inner_key = jax.random.split(key)
    starts = subtree_starts(host)
    outer = choose(outer_key, in_use(host))
    position = jnp.arange(host.capacity)
    inner = choose(inner_key, (position >= starts[outer]) & (position <= outer))
    return splice(host, starts[outer], outer + 1, host, starts[inner], inner + 1)


def hoist(key: Key[Array, ""], host: Program) -> Program:
    """A uniform node's subtree becomes the whole formula."""
    start, end = choose_subtree(key, host)
    return splice(host, jnp.int32(0), host.length, host, start, end)


def vary(
    key: Key[Array, ""],
    host: Program,
    donor: Program,
    config: VariationConfig,
    growth: GrowthConfig,
) -> Program:
    """One child, made in one of the config's ways."""
    capacity, least_step = host.capacity, config.least_step
    ways: dict[str, Callable[[Array], Program]] = {
        "crossover": lambda key: crossover(key, host, donor),
        "subst": lambda key: breed_subst(key, host, donor),
        "regrow": lambda key: regrow(key, host, growth, config.regrow_depth),
        "insert": lambda key: insert(key, host, growth),
        "point": lambda key: mutate_point(key, host, growth),
        "constant": lambda key: perturb_constant(key, host, growth, least_step),
        "move": lambda key: moved(key, host, growth, least_step),
        "recolour": lambda key: recoloured(key, host, growth, least_step),
        "shrink": lambda key: shrink(key, host),
        "hoist": lambda key: hoist(key, host),
        "fresh": lambda key: grow(key, capacity, growth),
    }
    weights = jnp.array([config.weights[name] for name in ways], jnp.float32)
    # Under `vmap` all ways are gone, so each has a key of its own.
    kind_key, *keys = jax.random.split(key, 1 + len(ways))
    kind = jax.random.categorical(kind_key, jnp.log(weights))
    branches = [lambda keys, n=n, way=way: way(keys[n]) for n, way in enumerate(ways.values())]
    return jax.lax.switch(kind, branches, keys)


def _drawn_op(draw: Float[Array, ""], arity: Int[Array, ""], growth: GrowthConfig):
    """The op of that arity at `draw` in [0, 1), of those that are drawn."""
    rows = growth.drawn
    counts = [len(row) for row in rows]
    table = np.array([[*row, *[0] * (max(counts) - len(row))] for row in rows], np.int32)
    count = jnp.asarray(counts)[arity]
    index = jnp.minimum((draw * count).astype(jnp.int32), count - 1)
    return jnp.asarray(table)[arity, index]
