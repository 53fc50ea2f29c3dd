"""What rounding weights costs on real text: how often the most likely next token stays, and how far the odds move.

The reference is the bundle's own float32 chain, which the numeric gate has tied to transformers; so a bundle can be
measured without its model. Block by block, as in the gate: memory holds one block and the hidden states of the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from splitllm.bundle import Bundle
from splitllm.types import Float32Array

from .chain import QUANTIZED, BlockRun, Plan, Step, chains_of, embed, open_session
from .gate import Progress

#: Tokens that are measured at most.
MOST_TOKENS: Final = 1024
#: Tokens in one row.
ROW_TOKENS: Final = 128
#: Positions whose logits are in memory at a time, for vocabularies of a quarter of a million.
_ROWS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Quality:
    """Over all positions of a text: share with the same most likely token, and the mean Kullback-Leibler divergence.

    The divergence D(float32 || variant) is in nats; S. Kullback, R. A. Leibler, "On Information and Sufficiency", 1951.
    """

    top1_agreement: float
    kl_divergence: float
    tokens: int

    def as_manifest(self) -> dict[str, float]:
        """Rounded to what is the same from machine to machine."""
        return {
            "top1_agreement": round(self.top1_agreement, 3),
            "kl_divergence": float(f"{self.kl_divergence:.1e}"),
            "text_tokens": self.tokens,
        }


def measure_text(bundle: Bundle, ids: Sequence[int], *, progress: Progress | None = None) -> Mapping[str, Quality]:
    """Every variant but float32 on a text given as token ids; a quantized head as `head.<variant>`, on exact blocks.

    The first `MOST_TOKENS` are read, in rows of `ROW_TOKENS` that each begin anew.
    """
    plan = _plan(ids, bundle.spec.max_context)
    start = embed(bundle, plan)
    chains = dict.fromkeys(chains_of(bundle), start)
    for index in range(bundle.spec.blocks):
        for variant, states in chains.items():
            chains[variant] = BlockRun(bundle, index, variant).run(plan, states)
        if progress:
            progress("reading a text", index + 1, bundle.spec.blocks)
    exact = chains.pop("float32")
    found = {}
    for variant, states in chains.items():
        found[variant] = _compare(_logits(bundle, "float32", exact), _logits(bundle, "float32", states))
    for head in bundle.manifest.head:
        if head != "float32":
            found[f"head.{head}"] = _compare(_logits(bundle, "float32", exact), _logits(bundle, head, exact))
    return found


def _plan(ids: Sequence[int], max_context: int) -> Plan:
    rows = np.array(ids[:MOST_TOKENS], np.int32)
    length = min(ROW_TOKENS, max_context)
    tokens = tuple(rows[first : first + length] for first in range(0, len(rows), length))
    return Plan(tokens, tuple(Step(row, (0,), len(ids)) for row, ids in enumerate(tokens)), length)


def _logits(bundle: Bundle, head: str, states: Sequence[Float32Array]) -> Iterator[Float32Array]:
    session = open_session(bundle.head(head).graph, packed=head in QUANTIZED)
    dtype = np.float16 if bundle.head(head).activations == "float16" else np.float32
    for row in states:
        for first in range(0, row.shape[1], _ROWS_AT_ONCE):
            piece = row[:, first : first + _ROWS_AT_ONCE].astype(dtype)
            yield session.run(["logits"], {"hidden_states": piece})[0][0].astype(np.float32)


def _compare(expected: Iterator[Float32Array], got: Iterator[Float32Array]) -> Quality:
    same, divergence, total = 0, 0.0, 0
    for want, have in zip(expected, got, strict=True):
        p, q = _log_softmax(want), _log_softmax(have)
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        divergence += float((np.exp(p) * (p - q)).sum())
        total += len(want)
    return Quality(same / total, max(0.0, divergence / total), total)


def _log_softmax(logits: Float32Array) -> Float32Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)), np.float32)
