"""How much memory exporting a model of 3.2 billion parameters takes.

    python bench/export_size.py [--folder DIR] [--layers N] [--out bench/results/export_size.json]

Makes a random checkpoint in the shape of Llama-3.2-3B (bfloat16, several safetensors files), exports it with
`splitllm export`, and watches that process: its peak resident memory (VmHWM), and the part of it that is anonymous,
since the rest are pages of mapped files, which the system takes back when memory is short. Both folders are deleted.
Needs about 22 GB of disk. The bound: one block in float32 and 1 GB, besides mapped pages.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

GIGABYTE = 10**9
SAMPLE_SECONDS = 0.05
TEXT = "Random weights have nothing to say about any text; this one is as short as is allowed, to save time."


def config_of(layers: int, **changes: Any) -> LlamaConfig:
    """Llama-3.2-3B, with random weights that nobody will read."""
    sizes = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 128256,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": layers,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 2,
        "dtype": "bfloat16",
    }
    return LlamaConfig(**(sizes | changes))


def make_checkpoint(folder: Path, config: LlamaConfig) -> int:
    """Write the checkpoint, a file for every four layers; the number of parameters."""
    folder.mkdir(parents=True)
    hidden, inner = config.hidden_size, config.intermediate_size
    heads, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    matrices = {
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, heads),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    torch.manual_seed(0)
    names: dict[str, str] = {}
    count = 0

    def save(tensors: dict[str, torch.Tensor]) -> None:
        nonlocal count
        name = f"model-{len(set(names.values())) + 1:05}.safetensors"
        save_file(tensors, folder / name, {"format": "pt"})
        names.update(dict.fromkeys(tensors, name))
        count += sum(tensor.numel() for tensor in tensors.values())

    pool = torch.empty(2**24 + 1, dtype=torch.bfloat16).normal_(0, 0.02)  # drawn once: 3 billion draws take minutes

    def random(*shape: int) -> torch.Tensor:
        size = torch.Size(shape).numel()
        turned = pool.roll(count + 7919 * len(names))
        return turned.repeat(-(-size // len(pool)))[:size].reshape(shape)

    def norm() -> torch.Tensor:
        return torch.ones(hidden, dtype=torch.bfloat16) + random(hidden)

    save({"model.embed_tokens.weight": random(config.vocab_size, hidden), "model.norm.weight": norm()})
    if not config.tie_word_embeddings:
        save({"lm_head.weight": random(config.vocab_size, hidden)})
    for first in range(0, config.num_hidden_layers, 4):
        tensors = {}
        for layer in range(first, min(first + 4, config.num_hidden_layers)):
            place = f"model.layers.{layer}"
            tensors |= {f"{place}.{name}.weight": random(*shape) for name, shape in matrices.items()}
            tensors |= {f"{place}.{name}.weight": norm() for name in ("input_layernorm", "post_attention_layernorm")}
        save(tensors)
    index = {"metadata": {"total_size": 2 * count}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config.save_pretrained(folder)
    _save_tokenizer(folder)
    return count


def _save_tokenizer(folder: Path) -> None:
    tokens = ["<|end|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")  # noqa: S106  # a token of text
    fast.chat_template = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    fast.save_pretrained(folder)


def watched(command: list[str]) -> tuple[int, str, float, dict[str, int]]:
    """Run a command: exit code, stdout, seconds, and its peak memory in bytes (resident, anonymous)."""
    peak = {"VmHWM": 0, "RssAnon": 0}
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)  # noqa: S603  # this file's own command
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for line in status.read_text().splitlines() if status.exists() else ():
                name, _, value = line.partition(":")
                if name in peak:
                    peak[name] = max(peak[name], 1024 * int(value.split()[0]))
            time.sleep(SAMPLE_SECONDS)
        out.seek(0)
        return process.returncode, out.read(), time.monotonic() - begin, peak


def main() -> int:
    """Make, export, measure, delete; 3 if memory was above the bound or the export failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work (default: a new temporary folder)")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--out", type=Path, default=Path("bench/results/export_size.json"))
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="export-size-", dir=args.folder))
    try:
        config = config_of(args.layers)
        parameters = make_checkpoint(work / "model", config)
        splitllm = str(Path(sys.executable).with_name("splitllm"))
        (work / "text").write_text(TEXT)
        command = [splitllm, "export", str(work / "model"), "--out", str(work / "bundle"), "--json"]
        command += ["--text", str(work / "text")]
        code, text, seconds, peak = watched(command)
        if code:
            return code
        summary: dict[str, Any] = json.loads(text)
        sizes = [path.stat().st_size for path in (work / "bundle").iterdir()]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    block = int(summary["variants"]["float32"]["block_bytes"])
    result = {
        "command": "python bench/export_size.py",
        "shape": f"Llama-3.2-3B, {args.layers} blocks, bfloat16",
        "parameters": parameters,
        "checkpoint_bytes": 2 * parameters,
        "bundle_bytes": summary["total_bytes"],
        "largest_file_bytes": max(sizes),
        "block_float32_bytes": block,
        "peak_resident_bytes": peak["VmHWM"],
        "peak_anonymous_bytes": peak["RssAnon"],
        "bound_bytes": block + GIGABYTE,
        "within_bound": peak["RssAnon"] <= block + GIGABYTE,
        "seconds": round(seconds),
        "variants": summary["variants"],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if result["within_bound"] else 3


if __name__ == "__main__":
    sys.exit(main())
