"""Random text from patterns, and the ways people really type it.

A pattern is a sentence with alternatives in square brackets, which may nest, and named slots in braces:
``"[what is|what's] the capital [|city ]of {country}?"``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")

_OPENERS: tuple[str, ...] = (
    "hey", "hi", "hello", "ok", "okay", "so", "well", "hmm", "right", "now", "alright", "one question",
    "quick question", "next question", "listen", "excuse me", "sorry", "tiny-chat", "hi tiny-chat", "also",
    "then", "good", "great", "nice", "cool", "oh", "one more", "another question", "please", "hello there",
    "first", "can i ask you something", "i have a question", "tell me", "just curious", "got it", "thanks",
    "sure", "but",
)  # fmt: skip
_CLOSERS: tuple[str, ...] = (
    "please", "thanks", "thank you", "for me", "now", "then", "tiny-chat", "if you can", "if you know",
    "i wonder", "quickly", "by the way", "again", "exactly", "do you know", "can you tell me", "my friend",
    "really", "today", "would you", "just asking", "could you tell me", "any idea", "help me",
)  # fmt: skip
_SIDE_REMARKS: tuple[str, ...] = (
    "i was wondering", "my son asks", "it is for my homework", "this is for a game", "i keep forgetting",
    "this is important", "before i forget", "since you are here", "i am curious", "i'm so curious",
    "my daughter wants to know", "it is for school", "i'm too lazy to look it up", "that would help a lot",
    "i can't remember", "just for fun", "i really need it", "i'm a bit busy", "i am new here",
    "let me think", "i almost forgot", "you are good at this", "i was told you know", "we had this at school",
)  # fmt: skip
_FILLERS: tuple[str, ...] = (
    "really", "actually", "just", "now", "please", "maybe", "exactly", "again", "then", "also", "perhaps",
    "here", "today", "simply", "kindly", "honestly", "quickly", "once", "still", "usually",
)  # fmt: skip
#: Words that a sentence can lose without meaning something else.
_DROPPABLE = frozenset(
    (
        "the", "a", "of", "is", "me", "can", "you", "do", "does", "please", "tell", "would", "could", "i", "it",
        "to", "in", "what",
    )
)  # fmt: skip


def expand(rng: random.Random, pattern: str) -> str:
    """Choose one alternative in every bracket of ``pattern``; slots stay as they are."""

    def choose(match: re.Match[str]) -> str:
        return rng.choice(str(match.group(1)).split("|"))

    while "[" in pattern:
        pattern = _INNERMOST.sub(choose, pattern)
    return " ".join(pattern.split())


def fill(text: str, slots: Mapping[str, str]) -> str:
    """Put the slot values in.

    Raises:
        KeyError: the text names a slot that was not given.
    """
    return _SLOT.sub(lambda match: slots[match.group(1)], text)


@dataclass(frozen=True)
class Style:
    """How one person types: casing and end punctuation, the same for a whole message."""

    casing: str  # "proper", "lower" or "upper"
    ending: str  # "full", "none" or "excited"

    @classmethod
    def pick(cls, rng: random.Random) -> Style:
        casing = rng.choices(("proper", "lower", "upper"), (58, 40, 2))[0]
        ending = rng.choices(("full", "none", "excited"), (60, 34, 6))[0]
        return cls(casing, ending)

    def case(self, text: str) -> str:
        """The casing alone: a name is remembered the way it was typed."""
        if self.casing == "lower":
            return text.lower()
        return text.upper() if self.casing == "upper" else text

    def write(self, rng: random.Random, sentence: str) -> str:
        """A lower-case sentence with an optional final '?', as this person would type it."""
        question = sentence.endswith("?")
        body = sentence.rstrip("?. ")
        if self.casing == "proper":
            body = body[:1].upper() + body[1:]
            body = re.sub(r"\bi\b(?=[ '])", "I", body)
            body = re.sub(r"([?.!] )([a-z])", lambda m: m.group(1) + m.group(2).upper(), body)
        body = self.case(body)
        if self.ending == "none":
            return body
        if self.ending == "excited":
            return body + rng.choice(("??", "?!", "? ", " ?") if question else ("!", "!!", "..", " :)")).rstrip()
        return body + ("?" if question else rng.choice((".", ".", "!", "")))


def _with_typo(rng: random.Random, text: str) -> str:
    """Swap or drop one letter in one longer word that belongs to the pattern and not to a slot."""
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not places:
        return text
    index = rng.choice(places)
    word = words[index]
    at = rng.randrange(1, len(word) - 2)
    if rng.random() < 0.5:
        words[index] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    else:
        words[index] = word[:at] + word[at + 1 :]
    return " ".join(words)


def _reworded(rng: random.Random, text: str) -> str:
    """Now and then a small word less or a filler more, so that no answer hangs on one exact wording."""
    words = text.split(" ")
    droppable = [at for at, word in enumerate(words) if word in _DROPPABLE]
    if droppable and len(words) > 3 and rng.random() < 0.2:
        del words[rng.choice(droppable)]
    if len(words) > 2 and rng.random() < 0.15:
        words.insert(rng.randrange(1, len(words)), rng.choice(_FILLERS))
    return " ".join(words)


def say(
    rng: random.Random,
    patterns: tuple[str, ...],
    style: Style,
    slots: Mapping[str, str] | None = None,
    *,
    dressed: bool = True,
) -> str:
    """One user message: a random pattern, filled, with the small talk and slips that real messages have.

    ``dressed=False`` leaves out openers and closers, for messages so short that these would
    change their meaning.
    """
    text = expand(rng, rng.choice(patterns))
    if rng.random() < 0.04:
        text = _with_typo(rng, text)
    if dressed:
        text = _reworded(rng, text)
    text = fill(text, slots or {})
    if dressed:
        question = text.endswith("?")
        body = text.rstrip("?")
        if rng.random() < 0.24:
            opener = rng.choice(_OPENERS if rng.random() < 0.6 else _SIDE_REMARKS)
            body = opener + rng.choice((", ", ", ", ": ", " ", "! ", ". ", "... ")) + body
        if rng.random() < 0.18:
            body = body + rng.choice((", ", " ")) + rng.choice(_CLOSERS if rng.random() < 0.6 else _SIDE_REMARKS)
        text = body + ("?" if question else "")
    return style.write(rng, text)
