"""What the native code's writers share: functions, loops, and registers of a tile's points."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from evojax_art.interpreter.cpu import photographs
from evojax_art.interpreter.cpu.simd import Simd, Vector
from evojax_art.interpreter.instruction import Operands
from evojax_art.language.ops import Op
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.lowering.values import UNWRAPPED

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_POINTER = ir.PointerType()


@dataclass(frozen=True)
class Source:
    """Functions that take pointers and int64s.

    Attributes:
        writer: its method of a function's name writes that function.
        functions: their names.
        pointers: names of the arguments that come first, the same for all.
        counts: of those behind.
        unrolled: whether LLVM may unroll loops. Where a loop has many pointers it then runs out of
            registers.
    """

    writer: type["Writer"]
    functions: tuple[str, ...]
    pointers: tuple[str, ...]
    counts: tuple[str, ...]
    unrolled: bool = True

    def assembly(self, width: int, triple: str) -> str:
        """The functions in LLVM's language, for vectors of `width` lanes."""
        module = ir.Module("native")
        module.triple = triple
        kinds = [_POINTER] * len(self.pointers) + [_I64] * len(self.counts)
        for name in self.functions:
            function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
            arguments = dict(zip([*self.pointers, *self.counts], function.args, strict=True))
            builder = ir.IRBuilder(function.append_basic_block("entry"))
            # A thread inherits its creator's treatment of denormals, and XLA's threads flush them:
            # which thread does a piece of work must not decide its last bits.
            builder.call(_declared(module, "llvm.reset.fpenv"), [])
            getattr(self.writer(builder, arguments, width), name)()
            builder.ret_void()
        return str(module)


def _declared(module: ir.Module, name: str) -> ir.Function:
    """A function without arguments or result."""
    if name not in module.globals:
        ir.Function(module, ir.FunctionType(ir.VoidType(), []), name)
    return module.globals[name]  # type: ignore[return-value]


class Writer:
    """Writes code over registers `[4, tile]`; `arguments` are those of the function, by name."""

    def __init__(self, builder: ir.IRBuilder, arguments: dict[str, Any], width: int):
        self.builder = builder
        self.arguments = arguments
        self.simd = Simd(builder, width)
        self.width = width

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
            self.builder.store(part.value, self.address(registers, place), align=4)

    def register_places(self, index: Any, lane: Any) -> list[Any]:
        """Where its four components are."""
        builder, tile = self.builder, self.arguments["tile"]
        start = builder.mul(builder.mul(index, _I64(4)), tile)
        rows = [builder.add(start, builder.mul(_I64(row), tile)) for row in range(4)]
        return [builder.add(row, lane) for row in rows]

    def load(self, pointer: Any, place: Any) -> Vector:
        """A vector of floats."""
        address = self.address(pointer, place)
        value = self.builder.load(address, align=4, typ=self.simd.float_type)
        return Vector(self.simd, value)

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

    def address(self, pointer: Any, place: Any) -> Any:
        """Of a float."""
        return self.builder.gep(pointer, [place], source_etype=_F32)

    def points(self):
        """A loop over a tile's points, a vector at a time; gives the first point of each."""
        return self.loop(_I64(0), self.arguments["tile"], self.width)

    @contextmanager
    def loop(self, start: Any, stop: Any, step: Any = 1) -> Iterator[Any]:
        """The body of a loop; gives its index."""
        builder = self.builder
        before = builder.block
        head, body, after = (builder.append_basic_block(part) for part in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(_I64)
        index.add_incoming(start, before)
        builder.cbranch(builder.icmp_signed("<", index, stop), body, after)
        builder.position_at_end(body)
        yield index
        step = _I64(step) if isinstance(step, int) else step
        index.add_incoming(builder.add(index, step), builder.block)
        builder.branch(head)
        builder.position_at_end(after)
