"""What the sub-layers of four published Transformers compute, hold and pass on, by formula from their sizes.

A stage is a sub-layer: an embedding, an attention (projections and residual included), a feed-forward, a head. For n
positions of width d, s source positions, feed-forward width f and v classes, a multiplication with its addition
counting as two operations:

    self-attention     8·n·d² (query, key, value, output)  +  4·n²·d (scores, weighted sum)
    cross-attention    4·n·d² + 4·s·d²                      +  4·n·s·d
    feed-forward       4·n·d·f
    head               2·n·d·v

Norms, activations and softmax are left out: below one per cent of the operations at these widths. Parameters include
biases and norms, so that their sums can be held against the published ones (`tests/unit/bench/test_paper_models.py`).
Attention is counted in full, also where a causal mask hides half of it, because dense kernels compute it.

Sizes: Vaswani et al. 2017, table 3 (base; byte-pair vocabulary of about 37,000); Devlin et al. 2019, section 3
(BERT-base, uncased vocabulary of 30,522); Radford et al. 2019, section 2.3 (GPT-2, 12 layers, 50,257 tokens, 1024
positions); Dosovitskiy et al. 2021, table 1 (ViT-B/16, 1000 classes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

HALF: Final = 2  # bytes of a float16: weights and activations
TOKEN_ID: Final = 4  # bytes
#: 2 bits a pixel, "usually indistinguishable from the original" (Wallace, "The JPEG still picture compression
#: standard", 1992).
JPEG_BYTES_PER_PIXEL: Final = 0.25


@dataclass(frozen=True, slots=True)
class Stage:
    """One sub-layer for one request: operations, parameters, bytes read and written in memory, bytes passed on to it.

    `memory_bytes` are weights read and activations in and out, once each, as fused kernels move them. `input_bytes`
    is what crosses a link before the stage.
    """

    name: str
    operations: float
    parameters: int
    memory_bytes: float
    input_bytes: float


@dataclass(frozen=True, slots=True)
class Model:
    """A published model. `profile(length)` gives its stages; a length is tokens, or pixels of a square image's side."""

    name: str
    unit: str
    lengths: tuple[int, ...]
    profile: Callable[[int], list[Stage]]
    output_bytes: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class _Sizes:
    width: int
    feed_forward: int

    def attention(self, name: str, n: int, passed: float) -> Stage:
        d = self.width
        weights = 4 * d * d + 4 * d + 2 * d  # four projections with biases, one norm
        return _stage(name, 8.0 * n * d * d + 4.0 * n * n * d, weights, passed, n * d * HALF)

    def cross(self, name: str, n: int, source: int, passed: float) -> Stage:
        d = self.width
        operations = 4.0 * n * d * d + 4.0 * source * d * d + 4.0 * n * source * d
        return _stage(name, operations, 4 * d * d + 4 * d + 2 * d, passed, n * d * HALF)

    def feed(self, name: str, n: int, passed: float) -> Stage:
        d, f = self.width, self.feed_forward
        return _stage(name, 4.0 * n * d * f, 2 * d * f + f + d + 2 * d, passed, n * d * HALF)

    def lookup(self, name: str, n: int, rows: int, passed: float, more: int = 0) -> Stage:
        """Rows of a table: only the rows that are asked for are read."""
        moved = 2.0 * n * self.width * HALF
        return Stage(name, float(n * self.width), rows * self.width + more, moved, passed)


def _stage(name: str, operations: float, parameters: int, passed: float, written: float) -> Stage:
    return Stage(name, operations, parameters, parameters * HALF + passed + written, passed)


def _layers(sizes: _Sizes, count: int, n: int, prefix: str = "") -> list[Stage]:
    passed = n * sizes.width * HALF
    stages = []
    for layer in range(count):
        stages.append(sizes.attention(f"{prefix}{layer}.attention", n, passed))
        stages.append(sizes.feed(f"{prefix}{layer}.feed_forward", n, passed))
    return stages


def _transformer(n: int) -> list[Stage]:
    """Source and target of n tokens, in one pass: what scoring a translation costs, or all its steps without padding.

    A decoder stage also needs the encoder's output, which is counted again at every crossing.
    """
    sizes, vocabulary = _Sizes(512, 2048), 37_000
    passed = n * sizes.width * HALF
    stages = [sizes.lookup("source_embedding", n, vocabulary, n * TOKEN_ID)]
    stages += _layers(sizes, 6, n, "encoder.")
    stages.append(sizes.lookup("target_embedding", n, 0, passed + n * TOKEN_ID))  # the same table
    for layer in range(6):
        stages.append(sizes.attention(f"decoder.{layer}.attention", n, 2 * passed))
        stages.append(sizes.cross(f"decoder.{layer}.cross_attention", n, n, 2 * passed))
        stages.append(sizes.feed(f"decoder.{layer}.feed_forward", n, 2 * passed))
    stages.append(_head("head", n, sizes.width, vocabulary, tied=True))
    return stages


def _bert(n: int) -> list[Stage]:
    """A sentence is classified from its first position, by the pooler and two classes."""
    sizes = _Sizes(768, 3072)
    d = sizes.width
    embedding = sizes.lookup("embedding", n, 30_522 + 512 + 2, n * TOKEN_ID, 2 * d)
    pooler = _stage("head", 2.0 * d * d + 4.0 * d, d * d + d + 2 * d + 2, d * HALF, 2 * HALF)
    return [embedding, *_layers(sizes, 12, n), pooler]


def _gpt2(n: int) -> list[Stage]:
    """A prompt of n tokens up to the first token of the answer: only the last position reaches the head."""
    sizes, vocabulary = _Sizes(768, 3072), 50_257
    embedding = sizes.lookup("embedding", n, vocabulary + 1024, n * TOKEN_ID, 2 * sizes.width)
    return [embedding, *_layers(sizes, 12, n), _head("head", 1, sizes.width, vocabulary, tied=True)]


def _vit(side: int) -> list[Stage]:
    """An image of side x side pixels in patches of 16 x 16, and the class token, from which the head reads."""
    sizes, patch = _Sizes(768, 3072), 16 * 16 * 3
    d, patches = sizes.width, (side // 16) ** 2
    weights = patch * d + d + (patches + 1) * d + d  # projection, positions, class token
    image = side * side * JPEG_BYTES_PER_PIXEL
    embedding = _stage("patch_embedding", 2.0 * patches * patch * d, weights, image, (patches + 1) * d * HALF)
    head = _head("head", 1, d, 1000, tied=False)
    return [embedding, *_layers(sizes, 12, patches + 1), head]


def _head(name: str, n: int, width: int, classes: int, *, tied: bool) -> Stage:
    """`tied` weights are the embedding's: read here, counted there."""
    weights = classes * width
    moved = weights * HALF + n * (width * HALF + TOKEN_ID)
    parameters = 2 * width if tied else weights + classes + 2 * width
    return Stage(name, 2.0 * n * width * classes, parameters, moved, n * width * HALF)


MODELS: Final = (
    Model("Transformer (base)", "tokens", (32, 64, 128, 256, 512), _transformer, lambda n: n * TOKEN_ID),
    Model("BERT-base", "tokens", (32, 64, 128, 256, 512), _bert, lambda _: 2 * HALF),
    Model("GPT-2", "tokens", (64, 128, 256, 512, 1024), _gpt2, lambda _: TOKEN_ID),
    Model("ViT-B/16", "pixels", (224, 384, 512), _vit, lambda _: TOKEN_ID),
)
