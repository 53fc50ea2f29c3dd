"""A conversation in words: messages in, streamed text and figures out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from ..errors import UsageError
from ..signature import TrustedKey
from ..text import StreamDecoder, TextCodec, visible_length
from ..types import ClientReport, FinishReason, SamplingParams
from .download import BundleSource, Progress
from .link import bearer
from .local_blocks import LocalBlocks
from .rows import Rows
from .session import ClientSession


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and what it took. Times in ms as seen here; block counts are block-steps (one block on one row).

    `server_ms_run` and `server_ms_saved` are the engine's time: what the turn added to its batches, and what it would
    have added beyond that at split 0; the server's estimates. `split` is the last one, `splits` all that were in force.
    """

    text: str
    split: int
    blocks: int
    tokens: int
    finish_reason: str
    ttft_ms: float | None
    tpot_ms: float | None
    server_blocks_run: int
    server_blocks_saved: int
    server_ms_run: float
    server_ms_saved: float
    rtt_ms: float
    variant: str
    wire: str
    feasible: bool
    reason: str
    bound: str
    splits: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """For `splitllm chat --json`."""
        return asdict(self)


class Conversation:
    """A conversation over one session; both its sides keep what they computed between turns."""

    def __init__(
        self,
        session: ClientSession,
        codec: TextCodec,
        variant: str,
        *,
        report: ClientReport | None = None,
        split: int | None = None,
    ) -> None:
        self._session, self._codec, self._variant = session, codec, variant
        self._report, self._requested = report or ClientReport(variant=variant), split
        self.messages: list[dict[str, str]] = []

    @classmethod
    async def open(
        cls,
        server: str,
        *,
        cache: Path,
        model: str | None = None,
        split: int | None = None,
        variant: str = "float32",
        wire: str = "float16",
        first_prompt: str = "",
        effort: float | None = None,
        progress: Progress | None = None,
        api_key: str | None = None,
        in_line: Callable[[int], None] | None = None,
        trusted: Collection[TrustedKey] = (),
    ) -> Conversation:
        """Fetch what is needed, load and time the local blocks, and open a session.

        Args:
            server: for example `http://127.0.0.1:8000`.
            cache: folder that keeps weights.
            model: the name of one of the server's models; None for its first.
            split: blocks to run here; None lets the server's planner choose.
            variant: weights of the local blocks.
            wire: dtype of hidden states on the wire.
            first_prompt: what the plan is made for; may be empty.
            effort: largest share of the blocks to run here, 0 to 1; None leaves it to the planner.
            api_key: what the server asks for, if it does.
            trusted: keys, one of which must have signed the bundle; none asks for no signature.
            progress: called with (bytes fetched, bytes to fetch).
            in_line: waits where the server is full, and is called with the place in its queue, 1 being next; None
                rather has an error.

        Raises:
            SplitLLMError: the server cannot be reached, refuses, or serves something damaged.
        """
        async with aiohttp.ClientSession(auto_decompress=False, headers=bearer(api_key)) as http:
            source = BundleSource(server, cache, http, model, trusted)
            manifest = await source.fetch_manifest()
            spec = manifest.model
            if split is not None and split > spec.blocks:
                raise UsageError(
                    f"--split {split} is more than the model's {spec.blocks} blocks", code="split_unavailable"
                )
            wanted = spec.blocks if split is None else split
            bundle = await source.fetch(source.files_for(wanted, variant), progress)
        codec = TextCodec.of(bundle)
        blocks = LocalBlocks(bundle, wanted, variant=variant, capacity=spec.max_context) if wanted else None
        report = blocks.measure() if blocks else ClientReport(backend="none", variant=variant)
        report = replace(report, effort=effort)
        first = [{"role": "user", "content": first_prompt}]
        session = await ClientSession.open(
            server,
            model=model,
            identity=bundle.identity,
            report=report,
            split=split,
            wire=wire,
            expected_prompt_tokens=len(codec.encode_chat(first)),
            rows=Rows(blocks),
            api_key=api_key,
            in_line=in_line,
        )
        return cls(session, codec, variant, report=report, split=split)

    async def ask(
        self, prompt: str, *, max_tokens: int, sampling: SamplingParams, stop: Sequence[str] = ()
    ) -> AsyncIterator[str | Answer]:
        """Ask something: yields pieces of text as they come, and the Answer last.

        Raises:
            SplitLLMError: the server refuses or is gone; the question is then not part of the conversation.
        """
        asked = [*self.messages, {"role": "user", "content": prompt}]
        ids = self._codec.encode_chat(asked)
        decoder = StreamDecoder(self._codec)
        text, shown = "", 0
        began = time.perf_counter()
        arrivals: list[float] = []
        async for item in self._session.answer(ids, max_tokens=max_tokens, sampling=sampling, stop=stop):
            if isinstance(item, int):
                arrivals.append(1000 * (time.perf_counter() - began))
                text += decoder.push(item)
                visible = visible_length(text, stop)
                if self._split_in_two(text, stop):
                    await self._session.stop()
            else:
                text += decoder.finish()
                if item["stop_string"] is not None:
                    text = text[: text.find(item["stop_string"])]
                elif self._split_in_two(text, stop):
                    text = text[: visible_length(text, stop)]
                    item["finish_reason"] = FinishReason.STOP_STRING.value
                visible = len(text)
            if visible > shown:
                yield text[shown:visible]
                shown = visible
            if not isinstance(item, int):
                self.messages = [*asked, {"role": "assistant", "content": text}]
                yield self._answer(text, item, arrivals)

    def _split_in_two(self, text: str, stop: Sequence[str]) -> bool:
        """Whether a stop string may stand here that no server saw whole, since the answer went on in a new session."""
        return self._session.started_over and any(word in text for word in stop)

    async def set_effort(self, effort: float | None) -> None:
        """Change the largest share of the blocks that may run here, also while an answer is under way."""
        self._report = replace(self._report, effort=effort)
        await self._session.report(self._report, split=self._requested, expected_prompt_tokens=1)

    async def close(self) -> None:
        """End the session."""
        await self._session.close()

    def _answer(self, text: str, done: dict[str, Any], arrivals: Sequence[float]) -> Answer:
        plan, stats = self._session.plan, done["stats"]
        return Answer(
            text=text,
            split=plan["split"],
            blocks=self._session.total_blocks,
            tokens=done["tokens"],
            finish_reason=done["finish_reason"],
            ttft_ms=arrivals[0] if arrivals else None,
            tpot_ms=(arrivals[-1] - arrivals[0]) / (len(arrivals) - 1) if len(arrivals) > 1 else None,
            server_blocks_run=stats["server_blocks_run"],
            server_blocks_saved=stats["server_blocks_saved"],
            server_ms_run=stats["server_ms_run"],
            server_ms_saved=stats["server_ms_saved"],
            rtt_ms=stats["rtt_ms"],
            variant=self._variant,
            wire=plan["wire"],
            feasible=plan["feasible"],
            reason=plan["reason"],
            bound=plan["bound"],
            splits=tuple(each["split"] for each in self._session.plans),
        )
