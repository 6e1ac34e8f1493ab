"""The degree of equivariance, measured on the kernels of a network rather than read off its densities.

An element h turns a kernel into h·K = ρ_out(h) K(h⁻¹ ·) ρ_in(h)⁻¹. In irrep coordinates, which are orthonormal, this is
a matrix product, so for a layer of any density

- the *equivariance error* at h is ‖h·K − K‖² / 2‖K‖²: 0 where the layer respects h, 1 where K and h·K have nothing in
  common;
- the *broken energy* under a subgroup S is ‖K − P_S K‖² / ‖K‖², the share of the kernel that S does not leave alone: 0
  for exactly S-equivariant layers, 1 − 1/|S| for a kernel without symmetry (on average).

In SO(3) and O(3) the axis is measured as well: turns about it alter the kernels least. With X_n the derivative by the
angle of K turned about n, which is linear in n, it is the n that makes Σ ‖X_n K‖² / ‖K‖² over the layers least, an
eigenvector of a matrix of size 3. All of a kernel tells of it; M = ∫λ(h) R(h) dh knows but what λ says of vectors.
Where only some of the turns about an axis are kept, that axis is one of the three eigenvectors, by symmetry. Groups
with several such axes, those of the tetrahedron, the cube and the icosahedron, leave the matrix a multiple of 1: they
are not found in SO(3) and O(3).

A density is known only up to a turn of its argument from the right, λ(h g), which the kernel absorbs (turning W by
g⁻¹). Reported densities are turned so that they peak at the identity, an equal description of the same layer; measured
errors need no such choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from parteq.core.axis import Axis
from parteq.core.candidates import candidates
from parteq.core.energies import Action, Gram, Triple, broken_energies, energy, errors, gram_of
from parteq.core.groups import Element, FloatArray, SymmetryGroup
from parteq.core.layers import PartialConv3d, PartialLayer
from parteq.core.subgroups import Subgroup, kind_of
from parteq.core.tilts import tilt_profile

__all__ = [
    "FLOOR",
    "SHARE",
    "TOLERANCE",
    "TOLERANCE_IN_SPACE",
    "LayerDegree",
    "broken_energy",
    "candidate_subgroups",
    "equivariance_errors",
    "measure_axis",
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

TOLERANCE, TOLERANCE_IN_SPACE = 0.02, 0.04
"""Broken energy up to which a layer counts as whole if no subgroup explains what was broken: noise, not a finding.
Densities on SO(3) and O(3) have more directions for it."""

_TILTS = np.linspace(0.0, 180.0, 37)
_ROUNDING = 1e-6  # broken energy in single precision
_SMALL_ANGLE = 1e-4  # radians; of a symmetric difference in float64


@dataclass(frozen=True)
class LayerDegree:
    """How much symmetry one layer kept.

    ``density`` is λ against uniform (1 everywhere where the symmetry is full) at turns by ``angles_deg``, turned to
    peak at the identity; ``density_flipped`` is λ at the flip followed by those turns, empty where the group has no
    flips. Groups of space without an axis leave the lists empty; on SO(3) and O(3) ``density_over_tilt`` is the mean of
    λ at tilts of the axis by ``tilt_deg``, see :mod:`parteq.core.tilts`.
    ``equivariance_error`` is the measured error at the same turns (and flips), ``broken_under`` the broken energy under
    each named subgroup, the whole group first. In space, ``singular_values`` are those of M = ∫λ(h) R(h) dh: 0, 0, 0
    for full SO(3), 1, 0, 0 for turns about an axis, 1, 1, 1 for none; ``axis`` is that of the group, or the measured
    one of all layers together, without meaning where none is kept.
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
    tilt_deg: list[float] = field(default_factory=list)
    density_over_tilt: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def partial_layers(model: nn.Module) -> dict[str, PartialLayer]:
    """Return the partially equivariant layers of a model by name, in the order they were made."""
    return {name: module for name, module in model.named_modules() if isinstance(module, PartialLayer)}


def equivariance_errors(layer: PartialLayer, elements: Sequence[Element]) -> list[float]:
    """Return ‖h·K − K‖² / 2‖K‖² for each element."""
    return errors(gram_of(layer), elements)


def broken_energy(layer: PartialLayer, subgroup: Subgroup | None = None) -> float:
    """Return ‖K − P_S K‖² / ‖K‖² for a subgroup S, by default the layer's whole group."""
    return broken_energies([gram_of(layer)], layer.density.group, subgroup)[0]


def nearest_subgroup(broken_under: Sequence[dict[str, float]]) -> str:
    """Return the name of the subgroup that one layer, or all layers of a network together, act as.

    Networks break a symmetry with little energy where little is enough, but cleanly: what they keep they keep almost
    exactly. What noise breaks has no structure. So with the energies of all layers added up, a group is kept if no
    layer breaks more than ``FLOOR`` of it; else the largest smaller one that leaves at most ``SHARE`` of the broken
    energy unexplained, of which the same is asked; and so on until none explains what is left. Where already the whole
    group is left by none, it is kept up to ``TOLERANCE`` (``TOLERANCE_IN_SPACE``); beyond that only the identity is.

    Args:
        broken_under: for each layer the broken energy by subgroup, largest subgroup (the whole group) first, the
            identity last.

    Raises:
        ValueError: an energy is not finite.
    """
    total = {name: sum(layer[name] for layer in broken_under) for name in broken_under[0]}
    worst = {name: max(layer[name] for layer in broken_under) for name in broken_under[0]}
    whole, *smaller = total
    if not all(map(math.isfinite, worst.values())):
        raise ValueError("the kernels of a layer are not finite")
    kept = whole
    while smaller and worst[kept] > FLOOR:
        explaining = [name for name in smaller[:-1] if total[name] <= SHARE * total[kept]]
        if not explaining:
            tolerance = TOLERANCE_IN_SPACE if whole in ("SO(3)", "O(3)") else TOLERANCE
            return smaller[-1] if kept == whole and worst[whole] > tolerance else kept
        # Of subgroups that differ only in where their mirrors or axes are, the one that leaves least unexplained.
        alike = [name for name in explaining if kind_of(name) == kind_of(explaining[0])]
        kept = min(alike, key=lambda name: total[name])
        smaller = smaller[smaller.index(kept) + 1 :]
    return kept


def measure_layer(layer: PartialLayer, name: str = "") -> LayerDegree:
    """Measure one layer, alone."""
    return _measure({name: layer}, layer)[0]


def measure_degree(model: nn.Module) -> list[LayerDegree]:
    """Measure every partially equivariant layer of a model, first layer first.

    Raises:
        ValueError: layers are on different groups or about different axes, so that they have no subgroup together.

    >>> from parteq.core.density import make_density
    >>> from parteq.core.fields import FieldType, regular
    >>> from parteq.core.groups import plane_group
    >>> from parteq.core.layers import PartialConv2d
    >>> type = FieldType(regular(plane_group("c4")), 2)
    >>> free = PartialConv2d(type, type, 3, make_density(type.group, "none", band=0))
    >>> measure_degree(free)[0].nearest_subgroup
    'identity only'
    """
    layers = partial_layers(model)
    return _measure(layers, model) if layers else []


def candidate_subgroups(model: nn.Module) -> list[Subgroup]:
    """Return the subgroups that the layers of a model are compared with: the whole group first, larger before smaller,
    the identity last; axes and mirrors that may stand anywhere are those measured of all layers together.

    Raises:
        ValueError: layers are on different groups or about different axes, or there are none.
    """
    layers = partial_layers(model)
    group, grams, axes = _measured(layers, model)
    return candidates(group, grams, axes)


def _measured(
    layers: Mapping[str, PartialLayer], model: nn.Module
) -> tuple[SymmetryGroup, list[Gram], FloatArray | None]:
    """Return the group of layers, their Gram matrices and, in space, their axes.

    Raises:
        ValueError: layers are on different groups or about different axes, or there are none.
    """
    groups = {layer.density.group for layer in layers.values()}
    if not groups:
        raise ValueError("the model has no partially equivariant layers")
    if len(groups) > 1:
        names = ", ".join(sorted(group.name for group in groups))
        raise ValueError(f"layers are on different groups ({names}): measure each by itself")
    group, grams = groups.pop(), [gram_of(layer) for layer in layers.values()]
    return group, grams, _axes(list(layers.values()), grams, model) if group.dimension == 3 else None


def _measure(layers: Mapping[str, PartialLayer], model: nn.Module) -> list[LayerDegree]:
    """Measure layers on one group, of a model that knows its axis if the group is about one."""
    group, grams, axes = _measured(layers, model)
    whole, *proper = candidates(group, grams, axes)
    broken = {whole.name: broken_energies(grams, group, None)}
    broken |= {subgroup.name: broken_energies(grams, group, subgroup) for subgroup in proper}
    profiles = {}
    if axes is not None and group.continuous and not group.about_axis:
        densities = dict.fromkeys(layer.density for layer in layers.values())
        profiles = {density: tilt_profile(density, axes[0], _TILTS).tolist() for density in densities}
    return [
        _layer_degree(
            layer,
            name,
            gram,
            {under: energies[number] for under, energies in broken.items()},
            None if axes is None else axes[0],
            profiles.get(layer.density, []),
        )
        for number, ((name, layer), gram) in enumerate(zip(layers.items(), grams, strict=True))
    ]


def _layer_degree(
    layer: PartialLayer,
    name: str,
    gram: Gram,
    broken_under: dict[str, float],
    axis: FloatArray | None,
    profile: list[float],
) -> LayerDegree:
    density, group = layer.density, layer.density.group
    turns, angles = _turns(group)
    flips = [h @ group.rotation(0.0, flipped=True) for h in turns] if group.flip else []
    singular_values = torch.linalg.svdvals(density.mean_matrix().detach().double())
    return LayerDegree(
        name=name,
        group=group.name,
        broken_energy=next(iter(broken_under.values())),
        kl_to_uniform_nats=max(0.0, float(density.divergence_from_uniform().detach())),
        nearest_subgroup=nearest_subgroup([broken_under]),
        angles_deg=angles,
        density=density.aligned_values_at(turns) if turns else [],
        density_flipped=density.aligned_values_at(flips) if flips else [],
        tilt_deg=_TILTS.tolist() if profile else [],
        density_over_tilt=profile,
        equivariance_error=errors(gram, turns),
        equivariance_error_flipped=errors(gram, flips),
        broken_under=broken_under,
        singular_values=singular_values.tolist() if group.dimension == 3 else [],
        axis=[] if axis is None else axis.tolist(),
    )


def measure_axis(layers: Sequence[PartialLayer]) -> FloatArray:
    """Return the unit vector about which turns alter the kernels of the layers least, its largest component positive.

    Groups about an axis have their own, finite groups of space the axis that their densities peak at.

    Raises:
        ValueError: layers are on a group of the plane, or about different axes.
    """
    if layers[0].density.group.dimension != 3:
        raise ValueError(f"{layers[0].density.group} acts in the plane, where there are no axes")
    axis: FloatArray = _axes(layers, [gram_of(layer) for layer in layers], nn.ModuleList(layers))[0]
    return axis


def _axes(layers: Sequence[PartialLayer], grams: Sequence[Gram], model: nn.Module) -> FloatArray:
    """Return unit vectors, shape (axes, 3), about the first of which turns alter kernels least.

    There is one of a group about an axis, else three, at right angles.

    Raises:
        ValueError: layers are about different axes.
    """
    group = layers[0].density.group
    if group.about_axis:
        # Layers of points do not know the axis of their filters, which may be in the model as a module of its own.
        own = [module().detach().double().cpu().numpy() for module in model.modules() if isinstance(module, Axis)]
        if not own or any(isinstance(layer, PartialConv3d) and layer.kernel.axis is None for layer in layers):
            own.append(np.array([0.0, 0.0, 1.0]))
        if not np.allclose(own, own[0], atol=1e-6):
            raise ValueError("layers are about different axes: measure each by itself")
        return np.stack(own[:1])
    form = np.zeros((3, 3))
    if group.continuous:
        for gram in grams:
            for triple, part in gram.items():
                changes = _derivatives(group, triple)
                form += np.einsum("aij,jk,bik->ab", changes, part, changes, optimize=True) / energy(gram)
    else:
        for layer in layers:
            mean = layer.density.mean_matrix().detach().double().cpu().numpy()
            form -= mean @ mean.T
    axes: FloatArray = np.linalg.eigh(form)[1].T
    return np.stack([-axis if axis[np.abs(axis).argmax()] < 0 else axis for axis in axes])


@lru_cache(maxsize=256)
def _derivatives(group: SymmetryGroup, triple: Triple) -> FloatArray:
    """Return the derivatives at 0 of turns about x, y and z, by the angle, on flattened parts of a kernel."""
    weights = np.array([-0.5, 0.5]) / _SMALL_ANGLE
    changes = []
    for axis in np.eye(3):
        turns = Rotation.from_rotvec([-_SMALL_ANGLE * axis, _SMALL_ANGLE * axis]).as_matrix()
        changes.append(Action([group.element(turn) for turn in turns], weights)(triple))
    return np.stack(changes)


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
    kept = nearest_subgroup([degree.broken_under for degree in degrees])
    if kept == group and worst.broken_energy < _ROUNDING:
        return f"The network kept the full symmetry {group} in every layer."
    if kept == group:
        most = f"{100 * worst.broken_energy:.2g}%"
        return f"The network kept nearly all of {group}; {worst.name} broke most, {most} of its kernel's energy."
    where = f"in {worst.name} (broken energy {worst.broken_energy:.1%})"
    if kept == "identity only":
        return f"Of {group} the network kept no symmetry; most was broken {where}."
    return f"Of {group} the network kept {kept}; it broke the rest most {where}."
