"""Maps from projections of known maps: shape, scale, hand, symmetry, transfer functions, shifts, parts of a stack."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from parteq.apps.cryoem.pointgroups import point_group
from parteq.apps.cryoem.reconstruction import Reconstruction, insert_particles
from parteq.apps.cryoem.resolution import fourier_shell_correlation
from parteq.datasets.cryoem.ctf import CTFParameters, contrast_transfer
from parteq.datasets.cryoem.mrc import read_volume
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.cryoem.projection import project, shift_images
from parteq.datasets.cryoem.stack import ImageStack, StackWriter

PIXEL_SIZE = 3.0


def random_rotations(count: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(count, random_state=seed).as_matrix()).float()


def blobs(box: int, symmetry: str = "C1") -> torch.Tensor:
    """A chiral map [z, y, x] of four Gaussians and their symmetry copies."""
    centres = np.array([(0.5, 0.1, 0.2), (-0.1, 0.5, -0.2), (0.2, 0.3, 0.5), (-0.4, -0.2, 0.1)])
    z, y, x = (np.indices((box,) * 3) - box // 2) / (box / 2)
    volume = np.zeros((box,) * 3)
    for element in point_group(symmetry):
        for weight, centre in zip((1, 0.7, 0.5, 0.9), centres * 0.75 @ element, strict=True):
            distance = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
            volume += weight * np.exp(-distance / (2 * 0.09**2))
    return torch.from_numpy(volume).float()


def transfer_functions(count: int) -> CTFParameters:
    defocus = np.random.default_rng(3).uniform(4000, 12000, count)
    same = np.ones(count)
    return CTFParameters(defocus, defocus - 400, 40 * same, 300 * same, 2.7 * same, 0.1 * same, 0 * same)


def reconstructed(images, rotations, **options) -> np.ndarray:
    reconstruction = Reconstruction(images.shape[-1], **options)
    reconstruction.insert(images, rotations, torch.zeros(len(images), 2))
    return reconstruction.volume().numpy()


def scale(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found * truth).sum() / (truth * truth).sum())


@pytest.mark.parametrize("box", [20, 21])
@pytest.mark.parametrize("optics", [False, True])
def test_the_map_comes_back_with_its_scale(box, optics):
    truth, rotations = blobs(box), random_rotations(500)
    shifts = torch.from_numpy(np.random.default_rng(2).normal(size=(500, 2))).float()
    images, transfer = shift_images(project(truth, rotations), shifts), None
    if optics:
        transfer = contrast_transfer(transfer_functions(500), box, PIXEL_SIZE)
        images = torch.fft.irfft2(torch.fft.rfft2(images) * transfer, s=(box, box))
    reconstruction = Reconstruction(box)
    for start in (0, 300):
        part = slice(start, start + 300)
        reconstruction.insert(images[part], rotations[part], shifts[part], None if transfer is None else transfer[part])
    found = reconstruction.volume().numpy()
    assert found.shape == (box,) * 3
    curve = fourier_shell_correlation(found, truth.numpy())
    assert curve[1 : int(0.8 * box / 2) + 1].min() > 0.97
    assert scale(found, truth.numpy()) == pytest.approx(1, abs=0.03)
    mirrored = fourier_shell_correlation(found[::-1], truth.numpy())
    assert mirrored[4] < 0.9


def test_symmetry_stands_in_for_images_that_are_missing():
    truth = blobs(20, "C5")
    rotations = random_rotations(30)
    images = project(truth, rotations)
    with_it, without = (
        fourier_shell_correlation(reconstructed(images, rotations, symmetry=name), truth.numpy())
        for name in ("C5", "C1")
    )
    assert with_it[1:9].min() > 0.9
    assert with_it[1:9].mean() > without[1:9].mean() + 0.02


@pytest.mark.parametrize("symmetry", ["C2", "D3", "T"])
def test_a_symmetrised_map_is_that_of_all_copies_of_the_poses(symmetry):
    rotations, group = random_rotations(8), torch.from_numpy(point_group(symmetry)).float()
    images = torch.randn(8, 12, 12, generator=torch.Generator().manual_seed(0))
    copies = torch.cat([rotations @ element for element in group])
    assert np.allclose(
        reconstructed(images, rotations, symmetry=symmetry),
        reconstructed(images.repeat(len(group), 1, 1), copies),
        atol=1e-4,
    )


def test_halves_add_up():
    rotations = random_rotations(10)
    images = torch.randn(10, 12, 12, generator=torch.Generator().manual_seed(0))
    halves = [Reconstruction(12), Reconstruction(12)]
    for number, half in enumerate(halves):
        half.insert(images[number::2], rotations[number::2], torch.zeros(5, 2))
    total = (halves[0] + halves[1]).volume().numpy()
    assert np.allclose(total, reconstructed(images, rotations), atol=1e-5)
    assert not np.allclose(total, halves[0].volume().numpy(), atol=1e-2)


def test_regularisation_makes_the_map_smaller():
    truth, rotations = blobs(16), random_rotations(200)
    reconstruction = Reconstruction(16)
    reconstruction.insert(project(truth, rotations), rotations, torch.zeros(200, 2))
    assert scale(reconstruction.volume(1.0).numpy(), truth.numpy()) == pytest.approx(0.5, abs=0.1)


def test_a_map_of_one_image_is_finite():
    assert np.isfinite(reconstructed(project(blobs(12), torch.eye(3)[None]), torch.eye(3)[None])).all()


def test_a_stack_is_inserted_batch_by_batch(tmp_path):
    truth, rotations, parameters = blobs(16), random_rotations(40), transfer_functions(40)
    transfer = contrast_transfer(parameters, 16, PIXEL_SIZE)
    shifts = torch.from_numpy(np.random.default_rng(2).normal(size=(40, 2))).float()
    images = shift_images(project(truth, rotations), shifts)
    images = torch.fft.irfft2(torch.fft.rfft2(images) * transfer, s=(16, 16))
    with StackWriter(tmp_path / "images.mrcs", 16, PIXEL_SIZE) as writer:
        writer.append(images.numpy())
    particles = Particles.create(
        rotations.double().numpy(),
        PIXEL_SIZE * shifts.double().numpy(),
        parameters,
        PIXEL_SIZE,
        16,
        [f"{number}@images.mrcs" for number in range(1, 41)],
        source=tmp_path / "particles.star",
    )
    chosen = np.array([7, 3, 30, 12, 25, 39])
    expected, found, without = Reconstruction(16), Reconstruction(16), Reconstruction(16)
    expected.insert(images[chosen], rotations[chosen], shifts[chosen], transfer[chosen])
    told: list[int] = []
    insert_particles(found, particles, chosen, PIXEL_SIZE, batch_size=4, progress=told.append)
    assert sum(told) == 6
    assert max(told) <= 4
    assert np.allclose(found.volume().numpy(), expected.volume().numpy(), atol=1e-4)
    insert_particles(without, particles, chosen, PIXEL_SIZE, ctf=False)
    assert not np.allclose(without.volume().numpy(), expected.volume().numpy(), atol=1e-2)


@pytest.mark.realdata
def test_projections_that_another_program_made(shared_data):
    folder = shared_data / "cryoem"
    truth, _ = read_volume(folder / "toymodel_small_nocenter.mrc")
    # Arrays of numpy and nothing else; the images are centred, whatever the translations say.
    rotations, _ = pickle.loads((folder / "toy_rot_trans.pkl").read_bytes())
    images = torch.from_numpy(ImageStack.open(folder / "toy_projections.mrcs").read(slice(None)))
    found = reconstructed(images, torch.from_numpy(rotations).float())
    assert fourier_shell_correlation(found, truth)[:13].min() > 0.99


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("optics", [False, True])
def test_the_ribosome_from_2000_projections(shared_data, optics):
    volume, _ = read_volume(shared_data / "cryoem" / "clean70SRibosome_vol_65p.mrc")
    truth, rotations = torch.from_numpy(volume[:64, :64, :64].copy()), random_rotations(2000)
    transfer = contrast_transfer(transfer_functions(2000), 64, PIXEL_SIZE) if optics else None
    reconstruction = Reconstruction(64)
    for start in range(0, 2000, 100):
        part = slice(start, start + 100)
        images = project(truth, rotations[part])
        if transfer is not None:
            images = torch.fft.irfft2(torch.fft.rfft2(images) * transfer[part], s=(64, 64))
        shifts = torch.zeros(len(images), 2)
        reconstruction.insert(images, rotations[part], shifts, None if transfer is None else transfer[part])
    found = reconstruction.volume().numpy()
    assert fourier_shell_correlation(found, truth.numpy())[1 : int(0.8 * 32) + 1].min() > 0.95
    assert scale(found, truth.numpy()) == pytest.approx(1, abs=0.02)
