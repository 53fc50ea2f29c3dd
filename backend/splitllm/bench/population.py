"""Who comes to a chat server: machines, links, questions. Pure: everything is drawn from a seed.

Sources of the figures (docs/planning.md has the reasons):

- Lengths and turns: LMSYS-Chat-1M (arXiv 2309.11998, table 1): 69.5 tokens a prompt, 214.5 an answer, 2.0 turns a
  conversation, as means; the shape (log-normal, sigma 1.0 and 0.7) is our choice.
- Shares: chat with a language model in a browser happens on computers (over 90 % of the visits that ChatGPT, Perplexity
  and Gemini pass on come from desktops, BrightEdge 2025; on phones people use apps). Phones get 25 % all the same.
  One visitor in seven has no WebGPU (86 % of 32,604 runs of a browser benchmark had it, volumeshader.dev 2026).
  `WEB_WIDE` is the other extreme: the devices of all web pages, six of ten of them phones (StatCounter 2025).
- A block on WebGPU at one row is bound by dispatches, 24 to 71 us each (arXiv 2604.02344), of which a block has
  about 15, and on phones by memory as well. No figure for phones was found: that one is an assumption.
- Round trips: 5 to 150 ms, as the issue of the capacity target says, log-uniform within what the kind of link gives.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ..errors import UsageError
from ..types import Link
from .simulator_values import Client, Conversation, Turn


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of client. Times are of one block of the SmolLM2-135M shape; a person's own is `spread` apart (sigma).

    share: of the conversations. decode_ms: one row; prefill_ms: a chunk of 64 rows. rtt_ms: least and most.
    """

    share: float
    decode_ms: float
    prefill_ms: float
    rtt_ms: tuple[float, float]
    up_bytes_per_ms: float
    down_bytes_per_ms: float
    blocks: bool = True


#: Mean tokens of a prompt and of an answer, and turns; sigma of their logarithms.
PROMPT_TOKENS: Final = 69.5
PROMPT_SIGMA: Final = 1.0
ANSWER_TOKENS: Final = 214.5
ANSWER_SIGMA: Final = 0.7
TURNS: Final = 2.0
#: Longest prompt, answer and conversation; what is beyond is cut.
MOST_PROMPT: Final = 1024
MOST_ANSWER: Final = 1024
MOST_TURNS: Final = 8
#: Reading 214 tokens (about 160 words at 238 words a minute, Brysbaert 2019) takes 40 s, but much of it is read while
#: it streams; typing a question of 70 tokens takes longer than that. 20 s is on the busy side.
THINK_MS: Final = 20_000.0
#: Mean extra one-way delay of a message, in parts of the latency.
JITTER: Final = 0.1
_SPREAD: Final = 0.3

KINDS: Final[Mapping[str, Kind]] = {
    "none": Kind(0.15, 0.0, 0.0, (10, 150), 1250, 6250, blocks=False),
    "phone": Kind(0.25, 2.5, 10.0, (30, 150), 625, 3000),
    "laptop": Kind(0.40, 1.0, 2.5, (10, 100), 1250, 6250),
    "desktop": Kind(0.20, 0.5, 0.7, (5, 50), 2500, 12500),
}
_WEB_SHARES: Final = {"none": 0.15, "phone": 0.50, "laptop": 0.25, "desktop": 0.10}
WEB_WIDE: Final[Mapping[str, Kind]] = {name: replace(kind, share=_WEB_SHARES[name]) for name, kind in KINDS.items()}


def population(
    rate_per_s: float,
    *,
    seconds: float,
    seed: int,
    blocks: int,
    kinds: Mapping[str, Kind] = KINDS,
    prompt_tokens: float = PROMPT_TOKENS,
) -> list[Conversation]:
    """Conversations that arrive as a Poisson process, `rate_per_s` turns a second on average, for `seconds`.

    The n-th conversation is the same person with the same questions whatever the rate. `prompt_tokens` is the mean.

    Raises:
        UsageError: the rate or the time is not above 0.
    """
    if not (rate_per_s > 0 and seconds > 0 and math.isfinite(rate_per_s) and math.isfinite(seconds)):
        raise UsageError("a population needs a rate and a time above 0")
    arrivals = random.Random(f"{seed} arrivals")
    people: list[Conversation] = []
    now = 0.0
    while True:
        now += arrivals.expovariate(rate_per_s / TURNS)
        if now >= seconds:
            return people
        people.append(
            _person(len(people), 1000 * now, random.Random(f"{seed} {len(people)}"), blocks, kinds, prompt_tokens)
        )


def _person(
    number: int, arrival_ms: float, draw: random.Random, blocks: int, kinds: Mapping[str, Kind], prompt_tokens: float
) -> Conversation:
    name = draw.choices(list(kinds), [kind.share for kind in kinds.values()])[0]
    kind = kinds[name]
    speed = math.exp(draw.gauss(0, _SPREAD))
    low, high = kind.rtt_ms
    rtt = low * (high / low) ** draw.random()
    client = Client(
        kind=name,
        decode_ms=kind.decode_ms * speed,
        prefill_ms=kind.prefill_ms * speed,
        ready=blocks if kind.blocks else 0,
        link=Link(rtt / 2, rtt / 2, kind.up_bytes_per_ms, kind.down_bytes_per_ms),
        jitter=JITTER,
    )
    turns = [Turn(_length(draw, prompt_tokens, PROMPT_SIGMA, MOST_PROMPT), _answer(draw))]
    while len(turns) < MOST_TURNS and draw.random() < 1 - 1 / TURNS:
        think = draw.expovariate(1 / THINK_MS)
        turns.append(Turn(_length(draw, prompt_tokens, PROMPT_SIGMA, MOST_PROMPT), _answer(draw), think))
    return Conversation(f"c{number}", arrival_ms, client, tuple(turns), seed=draw.getrandbits(32))


def _answer(draw: random.Random) -> int:
    return max(2, _length(draw, ANSWER_TOKENS, ANSWER_SIGMA, MOST_ANSWER))


def _length(draw: random.Random, mean: float, sigma: float, most: int) -> int:
    """A log-normal draw with that mean, cut to 1..most."""
    return min(most, max(1, round(math.exp(draw.gauss(math.log(mean) - sigma**2 / 2, sigma)))))


def describe(kinds: Mapping[str, Kind] = KINDS) -> dict[str, Any]:
    """The population in figures, for a result's JSON."""
    return {
        "prompt_tokens": {"mean": PROMPT_TOKENS, "sigma": PROMPT_SIGMA, "most": MOST_PROMPT},
        "answer_tokens": {"mean": ANSWER_TOKENS, "sigma": ANSWER_SIGMA, "most": MOST_ANSWER},
        "turns": {"mean": TURNS, "most": MOST_TURNS},
        "think_ms": THINK_MS,
        "jitter": JITTER,
        "speed_sigma": _SPREAD,
        "kinds": {
            name: {
                "share": kind.share,
                "block_decode_ms": kind.decode_ms,
                "block_prefill_ms": kind.prefill_ms,
                "rtt_ms": list(kind.rtt_ms),
                "up_bytes_per_ms": kind.up_bytes_per_ms,
                "down_bytes_per_ms": kind.down_bytes_per_ms,
            }
            for name, kind in kinds.items()
        },
    }
