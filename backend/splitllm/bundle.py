"""Reading a bundle (protocol/BUNDLE.md): every check happens here, so that others may trust what they are given.

Nothing in this file runs a model. `Bundle.open` answers "is this folder a whole, undamaged bundle?"; the rest hands
out paths and numpy views.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from .errors import BundleError, UsageError
from .manifest import (
    BLOCK_INPUTS,
    BLOCK_OUTPUTS,
    CHUNK_BYTES,
    DTYPES,
    MANIFEST_NAME,
    MEND,
    VARIANTS,
    FileEntry,
    GraphEntry,
    Manifest,
    manifest_from_json,
)
from .signature import SIGNATURE_LIMIT, SIGNATURE_NAME, TrustedKey, check_signature, signer_of
from .types import FloatArray, ModelSpec, SamplingParams

__all__ = [
    "BLOCK_INPUTS",
    "BLOCK_OUTPUTS",
    "CHUNK_BYTES",
    "DTYPES",
    "MANIFEST_NAME",
    "VARIANTS",
    "BlockFiles",
    "Bundle",
    "HeadFiles",
    "Manifest",
    "manifest_from_json",
]

_MANIFEST_LIMIT: Final = 32 * 2**20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HeadFiles:
    """Paths of one variant of the head."""

    graph: Path
    weights: Path | None
    activations: str


@dataclass(frozen=True, slots=True)
class BlockFiles:
    """Paths of one variant of one block. `constants` maps the graph's input names to constants' names."""

    graph: Path
    weights: Path | None
    activations: str
    constants: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle. `manifest_bytes` are the very bytes whose SHA-256 is `identity`: serve these.

    `signature` are the bytes of `manifest.sig`, None without one; it is checked where keys are trusted.
    """

    folder: Path
    identity: str
    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        verify: bool = True,
        only: Collection[str] | None = None,
        trusted: Collection[TrustedKey] = (),
    ) -> Bundle:
        """Read and check a bundle.

        A client that holds but some blocks names the files it needs in `only`; the others may be missing.

        Always checked: the manifest against its schema and itself, and that every file is there with the right size.
        With `verify` every file's SHA-256 is checked too, which reads the whole bundle once. With `trusted` keys one of
        them must have signed the manifest, which is looked at before anything in it is.

        Raises:
            UsageError: there is no such folder.
            BundleError: it is no bundle, of a newer format, incomplete or damaged; `bundle_signature`, it is
                not signed with a trusted key.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give the folder that `splitllm export --out` made")
        root = folder.resolve()
        if not (root / MANIFEST_NAME).exists():
            raise BundleError(f"{folder} holds no {MANIFEST_NAME}, so it is no bundle; make one with `splitllm export`")
        data = _read_small(_inside(root, MANIFEST_NAME), _MANIFEST_LIMIT)
        signed = os.path.lexists(root / SIGNATURE_NAME)
        signature = _read_small(_inside(root, SIGNATURE_NAME), SIGNATURE_LIMIT) if signed else None
        if trusted:
            check_signature(data, signature, trusted)
        manifest = manifest_from_json(_parse(data))
        for name, entry in manifest.files.items():
            if only is None or name in only:
                _check_file(_inside(root, name), name, entry, verify=verify)
        bundle = cls(root, hashlib.sha256(data).hexdigest(), manifest, data, signature)
        if verify:
            bundle._check_measured()
            for variant, table in manifest.embed.items():
                if only is None or {table.file, table.hashes} <= set(only):
                    bundle._check_chunk_hashes(variant)
        return bundle

    @property
    def signer(self) -> str | None:
        """Id of the key that the bundle claims to be signed with; None without a signature.

        Raises:
            BundleError: `bundle_signature`, what lies there is none.
        """
        return None if self.signature is None else signer_of(self.signature)

    @property
    def spec(self) -> ModelSpec:
        """The model's sizes."""
        return self.manifest.model

    @property
    def block_variants(self) -> tuple[str, ...]:
        """Variants that every block has."""
        return tuple(self.manifest.blocks[0])

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer, in Hugging Face tokenizers' format."""
        return self.folder / self.manifest.tokenizer.file

    @property
    def chat_template(self) -> str:
        """Jinja template that turns messages into a prompt."""
        return self.manifest.tokenizer.chat_template

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Token ids that end an answer."""
        return self.manifest.tokenizer.end_tokens

    @property
    def generation(self) -> SamplingParams:
        """Sampling that the model's authors recommend; greedy where they say nothing."""
        return self.manifest.generation

    def path(self, name: str) -> Path:
        """The file `name` of the manifest's list.

        Raises:
            BundleError: the bundle has no such file (the manifest itself is not in its list).
        """
        if name not in self.manifest.files:
            raise BundleError(f"the bundle {self.spec.name} has no file {name[:140]!r}")
        return self.folder / name

    def block(self, index: int, variant: str, *, server: bool = False) -> BlockFiles:
        """Files of block `index` in `variant`, with the graph that browsers run or the one that a `server` runs.

        Raises:
            BundleError: code `variant_unavailable`.
        """
        if not 0 <= index < self.spec.blocks:
            raise IndexError(f"block {index} of a model with {self.spec.blocks} blocks")
        entry = self._pick(self.manifest.blocks[index], variant, "blocks")
        graph = entry.server_graph if server and entry.server_graph else entry.graph
        return BlockFiles(self.folder / graph, self._weights(entry), entry.activations, entry.constants)

    def head(self, variant: str = "float32") -> HeadFiles:
        """Files of the head in `variant`.

        Raises:
            BundleError: code `variant_unavailable`.
        """
        entry = self._pick(self.manifest.head, variant, "head")
        return HeadFiles(self.folder / entry.graph, self._weights(entry), entry.activations)

    def embedding(self, variant: str = "float32") -> np.memmap[Any, np.dtype[Any]]:
        """The embedding table, read-only: `variant[vocab_size, hidden_size]`.

        Raises:
            BundleError: code `variant_unavailable`.
        """
        entry = self._pick({name: e for name, e in self.manifest.embed.items() if name in DTYPES}, variant, "embedding")
        shape = (self.spec.vocab_size, self.spec.hidden_size)
        return np.memmap(self.folder / entry.file, DTYPES[variant], "r", shape=shape)

    def constant(self, name: str, dtype: str) -> FloatArray:
        """The constant `name` in `dtype` (`float32` or `float16`), read-only, in the manifest's shape.

        Raises:
            BundleError: code `variant_unavailable`.
        """
        entry = self._pick(self.manifest.constants.get(name, {}), dtype, f"constant {name}")
        count = math.prod(entry.shape)
        values = np.fromfile(self.folder / entry.file, DTYPES[dtype], count, offset=entry.offset).reshape(entry.shape)
        values.flags.writeable = False
        return values

    def block_bytes(self, variant: str) -> int:
        """Bytes of graph and weights of the largest block in `variant`.

        Raises:
            BundleError: code `variant_unavailable`.
        """
        entries = [self._pick(block, variant, "blocks") for block in self.manifest.blocks]
        return max(sum(self.manifest.files[name].size for name in (e.graph, e.weights) if name) for e in entries)

    def weight_bytes(self, blocks: str, head: str) -> int:
        """Bytes of the graphs and weights that a server runs, of all blocks and the head, in these variants.

        Raises:
            BundleError: code `variant_unavailable`.
        """
        entries = [self._pick(block, blocks, "blocks") for block in self.manifest.blocks]
        entries.append(self._pick(self.manifest.head, head, "head"))
        names = {name for entry in entries for name in (entry.server_graph or entry.graph, entry.weights) if name}
        return sum(self.manifest.files[name].size for name in names)

    def _weights(self, entry: GraphEntry) -> Path | None:
        return self.folder / entry.weights if entry.weights else None

    def _pick(self, variants: Mapping[str, _T], variant: str, part: str) -> _T:
        if variant not in variants:
            have = ", ".join(variants) or "none"
            raise BundleError(
                f"the {part} of {self.spec.name} have no variant {variant!r}; there is: {have}",
                code="variant_unavailable",
            )
        return variants[variant]

    def _check_measured(self) -> None:
        """Graphs that only servers run round more: what that does to the text must be known. An export looks later."""
        for variant, entry in self.manifest.blocks[0].items():
            if entry.server_graph is not None and not self.manifest.variants.get(f"server.{variant}"):
                raise BundleError(f"the graphs server.{variant} of {self.spec.name} were not measured; {MEND}")

    def _check_chunk_hashes(self, variant: str) -> None:
        entry = self.manifest.embed[variant]
        expected = (self.folder / entry.hashes).read_bytes()
        with (self.folder / entry.file).open("rb") as table:
            for chunk in range(len(expected) // 32):
                rows = table.read(entry.row_bytes * entry.rows_per_chunk)
                if hashlib.sha256(rows).digest() != expected[32 * chunk : 32 * chunk + 32]:
                    raise BundleError(f"{entry.hashes} does not fit {entry.file} at chunk {chunk}; {MEND}")


def _read_small(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read ({error.strerror}); check its permissions") from error
    if len(data) > limit:
        raise BundleError(f"{path.name} is larger than {limit >> 10} KiB; {MEND}")
    return data


def _parse(data: bytes) -> object:
    def refuse(word: str) -> object:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST_NAME} is not JSON ({error}); {MEND}") from error


def _inside(root: Path, name: str) -> Path:
    """The regular file `root/name`, symbolic links followed, never outside `root`."""
    path = root / name
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{name} is missing from {root}; {MEND}") from error
    if not real.is_relative_to(root):
        raise BundleError(f"{name} is a link that leads out of {root}; put the file itself there")
    if not real.is_file():
        raise BundleError(f"{name} in {root} is not a regular file; {MEND}")
    return real


def _check_file(path: Path, name: str, entry: FileEntry, *, verify: bool) -> None:
    size = path.stat().st_size
    if size != entry.size:
        raise BundleError(f"{name} has {size} bytes, the manifest says {entry.size}; {MEND}")
    if not verify:
        return
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{name} cannot be read ({error.strerror}); check its permissions") from error
    if digest != entry.sha256:
        raise BundleError(f"{name} is damaged: its SHA-256 is not the manifest's; {MEND}")
