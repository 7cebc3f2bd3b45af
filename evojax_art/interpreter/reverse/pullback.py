"""The op table, differentiated in any array namespace.

`pullback` runs an op's function on recording arrays: each remembers what it was made of and how a
cotangent gets there. Walking back over the record gives the operands' cotangents in the same
namespace: numbers from NumPy's, code from the native interpreter's (`simd`). So there is one
definition of an op, and its gradient is none's to keep in step.

The rules are those of JAX: comparisons, `floor` and constants have none, equal operands of
`minimum` and `maximum` share theirs.
"""

from collections.abc import Callable
from math import pi
from typing import Any

from evojax_art.language.quaternions import Quaternion

LARGEST_COTANGENT = 1e12  # larger ones are dropped, see `reverse.api`

PullFn = Callable[[Any], Any]


class Recorded:
    """An array, what it was made of, and how its cotangent reaches that."""

    __array_ufunc__ = None  # NumPy's arrays leave operators to this class

    def __init__(self, space: "Recorder", value: Any, *pulls: tuple[Any, PullFn]):
        self.space = space
        self.value = value
        self.pulls = [(source, pull) for source, pull in pulls if isinstance(source, Recorded)]
        self.cotangent: Any = None
        space.record.append(self)

    @property
    def dtype(self) -> Any:
        """Of the values."""
        return self.value.dtype

    def __add__(self, other):
        total = self.value + _plain(other)
        return Recorded(self.space, total, (self, _same), (other, _same))

    __radd__ = __add__

    def __sub__(self, other):
        difference = self.value - _plain(other)
        return Recorded(self.space, difference, (self, _same), (other, _negative))

    def __rsub__(self, other):
        return Recorded(self.space, _plain(other) - self.value, (self, _negative))

    def __mul__(self, other):
        factor = _plain(other)
        return Recorded(
            self.space,
            self.value * factor,
            (self, lambda t: t * factor),
            (other, lambda t: t * self.value),
        )

    __rmul__ = __mul__

    def __truediv__(self, other):
        divisor = _plain(other)
        quotient = self.value / divisor
        return Recorded(
            self.space,
            quotient,
            (self, lambda t: t / divisor),
            (other, lambda t: -(t * quotient / divisor)),
        )

    def __rtruediv__(self, other):
        quotient = _plain(other) / self.value
        return Recorded(self.space, quotient, (self, lambda t: -(t * quotient / self.value)))

    def __neg__(self):
        return Recorded(self.space, -self.value, (self, _negative))

    def __lt__(self, other):
        return self.value < _plain(other)

    def __le__(self, other):
        return self.value <= _plain(other)

    def __gt__(self, other):
        return self.value > _plain(other)

    def __ge__(self, other):
        return self.value >= _plain(other)

    def __eq__(self, other):
        return self.value == _plain(other)

    def __ne__(self, other):
        return self.value != _plain(other)

    __hash__ = None  # type: ignore[assignment]


class Recorder:
    """An array namespace over another one, for the functions of `ops`; `record` grows with use."""

    def __init__(self, xp: Any):
        self.xp = xp
        self.record: list[Recorded] = []

    def full_like(self, t: Any, value: float) -> Any:
        """A constant."""
        return self.xp.full_like(_plain(t), value)

    def zeros_like(self, t: Any) -> Any:
        """A constant."""
        return self.xp.zeros_like(_plain(t))

    def ones_like(self, t: Any) -> Any:
        """A constant."""
        return self.xp.ones_like(_plain(t))

    def floor(self, t: Any) -> Any:
        """A constant, as far as gradients know."""
        return self.xp.floor(_plain(t))

    def where(self, condition: Any, then: Any, otherwise: Any) -> Any:
        """The cotangent goes to the side that was taken."""
        xp = self.xp
        value = xp.where(condition, _plain(then), _plain(otherwise))
        if not isinstance(then, Recorded) and not isinstance(otherwise, Recorded):
            return value
        return Recorded(
            self,
            value,
            (then, lambda t: xp.where(condition, t, xp.zeros_like(t))),
            (otherwise, lambda t: xp.where(condition, xp.zeros_like(t), t)),
        )

    def minimum(self, s: Any, t: Any) -> Any:
        """See the module's docstring for equal operands."""
        return self._chosen(self.xp.minimum(_plain(s), _plain(t)), s, t)

    def maximum(self, s: Any, t: Any) -> Any:
        """See the module's docstring for equal operands."""
        return self._chosen(self.xp.maximum(_plain(s), _plain(t)), s, t)

    def clip(self, t: Recorded, least: Any, most: Any) -> Any:
        """The cotangent passes inside the range and at its ends."""
        xp, inside = self.xp, (t.value >= least) & (t.value <= most)
        value = xp.clip(t.value, least, most)
        return Recorded(self, value, (t, lambda c: xp.where(inside, c, xp.zeros_like(c))))

    def exp(self, t: Recorded) -> Any:
        """Its own derivative."""
        value = self.xp.exp(t.value)
        return Recorded(self, value, (t, lambda c: c * value))

    def log(self, t: Recorded) -> Any:
        """Of what is above 0."""
        return Recorded(self, self.xp.log(t.value), (t, lambda c: c / t.value))

    def sqrt(self, t: Recorded) -> Any:
        """Of what is above 0."""
        value = self.xp.sqrt(t.value)
        return Recorded(self, value, (t, lambda c: c / (value + value)))

    def sin(self, t: Recorded) -> Any:
        """The cosine is a sine a quarter turn on: namespaces need no other."""
        xp = self.xp
        return Recorded(self, xp.sin(t.value), (t, lambda c: c * xp.sin(t.value + pi / 2)))

    def log2(self, t: Any) -> Any:
        """Of what has no gradient."""
        return self.xp.log2(t)

    def _chosen(self, value: Any, s: Any, t: Any) -> Any:
        xp = self.xp
        if not isinstance(s, Recorded) and not isinstance(t, Recorded):
            return value

        def share(of: Any) -> PullFn:
            taken = value == _plain(of)
            both = value == _plain(t if of is s else s)
            return lambda c: xp.where(taken, xp.where(both, c * 0.5, c), xp.zeros_like(c))

        return Recorded(self, value, (s, share(s)), (t, share(t)))


def pullback(
    xp: Any, fn: Callable[..., Quaternion], operands: tuple[Any, ...], cotangent: Quaternion
) -> list[Any]:
    """The cotangents of an op's operands.

    Args:
        xp: the namespace of all arrays.
        fn: the op's function; not of a structural one, nor of a constant leaf.
        operands: `Quaternion`s, or for a leaf the `Coordinates`.
        cotangent: of the op's value.

    Returns:
        Of each operand, in its type; None in place of an array that the value does not depend on.
    """
    recorder = Recorder(xp)
    inputs = [
        type(operand)(*(Recorded(recorder, part) for part in operand)) for operand in operands
    ]
    for part, due in zip(fn(recorder, *inputs), cotangent, strict=True):
        if isinstance(part, Recorded):
            _receive(part, due)
    for made in reversed(recorder.record):
        if made.cotangent is not None:
            for source, pull in made.pulls:
                _receive(source, pull(made.cotangent))
    return [type(operand)(*(part.cotangent for part in operand)) for operand in inputs]


def _receive(source: Recorded, cotangent: Any) -> None:
    held = source.cotangent
    source.cotangent = cotangent if held is None else held + cotangent


def _plain(t: Any) -> Any:
    return t.value if isinstance(t, Recorded) else t


def _same(t: Any) -> Any:
    return t


def _negative(t: Any) -> Any:
    return -t
