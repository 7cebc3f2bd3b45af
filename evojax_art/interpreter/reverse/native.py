"""Values and pullbacks of programs on a CPU, as native code on all cores; see `codegen`."""

from functools import partial
from itertools import chain, pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from evojax_art.interpreter.cpu import photographs as pictures
from evojax_art.interpreter.reverse import codegen as codegen_reverse
from evojax_art.language.photographs import Pyramid
from evojax_art.language.program import Program
from evojax_art.language.quaternions import Coordinates
from evojax_art.native.compiler import code_of
from evojax_art.native.ffi import register
from evojax_art.native.threads import bounds, run_all, scratch
from evojax_art.runtime.plan import Plan

_TARGETS = {name: f"evojax_art_{name}" for name in codegen_reverse.FUNCTIONS}


def value(
    program: Program,
    first: Int[Array, "P L"],
    second: Int[Array, "P L"],
    at: Coordinates,
    images: tuple[Pyramid, ...],
    samples: int,
    plan: Plan,
) -> Float[Array, "P 4 N T"]:
    """Values of P programs.

    Args:
        program: P of them.
        first: of each node its left or only operand, for a leaf its frame; L is the picture's own.
        second: its right operand, for a leaf `UNWRAPPED` where its frame is read as it is, or 0.
        at: coordinates, each [P, N, T]; T a multiple of 16.
        images: pictures that formulas read.
        samples: points of a pixel.
        plan: how it is computed; here there is one way.
    """
    del plan
    shape = (at.x.shape[0], 4, *at.x.shape[1:])
    nothing = jnp.zeros(1, jnp.float32)
    given = (*_nodes(program, first, second), *at, nothing, *chain(*images))
    return _call("value", shape, given, samples)


def pullback(
    program: Program,
    first: Int[Array, "P L"],
    second: Int[Array, "P L"],
    at: Coordinates,
    cotangent: Float[Array, "P 4 N T"],
    images: tuple[Pyramid, ...],
    samples: int,
    plan: Plan,
) -> Float[Array, "P L 4"]:
    """The cotangents of their constants; arguments as for `value`, and those of the values."""
    del plan
    shape = (*at.x.shape[:2], program.capacity, 4)
    given = (*_nodes(program, first, second), *at, cotangent, *chain(*images))
    return _call("pullback", shape, given, samples).sum(axis=1)


def _nodes(program: Program, first: Array, second: Array) -> tuple[Array, ...]:
    return program.opcode, first, second, program.constant, program.length


def _call(name: str, shape: tuple[int, ...], given: tuple[Array, ...], samples: int) -> Array:
    register(_TARGETS[name], partial(_run, name))
    code_of(codegen_reverse.SOURCE)  # starts compiling it while XLA compiles the rest
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(_TARGETS[name], result, vmap_method="sequential")
    return call(*given, per_pixel=np.int64(samples))


def _run(
    name: str, operands: list[Any], results: list[np.ndarray], attributes: dict[str, Any]
) -> None:
    """The target: splits the work and waits for it."""
    count = codegen_reverse.POINTERS.index("images")
    arrays = [*operands[:count], pictures.table(operands[count:]), results[0]]
    opcode, at_x = operands[0], operands[5]
    num_formulas, capacity = opcode.shape
    _, num_tiles, tile = at_x.shape
    if name == "pullback":
        results[0].fill(0)  # nodes that are no constants
    function = code_of(codegen_reverse.SOURCE).result()[name]
    addresses = [array.ctypes.data for array in arrays]

    def task(piece: tuple[tuple[int, int], tuple[int, int]]) -> None:
        registers = scratch(2 * (capacity + 1) * 4 * tile)
        counts = (num_tiles, capacity, tile, attributes["per_pixel"])
        function(*addresses, registers, *piece[0], *piece[1], *counts)

    tiles = pairwise(bounds(num_tiles, 4))
    formulas = pairwise(bounds(num_formulas, num_formulas))
    run_all(task, product(tiles, formulas))
