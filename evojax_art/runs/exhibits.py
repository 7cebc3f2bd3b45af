"""What a gallery shows: the elites of an illumination, or the records of an evolution."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from evojax_art.artwork.beside import bound_with
from evojax_art.artwork.gallery import Exhibit, packed
from evojax_art.artwork.provenance import read_provenance
from evojax_art.artwork.sheets import spread, thumbnail
from evojax_art.language.bindings import Bound
from evojax_art.language.formula import Expression, parse
from evojax_art.objective.tv import tv_noise
from evojax_art.render.large import render_picture
from evojax_art.render.look import Look, Raster
from evojax_art.runs.illuminate import IlluminateConfig
from evojax_art.runs.lineage import bred_as, hosts, read_lineage
from evojax_art.runs.repertoire import Elite, read_elites
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
                ancestors.append(packed(_draw(_parsed(one.formula, folder), look, raster)))
            found.append((drawn[one.id], names.get(of[n], "?")))
        return found

    exhibits = []
    for number, elite in enumerate(ordered, 1):
        large = _draw(_parsed(elite.formula, folder), look, _LARGE)
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
                commands=_commands(elite.formula, f"--target {elite.class_}", config.net),
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
        expression = _parsed(told.formula, path, bound)
        large = _draw(expression, told.look or Look(), _LARGE, bound)
        wanted = ", ".join(told.target) or told.prompt or told.layer
        judges = told.judges or ({told.net: told.score} if told.net else {})
        exhibits.append(
            Exhibit(
                name=wanted or "?",
                formula=told.formula,
                confidence=told.score or 0.0,
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
                    f"--target {shlex.join(told.target)}" if told.target else "",
                    told.net.split(),
                ),
            )
        )
        tell_fn(f"{folder}: {number}/{len(paths)} pictures drawn")
    return exhibits


def _parsed(formula: str, place: Path, bound: Bound | None = None) -> Expression:
    try:
        return parse(formula, images=bound.names if bound else ())
    except InputError as error:
        raise InputError(f"{place}: {str(error).splitlines()[0]}") from error


def _draw(
    expression: Expression, look: Look, raster: Raster, bound: Bound | None = None
) -> Picture:
    images = bound.pyramids if bound else ()
    capacity = -(-len(expression) // 64) * 64  # few lengths, so that little is compiled
    return np.asarray(render_picture(expression, look, raster, max_length=capacity, images=images))


def _noise(picture: Picture) -> float:
    small = thumbnail(picture, _NOISE_SIZE)
    return float(jax.device_get(tv_noise(jnp.asarray(small[None], jnp.float32) / 255))[0])


def _commands(formula: str, target: str, net: Sequence[str]) -> list[tuple[str, str]]:
    quoted = shlex.quote(formula)
    judged = " ".join(part for part in (target, f"--net {' '.join(net)}" if net else "") if part)
    return [
        ("draw it at any size", f"evojax-art render {quoted} --size 2048 --out large.png"),
        ("polish it", f"evojax-art polish {quoted} {judged} --out polished.png"),
        ("film it", f"evojax-art movie {quoted} --out movie.mp4"),
        (
            "breed from it",
            f"printf '%s\\n' {quoted} > seed.txt && evojax-art evolve --seeds seed.txt {judged}",
        ),
    ]
