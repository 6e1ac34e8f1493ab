"""What breaks a symmetry to no use is undone while a network is trained, and at the end.

Training breaks symmetry wherever that fits the training samples a little better, often for no reason but their noise:
some layer of many ends with a percent or two of its kernel's energy broken, and as a single broken irrep always leaves
a subgroup, what is measured then looks like a finding. The size of the energy does not tell: some networks need one
percent, as a weight after it may be large. Samples that were not trained on do.

A change is *harmless* if it raises the mean held-out loss by no more than a fiftieth, and the number of held-out
samples that are misjudged by no more than a fiftieth and a standard error, for these come whole. Losses tell more than
errors, unless a few samples make up most of them, as where a network is sure and wrong. Where all that is broken is so
little that without structure it would count as nothing (`parteq.core.measure.TOLERANCE`), making all of it uniform may
raise the loss, too, by a standard error more.

At the end alone it would come too late for the weights, which have learned with what is undone then. But early, little
is broken yet, also where it is needed: that making it uniform changes little says nothing. What does is that held-out
samples were *worse* off for it, epoch after epoch: then all densities are made uniform a third of the way, and stay so
(``breaking`` of `parteq.core.training.Settings`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from parteq.core.chain import full_symmetry, learning_densities
from parteq.core.density import LearnedDensity
from parteq.core.measure import TOLERANCE, broken_energy, candidate_subgroups, partial_layers
from parteq.core.subgroups import Subgroup
from parteq.core.training import AfterEpoch, Settings

__all__ = ["ENOUGH", "prune_breaking", "pruning"]

ENOUGH = 1000
"""Held-out samples; more need not be asked."""

_HARMLESS = 0.02  # of the mean loss
_RISE = "rise_if_uniform"  # in the state to resume from: of the loss of each held-out sample, summed over epochs

Losses = Callable[[], Float[Tensor, "kinds samples"]]
"""Evaluates a model as it then stands, in evaluation mode, on samples it was not trained on; every time the same
samples in the same order. Losses, and for classes errors, as `parteq.core.calibration.losses_and_errors` gives them: a
network that is too sure of what it gets wrong is less so where it is made symmetric, which hides what it loses."""


def pruning(model: nn.Module, losses: Losses, settings: Settings, state: dict[str, Any] | None = None) -> AfterEpoch:
    """Return what `parteq.core.training.fit` is to call after each epoch.

    In the second half of the epochs in which symmetry may begin to break, it asks what the losses would be were all
    densities uniform. After the last of them, if they would be lower in the mean over these epochs, by two standard
    errors or more, all densities are made uniform. At the end of the training: `prune_breaking`.

    Args:
        model: in training.
        losses: of the model, held-out.
        settings: of the training.
        state: the state of an earlier epoch to go on from, as `fit` takes it.
    """
    last = settings.last_breaking_epoch if settings.last_breaking_epoch < settings.epochs else 0
    rise: Tensor | None = (state or {}).get(_RISE)

    def after_epoch(record: dict[str, float], state: dict[str, Any]) -> None:
        nonlocal rise
        learning = learning_densities(model)
        if learning and last / 2 < record["epoch"] <= last:
            rise = _rise_if_uniform(model, losses) + (0 if rise is None else rise)
            state[_RISE] = rise
            if record["epoch"] == last and len(rise) > 1 and rise.mean() + 2 * rise.std() / len(rise) ** 0.5 < 0:
                for density in learning:
                    density.reset()
        if record["epoch"] == settings.epochs:
            prune_breaking(model, losses)

    return after_epoch


@torch.no_grad()
def _rise_if_uniform(model: nn.Module, losses: Losses) -> Tensor:
    """Of the loss of each sample, not of what is misjudged."""
    before = losses()[0].double()
    with full_symmetry(model):
        return losses()[0].double() - before


def _standard_errors(rows: Float[Tensor, "kinds samples"]) -> Float[Tensor, " kinds"]:
    """Of the means; 0 of a single sample, and of a change of a single sample that sample, also after rounding."""
    count = rows.shape[1]
    return rows.std(1) / count**0.5 * (1 + 1e-9) if count > 1 else rows.new_zeros(len(rows))


@torch.no_grad()
def prune_breaking(model: nn.Module, losses: Losses) -> tuple[float, float]:
    """Undo, in place, what learned densities break and held-out samples do not need broken.

    As many densities as harmless, those that break least first, are made uniform; then the others are made to keep the
    largest subgroup that is harmless, of those that `measure_degree` names. Densities that are frozen stay as they are.

    Args:
        model: trained, or in training.
        losses: of the model, held-out.

    Returns:
        The mean loss before and after.
    """
    broken: dict[LearnedDensity, float] = {}
    for layer in partial_layers(model).values():
        density = layer.density
        if isinstance(density, LearnedDensity) and all(p.requires_grad for p in density.parameters()):
            broken[density] = max(broken.get(density, 0.0), broken_energy(layer))
    before = losses().double()
    if not broken:
        return float(before[0].mean()), float(before[0].mean())
    densities = sorted(broken, key=lambda density: broken[density])
    trained = [[parameter.clone() for parameter in density.parameters()] for density in densities]
    smaller = candidate_subgroups(model)[1:-1]  # all but the whole group and none

    def keep(uniform: int, subgroup: Subgroup | None = None) -> None:
        for number, (density, values) in enumerate(zip(densities, trained, strict=True)):
            for parameter, value in zip(density.parameters(), values, strict=True):
                parameter.copy_(value)
            if number < uniform:
                density.reset()
            elif subgroup is not None:
                density.keep(subgroup)

    def harmless(in_doubt: bool = False) -> bool:
        rise = losses().double() - before
        spare = _standard_errors(rise)
        spare[0] *= in_doubt
        return bool((rise.mean(1) <= _HARMLESS * before.mean(1) + spare).all())

    # How many can be uniform lies in [least, most]: by halving, but all of them are asked for first.
    least, most, asked = 0, len(densities), len(densities)
    slight = max(broken.values()) <= TOLERANCE
    while least < most:
        keep(asked)
        least, most = (asked, most) if harmless(slight and asked == len(densities)) else (least, asked - 1)
        asked = (least + most + 1) // 2
    for subgroup in smaller if least < len(densities) else []:
        keep(least, subgroup)
        if harmless():
            break
    else:
        keep(least)
    return float(before[0].mean()), float(losses()[0].double().mean())
