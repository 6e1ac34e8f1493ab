"""Writing a trained model as a plain network that needs neither parteq nor escnn, and checking what was written.

All formats take ``images``, float32 N×C×… in 0…1 of the size trained on and any N, and give ``logits``, N×classes.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from parteq.core.export import fold, plain_program
from parteq.core.training import at_a_time
from parteq.datasets.errors import DataError
from parteq.pipelines.files import replacing

__all__ = ["Format", "export", "load"]

Format = Literal["torch", "onnx", "onnx-int8"]
"""A program of `torch.export`; a single ONNX file in float32; one in integers of 8 bits."""

TOLERANCE = 1e-4


def export(
    model: nn.Module, images: Tensor, format: Format, path: Path, about: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Folds a model, writes it, and runs what was written.

    Args:
        model: trained.
        images: float32 N×C×… in 0…1. What was written is compared with the model on them; the ranges of the integers of
            ``onnx-int8`` are those of the features of these images, which should therefore be some hundred typical
            ones.
        format: of the file.
        path: of the file.
        about: what the file says of itself, text by name: metadata of ONNX files, extra files of programs.

    Returns:
        ``out``, ``format``, ``bytes``; ``n`` images, and on them ``max_abs_difference`` between the logits of the file
        and of the model, and, of more than one logit, ``top1_agreement``, the share that both put into the same class.

    Raises:
        DataError: if the file cannot be written, a package is missing, or what was written computes something else.
    """
    if format != "torch":
        _require_packages(path)
    model = model.eval().cpu()
    parts = images.split(at_a_time(images.shape[1:]))
    with torch.inference_mode():
        expected = torch.cat([model(part) for part in parts])
    with replacing(path) as temporary:
        with _quietly():
            _WRITERS[format](model, images, temporary, about or {})
            written = load(temporary, format)
            found = torch.cat([written(part) for part in parts])
        difference = float((found - expected).abs().max())
        exact = difference <= TOLERANCE * max(1.0, float(expected.abs().max()))
        if not (exact if format != "onnx-int8" else found.isfinite().all()):
            raise DataError(path, f"was not written: its logits differ from the model's by {difference:.2g}")
    same = {"top1_agreement": float((found.argmax(1) == expected.argmax(1)).double().mean())}
    return {
        "out": str(path),
        "format": format,
        "bytes": path.stat().st_size,
        "n": len(images),
        "max_abs_difference": difference,
        **(same if expected.shape[1] > 1 else {}),
    }


def load(path: Path, format: Format) -> Callable[[Tensor], Tensor]:
    """A file that `export` wrote, as a function from images to logits; ONNX runs on a single thread."""
    if format == "torch":
        # By its content: torch warns of names that do not end in .pt2.
        return torch.export.load(io.BytesIO(path.read_bytes())).module()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _write_torch(model: nn.Module, images: Tensor, path: Path, about: Mapping[str, str]) -> None:
    # The example is kept in the file, so it is none of the images. In memory first: a full disk aborts what torch does.
    content = io.BytesIO()
    torch.export.save(plain_program(model, torch.zeros_like(images[:2])), content, extra_files=dict(about))
    path.write_bytes(content.getvalue())


def _write_onnx(model: nn.Module, images: Tensor, path: Path, about: Mapping[str, str]) -> None:
    import onnx_ir

    onnx_ir.save(_onnx(model, images, about), path)


def _write_onnx_int8(model: nn.Module, images: Tensor, path: Path, about: Mapping[str, str]) -> None:
    from parteq.pipelines.quantize import quantize

    quantize(_onnx(model, images, about), images.numpy(), path)


def _onnx(model: nn.Module, images: Tensor, about: Mapping[str, str]) -> Any:
    """The folded model as an `onnx_ir.Model`, without the notes that the exporter takes of every node."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = torch.onnx.export(
        fold(model),
        (images[:2],),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    plain = ClearMetadataAndDocStringPass()(program.model).model
    plain.metadata_props.update(about)
    return plain


_WRITERS: dict[Format, Callable[[nn.Module, Tensor, Path, Mapping[str, str]], None]] = {
    "torch": _write_torch,
    "onnx": _write_onnx,
    "onnx-int8": _write_onnx_int8,
}


def _require_packages(path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise DataError(path, f"needs the package {package}: pip install 'parteq[export]'")


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the exporters, which print and warn at every step, from doing so."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
