"""Where in an image a classifier sees a class: Grad-CAM (Selvaraju et al., arXiv 1610.02391).

With A the last map of features, K channels on a grid, and y the logit of the class,

    CAM = ReLU(Σ_k α_k A_k),   α_k = Σ ∂y / ∂A_k over the grid,

in the unit of logits (the paper divides α by the size of the grid).

The channels are invariant under the group of the model, so A turns with the image, α stays as it is, and the CAM of a
turned image is the turned CAM: exactly for quarter turns and mirrors where the degree is full.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from parteq.apps.histo.models import Classifier

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why an image may be of a class.

    Attributes:
        number: of the class.
        probabilities: of all classes, at the temperature.
        cam: evidence for the class in logits, laid over the image; where it is not negative, its mean is what the
            features add to the logit.
    """

    number: int
    probabilities: Float[Tensor, " classes"]
    cam: Float[Tensor, "height width"]


def explain(
    model: Classifier,
    image: Float[Tensor, "channels height width"],
    number: int | None = None,
    *,
    temperature: float = 1.0,
) -> Explanation:
    """Explains the class of an image.

    Args:
        model: of images, in evaluation mode.
        image: in 0…1, of any size of which the model leaves at least 2 × 2 features.
        number: of the class; None for the likeliest.
        temperature: that logits are divided by for probabilities; the evidence is that for logits as they are.

    Raises:
        ValueError: the image is too small.
    """
    with torch.no_grad():
        features = model.forward_features(image[None])
    if min(features.shape[2:]) < 2:
        raise ValueError(f"leaves {' × '.join(map(str, features.shape[:1:-1]))} features: too small for a map")
    with torch.enable_grad():
        features.requires_grad_()
        logits = model.classifier(features.mean((2, 3)))[0]
        chosen = int(logits.argmax()) if number is None else number
        (slopes,) = torch.autograd.grad(logits[chosen], features)
    cam = (slopes.sum((2, 3), keepdim=True) * features.detach()).sum(1, keepdim=True).relu()
    large = interpolate(cam, image.shape[1:], mode="bilinear", align_corners=False)[0, 0]
    return Explanation(chosen, (logits.detach() / temperature).softmax(0).cpu(), large.cpu())
