"""A float32 ONNX network in integers of 8 bits, on which symmetry is exact.

Weights are signed, symmetric about 0, with a scale for each output channel; features are unsigned, with a scale and a
zero point for each tensor, from the ranges they have on the images given. The file is in the QDQ format, made of
standard operators alone: onnxruntime melts the pairs around each convolution, sum, mean and linear map into the integer
form of it.

Such a form sums integers, in any order with the same result, and rounds each number by itself. So a turn of the image
that permutes pixels and channels of all features, and leaves the quantised weights alone, leaves every bit of the
logits alone. Weights are alike along an orbit because `parteq.core.export.fold` makes them so, and then so are the
scales of the channels, which go by the largest weight. What remains is

- the mean over the image, written as the reduction of a float tensor: it becomes a pooling, which has an integer form;
- a norm that no convolution could take in: it becomes a convolution of each channel by one weight, which 8 bits and a
  scale a channel hold as it is;
- anti-aliasing filters, whose weights are whole numbers times a power of two: scales are chosen to keep them exactly.

For speed alone, convolutions of each channel by itself get channels of zeros, up to a number onnxruntime is fast at.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray
from onnx_ir.passes.common import DeduplicateInitializersPass, RemoveUnusedNodesPass
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxscript.rewriter import pattern, rewrite

from parteq.core.training import at_a_time

__all__ = ["quantize"]

OPERATORS = ["Conv", "Relu", "Clip", "Add", "Concat", "GlobalAveragePool", "Flatten", "Gemm"]
"""What has an integer form; the rest, such as the normalisation of the images, is computed in float32."""
_CLIPPING = ("Relu", "Clip")
_LANES = 16
"""Channels that onnxruntime takes at a time where each is convolved by itself; any left over make it half as fast."""


def quantize(model: onnx_ir.Model, images: NDArray[np.float32], path: Path) -> None:
    """Writes a network in 8 bits.

    Args:
        model: with the input ``images``; it is changed, its metadata are kept.
        images: to calibrate on, (n, channels, *grid).
        path: of the ONNX file.
    """
    rules = [pattern.RewriteRule(_mean, _pooling), pattern.RewriteRule(_norm, _convolution)]
    rewrite(model, pattern_rewrite_rules=rules)
    _fill_lanes(model)
    quantize_static(
        onnx_ir.to_proto(model),
        path,
        _Batches(images),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=OPERATORS,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={
            # The logits are what is asked for: they stay as fine as their sums are.
            "OpTypesToExcludeOutputQuantization": ["Gemm"],
            "TensorQuantOverrides": _exact_scales(model),
        },
    )
    file = _shortened(onnx_ir.load(path))
    onnx.helper.set_model_props(file, dict(model.metadata_props))
    onnx.save(file, path)


class _Batches(CalibrationDataReader):
    """Hands out the images in batches."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        size = at_a_time(images.shape[1:])
        self.batches = iter(np.split(images, range(size, len(images), size)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def _mean(op: Any, features: Any, shape: Any, axes: Any) -> Any:
    flat = op.Reshape(features, shape, _allow_other_attributes=True)
    return op.ReduceMean(flat, axes, _allow_other_attributes=True)


def _pooling(op: Any, features: Any, shape: Any, axes: Any) -> Any:
    return op.Flatten(op.GlobalAveragePool(features))


def _norm(op: Any, features: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> Any:
    return op.BatchNormalization(features, scale, shift, mean, variance, _outputs=["normed"])


def _convolution(op: Any, features: Any, scale: Any, shift: Any, mean: Any, variance: Any, normed: Any) -> Any:
    epsilon = normed.producer().attributes.get_float("epsilon", 1e-5)
    numbers = [value.const_value.numpy() for value in (scale, shift, mean, variance)]
    weight = numbers[0] / np.sqrt(numbers[3] + np.float32(epsilon))
    bias = numbers[1] - weight * numbers[2]
    kernel = weight.reshape(-1, *[1] * (len(features.shape) - 1))
    new = [
        op.initializer(onnx_ir.tensor(array), name=f"{normed.name}_{name}")
        for name, array in (("weight", kernel), ("bias", bias))
    ]
    return op.Conv(features, *new, group=len(weight))


def _fill_lanes(model: onnx_ir.Model) -> None:
    """Adds channels of zeros to convolutions of each channel by itself that stand between two of all channels."""
    for node in model.graph:
        extra = -_groups(node) % _LANES
        if _groups(node) == 1 or not extra:
            continue
        weight: Any = node.inputs[1]
        before, after = _convolution_before(node), _convolution_after(node)
        if tuple(weight.shape[:2]) != (_groups(node), 1) or before is None or after is None:
            continue
        if _groups(before) != 1 or _groups(after) != 1:
            continue
        grown: list[tuple[Any, int]] = [(value, 0) for conv in (before, node) for value in conv.inputs[1:]]
        grown.append((after.inputs[1], 1))
        if all(value.const_value is not None and len(value.uses()) == 1 for value, _ in grown):
            for value, axis in grown:
                _grow(value, axis, extra)
            node.attributes["group"] = onnx_ir.AttrInt64("group", _groups(node) + extra)
    for value in _inside(model):
        value.shape = None


def _groups(node: onnx_ir.Node) -> int:
    """How many groups of channels a convolution keeps apart; 1 for all other nodes."""
    return node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1


def _convolution_before(node: Any) -> Any:
    """The convolution whose output, clipped or not, a node takes, if nothing else takes it."""
    found = node.inputs[0].producer()
    if found is not None and found.op_type in _CLIPPING and len(node.inputs[0].uses()) == 1:
        return _convolution_before(found)
    alone = found is not None and found.op_type == "Conv" and len(found.outputs[0].uses()) == 1
    return found if alone else None


def _convolution_after(node: Any) -> Any:
    """The convolution that takes the output of a node, clipped or not, if nothing else takes it."""
    uses = [use.node for use in node.outputs[0].uses()]
    found = uses[0] if len(uses) == 1 else None
    if found is not None and found.op_type in _CLIPPING:
        return _convolution_after(found)
    return found if found is not None and found.op_type == "Conv" else None


def _grow(value: Any, axis: int, extra: int) -> None:
    """Adds zeros to weights along an axis."""
    array = value.const_value.numpy()
    filled = np.pad(array, [(0, extra if number == axis else 0) for number in range(array.ndim)])
    value.const_value = onnx_ir.tensor(filled, name=value.name)
    value.shape = onnx_ir.Shape(filled.shape)


def _exact_scales(model: onnx_ir.Model) -> dict[str, list[dict[str, Any]]]:
    """The scale of each kernel of whole numbers times a power of two that 8 bits can hold, the same in all channels."""
    found = {}
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        kernel = value.const_value.numpy()
        if kernel.ndim > 2 and (largest := np.abs(kernel).max()) > 0:
            scale = np.float32(2.0 ** -np.floor(np.log2(127 / largest)))
            if (kernel / scale == np.round(kernel / scale)).all():
                exact = {"axis": 0, "quant_type": QuantType.QInt8, "scale": scale, "zero_point": np.int8(0)}
                found[name] = [exact] * len(kernel)
    return found


def _shortened(model: onnx_ir.Model) -> onnx.ModelProto:
    """The file without names and shapes of what lies inside and zero points of biases, a seventh of a small one."""
    for node in model.graph:
        zero = node.inputs[2] if node.op_type == "DequantizeLinear" else None
        if zero is not None and zero.dtype == onnx_ir.DataType.INT32:
            node.replace_input_with(2, None)  # it is 0, as it must be for biases
    DeduplicateInitializersPass()(model)
    RemoveUnusedNodesPass()(model)
    for number, value in enumerate([*model.graph.initializers.values(), *_inside(model)]):
        value.name = str(number)
    for node in model.graph:
        node.name = None
    file = onnx_ir.to_proto(model)
    file.graph.ClearField("value_info")
    return file


def _inside(model: onnx_ir.Model) -> list[onnx_ir.Value]:
    """What the nodes compute that is not an output."""
    return [value for node in model.graph for value in node.outputs if value not in model.graph.outputs]
