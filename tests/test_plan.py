"""Where and how things are computed: what is chosen for which device."""

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

import evojax_art as ea
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import current_plan, implementation_names, make_plan


@dataclass(frozen=True)
class Device:
    """What a plan asks of a device that is not here."""

    platform: str
    device_kind: str = "a device"
    compute_capability: str = ""
    bytes_limit: int = 0
    id: int = 0

    def memory_stats(self):
        return {"bytes_limit": self.bytes_limit} if self.bytes_limit else None


CPU = Device("cpu", "cpu")
AMPERE = Device("gpu", "NVIDIA A100", "8.0", 40 << 30)
HOPPER = Device("gpu", "NVIDIA H200", "9.0", 140 << 30)
TPU = Device("tpu", "TPU v5", bytes_limit=16 << 30)


@pytest.mark.parametrize(
    ("device", "plain", "photographs", "gradient"),
    [
        (CPU, "native", "native", "native"),
        (AMPERE, "lockstep", "lockstep", "xla"),
        (HOPPER, "pallas", "lockstep", "xla"),
        (TPU, "lockstep", "lockstep", "xla"),
    ],
    ids=lambda value: getattr(value, "device_kind", value),
)
def test_the_best_of_each_device(device, plain, photographs, gradient):
    plan = make_plan(device=device)
    assert plan.implementation == plain
    assert plan.photograph_implementation == photographs
    assert plan.gradient_implementation == gradient
    assert (plan.platform, plan.device_kind) == (device.platform, device.device_kind)


def test_a_family_is_resolved_and_brings_its_tile():
    on_cpu, on_gpu = (make_plan(device=device, implementation="xla") for device in (CPU, HOPPER))
    assert (on_cpu.implementation, on_cpu.tile) == ("switch", 256)
    assert (on_gpu.implementation, on_gpu.tile) == ("lockstep", 4096)


@pytest.mark.parametrize(
    ("device", "name", "said"),
    [
        (HOPPER, "native", "'native' runs on cpu, not on gpu"),
        (AMPERE, "pallas", "'pallas' needs an NVIDIA GPU .* found NVIDIA A100"),
        (TPU, "pallas", "'pallas' runs on gpu and cpu, not on tpu"),
        (CPU, "cuda", "unknown implementation 'cuda'; there are best, native, pallas, switch"),
    ],
    ids=lambda value: getattr(value, "device_kind", value),
)
def test_what_a_device_cannot_run_is_said(device, name, said):
    with pytest.raises(InputError, match=said):
        make_plan(device=device, implementation=name)


def test_names_of_implementations():
    assert implementation_names() == ("best", "native", "pallas", "switch", "lockstep", "xla")


def test_batches_fit_the_device():
    assert [make_plan(device=CPU).batch(size) for size in (32, 224, 2048)] == [128, 8, 1]
    assert [make_plan(device=HOPPER).batch(size) for size in (32, 224, 2048)] == [1 << 14, 1024, 16]
    assert make_plan(device=CPU).denoised_group(32, 32) == 1
    groups = [make_plan(device=HOPPER).denoised_group(size, size) for size in (32, 224, 4096)]
    assert groups == [4096, 64, 1]


def test_plans_are_static_arguments_that_can_be_written_down():
    plan = make_plan(device=HOPPER, network_dtype=jnp.bfloat16)
    assert hash(plan) == hash(make_plan(device=HOPPER, network_dtype="bfloat16"))
    assert plan.network_dtype == "bfloat16"
    assert {type(value) for value in dataclasses.asdict(plan).values()} == {str, int}


def test_the_default_device_is_the_plans():
    device = jax.local_devices()[0]
    assert current_plan().device == device
    with jax.default_device(device):
        assert current_plan() == make_plan(device=device)
    with jax.default_device(device.platform):
        assert current_plan() == make_plan(device=device)
    with pytest.raises(InputError, match="no device 99 of platform"):
        _ = dataclasses.replace(current_plan(), device_id=99).device


MANY_DEVICES = """
import jax, jax.numpy as jnp
import evojax_art as ea
from evojax_art.runtime.plan import current_plan, make_plan

second, third = jax.devices()[1:]
population = ea.encode(["( exp x_iy )"])

def place(**options):
    pictures = ea.render(population, 8, 8, **options)
    return [device.id for device in pictures.devices()]

print(place())
with jax.default_device(second):
    print(place(), current_plan().device_id)
print(place(plan=make_plan(device=third)))
print(current_plan(jax.device_put(jnp.ones(3), third)).device_id)
jax.config.update("jax_default_device", second)
print(place(), current_plan().device_id)
print(ea.render_large("x_iy", 8, 8, plan=make_plan(device=third)).shape)
"""


def test_pictures_are_drawn_where_jax_or_the_plan_says():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", MANY_DEVICES]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | flags)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["[0]", "[1] 1", "[2]", "2", "[1] 1", "(8, 8, 3)"]


def lowered(draw_fn, platform, **options):
    """The code of a function of a population, for a platform that may not be here."""
    mesh = AbstractMesh(
        (1,),
        ("device",),
        abstract_device=AbstractDevice(device_kind="NVIDIA H200", num_cores=132, platform="gpu"),
    )
    population = ea.encode(["( exp x_iy )", "( * x ( isin y_k ) )"], 16)
    traced = jax.jit(partial(draw_fn, **options)).trace(population)
    with jax.sharding.use_abstract_mesh(mesh):
        return traced.lower(lowering_platforms=(platform,)).as_text()


def draw(population, plan):
    return ea.tv_noise(ea.render(population, 8, 8, plan=plan), plan=plan)


def test_a_plan_traces_what_its_device_runs_and_nothing_else():
    cpu = lowered(draw, "cpu", plan=make_plan(device=CPU))
    assert "evojax_art_interpret" in cpu
    assert "mosaic_gpu" not in cpu
    gpu = lowered(draw, "cuda", plan=make_plan(device=AMPERE))
    assert "evojax_art_interpret" not in gpu
    assert "stablehlo.case" not in lowered(draw, "tpu", plan=make_plan(device=TPU))
    assert "platform_index" not in cpu + gpu


def test_nothing_below_the_edge_asks_for_the_platform():
    package = Path(ea.__file__).parent
    asking = ("default_backend", "platform_dependent", "jax.default_device", "jax_default_device")
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in asking)
    }
    assert found == {"runtime/plan.py"}
