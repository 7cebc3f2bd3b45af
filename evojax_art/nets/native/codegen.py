"""The native code of a network's steps, written in LLVM's language.

One function takes a few pictures at a time through all steps of a table (see `fields`), so that
what a layer makes is still in cache when the next one reads it. A convolution is a sum of outer
products: of six pixels, each times two vectors of channels, in registers. The kernel of these
channels lies packed before it, and a row of a window is one run of memory, for pixels lie side by
side with their channels. So there is one code for kernels, strides and channels of all sizes.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from llvmlite import ir

from evojax_art.native.simd import Vector
from evojax_art.native.source import Source, Writer
from evojax_art.nets.native.fields import ACTIVATIONS, FIELDS, KINDS, MARGINS, VIEW, VIEWS

POINTERS = ("steps", "bases", "offsets", "panel")
COUNTS = ("num_steps", "first", "last", "group")
_BAND = 2048  # pixels whose places are looked up at a time
OFFSETS = 2 * len(VIEWS) * _BAND  # floats' room for that
_PIXELS, _VECTORS = 6, 2  # of a tile: with two vectors of weights, registers that every CPU has
_I64, _F32 = ir.IntType(64), ir.FloatType()
_POINTER = ir.PointerType()


def panel_lanes(width: int) -> int:
    """Floats of a packed kernel's row, for vectors of `width` lanes."""
    return _VECTORS * width


class _View(NamedTuple):
    """A tensor of this group: its address, and what is between pictures, rows and pixels."""

    address: Any
    plane: Any
    row: Any
    pixel: Any


class _Network(Writer):
    """Writes the code; `self.step` are the fields of the step that is at hand."""

    def infer(self) -> None:
        """All steps, for each group of the pictures from `first` to `last`."""
        builder, arguments = self.builder, self.arguments
        with self.loop(arguments["first"], arguments["last"], arguments["group"]) as first:
            left = builder.sub(arguments["last"], first)
            count = self._least(left, arguments["group"])
            with self.loop(_I64(0), arguments["num_steps"]) as number:
                self._step(builder.mul(number, _I64(len(FIELDS))), first, count)

    def _step(self, place: Any, first: Any, count: Any) -> None:
        builder = self.builder
        self.step = {
            name: self._integer(self.arguments["steps"], builder.add(place, _I64(index)))
            for index, name in enumerate(FIELDS)
        }
        source, target, plus = (self._view(name, first) for name in VIEWS)
        done = builder.append_basic_block("done")
        chosen = builder.switch(self.step["kind"], done)
        for number, kind in enumerate(KINDS):
            block = builder.append_basic_block(kind)
            chosen.add_case(_I64(number), block)
            builder.position_at_end(block)
            if kind == "clear":
                self._clear(target, count)
            elif kind == "sum":
                self._sum(source, target, count)
            else:
                with self._bands(count, (source, target, plus)) as (pixels, places):
                    if kind == "convolve":
                        self._convolve(pixels, places)
                    else:
                        self._slide(kind, pixels, places)
            builder.branch(done)
        builder.position_at_end(done)

    def _view(self, name: str, first: Any) -> _View:
        builder = self.builder
        part = {kind: self.step[f"{name}_{kind}"] for kind in VIEW}
        start = builder.add(part["start"], builder.mul(first, part["shift"]))
        address = self.address(self._pointer(part["base"]), start)
        return _View(address, part["plane"], part["row"], part["pixel"])

    @contextmanager
    def _bands(self, count: Any, views: Sequence[_View]):
        """A loop over the step's output pixels, some at a time, and where they lie in each view.

        Gives their number, and a function of a pixel's number and a view's: the pixel's address.
        """
        builder, step = self.builder, self.step
        offsets = self.arguments["offsets"]
        plane = builder.mul(step["rows"], step["columns"])
        strides = (step["stride"], _I64(1), _I64(1))
        total = builder.mul(count, plane)
        with self.loop(_I64(0), total, _BAND) as first:
            pixels = self._least(builder.sub(total, first), _I64(_BAND))
            with self.loop(_I64(0), pixels) as number:
                pixel = builder.add(first, number)
                picture, rest = builder.udiv(pixel, plane), builder.urem(pixel, plane)
                y, x = (fn(rest, step["columns"]) for fn in (builder.udiv, builder.urem))
                for index, (view, stride) in enumerate(zip(views, strides, strict=True)):
                    parts = (
                        (picture, view.plane),
                        (builder.mul(y, stride), view.row),
                        (builder.mul(x, stride), view.pixel),
                    )
                    place = _I64(0)
                    for distance, step_size in parts:
                        place = builder.add(place, builder.mul(distance, step_size))
                    room = builder.add(_I64(index * _BAND), number)
                    builder.store(place, builder.gep(offsets, [room], source_etype=_I64))

            def places(number: Any, index: int) -> Any:
                room = builder.add(_I64(index * _BAND), number)
                return self.address(views[index].address, self._integer(offsets, room))

            yield pixels, places

    def _convolve(self, pixels: Any, places: Callable[[Any, int], Any]) -> None:
        builder, step, width = self.builder, self.step, self.width
        size = _VECTORS * width
        blocks = builder.udiv(builder.add(step["outputs"], _I64(size - 1)), _I64(size))
        run = builder.mul(step["breadth"], step["inputs"])
        bias, weights = self.arguments["panel"], self.address(self.arguments["panel"], _I64(size))
        with self.loop(_I64(0), blocks) as block:
            channel = builder.mul(block, _I64(size))
            left = builder.sub(step["outputs"], channel)
            self._pack(self._pointer(step["bias"]), _I64(1), channel, left, bias)
            taps = builder.mul(run, step["height"])
            self._pack(self._pointer(step["kernel"]), taps, channel, left, weights)
            with self._tiles(pixels) as tile:
                sources, targets, plus = (
                    [places(number, index) for number in tile] for index in range(len(VIEWS))
                )
                starts = [self.load(bias, _I64(v * width)).value for v in range(_VECTORS)]

                def row(y: Any, sums: list[Any], sources=sources) -> list[Any]:
                    line = builder.mul(y, step["source_row"])
                    rows = [self.address(source, line) for source in sources]
                    panel = self.address(weights, builder.mul(builder.mul(y, run), _I64(size)))

                    def tap(index: Any, sums: list[Any]) -> list[Any]:
                        at = builder.mul(index, _I64(size))
                        vectors = [
                            self.load(panel, builder.add(at, _I64(v * width)))
                            for v in range(_VECTORS)
                        ]
                        return self._outer(
                            [self._spread(row, index) for row in rows], vectors, sums
                        )

                    return self._accumulate(run, sums, tap, times=2)

                sums = self._accumulate(step["height"], starts * _PIXELS, row)
                for v in range(_VECTORS):
                    lane = _I64(v * width)
                    here = builder.add(channel, lane)
                    written, added = (
                        [self.address(place, here) for place in view] for view in (targets, plus)
                    )
                    self._finish(sums[v::_VECTORS], written, added, builder.sub(left, lane))

    def _outer(self, values: list[Any], vectors: list[Vector], sums: list[Any]) -> list[Any]:
        """Every value times every vector, added to the sums."""
        kind = self.simd.float_type
        products = [(value, vector.value) for value in values for vector in vectors]
        return [
            self.simd.call("llvm.fmuladd", kind, *product, total)
            for product, total in zip(products, sums, strict=True)
        ]

    def _pack(self, matrix: Any, rows: Any, channel: Any, left: Any, panel: Any) -> None:
        """Copies a few columns of a matrix [rows, outputs]; zeros where there are none."""
        builder, outputs, size = self.builder, self.step["outputs"], _VECTORS * self.width
        zero = self.simd.lift(0.0).value
        is_whole = builder.icmp_signed(">=", left, _I64(size))
        with self.loop(_I64(0), rows) as row:
            from_, to = builder.mul(row, outputs), builder.mul(row, _I64(size))
            from_ = builder.add(from_, channel)
            with builder.if_else(is_whole) as (whole, part):
                with whole:
                    for v in range(_VECTORS):
                        lane = _I64(v * self.width)
                        value = self.load(matrix, builder.add(from_, lane)).value
                        self.store(value, panel, builder.add(to, lane))
                with part:
                    for v in range(_VECTORS):
                        self.store(zero, panel, builder.add(to, _I64(v * self.width)))
                    with self.loop(_I64(0), left) as lane:
                        value = self._scalar(matrix, builder.add(from_, lane))
                        self.store(value, panel, builder.add(to, lane))

    def _finish(self, sums: list[Any], targets: list[Any], plus: list[Any], left: Any) -> None:
        """Adds what is besides, applies the activation, and writes as many lanes as there are."""
        builder, kind = self.builder, self.simd.float_type
        values = [
            self._activated(builder.fadd(total, self.load(place, _I64(0)).value))
            for total, place in zip(sums, plus, strict=True)
        ]
        is_whole = builder.icmp_signed(">=", left, _I64(self.width))
        with builder.if_else(is_whole) as (whole, part):
            with whole:
                for value, target in zip(values, targets, strict=True):
                    self.store(value, target, _I64(0))
            with part:
                with builder.goto_entry_block():
                    room = builder.alloca(kind)
                for value, target in zip(values, targets, strict=True):
                    builder.store(value, room)
                    with self.loop(_I64(0), left) as lane:
                        self.store(self._scalar(room, lane), target, lane)

    def _activated(self, value: Any) -> Any:
        """NaN stays NaN."""
        builder, simd, code = self.builder, self.simd, self.step["activation"]
        bounds = (("<", "relu", 0.0, -math.inf), (">", "relu6", 6.0, math.inf))
        for sign, first_with, bound, none in bounds:
            has_bound = builder.icmp_signed(">=", code, _I64(ACTIVATIONS.index(first_with)))
            limit = simd.spread(builder.select(has_bound, _F32(bound), _F32(none))).value
            value = builder.select(builder.fcmp_ordered(sign, value, limit), limit, value)
        return value

    def _slide(self, kind: str, pixels: Any, places: Callable[[Any, int], Any]) -> None:
        """What treats each channel by itself: a window over a few pixels, a vector of channels."""
        builder, simd, step, width = self.builder, self.simd, self.step, self.width
        channels = step["outputs"]
        is_weighted, is_mean = kind == "convolve_depthwise", kind == "mean_pool"
        kernel, bias = (self._pointer(step[name]) for name in ("kernel", "bias"))
        area = builder.mul(step["height"], step["breadth"])
        share = simd.spread(builder.fdiv(_F32(1), builder.uitofp(area, _F32))).value
        with self._tiles(pixels) as tile:
            sources, targets, plus = (
                [places(number, index) for number in tile] for index in range(len(VIEWS))
            )
            with self.loop(_I64(0), channels, width) as vector:
                channel = self._least(vector, builder.sub(channels, _I64(width)))
                if is_weighted:
                    start = self.load(bias, channel).value
                else:
                    start = simd.lift(0.0 if is_mean else -math.inf).value

                def row(y: Any, values: list[Any], sources=sources, channel=channel) -> list[Any]:
                    def tap(x: Any, values: list[Any]) -> list[Any]:
                        at = builder.add(
                            builder.mul(y, step["source_row"]), builder.mul(x, step["source_pixel"])
                        )
                        at = builder.add(at, channel)
                        seen = [self.load(source, at).value for source in sources]
                        if is_weighted:
                            place = builder.add(builder.mul(y, step["breadth"]), x)
                            place = builder.add(builder.mul(place, channels), channel)
                            return self._outer(seen, [self.load(kernel, place)], values)
                        if is_mean:
                            return [builder.fadd(*pair) for pair in zip(seen, values, strict=True)]
                        return [
                            simd.call("llvm.maximum", simd.float_type, *pair)
                            for pair in zip(seen, values, strict=True)
                        ]

                    return self._accumulate(step["breadth"], values, tap)

                values = self._accumulate(step["height"], [start] * _PIXELS, row)
                for value, target, place in zip(values, targets, plus, strict=True):
                    if is_mean:
                        value = builder.fmul(value, share)
                    elif is_weighted:
                        added = self.load(place, channel).value
                        value = self._activated(builder.fadd(value, added))
                    self.store(value, target, channel)

    def _sum(self, source: _View, target: _View, count: Any) -> None:
        """Of all pixels of each picture."""
        builder, step, width = self.builder, self.step, self.width
        channels = step["inputs"]
        whole = builder.sub(channels, builder.urem(channels, _I64(width)))
        with self.loop(_I64(0), count) as picture:
            sums = self.address(target.address, builder.mul(picture, target.plane))
            start = self.address(source.address, builder.mul(picture, source.plane))
            self._zero(sums, channels)
            with self.loop(_I64(0), step["rows"]) as y, self.loop(_I64(0), step["columns"]) as x:
                at = builder.add(builder.mul(y, source.row), builder.mul(x, source.pixel))
                pixel = self.address(start, at)
                with self.loop(_I64(0), whole, width) as channel:
                    total = self.load(sums, channel) + self.load(pixel, channel)
                    self.store(total.value, sums, channel)
                with self.loop(whole, channels) as channel:
                    parts = (self._scalar(place, channel) for place in (sums, pixel))
                    self.store(builder.fadd(*parts), sums, channel)

    def _clear(self, target: _View, count: Any) -> None:
        """Zeros around the pixels of each picture."""
        builder, step = self.builder, self.step
        above, below, left, right = (step[name] for name in MARGINS)
        rows = builder.add(builder.add(above, step["rows"]), below)
        inside = builder.add(above, step["rows"])
        first = builder.add(left, step["columns"])
        with self.loop(_I64(0), count) as picture, self.loop(_I64(0), rows) as y:
            at = builder.add(builder.mul(picture, target.plane), builder.mul(y, target.row))
            line = self.address(target.address, at)
            is_inside = builder.and_(
                builder.icmp_signed(">=", y, above), builder.icmp_signed("<", y, inside)
            )
            with builder.if_else(is_inside) as (middle, edge):
                with middle:
                    self._zero(line, builder.mul(left, target.pixel))
                    behind = self.address(line, builder.mul(first, target.pixel))
                    self._zero(behind, builder.mul(right, target.pixel))
                with edge:
                    self._zero(line, target.row)

    def _zero(self, place: Any, count: Any) -> None:
        with self.loop(_I64(0), count) as index:
            self.store(_F32(0), place, index)

    @contextmanager
    def _tiles(self, pixels: Any):
        """A loop over a band's pixels, six at a time, of which the last may be repeated."""
        builder, last = self.builder, self.builder.sub(pixels, _I64(1))
        with self.loop(_I64(0), pixels, _PIXELS) as first:
            yield [self._least(builder.add(first, _I64(n)), last) for n in range(_PIXELS)]

    def _accumulate(
        self, count: Any, values: list[Any], body_fn: Callable, *, times: int = 1
    ) -> list[Any]:
        """`values = body_fn(index, values)` for each index, with the values in registers.

        Some times in a row before the loop's end is tested.
        """
        builder = self.builder
        whole = builder.sub(count, builder.urem(count, _I64(times)))

        def several(index: Any, values: list[Any]) -> list[Any]:
            for number in range(times):
                values = body_fn(builder.add(index, _I64(number)), values)
            return values

        values = self._carried(_I64(0), whole, times, values, several)
        return values if times == 1 else self._carried(whole, count, 1, values, body_fn)

    def _carried(
        self, start: Any, stop: Any, step: int, values: list[Any], body_fn: Callable
    ) -> list[Any]:
        """A loop that hands values on from turn to turn."""
        builder, before = self.builder, self.builder.block
        head, body, after = (builder.append_basic_block(part) for part in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(_I64)
        carried = [builder.phi(value.type) for value in values]
        builder.cbranch(builder.icmp_signed("<", index, stop), body, after)
        builder.position_at_end(body)
        changed = [builder.add(index, _I64(step)), *body_fn(index, carried)]
        for phi, *incoming in zip([index, *carried], [start, *values], changed, strict=True):
            for value, block in zip(incoming, (before, builder.block), strict=True):
                phi.add_incoming(value, block)
        builder.branch(head)
        builder.position_at_end(after)
        return carried

    def _least(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def _pointer(self, number: Any) -> Any:
        place = self.builder.gep(self.arguments["bases"], [number], source_etype=_POINTER)
        return self.builder.load(place, typ=_POINTER)

    def _integer(self, pointer: Any, place: Any) -> Any:
        return self.builder.load(self.builder.gep(pointer, [place], source_etype=_I64), typ=_I64)

    def _scalar(self, pointer: Any, place: Any) -> Any:
        return self.builder.load(self.address(pointer, place), typ=_F32)

    def _spread(self, pointer: Any, place: Any) -> Any:
        return self.simd.spread(self._scalar(pointer, place)).value


SOURCE = Source(_Network, ("infer",), POINTERS, COUNTS, unrolled=False)
