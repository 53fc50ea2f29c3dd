"""How long exporting SmolLM2-135M's shape takes, beside Optimum's own whole-model export of the same checkpoint.

    python bench/export_speed.py [--rounds N] [--out bench/results/export_speed.json]

Both in turn in one run, each in a fresh process, the shortest of the rounds of each. Optimum writes one float32 graph
and checks nothing (`do_validation=False`); `splitllm export` writes blocks in float32, and verifies them. The second
figure of ours is the default, with int4 blocks, measured on a text besides.
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

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

_OPTIMUM = (
    "import sys; from optimum.exporters.onnx import main_export; "
    "main_export(sys.argv[1], sys.argv[2], task='text-generation-with-past', do_validation=False)"
)


def make_checkpoint(folder: Path) -> None:
    """Random weights in the shape of SmolLM2-135M."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_theta=100000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokens = ["<|end|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")  # noqa: S106  # a token of text
    fast.chat_template = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    fast.save_pretrained(folder)


def seconds(command: list[str], out: Path) -> float:
    """Wall-clock seconds of a command that writes `out`, which is deleted after."""
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603  # ours
    took = time.monotonic() - begin
    shutil.rmtree(out)
    return took


def main() -> int:
    """Measure in turn, print, write JSON; 3 if ours is slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("bench/results/export_speed.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model, out = Path(scratch) / "model", Path(scratch) / "out"
        make_checkpoint(model)
        splitllm = str(Path(sys.executable).with_name("splitllm"))
        ours = [splitllm, "export", str(model), "--out", str(out)]
        commands = {
            "optimum": [sys.executable, "-c", _OPTIMUM, str(model), str(out)],
            "splitllm float32": [*ours, "--client-dtype", "float32"],
            "splitllm float32 and int4": ours,
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(args.rounds):
            for name, command in commands.items():
                times[name].append(round(seconds(command, out), 1))
    best = {name: min(found) for name, found in times.items()}
    result = {
        "command": f"python bench/export_speed.py --rounds {args.rounds}",
        "shape": "SmolLM2-135M",
        "seconds": times,
        "ratio_to_optimum": {n: round(best[n] / best["optimum"], 2) for n in commands if n != "optimum"},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if result["ratio_to_optimum"]["splitllm float32"] <= 1 else 3  # type: ignore[index]  # made above


if __name__ == "__main__":
    sys.exit(main())
