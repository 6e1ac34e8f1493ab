"""`parteq histo heatmap` and `parteq histo explain`, from slides, tiles and images to pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parteq.pipelines import overlays
from tests.slides import stained, write_slide

PIXELS = stained(120, 150)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide at 0.5 µm/px, on which 50 tiles of the trained model fit at 1.25 × 0.5 µm/px."""
    return write_slide(tmp_path_factory.mktemp("slides") / "slide.tif", PIXELS, levels=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles by class, those in the middle are rings."""
    root = tmp_path_factory.mktemp("tiles")
    for number in range(120):
        x, y = 12 * (number % 12), 12 * (number // 12)
        name = "ring" if 3 <= number % 12 < 8 and 2 <= number // 12 < 7 else "disc"
        (root / name).mkdir(exist_ok=True)
        Image.fromarray(PIXELS[y : y + 12, x : x + 12]).save(root / name / f"s1_x{x}_y{y}.png")
    return root


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG" and min(image.size) > 200


def test_a_slide(parteq, trained, slide, tmp_path):
    out, geojson, scores = tmp_path / "heat.png", tmp_path / "heat.geojson", tmp_path / "heat.json"
    words = ["--run", trained, "--slide", slide, "--mpp", 0.625, "--out", out, "--geojson", geojson, "--json", scores]
    status, printed, complaint = parteq("histo", "heatmap", *words)
    assert (status, complaint) == (0, "")
    assert "n_tiles" in printed
    assert is_picture(out)
    found = json.loads(scores.read_text())
    assert (found["class"], found["auc"], found["slide_mpp"]) == ("ring", None, pytest.approx(0.5))
    assert 20 < found["n_tiles"] < 80
    assert 0 < found["mean_probability"] < 1
    assert found["seconds"] > 0
    features = json.loads(geojson.read_text())["features"]
    assert len(features) == found["n_tiles"]
    corners = np.array([feature["geometry"]["coordinates"][0] for feature in features])
    assert np.all((corners >= 0) & (corners <= (150, 120)))
    assert np.ptp(corners[0], axis=0) == pytest.approx((15, 15))
    measured = [feature["properties"]["measurements"]["probability ring"] for feature in features]
    assert np.mean(measured) == pytest.approx(found["mean_probability"], abs=1e-5)


def test_options(parteq, trained, slide, tmp_path):
    def tiles(*words: object) -> int:
        common = ["--run", trained, "--slide", slide, "--out", tmp_path / "h.png", "--json", tmp_path / "h.json"]
        assert parteq("histo", "heatmap", *common, *words, "--quiet") == (0, "", "")
        return json.loads((tmp_path / "h.json").read_text())["n_tiles"]

    some = tiles("--mpp", 0.625)
    assert tiles("--mpp", 0.625, "--all-tiles") == 80
    assert tiles("--mpp", 0.625, "--all-tiles", "--stride", 6) == 19 * 15
    assert tiles("--mpp", 1.25, "--slide-mpp", 1.0) == some
    assert tiles("--mpp", 1.25) < some
    assert tiles("--mpp", 0.625, "--class", "disc") == some


def test_the_resolution_of_the_training_is_the_default(parteq, trained, slide, tmp_path):
    words = ["--slide", slide, "--out", tmp_path / "heat.png"]
    status, _, complaint = parteq("histo", "heatmap", "--run", trained, *words)
    assert status == 2
    assert complaint == f"parteq: {trained}: does not say how many µm a pixel was in training: give --mpp\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--slide", "missing.svs"], "missing.svs: no such file or folder"),
        (["--slide", "text.svs"], "text.svs: is no slide that openslide reads"),
        (["--slide", "cut.tif"], "cut.tif: "),
        (["--slide", "without.tif"], "without.tif: does not say how many µm a pixel is: give --slide-mpp"),
        (["--slide", "dpi.tif"], "dpi.tif: says that a pixel is 352.8"),
        (["--slide", "glass.tif"], "glass.tif: shows no tissue: add --all-tiles"),
        (["--mpp", "9"], "slide.tif: is 8 × 7 pixels at 9 µm/px: smaller than a tile of 12 × 12"),
        (["--mpp", "0"], "--mpp 0.0: must be positive"),
        (["--mpp", "nan"], "--mpp nan: must be positive"),
        (["--stride", "-2"], "--stride -2: must be positive"),
        (["--class", "square"], "--class square: the model tells apart disc, ring"),
        (["--out", "heat.jpg"], "heat.jpg: is to be a PNG file"),
        (["--out", "nowhere/heat.png"], "nowhere/heat.png: cannot be written: there is no folder nowhere"),
        (["--geojson", "nowhere/heat.geojson"], "nowhere/heat.geojson: cannot be written: there is no folder nowhere"),
    ],
)
def test_what_cannot_be_mapped_is_one_line(parteq, trained, slide, tmp_path, monkeypatch, words, reason):
    (tmp_path / "text.svs").write_text("not a slide")
    (tmp_path / "cut.tif").write_bytes(slide.read_bytes()[:30_000])
    write_slide(tmp_path / "without.tif", PIXELS, mpp=None)
    write_slide(tmp_path / "dpi.tif", PIXELS, mpp=25.4e3 / 72)
    write_slide(tmp_path / "glass.tif", np.full_like(PIXELS, 240))
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    given = {"--run": trained, "--slide": slide, "--mpp": 0.625} | dict(zip(words[::2], words[1::2], strict=True))
    status, printed, complaint = parteq("histo", "heatmap", *(word for pair in given.items() for word in pair))
    assert (status, printed) == (2, "")
    assert reason in complaint
    assert complaint.startswith("parteq: ")
    assert complaint.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_tiles_by_class_give_an_auc(parteq, trained, folder, tmp_path):
    out, scores = tmp_path / "heat.png", tmp_path / "heat.json"
    words = ["--run", trained, "--slide", folder, "--out", out, "--json", scores]
    status, printed, complaint = parteq("histo", "heatmap", *words, "--mpp", 1.0)
    assert status == 0
    assert complaint == "parteq: tiles of a folder are mapped as they are: no use for --mpp\n"
    assert is_picture(out)
    assert "auc" in printed
    found = json.loads(scores.read_text())
    assert found["n_tiles"] == 120
    assert 0 <= found["auc"] <= 1
    assert parteq("histo", "heatmap", *words, "--class", "disc")[0] == 0
    assert json.loads(scores.read_text())["auc"] == pytest.approx(found["auc"])


def test_half_of_a_slide_is_called_so(parteq, trained, folder, tmp_path, monkeypatch):
    titles = []
    drawn = overlays.heat_figure

    def draw(*arguments):
        titles.append(arguments[-1])
        return drawn(*arguments)

    monkeypatch.setattr(overlays, "heat_figure", draw)
    for slide in (folder, f"right:{folder}"):
        words = ["--run", trained, "--slide", slide, "--out", tmp_path / "heat.png", "--quiet"]
        assert parteq("histo", "heatmap", *words)[0] == 0
    assert titles == [folder.name, f"right:{folder.name}"]
    out = folder / "heat.png"
    status, _, complaint = parteq("histo", "heatmap", *words, "--out", out)
    assert (status, "would stand among the tiles of" in complaint, out.exists()) == (2, True, False)


def test_tiles_without_classes(parteq, trained, folder, tmp_path):
    out, scores = tmp_path / "heat.png", tmp_path / "heat.json"
    words = ["--run", trained, "--slide", folder / "ring", "--out", out, "--json", scores]
    assert parteq("histo", "heatmap", *words)[0] == 0
    found = json.loads(scores.read_text())
    assert (found["n_tiles"], found["auc"]) == (25, None)


def test_a_picture_among_the_tiles_would_be_one(parteq, trained, folder):
    tile = next((folder / "ring").iterdir())
    before = tile.read_bytes()
    for out in (tile, folder / "ring" / "heat.png"):
        status, _, complaint = parteq("histo", "heatmap", "--run", trained, "--slide", folder, "--out", out)
        reason = f"would stand among the tiles of {folder}: choose another --out"
        assert (status, complaint) == (2, f"parteq: {out}: {reason}\n")
    assert tile.read_bytes() == before


def test_explain(parteq, trained, folder, tmp_path):
    out, scores = tmp_path / "cam.png", tmp_path / "cam.json"
    image = folder / "ring" / "s1_x36_y24.png"
    words = ["--run", trained, "--image", image, "--out", out, "--json", scores]
    assert parteq("histo", "explain", *words)[0] == 0
    assert is_picture(out)
    found = json.loads(scores.read_text())
    assert found["class"] == found["predicted"] == max(found["probabilities"], key=found["probabilities"].get)
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    for name in ("disc", "ring"):
        assert parteq("histo", "explain", *words, "--class", name)[0] == 0
        assert json.loads(scores.read_text())["class"] == name
        assert json.loads(scores.read_text())["probability"] == pytest.approx(found["probabilities"][name])


def test_names_are_no_mathematics(parteq, trained, tmp_path):
    image = tmp_path / r"im $\frac{x$.png"
    Image.fromarray(PIXELS).save(image)
    words = ["--run", trained, "--image", image, "--out", tmp_path / "cam.png"]
    assert parteq("histo", "explain", *words)[0] == 0


def test_explain_images_of_other_sizes(parteq, trained, tmp_path):
    for size in ((12, 12), (64, 48), (150, 31)):
        Image.fromarray(PIXELS).resize(size).save(tmp_path / "image.png")
        words = ["--run", trained, "--image", tmp_path / "image.png", "--out", tmp_path / "cam.png"]
        assert parteq("histo", "explain", *words)[0] == 0
        assert is_picture(tmp_path / "cam.png")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--image", "missing.png"], "missing.png: no such file"),
        (["--image", "text.png"], "text.png: is not a readable image"),
        (["--image", "small.png"], "small.png: leaves 1 × 1 features: too small for a map"),
        (["--image", "large.png"], "large.png: has more than 2,097,152 pixels: map it with `parteq histo heatmap`"),
        (["--image", "grey.png"], "grey.png: holds grey images; the model takes RGB images"),
        (["--class", "square"], "--class square: the model tells apart disc, ring"),
        (["--out", "cam.pdf"], "cam.pdf: is to be a PNG file"),
    ],
)
def test_what_cannot_be_explained_is_one_line(parteq, trained, tmp_path, monkeypatch, words, reason):
    (tmp_path / "text.png").write_text("no image")
    for name, size, mode in (("small", (6, 6), "RGB"), ("large", (1500, 1500), "RGB"), ("grey", (20, 20), "L")):
        Image.new(mode, size, 128).save(tmp_path / f"{name}.png")
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    given = {"--run": trained, "--image": "image.png"} | dict(zip(words[::2], words[1::2], strict=True))
    status, printed, complaint = parteq("histo", "explain", *(word for pair in given.items() for word in pair))
    assert (status, printed) == (2, "")
    assert reason in complaint
    assert complaint.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.realdata
def test_a_real_slide_and_real_tiles(parteq, trained, shared_data, tmp_path):
    out, scores = tmp_path / "heat.png", tmp_path / "heat.json"
    words = ["--run", trained, "--out", out, "--json", scores, "--quiet"]
    slide = shared_data / "histo" / "cmu_small_region.svs"
    assert parteq("histo", "heatmap", *words, "--slide", slide, "--mpp", 8)[0] == 0
    assert is_picture(out)
    assert json.loads(scores.read_text())["slide_mpp"] == 0.499
    status, _, complaint = parteq("histo", "heatmap", *words, "--slide", shared_data / "histo" / "idc_14082")
    assert (status, complaint) == (0, "")
    assert json.loads(scores.read_text())["n_tiles"] == 478
