"""One subject of SplitLLM, and the ways to ask what a word means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One subject: the ways to ask for it, and the one answer."""

    name: str
    answer: str
    patterns: tuple[str, ...]


# The ways to ask "what is X", shared by every subject that is a word to be explained.
_WHAT_IS = (
    "[what is|what's|what are|what do you mean by|explain|can you explain|please explain|define|what does it "
    "mean,"
    "|tell me about|tell me what is|i do not understand|i don't know what is|what exactly is|describe|what "
    "on earth is]"
)


def word_patterns(*nouns: str) -> tuple[str, ...]:
    """The ways to ask for the meaning of any of ``nouns``."""
    choice = "[" + "|".join(nouns) + "]"
    return (
        f"{_WHAT_IS} {choice}?",
        f"{_WHAT_IS} {choice} [in splitllm|here|in this system|in simple words|actually|for a beginner]?",
        f"what does {choice} mean[| here| in splitllm| exactly]?",
        f"[what is {choice} for|what is {choice} good for|what does {choice} do|why do you need {choice}]?",
        f"[i keep reading about|i have heard of|what about|and] {choice}[, what is that|, what is it|, what "
        f"does it mean|]?",
        f"[can|could|would] you [tell|explain to|teach] [me|us] what {choice} [is|means|is about]?",
        f"[mind explaining|any chance you could explain|would you mind explaining] {choice}?",
        f"[help me understand|give me a definition of|i'd like to understand|i want to know about] {choice}",
        f"{choice}[?| meaning| definition| explained|: what is it?|, in plain english?]",
        f"[i have no idea|i'm not sure|no clue|i wonder|nobody told me] what {choice} [is|are|means|does]",
        f"[you mentioned|the page mentions|people talk about|someone said|the docs say] {choice}"
        f"[, what is it|, what is that|, please explain|, what does that mean]?",
    )
