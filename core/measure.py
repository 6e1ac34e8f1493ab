"""The degree of equivariance, measured on the kernels of a network rather than read off its densities.

An element h turns a kernel into h·K = ρ_out(h) K(h⁻¹ ·) ρ_in(h)⁻¹. In irrep coordinates, which are orthonormal, this is
a matrix product, so for a layer of any density

- the *equivariance error* at h is ‖h·K − K‖² / 2‖K‖²: 0 where the layer respects h, 1 where K and h·K have nothing in
  common;
- the *broken energy* under a subgroup S is ‖K − P_S K‖² / ‖K‖², the share of the kernel that S does not leave alone: 0
  for exactly S-equivariant layers, 1 − 1/|S| for a kernel without symmetry (on average).

A density is known only up to a turn of its argument from the right, λ(h g), which the kernel absorbs (turning W by
g⁻¹). Reported densities are turned so that they peak at the identity, an equal description of the same layer; measured
errors need no such choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from parteq.core.density import Density
from parteq.core.groups import Element, SymmetryGroup
from parteq.core.layers import PartialLayer
from parteq.core.subgroups import Subgroup, axial_subgroup, subgroups

__all__ = [
    "FLOOR",
    "SHARE",
    "TOLERANCE",
    "LayerDegree",
    "broken_energy",
    "candidate_subgroups",
    "equivariance_errors",
    "measure_degree",
    "measure_layer",
    "nearest_subgroup",
    "partial_layers",
    "summarize_degree",
]

FLOOR = 0.005
"""Broken energy below which a layer counts as whole, whatever its structure."""

SHARE = 0.25
"""Share of the broken energy that a subgroup may leave unexplained and still count as what was kept."""

TOLERANCE = 0.02
"""Broken energy up to which a layer counts as whole if no subgroup explains what was broken: noise, not a finding."""


@dataclass(frozen=True)
class LayerDegree:
    """How much symmetry one layer kept.

    ``density`` is λ against uniform (1 everywhere where the symmetry is full) at turns by ``angles_deg``, turned to
    peak at the identity; ``density_flipped`` is λ at the flip followed by those turns, empty where the group has no
    flips. Groups of space without an axis leave the lists empty. ``equivariance_error`` is the measured error at the
    same turns (and flips), ``broken_under`` the broken energy under each named subgroup, the whole group first. In
    space, ``singular_values`` are those of M = ∫λ(h) R(h) dh: 0, 0, 0 for full SO(3), 1, 0, 0 for turns about ``axis``,
    1, 1, 1 for none.
    """

    name: str
    group: str
    broken_energy: float
    kl_to_uniform_nats: float
    nearest_subgroup: str
    angles_deg: list[float] = field(default_factory=list)
    density: list[float] = field(default_factory=list)
    density_flipped: list[float] = field(default_factory=list)
    equivariance_error: list[float] = field(default_factory=list)
    equivariance_error_flipped: list[float] = field(default_factory=list)
    broken_under: dict[str, float] = field(default_factory=dict)
    singular_values: list[float] = field(default_factory=list)
    axis: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def partial_layers(model: nn.Module) -> dict[str, PartialLayer]:
    """Return the partially equivariant layers of a model by name, in the order they were made."""
    return {name: module for name, module in model.named_modules() if isinstance(module, PartialLayer)}


def _turned(layer: PartialLayer, coefficients: Tensor, element: Element) -> Tensor:
    out, into, filters = layer.kernel.action(element)
    tensor = torch.einsum("oajbs,ts->oajbt", coefficients, filters)
    tensor = torch.einsum("oajbs,cb->oajcs", tensor, into)
    return torch.einsum("oajbs,da->odjbs", tensor, out)


@torch.no_grad()
def equivariance_errors(layer: PartialLayer, elements: Sequence[Element]) -> list[float]:
    """Return ‖h·K − K‖² / 2‖K‖² for each element."""
    kernel = layer.kernel.coefficients()
    energy = 2 * kernel.square().sum().clamp_min(torch.finfo(kernel.dtype).tiny)
    return [float((_turned(layer, kernel, h) - kernel).square().sum() / energy) for h in elements]


@torch.no_grad()
def broken_energy(layer: PartialLayer, subgroup: Subgroup | None = None) -> float:
    """Return ‖K − P_S K‖² / ‖K‖² for a subgroup S, by default the layer's whole group."""
    kernel = layer.kernel.coefficients()
    group, band = layer.density.group, _kernel_band(layer)
    rules = group.factors(band) if subgroup is None else [subgroup.quadrature(band)]
    projected = kernel
    for elements, weights in reversed(rules):
        projected = sum(  # type: ignore[assignment]
            float(weight) * _turned(layer, projected, h) for h, weight in zip(elements, weights, strict=True)
        )
    energy = kernel.square().sum().clamp_min(torch.finfo(kernel.dtype).tiny)
    return float((kernel - projected).square().sum() / energy)


def _kernel_band(layer: PartialLayer) -> int:
    """Return the highest frequency at which the group can act on the layer's kernel."""
    group = layer.density.group
    return sum(max(group.frequency(irrep) for irrep in irreps) for irreps in layer.kernel.irreps)


def nearest_subgroup(broken_under: Sequence[dict[str, float]]) -> str:
    """Return the name of the subgroup that one layer, or all layers of a network together, act as.

    Networks break a symmetry with little energy where little is enough, but cleanly: what they keep they keep almost
    exactly. What noise breaks has no structure. So with the energies of all layers added up, the whole group is kept if
    no layer breaks more than ``FLOOR`` of it; else the largest proper subgroup that leaves at most ``SHARE`` of the
    broken energy unexplained; and if none does, the whole group again up to ``TOLERANCE``, beyond that the identity.

    Args:
        broken_under: for each layer the broken energy by subgroup, largest subgroup (the whole group) first, the
            identity last.
    """
    total = {name: sum(layer[name] for layer in broken_under) for name in broken_under[0]}
    whole, *proper = total
    worst = max(layer[whole] for layer in broken_under)
    if worst <= FLOOR or not proper:
        return whole
    explaining = [name for name in proper[:-1] if total[name] <= SHARE * total[whole]]
    if not explaining:
        return whole if worst <= TOLERANCE else proper[-1]
    # Of subgroups that differ only in where their mirrors are, the one that leaves least unexplained.
    kind = explaining[0].split(" (")[0]
    return min((name for name in explaining if name.split(" (")[0] == kind), key=lambda name: total[name])


def measure_layer(layer: PartialLayer, name: str = "", candidates: Sequence[Subgroup] | None = None) -> LayerDegree:
    """Measure one layer.

    Args:
        layer: the layer.
        name: what to call it.
        candidates: the subgroups to compare with, the whole group first; by default those that have a name, and for
            SO(3) and O(3) those about the axis of the layer's own density.
    """
    density, group = layer.density, layer.density.group
    candidates = candidate_subgroups([density]) if candidates is None else candidates
    turns, angles = _turns(group)
    flips = [h @ group.rotation(0.0, flipped=True) for h in turns] if group.flip else []
    broken_under = {subgroup.name: broken_energy(layer, subgroup) for subgroup in candidates}
    left, singular_values, _ = torch.linalg.svd(density.mean_matrix().detach().double())
    in_space = group.dimension == 3
    return LayerDegree(
        name=name,
        group=group.name,
        broken_energy=next(iter(broken_under.values())),
        kl_to_uniform_nats=float(density.divergence_from_uniform().detach()),
        nearest_subgroup=nearest_subgroup([broken_under]),
        angles_deg=angles,
        density=density.aligned_values_at(turns) if turns else [],
        density_flipped=density.aligned_values_at(flips) if flips else [],
        equivariance_error=equivariance_errors(layer, turns),
        equivariance_error_flipped=equivariance_errors(layer, flips),
        broken_under=broken_under,
        singular_values=singular_values.tolist() if in_space else [],
        axis=_oriented(left[:, 0]).tolist() if in_space else [],
    )


def _oriented(axis: Tensor) -> Tensor:
    """Return the axis or its opposite, whichever points up."""
    return -axis if axis[axis.abs().argmax()] < 0 else axis


def candidate_subgroups(densities: Sequence[Density]) -> list[Subgroup]:
    """Return the subgroups to compare layers with, the whole group first, larger before smaller.

    In SO(3) and O(3) an axis of its own is not known beforehand: it is that of the density that has one most clearly.
    """
    group = densities[0].group
    found = subgroups(group)
    if group.dimension == 2 or group.about_axis or not group.continuous:
        return found
    clearest = max((density.mean_matrix().detach() for density in densities), key=lambda mean: float(mean.norm()))
    axis = _oriented(torch.linalg.svd(clearest.double())[0][:, 0]).numpy()
    kinds = ["o2", "so2", "c4", "c2"] if group.name == "SO(3)" else ["o2", "cone", "so2", "c4", "c2"]
    added = [axial_subgroup(group, axis, kind) for kind in kinds]
    return sorted([*found, *added], key=lambda subgroup: subgroup.size, reverse=True)


def measure_degree(model: nn.Module) -> list[LayerDegree]:
    """Measure every partially equivariant layer of a model, first layer first."""
    layers = partial_layers(model)
    if not layers:
        return []
    candidates = candidate_subgroups([layer.density for layer in layers.values()])
    return [measure_layer(layer, name, candidates) for name, layer in layers.items()]


def _turns(group: SymmetryGroup) -> tuple[list[Element], list[float]]:
    """Return the turns at which densities are reported, with their angles in degrees."""
    if group.dimension == 3 and not group.about_axis:
        return [], []
    order = 72 if group.continuous else int(group.algebra.order()) // (2 if group.flip else 1)
    angles = [360.0 * step / order for step in range(order)]
    return [group.rotation(float(np.radians(angle))) for angle in angles], angles


def summarize_degree(degrees: Sequence[LayerDegree]) -> str:
    """Say in one sentence which symmetry a network kept as a whole, and which layer broke most of the rest."""
    if not degrees:
        return "The network has no equivariant layers."
    group = degrees[0].group
    if len(degrees[0].broken_under) == 1:
        return "The network is an ordinary one: its group is the identity alone."
    worst = max(degrees, key=lambda degree: degree.broken_energy)
    most = f"{worst.broken_energy:.1%}"
    kept = nearest_subgroup([degree.broken_under for degree in degrees])
    if kept == group:
        return f"The network kept the full symmetry {group} in every layer (broken energy at most {most})."
    found = "no symmetry" if kept == "identity only" else kept
    return f"Of {group} the network kept {found}; it broke the rest most in {worst.name} (broken energy {most})."
