"""How natural a picture looks: total variation, and Chambolle's denoising by it.

The 2015 experiment called a picture natural when it hardly differs from its own denoised version:
mean absolute difference below 0.05, by scikit-image's `denoise_tv_chambolle` with weight 0.2.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from evojax_art.objective.needed import where_needed
from evojax_art.runtime.plan import Plan, current_plan

GATE_WEIGHT = 0.2
_STEP = 0.25  # 1 / (2 * number of axes): the largest step for which the iteration converges
Pictures = Float[Array | np.ndarray, "P H W C"]


def tv_noise(
    images: Pictures,
    needed: Bool[Array, "P"] | None = None,
    plan: Plan | None = None,
) -> Float[Array, "P"]:
    """The 2015 noise measure: mean |image - denoised|, weight 0.2; images in [0, 1].

    Args:
        images: pictures.
        needed: whose noise to measure, NaN for the others; None for all. It takes time only for
            those, or as many groups as the plan denoises together as they fill.
        plan: where and how; None: `current_plan`.
    """
    plan = plan or current_plan(images)
    if needed is None:
        denoised = denoise_tv_chambolle(images, GATE_WEIGHT, plan=plan)
        return jnp.mean(jnp.abs(images - denoised), axis=(1, 2, 3))
    count, height, width, _ = images.shape
    group = min(plan.denoised_group(height, width), count)
    nothing = jnp.full(count, jnp.nan, images.dtype)
    return where_needed(lambda places: tv_noise(images[places], plan=plan), needed, group, nothing)


def denoise_tv_chambolle(
    images: Pictures,
    weight: float | Array = 0.1,
    eps: float | Array = 2e-4,
    max_num_iter: int | Array = 200,
    *,
    plan: Plan | None = None,
) -> Float[Array, "P H W C"]:
    """Total-variation denoising of many pictures at once.

    Args:
        images: pictures, any range; each channel of each picture is denoised by itself.
        weight: larger denoises more.
        eps: a channel stops when its energy changes by less than eps times its first energy.
        max_num_iter: and after this many iterations at the latest.
        plan: where and how; None: `current_plan`.

    Returns:
        The denoised pictures, as scikit-image 0.26 gives them one by one.

    Source: A. Chambolle, "An algorithm for total variation minimization and applications", 2004,
    with the stopping rule of `skimage.restoration.denoise_tv_chambolle`.
    """
    return _denoised(images, weight, eps, max_num_iter, plan or current_plan(images))


@partial(jax.jit, static_argnames="plan")
def _denoised(images, weight, eps, max_num_iter, plan: Plan) -> Float[Array, "P H W C"]:
    planes = images.transpose(0, 3, 1, 2)  # the long axis last, for the vector units
    if plan.denoised_pixels == 1:
        # On a CPU a plane's fields stay in cache, and nobody waits for the slowest of a batch.
        singles = planes.reshape(-1, 1, 1, *planes.shape[2:])
        denoised = jax.lax.map(lambda single: _denoise(single, weight, eps, max_num_iter), singles)
    else:
        denoised = _denoise(planes, weight, eps, max_num_iter)
    return denoised.reshape(planes.shape).transpose(0, 2, 3, 1)


def total_variation(images: Pictures) -> Float[Array, "P"]:
    """Mean length of the colour gradient from pixel to pixel, in [0, sqrt(2)]; differentiable.

    A smooth cousin of the noise measure, and far cheaper: no iteration. The length is that of one
    channel's gradient; a small constant under the root keeps its derivative finite on flat areas.
    """
    down, right = _gradient(jnp.asarray(images).transpose(0, 3, 1, 2))
    return jnp.mean(jnp.sqrt(down**2 + right**2 + 1e-12), axis=(1, 2, 3))


class _State(NamedTuple):
    """Chambolle's iteration; `down` and `right` are the dual field."""

    iteration: Array
    down: Float[Array, "P C H W"]
    right: Float[Array, "P C H W"]
    density: Float[Array, "P C H W"]
    first_energy: Float[Array, "P C"]
    settled: Bool[Array, "P C"]
    last: Float[Array, "P C H W"]


def _denoise(
    planes: Float[Array, "P C H W"],
    weight: float | Array,
    eps: float | Array,
    max_num_iter: int | Array,
) -> Float[Array, "P C H W"]:
    """All planes at once, each until it has settled."""

    def iterate(state: _State) -> _State:
        divergence = _divergence(state.down, state.right)
        denoised = planes + divergence
        down, right = _gradient(denoised)
        norm = jnp.sqrt(down**2 + right**2)
        # The energy's change is summed from its changes by pixel, whose rounding errors are
        # independent: the difference of two float32 sums is good to 1e-3 of the threshold only, and
        # one iteration more or less moves a picture by up to 4e-3.
        density = divergence**2 + weight * norm
        change = _plane_sums(density - state.density)
        first = jnp.where(state.iteration == 0, change, state.first_energy)
        # A flat picture has no energy at all, and nothing to change.
        still = ((jnp.abs(change) < eps * first) & (state.iteration > 0)) | (first == 0)
        settled = state.settled | still
        scale = 1 / (1 + norm * (_STEP / weight))
        # A settled channel keeps its dual field, and with it its denoised picture: the field that
        # made this iteration's picture is the old one.
        keep = settled[:, :, None, None]
        return _State(
            iteration=state.iteration + 1,
            down=jnp.where(keep, state.down, (state.down - _STEP * down) * scale),
            right=jnp.where(keep, state.right, (state.right - _STEP * right) * scale),
            density=density,
            first_energy=first,
            settled=settled,
            last=divergence,
        )

    def unfinished(state: _State):
        return (state.iteration < max_num_iter) & ~jnp.all(state.settled)

    zeros = jnp.zeros_like(planes)
    start = jnp.zeros(planes.shape[:2], planes.dtype)
    state = _State(jnp.int32(0), zeros, zeros, zeros, start, start > 0, zeros)
    state = jax.lax.while_loop(unfinished, iterate, state)
    return planes + state.last


def _plane_sums(planes: Float[Array, "P C H W"]) -> Float[Array, "P C"]:
    """Sums by products with ones, which add up in blocks; a plain float32 sum loses two digits."""
    ones = [jnp.ones(size, planes.dtype) for size in planes.shape[2:]]
    return jnp.einsum("pchw,w,h->pc", planes, ones[1], ones[0], precision="highest")


def _gradient(planes: Float[Array, "P C H W"]):
    """Forward differences downwards and to the right; 0 in the last row and column."""
    down = jnp.pad(planes[:, :, 1:] - planes[:, :, :-1], ((0, 0), (0, 0), (0, 1), (0, 0)))
    right = jnp.pad(planes[..., 1:] - planes[..., :-1], ((0, 0), (0, 0), (0, 0), (0, 1)))
    return down, right


def _divergence(down: Float[Array, "P C H W"], right: Float[Array, "P C H W"]):
    """Minus the adjoint of `_gradient`."""
    above = jnp.pad(down[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)))
    left = jnp.pad(right[..., :-1], ((0, 0), (0, 0), (0, 0), (1, 0)))
    return above - down + left - right
