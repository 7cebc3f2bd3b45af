"""A training from photographs to a weights file: a folder, a progress bar, a report.

config.toml              the configuration, as `train_classifier.py --config` takes it
metrics.jsonl            a line per epoch
checkpoint.safetensors   the state after the last epoch
NET.safetensors          the weights, float16, as `load_net` takes them; the report inside
report.json              accuracy, calibration, time, machine
"""

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from evojax_art.nets.base import Classifier
from evojax_art.nets.cifar import SIZE, CifarClassifier
from evojax_art.nets.registry import lookup
from evojax_art.nets.weights import load_net, save_net
from evojax_art.render.batch import render
from evojax_art.runs.toml import config_text
from evojax_art.runs.training.calibration import (
    accuracy,
    best_temperature,
    calibration_error,
    photograph_logits,
)
from evojax_art.runs.training.photographs import Photographs, read_photographs
from evojax_art.runs.training.training import Training, TrainingConfig, restore, save
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import write_text
from evojax_art.runtime.plan import current_plan
from evojax_art.search.variation import GrowthConfig, grow

NOISE = 0.1  # standard deviation at which steadiness is reported
_FORMULA_LENGTH = 128  # nodes at most, of formulas to be unsure of


def train(config: TrainingConfig, data: Path, out: Path, console: Console) -> dict[str, Any]:
    """Trains, or goes on where the checkpoint in `out` stands.

    Args:
        config: how.
        data: a folder of photographs, see `photographs`.
        out: the folder for everything above.
        console: for progress.

    Returns:
        What `report.json` holds.

    Raises:
        InputError: anything that cannot be used; `out` holds another training.
    """
    net = _start_net(config)
    train_set, test_set = read_photographs(data)
    if config.held_out >= len(train_set.images):
        raise InputError(f"held_out = {config.held_out}: the set has {len(train_set.images)}")
    held_out = train_set.part(-config.held_out, None)
    _prepare_folder(config, out)
    formulas = formula_pictures(config) if config.formulas else None
    training = Training(net, train_set.part(None, -config.held_out), config, formulas)
    state = training.init()
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists():
        state = restore(checkpoint, state)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(
            "training", total=training.num_steps, completed=int(state.step), start=False
        )
        progress.start_task(task)
        for epoch in range(int(state.step) // training.steps_per_epoch, config.epochs):
            started = time.monotonic()
            state, metrics = training.epoch(state, lambda steps: progress.advance(task, steps))
            logits = photograph_logits(training.averaged(state), held_out)
            row = {"epoch": epoch + 1, "seconds": round(time.monotonic() - started, 1), **metrics}
            row["held_out_accuracy"] = accuracy(logits, held_out.labels)
            save(checkpoint, state)
            with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            progress.console.print(
                f"epoch {epoch + 1}: loss {row['loss']:.3f}, "
                f"held-out accuracy {100 * row['held_out_accuracy']:.1f} %, {row['seconds']:.0f} s"
            )
    return _finish(config, training.averaged(state), held_out, test_set, out)


def formula_pictures(config: TrainingConfig) -> Float[Array, "N 32 32 3"]:
    """Pictures of random formulas, 2x2 samples a pixel; from the seed alone."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 2), config.formulas)
    grown = jax.jit(jax.vmap(lambda key: grow(key, _FORMULA_LENGTH, GrowthConfig())))(keys)
    return render(grown, SIZE, SIZE, samples=2)


def _start_net(config: TrainingConfig) -> CifarClassifier:
    build: Any = lookup(config.net).build
    if CifarClassifier not in build.__mro__:
        raise InputError(f"net {config.net} is not trained here, only those of CIFAR-100 are")
    start = config.start
    net: Any = load_net(config.net, start) if start else build(rngs=nnx.Rngs(config.seed))
    net.temperature[...] = jnp.ones(())
    return net


def _prepare_folder(config: TrainingConfig, out: Path) -> None:
    text = config_text(config, "what this folder was trained with")
    path = out / "config.toml"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise InputError(f"{out} holds a training with other settings; give another --out")
    except OSError as error:
        raise InputError(f"cannot use folder {out}: {error.strerror}") from error
    write_text(path, text)


def _finish(
    config: TrainingConfig,
    net: CifarClassifier,
    held_out: Photographs,
    test: Photographs,
    out: Path,
) -> dict[str, Any]:
    """Fits the temperature, writes the weights, and reports on what was written."""
    logits = photograph_logits(net, held_out)
    net.temperature[...] = jnp.float32(best_temperature(logits, held_out.labels))
    path = out / f"{config.net}.safetensors"
    save_net(path, net, {})
    report = {
        "net": config.net,
        **judge_report(load_net(config.net, path), test),
        "temperature": round(float(net.temperature[...]), 4),
        "seconds": round(_seconds(out)),
        "device": current_plan().device_kind,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "epochs": config.epochs,
        "seed": config.seed,
    }
    save_net(path, net, {"report": json.dumps(report)})
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def judge_report(net: Classifier, test: Photographs) -> Mapping[str, Any]:
    """What is said of a finished network, on photographs it has not seen."""
    logits = photograph_logits(net, test)
    noisy = photograph_logits(net, test, noise=NOISE)
    return {
        "test_photographs": len(test.images),
        "accuracy": round(accuracy(logits, test.labels), 4),
        "noisy_accuracy": round(accuracy(noisy, test.labels), 4),
        "calibration_error": round(calibration_error(logits, test.labels), 4),
    }


def _seconds(out: Path) -> float:
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["seconds"] for line in lines)
