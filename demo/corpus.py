"""Synthetic conversations for tiny-chat: whole dialogues made of the turns in ``demo.turns``."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from demo.grammar import Style
from demo.turns import BALANCED, COPYING, FOCUS, MAKERS, PLAIN, State, accept_or_decline

SHARES: dict[str, int] = {intent: share for intent, (_, share) in MAKERS.items()}


@dataclass(frozen=True)
class Phase:
    """One corpus of the training: how many conversations, from which seed, with which shares of the intents."""

    conversations: int
    seed: int
    shares: Mapping[str, int]


PHASES: tuple[Phase, ...] = (
    Phase(52_000, 7, SHARES),
    Phase(34_000, 8, FOCUS),
    Phase(34_000, 9, COPYING),
    Phase(24_000, 10, BALANCED),
    Phase(16_000, 11, PLAIN),
)

SYSTEM_MESSAGES: tuple[str, ...] = (
    "You are tiny-chat, a friendly and very small assistant.",
    "You are a helpful assistant.",
    "Answer in short and friendly sentences.",
    "You are tiny-chat, the demo model of SplitLLM.",
    "Be kind and brief.",
)


@dataclass(frozen=True)
class Message:
    """One message; ``trained`` says whether the model learns to write it, its end included."""

    role: str
    content: str
    trained: bool = False


@dataclass(frozen=True)
class Conversation:
    """Messages in order, and the intent of every user turn."""

    messages: tuple[Message, ...]
    intents: tuple[str, ...]


def _pick_intent(rng: random.Random, state: State, shares: Mapping[str, int]) -> str:
    if state.cut and rng.random() < 0.8:
        return "continue"
    if state.offered_story and rng.random() < 0.6:
        return "offered_story"
    if state.asked_how_user_is and rng.random() < 0.6:
        return "talk"
    if state.asked_name and rng.random() < 0.6:
        return "tell_name"
    if state.turns == 0 and rng.random() < 0.2:
        return "tell_name"
    if state.name is not None and rng.random() < 0.35:
        return "recall_name"  # a name is worth telling only where it is asked for later
    if state.subject and rng.random() < 0.35:
        return state.subject + rng.choice(("", "", "_unknown"))
    return rng.choices(list(shares), list(shares.values()))[0]


def _cut(rng: random.Random, answer: str) -> tuple[str, str]:
    """Stop an answer somewhere: what was shown, and what is still to say, from the word that was broken."""
    words = answer.split(" ")
    at = rng.randrange(2, len(words) - 1)
    shown = " ".join(words[:at])
    if rng.random() < 0.6:  # tokens are short, so most answers are stopped inside a word
        shown += " " + words[at][: rng.randint(0, len(words[at]) - 1)]
    return shown, " ".join(words[at:])


def _turn_count(rng: random.Random) -> int:
    if rng.random() < 0.02:
        return rng.randint(8, 18)  # several hundred tokens
    return rng.choices((1, 2, 3, 4, 5), (36, 28, 19, 11, 6))[0]


def conversation(rng: random.Random, shares: Mapping[str, int]) -> Conversation:
    """One conversation of 1 to 18 turns, with a system message now and then."""
    state = State(Style.pick(rng))
    messages: list[Message] = []
    intents: list[str] = []
    if rng.random() < 0.12:
        messages.append(Message("system", rng.choice(SYSTEM_MESSAGES)))
    for _ in range(_turn_count(rng)):
        intent = _pick_intent(rng, state, shares)
        maker = accept_or_decline if intent == "offered_story" else MAKERS[intent][0]
        if rng.random() < 0.1:
            state.style = Style.pick(rng)
        turn = maker(rng, state)
        answer, trained = turn.answer, True
        state.cut = None
        cut_chance = {"story": 0.55, "offered_story": 0.5, "continue": 0.2, "splitllm": 0.04}.get(intent, 0.0)
        if len(answer.split(" ")) >= 8 and rng.random() < cut_chance:
            answer, state.cut = _cut(rng, answer)
            trained = False  # its end is not one that the model should learn
        messages += [Message("user", turn.user), Message("assistant", answer, trained)]
        intents.append(intent)
        state.turns += 1
        state.story_ran = state.story_ran and intent in {"story", "offered_story", "continue"}
        state.asked_name = turn.answer.endswith("What is your name?")
        state.offered_story = turn.answer.endswith(("story?", "another one?"))
        state.asked_how_user_is = turn.answer.endswith("How are you?")
    return Conversation(tuple(messages), tuple(intents))


def conversations(count: int, seed: int, shares: Mapping[str, int] = SHARES) -> Iterator[Conversation]:
    """``count`` conversations, the same ones for the same seed and shares of the intents."""
    rng = random.Random(seed)
    for _ in range(count):
        yield conversation(rng, shares)
