"""The rows: each is a builder from a subject to the jobs that measure one part of the engine.

A further part is a further function here and its place in `BUILDERS`. What a builder needs of
earlier parts it finds in `Subject.rows`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from evojax_art.benchmark.floors import Floors
from evojax_art.benchmark.measure import Batch, CompiledCall, Job, Measurement, Work
from evojax_art.benchmark.work import work_of_noise, work_of_rendering
from evojax_art.interpreter.api import lower_all
from evojax_art.language.program import Program, take
from evojax_art.nets.base import Classifier
from evojax_art.objective.settings import ObjectiveConfig
from evojax_art.objective.tv import tv_noise
from evojax_art.render.batch import render
from evojax_art.render.look import RasterConfig
from evojax_art.runtime.plan import BEST
from evojax_art.search.breeding import breed
from evojax_art.search.generation import Evolution, EvolutionState
from evojax_art.search.genetic import Genetic
from evojax_art.search.variation import GrowthConfig, VariationConfig

LOWERING, RENDERING, NETWORK = "lowering", "rendering", "network"
NOISE, VARIATION, GENERATION = "noise", "variation", "generation"
PARTS = (RENDERING, NETWORK, NOISE, VARIATION)  # of a generation; lowering is within rendering


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured part.

    Attributes:
        part: what was measured.
        formulas: it was measured on; fewer than the population where that would take too long.
        seconds: of one run over those, median.
        all_seconds: every run.
        compile_seconds: tracing, lowering and compiling; no cache helps.
        formulas_per_second: formulas, or their pictures, per second.
        node_pixels_per_second: for parts that interpret formulas, else None.
        floor_seconds: what the device needs at least, see `floors`; None where nobody counted.
        floor_share: that, of the seconds.
        memory_bytes: arguments, results and temporaries of the largest compiled call.
        device_peak_bytes: the highest mark of the device's allocator up to here; None on a CPU.
    """

    part: str
    formulas: int
    seconds: float
    all_seconds: list[float] = field(repr=False)
    compile_seconds: float
    formulas_per_second: float
    node_pixels_per_second: float | None
    floor_seconds: float | None
    floor_share: float | None
    memory_bytes: float | None
    device_peak_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What all rows are measured on.

    Attributes:
        population: P programs.
        size: of their pictures, pixels.
        samples: n by n per pixel.
        net: the judge.
        noise_gate: of the generation; 0 leaves the noise measure out of it.
        batch: formulas judged at a time, in the network's and the noise's row; the generation's
            where `given_batch` is not 0.
        given_batch: the same as a user gave it; 0 leaves the generation its own choice.
        picture_bytes: the most that rendered pictures may take at once.
        implementations: interpreters with a row of their own beside the platform's choice.
        seconds_per_run: that a run of the generation may take.
        key: for all that is random.
        rows: measured so far, by part.
    """

    population: Program
    size: int
    samples: int
    net: Classifier
    noise_gate: float
    batch: int
    given_batch: int
    picture_bytes: float
    implementations: tuple[str, ...]
    seconds_per_run: float
    key: Key[Array, ""]
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """P."""
        return self.population.length.shape[0]

    @property
    def most_pictures(self) -> int:
        """Formulas whose pictures may exist at once."""
        return max(1, int(self.picture_bytes // (12 * self.size**2)))

    @cached_property
    def pictures(self) -> Float[Array, "N S S 3"]:
        """Of the first formulas, as many as may exist at once."""
        some = take(self.population, np.arange(min(self.count, self.most_pictures)))
        return render_fn(self)(some)

    def forget_pictures(self) -> None:
        """Frees their memory."""
        self.__dict__.pop("pictures", None)


Builder = Callable[[Subject], Iterator[Job]]


def row_of(job: Job, measured: Measurement, floors: Floors) -> Row:
    """A measurement as it is reported."""
    floor = None
    if job.floor_seconds_per_formula is not None:
        floor = job.floor_seconds_per_formula * measured.formulas
    elif measured.work is not None:
        floor = sum(map(floors.seconds, measured.work))
    pixels = measured.node_pixels
    return Row(
        part=job.part,
        formulas=measured.formulas,
        seconds=measured.seconds,
        all_seconds=measured.all_seconds,
        compile_seconds=measured.compile_seconds,
        formulas_per_second=measured.formulas / measured.seconds,
        node_pixels_per_second=pixels / measured.seconds if pixels else None,
        floor_seconds=floor,
        floor_share=floor / measured.seconds if floor is not None else None,
        memory_bytes=measured.compiled.memory_bytes,
        device_peak_bytes=measured.device_peak_bytes,
    )


def lowering(subject: Subject) -> Iterator[Job]:
    """Programs to tapes. Its floor is the traffic: programs read, tapes written."""
    lower_fn = jax.jit(lower_all)
    batch = Batch(arguments_fn=lambda: (subject.population,), formulas=subject.count)
    yield Job(part=LOWERING, call_fn=lower_fn, batches=[batch], work_fn=_traffic)


def rendering(subject: Subject) -> Iterator[Job]:
    """Lowering, interpreting and colouring: `render` as anybody calls it."""
    chunks = _chunks(subject.count, subject.most_pictures)
    chosen = [take(subject.population, index) for index in chunks]
    batches = [rendering_batch(item, subject.size, subject.samples) for item in chosen]
    yield Job(part=RENDERING, call_fn=render_fn(subject), batches=batches)
    for name in subject.implementations:
        yield Job(part=f"{RENDERING}, {name}", call_fn=render_fn(subject, name), batches=batches)


def render_fn(
    subject: Subject, implementation: str = BEST, size: int = 0
) -> Callable[[Program], Float[Array, "P S S 3"]]:
    """`render` as this subject has it; another interpreter or size only where asked for."""
    size = size or subject.size

    def call(programs: Program) -> Float[Array, "P S S 3"]:
        return render(programs, size, size, samples=subject.samples, implementation=implementation)

    return call


def network(subject: Subject) -> Iterator[Job]:
    """Logits of pictures, resizing included.

    Its arithmetic is counted in the computation as written, where convolutions are still visible
    as such, its traffic between the fusions of the compiled one.
    """
    graph, weights = nnx.split(subject.net)
    plain = nnx.merge(graph, weights)
    plain.implementation = "xla"  # what XLA can count
    plain_graph, _ = nnx.split(plain)

    def judge(weights: Any, images: Array, graph: Any = graph) -> Array:
        return nnx.merge(graph, weights).logits(images)

    judge_fn = jax.jit(judge)
    batches = _picture_batches(subject, lambda images: (weights, images))
    counted_fn = jax.jit(partial(judge, graph=plain_graph))
    cost: Any = counted_fn.lower(*batches[0].arguments_fn()).cost_analysis() or {}
    flops = cost.get("flops", 0.0) + cost.get("transcendentals", 0.0)
    bfloat16 = jnp.dtype(subject.net.dtype) == jnp.bfloat16
    arithmetic = "bfloat16" if bfloat16 else "tensor_float32"

    def work_fn(compiled: CompiledCall) -> Work:
        return Work(flops=flops, bytes=compiled.bytes, arithmetic=arithmetic)

    yield Job(part=NETWORK, call_fn=judge_fn, batches=batches, work_fn=work_fn)


def noise(subject: Subject) -> Iterator[Job]:
    """The 2015 noise measure of every picture."""
    batches = _picture_batches(subject, lambda images: (images,))
    work = work_of_noise(batches[0].arguments_fn()[0])
    yield Job(part=NOISE, call_fn=jax.jit(tv_noise), batches=batches, work_fn=lambda _: work)


def variation(subject: Subject) -> Iterator[Job]:
    """A child of every formula: ask without its tournaments. Its floor is the traffic."""
    ways, growth = VariationConfig(), GrowthConfig()

    def children(key, population):
        hosts = jnp.arange(subject.count)
        return breed(key, population, hosts, hosts[::-1], ways, growth)

    arguments = subject.key, subject.population
    batch = Batch(arguments_fn=lambda: arguments, formulas=subject.count)
    yield Job(part=VARIATION, call_fn=jax.jit(children), batches=[batch], work_fn=_traffic)


def generation(subject: Subject) -> Iterator[Job]:
    """A whole step of an evolution, judging the very formulas of the other rows.

    They are the starters of a genetic algorithm with as many offspring as survivors; children are
    made in the same step, and judged in the next one, which nobody waits for. The floor is the sum
    of the floors of rendering, network and noise.
    """
    parts = [RENDERING, NETWORK, *([NOISE] if subject.noise_gate else [])]
    rows = [subject.rows[part] for part in parts]
    expected = sum(row.seconds / row.formulas for row in rows)
    fitting = int(subject.seconds_per_run / expected)
    count = subject.count if fitting >= subject.count else 1 << max(3, fitting.bit_length() - 1)
    population = take(subject.population, np.arange(min(count, subject.count)))
    floor = sum((row.floor_seconds or 0.0) / row.formulas for row in rows)
    yield generation_job(subject, population, floor)


def generation_job(subject: Subject, population: Program, floor: float | None = None) -> Job:
    """One step of an evolution whose starters are these programs.

    Args:
        subject: everything else.
        population: as many survivors, and as many offspring.
        floor: seconds that a formula takes at least.
    """
    count = population.length.shape[0]
    evolution = Evolution(
        Genetic(population=count, offspring=count),
        subject.net,
        (0,),
        ObjectiveConfig(noise_gate=subject.noise_gate),
        RasterConfig(size=subject.size, samples=subject.samples),
        max_length=population.capacity,
        batch=subject.given_batch or None,
    )

    @cache
    def first_state() -> EvolutionState:
        return evolution.init(subject.key, population)

    def arguments_fn() -> tuple[EvolutionState]:  # a copy, since a step consumes its state
        return (jax.tree.map(jnp.copy, first_state()),)

    return Job(
        part=GENERATION,
        call_fn=evolution.step,
        batches=[
            Batch(
                arguments_fn=arguments_fn,
                formulas=count,
                node_pixels=_node_pixels(population, subject.size, subject.samples),
            )
        ],
        floor_seconds_per_formula=floor,
    )


def shares_of_generation(rows: Mapping[str, Row], noise_gate: float) -> dict[str, float]:
    """Each part's time per formula by that of a generation.

    The parts are measured on their own, so the shares need not sum to 1: a generation may leave
    out work that cannot matter, and does some that has no row (`rest`, which is never negative).
    """
    if GENERATION not in rows:
        return {}
    whole = rows[GENERATION].seconds / rows[GENERATION].formulas
    in_it = [part for part in (LOWERING, *PARTS) if part != NOISE or noise_gate]
    shares = {
        part: rows[part].seconds / rows[part].formulas / whole for part in in_it if part in rows
    }
    rest = 1 - sum(share for part, share in shares.items() if part != LOWERING)
    return shares | {"rest": max(0.0, rest)}


def _traffic(compiled: CompiledCall) -> Work:
    return Work(flops=0.0, bytes=compiled.traffic_bytes)


def _node_pixels(population: Program, size: int, samples: int) -> float:
    return float(np.asarray(population.length).sum()) * size**2 * samples**2


def rendering_batch(programs: Program, size: int, samples: int) -> Batch:
    """These programs, to be rendered."""
    return Batch(
        arguments_fn=lambda: (programs,),
        formulas=programs.length.shape[0],
        node_pixels=_node_pixels(programs, size, samples),
        work=work_of_rendering(programs, size, samples),
    )


def _chunks(count: int, most: int) -> list[np.ndarray]:
    """Equal ranges of at most `most` indices; a few formulas may be left over."""
    number = -(-count // most)
    size = count // number
    return [np.arange(first, first + size) for first in range(0, number * size, size)]


def _picture_batches(
    subject: Subject, arguments_of: Callable[[Float[Array, "B S S 3"]], tuple]
) -> list[Batch]:
    pictures = subject.pictures
    size = min(subject.batch, len(pictures))

    def batch(first: int) -> Batch:
        return Batch(
            arguments_fn=lambda: arguments_of(pictures[first : first + size]), formulas=size
        )

    return [batch(first) for first in range(0, len(pictures) - size + 1, size)]


BUILDERS: tuple[Builder, ...] = (lowering, rendering, network, noise, variation, generation)
