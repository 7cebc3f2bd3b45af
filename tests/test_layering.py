"""The package's modules import only what stands above them in `ORDER`."""

import ast
from pathlib import Path

import pytest

import evojax_art

PACKAGE = Path(evojax_art.__file__).parent

# A line's modules do not know each other.
ORDER = [
    {"errors", "ops", "gallery", "naturalness", "compilation", "cores", "png", "progress"}
    | {"interpreter.ffi", "interpreter.simd", "polish.views"},
    {"formula", "images", "picture", "nets.base", "nets.torch_files", "nets.convolution"}
    | {"interpreter.pullback", "interpreter.writer", "training.augmentation"},
    {"program", "bindings", "video", "nets.cifar", "nets.squeezenet", "goals", "scene"},
    {"values", "variation", "interpreter.reference", "nets.weights", "objective", "formula_files"}
    | {"interpreter.trace", "interpreter.pictures", "polish.pixels"},
    {"start_from", "tape", "wish", "interpreter.reverse_xla"},
    {"interpreter.codegen", "interpreter.codegen_reverse"},
    {"interpreter.native", "interpreter.packing", "interpreter.xla", "algorithms.base"},
    {"interpreter.pallas", "interpreter.native_reverse"},
    {"interpreter.api", "interpreter.reverse", "algorithms.genetic", "algorithms.mount2015"},
    {"render"},
    {"judge", "large", "polish.drawing", "benchmark.machine", "benchmark.measure"},
    {"polish.climb"},
    {"polish.formula", "polish.lamarck"},
    {"evolution"},
    {"config", "movie", "dream", "benchmark.floors", "benchmark.work"},
    {"records", "dream_folder", "training.photographs", "benchmark.parts"},
    {"run", "training.calibration", "training.training", "benchmark.sweeps"}
    | {"benchmark.polishing"},
    {"training.session", "benchmark.report"},
    {"benchmark.plot"},
    {"benchmark.session"},
    {"commands.inputs", "commands.evolve", "commands.nets", "commands.benchmark"},
    {"commands.start", "commands.render", "commands.movie"},
    {"commands.dream", "commands.polish"},
    {"cli"},
]
LEVEL = {module: level for level, modules in enumerate(ORDER) for module in modules}
MOST_LINES = 400


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
FACADES = {name for name in MODULES if name.split(".")[-1] == "__init__"}


def imported(path: Path) -> set[str]:
    """The package's modules that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, line {node.lineno}"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        assert "evojax_art" not in names or isinstance(node, ast.ImportFrom), path
        inside = {name.removeprefix("evojax_art.") for name in names if name}
        found |= inside & MODULES.keys()
    return found


def test_every_module_has_its_place():
    assert sum(map(len, ORDER)) == len(LEVEL)
    assert set(LEVEL) == set(MODULES) - FACADES


@pytest.mark.parametrize("name", sorted(set(MODULES) - FACADES))
def test_imports_point_up(name):
    wrong = {other for other in imported(MODULES[name]) if LEVEL[other] >= LEVEL[name]}
    assert not wrong, f"{name} must not import {', '.join(sorted(wrong))}"


def test_only_the_package_itself_reexports():
    for name in FACADES - {"__init__"}:
        assert imported(MODULES[name]) == set(), name
    assert imported(MODULES["__init__"])


def test_the_core_needs_no_networks():
    reached, waiting = set(), ["render", "variation", "algorithms.genetic"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(imported(MODULES[name]))
    assert not {name for name in reached if name.startswith("nets.")}


@pytest.mark.parametrize("name", MODULES)
def test_modules_stay_short(name):
    assert len(MODULES[name].read_text().splitlines()) <= MOST_LINES
