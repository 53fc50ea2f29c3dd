"""Drawing the next tokens from logits. Pure: random generators are arguments.

The order of the steps is the usual one: repetition penalty, temperature, top-k, top-p, min-p.

A row is drawn alone or in any batch with the same result to the last bit, and with the same result as by the plain
definition that the tests spell out (tests/unit/plain_sampler.py): what is done here for speed only ever sets aside
tokens that could not have been drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .errors import TurnError
from .types import Float32Array, FloatArray, Logprobs, SamplingParams

#: Elements computed at once: two arrays of doubles of this size stay in a core's cache.
_BLOCK: Final = 1 << 16
#: How many of the likeliest tokens the nucleus is first looked for in.
_LIKELIEST: Final = 256
#: Stretches of the vocabulary per score that log_probabilities looks for.
_STRETCHES: Final = 16


@dataclass(frozen=True, slots=True)
class Draw:
    """What one row of logits is drawn with.

    seen: ids in the conversation so far, for the repetition penalty (Keskar et al. 2019, CTRL, section 4.1).
    generator: source of randomness; only needed when temperature is above 0.
    """

    params: SamplingParams
    seen: Collection[int] = ()
    generator: np.random.Generator | None = None

    @property
    def randomness(self) -> np.random.Generator | None:
        """What decides between tokens; None where the best score does."""
        return self.generator if self.params.temperature > 0 else None

    @property
    def is_penalised(self) -> bool:
        """Whether scores differ from the logits."""
        return self.params.repetition_penalty != 1 and bool(self.seen)


def check_sampling(params: SamplingParams) -> None:
    """Refuse parameters that have no meaning.

    Raises:
        TurnError: `turn_refused`, naming the parameter and its range.
    """
    ranges = (
        (0 <= params.temperature < np.inf, "temperature must be 0 (greedy) or more"),
        (0 < params.top_p <= 1, "top_p must be above 0 and at most 1"),
        (params.top_k >= 0, "top_k must be 0 (off) or more"),
        (0 <= params.min_p <= 1, "min_p must be between 0 and 1"),
        (0 < params.repetition_penalty < np.inf, "repetition_penalty must be above 0"),
    )
    for holds, sentence in ranges:
        if not holds:
            raise TurnError(f"The sampling settings cannot be used: {sentence}.", code="turn_refused")


def sample(
    logits: Float32Array, params: SamplingParams, seen: Collection[int], generator: np.random.Generator | None
) -> int:
    """One token id from one row, float32[vocab_size]; see Sampler.draw."""
    return Sampler().draw(logits[None], [Draw(params, seen, generator)])[0]


class Sampler:
    """Draws for whole batches; keeps its scratch memory from one to the next."""

    def __init__(self) -> None:
        self._scores: NDArray[np.float64] = np.empty((0, 0))
        self._kept: NDArray[np.float64] = np.empty(0)

    def draw(self, logits: Float32Array, draws: Sequence[Draw]) -> list[int]:
        """One token id per row.

        Args:
            logits: float32[B, vocab_size]; not changed.
            draws: B ways to draw; temperature 0 is argmax (lowest id on a tie), as is a best score that is not finite.
        """
        tokens: list[int] = logits.argmax(axis=1).tolist()
        rest = [row for row, draw in enumerate(draws) if draw.randomness is not None or draw.is_penalised]
        if rest:
            vocab = logits.shape[1]
            together = max(1, _BLOCK // vocab)
            if self._scores.shape != (together, vocab):
                self._scores, self._kept = np.empty((together, vocab)), np.zeros(vocab)
            for first in range(0, len(rest), together):
                rows = rest[first : first + together]
                for row, token in zip(rows, self._draw_some(logits, rows, draws), strict=True):
                    tokens[row] = token
        return tokens

    # A score over a tiny temperature or penalty is rightly infinite; rows without a finite best are not used.
    @np.errstate(over="ignore", invalid="ignore")
    def _draw_some(self, logits: Float32Array, rows: Sequence[int], draws: Sequence[Draw]) -> list[int]:
        scores = self._scores[: len(rows)]
        for at, row in enumerate(rows):
            scores[at] = logits[row]
            if draws[row].is_penalised:
                _penalise(scores[at], draws[row].params.repetition_penalty, draws[row].seen)
        tokens: list[int] = scores.argmax(axis=1).tolist()
        best = scores[np.arange(len(rows)), tokens]
        random = [
            (at, draws[row].params, generator)
            for at, row in enumerate(rows)
            if (generator := draws[row].randomness) is not None and np.isfinite(best[at])
        ]
        if random:
            temperature = np.array([draws[row].params.temperature or 1.0 for row in rows])
            scores -= best[:, None]
            scores /= temperature[:, None]
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=1, keepdims=True)
        for at, params, generator in random:
            tokens[at] = self._pick(scores[at], params, generator)
        return tokens

    def _pick(self, probabilities: FloatArray, params: SamplingParams, generator: np.random.Generator) -> int:
        """Filter one row and draw from what is left; `kept` are ids, ascending, None for all."""
        kept: NDArray[Any] | None = None
        if 0 < params.top_k < len(probabilities):
            kept = np.flatnonzero(probabilities >= _kth_largest(probabilities, params.top_k))  # with all ties
        if params.top_p < 1:
            kept = _nucleus(probabilities, kept, params.top_p, self._total(probabilities, kept))
        left = probabilities if kept is None else probabilities[kept]
        if params.min_p > 0:  # tokens at least min_p times as likely as the likeliest (Nguyen et al. 2024)
            likely = np.flatnonzero(left >= params.min_p * left.max())
            kept, left = likely if kept is None else kept[likely], left[likely]
        cumulative = np.cumsum(left)
        drawn = generator.random() * cumulative[-1]
        at = int(np.searchsorted(cumulative, drawn, side="right").clip(0, len(cumulative) - 1))
        return at if kept is None else int(kept[at])

    def _total(self, probabilities: FloatArray, kept: NDArray[Any] | None) -> float:
        """Sum of the kept ones, added up in the same order as if the others were there as zeros."""
        if kept is None:
            return float(probabilities.sum())
        self._kept[kept] = probabilities[kept]
        total = float(self._kept.sum())
        self._kept[kept] = 0
        return total


def log_probabilities(logits: Float32Array, token: int, top: int) -> Logprobs:
    """Log-probabilities of one token and of the `top` likeliest; equal ones come by token id.

    Args:
        logits: float32[vocab_size], as the model gave them; not changed.
        token: the token drawn.
        top: how many alternatives to give, 0 for none; at most vocab_size.
    """
    best = logits.max()
    shift = float(best) + float(np.log(np.exp(logits - best).sum(dtype=np.float64)))
    return Logprobs(
        float(logits[token]) - shift,
        tuple((int(i), float(logits[i]) - shift) for i in _likeliest(logits, top)),
    )


def _likeliest(logits: Float32Array, top: int) -> np.ndarray:
    """Ids of the `top` highest scores, highest first, equal ones by id."""
    if top < 1:
        return np.empty(0, np.int64)
    # The bests of stretches of the vocabulary are scores too, so the `top`-th of them bounds the border from below, and
    # few scores reach it. That spares a search through the whole vocabulary.
    step = max(1, len(logits) // (_STRETCHES * top))
    bests = np.maximum.reduceat(logits, np.arange(0, len(logits), step))
    likely = np.flatnonzero(logits >= np.partition(bests, -top)[-top])  # ascending, so a stable sort keeps ties by id
    return likely[np.argsort(-logits[likely], kind="stable")][:top]


def _penalise(scores: FloatArray, penalty: float, seen: Collection[int]) -> None:
    ids = np.fromiter(seen, np.int64, len(seen))
    values = scores[ids]
    scores[ids] = np.where(values < 0, values * penalty, values / penalty)


def _nucleus(probabilities: FloatArray, kept: NDArray[Any] | None, top_p: float, total: float) -> NDArray[Any]:
    """Ids, ascending, of the smallest set of likeliest tokens whose mass reaches top_p (Holtzman et al. 2019).

    Sorting is what costs, so only as many of the likeliest are sorted as surely reach the mass.
    """
    pool = probabilities if kept is None else probabilities[kept]
    limit = top_p * total
    # All tokens below this together weigh less than what is cut off.
    border = (1 - top_p) * total / len(probabilities)
    count = _LIKELIEST
    # The margin covers rounding: tokens that reach a little more than the mass include all that are in the nucleus.
    while (bound := _lower_bound(pool, count)) > border and pool[pool >= bound].sum() <= limit * (1 + 1e-9):
        count *= 4
    likely = np.flatnonzero(pool >= max(bound, border))
    order = likely[np.argsort(-pool[likely], kind="stable")]
    mass_before = np.cumsum(pool[order]) - pool[order]
    chosen = np.sort(order[mass_before < limit])
    return chosen if kept is None else kept[chosen]


def _kth_largest(values: FloatArray, k: int) -> float:
    likely = values[values >= _lower_bound(values, k)]
    return float(np.partition(likely, -k)[-k])


def _lower_bound(values: FloatArray, count: int) -> float:
    """A number that at least `count` of the values reach, and not many more; 0 where finding it is not worth it.

    The maxima of equal pieces are values, so the count-th largest of them is such a number.
    """
    width = len(values) // (4 * count)
    if width < 2:
        return 0.0
    maxima = values[: len(values) // width * width].reshape(-1, width).max(axis=1)
    return float(np.partition(maxima, -count)[-count])
