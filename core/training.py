"""Training: the one loop of every application, on plain torch. It knows no domain and writes no file.

Everything random in an epoch (the order of the samples, their augmentation, what the model draws) follows from the
seed and the number of the epoch alone. So a training that was killed and resumed ends with the same bits as one that
was not, and several processes (see `parteq.core.distributed`) give the numbers of one, up to the order of sums.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm

from parteq.core.chain import full_symmetry, learning_densities
from parteq.core.density import LearnedDensity
from parteq.core.distributed import is_main, rank, total, world_size

__all__ = [
    "AfterEpoch",
    "Augment",
    "Batch",
    "Loss",
    "Penalty",
    "Settings",
    "at_a_time",
    "fit",
    "make_optimiser",
    "read_batches",
    "uniform",
]

log = logging.getLogger(__name__)

_NUMBERS_AT_A_TIME = 2**20

Batch = tuple[Tensor, ...]
"""Tensors with one row a sample, as the data set gives them."""
Loss = Callable[[nn.Module, Batch], Tensor]
"""The mean loss of a batch."""
Penalty = Callable[[nn.Module], Tensor]
"""What is added to the loss whatever the batch, such as `parteq.core.chain.degree_penalty`."""
Augment = Callable[[Batch, Int[Tensor, " batch"]], Batch]
"""Alters a batch; takes its chance from the keys, one a sample, through `uniform`."""
AfterEpoch = Callable[[dict[str, float], dict[str, Any]], bool | None]
"""Called in every process with the record of the epoch, to which it may add, and the state to resume from; to return
true ends the training."""


@dataclass(frozen=True)
class Settings:
    """How to train: AdamW, its rate warmed up linearly and brought to zero along a cosine.

    Attributes:
        epochs: passes over the data.
        batch_size: samples a step, of all processes together, 2 or more, as norms need; None for 32, or of fewer than
            800 samples a 25th of them, but at least 8: few samples are not to mean few steps.
        learning_rate: the highest reached.
        weight_decay: on weights, not on densities, biases and the parameters of norms.
        density_learning_rate: factor on the learning rate of learned densities.
        density_threshold: what is below so many steps of a density is set to 0 after every step of a rate that no
            longer rises, see `parteq.core.density.LearnedDensity.settle`; for a density that many layers share and that
            learns fast. Before, weights have not learned what a direction is good for, and they learn it only while it
            is broken, if by chance: held symmetric from the first step on, some would stay so for good.
        breaking: share of the epochs in which a density that is uniform may begin to break its symmetry; one that is
            at the start of a later epoch stays as it is. For where `parteq.core.pruning` makes all of them so.
        symmetric_steps: share of the steps, drawn at random, in which learned densities are held uniform, so that they
            break only what the weights cannot do without (see `parteq.core.chain`).
        warmup: share of the steps in which the learning rate rises.
        gradient_clip: largest norm of the gradient; infinity leaves it alone.
        mixed_precision: run the model in bfloat16 where that is safe.
        workers: processes that read data which are not in memory.
        seed: of every random choice.
    """

    epochs: int = 30
    batch_size: int | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 0.5
    density_learning_rate: float = 3.0
    density_threshold: float = 0.0
    breaking: float = 1 / 3
    symmetric_steps: float = 0.25
    warmup: float = 0.1
    gradient_clip: float = 1.0
    mixed_precision: bool = False
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant.

        Raises:
            ValueError: naming the setting.
        """
        for name, least in (("epochs", 0), ("batch_size", 2), ("workers", 0), ("seed", 0)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in (
            "learning_rate",
            "weight_decay",
            "density_learning_rate",
            "density_threshold",
            "warmup",
            "gradient_clip",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, it is {getattr(self, name)}")
        if not 0 <= self.breaking <= 1:
            raise ValueError(f"breaking must lie between 0 and 1, it is {self.breaking}")
        if not 0 <= self.symmetric_steps < 1:
            raise ValueError(f"symmetric_steps must be at least 0 and below 1, it is {self.symmetric_steps}")

    @property
    def last_breaking_epoch(self) -> int:
        """The last epoch, counted from 1, in which a density that is uniform may begin to break its symmetry."""
        return math.ceil(self.breaking * self.epochs)


def fit(
    model: nn.Module,
    loss: Loss,
    data: Dataset[Any],
    settings: Settings,
    *,
    device: torch.device | str = "cpu",
    penalty: Penalty | None = None,
    augment: Augment | None = None,
    after_epoch: AfterEpoch | None = None,
    state: dict[str, Any] | None = None,
    rates: Mapping[nn.Parameter, float] | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Trains a model in place.

    Parameters that require no gradient are left as they are, and a module that has no others stays in evaluation mode:
    a norm that is frozen keeps its running statistics.

    Args:
        model: moved to the device.
        loss: the mean loss of a batch.
        data: a `TensorDataset` is cut into batches by index; anything else goes through a `DataLoader`.
        settings: how to train.
        device: where.
        penalty: added to the loss.
        augment: alters each batch, on the device.
        after_epoch: validates, keeps checkpoints, may end the training.
        state: the state of an earlier epoch, as given to ``after_epoch``, to go on from; the model must hold the
            weights of the same epoch.
        rates: factors on the learning rate of some parameters, see `make_optimiser`.
        progress: show a bar, if on a terminal.

    Returns:
        A record an epoch: ``epoch`` (from 1), ``loss``, ``penalty``, ``learning_rate`` (at its end), and whatever
        ``after_epoch`` added.

    Raises:
        ValueError: for data without a sample, or fewer samples than processes.
        FloatingPointError: when the loss is no longer finite.
    """
    device = torch.device(device)
    model.to(device)
    optimiser = make_optimiser(model, settings, rates)
    first = 0
    if state is not None:
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["epoch"])
    # Buffers are the same everywhere already: constant, or statistics that norms take over all processes.
    parallel = DistributedDataParallel(model, broadcast_buffers=False) if world_size() > 1 else model
    factors = {parameter: group["factor"] for group in optimiser.param_groups for parameter in group["params"]}
    settling = learning_densities(model) if settings.density_threshold else []

    steps_an_epoch = len(_order(_length(data), settings, epoch=0))
    records: list[dict[str, float]] = []
    shown = progress and is_main() and sys.stderr.isatty()
    steps = settings.epochs * steps_an_epoch
    bar = tqdm(total=steps, initial=first * steps_an_epoch, unit="step", leave=False, disable=not shown)
    with bar, torch.random.fork_rng([device] if device.type == "cuda" else []):
        for epoch in range(first, settings.epochs):
            _train_mode(model)
            torch.manual_seed(_seed(settings.seed, epoch, 2 + rank()))
            symmetric = _symmetric_steps(steps_an_epoch, settings, epoch)
            resting = _untouched(model) if epoch >= settings.last_breaking_epoch else []
            sums = torch.zeros(2, device=device)
            for step, (batch, keys, share) in enumerate(_batches(data, settings, epoch, device)):
                done = epoch * steps_an_epoch + step
                rate = _rate(done, steps, settings)
                for group in optimiser.param_groups:
                    group["lr"] = rate * group["factor"]
                if augment is not None:
                    batch = augment(batch, keys)
                mixed = torch.autocast(device.type, torch.bfloat16, enabled=settings.mixed_precision)
                with mixed, full_symmetry(model) if symmetric[step] else nullcontext():
                    fitting = loss(parallel, batch)
                extra = penalty(model) if penalty is not None else fitting.new_zeros(())
                optimiser.zero_grad(set_to_none=True)
                # Processes average their gradients; `share` undoes unequal parts of a batch.
                (fitting * share + extra).backward()
                for parameter in resting:
                    parameter.grad = None
                nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
                optimiser.step()
                for density in settling if done >= settings.warmup * steps else ():
                    density.settle(settings.density_threshold * rate * factors[next(density.parameters())])
                sums += torch.stack([fitting.detach() * share, extra.detach()])
                bar.update()
            mean_loss, mean_penalty = (total(sums) / (steps_an_epoch * world_size())).tolist()
            if not math.isfinite(mean_loss + mean_penalty):
                raise FloatingPointError(f"the loss is not finite in epoch {epoch + 1}: lower the learning rate")
            record = {"epoch": epoch + 1, "loss": mean_loss, "penalty": mean_penalty, "learning_rate": rate}
            state = {"epoch": epoch + 1, "optimiser": optimiser.state_dict()}
            ended = after_epoch is not None and after_epoch(record, state)
            records.append(record)
            line = "  ".join(f"{name} {value:.4g}" for name, value in record.items())
            bar.set_description_str(f"epoch {epoch + 1}/{settings.epochs} loss {mean_loss:.3f}")
            log.log(logging.DEBUG if shown or not is_main() else logging.INFO, line)
            if ended:
                break
    return records


def make_optimiser(
    model: nn.Module, settings: Settings, rates: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """AdamW as `fit` uses it: densities, parameters with weight decay, and the rest; weights of kernels at their rates.

    Args:
        model: those of its parameters that require a gradient are given to the optimiser.
        settings: learning rate, weight decay, and the factor on the rate of densities.
        rates: factors on the learning rate of some parameters, 1 for those that are not there; they come on top of the
            factor that a module has for its own, ``weight_rate``.

    Returns:
        The optimiser; each of its groups has its ``factor`` on the learning rate.
    """
    # Weight decay and factor of each kind of parameter; of each kind the parameters by their own factor.
    kinds = {
        "density": (0.0, settings.density_learning_rate),
        "decayed": (settings.weight_decay, 1.0),
        "bare": (0.0, 1.0),
    }
    parts: dict[str, dict[float, list[nn.Parameter]]] = {kind: {} for kind in kinds}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            bare = parameter.ndim < 2 or name == "bias" or "Norm" in type(module).__name__
            kind = "density" if isinstance(module, LearnedDensity) else "bare" if bare else "decayed"
            rate = (rates or {}).get(parameter, 1.0) * getattr(module, "weight_rate", 1.0)
            parts[kind].setdefault(rate, []).append(parameter)
    groups = []
    for kind, (weight_decay, base) in kinds.items():
        for rate, parameters in parts[kind].items():
            factor = base * rate
            lr = settings.learning_rate * factor
            groups.append({"params": parameters, "weight_decay": weight_decay, "factor": factor, "lr": lr})
    return torch.optim.AdamW(groups)


def _batches(
    data: Dataset[Any], settings: Settings, epoch: int, device: torch.device
) -> Iterator[tuple[Batch, Tensor, float]]:
    """The batches of one epoch: this process's part of each, its keys, and its share.

    The samples are shuffled and cut into batches whose sizes differ by at most one, so no sample is dropped and no
    batch is tiny. The share is the size of this process's part in units of an equal part.

    Raises:
        ValueError: for data without a sample, or a batch with fewer samples than processes.
    """
    order = _order(_length(data), settings, epoch)
    generator = torch.Generator().manual_seed(_seed(settings.seed, epoch, 1))
    keys = torch.randint(2**62, (_length(data),), generator=generator)
    parts = [batch[rank() :: world_size()] for batch in order]
    shares = [len(part) * world_size() / len(batch) for part, batch in zip(parts, order, strict=True)]
    if min(len(part) for part in parts) == 0:
        raise ValueError(f"a batch has fewer samples than there are processes ({world_size()})")
    for part, share, batch in zip(parts, shares, read_batches(data, parts, settings.workers, generator), strict=True):
        yield tuple(tensor.to(device, non_blocking=True) for tensor in batch), keys[part].to(device), share


def read_batches(
    data: Dataset[Any], parts: list[Tensor], workers: int = 0, generator: torch.Generator | None = None
) -> Iterator[Batch]:
    """The samples of each part, a tensor of indices, from memory or through worker processes."""
    if isinstance(data, TensorDataset):
        for part in parts:
            yield tuple(tensor[part.to(tensor.device)] for tensor in data.tensors)
    else:
        sampler = [part.tolist() for part in parts]
        yield from DataLoader(data, batch_sampler=sampler, num_workers=workers, generator=generator)


def at_a_time(sample: Sequence[int]) -> int:
    """How many samples of this shape go through a trained network together: their features are many times as much."""
    return max(1, min(128, _NUMBERS_AT_A_TIME // math.prod(sample)))


def uniform(keys: Int[Tensor, " batch"], count: int) -> Float[Tensor, "batch count"]:
    """Random numbers in [0, 1) that depend on a sample's key alone, not on its place in a batch or process.

    The finaliser of splitmix64 over a counter (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014), in wrapping 64-bit integers.
    """
    counter = torch.arange(1, count + 1, device=keys.device) * -0x61C8864680B583EB  # 2⁶⁴ over the golden ratio
    bits = keys[:, None] + counter
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        bits = (bits ^ _shift_right(bits, shift)) * factor
    return _shift_right(bits ^ _shift_right(bits, 31), 40).float() / 2**24


def _shift_right(bits: Tensor, places: int) -> Tensor:
    """A logical shift, which torch lacks for signed integers."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _train_mode(model: nn.Module) -> None:
    """Training mode, but for modules whose parameters are all frozen."""
    model.train()
    for module in model.modules():
        needs = [parameter.requires_grad for parameter in module.parameters()]
        if needs and not any(needs):
            module.eval()


def _untouched(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of densities that are being learned and are uniform."""
    return [p for density in learning_densities(model) if density.is_untouched for p in density.parameters()]


def _rate(step: int, steps: int, settings: Settings) -> float:
    """The learning rate of a step."""
    rising = settings.warmup * steps
    if step < rising:
        return settings.learning_rate * (step + 1) / (rising + 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def _order(length: int, settings: Settings, epoch: int) -> list[Tensor]:
    """The indices of each batch of an epoch, of all processes together."""
    if length == 0:
        raise ValueError("there is no sample to train on")
    generator = torch.Generator().manual_seed(_seed(settings.seed, epoch, 0))
    shuffled = torch.randperm(length, generator=generator)
    batch_size = settings.batch_size or min(max(length // 25, 8), 32)
    # Rather a larger batch than one of a single sample.
    return list(torch.tensor_split(shuffled, min(math.ceil(length / batch_size), max(length // 2, 1))))


def _symmetric_steps(count: int, settings: Settings, epoch: int) -> list[bool]:
    """For each step of an epoch whether learned densities are held uniform, the same in all processes."""
    generator = torch.Generator().manual_seed(_seed(settings.seed, epoch, 0, 1))
    chosen: list[bool] = (torch.rand(count, generator=generator) < settings.symmetric_steps).tolist()
    return chosen


def _seed(*entropy: int) -> int:
    """One seed of several numbers, without the collisions of sums."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1


def _length(data: Dataset[Any]) -> int:
    return len(data)  # type: ignore[arg-type]
