"""None of the package's modules imports itself by a detour, and all stay short.

That rooms import downwards alone is checked by import-linter, see pyproject.toml and scripts/test.
"""

from pathlib import Path

import grimp
import pytest

import evojax_art

PACKAGE = Path(evojax_art.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 400
MOST_FILES = 4  # beside the rooms


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("evojax_art", cache_dir=None)


def test_no_module_imports_itself_by_a_detour(graph):
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            assert not graph.chain_exists(imported, module), f"{module} and {imported}"


def test_the_core_needs_no_networks(graph):
    reached = graph.find_upstream_modules("evojax_art.render", as_package=True)
    assert reached
    assert not {name for name in reached if name.startswith(("evojax_art.nets", "flax"))}


def test_every_room_says_what_it_is():
    for room in {path.parent for path in MODULES}:
        assert (room / "__init__.py").read_text().startswith('"""'), room


def test_the_top_level_is_rooms():
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_FILES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_short(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES
