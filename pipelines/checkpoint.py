"""Checkpoints: a trained model, and the state to train it on, in one folder that appears at once or not at all.

``model.safetensors`` holds the weights; ``model.json`` what builds the network they fit (``application``, ``model``,
the arguments of its ``create_model``), the ``classes`` it tells apart, the ``spatial`` size it was
trained on, the ``epoch`` it reached, and the ``temperature`` that calibrates it; ``training.pt``
the state of the optimiser, which only resuming needs. The weights bear the same description in their metadata, so that
``model.safetensors`` by itself is a model to go on with. No file can run code when it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from parteq.datasets.errors import DataError
from parteq.pipelines.files import parse_json, read_json, sync, write_json

__all__ = ["Checkpoint", "write_checkpoint"]

MODELS = {
    "cryoem": "parteq.apps.cryoem.inference",
    "histo": "parteq.apps.histo.models",
    "points": "parteq.apps.points.models",
}
"""The module with ``create_model`` of each application."""
LARGEST = {"width": 64, "in_chans": 4096, "box": 256}
"""What a description may ask for, lest it fill the memory before it is compared with the weights."""
_METADATA = "parteq"  # the key of the description in the metadata of the weights


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk, a folder, or a file of weights by itself.

    Everything read from it is checked; what is wrong raises a DataError.
    """

    path: Path

    def about(self) -> dict[str, Any]:
        """What ``model.json`` says, or the metadata of a file of weights."""
        path = self.description
        if self.path.is_dir():
            about = read_json(path)
        else:
            metadata = self._read()[1]
            if _METADATA not in metadata:
                raise DataError(path, "does not say which model its weights are of: give the folder of the checkpoint")
            about = parse_json(path, metadata[_METADATA])
        _check(path, about)
        return about

    def model(self) -> nn.Module:
        """The network with its weights, on the CPU, in evaluation mode."""
        about, (weights, _) = self.about(), self._read()
        try:
            model: nn.Module = import_module(MODELS[about["application"]]).create_model(**about["model"])
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(self.description, f"describes no model: {error}") from error
        try:
            model.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(self.weights, f"does not fit the model it is said to be: {reason}") from error
        if not all(torch.isfinite(tensor).all() for tensor in weights.values() if tensor.is_floating_point()):
            raise DataError(self.weights, "has weights that are not finite")
        return model.eval()

    @property
    def description(self) -> Path:
        """The file that says what model the weights are of."""
        return self.path / "model.json" if self.path.is_dir() else self.path

    @property
    def weights(self) -> Path:
        """The file of weights."""
        return self.path / "model.safetensors" if self.path.is_dir() else self.path

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the file of weights."""
        try:
            with self.weights.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(self.weights, error.strerror or str(error)) from error

    def _read(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The weights and their metadata."""
        try:
            with safe_open(self.weights, "pt") as file:
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise DataError(self.weights, f"holds no weights: {error}") from error

    def training_state(self) -> dict[str, Any]:
        """The state to resume from, for `parteq.core.training.fit`."""
        path = self.path / "training.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            raise DataError(path, f"holds no state to resume from ({type(error).__name__})") from error
        if not isinstance(state, dict) or not isinstance(state.get("optimiser"), dict):
            raise DataError(path, "holds no state to resume from")
        return state


def _check(path: Path, about: dict[str, Any]) -> None:
    """Refuses a description that a model could not be made from."""
    for key, kind in (("application", str), ("model", dict), ("classes", list), ("spatial", list), ("epoch", int)):
        if not isinstance(about.get(key), kind):
            raise DataError(path, f"has no {key!r}, or of the wrong type")
    if not all(isinstance(name, str) for name in about["classes"]):
        raise DataError(path, "has classes that are no text")
    if not all(isinstance(size, int) and size > 0 for size in about["spatial"]):
        raise DataError(path, "has a spatial size that is no number of pixels")
    if about["model"].get("num_classes", 0) != len(about["classes"]) or about["model"].get("features_only"):
        raise DataError(path, "names more or fewer classes than its model tells apart")
    for key, most in LARGEST.items():
        value = about["model"].get(key, 1)
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, int | float) or not 0 < number <= most:
                raise DataError(path, f"describes no model: {key} must lie between 0 and {most}")
    temperature = about.get("temperature", 1.0)
    if not isinstance(temperature, float) or not 0 < temperature < math.inf:
        raise DataError(path, "has a temperature that is no positive number")
    if about["application"] not in MODELS:
        raise DataError(path, f"is of an unknown application {about['application']!r}")


def write_checkpoint(path: Path, model: nn.Module, about: dict[str, Any], state: dict[str, Any]) -> None:
    """Writes a checkpoint; a kill at any moment leaves either all of it or nothing under this name.

    Raises:
        DataError: it cannot be written, as on a full disk, or could not be read again.
    """
    _check(path, about)
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    # Copies: layers may share a density, and no two names of one file may stand for the same memory.
    weights = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in model.state_dict().items()}
    # In memory first: where there is no room, those who write files themselves fail each in a way of its own.
    training = io.BytesIO()
    torch.save(state, training)
    try:
        (temporary / "training.pt").write_bytes(training.getvalue())
        described = save(weights, {_METADATA: json.dumps(about, allow_nan=False)})
        (temporary / "model.safetensors").write_bytes(described)
        write_json(temporary / "model.json", about)
    except (OSError, DataError) as error:
        shutil.rmtree(temporary)
        raise DataError(path, getattr(error, "strerror", None) or str(error)) from error
    for file in temporary.iterdir():
        sync(file)
    sync(temporary)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)
    sync(path.parent)
