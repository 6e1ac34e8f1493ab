from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from parteq.core import cache
from parteq.core.cache import cache_folder, cached_arrays
from parteq.core.density import make_density
from parteq.core.fields import FieldType, direct_sum, regular
from parteq.core.groups import plane_group
from parteq.core.layers import PartialConv2d


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARTEQ_CACHE", str(tmp_path / "bases"))
    return tmp_path / "bases"


def _never() -> dict[str, np.ndarray]:
    raise AssertionError("built again")


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARTEQ_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PARTEQ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "parteq"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "parteq"


def test_arrays_are_built_once(folder: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(3)}
    built = cached_arrays("key", lambda: arrays)
    stored = cached_arrays("key", _never)
    for name, array in arrays.items():
        np.testing.assert_array_equal(built[name], array)
        np.testing.assert_array_equal(stored[name], array)
        assert stored[name].dtype == array.dtype
    assert len(list(folder.iterdir())) == 1


def test_keys_do_not_collide(folder: Path) -> None:
    cached_arrays("one", lambda: {"a": np.ones(1)})
    assert cached_arrays("two", lambda: {"a": np.zeros(1)})["a"] == 0
    assert cached_arrays("one", _never)["a"] == 1


def test_another_layout_is_another_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_arrays("key", lambda: {"a": np.ones(1)})
    monkeypatch.setattr(cache, "_LAYOUT", -1)
    assert cached_arrays("key", lambda: {"a": np.zeros(1)})["a"] == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an archive"),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
    ],
    ids=["empty", "text", "head", "tail"],
)
def test_damaged_files_are_rebuilt(folder: Path, damage: object, caplog: pytest.LogCaptureFixture) -> None:
    cached_arrays("key", lambda: {"a": np.ones(50)})
    (path,) = folder.iterdir()
    damage(path)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert cached_arrays("key", lambda: {"a": np.full(50, 2.0)})["a"][0] == 2
    assert "rebuilding" in caplog.text
    assert cached_arrays("key", _never)["a"][0] == 2


def test_a_flipped_byte_is_noticed(folder: Path) -> None:
    """NPZ members carry a checksum."""
    cached_arrays("key", lambda: {"a": np.zeros(500)})
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)
    np.testing.assert_array_equal(cached_arrays("key", lambda: {"a": np.zeros(500)})["a"], 0)


def test_pickles_are_not_loaded(folder: Path) -> None:
    cached_arrays("key", lambda: {"a": np.zeros(1)})
    (path,) = folder.iterdir()
    np.savez(path, a=np.array([{"hostile": 1}], dtype=object))
    assert cached_arrays("key", lambda: {"a": np.ones(1)})["a"] == 1


def test_an_unwritable_folder_costs_speed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PARTEQ_CACHE", str(tmp_path / "file" / "bases"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert cached_arrays("key", lambda: {"a": np.ones(1)})["a"] == 1
    assert "cannot cache" in caplog.text


def test_a_failed_write_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: object, **arrays: np.ndarray) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert cached_arrays("key", lambda: {"a": np.ones(1)})["a"] == 1
    assert not list(folder.iterdir())


def test_a_failed_build_leaves_nothing_behind(folder: Path) -> None:
    with pytest.raises(AssertionError, match="built again"):
        cached_arrays("key", _never)
    assert not folder.exists() or not list(folder.iterdir())


def test_builders_at_the_same_time_leave_one_sound_file(folder: Path) -> None:
    results: list[np.ndarray] = []

    def build() -> None:
        results.append(cached_arrays("key", lambda: {"a": np.arange(10000.0)})["a"])

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(result, np.arange(10000.0)) for result in results)
    assert [path.suffix for path in folder.iterdir()] == [".npz"]
    np.testing.assert_array_equal(cached_arrays("key", _never)["a"], np.arange(10000.0))


@pytest.mark.parametrize("degree", ["softmax", "full", "none"])
def test_layers_from_the_cache_equal_fresh_ones(folder: Path, degree: str) -> None:
    group = plane_group("d4")
    fields = FieldType(regular(group), 2)

    def layer() -> PartialConv2d:
        torch.manual_seed(0)
        return PartialConv2d(fields, fields, 3, make_density(group, degree, 0))

    fresh, files = layer(), set(os.listdir(folder))
    again = layer()
    assert files == set(os.listdir(folder))
    torch.testing.assert_close(fresh.weight(), again.weight(), rtol=0, atol=0)


def test_degrees_and_bands_do_not_share_bases(folder: Path) -> None:
    group = plane_group("so2")
    fields = FieldType(regular(plane_group("c4")), 1)
    PartialConv2d(fields, fields, 3, make_density(plane_group("c4"), "full", 0))
    count = len(list(folder.iterdir()))
    assert count == 1
    irreps = FieldType(direct_sum(group, {group.irreps(1)[1]: 1}), 1)
    for degree, band in (("full", 1), ("full", 2), ("none", 1), ("none", 2), ("softmax", 1), ("softmax", 2)):
        PartialConv2d(irreps, irreps, 3, make_density(group, degree, band))
        count += 1
        assert len(list(folder.iterdir())) == count
