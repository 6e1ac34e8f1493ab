"""cryoSPARC's files: conventions, every column kept, and nothing of Python loaded."""

from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib.recfunctions import repack_fields
from scipy.spatial.transform import Rotation

from parteq.datasets.cryoem.particles import open_particles
from parteq.datasets.errors import DataError

FIELDS = [
    ("uid", "<u8"),
    ("blob/path", "S24"),
    ("blob/idx", "<u4"),
    ("blob/shape", "<u4", (2,)),
    ("blob/psize_A", "<f4"),
    ("ctf/df1_A", "<f4"),
    ("ctf/df2_A", "<f4"),
    ("ctf/df_angle_rad", "<f4"),
    ("ctf/accel_kv", "<f4"),
    ("ctf/cs_mm", "<f4"),
    ("ctf/amp_contrast", "<f4"),
    ("ctf/phase_shift_rad", "<f4"),
    ("alignments3D/pose", "<f4", (3,)),
    ("alignments3D/shift", "<f4", (2,)),
    ("alignments3D/psize_A", "<f4"),
]


def rows() -> np.ndarray:
    """Two particles."""
    table = np.zeros(2, dtype=FIELDS)
    table["uid"] = [2**63 + 5, 7]
    table["blob/path"] = [b">J1/a.mrc", b"J1/b.mrc"]
    table["blob/idx"] = [0, 41]
    table["blob/shape"] = 64
    table["blob/psize_A"] = 1.1
    for name, value in zip(FIELDS[5:12], (21000, 20000, 0.5, 300, 2.7, 0.1, 1.5), strict=True):
        table[name[0]] = value
    table["alignments3D/pose"] = [[0.1, -0.2, 0.3], [1, 2, 0.5]]
    table["alignments3D/shift"] = [[3, -4], [0, 1]]
    table["alignments3D/psize_A"] = 2.2
    return table


def save(path: Path, table: np.ndarray) -> Path:
    with path.open("wb") as stream:
        np.save(stream, repack_fields(table))
    return path


def test_conventions(tmp_path: Path) -> None:
    table = rows()
    particles = open_particles(save(tmp_path / "p.cs", table))
    expected = Rotation.from_rotvec(table["alignments3D/pose"].astype(np.float64)).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(particles.rotations(), expected, atol=1e-12)
    np.testing.assert_allclose(particles.shifts_in_angstroms(), [[-6.6, 8.8], [0, -2.2]], rtol=1e-6)
    assert particles.table["rlnImageName"].tolist() == ["000001@J1/a.mrc", "000042@J1/b.mrc"]
    ctf = particles.ctf()
    assert ctf is not None
    assert ctf.defocus_angle_in_degrees[0] == pytest.approx(np.degrees(0.5))
    assert ctf.phase_shift_in_degrees[0] == pytest.approx(np.degrees(1.5))
    assert particles.box_in_pixels() == 64
    np.testing.assert_allclose(particles.pixel_size_in_angstroms(), 1.1, rtol=1e-6)


def test_every_column_survives_a_star_file(tmp_path: Path) -> None:
    table = rows()
    open_particles(save(tmp_path / "p.cs", table)).write(tmp_path / "p.star")
    check_columns(table, open_particles(tmp_path / "p.star").table)


def check_columns(rows: np.ndarray, table) -> None:  # type: ignore[no-untyped-def]
    for name in rows.dtype.names or ():
        for place in np.ndindex(rows[name].shape[1:]):
            column = table["/".join(("cs", name, *map(str, place)))].to_numpy()
            expected = rows[name][:, *place]
            np.testing.assert_array_equal(column.astype("S") if expected.dtype.kind == "S" else column, expected)


def test_parts_may_be_missing(tmp_path: Path) -> None:
    names = [field[0] for field in FIELDS if field[0].startswith("blob")]
    particles = open_particles(save(tmp_path / "p.cs", rows()[names]))
    assert particles.ctf() is None
    assert not particles.has_poses


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "p.cs"
    with pytest.raises(DataError, match="no such file"):
        open_particles(path)
    hostile = np.array([(1, print)], dtype=[("uid", "<u8"), ("blob/path", "O")])
    # Written with a pickle inside, since that is what has to be refused.
    np.save(tmp_path / "hostile.npy", hostile, allow_pickle=True)
    objects = (tmp_path / "hostile.npy").read_bytes()
    for content in (b"", b"hello", pickle.dumps(rows()), objects, save(path, rows()).read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"is not a \.cs file, or is damaged"):
            open_particles(path)
    with pytest.raises(DataError, match="no table"):
        open_particles(save(path, np.zeros(3)))
    with pytest.raises(DataError, match="holds no particles"):
        open_particles(save(path, rows()[:0]))
    with pytest.raises(DataError, match="has no column blob/shape"):
        open_particles(save(path, rows()[["blob/psize_A", "uid"]]))
    lost = [name for name in rows().dtype.names or () if name != "ctf/cs_mm"]
    with pytest.raises(DataError, match="has lost ctf/cs_mm"):
        open_particles(save(path, rows()[lost]))
    bad = rows()
    bad["alignments3D/pose"][1, 0] = np.nan
    with pytest.raises(DataError, match="not finite in row 2"):
        open_particles(save(path, bad))
    bad = rows()
    bad["blob/shape"][1] = 32
    with pytest.raises(DataError, match="several sizes"):
        open_particles(save(path, bad))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.integers(0, 900), st.binary(min_size=1, max_size=6))
def test_mutated_bytes_raise_nothing_else(tmp_path: Path, offset: int, content: bytes) -> None:
    path = save(tmp_path / "p.cs", rows())
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(bytes(data))
    with suppress(DataError):
        assert len(open_particles(path))


@pytest.mark.realdata
def test_real_file(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "cryoem" / "cryosparc_P12_J24_001_particles.cs"
    particles = open_particles(path)
    particles.write(tmp_path / "p.star")
    check_columns(np.load(path), open_particles(tmp_path / "p.star").table)
