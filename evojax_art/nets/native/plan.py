"""A network's layers as a table of steps over one piece of memory.

A `Recorder` lets a network name its layers and notes them; `plan_steps` then says where every
tensor lies: with the zeros around it that windows reach, in its place among the channels where
several are joined, and in memory that others no longer need.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from evojax_art.nets.layers import Activation, convolution_of
from evojax_art.nets.native.fields import ACTIVATIONS, FIELDS, KINDS, MARGINS, VIEW, VIEWS

ARENA, INPUT, OUTPUT = range(3)  # numbers of pointers; parameters are behind
_LINE = 16  # floats of a line of cache, where tensors begin
_WIDEST = 16  # floats of the widest vector there is
_FEW = 48  # pixels for which it pays to pack a kernel


@dataclass(eq=False)
class Tensor:
    """What a layer makes of each picture.

    Attributes:
        rows, columns, channels: its size.
        pads: zeros that are needed above, below, left and right of it.
        whole: the tensor of which it is a part, from channel `first` on; None: it is one itself.
        base: the pointer to it.
        start: where it begins, floats of a picture's memory.
        last: the step that reads it last.
    """

    rows: int
    columns: int
    channels: int
    pads: list[int] = field(default_factory=lambda: [0] * 4)
    whole: "Tensor | None" = None
    first: int = 0
    base: int = ARENA
    start: int = 0
    last: int = -1

    @property
    def home(self) -> "Tensor":
        """The tensor that has memory of its own."""
        return self.whole.home if self.whole else self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Its size."""
        return self.rows, self.columns, self.channels

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns with the zeros around."""
        above, below, left, right = self.home.pads
        return self.rows + above + below, self.columns + left + right

    @property
    def size(self) -> int:
        """Floats of a picture's, whole lines."""
        rows, columns = self.padded
        return -(-rows * columns * self.home.channels // _LINE) * _LINE


class Step(NamedTuple):
    """One layer.

    Attributes:
        kind: see `fields.KINDS`.
        source, target: what it reads and makes.
        plus: what is added to what it makes; None: nothing.
        window: height and width.
        stride: of the window.
        padding: above and left.
        kernel, bias: numbers of parameters.
        activation: behind.
    """

    kind: str
    source: Tensor
    target: Tensor
    plus: Tensor | None = None
    window: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    kernel: int = 0
    bias: int = 0
    activation: Activation = "none"


class Recorder:
    """Notes layers; a `Layers`.

    Attributes:
        steps: so far.
        parameters: kernels and biases that they read.
    """

    def __init__(self):
        self.steps: list[Step] = []
        self.parameters: list[Array] = []

    def layer(
        self, module: Any, x: Tensor, activation: Activation = "none", plus: Tensor | None = None
    ) -> Tensor:
        """See `Layers`."""
        kernel, bias, stride, padding = convolution_of(module)
        kind = "convolve" if kernel.ndim == 4 else "convolve_depthwise"
        inputs = kernel.shape[2]
        if x.whole or inputs != x.channels:
            raise ValueError(f"a layer of {inputs} channels cannot read {x}")
        height, width = kernel.shape[:2]
        pads = _pads(x, (height, width), stride, padding)
        target = _windows(x, (height, width), stride, pads, kernel.shape[-1])
        _check_channels(kind, target)
        if plus and (plus.home.base != ARENA or plus.shape != target.shape):
            raise ValueError(f"{plus} cannot be added to {target}")
        self.steps.append(
            Step(
                kind,
                x,
                target,
                plus,
                window=(height, width),
                stride=stride,
                padding=(pads[0][0], pads[1][0]),
                kernel=self._parameter(kernel),
                bias=self._parameter(bias),
                activation=activation,
            )
        )
        return target

    def concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """See `Layers`; the parts are made where they belong."""
        rows, columns, _ = tensors[0].shape
        whole = Tensor(rows, columns, sum(part.channels for part in tensors))
        first = 0
        read = [tensor for step in self.steps for tensor in (step.source, step.plus)]
        for part in tensors:
            if (
                part.whole
                or part.base != ARENA
                or part in read
                or part.shape[:2] != (rows, columns)
            ):
                raise ValueError(f"{part} cannot be joined with others")
            part.whole, part.first = whole, first
            first += part.channels
        return whole

    def max_pool(self, x: Tensor, size: int, stride: int) -> Tensor:
        """See `Layers`; what is beyond the edge is zero, and so no more than what is in x."""
        over = [-(length - size) % stride for length in (x.rows, x.columns)]
        return self._pool("max_pool", x, size, stride, [(0, n) for n in over])

    def mean_pool(self, x: Tensor, size: int) -> Tensor:
        """See `Layers`."""
        return self._pool("mean_pool", x, size, size, [(0, 0), (0, 0)])

    def sum(self, x: Tensor) -> None:
        """Of all pixels, into what the caller is given."""
        target = Tensor(x.rows, x.columns, x.channels, base=OUTPUT)
        self.steps.append(Step("sum", x, target))

    def _pool(self, kind: str, x: Tensor, size: int, stride: int, pads: Any) -> Tensor:
        target = _windows(x, (size, size), stride, pads, x.channels)
        _check_channels(kind, target)
        self.steps.append(Step(kind, x, target, window=(size, size), stride=stride))
        return target

    def _parameter(self, array: Array) -> int:
        self.parameters.append(jnp.asarray(array, jnp.float32))
        return OUTPUT + len(self.parameters)


def _check_channels(kind: str, target: Tensor) -> None:
    """Those that are treated by themselves must fill a vector, whose last may lie over another."""
    if kind != "convolve" and target.channels < _WIDEST:
        raise ValueError(f"{kind} needs {_WIDEST} channels or more, got {target.channels}")


def _pads(x: Tensor, window: tuple[int, int], stride: int, padding: Any) -> Any:
    if isinstance(padding, str):
        return jax.lax.padtype_to_pads((x.rows, x.columns), window, (stride, stride), padding)
    return padding


def _windows(x: Tensor, window: tuple[int, int], stride: int, pads: Any, channels: int) -> Tensor:
    """What a sliding window makes of x, which is told of the zeros around it."""
    (above, below), (left, right) = pads
    home = x.home
    home.pads = [max(*pair) for pair in zip(home.pads, (above, below, left, right), strict=True)]
    rows, columns = (
        (length + sum(pad) - size) // stride + 1
        for length, pad, size in zip((x.rows, x.columns), pads, window, strict=True)
    )
    if min(rows, columns) < 1:
        raise ValueError(f"a window of {window[0]}x{window[1]} does not fit into {x}")
    return Tensor(rows, columns, channels)


class Table(NamedTuple):
    """Steps as the native code takes them.

    Attributes:
        steps: int64 [steps, fields].
        arena: floats of the memory that a group needs.
        zeros: of these the first, which stay zero.
        panel: rows of the largest packed kernel, and one for its bias.
        group: pictures that go through the steps together.
    """

    steps: np.ndarray
    arena: int
    zeros: int
    panel: int
    group: int


def plan_steps(steps: Sequence[Step], pictures: int) -> Table:
    """Gives every tensor its place.

    Args:
        steps: recorded ones, of which the last makes what is wanted.
        pictures: that are looked at by one thread, at most.
    """
    convolutions = [step for step in steps if step.kind == "convolve"]
    fewest = min(step.target.rows * step.target.columns for step in convolutions)
    group = max(1, min(pictures, -(-_FEW // fewest)))
    arena, zeros = _place(steps, group)
    rows = []
    cleared: set[int] = set()
    for step in steps:
        home = step.target.home
        if id(home) not in cleared and any(home.pads):
            rows.append(_row(Step("clear", step.source, home)))
        cleared.add(id(home))
        rows.append(_row(step))
    taps = max(math.prod(step.window) * step.source.channels for step in convolutions)
    return Table(np.array(rows, np.int64), arena, zeros, taps + 1, group)


def _place(steps: Sequence[Step], group: int) -> tuple[int, int]:
    """The first gap that is large enough, for each tensor from its making to its last reading.

    Zeros for those to whom nothing is added lie in front of all.
    """
    for number, step in enumerate(steps):
        for tensor in (step.source, step.plus):
            if tensor is not None:
                tensor.home.last = number
    zeros = (-(-max(step.target.channels for step in steps) // _LINE) + 4) * _LINE
    held: list[tuple[int, int, Tensor]] = []  # start, end
    end = zeros
    placed: set[int] = set()
    for number, step in enumerate(steps):
        held = [entry for entry in held if entry[2].last >= number]
        home = step.target.home
        if home.base != ARENA or id(home) in placed:
            continue
        placed.add(id(home))
        size, start = home.size * group, zeros
        for begin, stop, _ in sorted(held, key=lambda entry: entry[:2]):
            if begin - start >= size:
                break
            start = max(start, stop)
        home.start = start
        held.append((start, start + size, home))
        end = max(end, start + size)
    return end + 4 * _LINE, zeros  # vectors may be read beyond the last


def _row(step: Step) -> list[int]:
    """The fields of `FIELDS`."""
    is_clear = step.kind == "clear"
    views = dict(zip(VIEWS, (step.source, step.target, step.plus), strict=True))
    origins = dict(zip(VIEWS, (step.padding, (0, 0), (0, 0)), strict=True))
    values: dict[str, int] = {"kind": KINDS.index(step.kind)}
    for name, tensor in views.items():
        parts = (ARENA, *(0,) * 5)  # zeros, for all pixels the same
        if tensor is not None:
            home = tensor.home
            above, _, left, _ = home.pads
            _, columns = tensor.padded
            row, plane = columns * home.channels, _plane(tensor)
            if is_clear:
                up, side = above, left
            else:
                up, side = origins[name]
            start = home.start + (above - up) * row + (left - side) * home.channels + tensor.first
            shift = 0 if home.base == ARENA else plane
            parts = (home.base, start, shift, plane, row, home.channels)
        values |= {f"{name}_{kind}": value for kind, value in zip(VIEW, parts, strict=True)}
    target = step.target
    values |= {
        "inputs": step.source.channels,
        "outputs": target.channels,
        "rows": target.rows,
        "columns": target.columns,
        "height": step.window[0],
        "breadth": step.window[1],
        "stride": step.stride,
        "kernel": step.kernel,
        "bias": step.bias,
        "activation": ACTIVATIONS.index(step.activation),
    }
    values |= dict(zip(MARGINS, target.home.pads, strict=True))
    return [values[name] for name in FIELDS]


def _plane(tensor: Tensor) -> int:
    """What is between two pictures of a tensor: none of the network's own has gaps."""
    if tensor.home.base == OUTPUT:
        return tensor.channels
    rows, columns = tensor.padded
    return tensor.home.size if tensor.home.base == ARENA else rows * columns * tensor.channels
