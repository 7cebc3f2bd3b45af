"""What is written for tapes: the registers of a tile's points, leaves and constants."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from evojax_art.interpreter.cpu import photographs
from evojax_art.interpreter.instruction import Operands
from evojax_art.language.ops import Op
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.lowering.values import UNWRAPPED
from evojax_art.native.simd import Vector
from evojax_art.native.source import Writer

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()


class TapeWriter(Writer):
    """Writes code over registers `[4, tile]` of a tile's points."""

    def operands(
        self, first: Any, second: Any, lane: Any, constant_fn: Callable[[], Quaternion]
    ) -> Operands:
        """What an instruction reads: two registers, from `lane` on, or a constant."""
        return Operands(
            first_fn=lambda: self.load_register(first, lane),
            second_fn=lambda: self.load_register(second, lane),
            constant_fn=constant_fn,
            unwrapped_fn=lambda: Vector(
                self.simd, self.builder.icmp_signed("==", second, _I64(UNWRAPPED))
            ),
        )

    def leaf(self, op: Op, at: Coordinates, frame: Coordinates, *cotangent: Quaternion) -> Any:
        """A coordinate leaf's value, or with its cotangent the pullback of that."""
        leaf_fn = photographs.leaf_pullback if cotangent else photographs.leaf_value
        images, samples = (self.arguments[name] for name in ("images", "per_pixel"))
        return leaf_fn(self.simd, op, images, at, frame, samples, *cotangent)

    def load_register(self, index: Any, lane: Any) -> Quaternion:
        """A value, a vector of its points from `lane` on."""
        registers = self.arguments["registers"]
        places = self.register_places(index, lane)
        return Quaternion(*(self.load(registers, place) for place in places))

    def store_register(self, index: Any, lane: Any, value: Quaternion) -> None:
        """The same, written."""
        registers = self.arguments["registers"]
        for place, part in zip(self.register_places(index, lane), value, strict=True):
            self.store(part.value, registers, place)

    def register_places(self, index: Any, lane: Any) -> list[Any]:
        """Where its four components are."""
        builder, tile = self.builder, self.arguments["tile"]
        start = builder.mul(builder.mul(index, _I64(4)), tile)
        rows = [builder.add(start, builder.mul(_I64(row), tile)) for row in range(4)]
        return [builder.add(row, lane) for row in rows]

    def constants(self, place: Any) -> Quaternion:
        """The constant at a place of `constant`, in every lane."""
        builder = self.builder
        components = []
        for component in range(4):
            index = builder.add(builder.mul(place, _I64(4)), _I64(component))
            scalar = builder.load(self.address(self.arguments["constant"], index), typ=_F32)
            components.append(self.simd.spread(scalar))
        return Quaternion(*components)

    def load_index(self, name: str, place: Any) -> Any:
        """An int32 of a tape as an index."""
        builder = self.builder
        address = builder.gep(self.arguments[name], [place], source_etype=_I32)
        return builder.sext(builder.load(address, typ=_I32), _I64)

    def points(self):
        """A loop over a tile's points, a vector at a time; gives the first point of each."""
        return self.loop(_I64(0), self.arguments["tile"], self.width)
