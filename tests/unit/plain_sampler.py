"""Drawing one token by the plain definition, whole arrays at every step: what the real sampler is compared with."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from splitllm.types import Float32Array, FloatArray, SamplingParams


@np.errstate(over="ignore")  # a score over a tiny temperature or penalty is rightly infinite
def plain_sample(
    logits: Float32Array, params: SamplingParams, seen: Collection[int], generator: np.random.Generator | None
) -> int:
    """One token id.

    Args:
        logits: float32[vocab_size]; not changed.
        params: how to draw; temperature 0 is argmax (lowest id on a tie), as is a best score that is not finite.
        seen: ids in the conversation so far, for the repetition penalty (Keskar et al. 2019, CTRL, section 4.1).
        generator: source of randomness; only needed when temperature is above 0.
    """
    scores = _penalised(logits, params.repetition_penalty, seen)
    best = float(scores.max())
    if params.temperature == 0 or generator is None or not np.isfinite(best):
        return int(np.argmax(scores))
    weights = np.exp((scores.astype(np.float64) - best) / params.temperature)
    probabilities = weights / weights.sum()
    probabilities = _keep_top_k(probabilities, params.top_k)
    probabilities = _keep_top_p(probabilities, params.top_p)
    probabilities = _keep_min_p(probabilities, params.min_p)
    cumulative = np.cumsum(probabilities)
    drawn = generator.random() * cumulative[-1]
    return int(np.searchsorted(cumulative, drawn, side="right").clip(0, len(cumulative) - 1))


def _penalised(logits: Float32Array, penalty: float, seen: Collection[int]) -> FloatArray:
    if penalty == 1 or not seen:
        return logits
    scores = logits.astype(np.float64)
    ids = np.fromiter(seen, np.int64, len(seen))
    values = scores[ids]
    scores[ids] = np.where(values < 0, values * penalty, values / penalty)
    return scores


def _keep_top_k(probabilities: np.ndarray, top_k: int) -> np.ndarray:
    """Zero all but the k most likely; on a tie at the border all tied tokens stay."""
    if not 0 < top_k < len(probabilities):
        return probabilities
    border = np.partition(probabilities, -top_k)[-top_k]
    return np.where(probabilities < border, 0.0, probabilities)


def _keep_top_p(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """Keep the smallest set of likeliest tokens whose mass reaches top_p (Holtzman et al. 2019)."""
    if top_p >= 1:
        return probabilities
    total = probabilities.sum()
    # All tokens below the border together weigh less than what is cut off, so only the others need to be sorted.
    likely = np.flatnonzero(probabilities >= (1 - top_p) * total / len(probabilities))
    order = likely[np.argsort(-probabilities[likely], kind="stable")]
    mass_before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = np.zeros_like(probabilities)
    chosen = order[mass_before < top_p * total]
    kept[chosen] = probabilities[chosen]
    return kept


def _keep_min_p(probabilities: np.ndarray, min_p: float) -> np.ndarray:
    """Keep tokens at least min_p times as likely as the likeliest (Nguyen et al. 2024)."""
    if min_p == 0:
        return probabilities
    return np.where(probabilities < min_p * probabilities.max(), 0.0, probabilities)
