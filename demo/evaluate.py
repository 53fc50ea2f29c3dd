"""Asks a checkpoint the held-out questions and counts the right answers.

``python -m demo.evaluate [FOLDER]`` prints a table; the exit code is 3 where the score is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.generation.utils import GenerateDecoderOnlyOutput

from demo.train import int4_blocks

DEMO_FOLDER = Path(__file__).parent
CHECKPOINT = DEMO_FOLDER / "checkpoint"
HELDOUT = DEMO_FOLDER / "heldout.json"
NEEDED_KNOWN = 36
"""90 % of 40."""
NEEDED_UNKNOWN = 9
"""90 % of 10."""
MAX_NEW_TOKENS = 160


@dataclass(frozen=True)
class AskedTurn:
    """One user turn; ``cut_tokens`` stops its answer after that many tokens, as a stop button would."""

    user: str
    cut_tokens: int | None = None


@dataclass(frozen=True)
class Item:
    """One held-out dialogue and what its last answer must hold, in lower case."""

    id: str
    turns: tuple[AskedTurn, ...]
    all_of: tuple[str, ...]
    any_of: tuple[str, ...]

    def accepts(self, answer: str) -> bool:
        said = answer.lower()
        return all(part in said for part in self.all_of) and (
            not self.any_of or any(part in said for part in self.any_of)
        )


@dataclass(frozen=True)
class Outcome:
    """The last answer to an item, and the narrowest lead in logits of a token in it over the runner-up."""

    item: Item
    answer: str
    margin: float

    @property
    def right(self) -> bool:
        return self.item.accepts(self.answer)


def load_items(path: Path = HELDOUT) -> tuple[list[Item], list[Item]]:
    """The items it must know and those it must say it does not know."""
    groups = json.loads(path.read_text(encoding="utf-8"))
    known, unknown = (
        [
            Item(
                entry["id"],
                tuple(AskedTurn(turn["user"], turn.get("cut_tokens")) for turn in entry["turns"]),
                tuple(entry["all_of"]),
                tuple(entry["any_of"]),
            )
            for entry in groups[group]
        ]
        for group in ("known", "unknown")
    )
    return known, unknown


class TinyChat:
    """A checkpoint that answers greedily."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path = CHECKPOINT) -> TinyChat:
        """Float16 weights computed in float32.

        Raises:
            OSError: the folder holds no checkpoint.
        """
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        return cls(model, tokenizer)

    def answer(self, messages: Sequence[dict[str, str]], max_new_tokens: int = MAX_NEW_TOKENS) -> tuple[str, float]:
        """The greedy answer to a conversation and its narrowest margin in logits."""
        prompt = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_tensors="pt")
        ids = cast(torch.LongTensor, prompt)
        with torch.inference_mode():
            generated = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                output_logits=True,
                return_dict_in_generate=True,
            )
        made = cast(GenerateDecoderOnlyOutput, generated)
        logits = cast(tuple[torch.Tensor, ...], made.logits)  # one float32[1, vocab] per new token
        best_two = torch.stack([step[0].topk(2).values for step in logits])
        text = self.tokenizer.decode(made.sequences[0, ids.shape[1] :], skip_special_tokens=True)
        return text, float((best_two[:, 0] - best_two[:, 1]).min())

    def converse(self, turns: Sequence[AskedTurn]) -> list[tuple[str, float]]:
        """The answers to the turns of one conversation, each with its margin."""
        messages: list[dict[str, str]] = []
        answers: list[tuple[str, float]] = []
        for turn in turns:
            messages.append({"role": "user", "content": turn.user})
            answers.append(self.answer(messages, turn.cut_tokens or MAX_NEW_TOKENS))
            messages.append({"role": "assistant", "content": answers[-1][0]})
        return answers


def evaluate(chat: TinyChat, items: Sequence[Item]) -> list[Outcome]:
    """Ask every item; only the last answer counts."""
    return [Outcome(item, *chat.converse(item.turns)[-1]) for item in items]


@contextlib.contextmanager
def float16_split(model: LlamaForCausalLM, k: int) -> Iterator[None]:
    """Inside, the hidden states after ``k`` blocks, float32[B, T, hidden], pass through float16."""

    def round_input(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0].half().float(), *args[1:])

    handle = model.model.layers[k].register_forward_pre_hook(round_input)
    try:
        yield
    finally:
        handle.remove()


def report(outcomes: Sequence[Outcome], title: str) -> str:
    """A table of one line per item."""
    right = sum(outcome.right for outcome in outcomes)
    lines = [f"{title}: {right}/{len(outcomes)}"]
    for outcome in outcomes:
        mark = "ok   " if outcome.right else "WRONG"
        shown = outcome.answer.replace("\n", " ")
        shown = shown if len(shown) <= 90 else shown[:87] + "..."
        asked = outcome.item.turns[-1].user
        lines.append(f"  {mark} {outcome.item.id:<20} margin {outcome.margin:5.2f}  {asked}  ->  {shown}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code: 0, or 3 where the score is missed."""
    parser = argparse.ArgumentParser(description="Ask tiny-chat its held-out questions.")
    parser.add_argument("folder", nargs="?", type=Path, default=CHECKPOINT, help="checkpoint to ask")
    parser.add_argument("--splits", action="store_true", help="also with float16 at every split, and with int4 blocks")
    options = parser.parse_args(arguments)
    chat = TinyChat.load(options.folder)
    known, unknown = load_items()
    known_outcomes, unknown_outcomes = evaluate(chat, known), evaluate(chat, unknown)
    print(report(known_outcomes, "known"))
    print(report(unknown_outcomes, "unknown"))
    if options.splits:
        _print_splits(chat, [*known, *unknown], known_outcomes + unknown_outcomes)
    passed = (
        sum(outcome.right for outcome in known_outcomes) >= NEEDED_KNOWN
        and sum(outcome.right for outcome in unknown_outcomes) >= NEEDED_UNKNOWN
    )
    if not passed:
        print(
            f"score missed: {NEEDED_KNOWN}/40 known and {NEEDED_UNKNOWN}/10 unknown are needed",
            file=sys.stderr,
        )
    return 0 if passed else 3


def _print_splits(chat: TinyChat, items: Sequence[Item], whole: Sequence[Outcome]) -> None:
    """How many answers stay the same, or right, when the model is split or its blocks are int4."""
    blocks = chat.model.config.num_hidden_layers
    for k in range(1, blocks):
        with float16_split(chat.model, k):
            outcomes = evaluate(chat, items)
        same = sum(a.answer == b.answer for a, b in zip(outcomes, whole, strict=True))
        print(f"float16 at split k={k}: {same}/{len(items)} answers the same")
    for k in (blocks // 2, blocks):
        with int4_blocks(chat.model, k):
            outcomes = evaluate(chat, items)
        same = sum(a.answer == b.answer for a, b in zip(outcomes, whole, strict=True))
        right = sum(outcome.right for outcome in outcomes)
        print(f"first {k} blocks in int4: {same}/{len(items)} answers the same, {right}/{len(items)} right")


if __name__ == "__main__":
    sys.exit(main())
