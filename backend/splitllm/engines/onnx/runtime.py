"""Sessions, devices, and memory that is not the computer's own."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from ...bundle import BlockFiles, HeadFiles
from ...errors import BundleError, MachineError
from ..memory import ASIDE, HostMemory, Memory, RowMove, Tensor, host_tensor, one_by_one

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


#: How long a thread looks for work before it sleeps, in sessions whose runs are long. Longer gains less than it costs
#: where other processes want the core (docs/decisions/blocks-joined.md).
_SPIN_US: Final = 20


def session_options(threads: int, *, spinning: bool = False) -> ort.SessionOptions:
    """Options for one of dozens of sessions in this process, or of a few that may keep their threads `spinning`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if spinning:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
        options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs nobody spins
    else:
        # Spinning threads of dozens of sessions fight for the cores: 607 ms a step with, 34 ms without (30 blocks).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def load(files: BlockFiles | HeadFiles, options: ort.SessionOptions, device: str) -> ort.InferenceSession:
    """A session on `device`, which must have been resolved.

    Raises:
        BundleError: the runtime cannot load the graph.
    """
    return _session(str(files.graph), files.graph.name, options, device)


def load_joined(
    model: bytes, arrays: Mapping[str, NDArray[Any]], folder: Path, threads: int, device: str
) -> ort.InferenceSession:
    """A session of a model whose weights are `arrays` or lie in files of `folder`. `device` must have been resolved.

    Raises:
        BundleError: the runtime cannot load the model.
    """
    options = session_options(threads, spinning=True)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    # The runtime packs them for its kernels and lets go of them with these options.
    options.add_external_initializers(list(arrays), [ort.OrtValue.ortvalue_from_numpy(a) for a in arrays.values()])
    return _session(model, "the joined blocks", options, device)


def _session(model: str | bytes, name: str, options: ort.SessionOptions, device: str) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=_providers(device))
    except Exception as error:  # the runtime raises its own classes, which share no base below Exception
        raise BundleError(
            f"ONNX Runtime cannot load {name} ({str(error).splitlines()[0][:200]}); export the bundle again"
        ) from None


def _providers(device: str) -> list[str]:
    return [_PROVIDERS[device]] if device == "cpu" else [_PROVIDERS[device], _PROVIDERS["cpu"]]


def bind(bind_one: Callable[..., None], name: str, tensor: Tensor, first: int, shape: Sequence[int]) -> None:
    """Bind the part of a tensor that begins at index `first` of its first axis."""
    bind_one(name, tensor.device, 0, tensor.dtype.type, list(shape), tensor.pointer + first * tensor.row_bytes)


def resolve_device(device: str, variants: Sequence[str] = ("float16",)) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`. `variants`: those of the bundle's blocks.

    `auto` is CUDA where the runtime finds a card and the bundle has what runs on it.

    Raises:
        MachineError: `cuda` was asked for by name, and this machine or its runtime has none.
        BundleError: `cuda` was asked for by name, and the bundle has no float16 blocks.
    """
    if device == "cpu":
        return device
    missing = _why_no_cuda()
    if missing is None and "float16" in variants:
        return "cuda"
    if device == "auto":
        return "cpu"
    if missing is not None:
        raise MachineError(f"CUDA cannot be used: {missing}; use --device cpu, or install `splitllm[gpu]`")
    raise BundleError(
        "CUDA needs float16 blocks, and this bundle has none; export it with `--server-dtype float16`",
        code="variant_unavailable",
    )


def _why_no_cuda() -> str | None:
    if _PROVIDERS["cuda"] not in ort.get_available_providers():
        return "this ONNX Runtime is built for the CPU only"
    with contextlib.suppress(Exception):  # the runtime raises its own classes, or falls back without a word
        if _copy_session("cuda").get_providers()[0] == _PROVIDERS["cuda"]:
            return None
    return "ONNX Runtime finds no card, driver or CUDA libraries that it can use"


def runtime_description() -> dict[str, Any]:
    """Version and providers of the runtime, for reports."""
    return {"onnxruntime": ort.__version__, "providers": ort.get_available_providers()}


def memory_of(device: str) -> Memory:
    """The memory that engines on a device compute in."""
    return HostMemory() if device == "cpu" else DeviceMemory(device)


class DeviceMemory:
    """Memory that the runtime allocates on a device. What moves in it is moved by a graph of one Identity node.

    Works on the device `cpu` too, which is how it is tested where there is no card.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._session = _copy_session(device)
        self._aside: dict[tuple[int, np.dtype[Any]], Tensor] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor:
        """See Memory."""
        dtype = np.dtype(dtype)
        value = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, self.device, 0)
        tensor = Tensor(shape, dtype, self.device, value.data_ptr(), value)
        self._copy("cpu", np.zeros(max(1, shape[0]) * tensor.row_bytes, np.uint8), tensor, 0)
        return tensor

    def kv_rows(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceKvRows:
        """See Memory."""
        return DeviceKvRows(self, shape, dtype)

    def upload(self, array: NDArray[Any], target: Tensor) -> None:
        """See Memory."""
        self._copy("cpu", np.ascontiguousarray(array, target.dtype).reshape(-1).view(np.uint8), target, 0)

    def copy_rows(self, source: Tensor, first: int, target: Tensor, to: int, count: int) -> None:
        """See Memory."""
        size = count * source.row_bytes
        self._run(
            (source.device, source.pointer + first * source.row_bytes),
            (target.device, target.pointer + to * target.row_bytes),
            size,
        )

    def download(self, source: Tensor, first: int, count: int) -> NDArray[Any]:
        """See Memory."""
        array = np.empty((count, *source.shape[1:]), source.dtype)
        self._run((source.device, source.pointer + first * source.row_bytes), ("cpu", array.ctypes.data), array.nbytes)
        return array

    def aside(self, like: Tensor) -> Tensor:
        """Memory for one row like those of a tensor; all users leave zeros in it."""
        key = (like.row_bytes, like.dtype)
        if key not in self._aside:
            self._aside[key] = self.empty((1, *like.shape[1:]), like.dtype)
        return self._aside[key]

    def _copy(self, device: str, data: NDArray[np.uint8], target: Tensor, to: int) -> None:
        self._run((device, data.ctypes.data), (target.device, target.pointer + to * target.row_bytes), data.nbytes)

    def _run(self, source: tuple[str, int], target: tuple[str, int], size: int) -> None:
        if size == 0:
            return
        binding = self._session.io_binding()
        binding.bind_input("source", source[0], 0, np.uint8, [size], source[1])
        binding.bind_output("target", target[0], 0, np.uint8, [size], target[1])
        self._session.run_with_iobinding(binding)


class DeviceKvRows:
    """KvRows on a device. Whole rows are copied and cleared: on a card that is cheaper than many pieces."""

    def __init__(self, memory: DeviceMemory, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._memory = memory
        self.tensor = memory.empty(shape, dtype)
        self._zeros = np.zeros(math.prod(shape[1:]), dtype)

    def move(self, moves: Sequence[RowMove]) -> None:
        """See KvRows."""
        aside = self._memory.aside(self.tensor)
        ordered = one_by_one(moves)
        for move in ordered:
            source, at = (aside, 0) if move.source == ASIDE else (self.tensor, move.source)
            if move.target == ASIDE:
                self._memory.copy_rows(source, at, aside, 0, 1)
            elif move.length:
                self._memory.copy_rows(source, at, self.tensor, move.target, 1)
            else:
                self.clear(move.target, move.used)
        if any(move.target == ASIDE for move in ordered):
            self._memory.copy_rows(host_tensor(self._zeros[None]), 0, aside, 0, 1)

    def clear(self, row: int, length: int) -> None:  # noqa: ARG002  # whole rows, see the class
        """See KvRows."""
        self._memory.copy_rows(host_tensor(self._zeros[None]), 0, self.tensor, row, 1)


def _copy_session(device: str) -> ort.InferenceSession:
    options = session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(_identity_graph(), options, providers=_providers(device))


def _identity_graph() -> bytes:
    """An ONNX model of one Identity node over bytes, `source` to `target` uint8[n].

    Written out by hand (onnx.proto, fields by number), so that serving does not need the onnx package.
    """

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    def varint(number: int, value: int) -> bytes:
        return bytes([number << 3, value])

    def value_info(name: bytes) -> bytes:
        shape = field(1, field(2, b"n"))
        return field(1, name) + field(2, field(1, varint(1, 2) + field(2, shape)))  # elem_type 2: uint8

    node = field(1, b"source") + field(2, b"target") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"copy") + field(11, value_info(b"source")) + field(12, value_info(b"target"))
    return varint(1, 8) + field(7, graph) + field(8, varint(2, 17))  # IR version 8, opset 17
