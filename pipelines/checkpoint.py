"""Checkpoints: a trained model, and the state to train it on, in one folder that appears at once or not at all.

``model.safetensors`` holds the weights; ``model.json`` what builds the network they fit (``application``, ``model``,
the arguments of its ``create_model``), the ``classes`` it tells apart, the ``spatial`` size it was
trained on, and the ``epoch`` it reached; ``training.pt``
the state of the optimiser, which only resuming needs. No file can run code when it is read.
"""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from parteq.datasets.errors import DataError
from parteq.pipelines.files import read_json, sync, write_json

__all__ = ["Checkpoint", "write_checkpoint"]

MODELS = {"histo": "parteq.apps.histo.models"}
"""The module with ``create_model`` of each application."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk. Everything read from it is checked; what is wrong raises a DataError."""

    path: Path

    def about(self) -> dict[str, Any]:
        """What ``model.json`` says."""
        path = self.path / "model.json"
        about = read_json(path)
        for key, kind in (("application", str), ("model", dict), ("classes", list), ("spatial", list), ("epoch", int)):
            if not isinstance(about.get(key), kind):
                raise DataError(path, f"has no {key!r}, or of the wrong type")
        if not all(isinstance(name, str) for name in about["classes"]):
            raise DataError(path, "has classes that are no text")
        if not all(isinstance(size, int) and size > 0 for size in about["spatial"]):
            raise DataError(path, "has a spatial size that is no number of pixels")
        if about["model"].get("num_classes") != len(about["classes"]):
            raise DataError(path, "names more or fewer classes than its model tells apart")
        if about["application"] not in MODELS:
            raise DataError(path, f"is of an unknown application {about['application']!r}")
        return about

    def model(self) -> nn.Module:
        """The network with its weights, on the CPU, in evaluation mode."""
        path = self.path / "model.safetensors"
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(path, f"holds no weights: {error}") from error
        about = self.about()
        try:
            model: nn.Module = import_module(MODELS[about["application"]]).create_model(**about["model"])
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(self.path / "model.json", f"describes no model: {error}") from error
        try:
            model.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(path, f"does not fit the model of model.json: {reason}") from error
        if not all(torch.isfinite(tensor).all() for tensor in weights.values() if tensor.is_floating_point()):
            raise DataError(path, "has weights that are not finite")
        return model.eval()

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


def write_checkpoint(path: Path, model: nn.Module, about: dict[str, Any], state: dict[str, Any]) -> None:
    """Writes a checkpoint; a kill at any moment leaves either all of it or nothing under this name."""
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary / "model.safetensors"
    )
    torch.save(state, temporary / "training.pt")
    write_json(temporary / "model.json", about)
    for file in temporary.iterdir():
        sync(file)
    sync(temporary)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)
    sync(path.parent)
