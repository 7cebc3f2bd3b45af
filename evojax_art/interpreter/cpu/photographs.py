"""What native code reads of pictures: a table of where they are, and the leaves' functions.

A row of the table is a slot's: the addresses of the arrays of its `Pyramid`, and the number of its
last level; all 0 where no picture is bound. So the code is the same whichever pictures there are,
and no texel is copied.

The code of a picture's value is a third as long as that of all ops together. It is therefore
written once, as a function of its own, which the leaves of all slots call: inlined it would take
LLVM five times as long, all together.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from llvmlite import ir

from evojax_art.interpreter.reverse.pullback import pullback
from evojax_art.language.ops import NUM_IMAGES, Op
from evojax_art.language.photographs import Pyramid, sample, spacing
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.native.simd import Simd, Vector, Whole

_FIELDS = (*Pyramid._fields, "last")  # of the table, 8 bytes each
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_POINTER = ir.PointerType()


def table(arrays: Sequence[np.ndarray]) -> Int[np.ndarray, "slots fields"]:
    """Where pictures are.

    Args:
        arrays: the fields of a `Pyramid`, those of the next, and so on; contiguous, and to live as
            long as code reads them.
    """
    rows = np.zeros((NUM_IMAGES, len(_FIELDS)), np.int64)
    size = len(Pyramid._fields)
    for row, first in zip(rows, range(0, len(arrays), size), strict=False):
        fields: Any = arrays[first : first + size]
        row[:] = *(field.ctypes.data for field in fields), Pyramid(*fields).last
    return rows


def leaf_value(
    simd: Simd, op: Op, images: Any, at: Coordinates, unwrapped: Coordinates, samples: Any
) -> Quaternion:
    """The value of any coordinate leaf, in code; see `images.leaf_value`.

    Args:
        simd: array namespace.
        op: the leaf.
        images: address of the pictures' table.
        at: where it is read.
        unwrapped: the same before `subst` wraps it.
        samples: points of a pixel, an int64.
    """
    if op.image is None:
        return op.fn(simd, at)
    given = (*at[:2], *unwrapped[:2])
    return Quaternion(*_of_slot(simd, "value", 4, op.image, images, samples, given))


def leaf_pullback(
    simd: Simd,
    op: Op,
    images: Any,
    at: Coordinates,
    unwrapped: Coordinates,
    samples: Any,
    cotangent: Quaternion,
) -> Coordinates:
    """The cotangents of `at`, from that of the value; None in place of what has none."""
    if op.image is None:
        return pullback(simd, op.fn, (at,), cotangent)[0]
    given = (*at[:2], *unwrapped[:2], *cotangent[1:])
    return Coordinates(*_of_slot(simd, "pullback", 2, op.image, images, samples, given), z=None)


def _value(simd: Simd, image: Any, samples: Any, *given: Vector) -> Sequence[Vector]:
    at, distance = _places(simd, samples, *given)
    return sample(simd, image, at, distance)


def _pullback(simd: Simd, image: Any, samples: Any, *given: Vector) -> Sequence[Vector]:
    at, distance = _places(simd, samples, *given[:4])
    cotangent = Quaternion(simd.lift(0.0), *given[4:])

    def value(xp, at: Coordinates) -> Quaternion:
        return sample(xp, image, at, distance)

    return pullback(simd, value, (at,), cotangent)[0][:2]


def _places(simd: Simd, samples: Any, *given: Vector) -> tuple[Coordinates, Any]:
    """Where a leaf is read, and how far apart."""
    x, y, frame_x, frame_y = given
    nothing = simd.lift(0.0)
    count: Any = simd.spread(simd.builder.sitofp(samples, _F32))
    return Coordinates(x, y, nothing), spacing(simd, Coordinates(frame_x, frame_y, nothing), count)


_WRITERS: dict[str, Callable[..., Sequence[Vector]]] = {"value": _value, "pullback": _pullback}


def _of_slot(
    simd: Simd,
    name: str,
    num_results: int,
    slot: int,
    images: Any,
    samples: Any,
    given: Sequence[Vector],
) -> list[Vector]:
    """A call of a function of `_WRITERS`; 0 where no picture is bound."""

    def write(simd: Simd, row: Any, samples: Any, *given: Any) -> Sequence[Vector]:
        builder = simd.builder
        texels = builder.load(row, typ=_I64)
        with builder.if_then(builder.icmp_unsigned("==", texels, _I64(0)), likely=False):
            builder.ret(ir.Constant(_results(simd, num_results), None))
        return _WRITERS[name](simd, _Loaded(simd, row), samples, *(Vector(simd, t) for t in given))

    row = simd.builder.gep(images, [_I64(slot * len(_FIELDS))], source_etype=_I64)
    operands = [row, samples, *(t.value for t in given)]
    return _call(simd, f"picture_{name}", num_results, write, operands)


def _call(
    simd: Simd,
    name: str,
    num_results: int,
    write_fn: Callable[..., Sequence[Vector]],
    operands: Sequence[Any],
) -> list[Vector]:
    """A call of a function of the module, which `write_fn` writes with the first."""
    module = simd.builder.module
    if name not in module.globals:
        results = _results(simd, num_results)
        kind = ir.FunctionType(results, [operand.type for operand in operands])
        function = ir.Function(module, kind, name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        inner = Simd(ir.IRBuilder(function.append_basic_block("entry")), simd.width)
        total = ir.Constant(results, ir.Undefined)
        for index, value in enumerate(write_fn(inner, *function.args)):
            total = inner.builder.insert_value(total, value.value, index)
        inner.builder.ret(total)
    made = simd.builder.call(module.globals[name], operands)
    return [Vector(simd, simd.builder.extract_value(made, n)) for n in range(num_results)]


def _results(simd: Simd, count: int) -> ir.LiteralStructType:
    return ir.LiteralStructType([simd.float_type] * count)


class _Loaded:
    """What `images.sample` reads of a `Pyramid`, from the table's row of it."""

    def __init__(self, simd: Simd, row: Any):
        self._simd = simd
        builder = simd.builder
        addresses = [builder.gep(row, [_I64(n)], source_etype=_I64) for n in range(len(_FIELDS))]
        pointers = (builder.load(address, typ=_POINTER) for address in addresses[:-1])
        self._texels, self._sizes, self._offsets, scale = pointers
        self.scale = simd.spread(builder.load(scale, typ=_F32))
        self.last = simd.spread(builder.trunc(builder.load(addresses[-1], typ=_I64), _I32))

    def shape(self, level: Any) -> tuple[Any, Any]:
        """Height and width of levels."""
        return self._load(self._sizes, 2 * level), self._load(self._sizes, 2 * level + 1)

    def start(self, level: Any) -> Any:
        """The first texel of levels."""
        return self._load(self._offsets, level)

    def texel(self, place: Whole) -> list[Vector]:
        """RGB at places of `texels`."""

        def write(simd: Simd, texels: Any, place: Any) -> list[Vector]:
            first = 3 * Whole(simd, place)
            return [simd.load_each(texels, first + channel, _F32) for channel in range(3)]

        return _call(self._simd, "picture_texel", 3, write, [self._texels, place.value])

    def _load(self, pointer: Any, places: Whole | int) -> Whole | Vector:
        simd = self._simd
        if isinstance(places, Whole):
            return simd.load_each(pointer, places, _I32)
        address = simd.builder.gep(pointer, [_I64(places)], source_etype=_I32)
        return simd.spread(simd.builder.load(address, typ=_I32))
