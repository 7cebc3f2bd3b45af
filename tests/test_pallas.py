"""The GPU kernel: interpreted on the CPU, simulated on a GPU, and compiled as far as no GPU needs.

What its values must be is asked of it in `test_conformance.py`, like of every interpreter.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.mosaic.gpu.core import artificial_shared_memory_limit
from jax.experimental.pallas import mosaic_gpu
from jax.sharding import AbstractDevice, AbstractMesh

from evojax_art.interpreter import reference, xla
from evojax_art.interpreter.gpu import pallas
from evojax_art.language.formula import parse
from evojax_art.language.ops import keep
from evojax_art.language.program import encode
from evojax_art.language.quaternions import Coordinates
from evojax_art.lowering import packing
from evojax_art.lowering.tape import NUM_LEAVES, lower, num_registers
from evojax_art.runtime.plan import make_plan

H200 = AbstractMesh(
    (1,),
    ("device",),
    abstract_device=AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu"),
)
BLOCKS_BY_REGISTERS = 5  # on a multiprocessor: ptxas gives 92 to each of 128 threads
SHARED_MEMORY = 228 * 1024  # of a multiprocessor; each block takes 1 kB beside its own
SMOOTH = "conj rolL rolR isin iexp conj rolL rolR isin".split()


def grid(tiles: int, points: int) -> Coordinates:
    x = np.linspace(-0.5, 0.5, tiles * points, dtype=np.float32).reshape(tiles, points)
    return Coordinates(jnp.asarray(x), jnp.asarray(x[::-1] / 2), jnp.full_like(x, 0.25))


def comb(leaves: list[str]) -> str:
    """All leaves wait before the first operator."""
    text = leaves[-1]
    for leaf in reversed(leaves[:-1]):
        text = f"( - {leaf} {text} )"
    return text


# Each leaf under a subst is an instruction of its own, and all of them wait.
DEEP = f"( subst x_iy {comb([f'( {op} y_k )' for op in SMOOTH] + ['x_iy_jx_ky'])} )"
FORMULAS = [
    "x",
    "( isin ( exp ( * x_iy y_k ) ) )",
    DEEP,
    "( + ( normalize x_k ) ( conj ( * y ( q 0.125 2 3 0 ) ) ) )",
    "std",
    f"( exp ( isin {DEEP} ) )",
    "( * ( + x y ) ( + x y ) )",
    "( exp ( at ( * x_iy ( q 3 1 0 0 ) ) x_iy ) )",
]


def run(formulas, at, kept="raw", samples=1, capacity=63, **options):
    def interpret(population, at):
        tapes = jax.vmap(lower)(population)
        return pallas.interpret(tapes, at, kept, samples=samples, plan=make_plan(), **options)

    return np.asarray(jax.jit(interpret)(encode(formulas, capacity), at), np.float32)


def specified(formulas, at, kept="raw", samples=1):
    """What the values must be, by the reference interpreter."""
    exact = Coordinates(*(np.asarray(field, float) for field in at))
    values = []
    for formula in formulas:
        parts = np.stack(keep(np, reference.evaluate(parse(formula), exact), kept))
        parts = parts.reshape(len(parts), len(at.x), samples, -1).mean(axis=2)
        values.append(parts.reshape(len(parts), -1).T)
    return np.stack(values)


def test_tiles_that_are_no_whole_ones_and_samples():
    at = grid(3, 4 * 112)  # 336 pixels
    assert 1 < 336 / pallas.TILE < 2
    values = run(FORMULAS, at, "sigmoid", samples=4)
    np.testing.assert_allclose(values, specified(FORMULAS, at, "sigmoid", 4), atol=1e-5)


def test_workers_take_turns():
    at = grid(2, pallas.TILE)
    formulas = [*FORMULAS, *(f"( * {unit} {DEEP} )" for unit in "ijk")]
    values = run(formulas, at, workers=2, slots=2)
    np.testing.assert_allclose(values, specified(formulas, at), atol=2e-5)


def test_formulas_too_large_for_words_of_eight_bits():
    capacity = 511
    assert packing.field_bits(num_registers(capacity) - NUM_LEAVES) == 16
    leaves = [f"( q {n} {n / 16} {-n} 1 )" for n in range(1, 65)]
    combs = [f"( subst x_iy {comb([f'( + x {leaf} )' for leaf in leaves])} )", *FORMULAS]
    at = grid(1, 32)
    np.testing.assert_allclose(run(combs, at, capacity=capacity), specified(combs, at), atol=1e-4)


def packed(formulas, slots=pallas.SLOTS):
    @jax.jit
    def pack(population):
        tapes = xla.fold(jax.vmap(lower)(population))
        return tapes, packing.pack(tapes, slots, 8)

    return pack(encode(formulas, 63))


def rows_of(formula: str) -> np.ndarray:
    """Position of the op, slot + 1, first and second operand of its instructions."""
    tapes, fields = packed([formula])
    words = np.asarray(fields.words)[0, : int(tapes.length[0])]
    return np.stack(packing.unpack([words], 8), axis=1)


def test_a_chain_needs_no_slot():
    rows = rows_of("( isin ( rolL ( + ( conj ( * x y ) ) x ) ) )")
    assert rows[:, 1].tolist() == [0] * 5
    assert (rows[1:, 2:] == 0).any(axis=1).all()


def test_a_value_read_later_has_a_slot():
    rows = rows_of("( + ( isin x ) ( conj ( rolL y ) ) )")
    assert np.count_nonzero(rows[:, 1]) == 1
    assert np.count_nonzero(rows[-1, 2:] == 0) == 1


def test_a_result_that_is_not_the_newest_value_has_a_slot():
    tapes, fields = packed(["( isin ( rolL ( conj x ) ) )"])
    apart = tapes._replace(target=NUM_LEAVES + jnp.arange(tapes.target.shape[1])[None])
    early = apart._replace(result=apart.target[:, 1])
    repacked = packing.pack(early, pallas.SLOTS, 8)
    slots = (np.asarray(repacked.words)[0, 1:3] >> 8 & 255).tolist()
    assert slots == [2, 0]
    assert int(repacked.result[0]) == packing.FIRST_SLOT + 1
    assert int(fields.result[0]) == packing.NEWEST


def test_long_formulas_come_first_and_those_that_spill_before():
    tapes, fields = packed(FORMULAS, slots=2)
    lengths = np.asarray(tapes.length)[np.asarray(fields.order)]
    [num_spilling] = fields.num_spilling
    assert sorted(fields.order.tolist()) == list(range(len(FORMULAS)))
    assert set(fields.order[:num_spilling].tolist()) == {2, 5}
    for part in (lengths[:num_spilling], lengths[num_spilling:]):
        assert (np.diff(part) <= 0).all()


@pytest.mark.parametrize("name", ["floor", "sqrt"])
def test_composed_functions(name):
    values = np.float32([0, -0.0, 0.5, 1.5, -0.5, -1.5, 3, -3, 8388607.5, -8388607.5, 1e30, -1e30])
    values = np.append(values, np.float32([np.inf, -np.inf, np.nan, 1e-9, 7.3, 1 - 2**-24, 3e38]))
    with np.errstate(invalid="ignore"):
        expected = getattr(np, name)(values)
    result = jax.jit(getattr(pallas.KernelNumpy(), name))(values)
    np.testing.assert_allclose(result, expected, rtol=0 if name == "floor" else 2e-7)


def test_on_a_simulated_gpu():
    """Reads out of bounds and races between blocks raise; memory is NaN before it is written."""
    if not hasattr(mosaic_gpu, "InterpretGPUParams"):
        pytest.skip("this JAX has no public GPU simulation")
    at = grid(1, pallas.TILE)
    gpu = mosaic_gpu.InterpretGPUParams(detect_races=True)
    few = {"workers": 1, "slots": 3}
    values = run(FORMULAS[1:4], at, "1995", dtype=jnp.bfloat16, simulate=gpu, **few)
    expected = specified(FORMULAS[1:4], at, "1995")
    np.testing.assert_allclose(values, expected, rtol=2**-8, atol=1e-5)


def lowered_for_cuda(num_formulas, capacity, side, samples=1, **options):
    def field(*shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct(shape, dtype)

    program = encode(["x"], capacity)
    population = jax.tree.map(
        lambda leaf: field(num_formulas, *leaf.shape[1:], dtype=leaf.dtype), program
    )
    tapes = jax.eval_shape(jax.vmap(lower), population)
    points = field(side**2 // 64, 64 * samples, dtype=jnp.float32)
    plan = dataclasses.replace(make_plan(), platform="gpu")
    interpret = jax.jit(partial(pallas.interpret, samples=samples, plan=plan, **options))
    with (
        jax.sharding.use_abstract_mesh(H200),
        artificial_shared_memory_limit(SHARED_MEMORY // BLOCKS_BY_REGISTERS - 1024),
    ):
        traced = interpret.trace(tapes, at=Coordinates(points, points, points))
        return traced.lower(lowering_platforms=("cuda",))


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((4096, 128, 224), {"kept": "sigmoid"}),
        ((4096, 128, 224), {"kept": "1995", "samples": 4, "dtype": jnp.bfloat16}),
        ((16384, 64, 32), {"kept": "1995"}),
        ((16, 1024, 64), {"kept": "raw"}),
    ],
    ids=["224 sigmoid", "224 1995, samples, bfloat16", "32 1995", "wide raw"],
)
def test_lowers_for_cuda_without_a_gpu(sizes, options):
    """All of Mosaic GPU's lowering in Python; it raises where shared memory would not fit."""
    lowered = lowered_for_cuda(*sizes, **options)
    assert "@mosaic_gpu_v2" in lowered.as_text()
    [result] = jax.tree.leaves(lowered.out_info)
    channels = 4 if options["kept"] == "raw" else 3
    assert result.shape == (sizes[0], sizes[2] ** 2, channels)
    assert result.dtype == options.get("dtype", jnp.float32)


def test_more_slots_than_shared_memory_has_do_not_lower():
    with pytest.raises(ValueError, match="smem_bytes"):
        lowered_for_cuda(16, 64, 32, kept="sigmoid", slots=12)
