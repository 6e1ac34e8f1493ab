"""`open_images` finds the right reader and says what is wrong with a path in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parteq.datasets.errors import DataError
from parteq.datasets.images import available_splits, open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 0, 1, 1])


def test_same_images_whatever_the_file(tmp_path: Path) -> None:
    """NPZ and folder give equal tensors, and equal fingerprints."""
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=LABELS, classes=["a", "b"])
    for number, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        folder = tmp_path / "x" / "ab"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    one, other = open_images(str(tmp_path / "x.npz")), open_images(str(tmp_path / "x"))
    assert (one.classes, one.spatial, one.channels) == (other.classes, other.spatial, other.channels)
    assert one.fingerprint() == other.fingerprint()
    assert available_splits(str(tmp_path / "x.npz")) == available_splits(str(tmp_path / "x")) == ()


def test_unlabelled(tmp_path: Path) -> None:
    """Without labels or class folders there are images, but only for those who want no labels."""
    np.savez(tmp_path / "x.npz", images=PIXELS)
    (tmp_path / "x").mkdir()
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / "x" / f"{number}.png")
    one, other = (open_images(str(tmp_path / name), labelled=False) for name in ("x.npz", "x"))
    assert one.fingerprint() == other.fingerprint()
    assert (one.classes, one.labels.tolist()) == (("unlabelled",), [0, 0, 0, 0])
    assert one.names is None
    assert other.names == ("0.png", "1.png", "2.png", "3.png")
    with pytest.raises(DataError, match="has no array 'labels'"):
        open_images(str(tmp_path / "x.npz"))
    with pytest.raises(DataError, match="has no class folders"):
        open_images(str(tmp_path / "x"))


@pytest.mark.parametrize("name", ["no.npz", "no", ""])
def test_missing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "nowhere" / name
    for function in (open_images, available_splits):
        with pytest.raises(DataError, match=f"^{path}: no such file or folder"):
            function(str(path))


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"is not an \.npz file, a \.csv table, pcam:FOLDER, or a folder"):
        open_images(str(path))
    with pytest.raises(DataError, match="no such folder"):
        open_images(f"pcam:{path}")


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split must be one of"):
        open_images(str(tmp_path), "valid")


def test_an_empty_name_is_not_the_current_folder() -> None:
    """As a variable of the shell that was never set gives it."""
    for spec in ("", "pcam:"):
        with pytest.raises(DataError, match="no such file or folder"):
            open_images(spec)
