"""Writing a trained model as a plain network that needs neither parteq nor escnn, and checking what was written.

Both formats take ``images``, float32 N×C×… in 0…1 of the size trained on and any N, and give ``logits``, N×classes.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from parteq.core.export import fold, plain_program
from parteq.datasets.errors import DataError
from parteq.pipelines.files import replacing

__all__ = ["export"]

TOLERANCE = 1e-4


def export(model: nn.Module, shape: tuple[int, ...], format: Literal["torch", "onnx"], path: Path) -> dict[str, Any]:
    """Folds a model and writes it.

    Args:
        model: trained.
        shape: of one image, channels first.
        format: ``torch`` for a program of `torch.export`, to be loaded with ``torch.export.load(path).module()``;
            ``onnx`` for a single ONNX file.
        path: of the file.

    Returns:
        ``out``, ``format``, ``bytes``, and ``max_abs_difference`` between the logits of the file and of the model.

    Raises:
        DataError: if the file cannot be written, a package is missing, or what was written computes something else.
    """
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    model = model.eval().cpu()
    with torch.inference_mode():
        expected = model(images)
    write, run = {"torch": (_write_torch, _run_torch), "onnx": (_write_onnx, _run_onnx)}[format]
    with replacing(path) as temporary:
        with _quietly():
            write(model, images, temporary)
            difference = float((run(temporary, images) - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise DataError(path, f"was not written: its logits differ from the model's by {difference:.2g}")
    return {"out": str(path), "format": format, "bytes": path.stat().st_size, "max_abs_difference": difference}


def _write_torch(model: nn.Module, images: Tensor, path: Path) -> None:
    torch.export.save(plain_program(model, images), path)


def _run_torch(path: Path, images: Tensor) -> Tensor:
    logits: Tensor = torch.export.load(path).module()(images)
    return logits


def _write_onnx(model: nn.Module, images: Tensor, path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise DataError(path, f"needs the package {package}: pip install 'parteq[export]'")
    torch.onnx.export(
        fold(model),
        (images,),
        path,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )


def _run_onnx(path: Path, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the exporters, which print and warn at every step, from doing so."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
