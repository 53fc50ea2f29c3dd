"""What an export will take, said before any weight is read: the model is built without weights, from its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
import transformers
from torch import nn
from transformers.modeling_utils import no_init_weights

from splitllm.errors import ExportError

from .quantize import INT4, INT8, Format
from .quiet import first_line
from .variants import activations_of

#: Python, torch, transformers and ONNX Runtime themselves, and buffers: measured, see bench/results/export_size.json.
BASE_MEMORY: Final = 10**9
#: A graph without weights, at most.
_GRAPH_BYTES: Final = 20_000
_hub: Any = transformers  # only half of it has types


@dataclass(frozen=True, slots=True)
class Estimate:
    """Sizes in bytes. `memory_bytes` is besides the checkpoint's mapped pages, which the system gives back at need."""

    architecture: str
    blocks: int
    parameters: int
    max_context: int
    embedding_bytes: int
    head_bytes: int
    variants: Mapping[str, int]
    total_bytes: int
    memory_bytes: int

    def as_json(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return asdict(self)


def estimate(config: Any, max_context: int, variants: Sequence[str], heads: Sequence[str], trust: bool) -> Estimate:
    """The sizes of a bundle of this config, without downloading or reading a weight.

    Raises:
        ExportError: the model cannot be built from its config.
    """
    try:
        with torch.device("meta"), no_init_weights():  # transformers' own fails for some configs
            model = _hub.AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    except Exception as error:  # what a foreign model raises is up to it
        raise ExportError(f"the model cannot be built from its config ({first_line(error)})") from error
    layers: list[nn.Module] = max(
        (list(m) for m in model.modules() if isinstance(m, nn.ModuleList)), key=_parameters, default=[]
    )
    table = model.get_input_embeddings().weight
    head = getattr(model.get_output_embeddings(), "weight", table)
    if not layers:
        raise ExportError(
            f"{type(model).__name__} is not built of decoder layers; nothing in it can be split by blocks"
        )
    stored = {v: sum(_stored(p, v) for m in layers for p in m.parameters()) for v in variants}
    stored = {variant: count + len(layers) * _GRAPH_BYTES for variant, count in stored.items()}
    untied = [variant for variant in heads if variant != "float32" or head is not table]
    head_bytes = sum(_stored(head, variant) for variant in untied)
    embedding = 4 * table.numel()
    tables = sum(4 if activations_of(v) == "float32" else 2 for v in {activations_of(v): v for v in variants}.values())
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    total = embedding + head_bytes + sum(stored.values()) + tables * max_context * head_dim
    return Estimate(
        architecture=config.model_type,
        blocks=len(layers),
        parameters=sum(p.numel() for p in model.parameters()),
        max_context=max_context,
        embedding_bytes=embedding,
        head_bytes=head_bytes,
        variants=stored,
        total_bytes=total,
        memory_bytes=max(4 * _parameters([layer]) for layer in layers) + BASE_MEMORY,
    )


def _parameters(layers: list[nn.Module]) -> int:
    return sum(p.numel() for layer in layers for p in layer.parameters())


def _stored(parameter: torch.Tensor, variant: str) -> int:
    """Bytes of a parameter in a variant. What is no matrix is not quantized."""
    form: Format | None = {"int8": INT8, "int4": INT4, "int4f16": INT4}.get(variant)
    item = 2 if activations_of(variant) == "float16" else 4
    block = form.block_of(parameter.shape[1]) if form and parameter.ndim == 2 else 0
    if not form or not block:
        return item * parameter.numel()
    return parameter.numel() * form.bits // 8 + item * parameter.numel() // block
