"""The sine of large numbers, the same to the bit on every machine.

A float32 beyond 2**29 is m 2**e with whole m below 2**24 and e of 6 or more. In quarter turns that
is m 2**e 2/pi, of which whole multiples of 4 do not matter: the bits of 2**e 2/pi from the one that
stands for 2 downwards are enough, and 96 of them leave an error below 2**-60 quarter turns (Payne
and Hanek 1983). Sine and cosine of what is left are summed in float64, so that what is rounded to
float32 in the end is, but for a case in 10**5 or so, the float32 nearest to the exact sine.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_LEAST, _MOST = 6, 104  # of e: that of 2**29, and of the largest float32
_TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561  # times 2**256
_FUNCTION = "sine_of_large"


def sine_of_large(module: ir.Module) -> ir.Function:
    """A function of one float32 of magnitude 2**29 or more; NaN for infinities, 0 for smaller."""
    if _FUNCTION in module.globals:
        return module.globals[_FUNCTION]  # type: ignore[return-value]
    function = ir.Function(module, ir.FunctionType(_F32, [_F32]), _FUNCTION)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    t = function.args[0]
    bits = builder.bitcast(t, _I32)
    row = builder.sub(builder.and_(builder.lshr(bits, _I32(23)), _I32(255)), _I32(150 + _LEAST))
    is_large = builder.icmp_unsigned("<", row, _I32(_MOST - _LEAST + 1))
    fraction = builder.or_(builder.and_(bits, _I32(0x007FFFFF)), _I32(0x00800000))
    m = builder.zext(fraction, _I64)
    value = _sine(builder, *_quarter_turns(builder, m, builder.select(is_large, row, _I32(0))))
    value = builder.select(builder.icmp_signed("<", bits, _I32(0)), builder.fneg(value), value)
    builder.ret(builder.select(is_large, value, builder.fsub(t, t)))
    return function


def _quarter_turns(builder: ir.IRBuilder, m: Any, row: Any) -> tuple[Any, Any]:
    """Whole quarter turns modulo 4, int64, and the rest in radians, from -pi/4 to pi/4, float64."""
    shifts = [256 - (e + 94) for e in range(_LEAST, _MOST + 1)]
    windows = [(_TWO_OVER_PI >> shift) & (1 << 96) - 1 for shift in shifts]
    high = _table(builder, "high", [window >> 32 for window in windows], row)
    low = _table(builder, "low", [window & 0xFFFFFFFF for window in windows], row)
    product = builder.add(
        builder.mul(m, high), builder.lshr(builder.mul(m, low), _I64(32))
    )  # modulo 2**64; 2**62 is a quarter turn
    nearest = builder.lshr(builder.add(product, _I64(1 << 61)), _I64(62))
    rest = builder.sub(product, builder.shl(nearest, _I64(62)))
    return nearest, builder.fmul(builder.sitofp(rest, _F64), _F64(math.pi / 2 * 2.0**-62))


def _table(builder: ir.IRBuilder, name: str, values: list[int], row: Any) -> Any:
    kind = ir.ArrayType(_I64, len(values))
    table: Any = ir.GlobalVariable(builder.module, kind, f"{_FUNCTION}_{name}")
    table.initializer = ir.Constant(kind, np.array(values, np.uint64).astype(np.int64).tolist())
    table.global_constant, table.linkage = True, "internal"
    return builder.load(builder.gep(table, [_I32(0), row], source_etype=kind), typ=_I64)


def _sine(builder: ir.IRBuilder, quarters: Any, r: Any) -> Any:
    """The sine of so many quarter turns and r, float32."""
    square = builder.fmul(r, r)

    def series(first: int) -> Any:
        total = _F64(0.0)
        for power in range(first + 14, first - 1, -2):
            sign = (-1) ** ((power - first) // 2)
            term = _F64(sign / math.factorial(power))
            total = builder.fadd(builder.fmul(total, square), term)
        return total

    odd = builder.trunc(quarters, ir.IntType(1))
    value = builder.select(odd, series(0), builder.fmul(series(1), r))
    is_down = builder.icmp_unsigned("!=", builder.and_(quarters, _I64(2)), _I64(0))
    return builder.fptrunc(builder.select(is_down, builder.fneg(value), value), _F32)
