"""What a gallery shows: the elites of an illumination, or the records of an evolution."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from evojax_art.artwork.beside import bound_with
from evojax_art.artwork.gallery import Exhibit, packed
from evojax_art.artwork.provenance import Provenance, read_provenance
from evojax_art.artwork.sheets import spread, thumbnail
from evojax_art.language.bindings import Bound, Source
from evojax_art.language.formula import Expression
from evojax_art.objective.tv import tv_noise
from evojax_art.render.large import render_picture
from evojax_art.render.look import Look, Raster
from evojax_art.runs.illuminate import IlluminateConfig
from evojax_art.runs.lineage import bred_as, hosts, read_lineage
from evojax_art.runs.repertoire import Elite, parse_told, read_elites
from evojax_art.runs.settings import RunConfig
from evojax_art.runs.toml import read_config
from evojax_art.runtime.errors import InputError

_LARGE = Raster(height=512, width=512, samples=2)
_SMALL, _TINY = 192, 72  # pixels, of thumbnails and of ancestors
_MOST_ANCESTORS = 10
_NOISE_SIZE = 224
Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Exhibition:
    """All that a page shows.

    Attributes:
        exhibits: pictures, in the order that is shown at first.
        ancestors: small pictures of theirs, of `packed`.
    """

    exhibits: Sequence[Exhibit]
    ancestors: Sequence[bytes]


def exhibition(
    folders: Sequence[Path], tell_fn: Callable[[str], None], most: int | None = None
) -> Exhibition:
    """Reads runs and draws what they bred.

    Args:
        folders: of illuminations and evolutions.
        tell_fn: is told how far it is.
        most: of each run, the first of the order.

    Raises:
        InputError: a folder that is no run, or a file in it that is damaged.
    """
    exhibits: list[Exhibit] = []
    ancestors: list[bytes] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder of a run")
        if (folder / "records").is_dir():
            exhibits += _records(folder, tell_fn, most)
        else:
            exhibits += _elites(folder, ancestors, tell_fn, most)
    return Exhibition(exhibits, ancestors)


def _elites(
    folder: Path, ancestors: list[bytes], tell_fn: Callable[[str], None], most: int | None
) -> list[Exhibit]:
    """Those that networks agree on most first, repetitions of a formula last."""
    elites = sorted(read_elites(folder), key=lambda elite: -elite.agreement)
    ordered, repeated, seen = [], [], set()
    for elite in elites:
        (repeated if elite.formula in seen else ordered).append(elite)
        seen.add(elite.formula)
    ordered = [*ordered, *repeated][:most]
    kin = read_lineage(folder) if (folder / "lineage.jsonl").exists() else {}
    config = read_config(folder / "config.toml", IlluminateConfig)
    look = config.raster.look
    names: dict[int | None, str] = {elite.class_: elite.caption for elite in elites}
    drawn: dict[str, int] = {}

    def strip(elite: Elite) -> list[tuple[int, str]]:
        """The chain of hosts; each ancestor is drawn once, whoever descends from it."""
        chain = hosts(kin, elite.id) if elite.id in kin else []
        of = bred_as(chain, elite.class_)
        found = []
        for n in spread(len(chain), _MOST_ANCESTORS):
            one = chain[n]
            if one.id not in drawn:
                drawn[one.id] = len(ancestors)
                raster = Raster(height=_TINY, width=_TINY, samples=2)
                expression = parse_told(one.formula, f"{folder / 'lineage.jsonl'}: id {one.id}")
                ancestors.append(packed(drawn_as(expression, look, raster)))
            found.append((drawn[one.id], names.get(of[n], "?")))
        return found

    exhibits = []
    for number, elite in enumerate(ordered, 1):
        expression = parse_told(elite.formula, f"{folder / 'elites.jsonl'}: {elite.caption}")
        large = drawn_as(expression, look, _LARGE)
        exhibits.append(
            Exhibit(
                name=elite.name,
                formula=elite.formula,
                confidence=elite.confidence,
                opinions=[
                    *((name, p, None, True) for name, p in elite.scores.items()),
                    *((name, p, rank, False) for name, (p, rank) in elite.unseen.items()),
                ],
                noise=_noise(large),
                length=elite.length,
                generation=elite.generation,
                id=elite.id,
                thumbnail=packed(thumbnail(large, _SMALL)),
                large=packed(large),
                ancestors=strip(elite),
                commands=_commands(
                    elite.formula, elite.length, _aim_of(config, elite.class_), look
                ),
            )
        )
        tell_fn(f"{folder}: {number}/{len(ordered)} pictures drawn")
    return exhibits


def _records(folder: Path, tell_fn: Callable[[str], None], most: int | None) -> list[Exhibit]:
    """The last record first."""
    paths = sorted((folder / "records").glob("*.png"), reverse=True)[:most]
    if not paths:
        raise InputError(f"{folder} has no records yet; wait, or end the run")
    exhibits = []
    for number, path in enumerate(paths, 1):
        told = read_provenance(path)
        if not told.formula:
            raise InputError(f"{path} is no picture of a run: it names no formula")
        bound = bound_with(Bound(), told.photographs, path.parent)
        expression = parse_told(told.formula, str(path), bound.names)
        look = told.look or Look()
        large = drawn_as(expression, look, _LARGE, bound)
        wanted = ", ".join(told.target) or told.prompt or told.layer
        judges = told.judges or ({told.net: told.score} if told.net else {})
        exhibits.append(
            Exhibit(
                name=wanted or "?",
                formula=told.formula,
                confidence=told.score or 0.0,
                is_probability=not told.layer,
                opinions=[
                    *((name, p, None, True) for name, p in judges.items()),
                    *((name, p, None, False) for name, p in told.unseen.items()),
                ],
                noise=_noise(large),
                length=len(expression),
                generation=told.generation or 0,
                id=told.id,
                thumbnail=packed(thumbnail(large, _SMALL)),
                large=packed(large),
                commands=_commands(
                    told.formula,
                    len(expression),
                    _aim_told(told),
                    look,
                    _image_flags(bound.read_by(expression)),
                ),
            )
        )
        tell_fn(f"{folder}: {number}/{len(paths)} pictures drawn")
    return exhibits


def drawn_as(
    expression: Expression, look: Look, raster: Raster, bound: Bound | None = None
) -> Picture:
    """The picture of a formula, of those that `bound` has where it reads photographs."""
    images = bound.pyramids if bound else ()
    capacity = -(-len(expression) // 64) * 64  # few lengths, so that little is compiled
    return np.asarray(render_picture(expression, look, raster, max_length=capacity, images=images))


def _noise(picture: Picture) -> float:
    small = thumbnail(picture, _NOISE_SIZE)
    return float(jax.device_get(tv_noise(jnp.asarray(small[None], jnp.float32) / 255))[0])


def _commands(
    formula: str, length: int, aim: Sequence[str], look: Look, images: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """What to do with a formula: draw it as it was drawn, breed it for what it was bred for.

    Args:
        formula: its text.
        length: nodes.
        aim: flags that say what a run wanted, and who judged.
        look: of the formula.
        images: flags that name photographs.
    """
    quoted, image_flags = shlex.quote(formula), shlex.join(images)
    bred = shlex.join([*aim, *images, *_look_flags(look, "raster.")])
    longer = f"--max-length {length}" if length > RunConfig.max_length else ""

    def line(*words: str) -> str:
        return " ".join(word for word in words if word)

    return [
        (
            "draw it at any size",
            line(
                f"evojax-art render {quoted} --size 2048",
                image_flags,
                shlex.join(_look_flags(look)),
                "--out large.png",
            ),
        ),
        ("polish it", line(f"evojax-art polish {quoted}", bred, "--out polished.png")),
        (
            "film it",  # where z is time
            line(
                f"evojax-art movie {quoted}",
                image_flags,
                shlex.join(_look_flags(replace(look, z=0.0))),
                "--out movie.mp4",
            ),
        ),
        (
            "breed from it",
            line(
                f"printf '%s\\n' {quoted} > seed.txt && evojax-art evolve --seeds seed.txt",
                bred,
                longer,
            ),
        ),
    ]


def _look_flags(look: Look, prefix: str = "") -> list[str]:
    """Of a look that is not as usual."""
    flags = [f"--{prefix}z", repr(float(look.z))] if look.z else []
    flags += [f"--{prefix}crunch", look.crunch] if look.crunch != Look.crunch else []
    return [*flags, f"--{prefix}smooth"] if look.smooth else flags


def _image_flags(sources: Sequence[Source]) -> list[str]:
    """Of photographs that a formula reads."""
    found = []
    for source in sources:
        found += ["--image", f"{source.name}{':whole' if source.whole else ''}={source.place}"]
    return found


def _aim_of(config: IlluminateConfig, class_: int) -> list[str]:
    """What an illumination wanted of the elite of a class."""
    aim = ["--target", str(class_), "--net", *config.net]
    for file in config.weights:
        aim += ["--weights", file]
    if any(config.judged_size):
        aim += ["--judged-size", *map(str, config.judged_size)]
    return [*aim, "--join", config.join] if config.join != IlluminateConfig.join else aim


def _aim_told(told: Provenance) -> list[str]:
    """What a picture says that it was bred for."""
    aim = ["--target", *told.target] if told.target else []
    aim += ["--prompt", told.prompt] if told.prompt else []
    aim += ["--against", *told.against] if told.against else []
    aim += ["--layer", told.layer] if told.layer else []
    aim += ["--guide", told.guide] if told.guide else []
    return [*aim, "--net", *told.net.split()] if told.net else aim
