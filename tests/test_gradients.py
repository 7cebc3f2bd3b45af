"""Gradients in a formula's constants: every way to them gives the same, and it is the right one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evojax_art.interpreter.pullback import pullback
from evojax_art.ops import OPS, Coordinates, Quaternion

DIFFERENTIABLE = [op for op in OPS if not op.structural and (op.arity or op.reads_coordinates)]


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_pullbacks_are_those_of_jax(op):
    """JAX differentiates the same functions by its own means."""
    random = np.random.default_rng(op.opcode)
    kind = Quaternion if op.arity else Coordinates
    size = 0.45 if op is OPS[0] or not op.arity else 3.0
    operands = tuple(
        kind(*random.uniform(-size, size, (len(kind._fields), 200))) for _ in range(max(1, op.arity))
    )
    cotangent = Quaternion(*random.normal(size=(4, 200)))
    ours = pullback(np, op, operands, cotangent)
    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, operands)
        _, pull = jax.vjp(lambda *operands: op.fn(jnp, *operands), *given)
        theirs = pull(jax.tree.map(jnp.asarray, cotangent))
    for mine, wanted in zip(ours, theirs, strict=True):
        for part, exact in zip(mine, wanted, strict=True):
            np.testing.assert_allclose(0 if part is None else part, exact, rtol=1e-10, atol=1e-12)
