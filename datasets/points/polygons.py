"""Faces of meshes, polygons of any number of corners, and how they are cut into triangles.

A face is cut as a fan where a fan covers it; else, as the proof goes that every polygon can be cut (de Berg et al.,
Computational Geometry, theorem 3.1): the leftmost corner is an ear, or the corner within that lies farthest from the
third side is seen from it, and the face is parted there. Faces need not be flat; they are cut as they look along their
mean normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Polygons"]

# By how much of the area of a face its triangles may cover more: rounding leaves as much.
_TOLERANCE = 1e-6
# As near to a side, in units of the height of a triangle, is on it.
_TOUCH = 1e-9
# To cut an ear takes a look at every corner, and as long as for a thousand however few there are. This is a minute.
_CALL, _MAX_WORK = 1000, 2_000_000_000


@dataclass(frozen=True)
class Polygons:
    """Faces one behind the other.

    Attributes:
        corners: int64 [sum n], the vertices that they have for corners.
        sizes: int64 [F], corners of each; those of fewer than three are no face.
    """

    corners: NDArray[np.int64]
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, corners: ArrayLike, sizes: ArrayLike) -> Polygons:
        """Faces of corners in numbers of any type.

        Raises:
            ValueError: a corner is not a whole number.
        """
        numbers = np.asarray(corners, np.float64)
        wrong = numbers[~((np.rint(numbers) == numbers) & (np.abs(numbers) < 2**53))]
        if len(wrong):
            raise ValueError(f"has a face of vertex {wrong[0]:g}")
        return cls(numbers.astype(np.int64), np.asarray(sizes, np.int64))

    def check(self, count: int) -> None:
        """Raises ValueError if a corner is none of the vertices 0 … count − 1."""
        wrong = self.corners[(self.corners < 0) | (self.corners >= count)]
        if len(wrong):
            raise ValueError(f"has a face of vertex {wrong[0]}, but {count} vertices")

    def triangles(self, vertices: NDArray[np.float64]) -> NDArray[np.int64]:
        """Triangles [T, 3] that cover the faces: n − 2 for each of n corners, in their order.

        A face that cuts itself is fanned from its first corner.

        Args:
            vertices: [V, 3], finite; the corners are among them.

        Raises:
            ValueError: so many corners in concave faces that to cut them would take more than a minute.
        """
        counts = np.maximum(self.sizes - 2, 0)
        begins, places = np.cumsum(self.sizes) - self.sizes, np.cumsum(counts) - counts
        found, work = np.empty((counts.sum(), 3), np.int64), 0
        for size in np.unique(self.sizes[self.sizes >= 3]).tolist():
            alike = np.flatnonzero(self.sizes == size)
            faces = self.corners[begins[alike, None] + np.arange(size)]
            cut = _fans(faces)
            if size > 3:
                concave = np.flatnonzero(~_cover(vertices, cut))
                # Of a concave face of four corners, the other diagonal lies within, or it cuts itself.
                turned = _fans(np.roll(faces[concave], -1, axis=1))
                covered = _cover(vertices, turned)
                cut[concave[covered]] = turned[covered]
                concave = concave[~covered & (size > 4)]
                work += len(concave) * size * (size + _CALL)
                if work > _MAX_WORK:
                    raise ValueError(f"has too many corners in concave faces, here {size}: export triangles")
                for face in concave:
                    clipped = faces[face][_clip(vertices[faces[face]])]
                    if _cover(vertices, clipped[None])[0]:
                        cut[face] = clipped
            found[places[alike, None] + np.arange(size - 2)] = cut
        return found


def _fans(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Triangles [F, n − 2, 3] between the first corner of each face [F, n] and its other edges."""
    first = np.broadcast_to(faces[:, :1], faces[:, 2:].shape)
    return np.stack([first, faces[:, 1:-1], faces[:, 2:]], axis=2)


def _cover(vertices: NDArray[np.float64], triangles: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the triangles [F, T, 3] that faces were cut into have no more area than these [F]: then they lie within.

    The areas of the triangles, as vectors, add up to that of the face, however it was cut.
    """
    corner = vertices[triangles[..., 0]]
    areas = np.cross(vertices[triangles[..., 1]] - corner, vertices[triangles[..., 2]] - corner)
    whole = areas.sum(1)
    seen = np.abs(np.einsum("fta, fa -> ft", areas, whole)).sum(1)
    covered: NDArray[np.bool_] = seen <= (1 + _TOLERANCE) * (whole**2).sum(1)
    return covered


def _clip(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Triangles [n − 2, 3], by position, of one polygon [n, 3]; of one that cuts itself, any n − 2."""
    normal = np.cross(points[1:-1] - points[0], points[2:] - points[0]).sum(0)
    # In a plane of two coordinates, where it runs to the left.
    axis = int(np.abs(normal).argmax())
    plane = points[:, [(axis + 1) % 3, (axis + 2) % 3]]
    plane = plane if normal[axis] > 0 else plane[:, ::-1]
    found, rings = [], [np.arange(len(points))]
    while rings:
        ring = rings.pop()
        ring = np.roll(ring, -plane[ring, 0].argmin())
        x, y = (plane[ring] - plane[ring[0]]).T
        # Twice the areas that corners span with the two edges of the leftmost, which with its neighbours spans that of
        # the ear. Also a corner on the third side of the ear is within: else that side would pass through it.
        left, right = x[1] * y - y[1] * x, x * y[-1] - y * x[-1]
        height = left + right
        within = np.flatnonzero((left > 0) & (right > 0) & (height <= (1 + _TOUCH) * left[-1]))
        if len(within):
            opposite = _seen(x, y, within[height[within] == height[within].min()])
            rings += [ring[: opposite + 1], np.append(ring[opposite:], ring[0])]
        else:
            found.append(ring[[-1, 0, 1]])
            if len(ring) > 3:
                rings.append(ring[1:])
    return np.array(found)


def _seen(x: NDArray[np.float64], y: NDArray[np.float64], corners: NDArray[np.intp]) -> int:
    """Which of some corners, as a rule one or all in one place, has the first of the polygon, the origin, in its angle.

    A face with a hole comes as one polygon that runs into the hole and back, and passes some corners twice.
    """
    for corner in corners.tolist():
        # As seen from the corner: the origin, and the corners behind and before it.
        origin, behind, before = (complex(x[k] - x[corner], y[k] - y[corner]) for k in (0, corner + 1, corner - 1))
        # By how far to turn to the left from the edge that leaves the corner.
        turn, angle = (np.angle(other * behind.conjugate()) % (2 * np.pi) for other in (origin, before))
        if 0 < turn < angle:
            return int(corner)
    return int(corners[0])
