"""manifest.json of a bundle (protocol/BUNDLE.md) as frozen values, checked against its schema and against itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

import jsonschema
import numpy as np

from . import resources
from .errors import BundleError
from .types import ModelSpec, SamplingParams

MANIFEST_NAME: Final = "manifest.json"
FORMAT: Final = "splitllm-bundle"
FORMAT_VERSION: Final = 1
#: Rows of one hashed chunk of the embedding take at most this many bytes, unless a single row is larger.
CHUNK_BYTES: Final = 65536
#: Inputs and outputs that every block's graph has, in order; the constants of the manifest follow the inputs.
BLOCK_INPUTS: Final = ("hidden_states", "seqlens_k", "total_sequence_length", "past_key", "past_value")
BLOCK_OUTPUTS: Final = ("hidden_states_out", "present_key", "present_value")
#: Float types that a bundle stores as plain rows and tensors.
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
#: Variants of blocks and heads, in the order in which a manifest lists them.
VARIANTS: Final = ("float32", "float16", "int8", "int4", "int4f16")
#: What to do about a bundle that is wrong.
MEND: Final = "export the model again or fetch the bundle again"

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size in bytes and lower-case hexadecimal SHA-256 of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A little-endian, row-major tensor inside a file; `offset` in bytes."""

    file: str
    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EmbedEntry:
    """One variant of the embedding table: row `i` stands at byte `i * row_bytes` of `file`."""

    file: str
    row_bytes: int
    rows_per_chunk: int
    hashes: str


@dataclass(frozen=True, slots=True)
class GraphEntry:
    """One variant of a block or of the head, by file names. `constants` maps graph inputs to constants' names.

    `server_graph` is what servers run of these weights where that is not `graph`.
    """

    graph: str
    weights: str | None
    activations: str
    constants: Mapping[str, str]
    server_graph: str | None = None


@dataclass(frozen=True, slots=True)
class TokenizerEntry:
    """The tokenizer's file and what surrounds it."""

    file: str
    chat_template: str
    bos_token: str | None
    eos_token: str | None
    end_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json as frozen values; every cross-reference in it holds."""

    model: ModelSpec
    architecture: str
    tokenizer: TokenizerEntry
    generation: SamplingParams
    constants: Mapping[str, Mapping[str, TensorEntry]]
    embed: Mapping[str, EmbedEntry]
    blocks: tuple[Mapping[str, GraphEntry], ...]
    head: Mapping[str, GraphEntry]
    files: Mapping[str, FileEntry]
    tool: str
    #: Variants that the server runs: of the blocks, of the head.
    server: tuple[str, str]
    variants: Mapping[str, Mapping[str, float | str | bool]]


def manifest_from_json(obj: object) -> Manifest:
    """Check a parsed manifest.json against its schema and against itself.

    Raises:
        BundleError: one line that names the place and what is wrong there.
    """
    if not isinstance(obj, dict) or obj.get("format") != FORMAT:
        raise BundleError(
            f'{MANIFEST_NAME} does not say "format": "{FORMAT}"; give a folder that `splitllm export` made'
        )
    version = obj.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"the bundle has format version {version}, this splitllm reads up to {FORMAT_VERSION}; update splitllm"
        )
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(resources.schema("manifest")).iter_errors(obj)
    )
    if error is not None:
        message = " ".join(error.message.split())
        message = message if len(message) <= 200 else f"{message[:120]} … {message[-70:]}"
        raise BundleError(f"{MANIFEST_NAME} at {error.json_path[:200]}: {message}; {MEND}")
    manifest = _manifest(obj)
    for problem in _contradictions(manifest):
        raise BundleError(f"{MANIFEST_NAME}: {problem}; {MEND}")
    return manifest


def _manifest(obj: dict[str, Any]) -> Manifest:
    """Frozen values from JSON that the schema admits (where 1.0 may stand for 1)."""

    def graph(entry: dict[str, Any]) -> GraphEntry:
        constants = MappingProxyType(dict(entry.get("constants", {})))
        return GraphEntry(entry["graph"], entry["weights"], entry["activations"], constants, entry.get("server_graph"))

    def tensor(entry: dict[str, Any]) -> TensorEntry:
        return TensorEntry(entry["file"], int(entry["offset"]), tuple(int(n) for n in entry["shape"]))

    def embed(entry: dict[str, Any]) -> EmbedEntry:
        return EmbedEntry(entry["file"], int(entry["row_bytes"]), int(entry["rows_per_chunk"]), entry["hashes"])

    server = obj["export"].get("server", {})
    model, tokenizer, generation = dict(obj["model"]), obj["tokenizer"], obj["generation"]
    name, architecture = model.pop("name"), model.pop("architecture")
    end_tokens = tuple(int(token) for token in tokenizer["end_tokens"])
    texts = {key: tokenizer[key] for key in ("file", "chat_template", "bos_token", "eos_token")}
    return Manifest(
        model=ModelSpec(name=name, end_tokens=end_tokens, **{key: int(value) for key, value in model.items()}),
        architecture=architecture,
        tokenizer=TokenizerEntry(**texts, end_tokens=end_tokens),
        generation=SamplingParams(**(generation | {"top_k": int(generation.get("top_k", 0))})),
        constants=_frozen({c: _frozen({d: tensor(t) for d, t in v.items()}) for c, v in obj["constants"].items()}),
        embed=_frozen({variant: embed(entry) for variant, entry in obj["embed"].items()}),
        blocks=tuple(_frozen({variant: graph(entry) for variant, entry in b.items()}) for b in obj["blocks"]),
        head=_frozen({variant: graph(entry) for variant, entry in obj["head"].items()}),
        files=_frozen({n: FileEntry(int(f["size"]), f["sha256"]) for n, f in obj["files"].items()}),
        tool=obj["export"]["tool"],
        server=(server.get("blocks", "float32"), server.get("head", "float32")),
        variants=_frozen({variant: _frozen(figures) for variant, figures in obj["export"]["variants"].items()}),
    )


def _frozen(values: Mapping[str, _T]) -> Mapping[str, _T]:
    return MappingProxyType(dict(values))


def _contradictions(m: Manifest) -> Iterator[str]:
    """What the schema cannot say. Later checks rely on earlier ones, so only the first answer counts."""
    for name, entry in m.files.items():
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
            yield f"files lists {name!r}, which is no name for a file of a bundle"
        if not re.fullmatch("[0-9a-f]{64}", entry.sha256):
            yield f"the SHA-256 of {name} is malformed"
    for where, name in _references(m):
        if name not in m.files:
            yield f"{where} names {name!r}, which is not in files"
    spec = m.model
    if not _FILE_NAME.fullmatch(spec.name):
        yield "model.name must be of letters, digits, '.', '_' and '-'"
    if len(m.blocks) != spec.blocks:
        yield f"model.blocks is {spec.blocks} but {len(m.blocks)} blocks are listed"
    if spec.heads % spec.kv_heads:
        yield f"{spec.heads} heads cannot share {spec.kv_heads} kv_heads evenly"
    if not all(math.isfinite(x) for x in (m.generation.temperature, m.generation.repetition_penalty)):
        yield "generation holds a number that is not finite"
    if any(token >= spec.vocab_size for token in spec.end_tokens):
        yield f"tokenizer.end_tokens has a token outside the vocabulary of {spec.vocab_size}"
    yield from _embed_contradictions(m)
    yield from _constant_contradictions(m)


def _references(m: Manifest) -> Iterator[tuple[str, str]]:
    """Every file name in the manifest, with the place where it stands."""
    yield "tokenizer", m.tokenizer.file
    for constant, dtypes in m.constants.items():
        yield from ((f"constants.{constant}", entry.file) for entry in dtypes.values())
    for variant, embed in m.embed.items():
        yield from ((f"embed.{variant}", name) for name in (embed.file, embed.hashes))
    parts = [("head", m.head), *((f"blocks[{i}]", block) for i, block in enumerate(m.blocks))]
    for part, variants in parts:
        for variant, entry in variants.items():
            names = (entry.graph, entry.weights, entry.server_graph)
            yield from ((f"{part}.{variant}", name) for name in names if name)


def _embed_contradictions(m: Manifest) -> Iterator[str]:
    rows = m.model.vocab_size
    for variant, e in m.embed.items():
        dtype = DTYPES.get(variant)
        if dtype is not None and e.row_bytes != m.model.hidden_size * dtype.itemsize:
            yield f"embed.{variant}.row_bytes is {e.row_bytes}, not hidden_size × {dtype.itemsize}"
        if e.rows_per_chunk > 1 and e.row_bytes * e.rows_per_chunk > CHUNK_BYTES:
            yield f"embed.{variant} has chunks of more than {CHUNK_BYTES} bytes"
        if m.files[e.file].size != rows * e.row_bytes:
            yield f"{e.file} has {m.files[e.file].size} bytes, not vocab_size × row_bytes = {rows * e.row_bytes}"
        if m.files[e.hashes].size != 32 * -(-rows // e.rows_per_chunk):
            yield f"{e.hashes} does not hold 32 bytes for each chunk of {e.file}"


def _constant_contradictions(m: Manifest) -> Iterator[str]:
    for name, dtypes in m.constants.items():
        for dtype, t in dtypes.items():
            itemsize = DTYPES[dtype].itemsize
            if t.offset % itemsize or t.offset + math.prod(t.shape) * itemsize > m.files[t.file].size:
                yield f"constants.{name}.{dtype} does not lie inside {t.file}, aligned to {itemsize} bytes"
    for i, block in enumerate(m.blocks):
        if set(block) != set(m.blocks[0]):
            yield f"blocks[{i}] has the variants {', '.join(block)}; blocks[0] has {', '.join(m.blocks[0])}"
        for variant, entry in block.items():
            if (entry.server_graph is None) != (m.blocks[0][variant].server_graph is None):
                yield f"blocks[{i}].{variant} and blocks[0].{variant} do not both have a server_graph"
            for graph_input, constant in entry.constants.items():
                if graph_input in BLOCK_INPUTS:
                    yield f"blocks[{i}].{variant} feeds a constant to {graph_input}"
                if entry.activations not in m.constants.get(constant, {}):
                    yield f"blocks[{i}].{variant} needs the constant {constant} in {entry.activations}"
    for place, variants, wanted in (("blocks", m.blocks[0], m.server[0]), ("head", m.head, m.server[1])):
        if wanted not in variants:
            yield f"export.server wants {wanted} for the {place}, which is not there"
    for part in (*m.blocks, m.head):
        if part["float32"].activations != "float32":
            yield f"{part['float32'].graph} is float32 but its activations are not"
