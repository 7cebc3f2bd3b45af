"""What makes pictures that others recognise? Every variant illuminates for the same time.

python scripts/compare_naturalness.py --minutes 4 --out runs/naturalness [NAME ...] -- --net ...

What follows `--` goes to every run. A variant that is there already is not run again. Writes
OUT/report.md, a line a variant, and OUT/sheet.png, the same classes of all, side by side.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from evojax_art.artwork.sheets import contact_sheet
from evojax_art.language.formula import parse
from evojax_art.nets.weights import load_net
from evojax_art.objective.niches import EveryClass
from evojax_art.render.large import render_picture
from evojax_art.render.look import Look, Raster
from evojax_art.runs.repertoire import Elite, read_elites
from evojax_art.runs.steadiness import kept
from evojax_art.runtime.plan import make_plan

BASE = ["--net", "squeezenet1_1", "efficientnet_lite0", "--judged-size", "128"]
BASE += ["--unseen", "efficientnet_lite2"]
WITHOUT, WITH = "--map-elites.growth.leave-out", "--map-elites.growth.add"
WAVES = ["--max-length", "128", "--gradient.waves", "4", "--gradient.elites", "32"]
LATER = ["iabs", "igauss", "itanh", "norm", "noise", "clouds", "over", "mirror", "radius"]


def later_without(*names: str) -> list[str]:
    """Flags that add what the 2015 program did not have, but for these."""
    return [WITH, *(name for name in LATER if name not in names)]


VARIANTS = {
    "as it is": [],
    "operators of 2015": [WITH],
    "sizes 64 and 128": ["--judged-size", "64", "128"],
    "size 96": ["--judged-size", "96"],
    "size 160": ["--judged-size", "160"],
    "size 224": ["--judged-size", "224"],
    "drawn at 128, judged at 224": ["--judged-size", "224", "--raster.size", "128"],
    "size 224, also 128": ["--judged-size", "224", "--views.sizes", "128"],
    "size 224, also 128 and 448": ["--judged-size", "224", "--views.sizes", "128", "448"],
    "three judges": ["--net", "squeezenet1_1", "bvlc_googlenet", "efficientnet_lite0"],
    "SqueezeNet alone": ["--net", "squeezenet1_1"],
    "EfficientNet-Lite0 alone": ["--net", "efficientnet_lite0"],
    "EfficientNet-Lite0 and 1": ["--net", "efficientnet_lite0", "efficientnet_lite1"],
    "least sure judge": ["--join", "least"],
    "a view": ["--views.count", "1"],
    "worst of a view": ["--views.count", "1", "--views.join", "least"],
    "3x3 samples": ["--raster.samples", "3"],
    "total variation": ["--objective.tv-weight", "20"],
    "spectrum": ["--objective.spectrum-weight", "1"],
    "gate of 2015": ["--objective.noise-gate", "0.05"],
    "no contrast gate": ["--objective.contrast-gate", "0"],
    "no sieve": ["--map-elites.surplus", "0"],
    "no sine": [WITHOUT, "isin"],
    "no floor, no mod": [WITHOUT, "floor", "mod"],
    "no division": [WITHOUT, "/", "inv", "A1", "A2", "normalize", "normp", "orth1", "orth2"],
    "no exponentials": [WITHOUT, "exp", "iexp", "ilog"],
    "no subst": [WITHOUT, "subst"],
    "no noise": later_without("noise", "clouds"),
    "no over": later_without("over"),
    "no mirror, no radius": later_without("mirror", "radius", "norm"),
    "no smooth steps": later_without("iabs", "igauss", "itanh"),
    "shorter formulas": ["--map-elites.parsimony", "0.03"],
    "uniform parents": ["--map-elites.parents", "uniform"],
    "no overlay": ["--map-elites.variation.overlay", "0"],
    "overlay 0.6": ["--map-elites.variation.overlay", "0.6"],
    "no blend": ["--map-elites.variation.blend", "0"],
    "gradient": ["--gradient.every", "4"],
    "waves": [*WAVES, "--gradient.every", "1"],
    "waves, longer climbs": [*WAVES, "--gradient.every", "2", "--gradient.steps", "16"],
    "a bright and a dark elite": ["--map-elites.kinds", "2"],
}
STEADY_EVERY = 5  # classes that steadiness is measured on
PROBE = ["starfish", "jack-o'-lantern", "daisy", "lampshade", "traffic light", "volcano", "maze"]
PROBE += ["balloon", "pinwheel", "analog clock", "umbrella", "ladybug"]


def folder_of(out: Path, name: str) -> Path:
    """Where the run of a variant is."""
    return out / name.replace(" ", "-").replace(",", "")


def run(name: str, out: Path, minutes: float, given: list[str]) -> list[Elite]:
    """The elites of a variant, which is run unless it is there."""
    folder = folder_of(out, name)
    if not (folder / "elites.png").exists():
        command = [sys.executable, "-m", "evojax_art", "illuminate", "--out", str(folder)]
        command += [*BASE, "--minutes", str(minutes), "--formulas", "1000000000"]
        subprocess.run([*command, "--look-every", "0", *given, *VARIANTS[name]], check=True)
    return read_elites(folder)


def line(name: str, folder: Path, elites: list[Elite], steady: float) -> str:
    """A line of the report."""
    last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    median = float(np.median([elite.confidence for elite in elites]))
    ranks = [rank for elite in elites for _, rank in elite.unseen.values() if rank is not None]
    first, five = (np.mean(np.array(ranks) < most) for most in (1, 5))
    return (
        f"| {name} | {last['formulas']:.0f} | {100 * median:.1f} % | {100 * first:.1f} % | "
        f"{100 * five:.1f} % | {100 * steady:.1f} % | {last['mean_length']:.0f} |\n"
    )


def main() -> None:
    """The script."""
    flags, rest = sys.argv[1:], []
    if "--" in flags:
        flags, rest = flags[: flags.index("--")], flags[flags.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(VARIANTS))
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=Path("runs/naturalness"))
    given = parser.parse_args(flags)
    for name in given.names:
        if name not in VARIANTS:
            parser.error(f"no variant {name!r}; there are: {', '.join(VARIANTS)}")
    given.out.mkdir(parents=True, exist_ok=True)
    plan = make_plan()
    net = load_net("efficientnet_lite0", plan=plan)
    niches = EveryClass(net.vocabulary, [(n,) for n in range(len(net.vocabulary))])
    wanted = [net.vocabulary.find(query)[0] for query in PROBE]
    report, pictures, captions = "", [], []
    for name in given.names or VARIANTS:
        elites = run(name, given.out, given.minutes, rest)
        some = elites[::STEADY_EVERY]
        steady = float(np.mean(kept(some, {"efficientnet_lite0": net}, niches, plan)))
        report += line(name, folder_of(given.out, name), elites, steady)
        of_class = {elite.class_: elite for elite in elites}
        raster = Raster(height=128, width=128, samples=3)
        for index in wanted:
            formula = parse(of_class[index].formula)
            pictures.append(render_picture(formula, Look(), raster, max_length=256))
            captions.append(f"{name}: {of_class[index].caption}")
        head = "| variant | formulas | own median | unseen first | unseen five | steady | nodes |\n"
        (given.out / "report.md").write_text(head + "|---" * 7 + "|\n" + report, encoding="utf-8")
        sheet = contact_sheet(pictures, captions, columns=len(wanted), cell=128)
        Image.fromarray(sheet).save(given.out / "sheet.png")
        print(report.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
