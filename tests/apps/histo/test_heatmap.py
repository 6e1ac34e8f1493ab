"""Heat maps: of a turned slide the turned map; AUC, surface and GeoJSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from parteq.apps.histo.heatmap import HeatMap, heat_map
from parteq.apps.histo.models import create_model
from parteq.datasets.base import ArrayDataset
from parteq.datasets.images import open_images
from parteq.datasets.slide import Slide
from parteq.datasets.tiling import Tiling, tile_folder, tile_slide
from tests.slides import stained, write_slide

CPU = torch.device("cpu")


def by_hand(corners: list[tuple[float, float]], probabilities: list[float], labels: list[int] | None = None) -> HeatMap:
    """Tiles of 4 × 2 pixels on a slide of 16 × 8, shown at half its size."""
    tiles = ArrayDataset(np.zeros((len(corners), 3, 2, 4), np.uint8), np.zeros(len(corners), int))
    tiling = Tiling(tiles, np.array(corners), (4, 2), (0, 0), (16, 8), np.zeros((4, 8, 3), np.float32))
    both = np.stack([1 - np.array(probabilities), probabilities], axis=1)
    return HeatMap(tiling, ("benign", "tumour"), both, None if labels is None else np.array(labels))


@pytest.mark.parametrize("name", ["resnet", "mobilenetv2", "densenet"])
def test_the_map_of_a_turned_slide_is_the_turned_map(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, group="d4", degree="full", width=0.5)
    pixels = stained(141, 190)
    maps = []
    for quarters in range(2):
        path = write_slide(tmp_path / f"{quarters}.tif", np.ascontiguousarray(np.rot90(pixels, quarters)))
        tiling = tile_slide(Slide(path), (17, 17), 0.65)
        maps.append(heat_map(model, tiling, ("benign", "tumour"), CPU))
    grids = []
    for heat in maps:
        columns, rows = (np.unique(axis.round(6), return_inverse=True)[1] for axis in heat.tiling.corners.T)
        grids.append(np.full((rows.max() + 1, columns.max() + 1), np.nan))
        grids[-1][rows, columns] = heat.probabilities[:, 1]
    assert grids[0].shape != grids[1].shape
    assert np.nanstd(grids[0]) > 1e-3
    assert np.allclose(np.rot90(grids[0]), grids[1], atol=1e-5, equal_nan=True)


def test_tiles_are_predicted_in_order_and_labelled_by_their_folders(tmp_path: Path) -> None:
    pixels = stained(40, 60)
    for number in range(24):
        place, folder = (10 * (number % 6), 10 * (number // 6)), tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels[place[1] :][:10, place[0] :][:, :10]).save(folder / f"x{place[0]}_y{place[1]}.png")
    model = create_model("resnet", num_classes=3, group="none", width=0.3)
    tiling = tile_folder(open_images(str(tmp_path), labelled=False))
    heat = heat_map(model, tiling, ("b", "c", "a"), CPU)
    assert heat.labels is not None
    for index, (left, top) in enumerate(tiling.corners.astype(int)):
        assert heat.labels[index] == (0 if (left // 10) % 2 else 2)
        tile = torch.from_numpy(pixels[top : top + 10, left : left + 10].copy()).movedim(-1, 0)[None] / 255
        with torch.no_grad():
            expected = model.eval()(tile)[0].softmax(0)
        assert heat.probabilities[index] == pytest.approx(expected.numpy(), abs=1e-6)
    assert heat_map(model, tiling, ("a", "c", "d"), CPU).labels is None
    calibrated = heat_map(model, tiling, ("b", "c", "a"), CPU, temperature=2.0).probabilities
    roots = np.sqrt(heat.probabilities)
    assert np.allclose(calibrated, roots / roots.sum(1, keepdims=True))


def test_auc() -> None:
    corners = [(0.0, 0.0), (4.0, 0.0), (8.0, 0.0), (12.0, 0.0)]
    assert by_hand(corners, [0.1, 0.4, 0.35, 0.8]).auc(1) is None
    heat = by_hand(corners, [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    assert heat.auc(1) == heat.auc(0) == pytest.approx(0.75)
    with pytest.warns(UserWarning, match="no auc: all or none of the tiles are 'tumour'"):
        assert by_hand(corners, [0.1, 0.4, 0.35, 0.8], [0] * 4).auc(1) is None


def test_overlapping_tiles_are_averaged() -> None:
    heat = by_hand([(0, 0), (2, 0), (12, 6)], [0.2, 0.6, 1.0])
    expected = np.full((4, 8), np.nan)
    expected[0, :3] = (0.2, 0.4, 0.6)
    expected[3, 6:] = 1
    assert np.allclose(heat.surface(heat.probabilities[:, 1]), expected, equal_nan=True)


def test_geojson() -> None:
    found = by_hand([(0, 0), (2.5, 6)], [0.25, 0.75]).to_geojson([(1, 2, 3), (4, 5, 6)])
    assert found["type"] == "FeatureCollection"
    assert found["features"][1] == {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[2.5, 6], [6.5, 6], [6.5, 8], [2.5, 8], [2.5, 6]]]},
        "properties": {
            "objectType": "tile",
            "classification": {"name": "tumour", "color": [4, 5, 6]},
            "measurements": {"probability benign": 0.25, "probability tumour": 0.75},
        },
    }
    assert found["features"][0]["properties"]["classification"] == {"name": "benign", "color": [1, 2, 3]}
