"""Files of a bundle, their hashes and manifest.json (protocol/BUNDLE.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

import splitllm
from splitllm.bundle import CHUNK_BYTES, MANIFEST_NAME
from splitllm.types import Float32Array, SamplingParams

from .modules import Sizes
from .source import Texts

#: Tensors smaller than this stay in the graph (shapes, scalars).
_INLINE_BYTES: Final = 128
#: Weights start at multiples of this, so that a typed array can view them where they lie.
_ALIGNMENT: Final = 64
#: Large weights start at page boundaries, so that a runtime can map them.
_PAGE, _LARGE = 4096, 65536


def write_graph(model: onnx.ModelProto, folder: Path, stem: str) -> dict[str, str | None]:
    """Write `stem.onnx` and its weights `stem.bin`; the model keeps its weights. Returns the manifest's two names."""
    graph_name, weights_name = f"{stem}.onnx", f"{stem}.bin"
    light = onnx.ModelProto.FromString(model.SerializeToString())
    with (folder / weights_name).open("wb") as file:
        for tensor in light.graph.initializer:
            data = onnx.numpy_helper.to_array(tensor).tobytes()
            if len(data) < _INLINE_BYTES:
                continue
            alignment = _PAGE if len(data) >= _LARGE else _ALIGNMENT
            file.write(bytes(-file.tell() % alignment))
            _point_to(tensor, weights_name, file.tell(), len(data))
            file.write(data)
        empty = file.tell() == 0
    if empty:
        (folder / weights_name).unlink()
    (folder / graph_name).write_bytes(light.SerializeToString(deterministic=True))
    return {"graph": graph_name, "weights": None if empty else weights_name}


def _point_to(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    name, dims, dtype = tensor.name, list(tensor.dims), tensor.data_type
    tensor.Clear()
    tensor.name, tensor.data_type = name, dtype
    tensor.dims.extend(dims)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def write_embedding(table: Float32Array, folder: Path) -> dict[str, Any]:
    """Write the table `[vocab, hidden]` row by row, and a hash for every run of rows."""
    name, hashes = "embed.float32.bin", "embed.float32.sha256"
    row_bytes = 4 * table.shape[1]
    rows = max(1, CHUNK_BYTES // row_bytes)
    with (folder / name).open("wb") as data, (folder / hashes).open("wb") as digests:
        for start in range(0, len(table), rows):
            chunk = np.ascontiguousarray(table[start : start + rows], "<f4").tobytes()
            data.write(chunk)
            digests.write(hashlib.sha256(chunk).digest())
    return {"float32": {"file": name, "row_bytes": row_bytes, "rows_per_chunk": rows, "hashes": hashes}}


def write_constants(tensors: Mapping[str, Float32Array], folder: Path) -> dict[str, Any]:
    """Write the tensors that all blocks share into one file, one after the other."""
    name, entries = "rope.float32.bin", {}
    if not tensors:
        return {}
    with (folder / name).open("wb") as file:
        for constant, tensor in tensors.items():
            file.write(bytes(-file.tell() % _ALIGNMENT))
            entries[constant] = {"float32": {"file": name, "offset": file.tell(), "shape": list(tensor.shape)}}
            file.write(np.ascontiguousarray(tensor, "<f4").tobytes())
    return entries


def write_manifest(
    folder: Path,
    *,
    name: str,
    architecture: str,
    sizes: Sizes,
    texts: Texts,
    generation: SamplingParams,
    parts: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, float]],
) -> None:
    """Hash every file in `folder` and write manifest.json. `parts` holds `constants`, `embed`, `blocks` and `head`."""
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
        "files": _hashes(folder),
        "export": {"tool": f"splitllm {splitllm.__version__}", "variants": figures},
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=1)
    (folder / MANIFEST_NAME).write_text(text + "\n", "utf-8")


def _hashes(folder: Path) -> dict[str, dict[str, Any]]:
    entries = {}
    for path in sorted(folder.iterdir()):
        if path.name == MANIFEST_NAME:
            continue
        with path.open("rb") as file:
            entries[path.name] = {
                "size": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
    return entries
