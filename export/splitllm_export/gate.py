"""The numeric gate: a bundle's chain of blocks against the logits of transformers. What differs is not published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from splitllm.bundle import Bundle
from splitllm.errors import ExportError
from splitllm.types import Float32Array, TokenArray

from .chain import BlockRun, Plan, chains_of, embed, make_plan, run_head

#: Largest difference of a logit that rounding may explain in float32.
TOLERANCE: Final = 1e-4
#: Root mean square of the differences that rounding may explain in float16, in standard deviations of the logits.
#: Dense families stay below a tenth of this; where rounding tips a choice of experts, single positions differ more.
FLOAT16_TOLERANCE: Final = 0.05

#: Splits of a variant that are run down to the logits, at most; of deeper models these are spread over the depth.
MOST_WHOLE: Final = 8

#: Logits `float32[n, vocab]` of the reference model for `int32[n]` token ids.
Reference = Callable[[TokenArray], Float32Array]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """How far a variant is from the reference over all positions of the plan."""

    max_abs_error: float
    top1_agreement: float
    #: Root mean square of the differences, in standard deviations of the reference's logits.
    relative_error: float
    #: Of all splits: that between what a block of the variant and the float32 block make of the states handed over.
    handover_error: float = 0.0

    def as_manifest(self) -> dict[str, float]:
        """Two significant digits: what rounding does beyond that differs from machine to machine."""
        return {"max_abs_error": float(f"{self.max_abs_error:.1e}"), "top1_agreement": round(self.top1_agreement, 3)}


def check_numbers(
    bundle: Bundle,
    reference: Reference,
    *,
    prompt: Sequence[int] = (),
    every_split: bool = False,
    progress: Progress | None = None,
) -> Mapping[str, Figures]:
    """Run every variant of the bundle and compare: blocks [0, k) in the variant, the rest and the head in float32.

    k is the number of blocks, so that all of them are used. With `every_split` the states at each k are handed over to
    the float32 block that follows, and compared with what the variant's own block makes of them; `whole_splits` are run
    on to the logits, and the worst of these counts. The splits of float32 all run the very same graphs: one chain
    stands for them. So work grows with the number of blocks, not with its square.

    Raises:
        ExportError: code `export_mismatch`, when float32 differs by more than `TOLERANCE`, float16 by more than
            `FLOAT16_TOLERANCE` (on the logits, or in a block behind a split), or any variant is not finite.
    """
    plan = make_plan(bundle.spec.vocab_size, bundle.spec.max_context, prompt)
    expected = [reference(tokens) for tokens in plan.tokens]
    if not all(np.isfinite(logits).all() for logits in expected):
        raise ExportError("the model itself gives logits that are not finite", code="export_mismatch")
    found: dict[str, Figures] = {}
    for variant, (chains, handover) in _run_splits(bundle, plan, every_split=every_split, progress=progress).items():
        figures = [_compare(variant, plan, run_head(bundle, hidden), expected) for hidden in chains]
        found[variant] = Figures(
            max(f.max_abs_error for f in figures),
            min(f.top1_agreement for f in figures),
            max(f.relative_error for f in figures),
            handover,
        )
    error = found["float32"].max_abs_error
    if error > TOLERANCE:
        raise ExportError(
            f"the exported blocks differ from transformers by {error:.2g} on the logits, {TOLERANCE:.0e} is allowed",
            code="export_mismatch",
        )
    half = found.get("float16")
    relative = max(half.relative_error, half.handover_error) if half else 0.0
    if relative > FLOAT16_TOLERANCE:
        raise ExportError(
            f"the float16 blocks differ from transformers by {relative:.0%} of the values' spread, "
            f"{FLOAT16_TOLERANCE:.0%} is allowed; export without float16",
            code="export_mismatch",
        )
    return found


def whole_splits(blocks: int) -> tuple[int, ...]:
    """The splits of a variant that are run to the logits: at most `MOST_WHOLE`, never 0, which is float32 alone."""
    return tuple(sorted({round(k) for k in np.linspace(1, blocks, min(blocks, MOST_WHOLE))}))


def _run_splits(
    bundle: Bundle, plan: Plan, *, every_split: bool, progress: Progress | None
) -> dict[str, tuple[list[list[Float32Array]], float]]:
    """For every variant: hidden states before the head, at every split that is run on, and the worst hand-over."""
    blocks, start = bundle.spec.blocks, embed(bundle, plan)
    running = {variant: {blocks: start} for variant in chains_of(bundle)}
    worst = dict.fromkeys(running, 0.0)
    whole = whole_splits(blocks)
    for index in range(blocks):
        opened = {variant: BlockRun(bundle, index, variant) for variant in running}
        for variant, chains in running.items():
            if every_split and variant != "float32":
                chains[index] = chains[blocks]  # split `index` leaves the variant here
            for split, hidden in chains.items():
                chains[split] = opened[variant if index < split else "float32"].run(plan, hidden)
            if index in chains:
                error = relative_error(chains[blocks], chains[index])
                if not np.isfinite(error):
                    raise ExportError(f"the {variant} blocks give states that are not finite", code="export_mismatch")
                worst[variant] = max(worst[variant], error)
                if index not in whole:
                    del chains[index]
        if progress:
            progress("checking block", index + 1, blocks)
    return {variant: (list(chains.values()), worst[variant]) for variant, chains in running.items()}


def relative_error(have: Sequence[Float32Array], want: Sequence[Float32Array]) -> float:
    """Root mean square of the differences of two lists of arrays, in standard deviations of those that are wanted."""
    a, b = (np.concatenate([states.ravel() for states in values]) for values in (have, want))
    spread = float(np.std(b, dtype=np.float64))
    return float(np.square(a - b, dtype=np.float64).mean() ** 0.5) / spread if spread else 0.0


def _compare(variant: str, plan: Plan, logits: list[Float32Array], expected: list[Float32Array]) -> Figures:
    worst, same, total, squares = 0.0, 0, 0, 0.0
    spread = float(np.std(np.concatenate(expected), dtype=np.float64))
    for step, got in zip(plan.steps, logits, strict=True):
        if not np.isfinite(got).all():
            raise ExportError(f"the {variant} blocks give logits that are not finite", code="export_mismatch")
        for index, (row, past) in enumerate(step.positions()):
            want = expected[row][past : past + step.count]
            differences = np.abs(got[index] - want)
            worst = max(worst, float(differences.max()))
            squares += float(np.square(differences, dtype=np.float64).mean(-1).sum())
            same += int((got[index].argmax(-1) == want.argmax(-1)).sum())
            total += step.count
    return Figures(worst, same / total, (squares / total) ** 0.5 / spread if spread else 0.0)
