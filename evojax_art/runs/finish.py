"""The end of an evolution: its best formula under waves that climb by gradient (`refine.waves`)."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array, Key

from evojax_art.language.formula import Expression
from evojax_art.objective.evaluator import Evaluator
from evojax_art.refine.ascent import AscentConfig
from evojax_art.refine.constants import FormulaPolisher, PolishConfig, Polished
from evojax_art.refine.waves import NODES
from evojax_art.runtime.errors import InputError

_CHECK_EVERY = 5  # steps, between looks at whether it is enough


@dataclass(frozen=True, kw_only=True)
class FinishConfig:
    """What is done with the best formula of a run once breeding has ended below the stop score.

    Attributes:
        waves: faint waves that are laid over it, each of nine nodes, and climb by gradient; 0 for
            nothing. The result may be longer than the longest formula that is bred.
        steps: of gradient ascent at most; it ends sooner at the stop score. Each counts as a
            formula.
    """

    waves: int = 0
    steps: int = 200

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"finish.steps must be 1 or more, got {self.steps}")
        if not 0 <= self.waves <= 256:
            raise InputError(f"finish.waves must be 0 to 256, got {self.waves}")

    @property
    def nodes(self) -> int:
        """That a formula grows by."""
        return NODES * self.waves


def finish(
    formula: Expression,
    evaluator: Evaluator,
    config: FinishConfig,
    images: tuple[str, ...],
    key: Key[Array, ""],
    go_on_fn: Callable[[float, float], bool],
) -> Polished:
    """Climbs from a formula.

    Args:
        formula: the best that was bred.
        evaluator: of what is wanted of it, alone.
        config: how.
        images: names of the photographs that it may read.
        key: consumed.
        go_on_fn: see `FormulaPolisher`.
    """
    # The picture that is judged is the one to finish: the camera stands still.
    ascent = AscentConfig(
        steps=config.steps, check_every=_CHECK_EVERY, coarse=0.0, shift=0.0, scale=0.0, turn=0.0
    )
    polish = PolishConfig(restarts=1, waves=config.waves, ascent=ascent)
    return FormulaPolisher(evaluator, polish, images)(formula, key, go_on_fn)
