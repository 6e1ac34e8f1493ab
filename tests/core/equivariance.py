"""Layers that act at each position by themselves: their equivariance, and what else every such module must hold to."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from parteq.core.fields import FieldType
from parteq.core.groups import Element, SymmetryGroup

__all__ = [
    "check_gradients",
    "check_state",
    "elements_off_grids",
    "equivariance_error",
    "features",
    "perturbed",
    "turned",
]


def elements_off_grids(group: SymmetryGroup, count: int = 6, seed: int = 0) -> list[Element]:
    """Return elements that are on no quadrature grid, flips among them; of a finite group a choice."""
    chooser = np.random.default_rng(seed)
    if not group.continuous:
        elements = list(group.algebra.elements)
        return [elements[i] for i in chooser.permutation(len(elements))[:count]]
    if group.dimension == 2 or group.about_axis:
        return [group.rotation(chooser.uniform(0, 2 * np.pi), bool(group.flip) and i % 2 == 1) for i in range(count)]
    elements = []
    for i in range(count):
        matrix, _ = np.linalg.qr(chooser.standard_normal((3, 3)))
        matrix *= np.linalg.det(matrix)
        elements.append(group.algebra.element((i % 2, matrix) if group.name == "O(3)" else matrix, "MAT"))
    return elements


def features(type: FieldType, grid: tuple[int, ...] = (3, 2), batch: int = 2, seed: int = 0) -> Tensor:
    """Return random features of a type."""
    return torch.randn(batch, type.channels, *grid, generator=torch.Generator().manual_seed(seed))


def turned(values: Tensor, type: FieldType, element: Element) -> Tensor:
    """Return features with every field multiplied by ρ(h)."""
    rho = torch.from_numpy(type.representation(element)).to(values)
    fields = values.unflatten(1, (type.count, type.representation.size))
    return torch.einsum("ab,nkb...->nka...", rho, fields).flatten(1, 2)


def equivariance_error(module: nn.Module, values: Tensor) -> float:
    """Return max over h of ‖m(ρ_in(h) x) − ρ_out(h) m(x)‖ / ‖m(x)‖."""
    with torch.no_grad():
        output = module(values)
        return max(
            float(
                (module(turned(values, module.in_type, h)) - turned(output, module.out_type, h)).norm() / output.norm()
            )
            for h in elements_off_grids(module.in_type.group)
        )


def perturbed(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return the module with all its parameters moved at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def check_gradients(module: nn.Module, values: Tensor) -> None:
    """Check that value and gradients are finite, in the input and in all parameters, and that none is left out."""
    values = values.clone().requires_grad_()
    output = module(values)
    assert output.isfinite().all()
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    for tensor in (values, *module.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def check_state(module: nn.Module, other: nn.Module, values: Tensor) -> None:
    """Check a strict round trip of the state into ``other``, and that a deep copy shares nothing with its model."""
    module.eval()
    other.eval()
    keys = set(module.state_dict())
    assert set(module.train().state_dict()) == keys
    module.eval()
    other.load_state_dict(module.state_dict(), strict=True)
    torch.testing.assert_close(other(values), module(values))
    before = module(values)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.zero_()
    torch.testing.assert_close(module(values), before)
