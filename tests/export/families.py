"""The published architectures of each family, reduced in width and depth only.

Every feature of the named model's config is kept: groups of heads, biases, norms of queries and keys, windows (smaller
than the gate's rows, so that they are crossed), softcaps, multipliers, rope scaling, layers without rotation, tied
embeddings. Heads keep a size that their real ones share kernels with.
"""

from pathlib import Path
from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.modeling_utils import no_init_weights

from .conftest import LLAMA3_ROPE, VOCAB, save_tokenizer

_ENDS: Final = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
_SMALL: Final = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "sliding_window": None,
}
_PATTERN: Final = ["sliding_attention", "full_attention"]

#: Family -> (transformers' model_type, what differs from a small Llama).
FAMILIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "Llama 2": ("llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "Llama 3.2": ("llama", {"rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0, "tie_word_embeddings": True}),
    "Mistral": ("mistral", {"head_dim": 32, "sliding_window": 12}),
    "Qwen2.5": ("qwen2", {"tie_word_embeddings": True, "rope_theta": 1e6}),
    "Qwen2, windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1, "layer_types": _PATTERN[::-1]},
    ),
    "Qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True, "rope_theta": 1e6}),
    "Gemma": ("gemma", {"head_dim": 32, "num_key_value_heads": 1, "hidden_activation": "gelu_pytorch_tanh"}),
    "Gemma 2": (
        "gemma2",
        {"head_dim": 32, "sliding_window": 12, "layer_types": _PATTERN, "query_pre_attn_scalar": 24},
    ),
    "Gemma 3": (
        "gemma3_text",
        {
            "head_dim": 32,
            "sliding_window": 12,
            "layer_types": _PATTERN,
            "query_pre_attn_scalar": 24,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "rope_local_base_freq": 10000.0,
            "rope_theta": 1e6,
        },
    ),
    "Phi-3": ("phi3", {"sliding_window": 12, "num_key_value_heads": 4}),
    "Phi-3.5": (
        "phi3",
        {
            "original_max_position_embeddings": 128,
            "max_position_embeddings": 128,
            "rope_scaling": {"type": "longrope", "short_factor": [1.1] * 8, "long_factor": [2.0] * 8},
        },
    ),
    "Phi-4-mini": (
        "phi3",
        {
            "partial_rotary_factor": 0.75,
            "head_dim": 64,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "hidden_size": 128,
            "tie_word_embeddings": True,
        },
    ),
    "GPT-2": ("gpt2", {"n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4}),
    "SmolLM3": (
        "smollm3",
        {"no_rope_layers": [1, 0], "tie_word_embeddings": True, "rope_theta": 5e6},
    ),
    "OLMo 2": ("olmo2", {"rope_theta": 500000.0}),
    "Granite 3": (
        "granite",
        {
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.015625,
            "tie_word_embeddings": True,
        },
    ),
    "StarCoder2": ("starcoder2", {"sliding_window": 12, "use_bias": True, "tie_word_embeddings": True}),
    "GPT-NeoX": (
        "gpt_neox",
        {"rotary_pct": 0.25, "hidden_size": 128, "num_attention_heads": 2, "use_parallel_residual": True},
    ),
    "Pythia-2.8B": ("gpt_neox", {"rotary_pct": 0.25, "hidden_size": 160, "num_attention_heads": 2}),
    "StableLM 2": (
        "stablelm",
        {
            "partial_rotary_factor": 0.25,
            "use_qkv_bias": True,
            "hidden_size": 128,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
    ),
    "StableLM 2 12B": (
        "stablelm",
        {
            "partial_rotary_factor": 0.25,
            "qk_layernorm": True,
            "use_parallel_residual": True,
            "hidden_size": 128,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
    ),
    "Cohere Command-R": ("cohere", {"logit_scale": 0.0625, "tie_word_embeddings": True}),
    "Cohere Command-R+": ("cohere", {"logit_scale": 0.8333, "use_qk_norm": True, "tie_word_embeddings": True}),
    "EXAONE 4": ("exaone4", {"sliding_window": 12, "layer_types": _PATTERN}),
    "Hunyuan": ("hunyuan_v1_dense", {"head_dim": 32, "tie_word_embeddings": True}),
    "Qwen3-MoE": (
        "qwen3_moe",
        {
            "head_dim": 32,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
        },
    ),
    "Mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "OLMoE": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4}),
    "Qwen1.5-MoE": (
        "qwen2_moe",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 64,
        },
    ),
}


def family_config(family: str) -> Any:
    """The reduced config of a family."""
    model_type, changes = FAMILIES[family]
    kind = CONFIG_MAPPING[model_type]
    base = {} if "n_embd" in changes else _SMALL
    return kind(**(base | {"vocab_size": VOCAB} | _ENDS | changes))


def save_family(folder: Path, family: str) -> Path:
    """A checkpoint of the family with random weights and a tokenizer."""
    random_model(family_config(family)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def random_model(config: Any) -> Any:
    """Random weights that hide nothing: norms are no identity, biases not 0, logits spread like a real model's."""
    torch.manual_seed(0)
    with no_init_weights():  # transformers' own fails for some configs
        model = AutoModelForCausalLM.from_config(config).eval()
    model.tie_weights()  # left out with the rest
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.06)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.1 + (1.0 if name.endswith("weight") else 0.0))
        head = model.get_output_embeddings().weight
        for _ in range(3):  # a tied head changes the embedding too
            head.mul_(2 / model(torch.arange(64)[None] % config.vocab_size).logits.std())
    return model
