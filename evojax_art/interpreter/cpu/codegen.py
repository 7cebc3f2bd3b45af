"""The native interpreter's code, written in LLVM's language from the op table.

One function runs the tails of tapes, whose results become constants. The other, on each tile of a
range and for each formula of a range, with some lanes per vector, does

    for each leaf that a formula of the range reads:
        registers[leaf] = its value at the tile's coordinates
    for each formula of the range:
        for each instruction:
            switch (opcode): for each vector: registers[target] = op(registers[first], ...)
        for each vector of pixels: output = the mean over the pixel's samples of what is kept

Both take pointers, by name in `POINTERS`, to a tape's fields, the coordinates, the pictures' table
(see `pictures`), the output, and room for registers, each `[4, tile]`; and the int64s of `COUNTS`.
"""

from typing import Any

from llvmlite import ir

from evojax_art.interpreter.cpu.writer import TapeWriter
from evojax_art.interpreter.instruction import value_of
from evojax_art.language.ops import CONSTANT, INSTRUCTIONS, KEPT, Keep, keep, num_kept
from evojax_art.language.quaternions import Coordinates
from evojax_art.lowering.tape import LEAVES, NUM_LEAVES, Tape
from evojax_art.native.simd import Vector
from evojax_art.native.source import Source

FUNCTIONS = ("interpret", "fold")
POINTERS = (*Tape._fields, *Coordinates._fields, "images", "output", "registers")
_RANGES = ("first_tile", "last_tile", "first_formula", "last_formula")
COUNTS = (*_RANGES, "num_tiles", "capacity", "tile", "samples", "kind", "per_pixel")
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()


class _Interpreter(TapeWriter):
    """Writes the interpreter's code."""

    def interpret(self) -> None:
        """Each formula of the range on each tile of the range."""
        builder, arguments = self.builder, self.arguments
        read = self._leaves_read()
        with self.loop(arguments["first_tile"], arguments["last_tile"]) as tile:
            self._leaves(tile, read)
            with self.loop(arguments["first_formula"], arguments["last_formula"]) as formula:
                row = builder.mul(formula, arguments["capacity"])
                with self.loop(_I64(0), self.load_index("length", formula)) as step:
                    self._instruction(builder.add(row, step))
                self._finish(formula, tile)

    def fold(self) -> None:
        """The tails of the range's formulas, on one tile; results become constants."""
        builder, arguments = self.builder, self.arguments
        self._leaves(_I64(0), _I64(-1))
        with self.loop(arguments["first_formula"], arguments["last_formula"]) as formula:
            row = builder.mul(formula, arguments["capacity"])
            length = self.load_index("length", formula)
            end = builder.add(length, self.load_index("num_folded", formula))
            with self.loop(length, end) as step:
                self._instruction(builder.add(row, step))
            with self.loop(_I64(0), length) as step:
                place = builder.add(row, step)
                opcode, source = (self.load_index(name, place) for name in ("opcode", "first"))
                is_load = builder.icmp_unsigned("==", opcode, _I64(CONSTANT))
                is_folded = builder.icmp_unsigned(">=", source, _I64(NUM_LEAVES))
                with builder.if_then(builder.and_(is_load, is_folded)):
                    self._keep_constant(source, place)

    def _keep_constant(self, register_index: Any, place: Any) -> None:
        builder, constants = self.builder, self.arguments["constant"]
        for component, here in enumerate(self.register_places(register_index, _I64(0))):
            value = builder.load(self.address(self.arguments["registers"], here), typ=_F32)
            there = builder.add(builder.mul(place, _I64(4)), _I64(component))
            builder.store(value, self.address(constants, there))

    def _leaves_read(self) -> Any:
        """A bit for each leaf register, set where one of the range's formulas reads it."""
        builder, arguments = self.builder, self.arguments
        read = builder.alloca(_I64)
        builder.store(_I64(0), read)

        def mark(index: Any) -> None:
            is_leaf = builder.icmp_unsigned("<", index, _I64(NUM_LEAVES))
            bit = builder.select(is_leaf, builder.shl(_I64(1), index), _I64(0))
            builder.store(builder.or_(builder.load(read, typ=_I64), bit), read)

        with self.loop(arguments["first_formula"], arguments["last_formula"]) as formula:
            mark(self.load_index("result", formula))
            row = builder.mul(formula, arguments["capacity"])
            with self.loop(_I64(0), self.load_index("length", formula)) as step:
                place = builder.add(row, step)
                mark(self.load_index("first", place))
                mark(self.load_index("second", place))
        return builder.load(read, typ=_I64)

    def _leaves(self, tile: Any, read: Any) -> None:
        """Fills the leaf registers that are read with their values on a tile."""
        builder, arguments = self.builder, self.arguments
        start = builder.mul(tile, arguments["tile"])
        for register_index, op in enumerate(LEAVES):
            is_read = builder.and_(read, _I64(1 << register_index))
            with (
                builder.if_then(builder.icmp_unsigned("!=", is_read, _I64(0))),
                self.points() as lane,
            ):
                point = builder.add(start, lane)
                here = Coordinates(*(self.load(arguments[axis], point) for axis in "xyz"))
                value = self.leaf(op, here, here)
                self.store_register(_I64(register_index), lane, value)

    def _instruction(self, place: Any) -> None:
        """One instruction of a tape, as a switch over all of them."""
        builder = self.builder
        target, first, second = (
            self.load_index(name, place) for name in ("target", "first", "second")
        )
        opcode = self.load_index("opcode", place)
        done = builder.append_basic_block("done")
        chosen = builder.switch(opcode, done)
        for op in INSTRUCTIONS:
            block = builder.append_basic_block(f"op{op.opcode}")
            chosen.add_case(_I64(op.opcode), block)
            builder.position_at_end(block)
            constants = [self.constants(place)] if op.opcode == CONSTANT else []  # loaded once
            with self.points() as lane:
                operands = self.operands(first, second, lane, iter(constants).__next__)
                self.store_register(target, lane, value_of(self.simd, op, operands, self.leaf))
            builder.branch(done)
        builder.position_at_end(done)

    def _finish(self, formula: Any, tile: Any) -> None:
        """Writes what is kept of a formula's value on a tile."""
        builder, arguments = self.builder, self.arguments
        result = self.load_index("result", formula)
        done = builder.append_basic_block("finished")
        chosen = builder.switch(arguments["kind"], done)
        for index, kept in enumerate(KEPT):
            block = builder.append_basic_block(f"keep_{kept}")
            chosen.add_case(_I64(index), block)
            builder.position_at_end(block)
            per_tile = builder.udiv(arguments["tile"], arguments["samples"])
            row = builder.add(builder.mul(formula, arguments["num_tiles"]), tile)
            start = builder.mul(row, per_tile)
            with self.loop(_I64(0), per_tile, self.width) as pixel:
                means = self._mean(result, pixel, per_tile, kept)
                place = builder.mul(builder.add(start, pixel), _I64(len(means)))
                self._store_interleaved(place, means)
            builder.branch(done)
        builder.position_at_end(done)

    def _mean(self, result: Any, pixel: Any, per_tile: Any, kept: Keep) -> list[Vector]:
        """The kept components of a vector of pixels, averaged over their samples."""
        builder, simd = self.builder, self.simd
        samples = self.arguments["samples"]
        with builder.goto_entry_block():  # elsewhere they would pile up on the stack
            sums = [builder.alloca(simd.float_type) for _ in range(num_kept(kept))]
        for place in sums:
            builder.store(simd.lift(0.0).value, place)
        with self.loop(_I64(0), samples) as sample:
            lane = builder.add(builder.mul(sample, per_tile), pixel)
            for place, part in zip(
                sums, keep(simd, self.load_register(result, lane), kept), strict=True
            ):
                total = builder.fadd(builder.load(place, typ=simd.float_type), part.value)
                builder.store(total, place)
        count = builder.uitofp(samples, _F32)
        share = simd.spread(builder.fdiv(_F32(1), count))
        return [Vector(simd, builder.load(place, typ=simd.float_type)) * share for place in sums]

    def _store_interleaved(self, place: Any, channels: list[Vector]) -> None:
        """Writes pixels with their channels side by side, from `place` in the output on."""
        builder, width = self.builder, self.width
        joined, count = channels[0].value, 1
        for channel in channels[1:]:
            # Two vectors must have one length to be joined.
            longer = self._shuffled(channel.value, channel.value, range(width), count * width)
            joined = self._shuffled(joined, longer, range((count + 1) * width))
            count += 1
        order = [channel * width + lane for lane in range(width) for channel in range(count)]
        interleaved = self._shuffled(joined, joined, order)
        address = self.address(self.arguments["output"], place)
        builder.store(interleaved, address, align=4)

    def _shuffled(self, a: Any, b: Any, order: Any, length: int | None = None) -> Any:
        chosen = list(order)
        chosen += [0] * ((length or len(chosen)) - len(chosen))
        mask = ir.Constant(ir.VectorType(_I32, len(chosen)), chosen)
        return self.builder.shuffle_vector(a, b, mask)


SOURCE = Source(_Interpreter, FUNCTIONS, POINTERS, COUNTS)
