"""scikit-learn's handwritten digits: 1,797 real images of 8×8 pixels that come with it and need no download.

Optical recognition of handwritten digits (Alpaydın and Kaynak, 1998), UCI machine learning repository, CC-BY-4.0.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate, pad

from parteq.datasets.base import ArrayDataset

__all__ = ["sklearn_digits"]


def sklearn_digits(size: int = 8, margin: int = 0) -> ArrayDataset:
    """The digits 0…9 as grey images.

    Args:
        size: pixels on a side; other than the native 8, interpolated bilinearly.
        margin: empty pixels added on each side, so that nothing is cut off when a digit is turned.

    Returns:
        1,797 images uint8 [1, size + 2 margin, size + 2 margin], classes "0" … "9".
    """
    digits = load_digits()
    # 17 levels, 0…16.
    images = torch.from_numpy(digits.images / 16)[:, None]
    if size != 8:
        images = interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    pixels = pad(torch.round(images * 255), [margin] * 4).to(torch.uint8)
    names = [str(name) for name in digits.target_names]
    return ArrayDataset(pixels.numpy(), digits.target.astype(np.int64), source="scikit-learn digits", classes=names)
