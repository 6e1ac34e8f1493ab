"""The contrast transfer function of a weak phase object, in RELION's convention.

At the spatial frequency s (in 1/Å, s_x along the last axis of the image, s_y along the second-last) the phase is

    χ(s) = π λ Δf(θ) |s|² − (π/2) C_s λ³ |s|⁴ + φ,      Δf(θ) = (U + V)/2 + (U − V)/2 · cos 2(θ − α),

with underfocus U, V positive, θ = atan2(s_y, s_x), α the angle between the x axis and the direction of U, C_s the
spherical aberration, φ the phase shift of a plate and λ the relativistic wavelength. With the amplitude contrast w

    CTF(s) = √(1 − w²) sin χ(s) + w cos χ(s)  =  sin(χ(s) + arcsin w),

which starts at +w: particles are bright, as in images that RELION has inverted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from parteq.datasets.cryoem.projection import half_plane

__all__ = ["RANGES", "CTFParameters", "contrast_transfer", "contrast_transfer_at", "wavelength_in_angstroms"]

RANGES = {
    "defocus_u_in_angstroms": ("a defocus", -1e6, 1e6, "Å"),
    "defocus_v_in_angstroms": ("a defocus", -1e6, 1e6, "Å"),
    "defocus_angle_in_degrees": ("a defocus angle", -1e4, 1e4, "°"),
    "voltage_in_kilovolts": ("a voltage", 1.0, 1e4, "kV"),
    "spherical_aberration_in_millimetres": ("a spherical aberration", -1e3, 1e3, "mm"),
    "amplitude_contrast": ("an amplitude contrast", -1.0, 1.0, ""),
    "phase_shift_in_degrees": ("a phase shift", -1e4, 1e4, "°"),
}
"""What each parameter of a microscope is called, the least and the most that it can be, and its unit. Beyond, numbers
of a file are in another unit, or overflow."""


@dataclass(frozen=True)
class CTFParameters:
    """What the contrast transfer function of each of N images depends on: float64 arrays [N]."""

    defocus_u_in_angstroms: NDArray[np.float64]
    """Underfocus along the direction of `defocus_angle_in_degrees`."""
    defocus_v_in_angstroms: NDArray[np.float64]
    """Underfocus across it."""
    defocus_angle_in_degrees: NDArray[np.float64]
    """From the x axis (right) towards the y axis (rows of rising index)."""
    voltage_in_kilovolts: NDArray[np.float64]
    spherical_aberration_in_millimetres: NDArray[np.float64]
    amplitude_contrast: NDArray[np.float64]
    """Between 0 and 1."""
    phase_shift_in_degrees: NDArray[np.float64]

    def __post_init__(self) -> None:
        arrays = {field.name: np.asarray(getattr(self, field.name), dtype=np.float64) for field in fields(self)}
        if any(array.ndim != 1 for array in arrays.values()) or len({len(array) for array in arrays.values()}) != 1:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            raise ValueError(f"CTF parameters are to be arrays [N] of one length, not {shapes}")
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.defocus_u_in_angstroms)

    def subset(self, indices: NDArray[np.integer] | slice) -> CTFParameters:
        """The parameters of some of the images."""
        return CTFParameters(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})


def wavelength_in_angstroms(voltage_in_kilovolts: NDArray[np.float64]) -> NDArray[np.float64]:
    """De Broglie wavelength of an electron after acceleration, relativistic.

    h / √(2 m e V (1 + e V / 2 m c²)), as in Kirkland, Advanced Computing in Electron Microscopy, eq. 2.5.
    """
    volts = 1e3 * voltage_in_kilovolts
    return np.asarray(12.2642598 / np.sqrt(volts * (1 + 0.978475598e-6 * volts)))


def contrast_transfer_at(
    parameters: CTFParameters,
    frequencies: Float[Tensor, "*#n f 2"],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n f"]:
    """The contrast transfer function at given frequencies.

    Args:
        parameters: of N images.
        frequencies: (s_x, s_y) in 1/Å; [F, 2] for all images alike or [N, F, 2].
        device: where to compute.
        dtype: of the result; the phase is computed in float64, since it reaches hundreds of radians.

    Returns:
        Values between −1 and 1, [N, F].
    """
    frequencies = frequencies.to(device, torch.float64)
    squared = frequencies.square().sum(-1)
    x, y = frequencies.unbind(-1)
    columns = {field.name: getattr(parameters, field.name) for field in fields(parameters)}
    columns["wavelength"] = wavelength_in_angstroms(parameters.voltage_in_kilovolts)
    values = {name: torch.from_numpy(column).to(device)[:, None] for name, column in columns.items()}
    wavelength = values["wavelength"]
    u, v = values["defocus_u_in_angstroms"], values["defocus_v_in_angstroms"]
    angle = values["defocus_angle_in_degrees"].deg2rad()
    aberration = 1e7 * values["spherical_aberration_in_millimetres"]
    # |s|² cos 2(θ − α), without the angle of a vector that may be zero.
    astigmatic = (x.square() - y.square()) * (2 * angle).cos() + 2 * x * y * (2 * angle).sin()
    phase = torch.pi * wavelength * ((u + v) / 2 * squared + (u - v) / 2 * astigmatic)
    phase = phase - torch.pi / 2 * aberration * wavelength**3 * squared.square()
    phase = phase + values["phase_shift_in_degrees"].deg2rad() + values["amplitude_contrast"].asin()
    return phase.sin().to(dtype)


def contrast_transfer(
    parameters: CTFParameters,
    box: int,
    pixel_size_in_angstroms: float | Float64[np.ndarray, " n"],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n box half"]:
    """The contrast transfer function on the frequencies of `torch.fft.rfft2`.

    Args:
        parameters: of N images.
        box: pixels along an edge of an image, D.
        pixel_size_in_angstroms: one for all images, or [N].
        device: where to compute.
        dtype: of the result.

    Returns:
        [N, D, D // 2 + 1].
    """
    pixel_size = torch.as_tensor(pixel_size_in_angstroms, dtype=torch.float64).reshape(-1, 1, 1)
    frequencies = half_plane(box, dtype=torch.float64).reshape(1, -1, 2) / pixel_size
    return contrast_transfer_at(parameters, frequencies, device=device, dtype=dtype).unflatten(-1, (box, -1))
