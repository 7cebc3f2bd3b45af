"""Sources in LLVM's language, compiled for this CPU on first use and kept by the process."""

import ctypes
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from llvmlite import binding

from evojax_art.native.source import Source
from evojax_art.native.threads import once, pool

Functions = dict[str, Callable[..., None]]
_engines: list[Any] = []  # they own the code


@once
def code_of(source: Source, lanes: int | None = None) -> Future[Functions]:
    """Its functions, callable; the first call starts compiling them.

    Args:
        source: of the functions.
        lanes: of their vectors; None: of the widest that the CPU has.
    """
    return pool().submit(compiled, source, lanes or width())


def compiled(source: Source, width: int) -> Functions:
    """The functions for vectors of `width` lanes; ctypes frees the GIL for them."""
    assembly = source.assembly(width, binding.get_default_triple())
    engine = compiled_engine(assembly, unrolled=source.unrolled)
    arguments = [ctypes.c_void_p] * len(source.pointers) + [ctypes.c_int64] * len(source.counts)
    kind = ctypes.CFUNCTYPE(None, *arguments)
    return {name: kind(engine.get_function_address(name)) for name in source.functions}


def compiled_engine(assembly: str, *, unrolled: bool = True) -> binding.ExecutionEngine:
    """Machine code for this CPU, which lives as long as the process."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=3,
    )
    module = binding.parse_assembly(assembly)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_unrolling = unrolled
    passes = binding.create_pass_builder(target, options)
    passes.getModulePassManager().run(module, passes)
    engine = binding.create_mcjit_compiler(module, target)
    engine.finalize_object()
    _engines.append(engine)
    return engine


def width() -> int:
    """Lanes of the widest vectors that the CPU has."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4
