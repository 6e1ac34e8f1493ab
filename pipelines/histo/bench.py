"""``parteq histo bench``: size, work and latency of a trained classifier in every form, beside its plain twins."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from parteq.datasets.errors import DataError
from parteq.pipelines.command import RunCommand, Text

if TYPE_CHECKING:
    from torch import Tensor

    from parteq.pipelines.export import Format

__all__ = ["Bench"]

BATCHES = {1: "", 32: "batch32_"}
"""Images at a time, and what the names of their results begin with."""
FORMATS: dict[str, Format] = {"program": "torch", "onnx": "onnx", "onnx_int8": "onnx-int8"}
"""The forms that are files, and their formats."""
REFERENCE = "folded"
"""What speeds are relative to: plain torch in float32, which is faster than the model it was folded from."""
COLUMNS = {
    "parameters": "weights",
    "macs": "MACs",
    "bytes": "bytes",
    "latency_ms": "ms",
    "latency_p90_ms": "p90",
    "speedup": "speed",
    "batch32_latency_ms": "ms for 32",
    "batch32_latency_p90_ms": "p90",
    "batch32_speedup": "speed",
}
"""Results in the table, and what stands above them."""

Forward: TypeAlias = "Callable[[Tensor], Tensor]"


@dataclass(kw_only=True)
class Bench(RunCommand):
    """Compare size, work and latency of all forms of a classifier for export, on one thread of the CPU."""

    example: ClassVar[str] = "parteq histo bench --run RUN --json bench.json"

    data: Text = None
    """Images to calibrate and time with; else those trained on."""
    repeats: int = 50
    """How often each form is timed."""

    def run(self) -> dict[str, Any]:
        """Exports the classifier and its plain twins to a temporary folder and times all forms in turn."""
        import torch

        from parteq.apps.histo.models import create_model
        from parteq.apps.histo.twins import count_macs, count_parameters, plain_twin
        from parteq.pipelines.histo.examples import examples
        from parteq.pipelines.timing import single_threaded

        if self.repeats < 1:
            raise DataError(f"--repeats {self.repeats}", "must be at least 1")
        checkpoint = self.checkpoint("histo")
        model: Any = checkpoint.model()
        images = examples(checkpoint, self.run_path, self.data, "--data")
        spatial = images.shape[2:]
        about: dict[str, Any] = {
            "parameters": count_parameters(model),
            "macs": count_macs(model, spatial),
            "bytes": checkpoint.weights.stat().st_size,
        }
        networks = {"": model}
        if model.config["group"] != "none":
            twins = {
                "macs": plain_twin(model.config, "macs", spatial),
                "parameters": plain_twin(model.config, "parameters"),
            }
            networks |= {f"plain_equal_{size}_": create_model(**config).eval() for size, config in twins.items()}
        with tempfile.TemporaryDirectory() as folder, single_threaded(), torch.inference_mode():
            forms: dict[str, tuple[Forward, dict[str, Any]]] = {"eager": (model, about.copy())}
            for prefix, network in networks.items():
                forms |= {prefix + name: form for name, form in _forms(network, images, Path(folder)).items()}
            for batch, prefix in BATCHES.items():
                _time(forms, images, batch, prefix, self.repeats)
        results = {name: result for name, (_, result) in forms.items()}
        if not self.quiet:
            print(_table(results))
            self.quiet = True  # the table says it all
        flat = {f"{name}_{key}": value for name, result in results.items() for key, value in result.items()}
        return {"n": len(images), **about, **flat}


def _forms(model: Any, images: Tensor, folder: Path) -> dict[str, tuple[Forward, dict[str, Any]]]:
    """A model folded, so and channels last, and as a file of each format: functions, and what is known of them."""
    from parteq.apps.histo.twins import count_macs, count_parameters
    from parteq.core.export import fast_forward, fold
    from parteq.pipelines.export import export, load

    folded = fold(model)
    known = {"parameters": count_parameters(folded), "macs": count_macs(model, images.shape[2:])}
    forms: dict[str, tuple[Forward, dict[str, Any]]] = {
        "folded": (folded, known.copy()),
        "folded_channels_last": (fast_forward(model, images.dim() - 2), known.copy()),
    }
    for name, format in FORMATS.items():
        written = export(model, images, format, folder / name)
        kept = {key: written[key] for key in ("bytes", "max_abs_difference", "top1_agreement")}
        forms[name] = load(folder / name, format), known | kept
    return forms


def _time(
    forms: dict[str, tuple[Forward, dict[str, Any]]], images: Tensor, batch: int, prefix: str, repeats: int
) -> None:
    """Adds the latencies for so many images at a time to what is known; large batches are timed less often."""
    from parteq.pipelines.timing import latencies

    # Batches of more images than there are repeat some.
    part = images[[index % len(images) for index in range(batch)]]
    calls = {name: partial(function, part) for name, (function, _) in forms.items()}
    times = latencies(calls, math.ceil(repeats / math.sqrt(batch)))
    reference = float(np.median(times[REFERENCE]))
    for name, milliseconds in times.items():
        median, slow = np.percentile(milliseconds, [50, 90]).tolist()
        measured = {"latency_ms": median, "latency_p90_ms": slow, "speedup": reference / median}
        forms[name][1].update({prefix + key: value for key, value in measured.items()})


def _table(results: dict[str, dict[str, Any]]) -> str:
    """The results side by side, a line a form."""
    rows = [["", *COLUMNS.values()]]
    for name, result in results.items():
        rows.append([name.replace("_", " "), *(_cell(result.get(key)) for key in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(line) for line in lines)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
