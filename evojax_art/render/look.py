"""How formulas are drawn, and the pictures that are judged."""

from dataclasses import dataclass, replace

from evojax_art.language.ops import Crunch
from evojax_art.runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a formula wants to be drawn; names and defaults are `render`'s.

    Attributes:
        z: the third coordinate.
        crunch: colours.
        smooth: plus-shaped blur.
    """

    z: float = 0.0
    crunch: Crunch = "sigmoid"
    smooth: bool = False

    def overridden(
        self, *, z: float | None = None, crunch: Crunch | None = None, smooth: bool = False
    ) -> "Look":
        """The same, and what flags say in its place; they can switch smoothing on only."""
        return Look(
            z=self.z if z is None else z,
            crunch=crunch or self.crunch,
            smooth=smooth or self.smooth,
        )


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """The pictures that are judged.

    Attributes:
        size: height and width in pixels; 0 takes the network's own, to which others are resized.
        samples: n by n samples per pixel. Without them formulas win by aliasing: static that
            vanishes at another size.
        crunch: "sigmoid", or "1995" for the original's colours, black beyond +-30.
        smooth: the original's plus-shaped blur.
        z: the third coordinate.
    """

    size: int = 0
    samples: int = 2
    crunch: Crunch = "sigmoid"
    smooth: bool = False
    z: float = 0.0

    def __post_init__(self):
        for name, least in (("size", 0), ("samples", 1)):
            if getattr(self, name) < least:
                raise InputError(f"scene.{name} must be {least} or more, got {getattr(self, name)}")

    def fitted_to(self, size: int) -> "SceneConfig":
        """The same with the size settled: a network's, where there is none."""
        return self if self.size else replace(self, size=size)
