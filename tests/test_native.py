"""The CPU's interpreter: its own functions, the work's division, errors."""

import ctypes
import platform
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evojax_art.language.ops import KEPT
from evojax_art.language.photographs import pyramid
from evojax_art.language.program import encode
from evojax_art.lowering.tape import LANES, lower
from evojax_art.render.batch import evaluate, pixel_coordinates, render
from evojax_art.render.look import Raster

if jax.default_backend() != "cpu":
    pytest.skip("code for a CPU", allow_module_level=True)

from llvmlite import binding, ir

from evojax_art.interpreter.cpu import codegen, native
from evojax_art.native import compiler, ffi, threads
from evojax_art.native.simd import Simd, Vector

WIDTH = 8
FUNCTIONS = ("exp", "exp2", "log", "log2", "sin", "floor", "sqrt")
PICTURES = tuple(
    pyramid(np.random.default_rng(whole).random((9, 14, 3), np.float32), whole)
    for whole in (False, True)
)
TWIRLED = "( subst ( * x_iy ( exp x_iy ) ) ( * image1 ( rolL image2 ) ) )"


@pytest.fixture(scope="module")
def functions():
    """Each function of `FUNCTIONS` over arrays, compiled as the interpreter is."""
    module = ir.Module("functions")
    module.triple = binding.get_default_triple()
    pointer = ir.PointerType()
    vector = ir.VectorType(ir.FloatType(), WIDTH)
    for name in FUNCTIONS:
        kind = ir.FunctionType(ir.VoidType(), [pointer, pointer])
        function = ir.Function(module, kind, f"test_{name}")
        builder = ir.IRBuilder(function.append_basic_block())
        simd = Simd(builder, WIDTH)
        given, result = function.args
        value = getattr(simd, name)(Vector(simd, builder.load(given, align=4, typ=vector)))
        builder.store(value.value, result, align=4)
        builder.ret_void()
    engine = compiler.compiled_engine(str(module))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)

    def over_arrays(name):
        code = call(engine.get_function_address(f"test_{name}"))

        def function(values):
            values = np.resize(np.float32(values), -(-len(values) // WIDTH) * WIDTH)
            result = np.empty_like(values)
            for start in range(0, len(values), WIDTH):
                code(values[start:].ctypes.data, result[start:].ctypes.data)
            return result

        return function

    return {name: over_arrays(name) for name in FUNCTIONS}


def test_exp(functions):
    t = np.linspace(-87, 88, 10_000, dtype=np.float32)
    np.testing.assert_allclose(functions["exp"](t), np.exp(t.astype(float)), rtol=2e-7)
    assert np.isnan(functions["exp"]([np.nan] * WIDTH)).all()


def test_log(functions):
    t = np.geomspace(1e-37, 3e38, 10_000, dtype=np.float32)
    wanted = np.log(t.astype(float))
    np.testing.assert_allclose(functions["log"](t), wanted, rtol=2e-7, atol=2e-7)
    edges = functions["log"]([1.0, 0.0, np.inf, np.nan, 2.0, 0.5, 4.0, 1.0])
    np.testing.assert_allclose(edges[:3], [0, -np.inf, np.inf])
    assert np.isnan(edges[3])


def test_powers_of_two(functions):
    t = np.linspace(-126, 127, 10_000, dtype=np.float32)
    np.testing.assert_allclose(functions["exp2"](t), np.exp2(t.astype(float)), rtol=2e-7)
    whole = np.arange(-126, 128, dtype=np.float32)
    powers = np.exp2(whole.astype(float))
    np.testing.assert_array_equal(functions["exp2"](whole)[:254], powers)
    np.testing.assert_array_equal(functions["log2"](powers)[:254], whole)
    t = np.geomspace(1e-37, 3e38, 10_000, dtype=np.float32)
    np.testing.assert_allclose(functions["log2"](t), np.log2(t.astype(float)), rtol=2e-7, atol=3e-7)
    edges = functions["log2"]([0.0, np.inf, np.nan, 1.0, 2.0, 0.5, 4.0, 1.0])
    np.testing.assert_array_equal(edges, [-np.inf, np.inf, np.nan, 0, 1, -1, 2, 0])
    assert np.isnan(functions["exp2"]([np.nan] * WIDTH)).all()


def test_sin(functions):
    for largest in (1, 100, 1e4, 1e8, 1e9, 1e12, 3e38):
        t = np.linspace(-largest, largest, 10_000).astype(np.float32)
        wanted = np.sin(t.astype(float))
        np.testing.assert_allclose(functions["sin"](t), wanted, rtol=0, atol=2e-7)
    mixed = np.float32([0.5, 1e20, np.inf, -np.inf, np.nan, -0.5, 2.0, 3.0])
    with np.errstate(invalid="ignore"):
        wanted = np.sin(mixed.astype(float))
    np.testing.assert_allclose(functions["sin"](mixed), wanted, rtol=0, atol=2e-7)


def test_sines_of_large_numbers_are_nobodys_but_ours(functions):
    """To the last bit what float64 rounds to, next to multiples of half a turn too."""
    random = np.random.default_rng(0)
    t = np.exp(random.uniform(np.log(1.1e9), np.log(3.4e38), 100_000)).astype(np.float32)
    t *= random.choice(np.float32([-1, 1]), t.shape)
    near = np.float32([16367173 * 2.0**72, 2.0**30, 2.0**127, 3.4028235e38])  # 2**-29 off a turn
    for values in (t, near, -near):
        wanted = np.sin(values.astype(float)).astype(np.float32)
        np.testing.assert_array_max_ulp(functions["sin"](values)[: len(values)], wanted, 1)
        differ = np.mean(functions["sin"](values)[: len(values)] != wanted)
        assert differ < 1e-4
    module = ir.Module("declared")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "f")
    simd = Simd(ir.IRBuilder(function.append_basic_block()), 4)
    simd.sin(simd.lift(1e10))
    declared = {name for name, item in module.globals.items() if not getattr(item, "blocks", True)}
    assert all(name.startswith(("llvm.fma.", "llvm.fabs.")) for name in declared)


def test_floor_and_root(functions):
    t = np.float32([-1.5, -1, -0.0, 0.25, 1.75, 1e9, np.inf, 7])
    np.testing.assert_array_equal(functions["floor"](t), np.floor(t))
    np.testing.assert_array_equal(functions["sqrt"](np.abs(t)), np.sqrt(np.abs(t)))


def drawn(formulas, height, width, samples, **options):
    """Values [P, pixels, 4] by the native target itself, called as XLA calls it."""
    population = encode(formulas, 16)
    tapes = jax.jit(jax.vmap(lower))(population)
    tile = 256 // samples**2 // LANES * LANES
    index = np.arange(-(-height * width // tile) * tile).reshape(-1, 1, tile)
    raster = Raster(height=height, width=width, samples=samples)
    at = pixel_coordinates(jnp.asarray(index % width), jnp.asarray(index // width), 0.25, raster)
    given = [np.asarray(array) for array in (*tapes, *at, *PICTURES[0], *PICTURES[1])]
    result = np.empty((len(formulas), index.size, 4), np.float32)
    attributes = {"samples": samples**2, "kind": KEPT.index("raw"), "per_pixel": samples**2}
    native.run(given, [result], attributes, **options)
    return result[:, : height * width]


@pytest.mark.parametrize(("height", "width", "samples"), [(1, 1, 1), (5, 8, 3), (40, 40, 1)])
def test_pictures_do_not_hang_on_the_division_of_the_work(height, width, samples):
    formulas = ["( exp x_iy_jx_ky )", TWIRLED, "( * ( iexp ( + i image1 ) ) ( isin y_k ) )"]
    one = drawn(formulas, height, width, samples, num_threads=1)
    for num_threads in (2, 7):
        together = drawn(formulas, height, width, samples, num_threads=num_threads)
        np.testing.assert_array_equal(together, one)
        alone = drawn(formulas[2:], height, width, samples, num_threads=num_threads)
        np.testing.assert_array_equal(alone[0], one[2])


def test_renders_can_be_vmapped():
    population = encode(["( exp ( * x_k y ) )"], 16)
    times = jnp.array([0.0, 0.25])
    together = jax.vmap(lambda z: render(population, 4, 4, z))(times)
    for z, pictures in zip(times, together, strict=True):
        np.testing.assert_array_equal(pictures, render(population, 4, 4, z))


def test_renders_can_be_vmapped_over_pictures():
    population = encode([TWIRLED, "( + ( * x_k y ) image2 )"], 16)
    batch = jax.tree.map(lambda *fields: jnp.stack(fields), *PICTURES)
    times = jnp.array([0.0, 0.25])
    together = jax.vmap(
        lambda z, image: render(population, 6, 7, z, samples=2, images=(image, PICTURES[1]))
    )(times, batch)
    for z, image, pictures in zip(times, PICTURES, together, strict=True):
        alone = render(population, 6, 7, z, samples=2, images=(image, PICTURES[1]))
        np.testing.assert_array_equal(pictures, alone)
    assert np.abs(together[0, 0] - together[1, 0]).max() > 0.1


def test_no_picture_is_copied():
    """A photograph may have hundreds of megabytes; compiled code takes it where it is."""
    image = PICTURES[0]._replace(texels=jnp.zeros((1 << 20, 3)))
    population = encode([TWIRLED], 16)
    draw = jax.jit(lambda image: render(population, 8, 8, images=(image, image)))
    compiled = draw.lower(image).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < image.texels.nbytes / 10


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86's control register")
def test_threads_that_flush_denormals_compute_the_same():
    word = np.array([0x9FC0], np.int32)  # flush to zero, denormals are zero, nothing traps
    module = ir.Module("flush")
    module.triple = binding.get_default_triple()
    pointer = ir.PointerType()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer]), "flush")
    load = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer]), "llvm.x86.sse.ldmxcsr")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.call(load, function.args)
    builder.ret_void()
    engine = compiler.compiled_engine(str(module))
    flush = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("flush"))
    population = encode(["( * x_k ( q 1e-38 0 0 0 ) )"], 16)
    expected = np.asarray(evaluate(population, 16, 16))
    assert ((expected != 0) & (np.abs(expected) < 1e-38)).any()
    for _ in range(8):
        threads.pool().submit(flush, word.ctypes.data).result()
    np.testing.assert_array_equal(evaluate(population, 16, 16), expected)


def test_widths_of_vectors_agree():
    formulas = ["( / ( exp x_iy ) ( + x_k ( isin y ) ) )", "( ilog ( normp x_iy ) )", TWIRLED]
    values = [
        drawn(formulas, 10, 10, 1, code=compiler.compiled(codegen.SOURCE, width))
        for width in (4, 8, 16)
    ]
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


def test_an_exception_in_a_target_becomes_an_error():
    def fails(operands, results, attributes):
        raise ValueError(f"no {attributes['what']} today, {attributes['times']} times")

    ffi.register("evojax_art_test_fails", fails)
    call = jax.ffi.ffi_call("evojax_art_test_fails", jax.ShapeDtypeStruct((2,), jnp.float32))
    with pytest.raises(Exception, match="ValueError: no luck today, 3 times"):
        jax.block_until_ready(
            jax.jit(lambda x: call(x, what="luck", times=np.int64(3)))(jnp.ones(2))
        )


def test_a_target_sees_arrays_and_fills_results():
    def doubles(operands, results, attributes):
        (given,), (result,) = operands, results
        result[...] = 2 * given

    ffi.register("evojax_art_test_doubles", doubles)
    given = jnp.arange(6, dtype=jnp.int32).reshape(2, 3)
    call = jax.ffi.ffi_call("evojax_art_test_doubles", jax.ShapeDtypeStruct((2, 3), jnp.int32))
    np.testing.assert_array_equal(jax.jit(call)(given), 2 * given)
    empty = jax.ffi.ffi_call("evojax_art_test_doubles", jax.ShapeDtypeStruct((0,), jnp.int32))
    assert empty(jnp.zeros(0, jnp.int32)).shape == (0,)


def test_a_start_waits_for_neither_llvm_nor_pallas():
    loaded = "{'llvmlite', 'jax.experimental.pallas'} & set(sys.modules)"
    code = f"import sys, evojax_art.cli.main; print({loaded})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_all_calls_have_ended_when_one_has_failed():
    """What native code writes into is XLA's, which frees it once the target returns."""
    started, failed, ended = threading.Event(), threading.Event(), threading.Event()

    def task(name):
        if name == "slow":
            started.set()
            assert failed.wait(10)
            time.sleep(0.05)
            ended.set()
        elif name == "fails":
            assert started.wait(10)
            failed.set()
            raise ValueError("no")

    wide = ThreadPoolExecutor(2)
    with pytest.raises(ValueError, match="no"):
        threads.run_all(task, ["slow", "fails", *["more"] * 8], wide)
    assert ended.is_set()


class Interrupted(ThreadPoolExecutor):
    """Threads on which Ctrl-C arrives while one waits for them."""

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        future.result = self._interrupt  # type: ignore[method-assign]
        return future

    def _interrupt(self, timeout=None):
        raise KeyboardInterrupt


def test_ctrl_c_waits_for_all_calls():
    started, ended = threading.Event(), threading.Event()

    def task(_):
        started.set()
        time.sleep(0.05)
        ended.set()

    pool = Interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        threads.run_all(task, iter([0]), pool)
    assert ended.is_set() or not started.is_set()


FIRST_USE = """
import threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from evojax_art.interpreter.cpu import native
from evojax_art.native import compiler, ffi, threads
import evojax_art as ea

registered, compiled = [], []
register, submit = ffi.jax.ffi.register_ffi_target, ThreadPoolExecutor.submit
def counting_register(name, *rest, **options):
    registered.append(name)
    return register(name, *rest, **options)
def counting_submit(pool, fn, *rest):
    if fn is compiler.compiled:
        compiled.append(rest[0])
    return submit(pool, fn, *rest)
ffi.jax.ffi.register_ffi_target = counting_register
ThreadPoolExecutor.submit = counting_submit

population = ea.encode(["( exp ( * x_iy_jx_ky y_k ) )"])
together, pictures, pools = threading.Barrier(8), [], []
def use(number):
    together.wait()
    pools.append(threads.pool())
    pictures.append(np.asarray(ea.render(population, 16 + number % 2, 16)).tobytes())
users = [threading.Thread(target=use, args=(number,)) for number in range(8)]
[user.start() for user in users]
[user.join() for user in users]
print(len(pictures), len(set(pictures)), len(set(map(id, pools))), len(compiled))
print(sorted(registered))
"""


def test_eight_threads_may_be_the_first():
    ran = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    counts, registered = ran.stdout.splitlines()
    assert counts.split() == ["8", "2", "1", "1"]
    assert registered == "['evojax_art_interpret', 'evojax_art_probe']"


@pytest.mark.parametrize(
    ("reported", "said"),
    [
        ((0, 3), ""),
        ((0, 9), ""),
        ((0, 2), "has version 0.2, older than 0.3"),
        ((1, 0), "has version 1.0, whose structures are unknown here"),
        (None, "does not say which version"),
    ],
)
def test_versions_of_xlas_interface(reported, said):
    assert said in ffi.mismatch(reported)
    assert bool(ffi.mismatch(reported)) == bool(said)


UNKNOWN_VERSION = "from evojax_art.native import ffi; ffi._VERSION = (0, 99)"
NO_LLVM = "import sys; sys.modules['llvmlite'] = None"


@pytest.mark.parametrize(
    ("handicap", "said"), [(UNKNOWN_VERSION, "XLA refuses"), (NO_LLVM, "LLVM")]
)
def test_without_native_code_plain_jax_draws_and_one_line_says_so(handicap, said):
    code = f"""
import warnings; warnings.simplefilter("error")
{handicap}
import evojax_art as ea
from evojax_art.runtime.plan import current_plan
plan = current_plan()
print(plan.implementation, plan.photograph_implementation, plan.gradient_implementation)
print(ea.render(ea.encode(["x_iy"]), 8, 8).shape)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["switch switch xla", "(1, 8, 8, 3)"]
    (line,) = ran.stderr.splitlines()
    assert line.startswith("no native code on this CPU: ")
    assert said in line
