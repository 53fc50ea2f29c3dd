"""Float32 weights -> 4-bit weights: every `MatMul` with a constant matrix becomes a `MatMulNBits` node.

Blocks of 32 along K, symmetric around 8, one float32 scale a block; activations stay float32.
Operator: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from splitllm.errors import ExportError
from splitllm.types import Float32Array

from .graph import initializers

BLOCK: Final = 32
#: 0 computes in float32. 4 (int8 activations) is faster on some CPUs and cost 0.06 of error on the logits.
_ACCURACY_LEVEL: Final = 0


def quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model with 4-bit weights.

    Raises:
        ExportError: a matrix whose input width is no multiple of 32.
    """
    quantized: onnx.ModelProto = onnx.ModelProto.FromString(model.SerializeToString())
    graph = quantized.graph
    tensors = initializers(graph)
    for place, node in enumerate(list(graph.node)):
        if node.op_type != "MatMul" or node.input[1] not in tensors or len(tensors[node.input[1]].dims) != 2:
            continue
        weight = numpy_helper.to_array(tensors[node.input[1]])
        k, n = weight.shape
        if k % BLOCK:
            raise ExportError(
                f"{node.name} is {k} wide, 4-bit weights come in blocks of {BLOCK}; export with --client-dtype float32"
            )
        packed, scales = pack(np.ascontiguousarray(weight.T, dtype=np.float32))
        new = [
            numpy_helper.from_array(packed, f"{node.name}.packed"),
            numpy_helper.from_array(scales, f"{node.name}.scales"),
        ]
        attributes: dict[str, Any] = {"K": k, "N": n, "bits": 4, "block_size": BLOCK, "accuracy_level": _ACCURACY_LEVEL}
        inputs = [node.input[0], *(tensor.name for tensor in new)]
        graph.node.remove(node)
        graph.node.insert(
            place,
            helper.make_node("MatMulNBits", inputs, node.output, node.name, domain="com.microsoft", **attributes),
        )
        index = next(i for i, tensor in enumerate(graph.initializer) if tensor.name == node.input[1])
        del graph.initializer[index]
        for offset, tensor in enumerate(new):
            graph.initializer.insert(index + offset, tensor)
    return quantized


def pack(weight: Float32Array) -> tuple[NDArray[np.uint8], Float32Array]:
    """`weight` float32[N, K] -> packed uint8[N, K / 32, 16] (even element in the low half), scales float32[N, K / 32].

    A weight is (q - 8) · scale with q in 0..15. A block's largest value becomes -8 · scale exactly, so the scale
    carries its sign. This is the rule of ONNX Runtime's own quantizer, and the one that tiny-chat was trained with.
    """
    n, k = weight.shape
    blocks = weight.reshape(n, k // BLOCK, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    scales = largest / np.float32(-8)
    levels = np.rint(np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales != 0)) + 8
    levels = np.clip(levels, 0, 15).astype(np.uint8)
    packed = levels[..., 0::2] | (levels[..., 1::2] << 4)
    return np.ascontiguousarray(packed), np.ascontiguousarray(scales[..., 0])


def unpack(packed: NDArray[np.uint8], scales: Float32Array) -> Float32Array:
    """The float32[N, K] matrix that `pack`'s result stands for."""
    levels = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], BLOCK).astype(np.float32)
    return ((levels - 8) * scales[..., None]).reshape(packed.shape[0], -1).astype(np.float32)
