"""Tiny random models, made once; their norms are shaken so that no weight is an identity."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the libraries below are imported
pytest.importorskip("torch")
pytest.importorskip("optimum.exporters.onnx")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from splitllm.bundle import Bundle
from splitllm_export.exporter import export_model

VOCAB = 259
torch.set_num_threads(1)  # models this small compute faster than threads wait for each other
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def llama_config(**changes: Any) -> LlamaConfig:
    """3 blocks, 4 heads on 2 key-value heads."""
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": None,
        "eos_token_id": 2,
    }
    return LlamaConfig(**(sizes | changes))


def shaken_model(config: Any) -> Any:
    """Random weights, large enough that every block changes the logits; norms and biases away from 1 and 0."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(3.0)
    return model


def save_tokenizer(folder: Path, **changes: Any) -> None:
    """A tokenizer of single bytes and three special tokens."""
    tokens = ["<|end|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>", "<|end|>"]}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(special | changes))
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def save_model(folder: Path, config: Any) -> Path:
    shaken_model(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Llama with its own head."""
    return save_model(tmp_path_factory.mktemp("models") / "tiny-llama", llama_config())


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`checkpoint` exported with the defaults; not to be changed."""
    out = tmp_path_factory.mktemp("bundles") / "tiny-llama"
    export_model(checkpoint, out)
    return Bundle.open(out)


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint with a changed config, of one block unless said otherwise."""

    def make(**changes: Any) -> Path:
        return save_model(tmp_path / "model", llama_config(**({"num_hidden_layers": 1} | changes)))

    return make
