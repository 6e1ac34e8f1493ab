"""Point convolutions: equivariance, uniform and absent constraint, the integral, graphs in any order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from parteq.core import points
from parteq.core.axis import Axis
from parteq.core.density import make_density
from parteq.core.fields import FieldType, regular, trivial
from parteq.core.groups import SymmetryGroup, space_group
from parteq.core.pointfilters import RadialHarmonics
from parteq.core.points import PartialPointConv
from tests.core.helpers import each_irrep_once, randomise, some_elements

FILTERS = {"radius": 1.0, "shells": 2, "frequency": 2}


def _layer(group: SymmetryGroup, degree: str, axis: Axis | None = None, **options: object) -> PartialPointConv:
    torch.manual_seed(0)
    rho = each_irrep_once(group, 1) if group.continuous else regular(group)
    # All that kernels can hold: output 1, input 1, filters 2.
    density = make_density(group, degree, 4 if degree == "none" else 2)
    type_ = FieldType(rho, 1)
    return PartialPointConv(type_, type_, RadialHarmonics(**FILTERS), density, axis=axis, **options)


def _graph(generator: torch.Generator, nodes: int = 5, edges: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    """Return positions and edges in any order, some targets without one."""
    return torch.randn(nodes, 3, generator=generator), torch.randint(0, nodes - 1, (2, edges), generator=generator)


def _apply(layer: PartialPointConv, features: torch.Tensor, positions: torch.Tensor, edges: torch.Tensor):
    return layer(features, edges, RadialHarmonics(**FILTERS)(positions[edges[0]] - positions[edges[1]]))


def test_uniform_density_is_exactly_equivariant(space: SymmetryGroup, rng: torch.Generator) -> None:
    positions, edges = _graph(rng)
    for degree in ("full", "learned"):
        layer = _layer(space, degree)
        features = torch.randn(len(positions), layer.in_type.channels, generator=rng)
        output = _apply(layer, features, positions, edges)
        for element in some_elements(space, 3):
            matrix = torch.from_numpy(space.matrix(element))
            rho = torch.from_numpy(layer.in_type.representation(element))
            turned = _apply(layer, features @ rho.T, positions @ matrix.T, edges)
            torch.testing.assert_close(turned, output @ rho.T, atol=1e-9, rtol=0)


def test_the_identity_alone_leaves_every_kernel_free() -> None:
    layer = _layer(space_group("so3"), "none")
    # 4 × 4 channels, 2 shells, harmonics 1 + 3 + 5.
    assert layer.kernel.rows == 4 * 4 * 2 * 9
    rows = torch.eye(layer.kernel.rows)[:, :, None, None]
    kernels = torch.stack([torch.func.functional_call(layer.kernel, {"weight": row}, ()).flatten() for row in rows])
    assert np.linalg.matrix_rank(kernels.detach().numpy()) == layer.kernel.rows


@pytest.mark.parametrize("name", ["so3", "o2", "d3"])
def test_a_learned_density_is_the_integral_over_turned_kernels(name: str, rng: torch.Generator) -> None:
    group = space_group(name)
    layer = _layer(group, "learned")
    randomise(layer.density, rng, 0.1)
    learned = layer.kernel().detach()
    elements, weights = group.quadrature(14)
    mass = layer.density.density_at(elements).detach() * torch.from_numpy(weights)
    # The kernel behind the projection: what the identity alone leaves of the same weights.
    layer.kernel.density = make_density(group, "none", 2)
    free = layer.kernel().detach()
    filters, places = RadialHarmonics(**FILTERS), torch.randn(40, 3, generator=rng)
    inverse = torch.linalg.pinv(filters(places))
    rho = torch.from_numpy(np.stack([layer.in_type.representation(element) for element in elements]))
    matrices = torch.from_numpy(np.stack([group.matrix(element) for element in elements]))
    # Y(h⁻¹x) = Y(x) T, fitted to values.
    turns = inverse @ torch.stack([filters(places @ matrix) for matrix in matrices])
    integral = torch.einsum("h,hoi,ijs,hkj,hts->okt", mass, rho, free, rho, turns)
    torch.testing.assert_close(learned, integral, atol=1e-5, rtol=0)
    assert (learned - free).abs().max() > 0.1


def test_an_axis_turns_the_layer_with_it(rng: torch.Generator) -> None:
    positions, edges = _graph(rng)
    about_z = _layer(space_group("so2"), "full", Axis((0.0, 0.0, 1.0)))
    about_x = _layer(space_group("so2"), "full", Axis((1.0, 0.0, 0.0)))
    features = torch.randn(len(positions), about_z.in_type.channels, generator=rng)
    # The smallest rotation from z to x takes (x, y, z) to (z, y, -x).
    turn = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    turned = _apply(about_x, features, positions @ turn.T, edges)
    torch.testing.assert_close(turned, _apply(about_z, features, positions, edges), atol=1e-9, rtol=0)


def test_batches_and_the_order_of_edges_change_nothing(rng: torch.Generator) -> None:
    layer = _layer(space_group("so3"), "learned")
    randomise(layer.density, rng)
    filters = RadialHarmonics(**FILTERS)
    graphs = []
    for nodes in (4, 6):
        source = torch.stack([torch.randperm(nodes, generator=rng)[:3] for _ in range(nodes)]).flatten()
        edges = torch.stack([source, torch.arange(nodes).repeat_interleave(3)])
        features = torch.randn(nodes, layer.in_type.channels, generator=rng)
        graphs.append(Data(x=features, pos=torch.randn(nodes, 3, generator=rng), edge_index=edges))

    def run(data: Data, **options: int) -> torch.Tensor:
        source, target = data.edge_index
        return layer(data.x, data.edge_index, filters(data.pos[source] - data.pos[target]), **options)

    together = run(Batch.from_data_list(graphs))
    torch.testing.assert_close(together, torch.cat([run(graph) for graph in graphs]))
    torch.testing.assert_close(together, run(Batch.from_data_list(graphs), neighbours=3))
    shuffled = Batch.from_data_list(graphs)
    shuffled.edge_index = shuffled.edge_index[:, torch.randperm(shuffled.num_edges, generator=rng)]
    torch.testing.assert_close(together, run(shuffled))
    plain = layer.plain()
    for edge_index, options in ((graphs[0].edge_index, {"neighbours": 3}), (graphs[0].edge_index.flip(1), {})):
        graph = Data(x=graphs[0].x, pos=graphs[0].pos, edge_index=edge_index)
        torch.testing.assert_close(plain(graph.x, edge_index, filters(_vectors(graph)), **options), run(graphs[0]))


def _vectors(data: Data) -> torch.Tensor:
    source, target = data.edge_index
    return data.pos[source] - data.pos[target]


def test_targets_are_computed_block_by_block(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = _layer(space_group("so3"), "learned")
    positions, edges = _graph(rng, nodes=7, edges=30)
    features = torch.randn(len(positions), layer.in_type.channels, generator=rng)
    whole = _apply(layer, features, positions, edges)
    monkeypatch.setattr(points, "_MOMENTS", 3 * layer.in_type.channels * 18)  # of three targets
    torch.testing.assert_close(_apply(layer, features, positions, edges), whole)


def test_a_target_without_edges_gets_the_bias() -> None:
    layer = _layer(space_group("so3"), "full")
    with torch.no_grad():
        layer.bias.fill_(2.0)
    none = torch.zeros(2, 0, dtype=torch.long)
    output = layer(torch.ones(3, layer.in_type.channels), none, torch.zeros(0, 18), nodes=2)
    torch.testing.assert_close(output, layer.expanded_bias().expand(2, -1))


def test_gradients_reach_density_weights_positions_and_coinciding_points(rng: torch.Generator) -> None:
    layer = _layer(space_group("so3"), "learned")
    positions, edges = _graph(rng)
    positions[1] = positions[0]
    positions.requires_grad_()
    features = torch.randn(len(positions), layer.in_type.channels, generator=rng)
    _apply(layer, features, positions, edges).square().sum().backward()
    for gradient in (layer.density.logits.grad, layer.kernel.weight.grad, positions.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_harmonics_are_orthonormal_on_the_sphere_and_vanish_at_the_origin() -> None:
    filters = RadialHarmonics(1.0, shells=1, frequency=3)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    angles = 2 * np.pi * np.arange(16) / 16
    directions = [
        (np.sqrt(1 - z * z) * np.cos(a), np.sqrt(1 - z * z) * np.sin(a), z) for z, a in itertools.product(nodes, angles)
    ]
    values = filters(torch.tensor(directions)).double()
    gram = values.T @ (torch.from_numpy(np.repeat(weights / 32, 16))[:, None] * values)
    scale = gram.diagonal()
    torch.testing.assert_close(gram, torch.diag(scale), atol=1e-10, rtol=0)
    assert filters(torch.zeros(1, 3))[0, 1:].abs().max() == 0
    with pytest.raises(ValueError, match="radius"):
        RadialHarmonics(0.0)
    with pytest.raises(ValueError, match="take no attributes"):
        filters(torch.zeros(1, 3), torch.zeros(1, 1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("neighbours", [2, None])
def test_layer_and_filters_are_one_graph_of_torch_compile(
    neighbours: int | None, backend: str, rng: torch.Generator
) -> None:
    torch.set_default_dtype(torch.float32)
    torch.compiler.reset()
    layer, filters = _layer(space_group("so3"), "learned"), RadialHarmonics(**FILTERS)
    edges = torch.stack([torch.tensor([1, 2, 0, 2, 0, 1]), torch.arange(3).repeat_interleave(2)])
    if neighbours is None:
        edges = edges[:, [5, 1, 3, 4, 1, 0]]  # in any order, of targets with one, two and three
    features = torch.randn(3, layer.in_type.channels, generator=rng, dtype=torch.float32)
    vectors = torch.randn(6, 3, generator=rng, dtype=torch.float32)

    def run(features: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        return layer(features, edges, filters(vectors), neighbours=neighbours)

    compiled = torch.compile(run, fullgraph=True, backend=backend)
    expected, found = run(features, vectors), compiled(features, vectors)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    wanted = torch.autograd.grad(expected.square().sum(), list(layer.parameters()))
    given = torch.autograd.grad(found.square().sum(), list(layer.parameters()))
    torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-3)


def test_a_hub_does_not_make_room_at_all_other_nodes() -> None:
    torch.manual_seed(0)
    group = space_group("so3")
    type = FieldType(trivial(group), 3)
    filters = RadialHarmonics(1.0, 2, 1)
    layer = PartialPointConv(type, type, filters, make_density(group, "learned", 2)).double()
    nodes, edges = 40, torch.stack([torch.arange(160) % 40, torch.arange(160) % 7])
    edges[1, :100] = 39
    values, features = filters(torch.randn(160, 3).double()), torch.randn(nodes, 3).double()
    degrees = edges[1].bincount(minlength=nodes).clamp_min(1)
    products = (features[edges[0]][:, :, None] * (values / degrees[edges[1], None])[:, None]).flatten(1)
    expected = torch.zeros(nodes, 3).double().index_add(0, edges[1], products @ layer.kernel().flatten(1).T)
    torch.testing.assert_close(layer(features, edges, values), expected + layer.expanded_bias())
    assert layer(features[:0], edges[:, :0], values[:0]).shape == (0, 3)
