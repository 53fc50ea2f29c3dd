"""Files of a bundle, their hashes and manifest.json (protocol/BUNDLE.md)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

import splitllm
from splitllm.bundle import CHUNK_BYTES, DTYPES, MANIFEST_NAME
from splitllm.types import Float32Array, SamplingParams

from .decoder import Sizes
from .quantize import set_accuracy_level
from .source import Texts
from .weightless import Part, key_of

#: Tensors smaller than this stay in the graph (shapes, scalars).
_INLINE_BYTES: Final = 128
#: Weights start at multiples of this, so that a typed array can view them where they lie.
_ALIGNMENT: Final = 64
#: Large weights start at page boundaries, so that a runtime can map them.
_PAGE, _LARGE = 4096, 65536


class Folder:
    """The files of a bundle that is being written: each is hashed as it is written, none is read again for that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[HashedFile]:
        """A new file `name`, to be written from the beginning to the end."""
        with (self.path / name).open("wb") as raw:
            file = HashedFile(raw)
            yield file
        self.entries[name] = {"size": file.size, "sha256": file.digest.hexdigest()}

    def write(self, name: str, data: bytes) -> None:
        """A new file `name` of these bytes."""
        with self.create(name) as file:
            file.write(data)


class HashedFile:
    """A file that is written once, from the beginning to the end; `digest` is its SHA-256 so far."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self.digest, self.size = raw, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        """Append these bytes."""
        self._raw.write(data)
        self.digest.update(data)
        self.size += len(data)

    def align(self, alignment: int) -> int:
        """Fill with zeros up to a multiple of `alignment`; the offset that is reached."""
        self.write(bytes(-self.size % alignment))
        return self.size

    def write_array(self, array: NDArray[Any]) -> None:
        """Append the array's bytes, row by row."""
        self.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def write_graph(part: Part, folder: Folder, stem: str) -> dict[str, str | None]:
    """Write `stem.onnx` and its weights `stem.bin`, piece by piece. Returns the manifest's two names."""
    graph_name, weights_name = f"{stem}.onnx", f"{stem}.bin"
    light = onnx.ModelProto.FromString(part.model.SerializeToString())
    outside = [tensor for tensor in light.graph.initializer if _lies_outside(tensor)]
    if outside:
        with folder.create(weights_name) as file:
            for tensor in outside:
                weight = part.weights[key_of(tensor) or ""] if key_of(tensor) else None
                length = _length(tensor)
                start = file.align(_PAGE if length >= _LARGE else _ALIGNMENT)
                for piece in weight.pieces() if weight else (numpy_helper.to_array(tensor),):
                    file.write_array(piece)
                if file.size != start + length:
                    raise RuntimeError(f"{tensor.name} has {file.size - start} bytes, not {length}")
                _point_to(tensor, weights_name, start, length)
    folder.write(graph_name, light.SerializeToString(deterministic=True))
    return {"graph": graph_name, "weights": weights_name if outside else None}


def write_server_graph(folder: Folder, stem: str, accuracy_level: int) -> str:
    """Write `stem.server.onnx`: the graph `stem.onnx` at another accuracy level, with the same weights. Its name."""
    model, name = onnx.load(folder.path / f"{stem}.onnx", load_external_data=False), f"{stem}.server.onnx"
    set_accuracy_level(model, accuracy_level)
    folder.write(name, model.SerializeToString(deterministic=True))
    return name


def write_head(part: Part, folder: Folder, stem: str, table: str | None) -> dict[str, str | None]:
    """Write a head; its matrix is the file `table` if that is given, so that a tied embedding is stored once."""
    if table is None:
        return write_graph(part, folder, stem)
    light = onnx.ModelProto.FromString(part.model.SerializeToString())
    for tensor in light.graph.initializer:
        if key_of(tensor):
            _point_to(tensor, table, 0, _length(tensor))
    folder.write(f"{stem}.onnx", light.SerializeToString(deterministic=True))
    return {"graph": f"{stem}.onnx", "weights": table}


def _lies_outside(tensor: onnx.TensorProto) -> bool:
    return bool(key_of(tensor)) or _length(tensor) >= _INLINE_BYTES


def _length(tensor: onnx.TensorProto) -> int:
    dtype: np.dtype[Any] = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(math.prod(tensor.dims)) * dtype.itemsize


def _point_to(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    name, dims, dtype = tensor.name, list(tensor.dims), tensor.data_type
    tensor.Clear()
    tensor.name, tensor.data_type = name, dtype
    tensor.dims.extend(dims)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def write_embedding(chunks: Iterable[Float32Array], folder: Folder, dtype: str) -> dict[str, Any]:
    """Write the table `[vocab, hidden]` row by row, and a hash for every run of rows; `chunks` are its rows."""
    name, hashes = f"embed.{dtype}.bin", []
    row_bytes = rows = 0
    pending = b""
    with folder.create(name) as data:
        for chunk in chunks:
            if not rows:
                row_bytes = DTYPES[dtype].itemsize * chunk.shape[1]
                rows = max(1, CHUNK_BYTES // row_bytes)
            pending += np.ascontiguousarray(chunk, DTYPES[dtype]).tobytes()
            whole = len(pending) - len(pending) % (rows * row_bytes)
            hashes += _run_hashes(pending[:whole], rows * row_bytes)
            data.write(pending[:whole])
            pending = pending[whole:]
        hashes += _run_hashes(pending, rows * row_bytes)
        data.write(pending)
    folder.write(f"embed.{dtype}.sha256", b"".join(hashes))
    return {"file": name, "row_bytes": row_bytes, "rows_per_chunk": rows, "hashes": f"embed.{dtype}.sha256"}


def _run_hashes(data: bytes, size: int) -> list[bytes]:
    return [hashlib.sha256(data[start : start + size]).digest() for start in range(0, len(data), size)]


def write_constants(tensors: Mapping[str, Float32Array], folder: Folder, dtypes: Sequence[str]) -> dict[str, Any]:
    """Write the tensors that all blocks share into one file for each type, one after the other."""
    entries: dict[str, Any] = {constant: {} for constant in tensors}
    for dtype in dtypes if tensors else ():
        name = f"rope.{dtype}.bin"
        with folder.create(name) as file:
            for constant, tensor in tensors.items():
                offset = file.align(_ALIGNMENT)
                entries[constant][dtype] = {"file": name, "offset": offset, "shape": list(tensor.shape)}
                file.write_array(tensor.astype(DTYPES[dtype]))
    return entries


def write_manifest(
    folder: Folder,
    *,
    name: str,
    architecture: str,
    sizes: Sizes,
    texts: Texts,
    generation: SamplingParams,
    parts: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, float]],
    server: tuple[str, str] = ("float32", "float32"),
) -> None:
    """Write manifest.json. `parts` holds `constants`, `embed`, `blocks` and `head`; `server` is what it runs."""
    default = SamplingParams()
    chosen = {
        key: getattr(generation, key)
        for key in ("temperature", "top_p", "top_k", "repetition_penalty")
        if key == "temperature" or getattr(generation, key) != getattr(default, key)
    }
    manifest = {
        "format": "splitllm-bundle",
        "format_version": 1,
        "model": {
            "name": name,
            "architecture": architecture,
            "blocks": sizes.blocks,
            "hidden_size": sizes.hidden_size,
            "heads": sizes.heads,
            "kv_heads": sizes.kv_heads,
            "head_dim": sizes.head_dim,
            "vocab_size": sizes.vocab_size,
            "max_context": sizes.max_context,
        },
        "tokenizer": {
            "file": "tokenizer.json",
            "chat_template": texts.chat_template,
            "bos_token": texts.bos_token,
            "eos_token": texts.eos_token,
            "end_tokens": list(texts.end_tokens),
        },
        "generation": chosen,
        **parts,
        "files": dict(sorted(folder.entries.items())),
        "export": {
            "tool": f"splitllm {splitllm.__version__}",
            **({"server": dict(zip(("blocks", "head"), server, strict=True))} if set(server) != {"float32"} else {}),
            "variants": figures,
        },
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=1)
    (folder.path / MANIFEST_NAME).write_text(text + "\n", "utf-8")
