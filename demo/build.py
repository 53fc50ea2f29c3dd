"""Builds tiny-chat from nothing: ``python -m demo.build``.

Corpus, tokenizer, training, held-out check, and at the end the bundle. The checkpoint that stands in
``demo/`` is replaced only by one that passes the check.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from demo import evaluate
from demo.corpus import PHASES, conversations
from demo.tokenizer import render, save_tokenizer, train_tokenizer
from demo.train import PLANS, rounded_to_float16, save_model, train

Weights = dict[str, torch.Tensor]

BUNDLE = evaluate.DEMO_FOLDER / "bundle"
SHARES_OF_RESULT = (0.25, 0.75)
"""Shares of the last phases in the result. A part of the phase before takes new wordings better than the last alone.

Chosen on conversations of another seed, never on the held-out questions.
"""
TEXT_SEED = 20410
"""Conversations of this seed are in no phase; the bundle's int4 blocks are measured on them."""


def build_checkpoint(folder: Path) -> int:
    """Train into ``folder`` and return the exit code of the held-out check."""
    _say(f"corpus: {sum(phase.conversations for phase in PHASES)} conversations")
    corpora = [list(conversations(phase.conversations, phase.seed, phase.shares)) for phase in PHASES]
    _say("tokenizer")
    tokenizer = train_tokenizer(corpora[0])
    started = time.monotonic()
    model, former = None, list[Weights]()
    for number, (corpus, plan) in enumerate(zip(corpora, PLANS, strict=True), 1):
        _say(f"phase {number} of {len(corpora)}")
        if model is not None and plan.from_mean:
            model.load_state_dict(mixed(former[-2:], (0.5, 0.5)))
        model = train(corpus, tokenizer, plan, model)
        former.append({name: value.clone() for name, value in model.state_dict().items()})
    if model is None:
        raise ValueError("PHASES is empty")
    model.load_state_dict(mixed(former[-len(SHARES_OF_RESULT) :], SHARES_OF_RESULT))
    model = rounded_to_float16(model)
    _say(f"trained in {(time.monotonic() - started) / 60:.1f} min")
    save_tokenizer(tokenizer, folder)
    save_model(model, tokenizer, folder)
    _say("held-out questions")
    return evaluate.main([str(folder)])


def mixed(states: Sequence[Weights], shares: Sequence[float]) -> Weights:
    """The weighted mean of ``states``, parameter by parameter."""
    return {
        name: torch.stack([share * state[name] for state, share in zip(states, shares, strict=True)]).sum(0)
        for name in states[0]
    }


def export_bundle() -> int:
    """Turn the checkpoint into the bundle that page and server load; the exit code of ``splitllm export``."""
    splitllm = str(Path(sys.executable).with_name("splitllm"))
    fresh = BUNDLE.with_name(".bundle-new")
    shutil.rmtree(fresh, ignore_errors=True)
    command = [splitllm, "export", str(evaluate.CHECKPOINT), "--out", str(fresh), "--name", "tiny-chat"]
    command += ["--client-dtype", "float32", "--client-dtype", "int4"]
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "conversations.txt"
        text.write_text("".join(render(unseen.messages)[0] for unseen in conversations(60, TEXT_SEED)), "utf-8")
        try:
            code = subprocess.run([*command, "--text", str(text)], check=False).returncode  # noqa: S603  # constants
        except FileNotFoundError:
            _say("the splitllm command is not installed: run `make setup`, then `" + " ".join(command) + "`")
            return 1
    if code == 0:  # the former bundle stays until there is a new one: packages are built with it
        shutil.rmtree(BUNDLE, ignore_errors=True)
        fresh.rename(BUNDLE)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Build everything; 3 where the held-out score is missed."""
    parser = argparse.ArgumentParser(description="Build the demo model tiny-chat and its bundle.")
    parser.add_argument("--no-export", action="store_true", help="stop after the checkpoint")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=evaluate.DEMO_FOLDER, prefix=".checkpoint-") as scratch:
        made = Path(scratch) / "checkpoint"
        made.mkdir()
        code = build_checkpoint(made)
        if code != 0:
            _say("build: stopped; the checkpoint in demo/ stays as it was")
            return code
        shutil.rmtree(evaluate.CHECKPOINT, ignore_errors=True)
        made.rename(evaluate.CHECKPOINT)
    return 0 if options.no_export else export_bundle()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
