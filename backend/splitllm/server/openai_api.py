"""The OpenAI-compatible API: `/v1/models` and `/v1/chat/completions`."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from ..errors import CapacityError, TurnError, UsageError
from .access import KEY, Key
from .admission import AdmissionQueue, Guest
from .config import ServerConfig
from .metrics import NO_MODEL, Metrics
from .model import ServedModel
from .openai_answer import ClientGoneError, Completion, Piece
from .openai_schema import ApiError, ChatRequest, parse_chat, usage

#: Seconds after which a client may try again when the server is full or stops.
_RETRY_AFTER_S: Final = 5
#: Requests beyond those at work and in line that may be read; more are told at once that the server is full.
_WAITING_ROOM: Final = 64
#: Bytes that a body may have: some for settings, and for each token of the context more than nearly any text takes.
_BODY_BYTES: Final = 1 << 16
_BODY_BYTES_PER_TOKEN: Final = 32
#: How often a request that waits for a session looks whether its client is still there, in seconds.
_LOOK_EVERY_S: Final = 0.05
#: Bodies that are understood at once, each by a thread; engine and event loop need the machine too.
_READERS: Final = 2
_PATHS: Final = {"/v1/models": "GET", "/v1/chat/completions": "POST", "/v1/session": "GET"}


class OpenAiApi:
    """Requests over HTTP that want an answer in words, served by the same engines as the sessions."""

    def __init__(
        self, models: Mapping[str, ServedModel], config: ServerConfig, queue: AdmissionQueue, metrics: Metrics
    ) -> None:
        self._models, self._config, self._queue, self._metrics = models, config, queue, metrics
        self._created = int(time.time())
        self.draining = False
        self.max_body_bytes = _BODY_BYTES + _BODY_BYTES_PER_TOKEN * max(
            model.greeting.limits.max_context for model in models.values()
        )
        self._queued: set[Completion] = set()
        self._readers = asyncio.Semaphore(_READERS)
        #: Requests in work, and their answers once these have begun.
        self.requests: dict[asyncio.Task[Any], Completion | None] = {}

    def in_turn(self, model: ServedModel) -> int:
        """Answers of a model in work."""
        return sum(completion is not None and completion.model is model for completion in self.requests.values())

    def queued(self, model: ServedModel) -> int:
        """Answers of a model that wait for a session."""
        return sum(completion.model is model for completion in self._queued)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Everything under `/v1/` that no other route has taken."""
        router.add_get("/v1/models", self.models)
        router.add_get("/v1/models/{model:.+}", self.model)
        router.add_post("/v1/chat/completions", self.chat)
        router.add_route("*", "/v1/{path:.*}", self.unknown)

    def fail(self, error: ApiError, model: ServedModel | None = None) -> None:
        """End all answers in work with an error, or all of this model."""
        for completion in self.requests.values():
            if completion is not None and model in (None, completion.model):
                completion.fail(error)

    # -- handlers -----------------------------------------------------------------------------------------------------

    async def models(self, _request: web.Request) -> web.Response:
        """`GET /v1/models`."""
        return web.json_response({"object": "list", "data": [self._model(name) for name in self._models]})

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/{model}`."""
        try:
            model = self._find(request.match_info["model"])
        except ApiError as error:
            return self._refuse(error)
        return web.json_response(self._model(model.name))

    async def unknown(self, request: web.Request) -> web.Response:
        """Whatever this server does not have under `/v1/`."""
        method = _PATHS.get(request.path)
        if method is not None:
            error = ApiError(405, f"Use {method} for {request.path}.", code="method_not_allowed")
        else:
            error = ApiError(
                404,
                f"This server does not have {request.method} {request.path[:100]}; it has {', '.join(_PATHS)}.",
                code="unknown_url",
            )
        return self._refuse(error)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        arrived_s = time.monotonic()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a request handler always runs in a task
        completion = None
        try:
            self._check_room()
            key = request.get(KEY)
            _check_allowance(key)
            self.requests[task] = None
            completion = self._completion(*await self._read(request), arrived_s, key)
            await self._start(request, completion)
            self.requests[task] = completion
            write = self._stream if completion.request.stream else self._whole
            return await write(request, completion)
        except ApiError as error:
            return self._refuse(error, NO_MODEL if completion is None else completion.model.name)
        except (ClientGoneError, ConnectionError):
            return web.Response()  # to nobody
        finally:
            self.requests.pop(task, None)
            if completion is not None:
                completion.close()

    # -- before the answer --------------------------------------------------------------------------------------------

    def _check_serving(self, model: ServedModel) -> None:
        self._check_draining()
        if not model.runner.ready:
            raise engine_stopped()

    def _check_draining(self) -> None:
        if self.draining:
            raise shutting_down()

    def _check_room(self) -> None:
        self._check_draining()
        if len(self.requests) >= self._config.max_sessions + self._config.queue_length + _WAITING_ROOM:
            raise _busy("Too many requests at once; try again in a moment.", "server_full")
        if (full := self._queue.full_error(self._models)) is not None:  # its body is not worth reading
            raise _busy(full.message, full.code, self._queue.retry_after_s)

    async def _read(self, request: web.Request) -> tuple[ServedModel, ChatRequest, list[int]]:
        """The model, the request and the ids of its prompt; a thread reads it: a long one takes longer than a tick."""
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise ApiError(415, "Send the body without Content-Encoding.", code="unsupported_encoding")
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                body = await request.read()
        except TimeoutError:
            raise ApiError(
                408,
                f"The body did not arrive within {self._config.body_timeout_s:g} s; send it again.",
                code="request_timeout",
            ) from None
        except web.HTTPRequestEntityTooLarge:
            raise ApiError(
                413,
                f"The body is over the limit of {self.max_body_bytes} bytes; shorten the conversation.",
                code="message_too_large",
            ) from None
        except web.RequestPayloadError:  # cut off, or not in the encoding it claims
            raise ApiError(400, "The body cannot be read; send it again.", code="invalid_value") from None
        async with self._readers:
            return await asyncio.to_thread(self._understand, body)

    def _understand(self, body: bytes) -> tuple[ServedModel, ChatRequest, list[int]]:
        chat = parse_chat(body, lambda name: self._find(name).bundle.generation)
        model = self._find(chat.model)
        try:
            ids = model.codec.encode_chat(chat.messages)
        except UsageError as error:
            raise ApiError(400, f"{error.message[:300]}.", code="invalid_value", param="messages") from None
        return model, chat, ids

    def _find(self, name: str) -> ServedModel:
        model = self._models.get(name)
        if model is None:
            have = ", ".join(f"'{each}'" for each in self._models)
            raise ApiError(
                404,
                f"The model '{name[:100]}' does not exist here; this server has {have}.",
                code="model_not_found",
                param="model",
            )
        return model

    def _completion(
        self, model: ServedModel, chat: ChatRequest, ids: list[int], arrived_s: float, key: Key | None
    ) -> Completion:
        budget = model.admission.budget
        limit = min(
            model.greeting.limits.max_context, budget.limit_bytes // budget.cost(0, 1)
        )  # what memory there is may be less
        room = limit - len(ids)
        if not ids or room < 1 or (chat.max_tokens or 1) > room:
            wanted = f" and {chat.max_tokens} for the answer" if chat.max_tokens is not None else ""
            raise ApiError(
                400,
                f"A conversation here has at most {limit} tokens, and the messages take {len(ids)}{wanted}; "
                "shorten the messages or ask for a shorter answer.",
                code="context_length_exceeded",
                param="messages",
            )
        return Completion(model, chat, ids, chat.max_tokens or room, arrived_s=arrived_s, key=key)

    async def _start(self, request: web.Request, completion: Completion) -> None:
        """Begin, now or when its turn in the queue has come."""
        refusal: asyncio.Future[ApiError | None] = asyncio.get_running_loop().create_future()

        def enter() -> None:
            try:
                completion.start()
            except CapacityError:
                raise
            except Exception as error:  # this request's alone: who stands behind it in line goes on
                refusal.set_exception(error)
            else:
                refusal.set_result(None)

        def refused(error: CapacityError) -> None:
            refusal.set_result(_busy(error.message, error.code))

        self._check_serving(completion.model)
        try:
            guest = Guest(enter, completion.would_fit, lambda _place: None, refused, completion.model.name)
            self._queue.ask(completion.session, guest)
        except CapacityError as error:
            raise _busy(error.message, error.code) from None
        self._queued.add(completion)
        try:
            while not refusal.done():
                await asyncio.wait([refusal], timeout=_LOOK_EVERY_S)
                self._check_serving(completion.model)
                if _is_gone(request):
                    raise ClientGoneError
        finally:
            self._queued.discard(completion)
            self._queue.leave(completion.session)
        refused_with = refusal.result()
        if refused_with is not None:
            raise refused_with

    # -- the answer ---------------------------------------------------------------------------------------------------

    async def _whole(self, request: web.Request, completion: Completion) -> web.StreamResponse:
        pieces = [piece async for piece in completion.pieces(lambda: _is_gone(request))]
        completion.account.ends_because("completed")
        completion.close()  # whatever the client does now, the row is free
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None},
            "logprobs": _logprobs(completion.request, pieces),
            "finish_reason": pieces[-1].finish_reason,
        }
        answer = {
            **_head("chat.completion", completion.model),
            "choices": [choice],
            "usage": usage(completion.prompt_tokens, completion.completion_tokens),
        }
        response = web.Response(text=await asyncio.to_thread(json.dumps, answer), content_type="application/json")
        await self._within_limit(request, completion, response.prepare(request))
        await self._within_limit(request, completion, response.write_eof())
        return response

    async def _stream(self, request: web.Request, completion: Completion) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        )
        head = _head("chat.completion.chunk", completion.model)
        if completion.request.include_usage:
            head["usage"] = None

        async def send(data: str) -> None:
            await self._within_limit(request, completion, response.write(f"data: {data}\n\n".encode()))

        async def send_choice(delta: Mapping[str, Any], piece: Piece) -> None:
            logprobs = _logprobs(completion.request, [piece])
            choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": piece.finish_reason}
            await send(_json({**head, "choices": [choice]}))

        await self._within_limit(request, completion, response.prepare(request))
        try:
            await send_choice({"role": "assistant", "content": "", "refusal": None}, Piece(""))
            async for piece in completion.pieces(lambda: _is_gone(request)):
                if piece.text or piece.logprobs:
                    shown = Piece(piece.text, piece.logprobs)
                    await send_choice({"content": piece.text}, shown)
                if piece.finish_reason is not None:
                    await send_choice({}, Piece("", finish_reason=piece.finish_reason))
            completion.account.ends_because("completed")
            completion.close()
            if completion.request.include_usage:
                counted = usage(completion.prompt_tokens, completion.completion_tokens)
                await send(_json({**head, "choices": [], "usage": counted}))
            await send("[DONE]")
        except ApiError as error:  # the status is out already
            completion.model.telemetry.refused("openai", error.code)
            await send(_json(error.to_json()))
        await self._within_limit(request, completion, response.write_eof())
        return response

    async def _within_limit(self, request: web.Request, completion: Completion, step: Any) -> None:
        """Carry out a step that waits for the client to read.

        Raises:
            ClientGoneError: it did not read for too long, and is let go.
        """
        try:
            async with asyncio.timeout(self._config.send_timeout_s):
                await step
        except TimeoutError:
            completion.account.dropped("slow_reader")
            if request.transport is not None:
                request.transport.abort()  # a polite close would wait for a peer that does not read
            raise ClientGoneError from None

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "splitllm"}

    def _refuse(self, error: ApiError, model: str = NO_MODEL) -> web.Response:
        self._metrics.refused(model, "openai", error.code)
        headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        return web.json_response(error.to_json(), status=error.status, headers=headers)


def _head(kind: str, model: ServedModel) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": f"fp_{model.bundle.identity[:10]}",
    }


def _check_allowance(key: Key | None) -> None:
    """Count a request of a key, or refuse it.

    Raises:
        ApiError: 429, `rate_limited`: it has used up what it may.
    """
    if key is None:
        return
    try:
        key.begin()
    except TurnError as error:
        raise ApiError(429, error.message, code=error.code, retry_after_s=math.ceil(key.wait_s())) from None


def shutting_down() -> ApiError:
    """The server stops."""
    message = "The server is stopping; try again in a moment."
    return ApiError(503, message, code="shutting_down", kind="server_error", retry_after_s=_RETRY_AFTER_S)


def engine_stopped() -> ApiError:
    """The engine met a fault."""
    message = "The server's engine stopped; its operator must restart it."
    return ApiError(503, message, code="internal", kind="server_error")


def _busy(message: str, code: str, retry_after_s: int = _RETRY_AFTER_S) -> ApiError:
    return ApiError(429, message, code=code, kind="rate_limit_error", retry_after_s=retry_after_s)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _logprobs(request: ChatRequest, pieces: list[Piece]) -> dict[str, Any] | None:
    if request.top_logprobs is None:
        return None
    return {"content": [entry for piece in pieces for entry in piece.logprobs], "refusal": None}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
