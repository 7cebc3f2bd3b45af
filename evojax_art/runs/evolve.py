"""A run of evolution: from a configuration to a folder of pictures (see `folder`)."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key
from rich.console import Console

from evojax_art.artwork.beside import bound_with
from evojax_art.artwork.provenance import read_provenance
from evojax_art.language.bindings import Bound, bind_images
from evojax_art.language.program import Program, encode
from evojax_art.nets.base import Network
from evojax_art.nets.weights import load_net
from evojax_art.objective.evaluator import Evaluator
from evojax_art.objective.niches import niches_of
from evojax_art.objective.settings import build_objective
from evojax_art.objective.target import load_target
from evojax_art.objective.terms import Target
from evojax_art.render.batch import render_population
from evojax_art.render.look import Look, Raster
from evojax_art.runs.early import Grown, is_of_the_run, survivors_of
from evojax_art.runs.folder import make_folder, name_of
from evojax_art.runs.given import read_seeds, unseen_names
from evojax_art.runs.loop import Loop, Outcome
from evojax_art.runs.records import Records
from evojax_art.runs.settings import RunConfig
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.plan import Plan, make_plan
from evojax_art.search.generation import Evolution
from evojax_art.search.start_from import leaf_name, variations


def run(config: RunConfig, console: Console | None = None) -> Outcome:
    """Evolves as configured; returns when a limit is reached or on Ctrl-C.

    Args:
        config: what to do.
        console: for progress; None is standard error.

    Raises:
        InputError: anything in the configuration that cannot be used; nothing is written then.
    """
    console = console or Console(stderr=True, highlight=False)
    plan = make_plan(network_dtype=jnp.dtype(config.dtype))
    nets, target = load_target(config.target, config.views, plan, config.unseen)
    files = config.target.weights_files(config.unseen)
    unseen = {name: load_net(name, files.get(name), plan=plan) for name in unseen_of(config)}
    size = max(net.size for net in nets.values())
    _check_opinions(config, unseen, target, size)
    bound, photograph = _bind(config)
    seeds_key, key, early_key = jax.random.split(jax.random.key(config.seed), 3)
    seeds = _seeds(config, bound.names, photograph, seeds_key)
    evolution = _evolution(config, nets, target, bound, photograph, plan)
    early = _early(config, evolution, nets, bound, photograph, plan)
    folder = make_folder(config.out, name_of(config))
    (folder / "records").mkdir(exist_ok=True)
    for line in target.describe():
        console.print(line, markup=False, soft_wrap=True)
    grown = Grown(seeds, is_interrupted=False)
    if early:
        grown = survivors_of(early, config.early, early_key, seeds, console)
    records = Records(folder, config, evolution, bound, unseen)
    judge = _judge(config, evolution, nets, target, bound)
    return Loop(config, evolution, records, folder, bound.names, console, judge)(key, grown)


def _judge(
    config: RunConfig,
    evolution: Evolution,
    nets: Mapping[str, Network],
    target: Target,
    bound: Bound,
) -> Evaluator:
    """Of the target alone, where evolution has niches besides."""
    if not config.has_niches:
        return evolution.evaluator
    return Evaluator(
        nets,
        target,
        config.objective,
        config.raster,
        photographs=bound.pyramids,
        reference=evolution.params.reference,
        views=config.views,
        plan=evolution.evaluator.plan,
    )


def _early(
    config: RunConfig,
    proper: Evolution,
    nets: Mapping[str, Network],
    bound: Bound,
    photograph: str,
    plan: Plan,
) -> list[Evolution]:
    """What evolves in the early part, size by size."""
    found = []
    for raster in config.early.rasters(config.raster):
        if is_of_the_run(raster, proper.raster, nets.values(), config.views):
            found.append(proper)
            continue
        wanted = replace(config.target, judged_size=(raster.size,))
        views = replace(config.views, sizes=())  # small pictures are there to be quick
        # A batch that was asked for fits the run proper.
        small = replace(config, target=wanted, raster=raster, views=views, batch=0)
        judges, target = load_target(wanted, views, plan, config.unseen)
        found.append(_evolution(small, judges, target, bound, photograph, plan))
    return found


def _evolution(
    config: RunConfig,
    nets: Mapping[str, Network],
    target: Target,
    bound: Bound,
    photograph: str,
    plan: Plan,
) -> Evolution:
    size = max(net.size for net in nets.values())
    objective = config.objective
    settings: dict[str, Any] = {}
    for name in ("genetic", "map_elites", "mount2015"):
        one = getattr(config, name)
        settings[name] = replace(one, growth=replace(one.growth, images=len(bound.pyramids)))
    if config.has_niches:
        wanted, niches = niches_of(nets, config.target, (), config.views, main=target)
        main = len(niches.groups) - 1
        settings["map_elites"] = replace(settings["map_elites"], niches=main + 1, main=main)
        objective = build_objective(objective, target, wanted, main)
    return Evolution(
        replace(config, **settings).chosen_algorithm,
        nets,
        target,
        objective,
        config.raster,
        max_length=config.max_length,
        batch=config.batch or None,
        photographs=bound.pyramids,
        reference=_reference(config.raster.look, config.raster.raster(size), bound, photograph),
        views=config.views,
        polish=config.memetic,
        plan=plan,
    )


def unseen_of(config: RunConfig) -> list[str]:
    """Networks that have no say in a run, and whose opinion is worth knowing."""
    names = unseen_names(config.target.judges, config.unseen)
    return names if config.unseen or not config.target.layer else []


def _check_opinions(
    config: RunConfig, unseen: dict[str, Network], target: Target, size: int
) -> None:
    """That whoever was named has an opinion of what is wanted."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    for name in (name for name in config.unseen if name in unseen):
        if nnx.eval_shape(target.opinion, unseen[name], images) is None:
            wanted = config.target.words
            raise InputError(f"unseen {name}: it knows nothing of what is wanted, {wanted}")


def _bind(config: RunConfig) -> tuple[Bound, str]:
    """All pictures that formulas may read, and the name of the one to start from, if any."""
    by_name = {re.split("[:=]", flag)[0].lower(): flag for flag in config.image}
    flags, name = list(by_name.values()), ""  # of one name the last: flags override a file's
    if config.start_from:
        name = leaf_name(config.start_from, bind_images(flags).names)
        flags.append(f"{name}:whole={config.start_from}")
    bound = bind_images(flags)
    if config.seeds and config.seeds.suffix.lower() == ".png":
        bound = bound_with(bound, read_provenance(config.seeds).photographs, config.seeds.parent)
    return bound, name


def _seeds(
    config: RunConfig, images: tuple[str, ...], photograph: str, key: Key[Array, ""]
) -> Program | None:
    """Formulas to start from, as the configuration says; consumes the key."""
    if config.seeds is not None:
        return read_seeds(config.seeds, config.max_length, images)
    if photograph:
        count = max(1, config.genetic.population // 2)
        expressions = variations(key, photograph, count, config.max_length, images)
        return encode(expressions, max_length=config.max_length)
    return None


def _reference(look: Look, raster: Raster, bound: Bound, photograph: str) -> Array | None:
    """The photograph as formulas are drawn, [H, W, 3]."""
    if not photograph:
        return None
    leaf = encode([photograph], images=bound.names)
    return render_population(leaf, look, raster, images=bound.pyramids)[0]
