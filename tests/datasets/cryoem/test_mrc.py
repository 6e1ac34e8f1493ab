"""MRC headers are believed only as far as the file bears them out; maps come back as they were written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parteq.datasets.cryoem.mrc import read_header, read_volume, write_volume
from parteq.datasets.errors import DataError

VOLUME = np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "map.mrc"
    write_volume(path, VOLUME, 1.5)
    return path


def patched(path: Path, offset: int, content: bytes) -> Path:
    """The file with some bytes replaced."""
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(bytes(data))
    return path


def number(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True)


def test_volume_round_trip(volume: Path) -> None:
    voxels, voxel_size = read_volume(volume)
    np.testing.assert_array_equal(voxels, VOLUME)
    assert voxel_size == pytest.approx(1.5)
    assert mrcfile.validate(volume)


def test_other_programs_agree(volume: Path) -> None:
    theirs = gemmi.read_ccp4_map(str(volume))
    np.testing.assert_array_equal(np.array(theirs.grid, copy=False), VOLUME.transpose(2, 1, 0))


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 1, 3), (3, 2, 1)])
def test_axes_in_any_order(tmp_path: Path, order: tuple[int, int, int]) -> None:
    path = tmp_path / "map.mrc"
    with mrcfile.new(path) as file:
        # Columns, rows and sections are the axes of `order`; z, y, x are the axes of VOLUME.
        file.set_data(np.ascontiguousarray(VOLUME.transpose([3 - axis for axis in reversed(order)])))
        file.header.mapc, file.header.mapr, file.header.maps = order
        file.voxel_size = 2.0
    np.testing.assert_array_equal(read_volume(path)[0], VOLUME)


def test_a_map_that_is_no_cube_is_put_into_one(tmp_path: Path) -> None:
    path = tmp_path / "map.mrc"
    flat = VOLUME[:3, :5]
    write_volume(path, flat, 1.0)
    voxels, _ = read_volume(path)
    assert voxels.shape == (6, 6, 6)
    # Centre on centre: index n // 2 of each axis.
    assert voxels[3, 3, 3] == flat[1, 2, 3]
    assert voxels.sum() == pytest.approx(flat.sum(), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16, np.float32])
def test_kinds_of_numbers(tmp_path: Path, dtype: type[np.generic]) -> None:
    path = tmp_path / "map.mrc"
    values = (np.arange(64).reshape(4, 4, 4) % 100).astype(dtype)
    with mrcfile.new(path) as file:
        file.set_data(values)
    np.testing.assert_array_equal(read_volume(path)[0], values.astype(np.float32))


def test_big_endian(tmp_path: Path, volume: Path) -> None:
    from mrcfile.dtypes import HEADER_DTYPE

    header = np.frombuffer(volume.read_bytes()[:1024], HEADER_DTYPE)
    swapped = header.astype(HEADER_DTYPE.newbyteorder(">"))
    swapped["machst"] = (0x11, 0x11, 0, 0)
    path = tmp_path / "big.mrc"
    path.write_bytes(swapped.tobytes() + VOLUME.astype(">f4").tobytes())
    np.testing.assert_array_equal(read_volume(path)[0], VOLUME)


def test_blank_stamp_and_word_are_common(volume: Path) -> None:
    patched(volume, 208, bytes(8))
    np.testing.assert_array_equal(read_volume(volume)[0], VOLUME)


@pytest.mark.parametrize(
    ("offset", "content", "reason"),
    [
        (0, number(7), "is cut off"),
        (8, number(5), "longer than its header says"),
        (0, number(-6), "claims the shape"),
        (8, number(2**31 - 1), "is cut off"),
        (92, number(4), "is cut off"),
        (92, number(-4), "claims the shape"),
        (12, number(4), "mode 4 is not supported"),
        (12, number(99), "mode 99 is not supported"),
        (208, b"MAPS", "no MRC file"),
        (212, bytes((0x11, 0x11, 0, 0)), "wrong byte order"),
        (212, bytes((0x12, 0x34, 0, 0)), "machine stamp"),
        (64, number(1) * 3, "maps the axes"),
        (40, np.float32(99).tobytes(), "no cubes"),
        (1024, np.float32(np.nan).tobytes(), "NaN"),
        (1028, np.float32(np.inf).tobytes(), "NaN or infinite"),
    ],
)
def test_headers_that_lie(volume: Path, offset: int, content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_volume(patched(volume, offset, content))


@pytest.mark.parametrize("length", [0, 3, 1023, 1024, 1500])
def test_cut_off(volume: Path, length: int) -> None:
    volume.write_bytes(volume.read_bytes()[:length])
    with pytest.raises(DataError, match=r"is no MRC file|is cut off"):
        read_header(volume)


def test_voxel_size_not_said(volume: Path) -> None:
    patched(volume, 40, bytes(12))
    assert read_volume(volume)[1] is None


def test_nothing_is_written_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        write_volume(tmp_path / "none" / "map.mrc", VOLUME, 1.0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.integers(0, 1100), st.binary(min_size=1, max_size=8), st.integers(0, 3000))
def test_mutated_bytes_raise_nothing_else(tmp_path: Path, offset: int, content: bytes, length: int) -> None:
    path = tmp_path / "mutated.mrc"
    if not (whole := tmp_path / "map.mrc").exists():
        write_volume(whole, VOLUME, 1.5)
    path.write_bytes(whole.read_bytes()[: length if length < 1200 else None])
    patched(path, offset, content)
    with suppress(DataError):
        voxels, voxel_size = read_volume(path)
        assert np.isfinite(voxels).all()
        assert voxel_size is None or voxel_size > 0
