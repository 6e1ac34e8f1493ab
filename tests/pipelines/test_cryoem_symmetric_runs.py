"""`parteq cryoem train --symmetry`, and what is done with its run, from simulated particles of a trimer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from parteq.apps.cryoem.pointgroups import point_group
from parteq.apps.cryoem.pose_metrics import rotation_angles
from parteq.apps.cryoem.symmetry_axes import axes_in_place
from parteq.datasets.cryoem.mrc import read_volume, write_volume
from parteq.datasets.cryoem.particles import open_particles
from parteq.pipelines.cli import main

SMALL = ["--box", "16", "--width", "0.4", "--batch-size", "32", "--quiet"]


@pytest.fixture(scope="module")
def trimer(tmp_path_factory) -> Path:
    """A folder with 120 clear images of a trimer whose axis is not z, and a run from them that was told so."""
    folder, box = tmp_path_factory.mktemp("trimer"), 16
    axes, centre = Rotation.random(random_state=3).as_matrix(), np.array([1.0, -0.5, 0.5])
    z, y, x = np.indices((box,) * 3) - box // 2
    volume = np.zeros((box,) * 3)
    for element in point_group("C3"):
        for weight, place in ((1.0, (3.5, 0, 2)), (0.7, (2, 2, -3)), (0.5, (0.5, 0, 4))):
            a, b, c = axes @ element @ place + centre
            volume += weight * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 2.5)
    write_volume(folder / "map.mrc", volume.astype(np.float32), 4.0)
    words = ["simulate", "--volume", folder / "map.mrc", "--n", 120, "--snr", 20, "--out", folder / "sim", "--quiet"]
    assert main(["cryoem", *(str(word) for word in words)]) == 0
    words = ["train", "--particles", folder / "sim" / "particles.star", "--out", folder / "run", "--symmetry", "C3"]
    words += ["--epochs", 3, "--json", folder / "found.json", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parteq.apps.cryoem.halves._MOST_SEARCHES", 3)
        assert main(["cryoem", *(str(word) for word in words)]) == 0
    return folder


@pytest.mark.slow
def test_a_symmetric_run_stands_as_its_axes_should(parteq, trimer, tmp_path):
    """Its map, its poses, and what is estimated with it, refined or not."""
    run, truth, found = trimer / "run", trimer / "sim" / "particles.star", tmp_path / "found.json"
    results = json.loads((trimer / "found.json").read_text())
    assert results["symmetry_found"] is True
    assert results["rotation_error_median_deg"] < 10
    assert results["symmetry_axes"] == "found"  # those of the truth stand elsewhere
    assert axes_in_place(read_volume(run / "volume.mrc")[0], "C3").correlation > 0.9
    words = ["--particles", run / "poses.star", "--out", tmp_path / "map.mrc", "--symmetry", "C3"]
    assert parteq("cryoem", "reconstruct", *words)[::2] == (0, "")
    # Refined poses are in the frame of the run's, up to copies, without any alignment.
    words = ["--run", run, "--particles", truth, "--out", tmp_path / "poses.star", "--refine"]
    assert parteq("cryoem", "estimate", *words)[0] == 0
    given, estimated = (open_particles(path) for path in (run / "poses.star", tmp_path / "poses.star"))
    quotients = given.rotations().swapaxes(1, 2) @ estimated.rotations()
    assert np.median(rotation_angles(quotients[:, None].swapaxes(2, 3) @ point_group("C3")).min(1)) < 3
    assert np.median(np.linalg.norm(estimated.shifts_in_angstroms() - given.shifts_in_angstroms(), axis=1)) < 1
    words = ["--estimate", tmp_path / "poses.star", "--truth", truth, "--symmetry", "C3", "--json", found]
    assert parteq("cryoem", "evaluate", *words)[0] == 0
    assert json.loads(found.read_text())["rotation_error_median_deg"] < 5
