"""Losses, decoders, matching and refinement, on a particle whose poses are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from parteq.apps.cryoem.decoder import ImplicitDecoder, VoxelDecoder
from parteq.apps.cryoem.diagnosis import self_similarity
from parteq.apps.cryoem.frames import turned_by_vector
from parteq.apps.cryoem.matching import rotation_grid
from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY
from parteq.datasets.cryoem.projection import phase_ramp

from .conftest import BOX, angles_in_degrees, blobs, small_model


def batch_of(particle) -> tuple[torch.Tensor, ...]:
    return tuple(particle[name] for name in ("samples", "transfer", "rotations", "shifts"))


def test_the_model_predicts_what_the_images_are(particle):
    model = small_model()
    poses = particle["transfer"], particle["rotations"], particle["shifts"]
    predicted = model.predict(particle["transform"], *poses)
    error = (predicted - particle["samples"]).abs().square().mean() / particle["samples"].abs().square().mean()
    assert error < 1e-3


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("loss", ["l2", "symmetric", "multihead"])
def test_every_loss_reaches_every_weight(particle, loss, supervised):
    model = small_model(loss=loss, supervised=supervised)
    for _ in range(2):  # the map is empty at first
        value = model(*batch_of(particle))
    value.backward()
    assert torch.isfinite(value)
    weights = {name: weight for name, weight in model.encoder.named_parameters() if weight.numel()}
    assert [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()] == []


def test_the_voxel_decoder_collects_the_volume(particle):
    decoder = VoxelDecoder(BOX, 60)
    assert not decoder.volume().any()
    unshifted = particle["samples"] * phase_ramp(-particle["shifts"], particle["disc"].frequencies)
    decoder.add(unshifted, particle["transfer"], particle["rotations"], particle["disc"].frequencies)
    volume, truth = decoder.volume(), particle["volume"] * decoder.ball
    assert volume.any()
    assert torch.corrcoef(torch.stack([volume.flatten(), truth.flatten()]))[0, 1] > 0.85


def test_the_implicit_decoder_gives_the_slices_of_a_real_volume():
    torch.manual_seed(0)
    decoder = ImplicitDecoder(BOX, 60)
    frequencies = torch.rand(5, 2) - 0.5
    turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))[None]
    slices = decoder.slices(decoder.transform(), torch.eye(3)[None], frequencies)
    opposite = decoder.slices(decoder.transform(), turn, frequencies)
    assert torch.allclose(slices, opposite.conj(), atol=1e-5)
    assert decoder.volume().shape == (BOX, BOX, BOX)


def test_refinement_finds_the_pose_nearby(particle):
    vectors = torch.nn.functional.normalize(torch.randn(60, 3), dim=1) * 0.15
    start = turned_by_vector(particle["rotations"], vectors)
    given = particle["samples"], particle["transfer"]
    rotations, shifts = particle["matching"].refine(*given, start, torch.zeros_like(particle["shifts"]))
    assert angles_in_degrees(rotations, particle["rotations"]).median() < 1.0
    assert (shifts - particle["shifts"]).norm(dim=1).median() < 0.1


def test_search_finds_the_pose_from_nothing_and_refinement_ends_there(particle):
    none = torch.zeros_like(particle["shifts"])
    matching, given = particle["matching"], (particle["samples"], particle["transfer"])
    found, at = matching.search(*given, none)
    assert torch.equal(at, none)
    assert angles_in_degrees(found, particle["rotations"]).median() < 15
    rotations, _ = matching.refine(*given, found, none)
    assert (angles_in_degrees(rotations, particle["rotations"]) < 3).float().mean() > 0.8


def test_search_looks_for_the_shift_where_asked(particle):
    off = particle["shifts"] + torch.tensor([1.5, -1.5])
    matching, given = particle["matching"], (particle["samples"], particle["transfer"])
    right = []
    for moves in (0, 3):
        rotations, shifts = matching.refine(*given, *matching.search(*given, off, moves))
        right.append(float((angles_in_degrees(rotations, particle["rotations"]) < 3).float().mean()))
    assert right[1] > max(0.9, right[0] + 0.2)
    assert (shifts - particle["shifts"]).norm(dim=1).median() < 0.1


def test_confidence_is_high_where_images_are_clear_and_low_where_they_are_not(particle):
    matching, given = particle["matching"], (particle["samples"], particle["transfer"])
    poses = particle["rotations"], particle["shifts"]
    power = particle["samples"].abs().square().mean().expand(len(particle["disc"]))
    clear = matching.confidence(*given, *poses, noise=0.01 * power, turns=NO_SYMMETRY.turns)
    unclear = matching.confidence(*given, *poses, noise=100 * power, turns=NO_SYMMETRY.turns)
    assert clear.mean() > 0.9
    assert unclear.mean() < 0.1
    assert ((clear >= 0) & (clear <= 1 + 1e-5)).all()


def test_the_grid_is_even():
    grid = rotation_grid()
    assert torch.allclose(grid @ grid.mT, torch.eye(3).expand_as(grid), atol=1e-5)
    # The mean of an even grid vanishes, and so does that of its squares but for the trivial part.
    assert grid.mean(0).abs().max() < 1e-3
    anywhere = torch.linalg.qr(torch.randn(50, 3, 3))[0]
    anywhere *= torch.linalg.det(anywhere)[:, None, None]
    nearest = torch.stack([angles_in_degrees(grid, one.expand_as(grid)).min() for one in anywhere])
    assert nearest.max() < 16


def test_a_symmetric_map_is_told_from_one_that_is_not():
    volume = blobs(24)
    alone, _ = self_similarity(volume)
    twice, turn = self_similarity(volume + torch.roll(volume.flip(1, 2), (1, 1), (1, 2)))
    assert alone < 0.9
    assert twice > 0.95
    assert turn > 150
    # A symmetry that was told of is none to wonder at.
    told, other = self_similarity(
        volume + torch.roll(volume.flip(1, 2), (1, 1), (1, 2)), replace(NO_SYMMETRY, symmetry="C2")
    )
    assert told < 0.9
    assert other < 150
