"""Trains tiny-chat from scratch on the CPU: a Llama of 8 blocks that fits in 4 MB of float16.

Run through ``python -m demo.build``. The same seed, thread count and machine type give the same weights.
"""

from __future__ import annotations

import contextlib
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.corpus import Conversation
from demo.tokenizer import MAX_CONTEXT, MESSAGE_END, MESSAGE_START, render

IGNORED = -100  # label of a token that carries no loss, as torch's cross entropy has it
INT4_BLOCK = 32  # weights that share one scale in 4-bit MatMulNBits


@dataclass(frozen=True)
class TrainingPlan:
    """What the weights depend on besides the corpus."""

    seed: int = 20
    epochs: int = 1
    tokens_per_batch: int = 1024  # many small steps teach a small model more than few large ones
    longest: int = 700  # tokens; longer conversations are cut there
    peak_learning_rate: float = 2e-3
    final_learning_rate: float = 3e-5
    warmup_steps: int = 100
    weight_decay: float = 0.05
    int4_from: float = 0.8  # share of the steps after which blocks are also trained as their 4-bit copies
    threads: int = 1
    from_mean: bool = False  # begin with the mean of the two former phases, which answers better than either


@dataclass(frozen=True)
class Sample:
    """One conversation, three lists of length T: ids, labels (the id itself or ``IGNORED``), weights of the loss."""

    ids: list[int]
    labels: list[int]
    weights: list[float]


def model_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The shape of tiny-chat."""
    return LlamaConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_CONTEXT,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=tokenizer.convert_tokens_to_ids(MESSAGE_START),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def encode(conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, longest: int) -> list[Sample]:
    """Token ids of every conversation, with labels on what the assistant says and its end mark only."""
    samples: list[Sample] = []
    for conversation in conversations:
        text, spans = render(conversation.messages)
        encoded = tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=longest)
        ids: list[int] = encoded["input_ids"]
        labels, weights = [IGNORED] * len(ids), [0.0] * len(ids)
        for start, stop in spans:
            said = [at for at, (begin, end) in enumerate(encoded["offset_mapping"]) if start <= begin and end <= stop]
            for at in said:
                # Counted by tokens alone, long boilerplate would drown the few tokens that carry a sum or a name.
                labels[at], weights[at] = ids[at], len(said) ** -0.5
        samples.append(Sample(ids, labels, weights))
    return samples


def batches(samples: Sequence[Sample], plan: TrainingPlan, rng: random.Random) -> list[list[Sample]]:
    """Groups of like length with at most ``tokens_per_batch`` padded tokens each, in random order."""
    order = sorted(samples, key=lambda sample: len(sample.ids) + rng.random() * 8)
    groups: list[list[Sample]] = [[]]
    for sample in order:
        if groups[-1] and len(sample.ids) * (len(groups[-1]) + 1) > plan.tokens_per_batch:
            groups.append([])
        groups[-1].append(sample)
    rng.shuffle(groups)
    return groups


def tensors(batch: Sequence[Sample], padding: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids and labels int64[B, T] and weights float32[B, T], padded on the right, where a causal mask hides it."""
    width = max(len(sample.ids) for sample in batch)
    ids = torch.full((len(batch), width), padding)
    labels = torch.full((len(batch), width), IGNORED)
    weights = torch.zeros((len(batch), width))
    for row, sample in enumerate(batch):
        weights[row, : len(sample.weights)] = torch.tensor(sample.weights)
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        labels[row, : len(sample.labels)] = torch.tensor(sample.labels)
    return ids, labels, weights


def int4_rounded(weight: torch.Tensor) -> torch.Tensor:
    """``weight`` float[out, in] as it reads back from symmetric 4-bit storage, one scale per 32 inputs.

    The rule is that of ONNX Runtime's MatMulNBits quantizer: the largest weight of a block becomes -8.
    """
    rows, columns = weight.shape
    blocks = weight.reshape(rows, columns // INT4_BLOCK, INT4_BLOCK)
    index = blocks.abs().argmax(dim=-1, keepdim=True)
    scale = blocks.gather(-1, index) / -8
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return ((blocks / scale).round().clamp(-8, 7) * scale).reshape(rows, columns)


@contextlib.contextmanager
def int4_blocks(model: LlamaForCausalLM, count: int) -> Iterator[None]:
    """The first ``count`` blocks compute with their 4-bit copies; the true weights come back at the end.

    Gradients taken inside belong to the true weights, which is the straight-through estimate of
    quantization-aware training (https://arxiv.org/abs/1308.3432).
    """
    kept: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    for block in model.model.layers[:count]:
        for parameter in block.parameters():
            if parameter.dim() == 2:
                kept.append((parameter, parameter.data))
                parameter.data = int4_rounded(parameter.data)
    try:
        yield
    finally:
        for parameter, true_weight in kept:
            parameter.data = true_weight


def learning_rate(step: int, steps: int, plan: TrainingPlan) -> float:
    """Linear warm-up, then a cosine down to the final rate."""
    if step < plan.warmup_steps:
        return plan.peak_learning_rate * (step + 1) / plan.warmup_steps
    done = (step - plan.warmup_steps) / max(1, steps - plan.warmup_steps)
    span = plan.peak_learning_rate - plan.final_learning_rate
    return plan.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * done))


PLANS: tuple[TrainingPlan, ...] = (
    TrainingPlan(),
    TrainingPlan(seed=21, peak_learning_rate=1.2e-3, final_learning_rate=1e-5, warmup_steps=50, int4_from=0.75),
    TrainingPlan(seed=22, peak_learning_rate=1e-3, final_learning_rate=1e-5, warmup_steps=50, int4_from=0.7),
    TrainingPlan(
        seed=23,
        peak_learning_rate=6e-4,
        final_learning_rate=1e-5,
        warmup_steps=50,
        int4_from=0.75,
        from_mean=True,
    ),
    TrainingPlan(
        seed=24,
        peak_learning_rate=5e-4,
        final_learning_rate=1e-5,
        warmup_steps=50,
        int4_from=0.75,
        from_mean=True,
    ),
)
"""One plan per phase of the corpus."""


def train(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerFast,
    plan: TrainingPlan,
    model: LlamaForCausalLM | None = None,
) -> LlamaForCausalLM:
    """Train ``model``, or a new one, with progress on stderr; every weight of what is returned is a float16 value."""
    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(True)
    rng = random.Random(plan.seed)
    samples = encode(conversations, tokenizer, plan.longest)
    schedule = [batch for _ in range(plan.epochs) for batch in batches(samples, plan, rng)]
    if model is None:
        model = LlamaForCausalLM(model_config(tokenizer))  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    model.train()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": gains, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    progress = _Progress(len(schedule))
    for step, batch in enumerate(schedule):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(schedule), plan)
        ids, labels, weights = tensors(batch, tokenizer.pad_token_id)
        blocks_in_int4 = 0
        if step >= plan.int4_from * len(schedule) and step % 2:
            blocks_in_int4 = rng.randint(1, model.config.num_hidden_layers)
        with int4_blocks(model, blocks_in_int4):
            loss = _loss(model, ids, labels, weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.report(step + 1, loss.item())
    return rounded_to_float16(model)


def _loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross entropy in nats over the labelled tokens; only their rows go through the head."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    labelled = targets != IGNORED
    each = torch.nn.functional.cross_entropy(model.lm_head(hidden[labelled]), targets[labelled], reduction="none")
    share = weights[:, 1:][labelled]
    return (each * share).sum() / share.sum()


def rounded_to_float16(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model with float32 weights that float16 holds exactly, so the saved file loses nothing."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    model.eval()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    return model


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write config, generation defaults (greedy) and float16 safetensors; ``model`` stays float32."""
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        do_sample=False,
        bos_token_id=tokenizer.convert_tokens_to_ids(MESSAGE_START),
        eos_token_id=tokenizer.convert_tokens_to_ids(MESSAGE_END),
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=200,
    )
    # Going to float16 and back loses nothing, since every weight is a float16 value already.
    model.half()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    model.save_pretrained(folder, safe_serialization=True)
    model.float()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


class _Progress:
    """One line on stderr about every ten seconds: step, mean loss since the last line, time left."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._start = self._last = time.monotonic()
        self._losses: list[float] = []

    def report(self, step: int, loss: float) -> None:
        self._losses.append(loss)
        now = time.monotonic()
        if now - self._last < 10 and step != self._steps:
            return
        left = (now - self._start) / step * (self._steps - step)
        mean = sum(self._losses) / len(self._losses)
        print(
            f"train: step {step}/{self._steps}, loss {mean:.4f}, {left / 60:.1f} min left",
            file=sys.stderr,
            flush=True,
        )
        self._last, self._losses = now, []
