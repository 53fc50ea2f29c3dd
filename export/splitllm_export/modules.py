"""The parts of a bundle as torch modules, cut out of the model's own class: its quirks stay transformers' code."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from splitllm.errors import ExportError

from .attention import ATTENTION, AttentionStep, PassThroughCache, rotation_left_to_the_kernel

_FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "final_norm")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the model; `max_context` is what the bundle promises, not what the model could do."""

    blocks: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_context: int


@dataclass(frozen=True, slots=True)
class Decoder:
    """A causal language model with its parts found: `base` holds `layers` (named `layers_name`) and the final norm."""

    model: Any
    base: Any
    layers_name: str
    norm_name: str
    sizes: Sizes

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, in order."""
        layers: nn.ModuleList = getattr(self.base, self.layers_name)
        return layers


def find_parts(model: Any, max_context: int) -> Decoder:
    """Find layers, norm and sizes of a transformers model.

    Raises:
        ExportError: the model is not built as decoder layers, a final norm and a head.
    """
    config, base = model.config, model.base_model
    blocks = config.num_hidden_layers
    named = dict(base.named_children())
    layers = next((n for n, m in named.items() if isinstance(m, nn.ModuleList) and len(m) == blocks), None)
    norm = next((n for n in _FINAL_NORMS if n in named), None)
    if layers is None or norm is None or model.get_output_embeddings() is None or not hasattr(base, "rotary_emb"):
        raise ExportError(f"{type(model).__name__} is not built of decoder layers, a final norm and a head")
    heads = config.num_attention_heads
    sizes = Sizes(
        blocks=blocks,
        hidden_size=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocab_size=model.get_input_embeddings().weight.shape[0],
        max_context=max_context,
    )
    return Decoder(model, base, layers, norm, sizes)


def _cut(decoder: Decoder, start: int, end: int) -> Any:
    """The model's base class with layers [start, end) only and no final norm; weights are shared, config is not."""
    config = copy.deepcopy(decoder.model.config)
    config.num_hidden_layers = end - start
    config._attn_implementation = ATTENTION
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[start:end]
    base = copy.copy(decoder.base)
    base._modules = dict(base._modules)
    base._modules[decoder.norm_name] = nn.Identity()
    base._modules[decoder.layers_name] = nn.ModuleList(copy.deepcopy(layer) for layer in decoder.layers[start:end])
    base.config = config
    for module in base._modules[decoder.layers_name].modules():
        if hasattr(module, "config"):
            module.config = config
    return base


class BlockModule(nn.Module):
    """One decoder block with the inputs and outputs of BUNDLE.md."""

    def __init__(self, decoder: Decoder, index: int) -> None:
        super().__init__()
        self.block = _cut(decoder, index, index + 1)
        self.block.set_input_embeddings(nn.Identity())  # it is fed hidden states
        self.config = self.block.config
        self.sizes = decoder.sizes

    def forward(
        self,
        hidden_states: torch.Tensor,
        seqlens_k: torch.Tensor,
        total_sequence_length: torch.Tensor,
        past_key: torch.Tensor,
        past_value: torch.Tensor,
        cos_cache: torch.Tensor,
        sin_cache: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Shapes as in BUNDLE.md, "Graph of a block"."""
        tensors = (seqlens_k, total_sequence_length, past_key, past_value, cos_cache, sin_cache)
        step = AttentionStep(self.sizes.heads, self.sizes.kv_heads, self.sizes.head_dim, *tensors)
        with rotation_left_to_the_kernel(next(iter(self.block.layers))):
            out = self.block(inputs_embeds=hidden_states, past_key_values=PassThroughCache(), use_cache=True, step=step)
        if step.present is None:
            raise ExportError(f"{type(self.block).__name__} does not use transformers' attention interface")
        key, value = step.present
        return {"hidden_states_out": out.last_hidden_state, "present_key": key, "present_value": value}

    def example(self) -> dict[str, torch.Tensor]:
        """Inputs to trace with: 3 rows on a past of 5 (the kernel wants batch 1 there)."""
        s, rows, past = self.sizes, 3, 5
        return {
            "hidden_states": torch.zeros(1, rows, s.hidden_size),
            "seqlens_k": torch.full((1,), past + rows - 1, dtype=torch.int32),
            "total_sequence_length": torch.tensor(past + rows, dtype=torch.int32),
            "past_key": torch.zeros(1, s.kv_heads, past, s.head_dim),
            "past_value": torch.zeros(1, s.kv_heads, past, s.head_dim),
            "cos_cache": torch.zeros(s.max_context, s.head_dim // 2),
            "sin_cache": torch.zeros(s.max_context, s.head_dim // 2),
        }


class HeadModule(nn.Module):
    """Final norm and output projection: hidden states [B, S, hidden] -> logits [B, S, vocab]."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.norm = getattr(decoder.base, decoder.norm_name)
        self.lm_head = decoder.model.get_output_embeddings()
        self.config = copy.deepcopy(decoder.model.config)
        self.softcap = getattr(self.config, "final_logit_softcapping", None)

    def forward(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        """`logits` for every row."""
        logits = self.lm_head(self.norm(hidden_states))
        if self.softcap:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return {"logits": logits}

    def example(self) -> dict[str, torch.Tensor]:
        """Inputs to trace with."""
        return {"hidden_states": torch.zeros(2, 3, self.config.hidden_size)}


def embedding_table(decoder: Decoder) -> torch.Tensor:
    """What the first block receives for each token, `float32[vocab, hidden]`: the base model run with no layers.

    So whatever a family does to its embeddings on the way (a scale, say) is in the table.
    """
    base, vocab = _cut(decoder, 0, 0), decoder.sizes.vocab_size
    spans = [torch.arange(start, min(start + 4096, vocab)) for start in range(0, vocab, 4096)]
    with torch.no_grad():
        chunks = [base(input_ids=span[None], use_cache=False).last_hidden_state[0] for span in spans]
    return torch.cat(chunks).float()


def rotary_tables(decoder: Decoder) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of the model's own rotary module, two `float32[max_context, head_dim / 2]`.

    Raises:
        ExportError: the rotation is not the kernel's (two halves turned by one table, fixed for all lengths).
    """
    s, rotary = decoder.sizes, decoder.base.rotary_emb
    kind = getattr(rotary, "rope_type", "default")
    if kind in ("dynamic", "longrope"):
        raise ExportError(f"rotary embeddings of type {kind!r} change with the length of the text; not supported yet")
    with torch.no_grad():
        tables = rotary(torch.zeros(1, 1, s.hidden_size), torch.arange(s.max_context)[None])
    half = s.head_dim // 2
    for table in tables:
        if table.shape[-1] != s.head_dim or not torch.equal(table[..., :half], table[..., half:]):
            raise ExportError("the model rotates only part of a head, or pairs its values otherwise; not supported yet")
    cos, sin = (table[0, :, :half].float().contiguous() for table in tables)
    return cos, sin
