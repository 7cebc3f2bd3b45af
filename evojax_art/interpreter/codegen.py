"""The native interpreter's code, written in LLVM's language from the op table.

One function runs the tails of tapes, whose results become constants. The other, on each tile of a
range and for each formula of a range, with some lanes per vector, does

    for each leaf that a formula of the range reads:
        registers[leaf] = its value at the tile's coordinates
    for each formula of the range:
        for each instruction:
            switch (opcode): for each vector: registers[target] = op(registers[first], ...)
        for each vector of pixels: output = the mean over the pixel's samples of what is kept

Both take pointers, by name in `POINTERS`, to a tape's fields, the coordinates, the output, and room
for registers, each `[4, tile]`; and the int64s of `COUNTS`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

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
from evojax_art.tape import LEAVES, NUM_LEAVES, Tape

FUNCTIONS = ("interpret", "fold")
POINTERS = [*Tape._fields, *Coordinates._fields, "output", "registers"]
COUNTS = ["first_tile", "last_tile", "first_formula", "last_formula"]
COUNTS += ["num_tiles", "capacity", "tile", "samples", "kind"]
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_POINTER = ir.PointerType()


def assembly(width: int, triple: str) -> str:
    """The functions in LLVM's language, for vectors of `width` lanes."""
    module = ir.Module("interpreter")
    module.triple = triple
    kinds = [_POINTER] * len(POINTERS) + [_I64] * len(COUNTS)
    for name in FUNCTIONS:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        arguments = dict(zip(POINTERS + COUNTS, function.args, strict=True))
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        # A thread inherits its creator's treatment of denormals, and XLA's threads flush them:
        # which thread does a piece of work must not decide its last bits.
        builder.call(_declared(module, "llvm.reset.fpenv"), [])
        getattr(_Writer(builder, arguments, width), name)()
        builder.ret_void()
    return str(module)


def _declared(module: ir.Module, name: str) -> ir.Function:
    """A function without arguments or result."""
    if name not in module.globals:
        ir.Function(module, ir.FunctionType(ir.VoidType(), []), name)
    return module.globals[name]  # type: ignore[return-value]


class _Writer:
    """Writes the interpreter's code; `arguments` are those of the function, by name."""

    def __init__(self, builder: ir.IRBuilder, arguments: dict[str, Any], width: int):
        self._builder = builder
        self._arguments = arguments
        self._simd = Simd(builder, width)
        self._width = width

    def interpret(self) -> None:
        """Each formula of the range on each tile of the range."""
        builder, arguments = self._builder, self._arguments
        read = self._leaves_read()
        with self._loop(arguments["first_tile"], arguments["last_tile"]) as tile:
            self._leaves(tile, read)
            with self._loop(arguments["first_formula"], arguments["last_formula"]) as formula:
                row = builder.mul(formula, arguments["capacity"])
                with self._loop(_I64(0), self._load_index("length", formula)) as step:
                    self._instruction(builder.add(row, step))
                self._finish(formula, tile)

    def fold(self) -> None:
        """The tails of the range's formulas, on one tile; results become constants."""
        builder, arguments = self._builder, self._arguments
        self._leaves(_I64(0), _I64(-1))
        with self._loop(arguments["first_formula"], arguments["last_formula"]) as formula:
            row = builder.mul(formula, arguments["capacity"])
            length = self._load_index("length", formula)
            end = builder.add(length, self._load_index("num_folded", formula))
            with self._loop(length, end) as step:
                self._instruction(builder.add(row, step))
            with self._loop(_I64(0), length) as step:
                place = builder.add(row, step)
                opcode, source = (self._load_index(name, place) for name in ("opcode", "first"))
                is_load = builder.icmp_unsigned("==", opcode, _I64(CONSTANT))
                is_folded = builder.icmp_unsigned(">=", source, _I64(NUM_LEAVES))
                with builder.if_then(builder.and_(is_load, is_folded)):
                    self._keep_constant(source, place)

    def _keep_constant(self, register_index: Any, place: Any) -> None:
        builder, constants = self._builder, self._arguments["constant"]
        for component, here in enumerate(self._register_places(register_index, _I64(0))):
            value = builder.load(self._address(self._arguments["registers"], here), typ=_F32)
            there = builder.add(builder.mul(place, _I64(4)), _I64(component))
            builder.store(value, self._address(constants, there))

    def _leaves_read(self) -> Any:
        """A bit for each leaf register, set where one of the range's formulas reads it."""
        builder, arguments = self._builder, self._arguments
        read = builder.alloca(_I64)
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
        return builder.load(read, typ=_I64)

    def _leaves(self, tile: Any, read: Any) -> None:
        """Fills the leaf registers that are read with their values on a tile."""
        builder, arguments = self._builder, self._arguments
        start = builder.mul(tile, arguments["tile"])
        for register_index, op in enumerate(LEAVES):
            is_read = builder.and_(read, _I64(1 << register_index))
            with (
                builder.if_then(builder.icmp_unsigned("!=", is_read, _I64(0))),
                self._points() as lane,
            ):
                point = builder.add(start, lane)
                here = Coordinates(*(self._load(arguments[axis], point) for axis in "xyz"))
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
            with self._points() as lane:
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
            components.append(self._simd.spread(scalar))
        return Quaternion(*components)

    def _finish(self, formula: Any, tile: Any) -> None:
        """Writes what is kept of a formula's value on a tile."""
        builder, arguments = self._builder, self._arguments
        result = self._load_index("result", formula)
        done = builder.append_basic_block("finished")
        chosen = builder.switch(arguments["kind"], done)
        for index, kept in enumerate(KEPT):
            block = builder.append_basic_block(f"keep_{kept}")
            chosen.add_case(_I64(index), block)
            builder.position_at_end(block)
            per_tile = builder.udiv(arguments["tile"], arguments["samples"])
            row = builder.add(builder.mul(formula, arguments["num_tiles"]), tile)
            start = builder.mul(row, per_tile)
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
        share = simd.spread(builder.fdiv(_F32(1), count))
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

    def _points(self):
        """A loop over a tile's points, a vector at a time; gives the first point of each."""
        return self._loop(_I64(0), self._arguments["tile"], self._width)

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
