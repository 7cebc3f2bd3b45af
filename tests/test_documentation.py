import ast
import importlib.util
import re
from pathlib import Path

import pytest

from evojax_art.cli.main import COMMANDS
from evojax_art.runs.settings import RunConfig
from evojax_art.runs.toml import read_config
from evojax_art.runs.training.training import TrainingConfig

ROOT = Path(__file__).resolve().parents[1]


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_has_the_operators_of_the_op_table():
    readme = (ROOT / "README.md").read_text()
    assert load_script("update_readme").updated(readme) == readme


def test_readme_example_runs():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    tree = ast.parse(code)
    offline = [
        statement
        for statement in tree.body
        if not any(name in ast.unparse(statement) for name in ("net", "evolution", "state"))
    ]
    assert len(offline) >= 5  # the rest needs weights
    namespace = {}
    exec(compile(ast.Module(offline, []), "README.md", "exec"), namespace)
    assert namespace["images"].shape[-1] == 3


def test_readme_files_exist():
    readme = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", readme):
        assert (ROOT / path).exists(), path


def test_readme_module_map_is_complete():
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "evojax_art").rglob("*.py"):
        if path.parent.name == "commands" and path.stem in COMMANDS:
            assert f"evojax-art {path.stem}" in readme, path
        elif path.name != "__init__.py":
            assert path.name in readme, path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.toml")), ids=lambda p: p.stem)
def test_config_parses_and_says_how_to_use_it(path):
    trains = path.parent.name == "training"
    command = "python scripts/train_classifier.py" if trains else "evojax-art evolve"
    assert read_config(path, TrainingConfig if trains else RunConfig)
    assert f"{command} --config {path.relative_to(ROOT)}" in path.read_text()
