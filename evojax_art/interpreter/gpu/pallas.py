"""Tapes on a GPU, as one kernel (Pallas, Mosaic GPU; Hopper and newer).

A block of 128 threads evaluates one formula on one tile of `TILE` pixels. All of its threads take
the same instruction, so the branch on the opcode diverges nowhere and only the op that is asked
for is computed. The arithmetic is `ops.OPS`, traced once per instruction with `KernelNumpy`.

How a formula's instructions are packed into words is said in `packing`.

Where values live, per thread (two pixels) or per block:

    coordinates, newest value   hardware registers: 3 and 4 floats a pixel
    leaves                      nowhere: built from the coordinates where an operand asks for one
    slots 0 to SLOTS - 1        shared memory, 4 kB each: 32 kB a block, so six blocks would fit on
                                a multiprocessor (228 kB, 1 kB of them a block's overhead); the
                                hardware registers allow five
    slots behind them           device memory. As a block cannot know which of the resident ones
                                it is, formulas that need such slots go to the first `WORKERS`
                                blocks, which work them off with a scratch area each; the blocks
                                those formulas would have had end at once

Slots are written and read at the same place by the same thread, so instructions need no barrier.
Only the way out does: colours pass through slot 0 to change hands, so that each thread can write
every 128th pixel's channels next to each other, [P, pixels, channels], as networks take them.

Blocks run in the order of falling length, formula by formula, so that the longest do not come last;
which formula is whose is an index (`order`), read by the block and used as the output's address.
Samples of a pixel are a loop in its block and averaged in registers.

Precision: `exp`, `log`, `sin` are libdevice's (1 to 2 ulp, any argument), a reciprocal is
`rcp.approx` (1 ulp), square roots and `floor` are composed below. Products and sums may fuse.

On an NVIDIA H200 4,096 formulas of the 1995 archive (38.8 nodes, 20.7 instructions) at 224x224 take
18 ms, 4.4e11 node-pixels a second. Tiles of 128 pixels gave 3.8e11, of 512 4.5e11, of 1024 3.5e11;
7 or 12 slots no more than 8. ptxas makes code of 92 registers a thread (107 where samples are
averaged) that spills none of them and branches by jump tables; the result is the picture batch
itself, without a copy. Its pictures differ from a CPU's as much as a CPU's differ from float64.

On a CPU the same kernel is interpreted, block by block: for tests, far too slow for use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.interpreter.instruction import Operands, value_of
from evojax_art.interpreter.xla import fold
from evojax_art.language.ops import INSTRUCTIONS, Keep, Op, keep, num_kept
from evojax_art.language.photographs import Pyramid
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.lowering.packing import FIRST_SLOT, Packed, field_bits, pack, unpack, words_per_step
from evojax_art.lowering.tape import LEAVES, NUM_LEAVES, Tape
from evojax_art.lowering.values import UNWRAPPED
from evojax_art.runtime.plan import Plan

TILE = 256  # pixels of a block: two a thread, which share its instruction's decoding
SLOTS = 8  # own registers on chip; the 1995 archive needs 7
WORKERS = 128  # blocks with slots in device memory, about one a multiprocessor
THREADS = 128  # a warpgroup, the unit that Mosaic GPU programs


class KernelNumpy:
    """`jax.numpy`, with what Mosaic GPU lacks composed of what it has."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def floor(t: Array) -> Array:
        """From the nearest whole number, which is one instruction."""
        nearest = lax.round(t, lax.RoundingMethod.TO_NEAREST_EVEN)
        return jnp.where(nearest > t, nearest - 1, nearest)

    @staticmethod
    def sqrt(t: Array) -> Array:
        """From the reciprocal root, which Mosaic GPU has had longer than the root."""
        ordinary = (t > 0) & (t < np.inf)
        safe = jnp.where(ordinary, t, jnp.ones_like(t))
        inverse = lax.rsqrt(safe)
        root = safe * inverse
        root = root + 0.5 * inverse * (safe - root * root)  # Newton: rsqrt is 2 ulp off on a GPU
        return jnp.where(ordinary, root, jnp.where(t < 0, jnp.full_like(t, np.nan), t))


def interpret(
    tapes: Tape,
    at: Coordinates,
    kept: Keep,
    *,
    samples: int = 1,
    per_pixel: int = 1,
    images: Sequence[Pyramid] = (),
    dtype: DTypeLike = jnp.float32,
    plan: Plan,
    simulate: Any = None,
    slots: int = SLOTS,
    workers: int = WORKERS,
) -> Float[Array, "P N C"]:
    """Evaluates a population; see `implementations`. Any number of points makes a tile.

    Beside what all implementations take:

    Args:
        tapes: a population's tapes.
        at: coordinates, each [tiles, samples * D] float32; any D.
        kept: what to keep of a value.
        samples: points of a pixel, over which the result is averaged.
        per_pixel: of no use, as photographs cannot be read.
        images: there must be none.
        dtype: of the result; averages are float32.
        plan: on a CPU's, Pallas interprets the kernel.
        simulate: `InterpretGPUParams`, to run on a simulated GPU whatever the platform.
        slots: on chip, own registers of a formula; at least 2, as LLVM takes an only one's index
            for 0 and then drops stores to it.
        workers: blocks with slots in device memory.
    """
    del per_pixel, images
    num_pixels = at.x.size // samples
    sizes = _Sizes(
        slots=slots,
        workers=workers,
        num_formulas=len(tapes.length),
        num_tiles=-(-num_pixels // TILE),
        samples=samples,
        num_own=tapes.num_registers - NUM_LEAVES,
        kept=kept,
        dtype=jnp.dtype(dtype),
    )

    def by_sample(field: Array) -> Array:
        """[samples, pixels], padded to whole tiles."""
        field = field.reshape(len(field), samples, -1).swapaxes(0, 1).reshape(samples, -1)
        return jnp.pad(field, ((0, 0), (0, sizes.num_tiles * TILE - num_pixels)), mode="edge")

    operands = (*pack(fold(tapes), slots, sizes.bits), *map(by_sample, at))
    if plan.platform == "cpu" and simulate is None:
        results = _launch_interpreted(sizes, operands)
    else:
        results = _launch(sizes, operands, simulate)
    return results[:, :num_pixels]


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """What is known of a kernel when it is traced."""

    slots: int
    workers: int
    num_formulas: int
    num_tiles: int
    samples: int
    num_own: int
    kept: Keep
    dtype: np.dtype

    @property
    def bits(self) -> int:
        """Of a field of a word."""
        return field_bits(self.num_own)

    @property
    def num_spilled(self) -> int:
        """Slots of the scratch areas in device memory."""
        return max(0, self.num_own - self.slots)

    @property
    def num_items(self) -> int:
        return self.num_formulas * self.num_tiles

    @property
    def num_workers(self) -> int:
        return min(self.workers, self.num_items) if self.num_spilled else 0

    @property
    def num_blocks(self) -> int:
        return self.num_workers + self.num_items


def _launch(sizes: _Sizes, operands: Sequence[Array], simulate: Any = None) -> Array:
    strided = plgpu.Layout.WG_STRIDED((TILE,), vec_size=min(2, TILE // THREADS))
    kernel = plgpu.kernel(
        lambda *refs: _Block(
            sizes,
            lax.axis_index("block"),
            refs,
            # Constants come as one value for all threads; branches must agree.
            settle_fn=lambda t: plgpu.layout_cast(t, strided),
            barrier_fn=plgpu.commit_smem,
        ).run(),
        out_type=_results(sizes),
        scratch_types=[plgpu.SMEM((sizes.slots, 4, TILE), jnp.float32)],
        grid=(sizes.num_blocks,),
        grid_names=("block",),
        kernel_name="evojax_art_tapes",
        compiler_params=plgpu.CompilerParams(
            lowering_semantics=plgpu.LoweringSemantics.Lane, unsafe_no_auto_barriers=True
        ),
        interpret=simulate,
    )
    return kernel(*operands)[0]


def _launch_interpreted(sizes: _Sizes, operands: Sequence[Array]) -> Array:
    """One block after the other, by Pallas's interpreter of any platform."""

    def kernel(*refs):
        def run(block, carry):
            _Block(sizes, block, refs, settle_fn=lambda t: t, barrier_fn=lambda: None).run()
            return carry

        lax.fori_loop(0, sizes.num_blocks, run, 0)

    slots = jax.ShapeDtypeStruct((sizes.slots, 4, TILE), jnp.float32)
    return pl.pallas_call(kernel, out_shape=[*_results(sizes), slots], interpret=True)(*operands)[0]


def _results(sizes: _Sizes) -> list[jax.ShapeDtypeStruct]:
    """The kept channels, and the scratch areas, whose content nobody reads afterwards."""
    pixels = sizes.num_tiles * TILE
    scratch = (max(1, sizes.num_workers), max(1, sizes.num_spilled), 4, TILE)
    return [
        jax.ShapeDtypeStruct((sizes.num_formulas, pixels, num_kept(sizes.kept)), sizes.dtype),
        jax.ShapeDtypeStruct(scratch, jnp.float32),
    ]


class _Block:
    """The kernel: what one block does. Scalars are uniform, arrays [TILE] are spread over threads.

    Attributes:
        packed: references to the tapes.
        at: references to the coordinates, [samples, pixels].
        results: reference to the channels, [P, pixels, C].
        spilled: reference to the scratch areas, [workers, slots, 4, TILE].
        slots: reference to shared memory, [slots, 4, TILE].
    """

    def __init__(
        self,
        sizes: _Sizes,
        block: Any,
        refs: Sequence[Any],
        settle_fn: Callable[[Array], Array],
        barrier_fn: Callable[[], None],
    ):
        self.sizes, self.block = sizes, block
        self.packed = Packed(*refs[:6])
        self.at = Coordinates(*refs[6:9])
        self.results, self.spilled, self.slots = refs[9:]
        self.settle_fn, self.barrier_fn = settle_fn, barrier_fn
        self.xp = KernelNumpy()

    def run(self) -> None:
        workers = self.sizes.num_workers
        if not workers:
            self._item(self.block)
            return
        num_spilling = self.packed.num_spilling[0] * self.sizes.num_tiles
        works = self.block < workers
        own = self.block - workers
        shared = lax.div(num_spilling - self.block + workers - 1, jnp.int32(workers))
        trips = jnp.where(works, shared, jnp.where(own >= num_spilling, 1, 0))

        def trip(number, carry):
            self._item(jnp.where(works, self.block + number * workers, own))
            return carry

        lax.fori_loop(0, trips, trip, 0)

    def _item(self, index: Any) -> None:
        """One formula on one tile."""
        sizes = self.sizes
        formula = self.packed.order[lax.div(index, jnp.int32(sizes.num_tiles))]
        start = lax.rem(index, jnp.int32(sizes.num_tiles)) * TILE

        def channels(sample) -> tuple[Array, ...]:
            here = Coordinates(*(field[sample, pl.ds(start, TILE)] for field in self.at))
            return self._settle(keep(self.xp, self._evaluate(formula, here), sizes.kept))

        if sizes.samples == 1:
            means = channels(0)
        else:
            zeros = self._settle([jnp.zeros(TILE)] * num_kept(sizes.kept))
            sums = lax.fori_loop(
                0,
                sizes.samples,
                lambda sample, sums: tuple(map(jnp.add, sums, channels(sample))),
                zeros,
            )
            means = [total * (1 / sizes.samples) for total in sums]
        for channel, mean in enumerate(means):
            self.slots[0, channel] = mean
        self.barrier_fn()
        for channel in range(len(means)):
            for first in range(0, TILE, THREADS):
                value = self.slots[0, channel, pl.ds(first, THREADS)].astype(sizes.dtype)
                pixels = pl.ds(start + first, THREADS)
                self.results[formula, pixels, pl.ds(channel, 1)] = jnp.reshape(value, (THREADS, 1))
        self.barrier_fn()

    def _evaluate(self, formula: Any, here: Coordinates) -> Quaternion:
        branches = [self._branch(op) for op in INSTRUCTIONS]

        def step_fn(step, carry):
            newest, words = carry
            following = self._words(formula, step + 1)  # on its way while this one computes
            position, slot, first, second = unpack(words, self.sizes.bits)
            operands = (self._fetch(code, newest, here) for code in (first, second))
            value = lax.switch(position, branches, *operands, second, formula, step)
            self._store(slot, value)
            return value, following

        carry = self._settle([jnp.zeros(TILE)] * 4), self._words(formula, 0)
        newest, _ = lax.fori_loop(0, self.packed.length[formula], step_fn, carry)
        return Quaternion(*self._fetch(self.packed.result[formula], newest, here))

    def _branch(self, op: Op):
        def constant(formula, step) -> Quaternion:
            parts = (self.packed.constants[formula, 4 * step + part] for part in range(4))
            return Quaternion(*(jnp.full(TILE, part) for part in parts))

        def run(first, second, code, formula, step):
            operands = Operands(
                first_fn=lambda: Quaternion(*first),
                second_fn=lambda: Quaternion(*second),
                constant_fn=lambda: constant(formula, step),
                unwrapped_fn=lambda: code == UNWRAPPED,
            )
            return self._settle(value_of(self.xp, op, operands, self._leaf))

        return run

    def _leaf(self, op: Op, at: Coordinates, frame: Coordinates) -> Quaternion:
        """A coordinate leaf; those of photographs, which this kernel cannot read, are 0."""
        del frame
        return op.fn(self.xp, at)

    def _words(self, formula: Any, step: Any) -> tuple[Any, ...]:
        count = words_per_step(self.sizes.bits)
        return tuple(self.packed.words[formula, count * step + word] for word in range(count))

    def _fetch(self, code: Any, newest: Sequence[Array], here: Coordinates) -> tuple[Array, ...]:
        def leaf(op: Op):
            return lambda code, newest, here: self._settle(self._leaf(op, here, here))

        def slot(code, newest, here):
            return tuple(self.slots[code - FIRST_SLOT, part] for part in range(4))

        def spilled(code, newest, here):
            place = (self.block, code - (FIRST_SLOT + self.sizes.slots))
            return tuple(self.spilled[*place, part] for part in range(4))

        branches = [lambda code, newest, here: tuple(newest), *map(leaf, LEAVES), slot]
        branch = jnp.minimum(code, FIRST_SLOT)
        if self.sizes.num_spilled:
            branches.append(spilled)
            branch = branch + (code >= FIRST_SLOT + self.sizes.slots).astype(jnp.int32)
        return lax.switch(branch, branches, code, newest, here)

    def _store(self, slot: Any, value: Sequence[Array]) -> None:
        @pl.when((slot > 0) & (slot <= self.sizes.slots))
        def _():
            for part in range(4):
                self.slots[slot - 1, part] = value[part]

        if self.sizes.num_spilled:

            @pl.when(slot > self.sizes.slots)
            def _():
                for part in range(4):
                    self.spilled[self.block, slot - 1 - self.sizes.slots, part] = value[part]

    def _settle(self, values: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(map(self.settle_fn, values))
