"""The gallery: a page with everything inside, in a browser where there is one."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright
from test_lineage import ROWS, elite

from evojax_art.artwork.gallery import packed, unpacked
from evojax_art.cli.main import main
from evojax_art.runs.illuminate import IlluminateConfig
from evojax_art.runs.toml import config_text

WICKED = "</script><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    rows = [elite(0), elite(1) | {"name": WICKED}, elite(2)]
    rows[2]["unseen"] = {"other": {"probability": 0.9, "rank": 0}}
    (folder / "elites.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "lineage.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "config.toml").write_text(config_text(IlluminateConfig(max_length=8), "a run"))
    assert main(["gallery", str(folder), "--sheet", str(folder / "sheet.png")]) == 0
    return folder


def page_data(folder) -> dict:
    text = (folder / "gallery.html").read_text()
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


def test_a_page_has_everything_inside(folder):
    text = (folder / "gallery.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "http" not in text
    assert WICKED not in text
    entries = page_data(folder)["entries"]
    assert [entry["caption"] for entry in entries] == ["worm", "apple", WICKED]
    assert entries[0]["unseen"] == 0.9
    assert entries[0]["opinions"] == [["tiny", 0.5, None, True], ["other", 0.9, 0, False]]
    assert [caption for _, caption in entries[1]["ancestors"]] == ["worm", WICKED, "apple"]
    assert len(page_data(folder)["ancestors"]) == 3  # each drawn once
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 160


def test_only_the_first_are_shown_where_that_is_wanted(folder, tmp_path):
    assert main(["gallery", str(folder), "--most", "2", "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "worm" in text
    assert '"caption": "apple"' in text
    assert text.count('"thumbnail"') == 2


def test_noise_takes_few_bytes_and_shapes_stay_sharp():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert len(packed(noise)) < 25_000
    shape = np.zeros((256, 256, 3), np.uint8)
    shape[64:192, 96:160] = 255, 128, 0
    assert np.abs(unpacked(packed(shape)).astype(float) - shape).mean() < 3


def test_its_commands_work(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for label, command in page_data(folder)["entries"][0]["commands"]:
        words = shlex.split(command.rpartition("&& ")[2])
        assert words[0] == "evojax-art"
        if label == "draw it at any size":
            assert main(words[1:]) == 0
            with Image.open("large.png") as picture:
                assert picture.size == (2048, 2048)
        else:
            assert main([*words[1:], "--no-such-flag"]) == 2  # which none of the others is
            assert "unknown option --no-such-flag" in capsys.readouterr().err


def test_records_of_an_evolution_are_shown(tmp_path):
    small = "--raster.size 16 --record-size 32 --record-samples 1 --formulas 300 --max-length 24"
    run, out = tmp_path / "run", tmp_path / "page.html"
    assert main(["evolve", *small.split(), "--out", str(run)]) == 0
    assert main(["gallery", str(run), "--out", str(out)]) == 0
    text = out.read_text()
    assert text.count('"id": ') >= len(list((run / "records").iterdir()))
    assert "cifar100_judge" in text


def test_commands_draw_and_breed_as_it_was(tmp_path, monkeypatch):
    small = "--raster.size 16 --record-size 32 --record-samples 1 --max-length 24 --unseen none"
    look = "--raster.z -0.5 --raster.crunch 1995 --raster.smooth --layer block2"
    photograph = tmp_path / "a cat.png"
    Image.fromarray(np.full((24, 24, 3), np.arange(0, 240, 10)[:, None, None], np.uint8)).save(
        photograph
    )
    run = tmp_path / "run"
    words = [*small.split(), *look.split(), "--start-from", str(photograph), "--out", str(run)]
    assert main(["evolve", *words, "--formulas", "64"]) == 0
    assert main(["gallery", str(run)]) == 0
    entry = page_data(run)["entries"][0]
    assert not entry["is_probability"]
    commands = {
        label: shlex.split(command.rpartition("&& ")[2]) for label, command in entry["commands"]
    }
    monkeypatch.chdir(tmp_path)
    drawn = [word if word != "2048" else "32" for word in commands["draw it at any size"][1:]]
    assert main([*drawn, "--samples", "1"]) == 0
    record = sorted((run / "records").glob("*.png"))[-1]
    with Image.open(record) as expected, Image.open("large.png") as found:
        assert np.array_equal(np.asarray(expected), np.asarray(found))
    polished = commands["polish it"]
    assert polished[polished.index("--layer") + 1] == "block2"
    (tmp_path / "seed.txt").write_text(entry["formula"] + "\n")
    again = [*commands["breed from it"][1:], *small.split(), "--formulas", "8", "--out", "bred"]
    assert main(again) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"confidence": float("nan")},
        {"confidence": 7.5},
        {"confidence": 10**400},
        {"scores": {"tiny": float("inf")}},
        {"class": float("inf")},
        {"class": 1.5},
        {"name": None},
        {"unseen": {"other": {"probability": float("nan"), "rank": 1}}},
        {"unseen": {"other": {"probability": 0.5, "rank": float("inf")}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_numbers_of_no_use_are_refused(change, tmp_path, capsys):
    lines = [json.dumps(elite(0)), json.dumps(elite(1) | change)]
    (tmp_path / "elites.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["gallery", str(tmp_path)]) == 2
    assert "elites.jsonl: line 2 is no line of elites" in capsys.readouterr().err


def test_nesting_without_end_is_refused(tmp_path, capsys):
    (tmp_path / "elites.jsonl").write_text("[" * 200_000 + "\n")
    assert main(["gallery", str(tmp_path)]) == 2
    assert "elites.jsonl: line 1 is no line of elites" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("none", "none is no folder of a run"),
        ("", "give the folder of a run"),
        ("empty", "no elites.jsonl in it"),
        ("broken", "elites.jsonl: line 2 is no line of elites"),
        ("formula", "elites.jsonl: apple: "),
    ],
)
def test_what_is_no_run_is_refused(change, message, folder, tmp_path, capsys):
    place = tmp_path / (change or "x")
    if change not in ("none", ""):
        place.mkdir()
    if change in ("broken", "formula"):
        shutil.copy(folder / "config.toml", place)
        lines = [json.dumps(elite(0)), '{"class"']
        if change == "formula":
            lines = [json.dumps(elite(0) | {"formula": "( frobnicate x )"})]
        (place / "elites.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["gallery", *([str(place)] if change else [])]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert not (place / "gallery.html").exists()


def test_in_a_browser(folder, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 700})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"file://{folder}/gallery.html")
        assert page.inner_text("#count") == "3 pictures"
        assert page.title() != "owned"
        page.keyboard.press("/")
        page.keyboard.type("worm")
        assert page.inner_text("#count") == "1 of 3"
        page.keyboard.press("Escape")
        page.select_option("#sort", "name")
        assert page.inner_text("main button:first-child b") == WICKED
        page.locator("main button").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert page.inner_text("h2") == "apple"
        page.click("button[aria-label='copy formula']")
        page.wait_for_selector("text=copied")
        shot = tmp_path / "shot.png"
        page.locator("img.large").screenshot(path=str(shot))
        with Image.open(shot) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float64)
        assert np.ptp(pixels[..., 0].mean(axis=1)) > 10, "redder from top to bottom"
        page.keyboard.press("Escape")
        assert not page.evaluate("document.getElementById('dialog').open")
        assert not errors
        browser.close()
