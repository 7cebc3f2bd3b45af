"""Tapes on a CPU, at the CPU's speed: an interpreter that LLVM compiles from the op table.

XLA's CPU code for a loop over a switch copies operands and results and computes shared terms of an
op once per component. Here every op is a loop over vectors of lanes that reads its operands where
they are and writes its result where it belongs. One compiled function serves every population and
picture; it is made on first use, and XLA calls it through its foreign function interface.

Work is split into tiles of points and ranges of formulas, which go to a pool of one thread per
core. A tile's registers, 4 kB each at 256 points, stay in the first two levels of cache.

What is compiled, for one tile and a range of formulas, with some lanes per vector:

    for each leaf that a formula of the range reads:
        registers[leaf] = its value at the tile's coordinates
    for each formula of the range:
        for each instruction:
            switch (opcode): for each vector: registers[target] = op(registers[first], ...)
        for each vector of pixels: output = the mean over the pixel's samples of what is kept
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from llvmlite import binding, ir

from evojax_art.interpreter.ffi import register
from evojax_art.interpreter.simd import Simd, Vector
from evojax_art.ops import (
    CONSTANT,
    INSTRUCTIONS,
    KEPT,
    Coordinates,
    Keep,
    Op,
    Quaternion,
    keep,
    num_kept,
    wrap_coordinates,
)
from evojax_art.tape import LEAVES, NUM_LEAVES, Tape, num_registers

LANES = 16  # a tile's points, and its pixels, come in multiples of this
_TARGET = "evojax_art_interpret"
_TASKS_PER_THREAD = 4  # so that no thread waits long for the slowest
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_POINTER = ir.PointerType()
_POINTERS = "opcode target first second constant length result x y z registers output".split()
_COUNTS = "first_formula last_formula capacity tile samples pixels pixel kind".split()


def interpret(tapes: Tape, at: Coordinates, kept: Keep, samples: int) -> Float[Array, "P N C"]:
    """Interprets a population on a CPU; arguments and result as for `interpreter.api.interpret`.

    Tiles and their pixels must be multiples of `LANES`.
    """
    num_tiles, tile = at.x.shape
    register(_TARGET, _run)
    shape = (tapes.opcode.shape[0], num_tiles * (tile // samples), num_kept(kept))
    call = jax.ffi.ffi_call(_TARGET, jax.ShapeDtypeStruct(shape, jnp.float32))
    return call(*tapes, *at, samples=np.int64(samples), kind=np.int64(KEPT.index(kept)))


def _run(operands: list[np.ndarray], results: list[np.ndarray], attributes: dict[str, Any]) -> None:
    """The target: splits the work and waits for it."""
    *tapes, x, y, z = operands
    (output,) = results
    opcode = tapes[0]
    num_formulas, capacity = opcode.shape
    num_tiles, tile = x.shape
    samples = attributes["samples"]
    pixels = tile // samples
    compiled = _compiled()
    file_size = num_registers(capacity) * 4 * tile

    def task(tile_index: int, first: int, last: int) -> None:
        arrays = (*tapes, x[tile_index], y[tile_index], z[tile_index], _scratch(file_size), output)
        compiled(
            *(array.ctypes.data for array in arrays),
            *(first, last, capacity, tile, samples, num_tiles * pixels, tile_index * pixels),
            attributes["kind"],
        )

    pool, num_threads = _pool()
    wanted = num_threads * _TASKS_PER_THREAD
    num_ranges = max(1, min(num_formulas, -(-wanted // num_tiles)))
    bounds = [num_formulas * index // num_ranges for index in range(num_ranges + 1)]
    tasks = [
        pool.submit(task, index, first, last)
        for index in range(num_tiles)
        for first, last in zip(bounds, bounds[1:], strict=False)
    ]
    for submitted in tasks:
        submitted.result()


@cache
def _pool() -> tuple[ThreadPoolExecutor, int]:
    affinity = getattr(os, "sched_getaffinity", None)
    num_threads = len(affinity(0)) if affinity else os.cpu_count() or 1
    return ThreadPoolExecutor(num_threads, thread_name_prefix="interpret"), num_threads


_local = threading.local()


def _scratch(size: int) -> np.ndarray:
    """A register file, kept by each thread."""
    held = getattr(_local, "registers", None)
    if held is None or held.size < size:
        held = _local.registers = np.empty(size + 16, np.float32)
    start = -(held.ctypes.data // 4) % 16  # vectors are aligned to 64 bytes
    return held[start:]


@cache
def _compiled() -> Callable[..., None]:
    """The interpreter as a function of `_POINTERS` and `_COUNTS`; ctypes frees the GIL for it."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=3,
    )
    module = binding.parse_assembly(_assembly(_width()))
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    passes = binding.create_pass_builder(target, options)
    passes.getModulePassManager().run(module, passes)
    engine = binding.create_mcjit_compiler(module, target)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(
        None, *[ctypes.c_void_p] * len(_POINTERS), *[ctypes.c_int64] * len(_COUNTS)
    )
    function = kind(engine.get_function_address("interpret"))
    function.engine = engine  # keeps the code alive  # pyright: ignore
    return function


def _width() -> int:
    """Lanes of the widest vectors that the CPU has."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4


def _assembly(width: int) -> str:
    """The interpreter in LLVM's language."""
    module = ir.Module("interpreter")
    module.triple = binding.get_default_triple()
    kinds = [_POINTER] * len(_POINTERS) + [_I64] * len(_COUNTS)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "interpret")
    arguments = dict(zip(_POINTERS + _COUNTS, function.args, strict=True))
    for name, argument in arguments.items():
        argument.name = name
        if name in _POINTERS:
            argument.add_attribute("noalias")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    _Writer(builder, arguments, width).write()
    return str(module)


class _Writer:
    """Writes the interpreter's code; `arguments` are those of the function, by name."""

    def __init__(self, builder: ir.IRBuilder, arguments: dict[str, Any], width: int):
        self._builder = builder
        self._arguments = arguments
        self._simd = Simd(builder, width)
        self._width = width

    def write(self) -> None:
        builder, arguments = self._builder, self._arguments
        self._leaves()
        with self._loop(arguments["first_formula"], arguments["last_formula"]) as formula:
            row = builder.mul(formula, arguments["capacity"])
            zero = _I64(0)
            with self._loop(zero, self._load_index("length", formula)) as step:
                self._instruction(builder.add(row, step))
            self._finish(formula)
        builder.ret_void()

    def _leaves(self) -> None:
        """Fills the registers of the leaves that the range's formulas read."""
        builder, arguments = self._builder, self._arguments
        read = builder.alloca(_I64)  # a bit for each register below 64
        builder.store(_I64(0), read)

        def mark(index: Any) -> None:
            is_leaf = builder.icmp_unsigned("<", index, _I64(NUM_LEAVES))
            bit = builder.select(is_leaf, builder.shl(_I64(1), index), _I64(0))
            builder.store(builder.or_(builder.load(read, typ=_I64), bit), read)

        with self._loop(arguments["first_formula"], arguments["last_formula"]) as formula:
            mark(self._load_index("result", formula))
            row = builder.mul(formula, arguments["capacity"])
            with self._loop(_I64(0), self._load_index("length", formula)) as step:
                place = builder.add(row, step)
                mark(self._load_index("first", place))
                mark(self._load_index("second", place))
        found = builder.load(read, typ=_I64)
        for register_index, op in enumerate(LEAVES):
            is_read = builder.and_(found, _I64(1 << register_index))
            with (
                builder.if_then(builder.icmp_unsigned("!=", is_read, _I64(0))),
                self._vectors("tile") as lane,
            ):
                here = Coordinates(*(self._load(arguments[axis], lane) for axis in "xyz"))
                value = op.fn(self._simd, here)
                self._store_register(_I64(register_index), lane, value)

    def _instruction(self, place: Any) -> None:
        """One instruction of a tape, as a switch over all of them."""
        builder = self._builder
        target, first, second = (
            self._load_index(name, place) for name in ("target", "first", "second")
        )
        opcode = self._load_index("opcode", place)
        done = builder.append_basic_block("done")
        chosen = builder.switch(opcode, done)
        for op in INSTRUCTIONS:
            block = builder.append_basic_block(f"op{op.opcode}")
            chosen.add_case(_I64(op.opcode), block)
            builder.position_at_end(block)
            constants = self._constants(place) if op.opcode == CONSTANT else None
            with self._vectors("tile") as lane:
                value = constants or self._value(op, first, second, lane)
                self._store_register(target, lane, value)
            builder.branch(done)
        builder.position_at_end(done)

    def _value(self, op: Op, first: Any, second: Any, lane: Any) -> Quaternion:
        registers = (first, second)[: max(1, op.arity)]
        operands: list[Any] = [self._load_register(index, lane) for index in registers]
        if op.reads_coordinates:
            operands = [wrap_coordinates(self._simd, operands[0])]
        return op.fn(self._simd, *operands)

    def _constants(self, place: Any) -> Quaternion:
        builder = self._builder
        components = []
        for component in range(4):
            index = builder.add(builder.mul(place, _I64(4)), _I64(component))
            scalar = builder.load(self._address(self._arguments["constant"], index), typ=_F32)
            undefined = ir.Constant(self._simd.float_type, ir.Undefined)
            single = builder.insert_element(undefined, scalar, _I32(0))
            lanes = ir.Constant(ir.VectorType(_I32, self._width), [0] * self._width)
            splat = builder.shuffle_vector(single, undefined, lanes)
            components.append(Vector(self._simd, splat))
        return Quaternion(*components)

    def _finish(self, formula: Any) -> None:
        """Writes what is kept of a formula's value."""
        builder, arguments = self._builder, self._arguments
        result = self._load_index("result", formula)
        done = builder.append_basic_block("finished")
        chosen = builder.switch(arguments["kind"], done)
        for index, kept in enumerate(KEPT):
            block = builder.append_basic_block(f"keep_{kept}")
            chosen.add_case(_I64(index), block)
            builder.position_at_end(block)
            row = builder.mul(formula, arguments["pixels"])
            start = builder.add(row, arguments["pixel"])
            per_tile = builder.udiv(arguments["tile"], arguments["samples"])
            with self._loop(_I64(0), per_tile, self._width) as pixel:
                means = self._mean(result, pixel, per_tile, kept)
                place = builder.mul(builder.add(start, pixel), _I64(len(means)))
                self._store_interleaved(place, means)
            builder.branch(done)
        builder.position_at_end(done)

    def _mean(self, result: Any, pixel: Any, per_tile: Any, kept: Keep) -> list[Vector]:
        """The kept components of a vector of pixels, averaged over their samples."""
        builder, simd = self._builder, self._simd
        samples = self._arguments["samples"]
        with builder.goto_entry_block():  # elsewhere they would pile up on the stack
            sums = [builder.alloca(simd.float_type) for _ in range(num_kept(kept))]
        for place in sums:
            builder.store(simd.lift(0.0).value, place)
        with self._loop(_I64(0), samples) as sample:
            lane = builder.add(builder.mul(sample, per_tile), pixel)
            for place, part in zip(
                sums, keep(simd, self._load_register(result, lane), kept), strict=True
            ):
                total = builder.fadd(builder.load(place, typ=simd.float_type), part.value)
                builder.store(total, place)
        count = builder.uitofp(samples, _F32)
        undefined = ir.Constant(simd.float_type, ir.Undefined)
        single = builder.insert_element(undefined, builder.fdiv(_F32(1), count), _I32(0))
        lanes = ir.Constant(ir.VectorType(_I32, self._width), [0] * self._width)
        share = Vector(simd, builder.shuffle_vector(single, undefined, lanes))
        return [Vector(simd, builder.load(place, typ=simd.float_type)) * share for place in sums]

    def _store_interleaved(self, place: Any, channels: list[Vector]) -> None:
        """Writes pixels with their channels side by side, from `place` in the output on."""
        builder, width = self._builder, self._width
        joined, count = channels[0].value, 1
        for channel in channels[1:]:
            # Two vectors must have one length to be joined.
            longer = self._shuffled(channel.value, channel.value, range(width), count * width)
            joined = self._shuffled(joined, longer, range((count + 1) * width))
            count += 1
        order = [channel * width + lane for lane in range(width) for channel in range(count)]
        interleaved = self._shuffled(joined, joined, order)
        address = self._address(self._arguments["output"], place)
        builder.store(interleaved, address, align=4)

    def _shuffled(self, a: Any, b: Any, order: Any, length: int | None = None) -> Any:
        chosen = list(order)
        chosen += [0] * ((length or len(chosen)) - len(chosen))
        mask = ir.Constant(ir.VectorType(_I32, len(chosen)), chosen)
        return self._builder.shuffle_vector(a, b, mask)

    def _load_register(self, index: Any, lane: Any) -> Quaternion:
        registers = self._arguments["registers"]
        places = self._register_places(index, lane)
        return Quaternion(*(self._load(registers, place) for place in places))

    def _store_register(self, index: Any, lane: Any, value: Quaternion) -> None:
        registers = self._arguments["registers"]
        for place, part in zip(self._register_places(index, lane), value, strict=True):
            self._builder.store(part.value, self._address(registers, place), align=4)

    def _register_places(self, index: Any, lane: Any) -> list[Any]:
        builder, tile = self._builder, self._arguments["tile"]
        start = builder.mul(builder.mul(index, _I64(4)), tile)
        rows = [builder.add(start, builder.mul(_I64(row), tile)) for row in range(4)]
        return [builder.add(row, lane) for row in rows]

    def _load(self, pointer: Any, place: Any) -> Vector:
        address = self._address(pointer, place)
        value = self._builder.load(address, align=4, typ=self._simd.float_type)
        return Vector(self._simd, value)

    def _load_index(self, name: str, place: Any) -> Any:
        """An int32 of a tape as an index."""
        builder = self._builder
        address = builder.gep(self._arguments[name], [place], source_etype=_I32)
        return builder.sext(builder.load(address, typ=_I32), _I64)

    def _address(self, pointer: Any, place: Any) -> Any:
        return self._builder.gep(pointer, [place], source_etype=_F32)

    def _vectors(self, count: str):
        """A loop over the vectors of a tile; gives the first point of each."""
        return self._loop(_I64(0), self._arguments[count], self._width)

    @contextmanager
    def _loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[Any]:
        builder = self._builder
        before = builder.block
        head, body, after = (builder.append_basic_block(part) for part in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(_I64)
        index.add_incoming(start, before)
        builder.cbranch(builder.icmp_signed("<", index, stop), body, after)
        builder.position_at_end(body)
        yield index
        index.add_incoming(builder.add(index, _I64(step)), builder.block)
        builder.branch(head)
        builder.position_at_end(after)
