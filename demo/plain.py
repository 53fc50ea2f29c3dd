"""The plainest ways to say the commonest things, for the last phase of training.

The long lists of phrasings teach the model to take a question in any words; among so many, the few words that nearly
everybody types first would be rare. Here they are frequent.
"""

from __future__ import annotations

import random

from demo.grammar import Style, say

PLAIN_TALK: dict[str, tuple[str, ...]] = {
    "greeting": ("[hello|hello|hi|hey]", "[hello|hi|hey] there", "hello tiny-chat", "hi tiny-chat", "[test|testing]"),
    "good_morning": ("good morning",),
    "good_day": ("good [day|afternoon]",),
    "good_evening": ("good evening",),
    "how_are_you": ("how are you?", "how are you [doing|today]?", "[hello|hi|hey], how are you?", "how is it going?"),
    "feeling_good": ("i am [fine|good|well|great|happy]", "i'm [fine|good|happy]"),
    "feeling_bad": ("i am [sad|tired|bored|not well]", "i'm [sad|tired|bored]"),
    "thanks": ("[thanks|thank you|thx]", "[thank you|thanks] [so|very] much"),
    "goodbye": ("[bye|goodbye|bye bye|see you|good night]",),
    "who_are_you": ("who are you?", "what are you?", "what is your name?", "what's your name?", "your name?"),
    "human": ("are you [human|a human|a person|real]?",),
    "robot": ("are you [an ai|a robot|a bot|a language model]?",),
    "size": ("how [big|small|large] are you?", "how many parameters do you have?"),
    "origin": ("who [made|trained|built] you?", "how were you [made|trained]?"),
    "help": ("help", "help me", "what can you do?", "what can i ask?", "what can i ask you?", "what do you know?"),
    "praise": ("you are [great|good|nice|smart]", "[good|great|nice] job", "[well done|good bot]"),
    "okay": ("[ok|okay|yes|no|i see|sure|alright]",),
    "insult": ("you are [stupid|bad|dumb|wrong]", "[that is wrong|wrong|this is bad]"),
    "joke": ("tell me a joke", "a joke", "joke", "make me laugh"),
    "language": ("[what|which] languages do you speak?", "do you speak [german|french|spanish|chinese]?"),
}
"""For each talk of ``demo.smalltalk``."""

PLAIN_TOPICS: dict[str, tuple[str, ...]] = {
    "splitllm": ("what is splitllm?", "splitllm?", "what's splitllm?", "explain splitllm", "what does splitllm do?",
                 "how does splitllm work?", "how does this work?"),
    "split": ("what is a split?", "what is the split?", "split?", "what does split mean?"),
    "browser": ("what runs in my browser?", "what does my browser [do|run|compute]?"),
    "server": ("what runs on the server?", "what does the server [do|run|compute]?"),
    "privacy": ("is [it|this|my prompt|my chat|my data] private?", "is [it|this] safe?", "privacy?"),
    "cheaper": ("why is splitting cheaper?", "why split?", "why do you split the model?", "is it cheaper?"),
    "faster": ("is it faster?", "is splitting faster?", "is this [fast|slow]?"),
    "block": ("what is a block?", "what are blocks?", "how many blocks do you have?"),
    "webgpu": ("what is webgpu?", "webgpu?", "do i need webgpu?", "what is webgpu for?"),
    "planner": ("what is the planner?", "what does the planner do?", "who chooses k?", "how is k chosen?"),
    "k": ("what is k?", "k?", "what does k mean?"),
    "no_gpu": ("do i need a gpu?", "does it work without a gpu?", "i have no gpu"),
    "sent": ("what is sent to the server?", "what do you send?", "what does my browser send?"),
    "hidden": ("what are hidden states?", "what are activations?"),
    "token": ("what is a token?", "token?", "what are tokens?"),
    "embedding": ("what is the embedding?", "what is an embedding?"),
    "head": ("what is the head?", "what does the head do?"),
    "cache": ("what is the kv cache?", "what is a kv cache?", "what is the cache?"),
    "grow": ("can k grow?", "does k change?", "can the split change?"),
    "download": ("what do i download?", "how much do i download?", "do i have to download it again?"),
    "bundle": ("what is a bundle?", "bundle?", "what is in a bundle?"),
    "export": ("how do i export a model?", "how do i use my own model?", "can i use my own model?"),
    "serve": ("how do i run it?", "how do i start the server?", "how do i install it?"),
    "same": ("is the answer the same?", "does the split change the answer?"),
    "int4": ("what is int4?", "int4?", "what does int4 mean?"),
    "offline": ("does it work offline?", "can i use it offline?"),
    "latency": ("what is ttft?", "what is tpot?", "ttft?", "tpot?", "what are ttft and tpot?"),
    "transformer": ("what is a language model?", "what is a transformer?", "how do language models work?"),
}  # fmt: skip
"""For each topic of ``demo.splitllm_facts``."""

PLAIN_UNKNOWN: tuple[str, ...] = (
    "[why|how|what|when|where|who|really]?", "[why not|what else|how so|which one]?", "i do not understand",
    "what is the meaning of life?", "what time is it?", "what day is it?", "what is the weather?", "write a poem",
    "write [some |]code", "who is the president?", "translate this", "what is love?", "[news|weather|music|sports]?",
    "how old are you?", "where are you?", "what is [ai|python|google|chatgpt|the internet|a computer|a phone]?",
)  # fmt: skip

_SPELLINGS = {"splitllm": "SplitLLM", "webgpu": "WebGPU", "gpu": "GPU", "kv": "KV", "ttft": "TTFT", "tpot": "TPOT"}


def plainly(rng: random.Random, patterns: tuple[str, ...], style: Style) -> str:
    """One message with nothing around it; names of things are spelled as in books about half of the time."""
    text = say(rng, patterns, style, dressed=False)
    if style.casing != "upper" and rng.random() < 0.5:
        for typed, spelled in _SPELLINGS.items():
            text = _replaced(text, typed, spelled)
    return text


def _replaced(text: str, typed: str, spelled: str) -> str:
    """Whole words only, capitalised or not."""
    ends = "?!. ,"
    words = text.split(" ")
    for at, word in enumerate(words):
        bare = word.rstrip(ends)
        if bare.lower() == typed:
            words[at] = spelled + word[len(bare) :]
    return " ".join(words)
