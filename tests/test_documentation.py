import ast
import importlib.util
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from evojax_art.cli.dream import DreamSettings
from evojax_art.cli.main import COMMANDS
from evojax_art.runs.illuminate import IlluminateConfig
from evojax_art.runs.settings import RunConfig
from evojax_art.runs.toml import read_config
from evojax_art.runs.training.training import TrainingConfig
from evojax_art.runtime.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_documents = load_script("check_documents")
update_readme = load_script("update_readme")

DOCUMENTS = check_documents.documents()
BY_DOCUMENT = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.parent.relative_to(ROOT))
)


class Parsed(Exception):  # noqa: N818, it is no mistake
    """Raised in place of running a command whose flags make sense."""


def parse(monkeypatch, name, flags):
    """Reads flags as the command does, and goes no further."""
    module = import_module(f"evojax_art.cli.{name}")
    parse_flags = module.parse_flags

    def parse_only(*arguments):
        parse_flags(*arguments)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(module, "parse_flags", parse_only)
        with pytest.raises(Parsed):
            getattr(module, name)(flags)


def test_first_page_is_short():
    assert DOCUMENTS[0] == ROOT / "README.md"
    assert len(DOCUMENTS[0].read_text().splitlines()) <= 200


@BY_DOCUMENT
def test_commands_parse(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where configs are
    for command in check_documents.commands(path.read_text()):
        text = command.text.replace("\\\n", " ")
        text = text.replace("runs/demo/config.toml", "configs/demo.toml")  # made by its run
        words = shlex.split(text, comments=True)
        if command.block.language == "bash" and words[0] == "evojax-art":
            parse(monkeypatch, words[1], words[2:])


@BY_DOCUMENT
def test_commands_in_sentences_parse(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in re.findall(r"`(?:time )?evojax-art (\w+ [^`]+)`", path.read_text()):
        name, *flags = shlex.split(line)
        if name in COMMANDS and not {"--help", "..."} & set(flags):
            parse(monkeypatch, name, [flag if flag != "N" else "1" for flag in flags])


def test_a_wrong_flag_is_noticed(monkeypatch):
    with pytest.raises(InputError, match="colour"):
        parse(monkeypatch, "render", ["x_iy", "--colour", "red"])


@BY_DOCUMENT
def test_links_exist(path):
    text = path.read_text()
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        file, _, heading = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}


@pytest.mark.parametrize("path", update_readme.GENERATED, ids=lambda path: path.parent.name)
def test_generated_parts_are_up_to_date(path):
    text = path.read_text()
    assert update_readme.updated(text, update_readme.GENERATED[path]()) == text


def test_map_has_every_module():
    text = (ROOT / "evojax_art" / "README.md").read_text()
    for path in (ROOT / "evojax_art").glob("*/**/*.py"):
        if path.name != "__init__.py":
            assert f"({path.relative_to(ROOT / 'evojax_art')})" in text, path


def test_first_page_has_every_command_and_room():
    text = (ROOT / "README.md").read_text()
    assert all(f"evojax-art {command}" in text for command in COMMANDS)
    rooms = {path.parent.name for path in (ROOT / "evojax_art").glob("*/__init__.py")}
    assert all(f"`{room}/`" in text for room in rooms)


def test_python_example_runs():
    blocks = check_documents.blocks((ROOT / "README.md").read_text())
    tree = ast.parse(next(block.text for block in blocks if block.language == "python"))
    quick = [
        statement
        for statement in tree.body
        if not any(name in ast.unparse(statement) for name in ("evolution", "state", "survivors"))
    ]
    assert len(quick) >= 5  # the rest takes half a minute: scripts/check_documents.py runs it
    namespace = {}
    exec(compile(ast.Module(quick, []), "README.md", "exec"), namespace)
    assert namespace["images"].shape[-1] == 3


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.toml")), ids=lambda p: p.stem)
def test_config_parses_and_says_how_to_use_it(path):
    trains = path.parent.name == "training"
    name = path.relative_to(ROOT)
    commands = {
        f"python scripts/train_classifier.py --config {name}": TrainingConfig,
        f"evojax-art evolve --config {name}": RunConfig,
        f"evojax-art illuminate --config {name}": IlluminateConfig,
        f"evojax-art dream PHOTO --config {name}": DreamSettings,
    }
    (settings,) = [kind for command, kind in commands.items() if command in path.read_text()]
    assert read_config(path, settings)
    assert f"]({path.name})" in (ROOT / "configs" / "README.md").read_text() or trains


DOCUMENT = """
<!-- needs: gpu, network -->
<!-- minutes: 3 -->
```bash
# a remark
echo 1 \\
    2  # two

echo 3
```
```python
a = 1

print(a)
```
"""


def test_commands_of_a_document():
    first, second, third = check_documents.commands(DOCUMENT)
    assert (first.text, first.line) == ("echo 1 \\\n    2  # two", 6)
    assert (second.text, second.line) == ("echo 3", 9)
    assert (third.text, third.line) == ("a = 1\n\nprint(a)", 12)
    assert second.block.needs == ("gpu", "network")
    assert second.block.minutes == 3
    assert third.block.needs == ()


@pytest.mark.parametrize("comment", ["<!-- needs: luck -->", "<!-- minute: 3 -->"])
def test_unknown_marks_of_a_block_are_refused(comment):
    with pytest.raises(ValueError, match=comment):
        list(check_documents.commands(f"{comment}\n```bash\ntrue\n```\n"))


def test_documents_run_in_a_fresh_copy_and_tell_what_failed(tmp_path, monkeypatch, capsys):
    (tmp_path / "README.md").write_text("```bash\necho hello > made\ncat made\nfalse\n```\n")
    monkeypatch.setattr(check_documents, "ROOT", tmp_path)
    assert check_documents.main([str(tmp_path / "README.md")]) == 1
    told = capsys.readouterr().out
    assert "README.md:3: status 0" in told
    assert "README.md:4: status 1" in told
    assert not (tmp_path / "made").exists()


def test_a_copy_has_no_leftovers(tmp_path, monkeypatch):
    monkeypatch.setattr(check_documents, "ROOT", tmp_path)
    names = ["package/runs/a.py", "README.md", ".venv/b", "runs/crab-0/c", "package/__pycache__/d"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    copy = tmp_path / ".copy"
    shutil.copytree(tmp_path, copy, ignore=check_documents._no_part)
    copied = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert copied == set(names[:2])


def test_what_is_left_out_is_said(tmp_path, monkeypatch, capsys):
    text = (
        "<!-- minutes: 3 -->\n```bash\nfalse\n```\n<!-- needs: network -->\n```bash\nfalse\n```\n"
    )
    (tmp_path / "README.md").write_text(text)
    monkeypatch.setattr(check_documents, "ROOT", tmp_path)
    assert check_documents.main(["--quick", str(tmp_path / "README.md")]) == 0
    told = capsys.readouterr().out
    assert "left out, takes about 3 minutes" in told
    assert "left out, needs network" in told
