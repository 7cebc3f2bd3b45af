"""Tapes on a CPU, at the CPU's speed: an interpreter that LLVM compiles from the op table.

XLA's CPU code for a loop over a switch copies operands and results and computes shared terms of an
op once per component. Here every op is a loop over vectors of lanes that reads its operands where
they are and writes its result where it belongs. One compiled function serves every population and
picture; it is made on first use, and XLA calls it through its foreign function interface.

Work is split into tiles of points and ranges of formulas, which go to a pool of one thread per
core. A tile's registers, 4 kB each at 256 points, stay in the first two levels of cache.
"""

import ctypes
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import chain, islice, pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from llvmlite import binding

from evojax_art.interpreter.cpu import codegen
from evojax_art.interpreter.cpu import photographs as pictures
from evojax_art.interpreter.cpu.ffi import register
from evojax_art.interpreter.cpu.writer import Source
from evojax_art.language.ops import KEPT, Coordinates, Keep, num_kept
from evojax_art.language.photographs import Pyramid
from evojax_art.lowering.tape import LANES, NUM_LEAVES, Tape
from evojax_art.runtime.cores import num_cores

_TARGET = "evojax_art_interpret"
_TASKS_PER_THREAD = 4  # so that no thread waits long for the slowest


def interpret(
    tapes: Tape,
    at: Coordinates,
    kept: Keep,
    samples: int,
    images: Sequence[Pyramid] = (),
    per_pixel: int = 1,
) -> Float[Array, "P N C"]:
    """Interprets a population on a CPU; arguments and result as for `interpreter.api.interpret`.

    Tiles and their pixels must be multiples of `LANES`. The result is averaged over `samples`
    points, while pictures are read as with `per_pixel` points of a pixel.
    """
    num_tiles, tile = at.x.shape
    register(_TARGET, _run)
    code_of(codegen.SOURCE)  # starts compiling it while XLA compiles the rest
    shape = (tapes.opcode.shape[0], num_tiles * (tile // samples), num_kept(kept))
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    call = jax.ffi.ffi_call(_TARGET, result, vmap_method="sequential")
    counts = {"samples": samples, "kind": KEPT.index(kept), "per_pixel": per_pixel}
    attributes = {name: np.int64(count) for name, count in counts.items()}
    return call(*tapes, *at, *chain(*images), **attributes)


def _run(operands: list[Any], results: list[np.ndarray], attributes: dict[str, Any]) -> None:
    """The target: splits the work and waits for it."""
    given = iter(operands)
    tapes = Tape(*islice(given, len(Tape._fields)))
    at = Coordinates(*islice(given, len(Coordinates._fields)))
    table = pictures.table(list(given))
    num_formulas = len(tapes.length)
    num_tiles = len(at.x)
    num_threads = num_cores()
    code = code_of(codegen.SOURCE).result()
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
    list(pool().map(task, product(tiles, formulas)))


def bounds(count: int, parts: int) -> list[int]:
    """Where `count` things are cut into about equal ranges, at most `parts`."""
    parts = max(1, min(count, parts))
    return [count * index // parts for index in range(parts + 1)]


@cache
def pool() -> ThreadPoolExecutor:
    """A thread for each core."""
    return ThreadPoolExecutor(num_cores(), thread_name_prefix="interpret")


_local = threading.local()
_engines: list[Any] = []  # they own the code


def scratch(size: int) -> int:
    """Address of a register file of so many floats, kept by each thread."""
    held = getattr(_local, "registers", None)
    if held is None or held.size < size:
        held = _local.registers = np.empty(size + 16, np.float32)
    return -(-held.ctypes.data // 64) * 64  # so that no vector straddles two lines of cache


@cache
def code_of(source: Source) -> Future[dict[str, Callable[..., None]]]:
    """Its functions, callable; the first call starts compiling them."""
    return pool().submit(_compiled, source)


def _compiled(source: Source) -> dict[str, Callable[..., None]]:
    """Ctypes frees the GIL for them."""
    engine = compiled_engine(source.assembly(_width(), binding.get_default_triple()))
    arguments = [ctypes.c_void_p] * len(source.pointers) + [ctypes.c_int64] * len(source.counts)
    kind = ctypes.CFUNCTYPE(None, *arguments)
    return {name: kind(engine.get_function_address(name)) for name in source.functions}


def compiled_engine(assembly: str) -> binding.ExecutionEngine:
    """Machine code for this CPU, which lives as long as the process."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=3,
    )
    module = binding.parse_assembly(assembly)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    passes = binding.create_pass_builder(target, options)
    passes.getModulePassManager().run(module, passes)
    engine = binding.create_mcjit_compiler(module, target)
    engine.finalize_object()
    _engines.append(engine)
    return engine


def _width() -> int:
    """Lanes of the widest vectors that the CPU has."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4
