"""Native code that evaluates programs with write-once values, and their pullbacks.

Both functions take some formulas on some tiles and go, node by node, over a program as it is:

    value       registers[node] = op(registers[first], registers[second]); output = the last
    pullback    the same, then from the last node to the first
                cotangents[first], cotangents[second] += pullback(op)(cotangents[node])
                output[node] = the sum over the tile's points, where the node is a constant

An operand is a node; the first of a coordinate leaf is its frame, the second `UNWRAPPED` where that
is read as it is, and behind all nodes stands the picture's own frame. Registers hold the values,
`capacity + 1` of them, and behind those as many cotangents. An op's pullback is derived from its
row of the op table (`pullback`), a picture's from its definition (`pictures`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from evojax_art.interpreter.cpu.writer import TapeWriter
from evojax_art.interpreter.instruction import EXECUTED, Operands, value_of
from evojax_art.interpreter.reverse.pullback import LARGEST_COTANGENT, pullback
from evojax_art.language.ops import CONSTANT, FRAMING, Op
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.native.simd import Vector
from evojax_art.native.source import Source

FUNCTIONS = ("value", "pullback")
NODES = ("opcode", "first", "second", "constant", "length")
POINTERS = (*NODES, *Coordinates._fields, "cotangent", "images", "output", "registers")
_RANGES = ("first_tile", "last_tile", "first_formula", "last_formula")
COUNTS = (*_RANGES, "num_tiles", "capacity", "tile", "per_pixel")
_I64 = ir.IntType(64)


class _Reverse(TapeWriter):
    """Writes the functions."""

    def value(self) -> None:
        """Every formula's value, `[formulas, 4, tiles, tile]`."""
        with self._pieces() as (formula, tile):
            length = self._forward(formula, tile)
            with self.points() as lane:
                value = self.load_register(self.builder.sub(length, _I64(1)), lane)
                for part, place in zip(value, self._places(formula, tile, lane), strict=True):
                    address = self.address(self.arguments["output"], place)
                    self.builder.store(part.value, address, align=4)

    def pullback(self) -> None:
        """Every formula's cotangents of its constants, `[formulas, tiles, capacity, 4]`."""
        builder, capacity = self.builder, self.arguments["capacity"]
        with self._pieces() as (formula, tile):
            length = self._forward(formula, tile)
            nothing = Quaternion(*[self.simd.lift(0.0)] * 4)
            last = builder.sub(length, _I64(1))
            with self.points() as lane:
                with self.loop(_I64(0), last) as node:
                    self.store_register(self._cotangent_of(node), lane, nothing)
                self.store_register(self._cotangent_of(capacity), lane, nothing)
                due = (
                    self.load(self.arguments["cotangent"], place)
                    for place in self._places(formula, tile, lane)
                )
                self.store_register(self._cotangent_of(last), lane, Quaternion(*due))
            with self.loop(_I64(0), length) as step:
                self._backward(formula, tile, builder.sub(last, step))

    @contextmanager
    def _pieces(self) -> Iterator[tuple[Any, Any]]:
        """A loop over the formulas of the range on the tiles of the range."""
        arguments = self.arguments
        with (
            self.loop(arguments["first_tile"], arguments["last_tile"]) as tile,
            self.loop(arguments["first_formula"], arguments["last_formula"]) as formula,
        ):
            yield formula, tile

    def _places(self, formula: Any, tile: Any, lane: Any) -> list[Any]:
        """Where the components of a formula's value on some points are."""
        builder = self.builder
        rows = [builder.add(builder.mul(formula, _I64(4)), _I64(part)) for part in range(4)]
        return [self._point(row, tile, lane) for row in rows]

    def _point(self, row: Any, tile: Any, lane: Any) -> Any:
        builder, arguments = self.builder, self.arguments
        piece = builder.add(builder.mul(row, arguments["num_tiles"]), tile)
        return builder.add(builder.mul(piece, arguments["tile"]), lane)

    def _cotangent_of(self, node: Any) -> Any:
        """The register of a node's cotangent."""
        values = self.builder.add(self.arguments["capacity"], _I64(1))
        return self.builder.add(values, node)

    def _forward(self, formula: Any, tile: Any) -> Any:
        """Fills the registers of all nodes' values; returns how many there are."""
        arguments = self.arguments
        with self.points() as lane:
            point = self._point(formula, tile, lane)
            x, y, z = (self.load(arguments[axis], point) for axis in "xyz")
            frame = Quaternion(x, y, z, self.simd.lift(0.0))
            self.store_register(arguments["capacity"], lane, frame)
        length = self.load_index("length", formula)
        with self.loop(_I64(0), length) as node:

            def write(op: Op, place: Any, node: Any = node) -> None:
                with self.points() as lane:
                    operands = self._operands(place, lane)
                    self.store_register(node, lane, value_of(self.simd, op, operands, self.leaf))

            self._switch(formula, node, write)
        return length

    def _backward(self, formula: Any, tile: Any, node: Any) -> None:
        """Hands a node's cotangent on to its operands, or to the output."""

        def write(op: Op, place: Any) -> None:
            if op.opcode == CONSTANT:
                self._sum_up(formula, tile, node)
                return
            with self.points() as lane:
                parts = self.load_register(self._cotangent_of(node), lane)
                due = Quaternion(*map(self._without_wild, parts))
                if op.opcode in FRAMING:
                    self._hand_on(self.load_index("second", place), lane, due)
                    return
                arguments = self._operands(place, lane).arguments(self.simd, op)
                if op.arity:
                    cotangents = pullback(self.simd, op.fn, arguments, due)
                else:
                    cotangents = [self.leaf(op, *arguments, due)]
                for name, cotangent in zip(("first", "second"), cotangents, strict=False):
                    self._hand_on(self.load_index(name, place), lane, cotangent)

        self._switch(formula, node, write)

    def _switch(self, formula: Any, node: Any, write_fn: Callable[[Op, Any], None]) -> None:
        """Code for each op, of which a node's is executed."""
        builder = self.builder
        place = builder.add(builder.mul(formula, self.arguments["capacity"]), node)
        done = builder.append_basic_block("done")
        chosen = builder.switch(self.load_index("opcode", place), done)
        for op in EXECUTED:
            block = builder.append_basic_block(f"op{op.opcode}")
            chosen.add_case(_I64(op.opcode), block)
            builder.position_at_end(block)
            write_fn(op, place)
            builder.branch(done)
        builder.position_at_end(done)

    def _operands(self, place: Any, lane: Any) -> Operands:
        """What a node reads: other nodes, or its constant."""
        first, second = (self.load_index(name, place) for name in ("first", "second"))
        return self.operands(first, second, lane, lambda: self.constants(place))

    def _hand_on(self, node: Any, lane: Any, cotangent: Any) -> None:
        """Adds to a node's cotangent, what is not wild; None adds nothing."""
        places = self.register_places(self._cotangent_of(node), lane)
        for part, place in zip(cotangent, places, strict=False):
            if part is not None:
                total = self.load(self.arguments["registers"], place) + self._without_wild(part)
                address = self.address(self.arguments["registers"], place)
                self.builder.store(total.value, address, align=4)

    def _without_wild(self, t: Vector) -> Vector:
        """A cotangent by the rule of `reverse.api`."""
        kept = (t <= LARGEST_COTANGENT) & (t >= -LARGEST_COTANGENT)
        return self.simd.where(kept, t, self.simd.lift(0.0))

    def _sum_up(self, formula: Any, tile: Any, node: Any) -> None:
        """Writes a constant's cotangent, summed over the points of the tile."""
        builder, simd, arguments = self.builder, self.simd, self.arguments
        with builder.goto_entry_block():  # elsewhere they would pile up on the stack
            sums = [builder.alloca(simd.float_type) for _ in range(4)]
        for total in sums:
            builder.store(simd.lift(0.0).value, total)
        with self.points() as lane:
            parts = self.load_register(self._cotangent_of(node), lane)
            for total, part in zip(sums, parts, strict=True):
                so_far = Vector(simd, builder.load(total, typ=simd.float_type))
                builder.store((so_far + self._without_wild(part)).value, total)
        piece = builder.add(builder.mul(formula, arguments["num_tiles"]), tile)
        place = builder.add(builder.mul(piece, arguments["capacity"]), node)
        for component, total in enumerate(sums):
            there = builder.add(builder.mul(place, _I64(4)), _I64(component))
            scalar = simd.total(Vector(simd, builder.load(total, typ=simd.float_type)))
            builder.store(scalar, self.address(arguments["output"], there))


SOURCE = Source(_Reverse, FUNCTIONS, POINTERS, COUNTS)
