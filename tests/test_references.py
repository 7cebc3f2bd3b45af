"""The 1995 program's pictures. Bars and flags are those of the reference data's README."""

import json

import numpy as np
import pytest
from PIL import Image

import evojax_art as ea
from evojax_art.render.large import to_bytes

LEAST_STABLE = 50  # with fewer stable pixels a formula gets no verdict
UNSTABLE = {"1995": 1 | 4, "sigmoid": 2 | 8}  # flag bits
STORED = {"1995": "rgb_buggy", "sigmoid": "rgb_correct"}
BAR = {"archive": 0.99, "example": 0.99, "runlog": 0.98}


@pytest.fixture(scope="module", params=["refs32_z0_public", "refs32_z025_public"])
def references(request, gart):
    rows = json.loads((gart / f"{request.param}.json").read_text())
    with np.load(gart / f"{request.param}.npz") as stored:
        arrays = {name: stored[name] for name in ("rgb_buggy", "rgb_correct", "flags", "z")}
    return rows, arrays, ea.encode([row["formula"] for row in rows])


@pytest.mark.parametrize("crunch", ["1995", "sigmoid"])
def test_small_pictures_are_those_of_1995(references, crunch):
    rows, arrays, population = references
    pictures = np.asarray(ea.render(population, 32, 32, z=float(arrays["z"]), crunch=crunch))
    close = (np.abs(pictures - arrays[STORED[crunch]]) <= 1 / 255).all(axis=-1)
    stable = (arrays["flags"] & UNSTABLE[crunch]) == 0
    num_stable = stable.sum(axis=(1, 2))
    shares = (close & stable).sum(axis=(1, 2)) / np.maximum(1, num_stable)
    judged = num_stable >= LEAST_STABLE
    assert judged.mean() > 0.8
    failures = [
        f"{row['kind']} {row['id']}: {share:.2%} of {count} stable pixels"
        for row, share, count, verdict in zip(rows, shares, num_stable, judged, strict=True)
        if verdict and share < BAR[row["kind"]]
    ]
    for kind in sorted({row["kind"] for row in rows}):
        of_kind = judged & np.array([row["kind"] == kind for row in rows])
        if of_kind.any():
            worst = rows[int(np.argmin(np.where(of_kind, shares, 2)))]["id"]
            print(f"{kind}, z {arrays['z']}, {crunch}: worst {shares[of_kind].min():.2%} ({worst})")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("name", ["refs32_z0_public", "refs32_z025_public"])
def test_the_reference_gives_the_values_of_1995(gart, name):
    rows = json.loads((gart / f"{name}.json").read_text())
    with np.load(gart / f"{name}.npz") as stored:
        raw, flags, z = stored["raw"], stored["flags"], float(stored["z"])
    population = ea.encode([row["formula"] for row in rows])
    values = ea.evaluate(population, 32, 32, z, implementation="reference")
    size = np.maximum(1, np.abs(raw).max(axis=-1, keepdims=True))
    close = (np.abs(values - raw) <= 1e-6 * size).all(axis=-1)
    stable = (flags & 15) == 0
    # A chaotic formula magnifies a last-bit difference of sin, exp or log even in float64.
    shares = (close | ~stable).mean(axis=(1, 2))
    assert shares.min() > 0.98
    assert shares.mean() > 0.999


@pytest.fixture(scope="module")
def renders(gart):
    rows = json.loads((gart / "renders_public.json").read_text())
    population = ea.encode([row["formula"] for row in rows])
    pictures = to_bytes(ea.render(population, 256, 256, crunch="1995", smooth=True))
    return {row["id"]: (row, picture) for row, picture in zip(rows, pictures, strict=True)}


@pytest.mark.parametrize("name", [45, 161, 198, 512, "ex1"])
def test_large_pictures_are_the_png_files_of_1995(gart, renders, name):
    row, picture = renders[name]
    picture = picture.astype(int)
    with np.load(gart / "renders_public.npz") as stored:
        stable = (stored[f"flags_{name}"] & UNSTABLE["1995"]) == 0
    with Image.open(gart / row["png"]) as image:
        original = np.asarray(image.convert("RGB")).astype(int)
    close = (np.abs(picture - original) <= 1).all(axis=-1)
    print(f"256x256, {name}: {close[stable].mean():.2%} within one grey level")
    assert close[stable].mean() >= 0.99
    large = ea.render_large(row["formula"], 256, 256, crunch="1995", smooth=True).astype(int)
    # Two compilations of the blur may round a value that lies between two grey levels apart.
    np.testing.assert_allclose(large, picture, rtol=0, atol=1)
    assert (large != picture).mean() < 1e-4
