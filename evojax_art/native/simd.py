"""An array namespace whose arrays are vectors of machine registers.

The functions of `ops` and `images` take their array namespace as an argument. Given this one, they
write LLVM instructions instead of computing: an operand is a `Vector` of a few float32 lanes, and
what a function returns is the code that computes it. So the native interpreter has the same op
table as all others.

`exp`, `log` and `sin` are polynomials, because LLVM has no vector form of them; each is within
about 2e-7 of the exact value, relative for `exp`, absolute for `sin` and (near 1) `log`. Powers and
logarithms to the base 2 are exact where the exponent is whole. None asks a library of the platform,
whose last bits would differ from machine to machine.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from evojax_art.native.sine import sine_of_large

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_ROUND32 = 1.5 * 2.0**23  # adding it leaves the nearest integer in the low bits of the sum,
_ROUND64 = 1.5 * 2.0**52  # and subtracting it again that integer as a float
_REDUCIBLE = 1e9  # the largest argument of sin whose quarter turns two doubles remove


class Vector:
    """Lanes of float32, or of booleans where a comparison made it; operators emit code."""

    dtype = np.dtype(np.float32)

    def __init__(self, simd: "Simd", value: Any):
        self.simd = simd
        self.value = value

    def _emit(self, name: str, other: Any, *, swap: bool = False) -> Any:
        if not isinstance(other, Vector | float | int):
            return NotImplemented  # it may know what to do with vectors
        left, right = self.value, self.simd.lift(other).value
        if swap:
            left, right = right, left
        return Vector(self.simd, getattr(self.simd.builder, name)(left, right))

    def _compare(self, sign: str, other: Any) -> "Vector":
        builder = self.simd.builder
        # Every comparison with NaN is false, but for "not equal".
        compare = builder.fcmp_unordered if sign == "!=" else builder.fcmp_ordered
        left, right = (self.simd.lift(t).value for t in (self, other))
        return Vector(self.simd, compare(sign, left, right))

    def __add__(self, other):
        return self._emit("fadd", other)

    def __radd__(self, other):
        return self._emit("fadd", other, swap=True)

    def __sub__(self, other):
        return self._emit("fsub", other)

    def __rsub__(self, other):
        return self._emit("fsub", other, swap=True)

    def __mul__(self, other):
        return self._emit("fmul", other)

    def __rmul__(self, other):
        return self._emit("fmul", other, swap=True)

    def __truediv__(self, other):
        return self._emit("fdiv", other)

    def __rtruediv__(self, other):
        return self._emit("fdiv", other, swap=True)

    def __neg__(self):
        return Vector(self.simd, self.simd.builder.fneg(self.value))

    def __lt__(self, other):
        return self._compare("<", other)

    def __le__(self, other):
        return self._compare("<=", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)

    def __eq__(self, other):
        return self._compare("==", other)

    def __ne__(self, other):
        return self._compare("!=", other)

    __hash__ = None  # type: ignore[assignment]

    def __rpow__(self, other):
        return self.simd.exp2(self * math.log2(other))

    def __and__(self, other):
        return self._emit("and_", other)

    def __or__(self, other):
        return self._emit("or_", other)

    def astype(self, dtype: Any) -> "Whole":
        """What is whole already, as int32: there is no other type."""
        del dtype
        return Whole(self.simd, self.simd.builder.fptosi(self.value, self.simd.int_type))


class Whole(Vector):
    """Lanes of int32; where they meet floats, and in quotients and powers, they become floats."""

    dtype = np.dtype(np.int32)

    def _emit(self, name: str, other: Any, *, swap: bool = False) -> Any:
        simd = self.simd
        if name == "fdiv" or not isinstance(other, Whole | int):
            return simd.lift(self)._emit(name, other, swap=swap)
        left = self.value
        right = simd.integers(other) if isinstance(other, int) else other.value
        if swap:
            left, right = right, left
        return Whole(simd, getattr(simd.builder, name.removeprefix("f"))(left, right))


class Simd:
    """The functions that `ops` asks of a namespace, as code.

    Args:
        builder: where the instructions go.
        width: lanes of a vector.
    """

    def __init__(self, builder: ir.IRBuilder, width: int):
        self.builder = builder
        self.width = width
        self.float_type = ir.VectorType(_F32, width)
        self.int_type = ir.VectorType(_I32, width)

    def spread(self, scalar: Any) -> Vector:
        """A float32 or int32 that is known only at run time, in every lane."""
        is_float = scalar.type == _F32
        undefined = ir.Constant(self.float_type if is_float else self.int_type, ir.Undefined)
        single = self.builder.insert_element(undefined, scalar, _I32(0))
        value = self.builder.shuffle_vector(single, undefined, self.integers(0))
        return (Vector if is_float else Whole)(self, value)

    def lift(self, value: "Vector | float") -> Vector:
        """A number as a vector of equal lanes; vectors as they are, of floats."""
        if isinstance(value, Whole):
            return Vector(self, self.builder.sitofp(value.value, self.float_type))
        return value if isinstance(value, Vector) else self._splat(float(value))

    def integers(self, value: int) -> ir.Constant:
        """The number in every lane."""
        return ir.Constant(self.int_type, [value] * self.width)

    def load_each(self, pointer: Any, places: Whole, kind: Any) -> Vector:
        """What stands at some places of an array of float32 or int32.

        Lane by lane: the gathers that CPUs have are no faster, and LLVM's change with its versions.
        """
        builder = self.builder
        is_float = kind == _F32
        value = ir.Constant(self.float_type if is_float else self.int_type, ir.Undefined)
        for lane in map(_I32, range(self.width)):
            place = builder.sext(builder.extract_element(places.value, lane), _I64)
            address = builder.gep(pointer, [place], source_etype=kind)
            value = builder.insert_element(value, builder.load(address, typ=kind), lane)
        return (Vector if is_float else Whole)(self, value)

    def to_neighbour(self, t: Vector) -> Vector:
        """From each lane of a pair to the other; see `images.spacing`."""
        order = ir.Constant(self.int_type, [lane ^ 1 for lane in range(self.width)])
        return Vector(self, self.builder.shuffle_vector(t.value, t.value, order)) - t

    def full_like(self, t: Vector, value: float) -> Vector:
        """The number in every lane."""
        return self._splat(value)

    def zeros_like(self, t: Vector) -> Vector:
        """0 in every lane."""
        return self._splat(0.0)

    def ones_like(self, t: Vector) -> Vector:
        """1 in every lane."""
        return self._splat(1.0)

    def where(self, condition: Vector, then: Vector, otherwise: Any) -> Vector:
        """Lane by lane, one or the other."""
        other = self.lift(otherwise).value
        return Vector(self, self.builder.select(condition.value, then.value, other))

    def floor(self, t: Vector) -> Vector:
        """Rounded down."""
        return self._intrinsic("llvm.floor", t)

    def sqrt(self, t: Vector) -> Vector:
        """The square root, correctly rounded."""
        return self._intrinsic("llvm.sqrt", t)

    def maximum(self, s: Vector, t: Any) -> Vector:
        """The larger; NaN if either is."""
        return self._intrinsic("llvm.maximum", s, self.lift(t))

    def minimum(self, s: Vector, t: Any) -> Vector:
        """The smaller; NaN if either is."""
        return self._intrinsic("llvm.minimum", s, self.lift(t))

    def clip(self, t: Vector, least: Any, most: Any) -> Vector:
        """Limited to a range; NaN stays."""
        return self.minimum(self.maximum(t, least), most)

    def exp(self, t: Vector) -> Vector:
        """For t in [-87, 88]; NaN stays NaN."""
        # e^t = 2^n e^r with |r| <= ln(2) / 2; ln(2) in two parts, the first exact times n.
        shifted = self._fma(t, self._splat(1 / math.log(2)), self._splat(_ROUND32))
        n = shifted - _ROUND32
        high = 355 / 512
        r = self._fma(n, self._splat(-high), t)
        r = self._fma(n, self._splat(high - math.log(2)), r)
        return self.where(t < math.inf, self._scaled_exp(r, shifted), t)  # NaN stays

    def exp2(self, t: Vector) -> Vector:
        """2^t, for t in [-126, 127]; NaN stays NaN."""
        shifted = t + _ROUND32
        r = (t - (shifted - _ROUND32)) * math.log(2)
        return self.where(t < math.inf, self._scaled_exp(r, shifted), t)

    def _scaled_exp(self, r: Vector, shifted: Vector) -> Vector:
        """2^n e^r, n in the low bits of `shifted`."""
        power = self._horner(r, [1 / math.factorial(k) for k in range(8)])
        exponent = self.builder.shl(self._bits(shifted), self.integers(23))
        return self._floats(self.builder.add(self._bits(power), exponent))

    def log(self, t: Vector) -> Vector:
        """For t that is not negative; denormals count as zero."""
        n, rest = self._logarithms(t)
        return self._log_of(t, self._fma(n, self._splat(math.log(2)), rest))

    def log2(self, t: Vector) -> Vector:
        """To the base 2, for t that is not negative; denormals count as zero."""
        n, rest = self._logarithms(t)
        return self._log_of(t, self._fma(rest, self._splat(1 / math.log(2)), n))

    def _logarithms(self, t: Vector) -> tuple[Vector, Vector]:
        """Of the two factors of t = 2^n m with m in [0.7, 1.4): n, and ln(m)."""
        # ln(m) = 2 artanh(s), s = (m - 1) / (m + 1).
        builder = self.builder
        offset = self.integers(int(np.float32(math.sqrt(0.5)).view(np.int32)))
        bits = builder.sub(self._bits(t), offset)
        n = Vector(self, builder.sitofp(builder.ashr(bits, self.integers(23)), self.float_type))
        fraction = builder.and_(bits, self.integers(0x007FFFFF))
        m = self._floats(builder.add(fraction, offset))
        s = (m - 1) / (m + 1)
        return n, self._horner(s * s, [2 / (2 * k + 1) for k in range(6)]) * s

    def _log_of(self, t: Vector, value: Vector) -> Vector:
        """The logarithm of t, which is `value` where that is a number."""
        value = self.where(t < 2.0**-126, self._splat(-math.inf), value)
        return self.where(t < math.inf, value, t)  # infinity and NaN stay

    def sin(self, t: Vector) -> Vector:
        """For any t, the same to the bit on every machine; infinities become NaN."""
        builder = self.builder
        doubles = ir.VectorType(_F64, self.width)

        def splat(value: float) -> ir.Constant:
            return ir.Constant(doubles, [value] * self.width)

        wide = builder.fpext(t.value, doubles)
        shifted = builder.fadd(builder.fmul(wide, splat(2 / math.pi)), splat(_ROUND64))
        turns = builder.fsub(shifted, splat(_ROUND64))
        high = math.pi / 2
        low = 6.123233995736766e-17  # pi / 2 beyond a double's precision
        rest = self.call("llvm.fma", doubles, turns, splat(-high), wide)
        rest = self.call("llvm.fma", doubles, turns, splat(-low), rest)
        r = Vector(self, builder.fptrunc(rest, self.float_type))
        quarter = builder.trunc(
            builder.bitcast(shifted, ir.VectorType(_I64, self.width)), self.int_type
        )
        square = r * r
        sine = self._horner(square, [(-1) ** k / math.factorial(2 * k + 1) for k in range(5)]) * r
        cosine = self._horner(square, [(-1) ** k / math.factorial(2 * k) for k in range(6)])
        odd = builder.trunc(quarter, ir.VectorType(ir.IntType(1), self.width))
        magnitude = self._bits(self.where(Vector(self, odd), cosine, sine))
        sign = builder.shl(builder.and_(quarter, self.integers(2)), self.integers(30))
        value = self._floats(builder.xor(magnitude, sign))
        magnitude = self._intrinsic("llvm.fabs", t)
        return self.where_due(
            magnitude > _REDUCIBLE,
            lambda pair: (self._each_lane(sine_of_large(builder.module), pair[1]), pair[1]),
            (value, t),
            masked=True,
        )[0]

    def where_due(
        self, due: Vector, fn: Callable[[Any], Any], value: Any, *, masked: bool = False
    ) -> Any:
        """`fn(value)`, skipped where no lane is due; see `ops`.

        With `masked`, lanes that are not due keep `value`.
        """
        builder = self.builder
        bits = ir.IntType(self.width)
        lanes = builder.bitcast(due.value, bits)
        before = builder.block
        with builder.if_then(builder.icmp_unsigned("!=", lanes, bits(0)), likely=False):
            changed = fn(value)
            if masked:
                changed = [self.where(due, c, v) for c, v in zip(changed, value, strict=True)]
            inside = builder.block
        merged = []
        for old, new in zip(value, changed, strict=True):
            phi = builder.phi(self.float_type)
            phi.add_incoming(old.value, before)
            phi.add_incoming(new.value, inside)
            merged.append(Vector(self, phi))
        return type(value)(*merged) if hasattr(value, "_fields") else tuple(merged)

    def total(self, t: Vector) -> Any:
        """The sum of all lanes, a scalar."""
        builder = self.builder
        lanes = [builder.extract_element(t.value, _I32(lane)) for lane in range(self.width)]
        while len(lanes) > 1:
            pairs = zip(lanes[::2], lanes[1::2], strict=True)
            lanes = [builder.fadd(left, right) for left, right in pairs]
        return lanes[0]

    def _splat(self, value: float) -> Vector:
        rounded = float(np.float32(value))  # LLVM refuses constants that are no float32
        return Vector(self, ir.Constant(self.float_type, [rounded] * self.width))

    def _bits(self, t: Vector) -> Any:
        return self.builder.bitcast(t.value, self.int_type)

    def _floats(self, bits: Any) -> Vector:
        return Vector(self, self.builder.bitcast(bits, self.float_type))

    def _fma(self, a: Vector, b: Vector, c: Vector) -> Vector:
        return self._intrinsic("llvm.fma", a, b, c)

    def _horner(self, t: Vector, coefficients: list[float]) -> Vector:
        value = self._splat(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            value = self._fma(value, t, self._splat(coefficient))
        return value

    def _intrinsic(self, name: str, *operands: Vector) -> Vector:
        return Vector(self, self.call(name, self.float_type, *(t.value for t in operands)))

    def call(self, name: str, kind: Any, *operands: Any) -> Any:
        """An intrinsic of LLVM's, whose operands and result are all of one kind, called."""
        element = getattr(kind, "element", kind)
        lanes = f"v{self.width}" if element is not kind else ""
        full = f"{name}.{lanes}{'f32' if element == _F32 else 'f64'}"
        module = self.builder.module
        if full not in module.globals:
            ir.Function(module, ir.FunctionType(kind, [kind] * len(operands)), full)
        return self.builder.call(module.globals[full], operands)

    def _each_lane(self, function: ir.Function, t: Vector) -> Vector:
        """A function of one float32, lane by lane."""
        builder = self.builder
        result = t.value
        for lane in range(self.width):
            index = ir.Constant(_I32, lane)
            value = builder.call(function, [builder.extract_element(t.value, index)])
            result = builder.insert_element(result, value, index)
        return Vector(self, result)
