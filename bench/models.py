"""Models of known shapes with random weights, and their bundles, for benchmarks: speed does not depend on the values.

    python bench/models.py SHAPE --out FOLDER      # FOLDER/SHAPE (Hugging Face layout) and FOLDER/SHAPE.bundle

Needs the `export` extra. Nothing it makes is committed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the libraries below are imported

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from splitllm_export.exporter import export_model

#: Sizes as the models' own config.json states them; "tiny" is for trying the benchmarks out.
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}
CONTEXT: Final = 4096
_TEMPLATE: Final = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def make_model(shape: str, folder: Path) -> Path:
    """A checkpoint of the shape: transformers' own random initialisation, a tokenizer of single bytes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape], max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokens = ["<|end|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special: dict[str, Any] = {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>", "<|end|>"]}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)
    return folder


def make_bundle(shape: str, folder: Path) -> Path:
    """`folder/SHAPE.bundle`, made unless it is there already; its checkpoint stands beside it."""
    bundle = folder / f"{shape}.bundle"
    if not (bundle / "manifest.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = make_model(shape, folder / shape)
        export_model(checkpoint, bundle, server_dtype="int4", client_dtypes=("float32", "int4"), name=shape)
    return bundle


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make a bundle of random weights in a known shape.")
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    print(make_bundle(args.shape, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
