"""What RELION leaves open or says twice: which table is believed, and what may be missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parteq.datasets.cryoem.imaging import passed_over_of_ctf
from parteq.datasets.cryoem.particles import Particles, open_particles
from parteq.datasets.errors import DataError

OPTICS = """
data_optics
_rlnOpticsGroup 1
_rlnVoltage 300
_rlnSphericalAberration 2.7
_rlnAmplitudeContrast 0.1
_rlnCtfBfactor 0
_rlnImagePixelSize 2
_rlnImageSize 8
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "particles.star"
    path.write_text(text)
    return path


def opened(folder: Path, text: str) -> Particles:
    return open_particles(written(folder, text))


def test_of_a_ctf_the_row_is_believed_before_the_optics_group(tmp_path: Path) -> None:
    """As RELION does; of the sizes of images and pixels the group is."""
    twice = "_rlnVoltage\n_rlnAmplitudeContrast\n_rlnCtfBfactor\n_rlnImagePixelSize\n_rlnImageSize\n_rlnDefocusU\n"
    rows = f"data_particles\nloop_\n_rlnOpticsGroup\n{twice}1 200 0.07 50 3 9 10000\n1 100 0.1 50 3 9 12000\n"
    particles = opened(tmp_path, OPTICS + rows)
    ctf = particles.ctf()
    assert ctf is not None
    assert ctf.voltage_in_kilovolts.tolist() == [200, 100]
    assert ctf.amplitude_contrast.tolist() == [0.07, 0.1]
    assert ctf.spherical_aberration_in_millimetres.tolist() == [2.7, 2.7]
    assert "rlnCtfBfactor" in passed_over_of_ctf(particles)
    assert particles.pixel_size_in_angstroms().tolist() == [2, 2]
    assert particles.box_in_pixels() == 8


@pytest.mark.parametrize(
    ("path", "reason"), [("/nowhere/p.mrcs", "leads out of"), ("../../p.mrcs", "leads out of"), ("p.mrcs", "no MRC")]
)
def test_of_relion_30_a_box_that_cannot_be_read_is_not_known(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "p.mrcs").write_bytes(b"damaged")
    particles = opened(tmp_path, f"data_\nloop_\n_rlnImageName\n_rlnAngleRot\n1@{path} 10\n2@{path} 20\n")
    assert particles.box_in_pixels() is None
    with pytest.raises(DataError, match=reason):
        particles.images()


@pytest.mark.parametrize("name", ["particles", ""])
def test_a_table_of_one_row_may_be_written_as_single_values(tmp_path: Path, name: str) -> None:
    row = f"data_{name}\n_rlnImageName 1@p.mrcs\n_rlnAngleRot 10\n_rlnAngleTilt 20\n_rlnAnglePsi 30\n"
    particles = opened(tmp_path, f"{OPTICS}{row}_rlnOriginXAngst 3\n_rlnOriginYAngst -4\n")
    assert len(particles) == 1
    assert particles.shifts_in_angstroms().tolist() == [[-3, 4]]
    assert particles.table["rlnAnglePsi"].dtype == np.int64
    with pytest.raises(DataError, match="no table of particles"):
        opened(tmp_path, f"{OPTICS}data_particles\n_rlnNote none\n")


def test_origins_in_pixels_of_no_known_size(tmp_path: Path) -> None:
    """Are in the pixels that a caller names, unless the file says a size."""
    rows = "loop_\n_rlnAngleRot\n_rlnOriginX\n_rlnOriginY\n10 6 -4\n"
    particles = opened(tmp_path, f"data_\n{rows}")
    assert particles.shifts_in_angstroms(1.5).tolist() == [[-9, 6]]
    assert particles.shifts_in_angstroms().tolist() == [[-6, 4]]
    assert opened(tmp_path, f"{OPTICS}data_particles\n{rows}").shifts_in_angstroms(1.5).tolist() == [[-12, 8]]
