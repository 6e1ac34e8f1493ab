"""Amortised inference of poses: an encoder and a decoder that learn from each other, or from poses that are known.

The encoder proposes poses for an image, the decoder says what a particle would look like there, and the loss is how far
that is from the image, the mean over frequencies f of

    | c(f) Φ̂(Rᵀ(f, 0)) e^(−2πi f·t) − X(f) |².

Losses:

- ``l2``: of the one pose proposed;
- ``symmetric``: of the better of two, proposed for the image and for the image turned by half a turn, which are easily
  taken for one another (Levy et al., arXiv 2203.08138);
- ``multihead``: of the best of several poses proposed (winner takes all; Shekarforoush et al., arXiv 2406.10455).

With poses that are known (``supervised``) the loss is the distance from them, of the best head in the case of
``multihead``; the decoder collects the map as it goes, to choose between heads.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from parteq.apps.cryoem.decoder import DECODERS
from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.encoder import PoseEncoder
from parteq.apps.cryoem.frames import rotations_of_frames
from parteq.datasets.cryoem.projection import phase_ramp

__all__ = ["HEADS", "LOSSES", "PoseInference", "create_model"]

LOSSES = ("l2", "symmetric", "multihead")
HEADS = 8
"""Poses proposed for an image by ``multihead``."""
_SMOOTH = 1e-4  # of (|R̂ − R| / 2)²: errors below a degree count as if squared


class PoseInference(nn.Module):
    """An encoder with a decoder; calling it on a batch gives the loss, and adds the batch to the decoder's map.

    Args:
        encoder: see `PoseEncoder`.
        degree: see `PoseEncoder`.
        loss: ``l2``, ``symmetric`` or ``multihead``.
        supervised: whether poses are known in training.
        decoder: ``voxel`` or ``implicit``.
        box: of the disc that images are reduced to, even.
        size: of the images.
        particles: how many there are to train on.
        width: factor on the channels of the encoder.
        pixel_size: of the disc's box, in Å: kept for those who use the model.
        scale: what samples are divided by before anything else.

    Raises:
        ValueError: for a name that is none of these.
    """

    def __init__(
        self,
        *,
        encoder: str,
        degree: str,
        loss: str,
        supervised: bool,
        decoder: str,
        box: int,
        size: int,
        particles: int,
        width: float,
        pixel_size: float,
        scale: float,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}: use {', '.join(LOSSES)}")
        if decoder not in DECODERS:
            raise ValueError(f"unknown decoder {decoder!r}: use {', '.join(DECODERS)}")
        self.config: dict[str, Any] = {
            "encoder": encoder,
            "degree": degree,
            "loss": loss,
            "supervised": supervised,
            "decoder": decoder,
            "box": box,
            "size": size,
            "particles": particles,
            "width": width,
            "pixel_size": pixel_size,
            "scale": scale,
        }
        self.loss, self.supervised = loss, supervised
        self.disc = Disc(box, size)
        self.encoder = PoseEncoder(encoder, degree, box, HEADS if loss == "multihead" else 1, width)
        self.decoder = DECODERS[decoder](box, particles)

    def propose(
        self, samples: Complex[Tensor, "n f"], transfer: Float[Tensor, "n f"]
    ) -> tuple[Float[Tensor, "n heads 3 3"], Float[Tensor, "n 2"]]:
        """Poses proposed for images, and where their centres stand, (x, y) in pixels of the disc.

        The encoder sees the image times its contrast transfer function, which sets the phases right; both turn alike.
        """
        columns, shifts = self.encoder(self.disc.images(samples * transfer))
        return rotations_of_frames(columns), shifts

    def predict(
        self, transform: Tensor, transfer: Float[Tensor, "n f"], rotations: Float[Tensor, "n 3 3"],
        shifts: Float[Tensor, "n 2"],
    ) -> Complex[Tensor, "n f"]:  # fmt: skip
        """The transforms of the images that a volume would give at these poses."""
        slices = self.decoder.slices(transform, rotations, self.disc.frequencies)
        return transfer * slices * phase_ramp(shifts, self.disc.frequencies)

    def misfits(
        self,
        transform: Tensor,
        unshifted: Complex[Tensor, "n _ f"],
        transfer: Float[Tensor, "n f"],
        rotations: Float[Tensor, "n heads 3 3"],
    ) -> Float[Tensor, "n heads"]:
        """The mean squared residual of each pose proposed, against the images with their shifts undone."""
        slices = self.decoder.slices(transform, rotations.flatten(0, 1), self.disc.frequencies)
        residual = transfer[:, None] * slices.unflatten(0, rotations.shape[:2]) - unshifted
        return torch.view_as_real(residual).square().sum(-1).mean(-1)

    def forward(
        self,
        samples: Complex[Tensor, "n f"],
        transfer: Float[Tensor, "n f"],
        known_rotations: Float[Tensor, "n 3 3"],
        known_shifts: Float[Tensor, "n 2"],
    ) -> Float[Tensor, ""]:
        """The mean loss of a batch.

        Args:
            samples: transforms on the disc, scaled.
            transfer: the contrast transfer function there.
            known_rotations: R of each, read where poses are supervised only.
            known_shifts: (x, y) in pixels of the disc, likewise.
        """
        if self.supervised:
            loss = self._distance(*self.propose(samples, transfer), known_rotations, known_shifts)
            rotations, shifts = known_rotations, known_shifts
        else:
            loss, rotations, shifts = self._misfit(samples, transfer)
        if self.training:
            unshifted = samples * phase_ramp(-shifts, self.disc.frequencies)
            self.decoder.add(unshifted, transfer, rotations, self.disc.frequencies)
        return loss

    def _misfit(
        self, samples: Complex[Tensor, "n f"], transfer: Float[Tensor, "n f"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "n 3 3"], Float[Tensor, "n 2"]]:
        """How far images are from those predicted, and the poses, of those proposed, at which they are nearest."""
        transform = self.decoder.transform()
        rotations, shifts = self.propose(samples, transfer)
        moves = shifts[:, None]
        if self.loss == "symmetric":
            # Turned by half a turn, a transform is its conjugate.
            turned, turned_shifts = self.propose(samples.conj(), transfer)
            half = turned.new_tensor([-1.0, -1.0, 1.0])[:, None]
            rotations = torch.cat([rotations, half * turned], 1)
            moves = torch.stack([shifts, -turned_shifts], 1)
        with torch.no_grad():
            undone = phase_ramp(-moves.flatten(0, 1), self.disc.frequencies).unflatten(0, moves.shape[:2])
            winner = self.misfits(transform, samples[:, None] * undone, transfer, rotations).argmin(1)
        chosen, moved = _pick(rotations, winner), _pick(moves.expand(-1, rotations.shape[1], -1), winner)
        residual = self.predict(transform, transfer, chosen, moved) - samples
        loss = torch.view_as_real(residual).square().sum(-1).mean()
        return loss, chosen.detach(), moved.detach()

    def _distance(
        self,
        rotations: Float[Tensor, "n heads 3 3"],
        shifts: Float[Tensor, "n 2"],
        known_rotations: Float[Tensor, "n 3 3"],
        known_shifts: Float[Tensor, "n 2"],
    ) -> Float[Tensor, ""]:
        """|R̂ − R| / 2 of the head nearest to R, and the squared distance of shifts over the box.

        Not squared, |R̂ − R| pulls at small errors as it does at large ones: images whose pose cannot be told do not
        outweigh the others.
        """
        apart = (rotations - known_rotations[:, None]).square().sum((-2, -1)) / 4
        moved = (shifts - known_shifts).square().sum(-1) / self.disc.box
        return (apart.amin(1) + _SMOOTH).sqrt().mean() + moved.mean()


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """Of each row the entry of an index."""
    return values[torch.arange(len(values), device=values.device), index]


def create_model(**config: Any) -> PoseInference:
    """A model as `PoseInference.config` describes it."""
    return PoseInference(**config)
