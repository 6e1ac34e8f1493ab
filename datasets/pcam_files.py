"""The files of PatchCamelyon: their names, and what their MD5 sums say.

Two tables of sums circulate in which validation and test are swapped: that of the authors' repository
(github.com/basveeling/pcam, see its issues 1 and 4), and that of the files as they can be downloaded (Zenodo record
2546921, torchvision). Which of the two is called validation does not matter, but pixels of the one with labels of the
other are nonsense, and the two must not be the same. Sums of unpacked files: github.com/kaiko-ai/eva, for Zenodo's.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tqdm import tqdm

from parteq.datasets.base import SPLITS
from parteq.datasets.errors import DataError

__all__ = ["PARTS", "check_sums", "pcam_file", "published_as"]

PARTS = ("x.h5", "y.h5", "x.h5.gz", "y.h5.gz", "meta.csv")
"""What the files of a split end in."""

_NAMES = {"train": "train", "val": "valid", "test": "test"}
_CHUNK = 2**20
# By the split that Zenodo's file names tell.
_SUMS = {
    "1571f514728f59376b705fc836ff4b63": ("train", "x.h5.gz"),
    "35c2d7259d906cfc8143347bb8e05be7": ("train", "y.h5.gz"),
    "01844da899645b4d6f84946d417ba453": ("train", "x.h5"),
    "0781386bf6c2fb62d58ff18891466aca": ("train", "y.h5"),
    "5a3dd671e465cfd74b5b822125e65b0a": ("train", "meta.csv"),
    "d5b63470df7cfa627aeec8b9dc0c066e": ("val", "x.h5.gz"),
    "2b85f58b927af9964a4c15b8f7e8f179": ("val", "y.h5.gz"),
    "81cf9680f1724c40673f10dc88e909b1": ("val", "x.h5"),
    "94d8aacc249253159ce2a2e78a86e658": ("val", "y.h5"),
    "67589e00a4a37ec317f2d1932c7502ca": ("val", "meta.csv"),
    "d8c2d60d490dbd479f8199bdfa0cf6ec": ("test", "x.h5.gz"),
    "60a7035772fbdb7f34eb86d4420cf66a": ("test", "y.h5.gz"),
    "2614b2e6717d6356be141d9d6dbfcb7e": ("test", "x.h5"),
    "11ed647efe9fe457a4eb45df1dba19ba": ("test", "y.h5"),
    "3455fd69135b66734e1008f3af684566": ("test", "meta.csv"),
}


def pcam_file(folder: Path, split: str, part: str) -> Path:
    """Where a file of a split, "train", "val" or "test", belongs; `part` is one of `PARTS`."""
    return folder / f"camelyonpatch_level_2_split_{_NAMES[split]}_{part}"


def published_as(md5: str, part: str) -> str | None:
    """The split that Zenodo's files tell of this content; None if no file of this part was published with this sum."""
    split, published = _SUMS.get(md5, (None, None))
    return split if published == part else None


def check_sums(folder: Path) -> dict[str, str]:
    """Compare the MD5 sums of all files of PatchCamelyon in a folder with the published ones.

    Args:
        folder: holds the files, packed or not; other files are left alone.

    Returns:
        For each file by name "as published", or "unknown" where its sum is in neither table.

    Raises:
        DataError: known files that do not belong together: training patches among those held out or the reverse, pixels
            with the labels of another split, or validation and test the same.
    """
    files = [(split, part, pcam_file(folder, split, part)) for split in SPLITS for part in PARTS]
    files = [(split, part, path) for split, part, path in files if path.is_file()]
    found: dict[str, str] = {}
    contents: dict[str, str] = {}
    total = sum(path.stat().st_size for _, _, path in files)
    with tqdm(total=total, desc="MD5 sums", unit="B", unit_scale=True, delay=2, disable=None, leave=False) as bar:
        for split, part, path in files:
            content = published_as(_md5(path, bar), part)
            found[path.name] = "unknown" if content is None else "as published"
            if content is None:
                continue
            if (split == "train") != (content == "train"):
                raise DataError(path, f"is published as a file of the split {content!r}")
            if contents.setdefault(split, content) != content:
                raise DataError(path, f"is not of the same patches as the other files of {split!r}")
    if "val" in contents and contents["val"] == contents.get("test"):
        raise DataError(folder, "validation and test are the same patches, under two names")
    return found


def _md5(path: Path, bar: tqdm) -> str:
    """The MD5 sum of a file, hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as stream:
            while data := stream.read(_CHUNK):
                digest.update(data)
                bar.update(len(data))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    return digest.hexdigest()
