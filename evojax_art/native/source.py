"""Functions in LLVM's language, and what those who write them share: loops, loads and stores."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from evojax_art.native.simd import Simd, Vector

_I64, _F32 = ir.IntType(64), ir.FloatType()
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
    """Writes a function's code; `arguments` are those of the function, by name."""

    def __init__(self, builder: ir.IRBuilder, arguments: dict[str, Any], width: int):
        self.builder = builder
        self.arguments = arguments
        self.simd = Simd(builder, width)
        self.width = width

    def load(self, pointer: Any, place: Any) -> Vector:
        """A vector of floats."""
        address = self.address(pointer, place)
        value = self.builder.load(address, align=4, typ=self.simd.float_type)
        return Vector(self.simd, value)

    def store(self, value: Any, pointer: Any, place: Any) -> None:
        """A float or a vector of them, written."""
        self.builder.store(value, self.address(pointer, place), align=4)

    def address(self, pointer: Any, place: Any) -> Any:
        """Of a float."""
        return self.builder.gep(pointer, [place], source_etype=_F32)

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
