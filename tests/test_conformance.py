"""What the language means, asked of every interpreter: a new one is one more line in a fixture."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from strategies import expressions

from evojax_art.interpreter import reference
from evojax_art.interpreter.api import interpret
from evojax_art.language import ops
from evojax_art.language.formula import Expression, Node, parse, to_text
from evojax_art.language.ops import BY_NAME
from evojax_art.language.photographs import pyramid
from evojax_art.language.program import encode, to_expressions
from evojax_art.language.quaternions import Coordinates, Quaternion
from evojax_art.render.large import to_bytes
from evojax_art.runtime.plan import make_plan
from evojax_art.search.variation import GrowthConfig, grow

POPULATION = 64  # all calls share one shape, because compiling takes seconds
CAPACITY = 63  # odd: then a comb of constants fills every register that `num_registers` allows
POINTS = 64
SAMPLES = 4

_interpret = jax.jit(
    lambda population, at, plan, images, samples: interpret(
        population, at, "raw", samples, plan=plan, images=images, separately=True
    ),
    static_argnames=("plan", "samples"),
)


class Interpreter:
    """Values [formulas, points, 4] of formulas at coordinates [3, points].

    Where there are pictures, each is read with `SAMPLES` points of a pixel.
    """

    def __init__(self, implementation: str):
        self.name = implementation
        self.exact = implementation == "reference"  # float64 throughout
        self.plan = None if self.exact else make_plan(implementation=implementation)

    def __call__(self, formulas, at=((0.0,), (0.0,), (0.0,)), images=()) -> np.ndarray:
        trees = [parse(item) if isinstance(item, str) else item for item in formulas]
        at = np.asarray(at, float)
        samples = SAMPLES if images else 1
        if self.exact:
            here = Coordinates(*at)
            values = [reference.evaluate(tree, here, images, samples) for tree in trees]
            return np.stack([np.stack(value, axis=-1) for value in values])
        num_points = at.shape[1]
        at = jnp.asarray(np.resize(at.T, (POINTS, 3)).T[:, None], jnp.float32)
        batches = [trees[first : first + POPULATION] for first in range(0, len(trees), POPULATION)]
        values = []
        for batch in batches:
            full = batch + [parse("x")] * (POPULATION - len(batch))
            population = encode(full, CAPACITY)
            kept = _interpret(population, Coordinates(*at), self.plan, images, samples)
            values.append(np.asarray(kept)[: len(batch), :num_points])
        return np.concatenate(values).astype(float)


@pytest.fixture(scope="module", params=["reference", "native", "switch", "lockstep", "pallas"])
def interpreter(request) -> Interpreter:
    return interpreter_named(request.param)


@pytest.fixture(scope="module", params=["native", "switch", "lockstep", "pallas"])
def device_interpreter(request) -> Interpreter:
    return interpreter_named(request.param)


def interpreter_named(name: str) -> Interpreter:
    if name == "native" and jax.default_backend() != "cpu":
        pytest.skip("native code is for a CPU")
    return Interpreter(name)


specification = Interpreter("reference")


@pytest.fixture(scope="module")
def vectors(gart):
    with np.load(gart / "op_vectors_public.npz") as stored:
        return dict(stored)


def constant(components) -> Expression:
    """A `q` leaf that keeps float64; encoding rounds it."""
    return Expression((Node(BY_NAME["q"], tuple(map(float, components))),))


def applied(name: str, *operands: Expression) -> Expression:
    postfix = sum((operand.postfix for operand in operands), ())
    return Expression((*postfix, Node(BY_NAME[name])))


def largest(values: np.ndarray) -> np.ndarray:
    return np.abs(values).max(axis=-1, keepdims=True)


def tolerance(name: str, a: np.ndarray, b: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of float32: 1e-6 of the products that the op sums, which are as large as the value unless
    they cancel."""
    size = largest(expected)
    if name in ("+", "-", "mod"):
        size = size + largest(a) + largest(b)
    if name == "exp":
        # Terms of the series: a power of 10 brings a's norm below 30.
        norm = np.linalg.norm(a, axis=-1, keepdims=True)
        norm = norm / 10 ** np.where(norm < 30, 0, np.floor(np.log10(norm / 30 + 1e-30)) + 1)
        size = np.exp(norm)
    if name in ("isin", "ilog"):
        size = 1 + (0.1 * largest(a) if name == "isin" else size)
    return 1e-6 * size


LATER = [op.name for op in ops.OPS if op.is_later]


def stored_ops(vectors, *arities: int):
    names = zip(vectors["op_names"], vectors["op_arity"], vectors["out"], strict=True)
    return [(str(name), arity, out) for name, arity, out in names if arity in arities]


def test_the_vectors_cover_every_op(vectors):
    meant_elsewhere = {"q", "subst", "at", *(op.name for op in ops.IMAGES), *LATER}
    assert set(BY_NAME) == set(vectors["op_names"].tolist()) | meant_elsewhere
    for name, arity, _ in stored_ops(vectors, 0, 1, 2):
        assert BY_NAME[name].arity == arity


def test_operators(interpreter, vectors):
    listed = stored_ops(vectors, 1, 2)
    operands = [vectors["a"], vectors["b"]]
    formulas = [
        applied(name, *(constant(values[case]) for values in operands[:arity]))
        for name, arity, _ in listed
        for case in range(32)
    ]
    values = interpreter(formulas)[:, 0].reshape(len(listed), 32, 4)
    rounded = [parse(to_text(formula)) for formula in formulas]
    exact = specification(rounded)[:, 0].reshape(values.shape)
    a, b = (values.astype(np.float32).astype(float) for values in operands)
    for (name, _, stored), value, of_rounded in zip(listed, values, exact, strict=True):
        expected = stored if interpreter.exact else of_rounded
        allowed = 1e-12 * largest(stored) if interpreter.exact else tolerance(name, a, b, expected)
        wrong = np.abs(value - expected) > allowed
        if name == "mod" and not interpreter.exact:
            # The quotient may step by one where it lies within rounding of an integer.
            pairs = zip(a, b, strict=True)
            quotient = specification([applied("/", *map(constant, pair)) for pair in pairs])[:, 0]
            near = np.abs(quotient - np.round(quotient)) <= 1e-6 * np.maximum(1, largest(quotient))
            wrong &= ~near.any(axis=-1, keepdims=True)
        assert not wrong.any(), f"{name}: cases {np.flatnonzero(wrong.any(axis=-1)).tolist()}"


def test_later_operators(interpreter):
    random = np.random.default_rng(7)
    a, b = random.normal(0, 1.5, (2, 32, 4)).astype(np.float32).astype(float)
    a[:8, 0] *= 0.03  # where `over` has its soft edge
    mask = 1 / (1 + np.exp(-np.clip(40 * a[:, :1], -30, 30)))
    expected = {
        "iabs": np.abs(a),
        "igauss": np.exp(-np.minimum(a * a, 30)),
        "itanh": np.tanh(a),
        "norm": np.stack([np.linalg.norm(a, axis=1), *np.zeros((3, 32))], axis=1),
        "over": mask * a + (1 - mask) * b,
    }
    assert {*expected, "noise", "clouds", "mirror", "radius"} == set(LATER)
    for name, wanted in expected.items():
        operands = (a, b)[: BY_NAME[name].arity]
        formulas = [applied(name, *map(constant, case)) for case in zip(*operands, strict=True)]
        np.testing.assert_allclose(interpreter(formulas)[:, 0], wanted, atol=3e-6, err_msg=name)


def test_later_leaves(interpreter):
    x, y, z = np.random.default_rng(8).uniform(-0.7, 0.7, (3, 64)).astype(np.float32).astype(float)
    mirror, radius = interpreter(["mirror", "radius"], (x, y, z))
    np.testing.assert_allclose(mirror, np.stack([np.abs(x), y, z, z], 1), atol=1e-6)
    expected = np.stack([np.hypot(x, y), 0 * x, 0 * x, z], 1)
    np.testing.assert_allclose(radius, expected, atol=1e-6)


def test_clouds_are_noise_of_several_sizes(interpreter):
    a = np.random.default_rng(9).normal(0, 2, (16, 4)).astype(np.float32).astype(float)
    (clouds, *octaves) = [
        interpreter([applied(name, constant(scale * case)) for case in a])[:, 0]
        for name, scale in (("clouds", 1), ("noise", 1), ("noise", 2), ("noise", 4), ("noise", 8))
    ]
    total = sum(octave / 2**n for n, octave in enumerate(octaves))
    np.testing.assert_allclose(clouds, total, atol=2e-5)
    assert np.abs(clouds).max() > 1


def test_noise_has_random_corners_and_smooth_steps_between(interpreter):
    """Corners by integers, which are exact."""

    def permuted(n: int) -> int:
        return (34 * n + 1) * n % 289

    def corner(column: int, row: int) -> list[float]:
        place = permuted((permuted(column % 289) + row) % 289)
        return [permuted((place + 57 * n) % 289) / 144 - 1 for n in range(4)]

    places = [(0, 0), (3, -2), (-290, 7), (288, 289), (1000, -1000)]
    between = [(c + 0.25, r) for c, r in places] + [(c, r + 0.5) for c, r in places]
    asked = [constant((c / 8, r / 8, 9.0, -4.0)) for c, r in [*places, *between]]
    values = interpreter([applied("noise", operand) for operand in asked])[:, 0]
    corners = np.array([corner(*place) for place in places])
    right = np.array([corner(c + 1, r) for c, r in places])
    below = np.array([corner(c, r + 1) for c, r in places])
    step = 0.25**2 * (3 - 2 * 0.25)
    expected = [*corners, *(corners + step * (right - corners)), *((corners + below) / 2)]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert np.abs(corners).max() <= 1
    assert np.std(np.array([corner(c, 5) for c in range(289)])) > 0.5


def uncrunch_slope(t: np.ndarray) -> np.ndarray:
    return 1 / np.clip((1 - t * t) / 4, 1e-7, None)


def test_leaves(interpreter, vectors):
    listed = stored_ops(vectors, 0)
    points = vectors["xyz"]
    for (name, _, stored), value in zip(
        listed, interpreter([name for name, _, _ in listed], points.T), strict=True
    ):
        allowed = 1e-12 * np.maximum(1, largest(stored))
        if not interpreter.exact:
            allowed = 1e-6 * np.ones_like(stored)
            if name == "std":  # steep near the ends: an error of the coordinate is magnified
                allowed[:, 1:] *= uncrunch_slope(points)
        assert (np.abs(value - stored) <= allowed).all(), name


def test_subst_vectors(interpreter, vectors):
    coordinates = vectors["subst_coords"]
    wrapped = ops.frame_coordinates(np, Quaternion(*vectors["a"].T))
    np.testing.assert_allclose(np.stack(wrapped, axis=-1), coordinates, rtol=0, atol=1e-12)
    for leaf in ("x_iy_jx_ky", "std"):
        formulas = [applied("subst", constant(a), parse(leaf)) for a in vectors["a"]]
        values = interpreter(formulas)[:, 0]
        expected = vectors[f"subst_of_{leaf}"]
        allowed = 1e-12 * largest(expected)
        if not interpreter.exact:
            # Rounded operands: the rest of 2e6 behind its point is known to 0.1 only.
            expected = specification([parse(to_text(formula)) for formula in formulas])[:, 0]
            allowed = np.full_like(expected, 1e-6)
            if leaf == "std":
                allowed[:, 1:] *= uncrunch_slope(coordinates)
        assert (np.abs(values - expected) <= allowed).all(), leaf


def test_constant(interpreter):
    value = interpreter(["( q 1 -2.5 0.1 3e30 )"])[0, 0]
    np.testing.assert_array_equal(value, np.float32([1, -2.5, 0.1, 3e30]).astype(float))


def wrap(t):
    return t - np.floor(t + 0.5)


GRID = np.stack(np.meshgrid(np.arange(-4, 4) / 8, np.arange(-4, 4) / 8)).reshape(2, -1)
X, Y, Z = AT = np.stack([*GRID, np.full(64, 0.25)])
O = np.zeros(64)  # noqa: E741


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("( subst ( q 0.125 0.25 -0.25 7 ) x_iy )", (O + 0.125, O + 0.25, O - 0.25, O - 0.25)),
        ("( subst x_iy x_k )", (X, O, O, 1 + Z)),
        ("( subst y x_k )", (Y, O, O, O + 1)),  # z is replaced, by the j component
        ("( subst ( q 0 0 0.375 0 ) y_k )", (O, O, O, O + 1.375)),
        ("( subst ( + x_iy x_iy ) x_iy_jx_ky )", (wrap(2 * X), wrap(2 * Y), None, None)),
        ("( subst ( q 0.5 -0.5 0.75 0 ) x_iy )", (O - 0.5, O - 0.5, O - 0.25, O - 0.25)),
        ("( subst ( q -0.75 1.5 -2.5 0 ) x_iy )", (O + 0.25, O - 0.5, O - 0.5, O - 0.5)),
        ("( subst x i )", (O, O + 1, O, O)),
        ("( + ( subst y x ) x )", (Y + X, O, O, O)),
        ("( + x ( subst y x ) )", (X + Y, O, O, O)),
        ("( - ( subst y ( + x x ) ) ( subst x y ) )", (2 * Y, O, O, O)),
        ("( subst ( rolL x_iy ) ( + x ( subst y ( + x x ) ) ) )", (Y + 2 * Z, O, O, O)),
        ("( subst ( subst y ( + x x ) ) x )", (wrap(2 * Y), O, O, O)),
        ("( subst ( rolL x_iy ) ( subst ( rolR x_iy ) x_iy ) )", (Z, Y, Z, Z)),
        ("( subst y ( - ( subst ( + x x ) x ) x ) )", (wrap(2 * Y) - Y, O, O, O)),
        ("( subst x ( subst x ( subst x ( subst x ( + y x ) ) ) ) )", (X, O, O, O)),
        ("( at ( q 0.5 -1.5 0.75 7 ) x_iy )", (O + 0.5, O - 1.5, O + 0.75, O + 0.75)),
        ("( at ( + x_iy x_iy ) x_iy_jx_ky )", (2 * X, 2 * Y, None, None)),
        ("( - ( at ( + x x ) x_iy ) ( subst ( + x x ) x_iy ) )", (2 * X - wrap(2 * X), O, O, O)),
        ("( subst ( + y y ) ( at ( + x x ) x ) )", (2 * wrap(2 * Y), O, O, O)),
        ("( at ( + y y ) ( subst ( + x x ) x ) )", (wrap(4 * Y), O, O, O)),
        ("( at x i )", (O, O + 1, O, O)),
    ],
)
def test_frames_replace_all_coordinates_on_their_right_only(interpreter, formula, expected):
    value = interpreter([formula], AT)[0]
    for component, wanted in zip(value.T, expected, strict=True):
        if wanted is not None:
            np.testing.assert_array_equal(component, wanted)


def test_crunch_vectors(vectors):
    given = vectors["crunch_in"]
    for name, kind in (("buggy", "1995"), ("correct", "sigmoid")):
        expected = np.nan_to_num(vectors[f"crunch_{name}"])  # the original's NaN is seen as black
        np.testing.assert_allclose(ops.crunch(np, given, kind), expected, rtol=1e-12)
        on_device = ops.crunch(jnp, jnp.float32(given), kind)
        of_rounded = ops.crunch(np, given.astype(np.float32).astype(float), kind)
        np.testing.assert_allclose(on_device, of_rounded, rtol=2e-6)
    colours = to_bytes(ops.crunch(np, given, "1995"))
    assert colours.tolist() == vectors["crunch_buggy_byte"].tolist()


def test_crunch_of_what_is_no_number():
    values = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 30, -30])
    almost_one, almost_zero = 1 / (1 + np.exp([-30.0, 30.0]))
    for xp in (np, jnp):
        with np.errstate(over="ignore"):
            values = xp.asarray(values, "float32" if xp is jnp else "float64")
        np.testing.assert_allclose(ops.crunch(xp, values, "sigmoid"), [0, 1, 0, 1, 0, 1, 0])
        np.testing.assert_allclose(
            ops.crunch(xp, values, "1995"), [0, 0, 0, 0, 0, almost_one, almost_zero], rtol=1e-6
        )


def test_uncrunch_vectors(vectors):
    values = ops.uncrunch(np, vectors["uncrunch_in"])
    np.testing.assert_allclose(values, vectors["uncrunch_out"], rtol=1e-12)


def series(a: float) -> float:
    terms = np.cumprod([1.0, *(a / n for n in range(1, 10))])
    return float(terms.sum())


@pytest.mark.parametrize(
    ("real", "scaled"),
    [
        (29.75, 29.75),
        (30, 3),
        (-30, -3),
        (299, 29.9),
        (301, 3.01),
        (1e6, 10),
        (-2e11, -20),
        (1e20, 10),
        (1e30, 10),
        (-2.5e38, -25),
    ],
)
def test_exp_divides_large_values_by_ten(interpreter, real, scaled):
    value = interpreter([f"( exp ( q {real} 0 0 0 ) )"])[0, 0]
    # Alternating terms as large as e^|a| cancel where a is negative.
    assert value[0] == pytest.approx(series(scaled), rel=1e-5, abs=2e-6 * np.exp(abs(scaled)))
    assert value[1:].tolist() == [0, 0, 0]


def test_exp_scales_point_by_point(interpreter):
    values = interpreter(["( exp ( + y ( * x ( q 800 0 0 0 ) ) ) )"], (X, Y, O))[0]
    real = 800 * X + Y
    scaled = np.where(np.abs(real) < 30, real, real / 10)
    scaled = np.where(np.abs(scaled) < 30, scaled, scaled / 10)
    expected = np.array([series(a) for a in scaled])
    assert np.allclose(values[:, 0], expected, rtol=1e-5, atol=2e-6 * np.exp(np.abs(scaled)))


def test_exp_of_what_is_no_number_ends(interpreter):
    x = [np.inf, -np.inf, np.nan, 0.0]
    values = interpreter(["( exp x )", "( exp x_iy_jx_ky )"], (x, [0.0] * 4, [0.0] * 4))
    assert not np.isfinite(values[:, :2]).all(axis=-1).any()
    assert np.isnan(values[:, 2, 0]).all()
    assert values[:, 3].tolist() == [[1, 0, 0, 0]] * 2


def test_exp_of_the_largest_numbers_is_finite(interpreter):
    value = interpreter(["( exp ( q 3e38 3e38 -3e38 3e38 ) )"])[0, 0]
    norm = 6e38
    while norm >= 30:
        norm /= 10
    direction = np.array([3e38, 3e38, -3e38, 3e38]) / 6e38
    a = Quaternion(*(np.float64(component) * norm for component in direction))
    expected = np.array(BY_NAME["exp"].fn(np, a))
    np.testing.assert_allclose(value, expected, rtol=0, atol=2e-6 * np.exp(norm))


# Ops that round nothing on small multiples of 1/16: every interpreter must agree to the last bit.
EXACT_OPS = [
    BY_NAME[name]
    for name in (
        *["q", "1", "i", "j", "k", "x", "y", "x_k", "y_k", "x_iy", "x_iy_jx_ky"],
        *["conj", "floor", "rolL", "rolR", "+", "-", "imin", "imax", "subst", "at"],
    )
]
SIXTEENTHS = st.integers(-128, 128).map(lambda n: n / 16)


@settings(max_examples=40)
@given(st.lists(expressions(CAPACITY, EXACT_OPS, SIXTEENTHS), min_size=8, max_size=POPULATION))
def test_exact_formulas_agree_to_the_last_bit(device_interpreter, formulas):
    np.testing.assert_array_equal(device_interpreter(formulas, AT), specification(formulas, AT))


def comb(leaves: list[str], operator: str) -> str:
    """Right operands nest, so that all leaves wait before the first operator."""
    text = leaves[-1]
    for leaf in reversed(leaves[:-1]):
        text = f"( {operator} {leaf} {text} )"
    return text


def test_formulas_that_fill_every_register(device_interpreter):
    constants = [f"( q {n} {n / 16} {-n} 1 )" for n in range(1, 33)]
    here = ["x_iy", "y_k", "x_iy_jx_ky"]
    nested = comb(here * 2, "-")
    for _ in range(5):
        nested = f"( subst ( rolL x_iy ) ( - {nested} x_k ) )"
    formulas = [
        comb(constants, "-"),
        f"( subst x_iy {comb(constants[:31], '-')} )",
        f"( subst x_iy {comb((here * 11)[:31], '-')} )",
        f"( subst ( q 0.125 0.25 0.5 0 ) {comb([*constants[:20], *here * 3], '-')} )",
        comb([*constants[:15], f"( subst y {comb((here * 5)[:15], '-')} )"], "-"),
        nested,
    ]
    lengths = [len(parse(formula)) for formula in formulas]
    assert lengths[:3] == [CAPACITY] * 3
    np.testing.assert_array_equal(device_interpreter(formulas, AT), specification(formulas, AT))


@pytest.fixture(scope="module")
def random_formulas():
    keys = jax.random.split(jax.random.key(20150622), 4 * POPULATION)
    growth = GrowthConfig(binary=0.45, unary=0.5)
    population = jax.jit(jax.vmap(partial(grow, capacity=CAPACITY, config=growth)))(keys)
    return to_expressions(population)


# Where a value steps, two roundings of one formula may fall on different sides.
STEPPING = {"floor": "conj", "mod": "-", "normp": "isin", "subst": "imin"}


def without_steps(formula: Expression) -> Expression:
    names = [STEPPING.get(node.op.name, node.op.name) for node in formula.postfix]
    return Expression(tuple(Node(BY_NAME[name]) for name in names))


def test_random_formulas_agree_on_most_points(device_interpreter, random_formulas):
    formulas = list(map(without_steps, random_formulas))
    values, expected = (run(formulas, AT) for run in (device_interpreter, specification))
    colours, wanted = (ops.crunch(np, t, "sigmoid") for t in (values, expected))
    agrees = (np.abs(colours - wanted) <= 1 / 255).all(axis=-1)
    assert agrees.mean() > 0.98
    assert (agrees.mean(axis=1) >= 0.9).mean() > 0.95


def test_a_picture_that_is_not_bound_is_nothing(interpreter):
    values = interpreter(["image1", "( subst x_iy image4 )", "( + image2 x_iy )", "x_iy"], AT)
    assert not values[:2].any()
    np.testing.assert_array_equal(values[2], values[3])


PICTURES = (  # of sizes even, odd, and such that a level has but one row
    pyramid(data.cat()[:40, :60] / np.float32(255)),
    pyramid(data.astronaut()[:41, :57] / np.float32(255), whole=True),
    pyramid(data.cat()[99:100, :50:10] / np.float32(255)),
)


@pytest.fixture(scope="module", params=["native", "switch", "lockstep"])
def picture_interpreter(request) -> Interpreter:
    return interpreter_named(request.param)


# Frames have no seam near a point of the grid, where two roundings could fall on different sides.
PICTURE_FORMULAS = [
    "image1",
    "image2",
    "( - image2 image1 )",
    "( subst ( * x_iy ( q 0.43 0.21 0 0 ) ) image1 )",
    "( subst ( q 0.1 -0.2 0 0 ) image2 )",
    "( subst ( subst ( * y ( q 0.7 0 0 0 ) ) ( exp x_iy ) ) ( * image1 ( isin image2 ) ) )",
    "( subst ( * image1 ( q 0 0.03 0.04 0 ) ) image2 )",
    "( + image1 ( subst ( * x_iy ( q 0.3 0 0.1 0.2 ) ) ( subst image1 image1 ) ) )",
    "( at ( * x_iy ( q 1.3 0.4 0 0 ) ) image1 )",
    "image3",
    "( + image4 image2 )",
    "( subst image4 image1 )",
]
CONSTANT_PICTURES = ("( subst ( q 0.1 -0.2 0 0 ) image2 )", "( subst image4 image1 )")


def test_pictures(picture_interpreter):
    wanted = check_pictures(picture_interpreter, PICTURE_FORMULAS, AT)
    varies = wanted.std(axis=1).max(axis=-1) > 1e-3
    assert varies.tolist() == [f not in CONSTANT_PICTURES for f in PICTURE_FORMULAS]


def check_pictures(picture_interpreter: Interpreter, formulas: list[str], at) -> np.ndarray:
    """Compares colours with the specification's, and returns these."""
    values = picture_interpreter(formulas, at, PICTURES)
    expected = specification(formulas, at, PICTURES)
    assert np.isfinite(values).all()
    colours, wanted = (ops.crunch(np, t, "sigmoid") for t in (values, expected))
    np.testing.assert_allclose(colours, wanted, atol=2e-6)
    return wanted


def test_levels_of_pictures(picture_interpreter):
    """Neighbours a part of a pixel to many pictures apart, in every direction."""
    random = np.random.default_rng(5)
    x, y = random.uniform(-0.4, 0.4, (2, POINTS))
    distance, angle = np.geomspace(1e-3, 30, POINTS // 2), random.uniform(0, 6, POINTS // 2)
    x[1::2] = x[::2] + distance * np.cos(angle)
    y[1::2] = y[::2] + distance * np.sin(angle)
    formulas = ["image1", "image2", "image3", "( subst ( * x_iy ( q 0.43 0.21 0 0 ) ) image1 )"]
    wanted = check_pictures(picture_interpreter, formulas, np.float32([x, y, y]))
    means = [picture.texels[-1] for picture in PICTURES[:2]]
    np.testing.assert_allclose(wanted[:2, -1, 1:], means, atol=1e-6)


def test_pictures_where_coordinates_are_no_numbers(picture_interpreter):
    strange = [np.nan, np.inf, -np.inf, 3e38, -3e38, 0.25]
    x, y = (t.ravel() for t in np.meshgrid(strange, strange))
    check_pictures(picture_interpreter, ["image1", "( subst x_iy image2 )"], (x, y, y))
    # Apart from the level what is no number is 0.
    apart = np.tile([1, 0], POINTS // 2)
    at = np.where(apart, np.nan, 0)
    wanted = check_pictures(picture_interpreter, ["image1"], (at, at, at))
    np.testing.assert_array_equal(wanted[0, 0], wanted[0, 1])


def test_random_formulas_with_pictures_agree_on_most_points(picture_interpreter):
    keys = jax.random.split(jax.random.key(3), POPULATION)
    growth = GrowthConfig(binary=0.45, unary=0.5, images=2)
    population = jax.jit(jax.vmap(partial(grow, capacity=CAPACITY, config=growth)))(keys)
    formulas = [
        formula
        for formula in map(without_steps, to_expressions(population))
        if any(node.op.image is not None for node in formula.postfix)
    ]
    assert len(formulas) > POPULATION / 2
    values = picture_interpreter(formulas, AT, PICTURES)
    colours, wanted = (
        ops.crunch(np, t, "sigmoid") for t in (values, specification(formulas, AT, PICTURES))
    )
    agrees = (np.abs(colours - wanted) <= 1 / 255).all(axis=-1)
    # Of so few some take the sine of millions, which float32 does not know.
    assert (agrees.mean(axis=1) == 1).mean() > 0.9


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the best is not native elsewhere")
def test_the_best_is_native_on_the_cpu(random_formulas):
    named, default = (Interpreter(name)(random_formulas, AT) for name in ("native", "best"))
    assert named.tobytes() == default.tobytes()
