"""What breaks a symmetry to no use is undone once a network is trained.

Training breaks symmetry wherever that fits the training samples a little better, often for no reason but their noise:
some layer of many ends with a percent or two of its kernel's energy broken, and as a single broken irrep always leaves
a subgroup, what is measured then looks like a finding. The size of the energy does not tell: some networks need one
percent, as a weight after it may be large. Samples that were not trained on do.

A change is *harmless* if, with a standard error to spare, it raises the mean held-out loss by no more than a fiftieth.
Few samples show little to be harmless, and then little is changed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from parteq.core.density import LearnedDensity
from parteq.core.measure import broken_energy, candidate_subgroups, partial_layers
from parteq.core.subgroups import Subgroup

__all__ = ["ENOUGH", "prune_breaking"]

ENOUGH = 1000
"""Held-out samples; more need not be asked."""

_HARMLESS = 0.02  # of the mean loss


@torch.no_grad()
def prune_breaking(model: nn.Module, losses: Callable[[], Float[Tensor, " samples"]]) -> tuple[float, float]:
    """Undo, in place, what learned densities break and held-out samples do not need broken.

    As many densities as harmless, those that break least first, are made uniform; then the others are made to keep the
    largest subgroup that is harmless, of those that `measure_degree` names. Densities that are frozen stay as they are.

    Args:
        model: trained.
        losses: evaluates the model as it then stands, in evaluation mode, on samples it was not trained on; every time
            the same samples in the same order.

    Returns:
        The mean loss before and after.
    """
    broken: dict[LearnedDensity, float] = {}
    for layer in partial_layers(model).values():
        density = layer.density
        if isinstance(density, LearnedDensity) and all(p.requires_grad for p in density.parameters()):
            broken[density] = max(broken.get(density, 0.0), broken_energy(layer))
    before = losses().double()
    if not broken or len(before) < 2:
        return float(before.mean()), float(before.mean())
    densities = sorted(broken, key=lambda density: broken[density])
    trained = [[parameter.clone() for parameter in density.parameters()] for density in densities]
    whole, *smaller = candidate_subgroups(model)

    def keep(uniform: int, subgroup: Subgroup | None = None) -> None:
        for number, (density, values) in enumerate(zip(densities, trained, strict=True)):
            for parameter, value in zip(density.parameters(), values, strict=True):
                parameter.copy_(value)
            if number < uniform:
                density.keep(whole)
            elif subgroup is not None:
                density.keep(subgroup)

    def harmless() -> bool:
        rise = losses().double() - before
        spare = rise.std() / len(rise) ** 0.5
        return bool(rise.mean() + spare <= _HARMLESS * before.mean())

    # How many can be uniform lies in [least, most]: by halving, but all of them are asked for first.
    least, most, asked = 0, len(densities), len(densities)
    while least < most:
        keep(asked)
        least, most = (asked, most) if harmless() else (least, asked - 1)
        asked = (least + most + 1) // 2
    for subgroup in smaller[:-1] if least < len(densities) else []:
        keep(least, subgroup)
        if harmless():
            break
    else:
        keep(least)
    return float(before.mean()), float(losses().double().mean())
