"""One answer as it grows: drawing tokens, knowing when to stop, and the events that tell of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .sampler import Draw, Sampler, log_probabilities
from .types import FinishReason, Float32Array, Logprobs, SamplingParams

#: A character takes at most four bytes, and a byte-level token holds at least one.
_TOKENS_PER_CHARACTER = 4
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token, and whether the answer ends with it. An end token ends it silently: nobody is to see it."""

    token: int
    finish: FinishReason | None = None
    stop_string: str | None = None
    ends_silently: bool = False
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class TokenDrawn:
    """A token of an answer; `position` is its place in the conversation, `logprobs` is set where asked for."""

    session: str
    turn: int
    position: int
    token: int
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn is over. `length`: positions whose keys and values the row holds; `queue_ms`: wait for the first step."""

    session: str
    turn: int
    reason: FinishReason
    stop_string: str | None
    length: int
    queue_ms: float


@dataclass(frozen=True, slots=True)
class Resplitted:
    """A session's split changed within a turn; or not (`done` false), because the turn had ended.

    ran_to: positions that had run until then. length: those that the row still holds. end: position after the prompt
    and the tokens drawn so far; the rows `[length, end)` are to come anew, as a prompt does.
    """

    session: str
    turn: int
    done: bool
    ran_to: int = 0
    length: int = 0
    end: int = 0


Event = TokenDrawn | TurnEnded


class Generation:
    """The state of one answer."""

    def __init__(
        self,
        sampling: SamplingParams,
        *,
        max_tokens: int,
        end_tokens: Sequence[int],
        stop: Sequence[str] = (),
        seen_ids: Sequence[int] = (),
        decode: Callable[[Sequence[int]], str] | None = None,
        generator: np.random.Generator | None = None,
        top_logprobs: int | None = None,
    ) -> None:
        """`decode` turns ids into text and is needed with `stop`; `generator` is needed when temperature is above 0.

        `top_logprobs` asks for log-probabilities: of the token drawn and of so many alternatives; None for none at all.
        """
        if stop and decode is None:
            raise ValueError("stop strings need a decoder")
        self._sampling = sampling
        self._max_tokens = max_tokens
        self._end_tokens = frozenset(end_tokens)
        self._stop = tuple(stop)
        self._seen = set(seen_ids)
        self._decode = decode
        self._window = _TOKENS_PER_CHARACTER * max(map(len, self._stop), default=0)
        #: Two tokens that begin a character: decoding starts at the first, and will start at the second once that is
        #: further back than any stop string reaches. Some tokenizers spoil a whole text that starts within a character.
        self._text_start = self._next_start = 0
        self._generator = generator
        self._top_logprobs = top_logprobs
        self.tokens: list[int] = []

    def draw(self, logits: Float32Array) -> Drawn:
        """Draw the next token from logits float32[vocab_size]."""
        return draw_all(Sampler(), [self], logits[None])[0]

    @property
    def next_draw(self) -> Draw:
        """How the next token is drawn."""
        return Draw(self._sampling, self._seen, self._generator)

    def take(self, token: int, logits: Float32Array) -> Drawn:
        """Add the token that was drawn from logits float32[vocab_size]."""
        if token in self._end_tokens:
            return Drawn(token, FinishReason.STOP, ends_silently=True)
        self.tokens.append(token)
        if self._sampling.repetition_penalty != 1:
            self._seen.add(token)
        logprobs = None if self._top_logprobs is None else log_probabilities(logits, token, self._top_logprobs)
        stop_string = self._found_stop_string()
        if stop_string is not None:
            return Drawn(token, FinishReason.STOP_STRING, stop_string, logprobs=logprobs)
        if len(self.tokens) >= self._max_tokens:
            return Drawn(token, FinishReason.LENGTH, logprobs=logprobs)
        return Drawn(token, logprobs=logprobs)

    def _found_stop_string(self) -> str | None:
        """The stop string that the newest token completed; of several, the one that begins first."""
        if not self._stop or self._decode is None:
            return None
        text = self._decode(self.tokens[self._text_start :])
        if len(self.tokens) - self._next_start > self._window and not text.endswith(_REPLACEMENT):
            self._text_start, self._next_start = self._next_start, len(self.tokens)
        found = [(text.index(stop), stop) for stop in self._stop if stop in text]
        return min(found)[1] if found else None


def draw_all(sampler: Sampler, generations: Sequence[Generation], logits: Float32Array) -> list[Drawn]:
    """Draw the next token of each answer from its row of logits float32[B, vocab_size], all at once."""
    tokens = sampler.draw(logits, [generation.next_draw for generation in generations])
    return [generation.take(token, row) for generation, token, row in zip(generations, tokens, logits, strict=True)]
