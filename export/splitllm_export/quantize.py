"""Float32 matrices -> 4-bit or 8-bit matrices: a `MatMul` with a constant matrix becomes a `MatMulNBits` node.

Symmetric around the middle level, one float32 scale for each block of a row; activations stay float32.
Operator: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
Block sizes and accuracy levels were measured: docs/decisions/weight-variants.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, helper

from splitllm.errors import ExportError
from splitllm.types import Float32Array

from .weightless import PIECE_BYTES, Part, Weight, key_of, placeholder

#: The smallest block that the kernels of all runtimes take; matrices are wide in multiples of it.
SMALLEST_BLOCK: Final = 32
#: A matrix with fewer outputs than a 16th of its inputs (a router of experts) weighs little and steers much: it stays.
_NARROW: Final = 16


@dataclass(frozen=True, slots=True)
class Format:
    """`bits` a weight; `block` weights share a scale, or as many as divide a row; see ORT's `accuracy_level`.

    Level 0 computes with float32 activations; 4 rounds activations to 8 bits and multiplies integers.
    """

    bits: int
    block: int
    accuracy_level: int

    def block_of(self, width: int) -> int:
        """The block size for rows of `width` weights; 0 if there is none."""
        sizes = (self.block >> shift for shift in range(self.block.bit_length()))
        return next((size for size in sizes if size >= SMALLEST_BLOCK and width % size == 0), 0)


INT4: Final = Format(bits=4, block=32, accuracy_level=0)
#: `INT4`'s weights as a server on a CPU multiplies them.
INT4_SERVER: Final = Format(bits=4, block=32, accuracy_level=4)
INT8: Final = Format(bits=8, block=128, accuracy_level=4)


def quantize(part: Part, form: Format) -> Part:
    """A copy of the part with quantized matrices.

    Raises:
        ExportError: a matrix whose input width is no multiple of 32.
    """
    quantized = Part(onnx.ModelProto.FromString(part.model.SerializeToString()), dict(part.weights))
    graph = quantized.model.graph
    places = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        key = key_of(places[node.input[1]]) if node.op_type == "MatMul" and node.input[1] in places else None
        if key is None or len(part.weights[key].shape) != 2:
            continue
        k, n = part.weights[key].shape
        if n * _NARROW < k:
            continue
        block = form.block_of(k)
        if not block:
            raise ExportError(
                f"{node.name} is {k} wide, {form.bits}-bit weights come in blocks of {SMALLEST_BLOCK}; "
                "export with --client-dtype float32"
            )
        matrix = _Quantized(part.weights[key], form.bits, block)
        blocks = k // block
        new: dict[str, tuple[Callable[[], Iterator[NDArray[Any]]], tuple[int, ...], int]] = {
            "packed": (matrix.packed, (n, blocks, block * form.bits // 8), onnx.TensorProto.UINT8),
            "scales": (matrix.scales, (n, blocks), onnx.TensorProto.FLOAT),
        }
        inputs = [node.input[0]]
        for kind, (pieces, shape, dtype) in new.items():
            name = f"{node.name}.{kind}"
            quantized.weights[name] = Weight(shape, pieces=pieces)
            _insert(graph, node.input[1], placeholder(name, shape, name, dtype))
            inputs.append(name)
        attributes = {"K": k, "N": n, "bits": form.bits, "block_size": block, "accuracy_level": form.accuracy_level}
        _replace(graph, node, inputs, attributes)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return quantized


def set_accuracy_level(model: onnx.ModelProto, level: int) -> None:
    """Let a graph multiply its quantized matrices at another accuracy level; their weights stay as they are."""
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            next(attribute for attribute in node.attribute if attribute.name == "accuracy_level").i = level


def _insert(graph: onnx.GraphProto, before: str, tensor: onnx.TensorProto) -> None:
    graph.initializer.insert(next(i for i, t in enumerate(graph.initializer) if t.name == before), tensor)


def _replace(graph: onnx.GraphProto, node: NodeProto, inputs: list[str], attributes: dict[str, Any]) -> None:
    place = list(graph.node).index(node)
    new = helper.make_node("MatMulNBits", inputs, node.output, node.name, domain="com.microsoft", **attributes)
    graph.node.remove(node)
    graph.node.insert(place, new)


class _Quantized:
    """A matrix [K, N] as packed levels and scales, made a piece at a time; the scales are kept from packing."""

    def __init__(self, source: Weight, bits: int, block: int) -> None:
        self._source, self._bits, self._block = source, bits, block
        self._scales: list[Float32Array] = []

    def packed(self) -> Iterator[NDArray[np.uint8]]:
        matrix: Any = self._source.open().t()  # as the checkpoint has it: a row for each output
        rows = max(1, PIECE_BYTES // (4 * matrix.shape[1]))
        self._scales = []
        for piece in matrix.split(rows):
            packed, scales = pack(piece.float().contiguous().numpy(), self._bits, self._block)
            self._scales.append(scales)
            yield packed

    def scales(self) -> Iterator[Float32Array]:
        if not self._scales:
            for _ in self.packed():
                pass
        kept, self._scales = self._scales, []
        yield from kept


def pack(weight: Float32Array, bits: int = 4, block: int = SMALLEST_BLOCK) -> tuple[NDArray[np.uint8], Float32Array]:
    """`weight` float32[N, K] -> packed uint8[N, K / block, block · bits / 8], scales float32[N, K / block].

    A weight is (q - middle) · scale with q in 0..2^bits - 1 and middle 2^(bits - 1). A block's largest value becomes
    -middle · scale exactly, so the scale carries its sign. This is the rule of ONNX Runtime's own quantizer, and the
    one that tiny-chat was trained with. Two 4-bit levels share a byte, the even one in the low half.
    """
    n, k = weight.shape
    middle = 1 << (bits - 1)
    blocks = torch.from_numpy(weight).reshape(n, k // block, block)
    high, low = blocks.amax(-1, keepdim=True), blocks.amin(-1, keepdim=True)
    largest = torch.where(high > -low, high, low)
    tied = (high == -low)[..., 0]
    if tied.any():  # then it is the first of them
        both = blocks[tied]
        largest[tied] = both.gather(-1, both.abs().argmax(-1, keepdim=True))
    scales = largest / -middle
    steps = blocks / torch.where(scales != 0, scales, 1.0)
    packed = steps.round_().add_(middle).clamp_(0, 2 * middle - 1).to(torch.uint8)
    if bits == 4:
        pairs = packed.view(torch.int16)  # the even level in the low byte
        packed = (pairs | (pairs >> 4)).to(torch.uint8)
    return packed.contiguous().numpy(), scales[..., 0].contiguous().numpy()


def unpack(packed: NDArray[np.uint8], scales: Float32Array, bits: int = 4) -> Float32Array:
    """The float32[N, K] matrix that `pack`'s result stands for."""
    levels = packed if bits == 8 else np.stack([packed & 15, packed >> 4], -1)
    levels = levels.reshape(*packed.shape[:2], -1).astype(np.float32)
    return ((levels - (1 << (bits - 1))) * scales[..., None]).reshape(packed.shape[0], -1).astype(np.float32)
