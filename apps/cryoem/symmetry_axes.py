"""Where the symmetry axes of a map stand: a frame in which they stand as `parteq.apps.cryoem.pointgroups` has them.

A map from images alone has its axes anywhere, and not through the middle of its box. Sought are a rotation G and a
centre t for which x ↦ φ(G x + t) has the point group in its standard setting, that is, φ(t + M y) = φ(t + y) for all
M = G S Gᵀ. The amplitudes of the transform of φ do not know t and have the symmetry M too. So first comes, over the
half sphere, the axis of a rotation of the highest order about which the amplitudes are alike; then the turn about this
axis, for all elements; then t, from the shifts (1 − Mᵀ) t of φ(M x) against φ(x), found by correlation; and at last
both together, to the highest correlation of the map with its copies. All on a map reduced to few voxels.

How symmetric the map is then is told by what differs between directions: without its mean over the shells about t,
which all turns leave alone. Noise leaves all copies equally alike; of a particle that has but a part of the group some
are alike and others are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation
from torch import Tensor

from parteq.apps.cryoem.frame_search import first_rotation, likely_frames
from parteq.apps.cryoem.placement import Placement
from parteq.apps.cryoem.pointgroups import point_group

__all__ = ["NO_SYMMETRY", "SymmetryFrame", "axes_in_place", "axes_of_map", "find_axes"]

Volume = Float[np.ndarray, "box box box"]
Points = Float[np.ndarray, "points 3"]

_BOX, _ELEMENTS = 32, 6
_SHELLS = (3, 20)  # of the amplitudes, on a grid twice as fine as the box
# The least correlation, and that as a share of the highest, below which there is no such symmetry. At 32 voxels a
# fivefold particle had .61 to .95, by the noise of its map, and a share of .99; for groups that it does not have the
# least was .26 to .60, and the share .4 to .6 where it has a part of the group.
_LEAST, _LEAST_SHARE = 0.5, 0.8
# The share of the correlation about the best axes that those in place must have. Of a fivefold particle whose axis was
# 3° off it was .95, 6° off .80, 10° off .52.
_IN_PLACE = 0.9


@dataclass(frozen=True)
class SymmetryFrame:
    """x ↦ φ(G x + t) has its symmetry axes in the standard setting.

    Attributes:
        matrix: G.
        offset_in_voxels: t, (x, y, z) from the voxel D // 2.
        correlation: of the map with the symmetry copy least like it in this frame, without the means of its shells.
        highest_correlation: with the copy most like it.
        symmetry: the point group.
    """

    matrix: Float[np.ndarray, "3 3"]
    offset_in_voxels: Float[np.ndarray, "3"]
    correlation: float
    highest_correlation: float
    symmetry: str

    @property
    def turns(self) -> Float[Tensor, "order 3 3"]:
        """M = G S Gᵀ, the identity first: about t the map is the same after them."""
        return torch.from_numpy(self.matrix @ point_group(self.symmetry) @ self.matrix.T).float()

    @property
    def moves(self) -> Float[Tensor, "order 3"]:
        """(1 − M) t in voxels: at the pose R M, its centre P R (1 − M) t further, the map gives the image of pose R."""
        centre = torch.from_numpy(self.offset_in_voxels).float()
        return centre - self.turns @ centre

    @property
    def stands_in_place(self) -> bool:
        """Whether G is 1 and t is 0."""
        return np.array_equal(self.matrix, np.eye(3)) and not self.offset_in_voxels.any()

    @property
    def found(self) -> bool:
        """Whether the map has the symmetry, to all appearances."""
        return self.correlation >= max(_LEAST, _LEAST_SHARE * self.highest_correlation)

    def placement(self, voxel_size: float = 1.0) -> Placement:
        """Where φ stands, as seen from x ↦ φ(G x + t); shifts in voxels, or the unit of the voxel size."""
        return Placement(self.matrix.T, -voxel_size * self.matrix.T @ self.offset_in_voxels)

    def in_place(self) -> SymmetryFrame:
        """That of x ↦ φ(G x + t)."""
        return replace(self, matrix=np.eye(3), offset_in_voxels=np.zeros(3))

    def sentence(self) -> str:
        """In words."""
        least, highest = self.correlation, self.highest_correlation
        span = f"{least:.2f}" + (f" to {highest:.2f}" if highest - least > 0.005 else "")
        doubt = "" if self.found else f": it may not have the symmetry {self.symmetry}"
        return f"The map correlates with its symmetry copies by {span}{doubt}."


NO_SYMMETRY = SymmetryFrame(np.eye(3), np.zeros(3), 1.0, 1.0, "C1")
"""Of a particle that no turn takes onto itself."""


def find_axes(volume: Volume, symmetry: str) -> SymmetryFrame:
    """Finds the frame of the axes of a point group in a map [z, y, x], the best there is if the map does not have it.

    Raises:
        ValueError: there is no such group.
    """
    group = point_group(symmetry)
    if len(group) == 1:
        return NO_SYMMETRY
    small = _reduced(volume)
    # The rotations of the highest order tell the axis; a few others settle the turn.
    some = np.concatenate([first_rotation(group)[None], np.random.default_rng(0).permutation(group[1:])[:_ELEMENTS]])
    amplitudes, points = _amplitudes(small)
    original = _read(amplitudes, points)

    def alike(matrix: Float[np.ndarray, "3 3"], elements: Float[np.ndarray, "n 3 3"]) -> float:
        copies = [_read(amplitudes, points @ (matrix @ element @ matrix.T).T) for element in elements]
        return float(np.mean([_correlation(original, copy) for copy in copies]))

    ranked = likely_frames(group, some, lambda frames, some: np.array([alike(frame, some) for frame in frames]))
    matrix, centre, _ = max((_settled(small, frame, some) for frame in ranked), key=lambda found: found[2])
    return _measured(volume, matrix, centre * len(volume) / len(small), symmetry)


def axes_in_place(volume: Volume, symmetry: str) -> SymmetryFrame:
    """The frame of a map [z, y, x] whose axes stand as they should.

    Raises:
        ValueError: there is no such group.
    """
    return _measured(volume, np.eye(3), np.zeros(3), symmetry)


def axes_of_map(volume: Volume, symmetry: str, *, anywhere: bool = False) -> SymmetryFrame:
    """The frame of a map [z, y, x] whose axes should stand in place: that, or where they clearly stand instead.

    Args:
        volume: the map.
        symmetry: the point group.
        anywhere: whether to go by the best axes also where those in place are nearly as good.

    Raises:
        ValueError: there is no such group.
    """
    in_place = axes_in_place(volume, symmetry)
    if in_place.correlation >= _IN_PLACE and not anywhere:
        return in_place
    best = find_axes(volume, symmetry)
    nearly_as_good = in_place.found and in_place.correlation >= _IN_PLACE * best.correlation
    return best if best.found and (anywhere or not nearly_as_good) else in_place


def _measured(
    volume: Volume, matrix: Float[np.ndarray, "3 3"], offset: Float[np.ndarray, "3"], symmetry: str
) -> SymmetryFrame:
    """The frame, with how symmetric the map is in it."""
    small, elements = _reduced(volume), point_group(symmetry)[1:]
    box = len(small)
    places, centre = _places(box), offset * box / len(volume)
    radius = np.linalg.norm(places - centre, axis=1)
    shell = np.rint(radius).astype(np.int64)
    mean = np.bincount(shell, small.ravel()) / np.maximum(np.bincount(shell), 1)
    differing = (small.ravel() - np.interp(radius, np.arange(len(mean)), mean)).reshape(small.shape)
    points = places[np.linalg.norm(places, axis=1) < box / 2]
    here = _read(differing, points)
    copies = ((points - centre) @ (matrix @ element @ matrix.T).T + centre for element in elements)
    found = [_correlation(here, _read(differing, copy)) for copy in copies] or [1.0]
    return SymmetryFrame(matrix, offset, min(found), max(found), symmetry)


def _reduced(volume: Volume) -> Volume:
    """The map with its low frequencies only, of at most so many voxels, its level at the border of the ball taken away.

    Beyond that ball it is none, so a step at the border would turn with no symmetry.
    """
    box, size = len(volume), min(len(volume), _BOX)
    transform = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(volume.astype(np.float64))))
    start = box // 2 - size // 2
    cut = transform[(slice(start, start + size),) * 3]
    small = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(cut)).real)
    radius = np.linalg.norm(_places(size), axis=1).reshape(small.shape) / (size / 2)
    return np.where(radius < 1, small - small[(radius > 0.9) & (radius < 1)].mean(), 0.0)


def _places(box: int) -> Points:
    """(x, y, z) of each voxel [z, y, x], from the middle."""
    z, y, x = np.indices((box,) * 3).reshape(3, -1) - box // 2
    return np.stack([x, y, z], axis=1).astype(np.float64)


def _read(volume: Volume, points: Points) -> Float[np.ndarray, " points"]:
    """The values at (x, y, z) from the middle, linearly between voxels."""
    values: Float[np.ndarray, " points"] = ndimage.map_coordinates(
        volume, (points[:, ::-1] + len(volume) // 2).T, order=1
    )
    return values


def _correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / max(np.sqrt((first @ first) * (second @ second)), 1e-30))


def _amplitudes(volume: Volume) -> tuple[Volume, Points]:
    """The amplitudes on a grid twice as fine, alike in mean and width on all shells, and the points of half of it."""
    box = 2 * len(volume)
    padded = np.abs(np.fft.fftshift(np.fft.fftn(volume, s=(box,) * 3)))
    places = _places(box)
    radius = np.linalg.norm(places, axis=1)
    shell = np.rint(radius).astype(np.int64)
    count = np.bincount(shell)
    mean = np.bincount(shell, padded.ravel()) / count
    width = np.sqrt(np.bincount(shell, (padded.ravel() - mean[shell]) ** 2) / count)
    levelled = (padded.ravel() - mean[shell]) / np.maximum(width, 1e-30)[shell]
    chosen = (radius >= _SHELLS[0]) & (radius <= _SHELLS[1]) & (places[:, 0] >= 0)
    # Every third point is enough to tell directions apart.
    return levelled.reshape(padded.shape), places[chosen][::3]


def _settled(
    volume: Volume, matrix: Float[np.ndarray, "3 3"], elements: Float[np.ndarray, "n 3 3"]
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"], float]:
    """The frame with its centre, moved to the highest correlation of the map with its copies, and that."""
    box = len(volume)
    places = _places(box)
    points = places[np.linalg.norm(places, axis=1) < box / 2][::2]
    here = _read(volume, points)
    left, right = [], []
    for element in elements:
        moved = matrix @ element @ matrix.T
        copy = _read(volume, places @ moved.T).reshape(volume.shape)
        # φ(M x) = φ(x + d): the peak of their correlation stands at −d.
        peaks = np.fft.ifftn(np.fft.fftn(copy) * np.fft.fftn(volume).conj()).real
        place = np.array(np.unravel_index(peaks.argmax(), peaks.shape))[::-1]
        left.append(np.eye(3) - moved.T)
        right.append(-((place + box // 2) % box - box // 2))
    centre = np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=1e-3)[0]

    def correlation(values: Float[np.ndarray, "6"]) -> float:
        frame, about = Rotation.from_rotvec(values[:3] / box).as_matrix() @ matrix, centre + values[3:]
        # At the same points whatever the centre, lest it moves to where the map is empty.
        turned = [(points - about) @ (frame @ element @ frame.T).T + about for element in elements]
        return float(np.mean([_correlation(here, _read(volume, places)) for places in turned]))

    simplex = np.concatenate([np.zeros((1, 6)), np.diag([2.0, 2.0, 2.0, 1.0, 1.0, 1.0])])
    options = {"initial_simplex": simplex, "xatol": 0.02, "fatol": 1e-5, "maxfev": 250}
    best = optimize.minimize(lambda values: -correlation(values), np.zeros(6), method="Nelder-Mead", options=options).x
    return Rotation.from_rotvec(best[:3] / box).as_matrix() @ matrix, centre + best[3:], correlation(best)
