"""One answer of the OpenAI-compatible API: a session of one turn at split 0, and its text as it grows.

It takes a row and KV memory like any other session, and its steps run in the same batches as theirs.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..generation import Event, Generation, TokenDrawn, TurnEnded
from ..protocol import TurnStats
from ..text import StreamDecoder, TextCodec, visible_length
from .access import Key
from .model import ServedModel
from .openai_schema import ApiError, ChatRequest, bounded, finish_reason

#: How often a request that waits for its next token looks whether its client is still there, in seconds.
_LOOK_EVERY_S: Final = 0.05
_TURN: Final = 1


class ClientGoneError(Exception):
    """The client has hung up; nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event adds to an answer: text that can be shown, log-probabilities, and at the end why it ended."""

    text: str
    logprobs: tuple[dict[str, Any], ...] = ()
    finish_reason: str | None = None


class AnswerText:
    """Makes pieces of events; holds back what may turn out to be the beginning of a stop string."""

    def __init__(self, codec: TextCodec, stop: Sequence[str]) -> None:
        self._codec, self._stop = codec, stop
        self._decoder = StreamDecoder(codec)
        self._held = ""

    def token(self, event: TokenDrawn) -> Piece:
        """The piece that a token adds; its text may be empty."""
        self._held += self._decoder.push(event.token)
        ready = visible_length(self._held, self._stop)
        text, self._held = self._held[:ready], self._held[ready:]
        return Piece(text, self._logprobs(event))

    def end(self, event: TurnEnded) -> Piece:
        """The last piece."""
        text = self._held + self._decoder.finish()
        if event.stop_string is not None:
            text = text[: text.find(event.stop_string)]
        return Piece(text, finish_reason=finish_reason(event.reason.value))

    def _logprobs(self, event: TokenDrawn) -> tuple[dict[str, Any], ...]:
        if event.logprobs is None:
            return ()
        top = [self._entry(token, logprob) for token, logprob in event.logprobs.top]
        return ({**self._entry(event.token, event.logprobs.chosen), "top_logprobs": top},)

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._codec.token_text(token)
        # A token that is part of a character has no text of its own, and the tokenizer does not tell its bytes.
        whole = "\ufffd" not in text
        return {"token": text, "logprob": bounded(logprob), "bytes": list(text.encode()) if whole else None}


class Completion:
    """One answer in work."""

    def __init__(
        self,
        model: ServedModel,
        request: ChatRequest,
        prompt_ids: Sequence[int],
        max_tokens: int,
        *,
        arrived_s: float,
        key: Key | None,
    ) -> None:
        """`arrived_s`: when the request came, by time.monotonic()."""
        self.model = model
        self.request, self.prompt_tokens, self.completion_tokens = request, len(prompt_ids), 0
        self._ids, self._max_tokens, self._arrived_s = prompt_ids, max_tokens, arrived_s
        self._runner, self._admission, self._codec = model.runner, model.admission, model.codec
        self.session = secrets.token_hex(16)
        self.account = model.telemetry.account(self.session, "openai", key)
        #: At most one event per token of the answer, and its end.
        self._events: asyncio.Queue[Event | ApiError] = asyncio.Queue()
        self._started_s = arrived_s
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._open = False

    def start(self) -> None:
        """Take a row and memory, and begin.

        Raises:
            CapacityError: there is none.
        """
        self._started_s = time.monotonic()
        request, spec = self.request, self._runner.engine.spec
        self._admission.admit(self.session, 0, self._most_tokens)
        self._open = True
        self.account.enter()
        self.account.turn_began(self.prompt_tokens)
        sampling = request.sampling
        generation = Generation(
            sampling,
            max_tokens=self._max_tokens,
            end_tokens=spec.end_tokens,
            stop=request.stop,
            seen_ids=self._ids if sampling.repetition_penalty != 1 else (),
            decode=self._codec.decode,
            generator=np.random.default_rng(sampling.seed) if sampling.temperature > 0 else None,
            top_logprobs=None if request.top_logprobs is None else min(request.top_logprobs, spec.vocab_size),
        )
        self._admission.turn_began(self.session, 0, self.prompt_tokens)  # plans for others reckon with it
        self._runner.open(self.session, 0, self._on_event)
        self._runner.begin(self.session, _TURN, start=0, prompt_end=self.prompt_tokens, generation=generation)
        self._runner.feed(self.session, _TURN, 0, np.array(self._ids, np.int32))

    @property
    def _most_tokens(self) -> int:
        return self.prompt_tokens + self._max_tokens

    def would_fit(self, without: Sequence[str]) -> bool:
        """Whether `start` would find room if these sessions gave theirs."""
        return self._admission.would_admit(self.session, 0, self._most_tokens, without)

    async def pieces(self, is_gone: Callable[[], bool]) -> AsyncIterator[Piece]:
        """The answer, piece by piece; the last one has a finish reason.

        Raises:
            ClientGoneError: `is_gone` says so.
            ApiError: the server cannot go on.
        """
        text = AnswerText(self._codec, self.request.stop)
        while True:
            event = await self._next(is_gone)
            if isinstance(event, ApiError):
                raise event
            if isinstance(event, TurnEnded):
                yield text.end(event)
                return
            if isinstance(event, TokenDrawn):
                yield text.token(event)

    async def _next(self, is_gone: Callable[[], bool]) -> Event | ApiError:
        while not is_gone():
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    return await self._events.get()
            except TimeoutError:
                continue
        raise ClientGoneError

    def fail(self, error: ApiError) -> None:
        """End the answer with an error."""
        self.account.ends_because(error.code)
        self._events.put_nowait(error)

    def close(self) -> None:
        """Give back what the answer holds; its work is not part of the next tick."""
        if self._open:
            self._open = False
            self._runner.close(self.session, self.account.settled)
            self._admission.release(self.session)
            self.account.ended()

    def _on_event(self, event: Event) -> None:
        now_s = time.monotonic()
        self.account.event(event)
        if isinstance(event, TokenDrawn):
            self.completion_tokens += 1
            self._first_s = now_s if self._first_s is None else self._first_s
            self._last_s = now_s
        elif isinstance(event, TurnEnded):
            self._admission.turn_ended(self.session)
            self.account.turn_ended(event.reason.value, self._stats(event))
        self._events.put_nowait(event)

    def _stats(self, ended: TurnEnded) -> TurnStats:
        first, last, tokens = self._first_s, self._last_s, self.completion_tokens
        return TurnStats(
            ttft_ms=None if first is None else 1000 * (first - self._arrived_s),
            tpot_ms=None if first is None or last is None or tokens < 2 else 1000 * (last - first) / (tokens - 1),
            queue_ms=1000 * (self._started_s - self._arrived_s) + ended.queue_ms,
            server_blocks_run=ended.length * self._runner.engine.spec.blocks,
            server_blocks_saved=0,
            rtt_ms=0.0,
        )
