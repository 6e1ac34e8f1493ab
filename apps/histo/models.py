"""Image classifiers with a learnable degree of equivariance.

A model maps images in 0…1 to logits: normalisation, a stem that lifts the colour channels to fields, stages with
anti-aliased pooling between them, and an *invariant head*: equivariant layers onto invariant channels, their mean over
the image, and a linear classifier. With ``degree`` "full" the logits are invariant under the group (exactly so for
turns by 90° and mirrors); with "learned" each convolution has a density of its own and may break what the data break;
with "none", or the group "none", it is an ordinary network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from parteq.apps.histo.densenet import densenet
from parteq.apps.histo.head import INVARIANT_CHANNELS
from parteq.apps.histo.mobilenet import mobilenetv2
from parteq.apps.histo.resnet import resnet
from parteq.core.builder import Builder
from parteq.core.fields import FieldType
from parteq.core.groups import plane_group, space_group

__all__ = ["MODELS", "Classifier", "create_model"]

Architecture = Callable[[Builder, FieldType, Sequence[float]], tuple[nn.Module, nn.Sequential, nn.Module]]
"""Makes stem, stages and head for images of a type, with a factor on the channels of each of three stages."""

MODELS: dict[str, Architecture] = {"resnet": resnet, "mobilenetv2": mobilenetv2, "densenet": densenet}
"""The architectures by name."""

STAGES = 3
"""How many stages each of them has."""


class Normalize(nn.Module):
    """Subtract ``mean`` and divide by ``std``, one number a channel, kept in the checkpoint."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((channels,), 0.5))
        self.register_buffer("std", torch.full((channels,), 0.25))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (batch, channels, *grid)."""
        shape = (-1, *[1] * (images.dim() - 2))
        return (images - self.mean.view(shape)) / self.std.view(shape)


class Classifier(nn.Module):
    """Normalisation, stem, stages, head, the mean over the image, and a linear classifier.

    Attributes:
        config: the arguments of :func:`create_model` that rebuild the model, JSON-able.
        num_features: invariant channels, which the classifier reads.

    Args:
        stem: from images to fields.
        stages: from fields to fields; its children are the layers in the order of their depth.
        head: from fields to ``INVARIANT_CHANNELS`` invariant channels.
        config: what :func:`create_model` was called with.
    """

    def __init__(self, stem: nn.Module, stages: nn.Sequential, head: nn.Module, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.num_features = INVARIANT_CHANNELS
        self.normalize = Normalize(config["in_chans"])
        self.stem, self.stages, self.head = stem, stages, head
        self.classifier = _classifier(self.num_features, config["num_classes"])

    def set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and standard deviation of each channel, of images in 0…1."""
        self.normalize.mean.copy_(torch.as_tensor(mean))
        self.normalize.std.copy_(torch.as_tensor(std))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one for so many classes; 0 for none."""
        self.classifier = _classifier(self.num_features, num_classes).to(self.normalize.mean)
        self.config = self.config | {"num_classes": num_classes}

    def forward_features(self, images: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, "batch features *map"]:
        """Map images in 0…1 to the invariant channels before their mean, a map that turns with the image."""
        features: Tensor = self.head(self.stages(self.stem(self.normalize(images))))
        return features

    def forward_maps(self, images: Float[Tensor, "batch channels *grid"]) -> list[Float[Tensor, "batch features *map"]]:
        """Map images in 0…1 to maps from fine to coarse: the last fields of each resolution, then invariant channels.

        At the coarsest resolution the invariant channels stand for the fields. All turn with the image; the channels of
        fields are then permuted or mixed as well, invariant ones are not.
        """
        features = self.stem(self.normalize(images))
        maps = []
        for layer in self.stages:
            before, features = features, layer(features)
            if features.shape[2:] != before.shape[2:]:
                maps.append(before)
        return [*maps, self.head(features)]

    def forward(
        self, images: Float[Tensor, "batch channels *grid"]
    ) -> Float[Tensor, "batch classes"] | list[Float[Tensor, "batch features *map"]]:
        """Map images in 0…1 to logits; with ``features_only`` to the list of :meth:`forward_maps`.

        Without classes (``num_classes=0``) the mean of the invariant channels takes the place of logits.
        """
        if self.config["features_only"]:
            return self.forward_maps(images)
        logits: Tensor = self.classifier(self.forward_features(images).flatten(2).mean(2))
        return logits


def _classifier(features: int, classes: int) -> nn.Module:
    """Return a linear classifier, or nothing where there are no classes."""
    return nn.Linear(features, classes) if classes else nn.Identity()


def create_model(
    name: str = "resnet",
    *,
    num_classes: int,
    in_chans: int = 3,
    group: str = "d4",
    degree: str = "learned",
    width: float | Sequence[float] = 1.0,
    spatial_dims: int = 2,
    features_only: bool = False,
) -> Classifier:
    """Return a classifier by name.

    Args:
        name: one of ``MODELS``.
        num_classes: logits; 0 for the mean of the invariant channels, which a classifier would read.
        in_chans: colour channels.
        group: the group, see :func:`~parteq.core.groups.plane_group` (for volumes ``space_group``).
        degree: ``learned``, ``full`` or ``none``.
        width: factor on the number of channels, or one for each of the three stages; at equal width every group has
            about the same number of weights when the degree is full; a plain DenseNet has half as many again.
        spatial_dims: 2 for images, 3 for volumes.
        features_only: return feature maps from fine to coarse instead of logits, as timm does.

    Raises:
        ValueError: an unknown name, group or degree, another number of widths, or images of neither 2 nor 3 dimensions.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"images have 2 or 3 dimensions, not {spatial_dims}")
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: use {', '.join(MODELS)}")
    widths = list(width) if isinstance(width, Sequence) else [width] * STAGES
    if len(widths) != STAGES:
        raise ValueError(f"{len(widths)} widths for {STAGES} stages")
    config = {
        "name": name,
        "num_classes": num_classes,
        "in_chans": in_chans,
        "group": group,
        "degree": degree,
        "width": widths if isinstance(width, Sequence) else width,
        "spatial_dims": spatial_dims,
        "features_only": features_only,
    }
    builder = Builder((plane_group if spatial_dims == 2 else space_group)(group), degree)
    return Classifier(*MODELS[name](builder, builder.invariants(in_chans), widths), config)
