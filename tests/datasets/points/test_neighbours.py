"""Neighbours and far-apart points against comparing everything with everything."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parteq.datasets.points import neighbours
from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.graphs import find_graphs
from parteq.datasets.points.neighbours import farthest_points, knn, radius

Batch = tuple[Tensor, Tensor]


def batch(sizes: list[int], seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return torch.randn(len(index), 3, generator=generator), index


def oracle(points: Batch, centres: Batch | None, k: float, r: float = math.inf) -> list[list[int]]:
    """Neighbours of each centre, nearest first, point by point."""
    positions, index = points
    found = []
    for number, (centre, cloud) in enumerate(zip(*(centres or points), strict=True)):
        distances = (positions - centre).norm(dim=1)
        order = [i for i in distances.argsort().tolist() if index[i] == cloud and distances[i] <= r]
        if centres is None:
            order.remove(number)
        found.append(order[: int(min(k, len(order)))])
    return found


def lists(edges: Tensor, count: int) -> list[list[int]]:
    """Neighbours of each centre, in the order of the edges, which has to be that of the centres."""
    assert (edges[1].diff() >= 0).all()
    return [edges[0][edges[1] == centre].tolist() for centre in range(count)]


@pytest.fixture(params=["tree", "comparison"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way of finding neighbours, on the CPU; comparisons in several steps."""
    if request.param == "comparison":
        monkeypatch.setattr(neighbours, "_by_tree", neighbours._by_comparison)
        monkeypatch.setattr(neighbours, "_MAX_DISTANCES", 100)


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("k", [1, 4, 12])
def test_knn(k: int) -> None:
    points, centres = batch([9, 1, 20, 5]), batch([3, 1, 4, 2], seed=1)
    assert lists(knn(*points, k), 35) == oracle(points, None, k)
    assert lists(knn(*points, k, centres=centres[0], centre_index=centres[1]), 10) == oracle(points, centres, k)


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("r", [0.3, 1.0, 9.0])
def test_radius(r: float, most: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_FIRST_GUESS", 2)
    points, centres = batch([9, 1, 20, 5]), batch([3, 1, 4, 2], seed=1)
    k = most or math.inf
    assert lists(radius(*points, r, max_neighbours=most), 35) == oracle(points, None, k, r)
    given_centres = {"centres": centres[0], "centre_index": centres[1]}
    assert lists(radius(*points, r, max_neighbours=most, **given_centres), 10) == oracle(points, centres, k, r)


@pytest.mark.usefixtures("method")
def test_the_radius_itself_is_within() -> None:
    positions = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [1.5, 0, 0]])
    assert lists(radius(positions, torch.zeros(3, dtype=torch.long), 0.5), 3) == [[1], [0], []]


@pytest.mark.usefixtures("method")
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 9))
def test_enough_points_have_k_edges_each(sizes: list[int], k: int, seed: int) -> None:
    edges = knn(*batch(sizes, seed), k)
    counts = torch.bincount(edges[1], minlength=sum(sizes))
    assert counts.tolist() == [min(k, size - 1) for size in sizes for _ in range(size)]


@pytest.mark.usefixtures("method")
def test_points_that_coincide_have_k_neighbours_but_not_themselves() -> None:
    positions, index = torch.zeros(8, 3), torch.zeros(8, dtype=torch.long)
    for edges in (knn(positions, index, 3), radius(positions, index, 1.0, max_neighbours=3)):
        assert torch.bincount(edges[1]).tolist() == [3] * 8
        assert (edges[0] != edges[1]).all()


@given(st.integers(0, 1000))
def test_the_same_cloud_again_is_another_cloud(seed: int) -> None:
    positions, _ = batch([3], seed)
    edges = knn(positions.repeat(8, 1), torch.arange(8).repeat_interleave(3), 5)
    assert (edges[0] // 3 == edges[1] // 3).all()


def test_gradients_do_not_get_in_the_way() -> None:
    positions, index = batch([6, 6])
    assert knn(positions.requires_grad_(), index, 2).shape == (2, 24)
    assert len(farthest_points(positions, index, 0.5)) == 6


def test_refused() -> None:
    points = batch([5])
    calls: list[Callable[[], Tensor]] = [
        lambda: knn(*points, 0), lambda: radius(*points, 0.0), lambda: radius(*points, 1.0, max_neighbours=0),
        lambda: farthest_points(*points, 0.0), lambda: farthest_points(*points, 1.5),
        lambda: knn(*points, 1, centres=points[0]),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match=r"must be|come together"):
            call()


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 1.0])
def test_farthest_points(ratio: float) -> None:
    """Every point taken is one of the farthest from those before it."""
    sizes = [9, 1, 20, 5]
    positions, index = batch(sizes)
    found = farthest_points(positions, index, ratio)
    assert torch.bincount(index[found]).tolist() == [math.ceil(ratio * size - 1e-9) for size in sizes]
    assert (index[found].diff() >= 0).all()
    assert len(found.unique()) == len(found)
    for cloud, (start, stop) in enumerate(pairwise([0, 9, 10, 30, 35])):
        chosen = found[index[found] == cloud]
        assert chosen[0] == start
        for number in range(1, len(chosen)):
            gaps = torch.cdist(positions[start:stop], positions[chosen[:number]]).min(1).values
            assert gaps[chosen[number] - start] == pytest.approx(gaps.max().item(), rel=1e-4)


def test_farthest_points_begin_anywhere_and_repeat_nothing() -> None:
    positions, index = batch([30, 40])
    draws = {farthest_points(positions, index, 0.1, torch.Generator().manual_seed(s))[0].item() for s in range(20)}
    assert len(draws) > 5
    same = farthest_points(torch.zeros(6, 3), torch.zeros(6, dtype=torch.long), 1.0)
    assert sorted(same.tolist()) == list(range(6))


def test_pyg_lib_is_used_where_present(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the signatures and the order of edges of PyG's own functions."""
    import torch_geometric.nn

    points = batch([9, 4])

    def pyg_knn(x: Tensor, y: Tensor, k: int, batch_x: Tensor, batch_y: Tensor) -> Tensor:
        found = oracle((x, batch_x), (y, batch_y), k)
        return torch.tensor([[row, i] for row, near in enumerate(found) for i in near]).T

    def pyg_fps(x: Tensor, batch: Tensor, ratio: float, random_start: bool) -> Tensor:
        assert not random_start
        return torch.tensor([7])

    wanted = knn(*points, 3)
    monkeypatch.setattr(neighbours, "_pyg_lib", lambda name: True)
    monkeypatch.setattr(torch_geometric.nn, "knn", pyg_knn)
    monkeypatch.setattr(torch_geometric.nn, "fps", pyg_fps)
    assert torch.equal(knn(*points, 3), wanted)
    assert farthest_points(*points, 0.5).tolist() == [7]


def test_graphs_found_once_equal_those_of_a_batch() -> None:
    sizes = [5, 80, 3, 7, *[4] * 70]
    positions, _ = batch(sizes)
    clouds = ArrayClouds(positions, sizes)
    for find in (lambda p, i: knn(p, i, 4), lambda p, i: radius(p, i, 0.4)):
        graphs = find_graphs(clouds, find)
        assert len(graphs) == len(clouds)
        for chosen in ([2, 1, 73, 0], [3, 3], []):
            data = clouds.batch(chosen)
            assert torch.equal(graphs.batch(chosen), find(data.positions, data.index))
