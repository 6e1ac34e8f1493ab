"""How an image looks, apart from what is where: the amounts of its stains, and its focus.

A stain weakens light by a factor, two stains by the product (Beer and Lambert). So the optical density −log I of a
pixel is a sum over stains of amount times colour, in matrices d = s R with the colours of haematoxylin, eosin and DAB
in the rows of R (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23, 2001). Amounts differ between laboratories, so
they are scaled and shifted, s → a s + b (Tellez et al., "Whole-slide mitosis detection in H&E breast histology", IEEE
TMI 37, 2018); for the pixel that is d → d R⁻¹ diag(a) R + b R.

Images that have not three channels are not taken for coloured tissue: there each channel is a stain of its own, R = 1,
which jitters contrast and brightness.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from skimage.color import rgb_from_hed
from torch import Tensor
from torch.nn.functional import conv2d, pad

from parteq.core.training import uniform

__all__ = ["as_unit", "blur", "gaussian_blur", "restain", "stain"]

AMOUNT_FACTOR = 0.2
"""Amounts of stain are scaled by 1 ± this."""
AMOUNT_SHIFT = 0.05
"""Amounts of stain are shifted by ± this, in units of optical density (natural logarithm)."""
BLUR_IN_PIXELS = (0.3, 1.0)
"""Range of the standard deviation of the blur."""

_DARKEST = 1 / 255  # what the density of black is taken from: no 8-bit pixel tells more
_RADIUS = 3  # of the blur's kernel, in pixels: three of the largest deviations

Images = Float[Tensor, "batch channels *spatial"]


def as_unit(images: Shaped[Tensor, "batch channels *spatial"]) -> Images:
    """Bytes 0…255 as numbers 0…1; numbers as they are."""
    return images if images.is_floating_point() else images.float() / 255


def restain(
    images: Images, factors: Float[Tensor, "batch channels"], shifts: Float[Tensor, "batch channels"]
) -> Images:
    """Scales and shifts the amounts of stain in each image.

    Args:
        images: in 0…1; of three channels those of haematoxylin, eosin and DAB are altered, else each channel's density.
        factors: of each stain; 1 leaves it.
        shifts: of each stain, in units of optical density; 0 leaves it.

    Returns:
        Images in 0…1.
    """
    channels = images.shape[1]
    colours = torch.as_tensor(rgb_from_hed) if channels == 3 else torch.eye(channels)
    colours = colours.to(images)
    mixing = torch.linalg.inv(colours) @ (factors[:, :, None] * colours)
    # In terms of log I, which is −d.
    logarithms = images.flatten(2).clamp(min=_DARKEST).log()
    altered = torch.baddbmm((shifts @ colours)[:, :, None], mixing.transpose(1, 2), logarithms, beta=-1)
    return altered.exp().clamp(max=1).view_as(images)


def stain(images: Shaped[Tensor, "batch channels *spatial"], keys: Int[Tensor, " batch"]) -> Images:
    """Jitters the stains of every image."""
    factors, shifts = (2 * uniform(keys, 2 * images.shape[1]) - 1).chunk(2, dim=1)
    return restain(as_unit(images), 1 + AMOUNT_FACTOR * factors, AMOUNT_SHIFT * shifts)


def gaussian_blur(images: Images, deviations: Float[Tensor, " batch"]) -> Images:
    """Blurs each image by a Gaussian of its own; the slices of a volume each by the same.

    Args:
        images: any numbers; beyond the frame they go on as its nearest pixel.
        deviations: of the Gaussians, in pixels, above 0. The kernels end at three pixels.
    """
    if len(images) == 0:
        return images
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, device=images.device)
    kernels = torch.exp(-0.5 * (offsets / deviations[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).to(images)
    slices = images.flatten(1, -3)
    # One convolution with a kernel each: the slices of the batch are taken for channels.
    weights = kernels.repeat_interleave(slices.shape[1], dim=0)[:, None]
    blurred = pad(slices, [_RADIUS] * 4, mode="replicate").flatten(0, 1)[None]
    blurred = conv2d(blurred, weights[..., None], groups=len(weights))
    blurred = conv2d(blurred, weights[..., None, :], groups=len(weights))
    return blurred.view_as(images)


def blur(images: Shaped[Tensor, "batch channels *spatial"], keys: Int[Tensor, " batch"]) -> Images:
    """Blurs every other image."""
    whether, amount = uniform(keys, 2).unbind(1)
    chosen = whether < 0.5
    low, high = BLUR_IN_PIXELS
    blurred = as_unit(images).clone()
    blurred[chosen] = gaussian_blur(blurred[chosen], low + (high - low) * amount[chosen])
    return blurred
