"""Writing the parts of a bundle one after the other: no more than one matrix is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from splitllm.types import Float32Array

from . import graph, layout, tracing
from .chain import QUANTIZED
from .decoder import Decoder, rotary_tables
from .modules import BlockModule, HeadModule, embedding_rows
from .quantize import INT4_SERVER
from .variants import activations_of, as_stored, make_variant
from .weightless import Part, Weight

Tell = Callable[[str, int, int], None]


def write_parts(
    decoder: Decoder, variants: Sequence[str], heads: Sequence[str], server: str, folder: layout.Folder, tell: Tell
) -> dict[str, Any]:
    """Everything but tokenizer and manifest: blocks in `variants`, the head in `heads`; servers run `server` blocks."""
    sizes = decoder.sizes
    traced = tracing.trace(HeadModule(decoder), tracing.HEAD_AXES, tracing.HEAD_OUT_AXES)
    finished = graph.finish_head(traced, sizes)
    head = _Head(as_stored(finished))
    constants = {name: table.numpy() for name, table in rotary_tables(decoder).items()}
    dtypes = sorted({activations_of(variant) for variant in variants}, reverse=True)
    embed = {
        "float32": layout.write_embedding(
            head.compared(rows.numpy() for rows in embedding_rows(decoder)), folder, "float32"
        )
    }
    parts: dict[str, Any] = {
        "constants": layout.write_constants(constants, folder, dtypes),
        "embed": embed,
        "blocks": [],
        "head": {},
    }
    for index in range(sizes.blocks):
        block = graph.finish_block(
            tracing.trace(BlockModule(decoder, index), tracing.BLOCK_AXES, tracing.BLOCK_OUT_AXES), sizes
        )
        entries = {}
        for variant in variants:
            files = layout.write_graph(make_variant(block, variant), folder, f"block.{index}.{variant}")
            names = {name: name for name in graph.tables_of(block)}
            entries[variant] = {**files, "activations": activations_of(variant), "constants": names}
            if variant == server == "int4":
                entries[variant]["server_graph"] = layout.write_server_graph(
                    folder, f"block.{index}.int4", INT4_SERVER.accuracy_level
                )
        parts["blocks"].append(entries)
        tell("exporting block", index + 1, sizes.blocks)
    for variant in heads:
        if variant == "float32":
            table = embed["float32"]["file"] if head.is_tied else None
            files = layout.write_head(head.part, folder, "head.float32", table)
        else:
            source = finished if variant in QUANTIZED else head.part  # a turned product would stay in floats
            files = layout.write_graph(make_variant(source, variant), folder, f"head.{variant}")
        parts["head"][variant] = {**files, "activations": activations_of(variant)}
        tell("exporting head", len(parts["head"]), len(heads))
    return parts


class _Head:
    """The head, and whether its matrix is the embedding's table, bit for bit."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._matrix: Weight | None = next(iter(part.weights.values())) if len(part.weights) == 1 else None
        self._same = 0

    @property
    def is_tied(self) -> bool:
        """Known once all of the table has been compared."""
        return self._matrix is not None and self._same == self._matrix.shape[0]

    def compared(self, chunks: Iterable[Float32Array]) -> Iterator[Float32Array]:
        """The chunks of the table, unchanged."""
        start = 0
        for chunk in chunks:
            if self._matrix is not None and self._matrix.shape[1:] == chunk.shape[1:]:
                rows = self._matrix.open()[start : start + len(chunk)].float()
                self._same += len(chunk) if torch.equal(rows, torch.from_numpy(chunk)) else 0
            start += len(chunk)
            yield chunk
