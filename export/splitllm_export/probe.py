"""Trying a family out before anything heavy: a small model of the same class and config, through the whole exporter.

Whether a family comes out right is not looked up in a list. The config is reduced in width and depth, every other
feature of it kept, and windows are made short enough to be crossed; the small model gets random weights, is exported
and must pass the numeric gate. That takes seconds, whatever the size of the real model, which must still pass the gate
itself.
"""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from transformers.modeling_utils import no_init_weights

from splitllm.bundle import Bundle
from splitllm.errors import ExportError
from splitllm.types import SamplingParams

from . import layout
from .decoder import find_parts
from .gate import Figures, check_numbers
from .parts import write_parts
from .quiet import first_line
from .reference import reference_of
from .source import Texts

_hub: Any = transformers  # only half of it has types
#: Sizes of the small model. Heads keep their real size, and groups stay groups.
_VOCAB, _WIDTH, _CONTEXT, _WINDOW = 128, 128, 96, 12
_MOST_KV_HEADS, _MOST_IN_A_GROUP = 2, 2
#: Layers that differ are all tried, up to so many.
_MOST_LAYERS: Final = 4
_EXPERTS, _CHOSEN = 4, 2
_SEED: Final = 20410


def check_family(config: Any, context: int, *, trust_remote_code: bool = False) -> Mapping[str, float]:
    """Export and gate a small model of this config; its figures as in the manifest.

    Raises:
        ExportError: models of this kind do not come out right, or cannot be exported at all.
    """
    for name in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
        if not hasattr(config, name):
            raise ExportError(
                f"{config.model_type}: the config states no {name}; not a decoder that can be split by blocks"
            )
    try:
        small = reduced(config)
        key = json.dumps(small.to_diff_dict() | {"class": type(config).__name__}, sort_keys=True, default=str)
    except Exception as error:  # whatever a foreign config raises when it is changed or read
        raise _no_small_model(config, error) from error
    return _checked(_Config(small, key), min(context, _CONTEXT), trust_remote_code).as_manifest()


def _no_small_model(config: Any, error: Exception) -> ExportError:
    return ExportError(
        f"{config.model_type} models cannot be tried out at a small size "
        f"({type(error).__name__}: {first_line(error)[:120]}); not supported yet"
    )


class _Config:
    """A config that is equal to others of the same contents."""

    def __init__(self, config: Any, key: str) -> None:
        self.config, self.key = config, key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Config) and other.key == self.key


@functools.lru_cache(maxsize=8)
def _checked(small: _Config, context: int, trust_remote_code: bool) -> Figures:
    kind = str(small.config.model_type)
    try:
        model = random_model(small.config, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever a foreign class raises about a config that it does not expect
        raise _no_small_model(small.config, error) from error
    with tempfile.TemporaryDirectory(prefix="splitllm-probe-") as folder:
        try:
            return _export_and_gate(model, kind, context, Path(folder))
        except ExportError as error:
            raise ExportError(f"{kind}: {error.message}", code=error.code) from error
        except Exception as error:  # a family that breaks the exporter in a way of its own
            raise ExportError(
                f"{kind} models do not fit the exporter ({type(error).__name__}: {first_line(error)[:120]}); "
                "not supported yet"
            ) from error


def _export_and_gate(model: Any, kind: str, context: int, folder: Path) -> Figures:
    with torch.no_grad():
        decoder = find_parts(model, context)
        files = layout.Folder(folder)
        files.write("tokenizer.json", b"{}")
        layout.write_manifest(
            files,
            name="probe",
            architecture=kind,
            sizes=decoder.sizes,
            texts=Texts("{}", "-", None, None, (0,), ()),
            generation=SamplingParams(),
            parts=write_parts(decoder, ["float32"], ["float32"], "float32", files, lambda *_: None),
            figures={},
        )
        return check_numbers(Bundle.open(folder, verify=False), reference_of(model))["float32"]


def reduced(config: Any) -> Any:
    """The config of a small model with the same features."""
    small = copy.deepcopy(config)
    blocks, heads = config.num_hidden_layers, config.num_attention_heads
    _keep_layers(small, blocks)
    if isinstance(heads, int):
        _reduce_heads(small, config, heads)
    for name, value in vars(small).items():
        if not isinstance(value, int) or isinstance(value, bool) or not value:
            continue
        if "intermediate_size" in name or name in ("ffn_dim", "n_inner", "ffn_hidden_size"):
            setattr(small, name, min(value, _WIDTH))
        elif name in ("sliding_window", "attention_chunk_size"):
            setattr(small, name, min(value, _WINDOW))
        elif name in ("num_experts", "num_local_experts", "n_routed_experts"):
            setattr(small, name, min(value, _EXPERTS))
        elif name in ("num_experts_per_tok", "moe_topk", "moe_k"):
            setattr(small, name, min(value, _CHOSEN))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(small, name, None) is not None:
            setattr(small, name, 0)
    small.vocab_size = min(config.vocab_size, _VOCAB)
    small.dtype = torch.float32
    return small


def _keep_layers(small: Any, blocks: int) -> None:
    """Of what the config lists layer by layer, the first layer of each kind, and at least two layers."""
    lists = {n: v for n, v in vars(small).items() if isinstance(v, list) and len(v) == blocks and n != "architectures"}
    kinds = {str([values[i] for values in lists.values()]): i for i in reversed(range(blocks))}
    first = sorted(kinds.values())[:_MOST_LAYERS]
    kept = sorted({*first, *range(min(blocks, 2))} if len(first) < 2 else first)
    for name, values in lists.items():
        setattr(small, name, [values[i] for i in kept])
    small.num_hidden_layers = len(kept)


def _reduce_heads(small: Any, config: Any, heads: int) -> None:
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    few = min(kv_heads, _MOST_KV_HEADS)
    small.num_attention_heads = few * min(heads // kv_heads, _MOST_IN_A_GROUP)
    if isinstance(getattr(config, "num_key_value_heads", None), int):
        small.num_key_value_heads = few
    together = config.hidden_size == heads * head_dim
    small.hidden_size = small.num_attention_heads * head_dim if together else _WIDTH


def random_model(config: Any, *, trust_remote_code: bool = False) -> Any:
    """Random weights that hide nothing: norms are no identity, biases not 0, logits spread like a real model's."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        with no_init_weights():  # slow, and for some configs it fails
            model = _hub.AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code).eval()
        model.tie_weights()  # left out with the rest
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5 * parameter.shape[-1] ** -0.5)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.1 + (1.0 if name.endswith("weight") else 0.0))
        head = model.get_output_embeddings()
        if head is not None:
            for _ in range(3):  # a tied head changes the embedding too
                spread = model(torch.arange(64)[None] % config.vocab_size, use_cache=False).logits.std()
                head.weight.mul_(2 / spread if spread > 0 else 1)
        return model
