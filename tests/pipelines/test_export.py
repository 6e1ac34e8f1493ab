"""Exported files by themselves: what they hold, what they need, and integers on which symmetry is exact."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from parteq.apps.histo.augment import transform
from parteq.apps.histo.models import Classifier, create_model
from parteq.core import training
from parteq.core.norm import FieldBatchNorm
from parteq.pipelines.export import export, load
from parteq.pipelines.run import Run

_RUN_WITHOUT_PARTEQ = """
import sys
sys.modules["parteq"] = sys.modules["escnn"] = sys.modules["torch"] = None  # importing any of them is an error
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
np.save(sys.argv[3], session.run(["logits"], {"images": np.load(sys.argv[2])})[0])
"""


def images(count: int, edge: int, channels: int = 3, dimensions: int = 2) -> Tensor:
    """Noise of several scales, so that features have something to say."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, *[2] * dimensions, generator=generator)
    mode = "bilinear" if dimensions == 2 else "trilinear"
    fine = torch.rand(count, channels, *[edge] * dimensions, generator=generator)
    return (torch.nn.functional.interpolate(coarse, [edge] * dimensions, mode=mode) + fine) / 2


def model(name: str, examples: Tensor, **options: object) -> Classifier:
    """A small model as training might leave it: norms moved, statistics gathered."""
    torch.manual_seed(0)
    found = create_model(name, num_classes=3, **{"degree": "full", "width": 0.3, **options})  # type: ignore[arg-type]
    for module in found.modules():
        if isinstance(module, FieldBatchNorm):
            with torch.no_grad():
                module.weight.uniform_(0.5, 2.0)
                module.bias.normal_(std=0.3)
    found.train()
    with torch.no_grad():
        for _ in range(10):
            found(examples)
    return found.eval()


@pytest.mark.parametrize(
    ("name", "edge"),
    [
        ("resnet", 12),
        ("mobilenetv2", 13),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("resnet", 13), ("mobilenetv2", 12))),
        *(pytest.param("densenet", edge, marks=pytest.mark.slow) for edge in (12, 13)),
    ],
)
def test_integers_do_not_see_turns_and_mirrors(tmp_path: Path, name: str, edge: int) -> None:
    examples, path = images(32, edge), tmp_path / "model.onnx"
    classifier = model(name, examples, group="d4")
    written = export(classifier, examples, "onnx-int8", path)
    session = onnxruntime.InferenceSession(path)

    def logits(pixels: Tensor) -> np.ndarray:
        return session.run(["logits"], {"images": pixels.numpy()})[0]

    upright = logits(examples)
    assert upright.shape == (32, 3)
    assert upright.dtype == np.float32
    assert upright.std(axis=0).min() > 1e-3  # tells images apart
    for element in range(1, 8):
        assert np.array_equal(logits(transform(examples, element).contiguous()), upright)
    # Nor does an image see those beside it.
    assert np.array_equal(logits(examples[:1]), upright[:1])
    assert np.array_equal(logits(examples[5:12]), upright[5:12])
    with torch.inference_mode():
        expected = classifier(examples)
    assert written["max_abs_difference"] == pytest.approx(np.abs(upright - expected.numpy()).max())
    assert written["max_abs_difference"] < 0.15 * (expected.max() - expected.min())
    assert written["top1_agreement"] >= 0.9


def test_integers_take_a_quarter_of_the_room_and_only_standard_operators(tmp_path: Path) -> None:
    examples, path = images(8, 8), tmp_path / "model.onnx"
    classifier = model("resnet", examples, group="d4", width=1.0)
    sizes = {format: export(classifier, examples, format, path)["bytes"] for format in ("onnx", "onnx-int8")}
    assert sizes["onnx"] > 3 * sizes["onnx-int8"]
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert {entry.domain for entry in file.opset_import} == {""}
    assert {node.domain for node in file.graph.node} == {""}
    # Every convolution reads and writes integers, and so does all between the first and the last.
    left = {node.op_type for node in file.graph.node} - {"QuantizeLinear", "DequantizeLinear"}
    assert left == {"Sub", "Div", "Conv", "Add", "GlobalAveragePool", "Flatten", "Gemm"}
    weights = {tensor.data_type for tensor in file.graph.initializer if len(tensor.dims) == 4}
    assert weights == {onnx.TensorProto.INT8}
    assert not file.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in file.graph.node)


def test_convolutions_of_single_channels_are_as_wide_as_onnxruntime_is_fast(tmp_path: Path) -> None:
    examples = images(8, 8)
    classifier = model("mobilenetv2", examples, group="d4", width=1.0)
    for format in ("onnx", "onnx-int8"):
        export(classifier, examples, format, tmp_path / f"{format}.onnx")
    widths = []
    for file in (onnx.load(tmp_path / f"{format}.onnx") for format in ("onnx", "onnx-int8")):
        groups = [{a.name: a.i for a in node.attribute}["group"] for node in file.graph.node if node.op_type == "Conv"]
        widths.append([count for count in groups if count > 1])
    # 200 channels between two convolutions; those of filters against aliasing feed more than one.
    assert [(plain, wide) for plain, wide in zip(*widths, strict=True) if plain != wide] == [(200, 208)]


@pytest.mark.parametrize(("kind", "channels", "dimensions"), [("c4", 1, 3), ("so2", 3, 2)])
def test_what_has_no_integer_form_stays_as_it_is(tmp_path: Path, kind: str, channels: int, dimensions: int) -> None:
    examples, path = images(16, 8, channels, dimensions), tmp_path / "model.onnx"
    options = {"group": kind, "in_chans": channels, "spatial_dims": dimensions}
    classifier = model("resnet", examples, **options)
    written = export(classifier, examples, "onnx-int8", path)
    with torch.inference_mode():
        expected = classifier(examples)
    assert written["max_abs_difference"] < 0.2 * (expected.max() - expected.min())


def test_anti_aliasing_filters_are_exact_in_integers(tmp_path: Path) -> None:
    examples, path = images(8, 12), tmp_path / "model.onnx"
    export(model("resnet", examples, group="c4"), examples, "onnx-int8", path)
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    even = np.outer([1, 3, 3, 1], [1, 3, 3, 1])
    odd = np.outer([1, 2, 1], [1, 2, 1])
    filters = [weight for weight in weights if weight.ndim == 4 and weight.shape[1] == 1]
    assert {weight.shape[-1] for weight in filters} == {3, 4}  # the edge goes 12, 6, 3
    for weight in filters:
        whole = even if weight.shape[-1] == 4 else odd
        assert np.array_equal(weight, np.broadcast_to(whole * (weight[0, 0, 0, 0] // whole[0, 0]), weight.shape))


def test_programs_hold_none_of_the_images(tmp_path: Path) -> None:
    examples, path = images(64, 32), tmp_path / "model.pt2"
    export(model("resnet", examples[:4], group="c4"), examples, "torch", path)
    assert path.stat().st_size < examples.numel() * 4
    assert load(path, "torch")(examples[:3]).shape == (3, 3)


def test_int8_by_the_command_line_runs_by_itself(parteq, trained, cells, tmp_path):
    out, record = tmp_path / "model.onnx", tmp_path / "export.json"
    words = ["--run", trained, "--format", "onnx-int8", "--out", out, "--json", record]
    assert parteq("histo", "export", *words)[0] == 0
    found = json.loads(record.read_text())
    assert found["n"] == json.loads((trained / "data.json").read_text())["training"]["n"]
    assert found["bytes"] == out.stat().st_size
    assert found["orbit_max_abs_difference"] == 0  # what its degree broke was of no use, and is undone
    assert found["classes"] == ["disc", "ring"]
    assert 0.9 <= found["top1_agreement"] <= 1
    np.save(tmp_path / "images.npy", images(5, 12).numpy())
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", _RUN_WITHOUT_PARTEQ, str(out)]
    command += [str(tmp_path / name) for name in ("images.npy", "logits.npy")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "logits.npy"), load(out, "onnx-int8")(images(5, 12)).numpy())


@pytest.mark.parametrize("format", ["onnx", "onnx-int8", "torch"])
def test_files_say_what_they_take_and_give(parteq, trained, tmp_path, format):
    out = tmp_path / "model.pt2"
    assert parteq("histo", "export", "--run", trained, "--format", format, "--out", out, "--quiet")[0] == 0
    if format == "torch":
        said = {"classes": "", "input": "", "temperature": ""}
        torch.export.load(io.BytesIO(out.read_bytes()), extra_files=said)
    else:
        said = onnxruntime.InferenceSession(out).get_modelmeta().custom_metadata_map
        assert said["output"].startswith("logits: float32 N × classes; softmax(logits / temperature)")
    about = Run.open(trained).checkpoint().about()
    assert json.loads(said["classes"]) == ["disc", "ring"]
    assert float(said["temperature"]) == about["temperature"]
    assert said["input"] == "images: float32 N × 3 × 12 × 12, RGB in 0…1, not normalised"


def test_large_images_are_checked_a_few_at_a_time(tmp_path, monkeypatch):
    """All at once they took all memory."""
    sizes: list[int] = []

    def loaded(path, format):
        written = load(path, format)
        return lambda images: (sizes.append(len(images)), written(images))[1]

    monkeypatch.setattr("parteq.pipelines.export.load", loaded)
    monkeypatch.setattr(training, "_NUMBERS_AT_A_TIME", 3 * 3 * 12 * 12)
    examples = images(8, 12)
    assert export(model("resnet", examples, group="c4"), examples, "onnx", tmp_path / "model.onnx")["n"] == 8
    assert sizes == [3, 3, 2]


def test_calibration_on_other_images(parteq, trained, cells, tmp_path):
    files = []
    for data in ([], ["--calibrate", cells / "test.npz"]):
        out = tmp_path / f"{len(files)}.onnx"
        assert parteq("histo", "export", "--run", trained, "--format", "onnx-int8", "--out", out, *data)[0] == 0
        files.append(out.read_bytes())
    assert files[0] != files[1]


def test_what_cannot_be_calibrated_on_is_one_line(parteq, trained, cells, tmp_path, monkeypatch):
    out = tmp_path / "model.onnx"
    words = ["histo", "export", "--run", trained, "--format", "onnx-int8", "--out", out]
    np.savez(tmp_path / "small.npz", images=np.zeros((4, 9, 9, 3), np.uint8))
    np.savez(tmp_path / "grey.npz", images=np.zeros((4, 12, 12), np.uint8))
    for data, reason in (
        ("small.npz", "holds images of 9×9 pixels; the exported file takes 12×12"),
        ("grey.npz", "holds grey images; the model takes RGB images"),
    ):
        status, _, complaint = parteq(*words, "--calibrate", tmp_path / data)
        assert (status, complaint.count("\n")) == (2, 1)
        assert reason in complaint
    # What the run was trained on has moved, or changed.
    kept = (cells / "train.npz").read_bytes()
    try:
        for change, reason in ((lambda path: path.unlink(), "no such file"), (lambda path: None, "other images")):
            (cells / "train.npz").write_bytes((cells / "test.npz").read_bytes())
            change(cells / "train.npz")
            status, _, complaint = parteq(*words)
            assert (status, complaint.count("\n")) == (2, 1)
            assert reason in complaint
            assert "give --calibrate" in complaint
    finally:
        (cells / "train.npz").write_bytes(kept)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    status, _, complaint = parteq(*words)
    assert (status, complaint) == (2, f"parteq: {out}: needs the package onnxruntime: pip install 'parteq[export]'\n")
    assert not out.exists()


@pytest.mark.slow
def test_bench_sets_every_form_side_by_side(parteq, trained, tmp_path):
    out = tmp_path / "bench.json"
    status, printed, _ = parteq("histo", "bench", "--run", trained, "--repeats", 2, "--json", out)
    found = json.loads(out.read_text())
    assert status == 0
    assert len(printed.splitlines()) == 2 + 3 * 5  # heads and eager; five forms each of ours and of two twins
    for form in (
        "eager",
        "folded",
        "folded_channels_last",
        "program",
        "onnx",
        "onnx_int8",
        "plain_equal_macs_onnx_int8",
    ):
        for key in ("latency_ms", "latency_p90_ms", "batch32_latency_ms", "speedup", "macs", "parameters"):
            assert found[f"{form}_{key}"] > 0
    assert found["folded_speedup"] == 1
    assert found["onnx_int8_bytes"] < found["onnx_bytes"]
    assert found["plain_equal_macs_folded_macs"] == pytest.approx(found["macs"], rel=0.2)
    assert found["plain_equal_parameters_folded_parameters"] == pytest.approx(found["parameters"], rel=0.2)
    assert parteq("histo", "bench", "--run", trained, "--repeats", 0)[0] == 2


@pytest.mark.slow
@pytest.mark.realdata
def test_int8_is_as_good_on_other_patients(parteq, shared_data, tmp_path):
    with np.load(shared_data / "histo" / "malaria_cells.npz") as file:
        arrays = dict(file)
    patients = np.unique(arrays["groups"])
    held_out = np.isin(arrays["groups"], np.random.default_rng(0).permutation(patients)[: len(patients) // 3])
    for name, chosen in (("train", ~held_out), ("test", held_out)):
        parts = {key: value[chosen] for key, value in arrays.items() if len(value) == len(held_out)}
        np.savez(tmp_path / f"{name}.npz", **parts, classes=arrays["classes"])
    run, record = tmp_path / "run", tmp_path / "export.json"
    words = [
        "--data",
        tmp_path / "train.npz",
        "--limit",
        400,
        "--degree",
        "full",
        "--epochs",
        10,
        "--out",
        run,
        "--quiet",
    ]
    assert parteq("histo", "train", *words)[0] == 0
    pixels = torch.from_numpy(arrays["images"][held_out]).permute(0, 3, 1, 2).contiguous().float() / 255
    areas, sizes = [], []
    for format in ("onnx", "onnx-int8"):
        out = tmp_path / "model.onnx"
        words = ["--run", run, "--format", format, "--out", out, "--json", record, "--quiet"]
        assert parteq("histo", "export", *words)[0] == 0
        logits = torch.cat([load(out, format)(part) for part in pixels.split(256)])
        areas.append(roc_auc_score(arrays["labels"][held_out], logits[:, 1] - logits[:, 0]))
        sizes.append(out.stat().st_size)
    # After so few steps the AUC is anything from .7 to .98, as the initial weights would have it: what is tested is the
    # difference, of a network that has learned something.
    assert areas[0] > 0.65
    assert abs(areas[1] - areas[0]) <= 0.005
    assert sizes[0] >= 3 * sizes[1]
    assert json.loads(record.read_text())["orbit_max_abs_difference"] == 0
