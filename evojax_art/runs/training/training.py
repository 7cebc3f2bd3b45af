"""Trains a classifier of 32x32 pictures, resumably, on whatever device there is.

Stochastic gradient descent with Nesterov's momentum under a warm-up and a cosine, labels smoothed,
an exponential moving average of everything learnt. The photographs and their augmentation stay on
the device. The state is saved after every epoch; random numbers depend on the seed and the step
alone, so a resumed training ends where an uninterrupted one would.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int
from safetensors.numpy import load_file, save_file

from evojax_art.nets.cifar import CifarClassifier
from evojax_art.runs.training.augmentation import AugmentationConfig, augment
from evojax_art.runs.training.photographs import Photographs
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import written_whole

_LEARNT = (nnx.Param, nnx.BatchStat)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training.

    Attributes:
        net: a network of the registry that is trained here, see `evojax-art nets`.
        start: a weights file to go on from; by default random weights.
        seed: of weights, order and augmentation.
        epochs: passes over the photographs.
        batch: photographs a step.
        peak_rate: learning rate at the end of the warm-up.
        warmup: share of all steps in which the rate rises; it falls by a cosine afterwards.
        momentum: Nesterov's.
        weight_decay: on kernels, added to the gradient.
        label_smoothing: probability spread over all classes.
        average: decay per step of the moving average, which is what is kept.
        adversarial: length (L2, over a picture in [0, 1]) of one step uphill in the loss that
            photographs take before they are learnt; 0 for none. Doubles the time.
        adversarial_share: of a batch, from its start.
        formulas: pictures of random formulas to learn to be unsure of.
        formula_share: how many of them join a batch, as a share of it.
        held_out: photographs at the end of the training set that are not learnt from, for the
            temperature and for progress.
        augmentation: what happens to photographs.
    """

    net: str = "cifar100"
    start: Path | None = None
    seed: int = 0
    epochs: int = 24
    batch: int = 128
    peak_rate: float = 0.1
    warmup: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    average: float = 0.998
    adversarial: float = 0.0
    adversarial_share: float = 0.5
    formulas: int = 0
    formula_share: float = 0.25
    held_out: int = 1000
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    def __post_init__(self):
        for name in ("epochs", "batch", "held_out"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("peak_rate", "weight_decay", "adversarial", "formulas"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        shares = ("warmup", "momentum", "label_smoothing", "average", "adversarial_share")
        for name in (*shares, "formula_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be 0 to 1, got {getattr(self, name)}")


class TrainingState(NamedTuple):
    """All that changes.

    Attributes:
        step: steps taken.
        learnt: parameters and normalisation statistics.
        average: their moving average.
        momentum: the optimiser's state.
    """

    step: Int[Array, ""]
    learnt: nnx.State
    average: nnx.State
    momentum: optax.OptState


class Training:
    """A training in progress.

    Args:
        net: to train; it is not changed.
        photographs: to learn from.
        config: how.
        formulas: pictures in [0, 1] to be unsure of, or None.
    """

    def __init__(
        self,
        net: CifarClassifier,
        photographs: Photographs,
        config: TrainingConfig,
        formulas: Float[Array, "N 32 32 3"] | None = None,
    ):
        net = nnx.clone(net)
        net.train()
        self.config = config
        self.steps_per_epoch = len(photographs.images) // config.batch
        if self.steps_per_epoch == 0:
            raise InputError(
                f"batch = {config.batch} is more than the {len(photographs.images)} photographs"
            )
        self.num_steps = self.steps_per_epoch * config.epochs
        self._graph, learnt, self._rest = nnx.split(net, _LEARNT, ...)
        self._start = learnt
        self._num_classes = len(net.classes)
        self._optimiser = self._make_optimiser()
        self._images = jnp.asarray(photographs.images)
        self._labels = jnp.asarray(photographs.labels, jnp.int32)
        self._formulas = formulas
        self._key = jax.random.key(config.seed)
        self._step = jax.jit(self._take_step, donate_argnums=0)

    def init(self) -> TrainingState:
        """The state before the first step."""
        # Copies, because a step consumes its state.
        learnt, average = (jax.tree.map(jnp.copy, self._start) for _ in range(2))
        momentum = self._optimiser.init(nnx.filter_state(learnt, nnx.Param))
        return TrainingState(jnp.zeros((), jnp.int32), learnt, average, momentum)

    def epoch(
        self, state: TrainingState, progress_fn: Callable[[int], object] = lambda steps: None
    ) -> tuple[TrainingState, dict[str, float]]:
        """One pass over the photographs; consumes `state`.

        Args:
            state: at the start of an epoch.
            progress_fn: called with the number of steps taken since the last call.

        Returns:
            The new state; mean `loss` and `accuracy` over the epoch, on augmented photographs.
        """
        epoch_key = jax.random.fold_in(self._key, int(state.step))
        order = jax.random.permutation(epoch_key, len(self._images))
        used = self.steps_per_epoch * self.config.batch
        batches = order[:used].reshape(self.steps_per_epoch, -1)
        metrics = []
        for number in range(self.steps_per_epoch):
            state, values = self._step(
                state, self._images, self._labels, self._formulas, batches[number]
            )
            metrics.append(values)
            if len(metrics) % 20 == 0:
                jax.block_until_ready(values)  # or the queue runs minutes ahead of the progress bar
                progress_fn(20)
        progress_fn(len(metrics) % 20)
        means = np.mean([[float(value) for value in values] for values in metrics], axis=0)
        return state, {"loss": float(means[0]), "accuracy": float(means[1])}

    def averaged(self, state: TrainingState) -> CifarClassifier:
        """The network of the moving average, ready to judge."""
        net = nnx.merge(self._graph, state.average, self._rest, copy=True)
        net.eval()
        return net

    def _make_optimiser(self) -> optax.GradientTransformation:
        config = self.config
        rate = optax.warmup_cosine_decay_schedule(
            0.0, config.peak_rate, max(1, int(config.warmup * self.num_steps)), self.num_steps
        )

        def is_kernel(parameters: nnx.State) -> nnx.State:
            return jax.tree.map(lambda parameter: parameter.ndim > 1, parameters)

        return optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask=is_kernel),
            optax.sgd(rate, momentum=config.momentum, nesterov=True),
        )

    def _take_step(
        self, state: TrainingState, images: Array, labels: Array, formulas: Array | None, batch
    ) -> tuple[TrainingState, tuple[Array, Array]]:
        config = self.config
        key = jax.random.fold_in(jax.random.fold_in(self._key, 1), state.step)
        augment_key, adversary_key, formula_key = jax.random.split(key, 3)
        x = images[batch].astype(jnp.float32) / 255
        x = augment(augment_key, x, config.augmentation)
        targets = jax.nn.one_hot(labels[batch], self._num_classes)
        targets = optax.smooth_labels(targets, config.label_smoothing)
        if config.adversarial:
            number = round(config.adversarial_share * config.batch)
            moved = self._uphill(adversary_key, state.learnt, x[:number], targets[:number])
            x = jnp.concatenate([moved, x[number:]])
        if formulas is not None:
            number = round(config.formula_share * config.batch)
            chosen = jax.random.randint(formula_key, (number,), 0, len(formulas))
            x = jnp.concatenate([x, formulas[chosen]])
            unsure = jnp.full((number, self._num_classes), 1 / self._num_classes)
            targets = jnp.concatenate([targets, unsure])
        parameters, statistics = nnx.split_state(state.learnt, nnx.Param, nnx.BatchStat)
        gradient_fn = jax.value_and_grad(self._loss, has_aux=True)
        (loss, (logits, statistics)), gradient = gradient_fn(parameters, statistics, x, targets)
        updates, momentum = self._optimiser.update(gradient, state.momentum, parameters)
        parameters = cast(nnx.State, optax.apply_updates(parameters, updates))
        learnt = nnx.merge_state(parameters, statistics)
        # A young average forgets its random start faster.
        decay = jnp.minimum(config.average, (1.0 + state.step) / (10.0 + state.step))
        average = cast(nnx.State, optax.incremental_update(learnt, state.average, 1 - decay))
        right = jnp.mean(jnp.argmax(logits[: config.batch], axis=-1) == labels[batch])
        return TrainingState(state.step + 1, learnt, average, momentum), (loss, right)

    def _loss(
        self, parameters: nnx.State, statistics: nnx.State, x: Array, targets: Array
    ) -> tuple[Array, tuple[Array, nnx.State]]:
        net = nnx.merge(self._graph, parameters, statistics, self._rest, copy=True)
        logits = net.logits(x)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (logits, nnx.state(net, nnx.BatchStat))

    def _uphill(self, key: Array, learnt: nnx.State, x: Array, targets: Array) -> Array:
        """One step uphill in the loss from a random place nearby (Wong et al. 2020, 2001.03994)."""
        start = x + _unit(jax.random.normal(key, x.shape)) * self.config.adversarial / 2
        parameters, statistics = nnx.split_state(learnt, nnx.Param, nnx.BatchStat)
        gradient = jax.grad(lambda x: self._loss(parameters, statistics, x, targets)[0])(start)
        moved = start + _unit(gradient) * self.config.adversarial
        away = moved - x
        length = jnp.sqrt(jnp.sum(away**2, axis=(1, 2, 3), keepdims=True))
        away *= jnp.minimum(1.0, self.config.adversarial / jnp.maximum(length, 1e-12))
        return jax.lax.stop_gradient((x + away).clip(0, 1))


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.sqrt(jnp.sum(x**2, axis=(1, 2, 3), keepdims=True)), 1e-12)


def save(path: Path, state: TrainingState) -> None:
    """Writes the state whole, as safetensors."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    tensors = {jax.tree_util.keystr(keys): np.asarray(leaf) for keys, leaf in leaves}
    with written_whole(path) as temporary:
        save_file(tensors, temporary)


def restore(path: Path, like: TrainingState) -> TrainingState:
    """Reads what `save` wrote.

    Args:
        path: of the file.
        like: a state of the same training, whose shapes the file must have.

    Raises:
        InputError: unreadable, or of another training.
    """
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors has an exception class of its own
        raise InputError(f"cannot read checkpoint {path}: {error}") from error
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {jax.tree_util.keystr(keys): leaf for keys, leaf in leaves}
    same = wanted.keys() == tensors.keys() and all(
        tensors[name].shape == leaf.shape for name, leaf in wanted.items()
    )
    if not same:
        raise InputError(f"{path} is the checkpoint of another network; give another --out")
    return jax.tree.unflatten(structure, [jnp.asarray(tensors[name]) for name in wanted])
