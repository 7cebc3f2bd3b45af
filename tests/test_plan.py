"""Where and how things are computed: what is chosen for which device."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

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
