"""Tapes on a CPU, at the CPU's speed: an interpreter that LLVM compiles from the op table.

XLA's CPU code for a loop over a switch copies operands and results and computes shared terms of an
op once per component. Here every op is a loop over vectors of lanes that reads its operands where
they are and writes its result where it belongs. One compiled function serves every population and
picture; it is made on first use, and XLA calls it through its foreign function interface.

Work is split into tiles of points and ranges of formulas, which go to a pool of one thread per
core. A tile's registers, 4 kB each at 256 points, stay in the first two levels of cache.
"""

from collections.abc import Callable, Sequence
from itertools import chain, islice, pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from evojax_art.interpreter.cpu import codegen
from evojax_art.interpreter.cpu import photographs as pictures
from evojax_art.language.ops import KEPT, Keep, num_kept
from evojax_art.language.photographs import Pyramid
from evojax_art.language.quaternions import Coordinates
from evojax_art.lowering.tape import LANES, NUM_LEAVES, Tape
from evojax_art.native.compiler import Functions, code_of
from evojax_art.native.ffi import register
from evojax_art.native.threads import bounds, run_all, scratch
from evojax_art.runtime.cores import num_cores
from evojax_art.runtime.plan import Plan

_TARGET = "evojax_art_interpret"
_TASKS_PER_THREAD = 4  # so that no thread waits long for the slowest


def interpret(
    tapes: Tape,
    at: Coordinates,
    kept: Keep,
    *,
    samples: int,
    per_pixel: int,
    images: Sequence[Pyramid],
    dtype: DTypeLike,
    plan: Plan,
) -> Float[Array, "P N C"]:
    """Interprets a population on a CPU; see `implementations`.

    Tiles and their pixels must be multiples of `LANES`.
    """
    del plan
    num_tiles, tile = at.x.shape
    register(_TARGET, run)
    code_of(codegen.SOURCE)  # starts compiling it while XLA compiles the rest
    shape = (tapes.opcode.shape[0], num_tiles * (tile // samples), num_kept(kept))
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(_TARGET, result, vmap_method="sequential")
    counts = {"samples": samples, "kind": KEPT.index(kept), "per_pixel": per_pixel}
    attributes = {name: np.int64(count) for name, count in counts.items()}
    return call(*tapes, *at, *chain(*images), **attributes).astype(dtype)


def run(
    operands: list[Any],
    results: list[np.ndarray],
    attributes: dict[str, Any],
    *,
    code: Functions | None = None,
    num_threads: int | None = None,
) -> None:
    """The target: splits the work and waits for it.

    Args:
        operands: fields of tapes, of coordinates and of photographs.
        results: what is filled, [P, N, C].
        attributes: see `codegen.COUNTS`.
        code: compiled functions; None: those for this CPU.
        num_threads: among which the work is divided; None: one a core.
    """
    given = iter(operands)
    tapes = Tape(*islice(given, len(Tape._fields)))
    at = Coordinates(*islice(given, len(Coordinates._fields)))
    table = pictures.table(list(given))
    num_formulas = len(tapes.length)
    num_tiles = len(at.x)
    num_threads = num_threads or num_cores()
    code = code or code_of(codegen.SOURCE).result()
    if tapes.num_folded.any():
        tapes = tapes._replace(constant=tapes.constant.copy())
        size = NUM_LEAVES + tapes.opcode.shape[1]
        anywhere = Coordinates(*np.zeros((3, 1, LANES), np.float32))
        ranges = pairwise(bounds(num_formulas, num_threads))
        arrays = [*tapes, *anywhere, pictures.table([]), results[0]]
        _call(code["fold"], size, arrays, attributes, [(0, 1)], list(ranges))
    # Rather tiles than formulas: a tile's leaves are made for each range of formulas.
    num_tasks = num_threads * _TASKS_PER_THREAD
    tiles = list(pairwise(bounds(num_tiles, num_tasks)))
    formulas = list(pairwise(bounds(num_formulas, -(-num_tasks // len(tiles)))))
    size = tapes.num_registers
    arrays = [*tapes, *at, table, results[0]]
    _call(code["interpret"], size, arrays, attributes, tiles, formulas)


def _call(
    function: Callable[..., None],
    num_registers: int,
    arrays: list[np.ndarray],
    attributes: dict[str, Any],
    tiles: list[tuple[int, int]],
    formulas: list[tuple[int, int]],
) -> None:
    """Calls compiled code for all ranges of tiles and of formulas."""
    by_name = dict(zip(codegen.POINTERS, arrays, strict=False))
    capacity, (num_tiles, tile) = by_name["opcode"].shape[1], by_name["x"].shape
    addresses = [array.ctypes.data for array in arrays]

    def task(ranges: tuple[tuple[int, int], tuple[int, int]]) -> None:
        function(
            *addresses,
            scratch(num_registers * 4 * tile),
            *(*ranges[0], *ranges[1], num_tiles, capacity, tile),
            *(attributes[name] for name in ("samples", "kind", "per_pixel")),
        )

    # On threads of our own even where it is one task: the code changes how its thread rounds.
    run_all(task, product(tiles, formulas))
