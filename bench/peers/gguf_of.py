"""A Llama checkpoint as a float32 GGUF file for llama.cpp: `python gguf_of.py CHECKPOINT FILE`. No tokenizer inside."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleaved(weights: Any, heads: int) -> Any:
    """Rows of a query or key projection in llama.cpp's order: rotary pairs side by side, not half a head apart."""
    return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def main() -> None:
    """The command line."""
    folder, out = Path(sys.argv[1]), sys.argv[2]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(out, "llama")
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    for name, weights in load_file(folder / "model.safetensors").items():
        parts = name.removeprefix("model.").removesuffix(".weight")
        if parts == "embed_tokens":
            target = "token_embd"
        elif parts in ("norm", "lm_head"):
            target = {"norm": "output_norm", "lm_head": "output"}[parts]
        else:
            _, block, part = parts.split(".", 2)
            target = f"blk.{block}.{NAMES[part]}"
            if part in heads:
                weights = interleaved(weights, heads[part])
        writer.add_tensor(f"{target}.weight", np.ascontiguousarray(weights, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
