"""The CPU's interpreter: its own functions, the work's division, errors."""

import ctypes
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evojax_art.language.photographs import pyramid
from evojax_art.language.program import encode
from evojax_art.render.batch import evaluate, render

if jax.default_backend() != "cpu":
    pytest.skip("code for a CPU", allow_module_level=True)

from llvmlite import binding, ir

from evojax_art.interpreter.cpu import ffi, native
from evojax_art.interpreter.cpu.simd import Simd, Vector

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
    engine = native.compiled_engine(str(module))
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


def test_floor_and_root(functions):
    t = np.float32([-1.5, -1, -0.0, 0.25, 1.75, 1e9, np.inf, 7])
    np.testing.assert_array_equal(functions["floor"](t), np.floor(t))
    np.testing.assert_array_equal(functions["sqrt"](np.abs(t)), np.sqrt(np.abs(t)))


@pytest.mark.parametrize(("height", "width", "samples"), [(1, 1, 1), (5, 7, 3), (40, 40, 1)])
def test_pictures_do_not_hang_on_the_division_of_the_work(height, width, samples, monkeypatch):
    formulas = ["( exp x_iy_jx_ky )", TWIRLED, "( * ( iexp ( + i image1 ) ) ( isin y_k ) )"]
    pictures = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(native, "num_cores", lambda threads=threads: threads)
        together, alone = (
            render(encode(some, 16), height, width, samples=samples, images=PICTURES)
            for some in (formulas, formulas[2:])
        )
        assert together.shape == (3, height, width, 3)
        pictures.append(np.concatenate([together, alone]))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])
    np.testing.assert_array_equal(pictures[0][2], pictures[0][3])


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
    engine = native.compiled_engine(str(module))
    flush = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("flush"))
    population = encode(["( * x_k ( q 1e-38 0 0 0 ) )"], 16)
    expected = np.asarray(evaluate(population, 16, 16))
    assert ((expected != 0) & (np.abs(expected) < 1e-38)).any()
    for _ in range(8):
        native.pool().submit(flush, word.ctypes.data).result()
    np.testing.assert_array_equal(evaluate(population, 16, 16), expected)


def test_widths_of_vectors_agree(monkeypatch):
    texts = ["( / ( exp x_iy ) ( + x_k ( isin y ) ) )", "( ilog ( normp x_iy ) )", TWIRLED]
    population = encode(texts, 16)
    pictures = []
    for width in (4, 8, 16):
        monkeypatch.setattr(native, "_width", lambda width=width: width)
        native.code_of.cache_clear()
        pictures.append(np.asarray(evaluate(population, 9, 9, images=PICTURES)))
    native.code_of.cache_clear()
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


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
