r"""Projections of a volume by the Fourier-slice theorem, their adjoint, and shifts by phase ramps.

A particle with the potential φ, rotated by R, has the image

    o(x, y) = ∫ φ(Rᵀ (x, y, z)) dz,        whose transform is        O(f_x, f_y) = Φ(Rᵀ (f_x, f_y, 0)):

a plane through the origin of the volume's transform Φ. x is the last axis of images and volumes, y the second-last,
z the first of a volume. The centre of a volume of D voxels is the voxel D // 2, that of an image the pixel
(D + 1) // 2: the same for even D, and for odd D what RELION's programs do (their projections of an odd box stand one
pixel further to the right and up than the map does). `slices_of_images` and `images_of_slices` are the only places
that know of it.

Φ is computed on a grid P = `padding` · D as fine, and read off between the points of the grid by trilinear
interpolation. That convolves Φ with a triangle along each axis, hence multiplies the volume with sinc²(x/P)
sinc²(y/P) sinc²(z/P), by which the volume is divided beforehand (gridding correction). Slices are zero at and beyond
the Nyquist frequency, |f| ≥ 1/2, so that the images of all directions have the same resolution.

The volume being real, Φ(−k) is the conjugate of Φ(k): only f_x ≥ 0 is stored. Everything is linear in the volume and
differentiable with respect to volume and rotations.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional

__all__ = [
    "back_project",
    "fourier_slices",
    "fourier_volume",
    "half_plane",
    "images_of_slices",
    "phase_ramp",
    "project",
    "read_transform",
    "real_space_projections",
    "shift_images",
    "slices_of_images",
]


def half_plane(
    box: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "box half 2"]:
    """The frequencies of `torch.fft.rfft2`, in cycles per pixel: (f_x, f_y) at [f_y, f_x]; [D, D // 2 + 1, 2]."""
    y = torch.fft.fftfreq(box, device=device, dtype=dtype)
    x = torch.fft.rfftfreq(box, device=device, dtype=dtype)
    return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)


def fourier_volume(volume: Float[Tensor, "box box box"], padding: float = 2) -> Complex[Tensor, "p p half"]:
    """The half transform of a volume that `fourier_slices` reads.

    Args:
        volume: [z, y, x] of D voxels along each edge.
        padding: how much finer than 1/D the grid is, at least 1. Small values smear the edge of the box.

    Returns:
        Φ at (k_z, k_y, k_x), k_z and k_y from −P/2 to P/2 (both included) and k_x from 0 to P/2; the phases are
        relative to the voxel D // 2.
    """
    box = volume.shape[-1]
    padded = 2 * math.ceil(padding * box / 2)
    places = (torch.arange(box, device=volume.device) - box // 2).to(volume.dtype)
    correction = torch.sinc(places / padded).square().reciprocal()
    corrected = volume * correction * correction[:, None] * correction[:, None, None]
    before, after = padded // 2 - box // 2, padded - padded // 2 - (box - box // 2)
    centred = functional.pad(corrected, (before, after) * 3)
    half = torch.fft.rfftn(torch.fft.ifftshift(centred), dim=(0, 1, 2))
    half = torch.fft.fftshift(half, dim=(0, 1))
    # P/2 is −P/2 once more: a point between the last two planes finds neighbours on both sides.
    half = torch.cat([half, half[:1]], 0)
    return torch.cat([half, half[:, :1]], 1)


def fourier_slices(
    transform: Complex[Tensor, "p p half"],
    rotations: Float[Tensor, "n 3 3"],
    frequencies: Float[Tensor, "... 2"],
) -> Complex[Tensor, "n ..."]:
    """Slices through the transform of a volume, at any frequencies.

    Fast enough for a forward model inside a training loop; `frequencies` may be few (a low-pass disc), and nothing
    goes back to real space.

    Args:
        transform: of `fourier_volume`.
        rotations: R of each image.
        frequencies: (f_x, f_y) in cycles per pixel.

    Returns:
        O(f) of each image, with phases relative to the centre of the box; zero where |f| ≥ 1/2.
    """
    plane = frequencies.reshape(-1, 2)
    inside = (plane.square().sum(-1) < 0.25 - 1e-6).to(plane.dtype)
    slices = read_transform(transform, plane @ rotations[:, :2]) * inside
    return slices.unflatten(-1, frequencies.shape[:-1]) if frequencies.ndim != 2 else slices


def read_transform(transform: Complex[Tensor, "p p half"], points: Float[Tensor, "n f 3"]) -> Complex[Tensor, "n f"]:
    """The transform of a volume at points (f_x, f_y, f_z) in cycles per voxel, within ±1/2 along each axis.

    Args:
        transform: of `fourier_volume`.
        points: any; differentiable with respect to them.
    """
    # Φ(−k) is the conjugate of Φ(k).
    sign = torch.where(points[..., :1].detach() < 0, -1.0, 1.0).to(points.dtype)
    points = points * sign
    # To the coordinates of `grid_sample`, which has −1 and 1 at the first and last points of the grid.
    scale = points.new_tensor([4.0, 2.0, 2.0])
    places = points * scale - points.new_tensor([1.0, 0.0, 0.0])
    parts = torch.view_as_real(transform).permute(3, 0, 1, 2)[None]
    read = functional.grid_sample(parts, places[None, :, :, None], mode="bilinear", align_corners=True)
    real, imaginary = read[0, :, :, :, 0]
    return torch.complex(real, imaginary * sign[..., 0])


def images_of_slices(slices: Complex[Tensor, "n box half"], box: int) -> Float[Tensor, "n box box"]:
    """The images whose half transforms, with phases relative to the centre, are given on `half_plane(box)`."""
    return torch.fft.ifftshift(torch.fft.irfft2(slices, s=(box, box)), dim=(-2, -1))


def slices_of_images(images: Float[Tensor, "n box box"]) -> Complex[Tensor, "n box half"]:
    """The half transforms of images on `half_plane(box)`, with phases relative to the centre of the image."""
    return torch.fft.rfft2(torch.fft.fftshift(images, dim=(-2, -1)))


def project(
    volume: Float[Tensor, "box box box"], rotations: Float[Tensor, "n 3 3"], padding: float = 2
) -> Float[Tensor, "n box box"]:
    """Projections of a volume along the z axis, after rotation about its centre.

    Args:
        volume: [z, y, x].
        rotations: R of each image.
        padding: as in `fourier_volume`.

    Returns:
        o(x, y) of each image as [y, x]: sums of voxels along z.
    """
    box = volume.shape[-1]
    frequencies = half_plane(box, device=volume.device, dtype=volume.dtype)
    return images_of_slices(fourier_slices(fourier_volume(volume, padding), rotations, frequencies), box)


def back_project(
    images: Float[Tensor, "n box box"], rotations: Float[Tensor, "n 3 3"], padding: float = 2
) -> Float[Tensor, "box box box"]:
    """The adjoint of `project`: ⟨project(φ), o⟩ = ⟨φ, back_project(o)⟩ for every volume φ and images o."""
    box = images.shape[-1]
    with torch.enable_grad():
        # The volume is of no matter to the derivative of a linear map.
        volume = images.new_zeros(box, box, box, requires_grad=True)
        (adjoint,) = torch.autograd.grad(project(volume, rotations, padding), volume, images)
    return adjoint


def real_space_projections(
    volume: Float[Tensor, "box box box"], rotations: Float[Tensor, "n 3 3"]
) -> Float[Tensor, "n box box"]:
    """Projections as sums over the rotated volume in real space, trilinear: slow, and what `project` is held against.

    Blurs what is finer than some voxels, as every rotation of a sampled volume in real space does.
    """
    # The pixel (D + 1) // 2 of the image shows what stands above the voxel D // 2.
    box = volume.shape[-1]
    axis = (torch.arange(box, device=volume.device) - box // 2).to(volume.dtype)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    images = []
    for rotation in rotations:
        # Row vectors: (Rᵀ p)ᵀ = pᵀ R.
        places = torch.stack([x, y, z], -1) @ rotation + box // 2
        turned = functional.grid_sample(volume[None, None], (2 * places / (box - 1) - 1)[None], align_corners=True)
        images.append(turned[0, 0].sum(0))
    return torch.roll(torch.stack(images), (box % 2, box % 2), (-2, -1))


def phase_ramp(shifts: Float[Tensor, "n 2"], frequencies: Float[Tensor, "... 2"]) -> Complex[Tensor, "n ..."]:
    """What a shift multiplies the transform of an image with: exp(−2πi f·t).

    Args:
        shifts: (t_x, t_y), where the centre of each image is to stand, in pixels or Å.
        frequencies: (f_x, f_y) in cycles per pixel or per Å, as the shifts.
    """
    angle = -2 * torch.pi * torch.einsum("...c,nc->n...", frequencies, shifts)
    return torch.polar(torch.ones_like(angle), angle)


def shift_images(images: Float[Tensor, "n box box"], shifts: Float[Tensor, "n 2"]) -> Float[Tensor, "n box box"]:
    """Images moved by (t_x, t_y) pixels, to the right and to higher rows; what leaves one side enters at the other."""
    box = images.shape[-1]
    ramp = phase_ramp(shifts, half_plane(box, device=images.device, dtype=images.dtype))
    return torch.fft.irfft2(torch.fft.rfft2(images) * ramp, s=(box, box))
