"""``parteq cryoem evaluate``: how far estimated poses are from the true ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command, File
from parteq.pipelines.cryoem.symmetry import Symmetry, tell_axes
from parteq.pipelines.files import replacing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from parteq.datasets.cryoem.particles import Particles

__all__ = ["Evaluate", "match_images"]

Table = Annotated[Path, tyro.conf.arg(metavar="X.star")]


@dataclass(kw_only=True)
class Evaluate(Symmetry, Command):
    """Compare poses with the truth, after aligning frame, hand and origin of the map.

    Rows belong together if their images do. parteqConfidence is held against what is right to 15°.
    """

    example: ClassVar[str] = "parteq cryoem evaluate --estimate poses.star --truth truth.star --json errors.json"

    estimate: Table
    """Estimated poses: STAR or .cs file."""
    truth: Table
    """True poses of the same images."""
    out: File = None
    """Draw errors and view directions into this PNG file."""

    def run(self) -> dict[str, Any]:
        """Aligns, and tells the errors of the images that both files have."""
        from parteq.apps.cryoem.pose_metrics import pose_errors

        self.check_symmetry()
        estimate, truth = _with_poses(self.estimate), _with_poses(self.truth)
        rows = match_images(estimate, truth)
        missing, surplus = len(truth) - len(rows), len(estimate) - len(rows)
        if missing or surplus:
            warnings.warn(
                f"{len(rows)} images are in both files; {missing} have no estimate, {surplus} have no truth",
                stacklevel=2,
            )
        of_estimate, of_truth = rows["estimate"].to_numpy(), rows["truth"].to_numpy()
        true_rotations = truth.rotations()[of_truth]
        errors = pose_errors(
            estimate.rotations()[of_estimate],
            true_rotations,
            (estimate.shifts_in_angstroms()[of_estimate], truth.shifts_in_angstroms()[of_truth]),
            symmetry=self.symmetry,
            seed=self.seed,
        )
        if errors.alignment.axes_found:
            tell_axes(str(self.truth), errors.alignment.axis)
        confidence = _confidence(estimate, of_estimate)
        if self.out is not None:
            from parteq.pipelines.cryoem.pictures import pose_error_figure
            from parteq.pipelines.figures import png

            with replacing(self.out) as temporary:
                temporary.write_bytes(png(pose_error_figure(errors, true_rotations, confidence)))
        sure = {}
        if confidence is not None:
            from parteq.apps.cryoem.calibration import calibrate

            sure["confidence_mean"] = float(confidence.mean())
            sure["confidence_calibration_error"] = calibrate(confidence, errors.rotation_in_degrees).error
        return {
            **errors.summary(),
            **sure,
            **{f"rotation_error_median_{hand}_hand_deg": m for hand, m in errors.rotation_median_by_hand.items()},
            "symmetry": self.symmetry,
            "n_missing": missing,
            "n_surplus": surplus,
        }


def _with_poses(path: Path) -> Particles:
    from parteq.datasets.cryoem.particles import open_particles

    particles = open_particles(path)
    if not particles.has_poses:
        raise DataError(path, "has no poses")
    return particles


def _confidence(estimate: Particles, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """That of some rows, if the file has it."""
    import pandas as pd

    if "parteqConfidence" not in estimate.table:
        return None
    values = pd.to_numeric(estimate.table["parteqConfidence"], errors="coerce").to_numpy(float)[rows]
    if not ((values >= 0) & (values <= 1 + 1e-5)).all():
        raise DataError(estimate.source, "has values of parteqConfidence that are not between 0 and 1")
    return values


def match_images(estimate: Particles, truth: Particles) -> pd.DataFrame:
    """Which rows are of the same image.

    Images are the same if number and path are; if no path of the one is a path of the other, for the files may lie in
    different folders, if number and file name are. Of an image that stands in several rows the first belongs to the
    first, and so on.

    Returns:
        The columns ``estimate`` and ``truth``, row numbers, in the order of the truth.

    Raises:
        DataError: a file has no image names, or none in common with the other, or but names of files that stand for
            several.
    """
    for whole_path in (True, False):
        tables = [_image_keys(particles, whole_path) for particles in (estimate, truth)]
        rows = tables[1].merge(tables[0], on=["number", "path", "occurrence"], suffixes=("_truth", "_estimate"))
        if len(rows):
            for particles in () if whole_path else (estimate, truth):
                _check_one_folder(particles)
            return rows.rename(columns={"row_estimate": "estimate", "row_truth": "truth"})[["estimate", "truth"]]
    raise DataError(estimate.source, f"has no image in common with {truth.source}")


def _check_one_folder(particles: Particles) -> None:
    """Refuses files of one name in several folders, of which nothing tells which is which."""
    paths = particles.table["rlnImageName"].astype(str).str.rpartition("@")[2].drop_duplicates()
    names = paths.str.rpartition("/")[2]
    if names.duplicated().any():
        twice = names[names.duplicated()].iloc[0]
        reason = f"has images of {twice} in several folders, none of which the other file names: which are the same?"
        raise DataError(particles.source, reason)


def _image_keys(particles: Particles, whole_path: bool) -> pd.DataFrame:
    """Of each row the number of the image, the path of its file, and which row with this image it is."""
    from parteq.datasets.cryoem.imagenames import image_keys

    if "rlnImageName" not in particles.table:
        raise DataError(particles.source, "has no image names (rlnImageName) to tell which rows belong together")
    parts = image_keys(particles.table["rlnImageName"])
    if not whole_path:
        parts["path"] = parts["path"].str.rpartition("/")[2]
    parts["occurrence"] = parts.groupby(["number", "path"]).cumcount()
    return parts.assign(row=range(len(parts)))
