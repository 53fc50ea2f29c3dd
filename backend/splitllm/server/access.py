"""API keys: who may use the server, and how much of it.

A key is 256 random bits, so its plain SHA-256 is enough to keep (there is nothing to guess a key from), and a file of
hashes lets nobody in. Every route needs a key where a server has any, but for those of `_OPEN`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..errors import TurnError, UsageError, unread
from .openai_schema import ApiError
from .pace import Pace

#: For load balancers and supervisors; they tell nothing of who uses the server.
_OPEN: Final = frozenset({"/health", "/ready"})
#: The subprotocol of PROTOCOL.md, and the one that carries a key: a browser's WebSocket can send no other header.
SUBPROTOCOL: Final = "splitllm"
_KEY_SUBPROTOCOL: Final = "splitllm.key."
#: What a key may be called.
NAME: Final = r"[A-Za-z0-9._-]{1,64}"
_BOUND: Final = "[1-9][0-9]{0,17}"
_LINE: Final = re.compile(rf"({NAME}):([0-9a-f]{{64}})(?::({_BOUND}|(?=:))(?::({_BOUND}))?)?")


class Key:
    """One key, as far as the server knows it.

    `block_tokens_per_minute` bounds what it may cost, `requests_per_minute` how often it may ask: turns of sessions and
    requests over HTTP together. None is no bound.
    """

    def __init__(
        self,
        name: str,
        digest: bytes,
        block_tokens_per_minute: int | None = None,
        requests_per_minute: int | None = None,
    ) -> None:
        self.name, self.digest = name, digest
        self._allowance = _per_minute(block_tokens_per_minute)
        self._requests = _per_minute(requests_per_minute)

    def spend(self, block_tokens: int) -> None:
        """Count tokens times blocks that ran here. What a turn takes beyond the allowance, later ones wait for."""
        if self._allowance is not None:
            self._allowance.delay(time.monotonic(), block_tokens)

    def wait_s(self) -> float:
        """Seconds until the key may begin a turn."""
        now = time.monotonic()
        return max(
            0.0 if self._allowance is None else self._allowance.delay(now, 0),
            0.0 if self._requests is None else self._requests.wait(now),
        )

    def begin(self) -> None:
        """Count a turn, or refuse it for now if the allowance is used up.

        Raises:
            TurnError: `rate_limited`; it is not counted.
        """
        wait_s = self.wait_s()
        if wait_s > 0:
            raise TurnError(
                f"Your API key's allowance is used up; ask again in {math.ceil(wait_s)} s.", code="rate_limited"
            )
        if self._requests is not None:
            self._requests.delay(time.monotonic())


def _per_minute(count: int | None) -> Pace | None:
    """A bucket that holds one minute's worth."""
    return None if count is None else Pace(time.monotonic(), burst=count, per_s=count / 60)


KEY: Final = web.RequestKey("key", Key)


class Access:
    """The keys of one server."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys

    @classmethod
    def load(cls, path: Path) -> Access:
        """With the keys of a file.

        Raises:
            UsageError: as `read_keys`; or there is none.
        """
        keys = read_keys(path)
        if not keys:
            raise UsageError(f"{path} holds no key; add one with `splitllm key NAME --file F`")
        return cls(tuple(keys.values()))

    def find(self, text: str) -> Key | None:
        """The key that `text` is; all are compared, each in constant time."""
        digest = hash_of(text)
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        return found[0] if found else None

    def guard(self, is_open: Callable[[web.Request], bool]) -> Middleware:
        """Middleware: refuses whoever gives no key, on every route but two and what `is_open` lets through."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in _OPEN or is_open(request):
                return await handler(request)
            text = credentials(request)
            key = None if text is None else self.find(text)
            if key is None:
                # The words do not tell a wrong key from none. `Basic` makes a browser ask for it, and send it from then
                # on with all requests of the page, its worker's and its WebSocket's among them.
                why = "This server needs an API key; give it as `Authorization: Bearer KEY`, or as a password."
                error = ApiError(401, why, code="invalid_api_key")
                raise web.HTTPUnauthorized(
                    text=json.dumps(error.to_json()),
                    content_type="application/json",
                    headers={"WWW-Authenticate": 'Basic realm="splitllm", charset="UTF-8"'},
                )
            request[KEY] = key
            return await handler(request)

        return guard


def read_keys(path: Path) -> dict[str, Key]:
    """Keys by name, from lines of `NAME:SHA256[:[BLOCK_TOKENS_PER_MINUTE][:REQUESTS_PER_MINUTE]]`; # begins a comment.

    Raises:
        UsageError: the file cannot be read, or a line is none; the line is not quoted.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read ({unread(error)}); make it with `splitllm key NAME --file F`"
        ) from None
    keys: dict[str, Key] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None or match[1] in keys:
            raise UsageError(
                f"{path}, line {number}: not NAME:SHA256, alone or with :BLOCK_TOKENS_PER_MINUTE:REQUESTS_PER_MINUTE, "
                "with a new name; make it with `splitllm key`"
            )
        bounds = [int(bound) if bound else None for bound in match.group(3, 4)]
        keys[match[1]] = Key(match[1], bytes.fromhex(match[2]), *bounds)
    return keys


def hash_of(text: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def new_key() -> str:
    """256 random bits, in letters that a header and a subprotocol may hold."""
    return secrets.token_urlsafe(32)


def credentials(request: web.Request) -> str | None:
    """The key that a request gives: as bearer token, as password of whatever user, or as WebSocket subprotocol.

    Never from the address, which proxies log and browsers remember.
    """
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None
    for name in offered(request):
        if name.startswith(_KEY_SUBPROTOCOL):
            return name.removeprefix(_KEY_SUBPROTOCOL)
    return None


def offered(request: web.Request) -> list[str]:
    """Subprotocols that a WebSocket client offers (RFC 6455, section 4.1)."""
    return [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()]
