"""How each guard of docs/decisions/guards-and-tests.md is taken out, for `make guards`.

By guard, in the page's words: one or more changes, each a file, a piece of its text, and what stands there instead.
Each change alone must make at least one of the guard's tests fail.
"""

from __future__ import annotations

from typing import Final

Mutation = tuple[str, str, str]

_FRAME: Final = "backend/splitllm/protocol/frame.py"
_MESSAGE: Final = "backend/splitllm/protocol/message.py"
_MACHINE: Final = "backend/splitllm/session/machine.py"
_FRAMES: Final = "backend/splitllm/session/frames.py"
_SERVER: Final = "backend/splitllm/server"
_APP: Final = f"{_SERVER}/app.py"
_ACCESS: Final = f"{_SERVER}/access.py"
_CONNECTION: Final = f"{_SERVER}/connection.py"
_HELD: Final = f"{_SERVER}/held.py"
_LIVE: Final = f"{_SERVER}/live_session.py"
_OPENAI: Final = f"{_SERVER}/openai_api.py"
_SERVE: Final = f"{_SERVER}/serve.py"
_STATIC: Final = f"{_SERVER}/static.py"
_RUNNER: Final = "backend/splitllm/runner.py"
_BUNDLE: Final = "backend/splitllm/bundle.py"
_CLIENT: Final = "backend/splitllm/client/session.py"
_ROWS: Final = "backend/splitllm/client/rows.py"
_WEB: Final = "web_client/src"

MUTATIONS: Final[dict[str, tuple[Mutation, ...]]] = {
    # -- what comes in
    "a frame is what PROTOCOL.md's table admits; nothing is taken for what its header claims": (
        (_FRAME, "if len(data) != HEADER.size + payload:", "if False:"),
        (_FRAME, "or payload != rows * columns * _NUMPY[dtype].itemsize:", "or False:"),
        (_FRAME, "if dtype not in _ALLOWED[kind]:\n        raise _m", "if False:\n        raise _m"),
    ),
    "a message is what the schema admits; no member twice, no number too large, no lone surrogate": (
        (_MESSAGE, "if first is not None:", "if False:"),
        (_MESSAGE, "if len(result) != len(pairs):", "if False:"),
        (_MESSAGE, "if not math.isfinite(value):", "if False:"),
        (_MESSAGE, 'value.encode("utf-8")', "value.isascii()"),
    ),
    "deep JSON is refused, not followed": (
        (_MESSAGE, "except (ValueError, RecursionError) as error:", "except ValueError as error:"),
    ),
    "reading takes work and memory in proportion to the text": (
        (
            _MESSAGE,
            "next(_validator(message_type).iter_errors(_without_ids(plain)), None)",
            "next(iter(list(_validator(message_type).iter_errors(_without_ids(plain)))), None)",
        ),
        (_MESSAGE, ".iter_errors(_without_ids(plain))", ".iter_errors(plain)"),
    ),
    "a list of ids has an end": ((_MESSAGE, "if len(ids) > _MAX_IDS or any(", "if any("),),
    "a message suits the session's state": (
        (
            _MACHINE,
            'handler = handlers.get((self.state, message["type"]))',
            'handler = next((each for (_, name), each in handlers.items() if name == message["type"]), None)',
        ),
    ),
    "a frame suits turn, position, shape and dtype; its values are finite or in the vocabulary": (
        (_FRAMES, "if not np.isfinite(frame.values).all():", "if False:"),
        (_FRAMES, "elif frame.values.min() < 0 or frame.values.max() >=", "elif False and frame.values.max() >="),
        (_FRAMES, "if frame.position > turn.expected:", "if False:"),
        (_FRAMES, "if frame.position < turn.expected:", "if False:"),
        (_FRAMES, "if frame.kind is not kind or frame.dtype is not dtype:", "if False:"),
        (_FRAMES, "if frame.values.shape[1] != columns or frame.rows > limits.max_rows:", "if False:"),
        (_FRAMES, "if frame.rows > limit:", "if False:"),
        (_FRAMES, "if not turn.waiting:", "if False:"),
    ),
    "no turn begins while the engine may be at another split than the session": (
        (_MACHINE, 'if self.owes_plan and message["type"] in', 'if False and message["type"] in'),
    ),
    "the page trusts the server no further": (
        (f"{_WEB}/protocol/frame.ts", "if (bytes.byteLength !== HEADER_BYTES + payload)", "if (payload < 0)"),
        (f"{_WEB}/protocol/message.ts", "if (!valid) throw", "if (type === '') throw"),
        (f"{_WEB}/protocol/json.ts", "if (names?.has(name)) throw", "if (name === '?' && names?.has(name)) throw"),
    ),
    "an API request is checked member by member": (
        (f"{_SERVER}/openai_schema.py", "    if error is not None:\n        where", "    if False:\n        where"),
        (f"{_SERVER}/openai_schema.py", "        if not harmless:", "        if False:"),
    ),
    "no compressed bodies": (
        (_OPENAI, 'if request.headers.get("Content-Encoding", "identity") != "identity":', "if False:"),
    ),
    "a planning problem cannot crash the planner": (
        ("backend/splitllm/planner/problem.py", "if not number or not 0 <= raw <= MAX_NUMBER:", "if not number:"),
    ),
    # -- what it may hold
    "size of a message, also of one in pieces": ((_APP, "max_msg_size=self._max_message_bytes", "max_msg_size=0"),),
    "length of a text, before it is read": ((_MACHINE, "if len(text) > limit:", "if False:"),),
    "one text in a round of the event loop": ((f"{_SERVER}/pace.py", "            await asyncio.sleep(0)\n", ""),),
    "one frame of a peer in a round of the event loop": (
        (
            _CONNECTION,
            "await asyncio.sleep(0 if fed else self._pace.delay(now))",
            "await asyncio.sleep(self._pace.delay(now)) if not fed else None",
        ),
    ),
    "a pace for what feeds the engine nothing": ((_CONNECTION, "0 if fed else self._pace.delay(now)", "0"),),
    "a pace for new WebSockets": ((_APP, "asyncio.sleep(self._arrivals.delay(time.monotonic()))", "asyncio.sleep(0)"),),
    "who comes for a new session while nobody else may even wait is refused in place of the upgrade": (
        (_APP, "(full := self.queue.full_error(self.models)) is not None:", "(full := None) is not None:"),
    ),
    "a request over HTTP is refused unread then": (
        (_OPENAI, "(full := self._queue.full_error(self._models)) is not None:", "(full := None) is not None:"),
    ),
    "connections of any kind": ((_SERVE, "if len(self._server.connections) >= self._most:", "if False:"),),
    "connections beyond the sessions": (
        (_APP, "if len(self.connections) + self._arriving >= self._places:", "if False:"),
    ),
    "the limit on open files is raised to what the system allows": (
        (_SERVE, "    _raise_file_limit()\n    with", "    with"),
    ),
    "time until a session is open": (
        (_CONNECTION, "limit = _OPENING_S if opening else self._config", "limit = self._config"),
    ),
    "silence of a session": (
        (_CONNECTION, "if now - self._last_heard > min(limit, self._config.idle_timeout_s):", "if False:"),
        (_CONNECTION, "if not self._session.machine.waits_for_client:", "if False:"),
    ),
    "a peer that answers no ping": ((_CONNECTION, "if now - self._rtt.last_pong > _SILENT_S:", "if False:"),),
    "a session that does not read": (
        (
            _CONNECTION,
            "timeout(self._config.send_timeout_s):\n                    if",
            "timeout(None):\n                    if",
        ),
    ),
    "messages that wait for a client to take them": ((_CONNECTION, " or self._outbox.qsize() > _OUTBOX_LIMIT:", ":"),),
    "who reads too slowly loses the connection, and not the session": (
        (_CONNECTION, "if self.model.held.can_hold(session):", "if False:"),
    ),
    "nobody overtakes who waits for room, and who waits holds none": (
        (f"{_SERVER}/admission.py", "if self._line.may_overtake(guest.model):", "if True:"),
    ),
    "who is overtaken by other models' sessions is not so for ever": (
        ("backend/splitllm/waiting.py", "if each.overtaken >= MOST_OVERTAKEN:", "if False:"),
        ("backend/splitllm/waiting.py", " and each.overtaken < MOST_OVERTAKEN", ""),
    ),
    "nobody loses its room within a turn, or whose client does not know what to do then": (
        (_LIVE, "if self._may_evict and self._seated", "if self._seated"),
    ),
    "an API client that does not read": (
        (
            _OPENAI,
            "timeout(self._config.send_timeout_s):\n                await step",
            "timeout(None):\n                await step",
        ),
    ),
    "a file that nobody reads": ((_SERVE, 'if hasattr(socket, "TCP_USER_TIMEOUT"):', "if False:"),),
    "time for a request's head (slow loris)": (
        (_SERVE, "keepalive_timeout=_SILENT_CONNECTION_S", "keepalive_timeout=3600.0"),
    ),
    "time for a request's body": ((_OPENAI, "asyncio.timeout(self._config.body_timeout_s)", "asyncio.timeout(None)"),),
    "size of a request's body, requests at once": (
        (
            _OPENAI,
            "if len(self.requests) >= self._config.max_sessions + self._config.queue_length + _WAITING_ROOM:",
            "if False:",
        ),
        (_APP, "client_max_size=server.api.max_body_bytes", "client_max_size=1 << 40"),
    ),
    "memory for keys and values, reserved whole": (
        (
            "backend/splitllm/kv_budget.py",
            "return self.reserved_by_others(session) + self.cost(split, max_tokens) <= self.limit_bytes",
            "return True",
        ),
    ),
    "tokens of a session": (
        (_MACHINE, "if request.max_tokens > self._greeting.limits.max_context:", "if False:"),
        ("backend/splitllm/session/turn.py", "if request.prompt_end + 1 > max_tokens:", "if False:"),
    ),
    "whoever goes, at whatever point, leaves nothing": (
        (_LIVE, "        self._admission.release(self.id)\n", "        pass\n"),
        (_LIVE, "        self._runner.close(self.id, on_closed)\n", "        pass\n"),
    ),
    "other sessions hear what they hear on a quiet day": (
        (
            _RUNNER,
            "handler = self._handlers.get(event.session)",
            "handler = self._handlers[max(self._handlers)] if self._handlers else None",
        ),
    ),
    "after an engine fault nothing is kept of what peers send": (
        (_RUNNER, "if session not in self._handlers or self.fault is not None:", "if session not in self._handlers:"),
    ),
    # -- who is let in, and what is given out
    "Host: no DNS rebinding of a loopback server": ((_STATIC, "if only_here and not", "if False and not"),),
    "Origin: no cross-site WebSocket or request": (
        (_STATIC, "if origin is not None and origin not in", "if False and origin not in"),
    ),
    "CORS: pages of an allowed origin read the files of an engine, and nothing else": (
        (_STATIC, "if origin in allowed_origins:", "if origin:"),
        (_STATIC, "if not request.path.startswith(_EMBEDDED_PREFIXES):", "if False:"),
    ),
    "listening wider is asked for by name": (
        (
            "backend/splitllm/cli/serve.py",
            "if not is_loopback(args.host) and args.api_key_file is None and not args.without_api_key:",
            "if False:",
        ),
    ),
    "with API keys, every route but two is closed to who gives none": (
        (_ACCESS, "            if key is None:\n", "            if key is None and text is not None:\n"),
        (_ACCESS, "            if key is None:\n", "            if key is None and text is None:\n"),
        (
            _ACCESS,
            '_OPEN: Final = frozenset({"/health", "/ready"})',
            '_OPEN: Final = frozenset({"/health", "/ready", "/"})',
        ),
    ),
    "keys are compared in constant time, all of them": (
        (_ACCESS, "if hmac.compare_digest(key.digest, digest)]", "if key.digest == digest]"),
    ),
    "keys are kept as hashes, and logged nowhere": (
        ("backend/splitllm/cli/key.py", "{hash_of(text).hex()}{bound}\\n", "{hash_of(text).hex()}{bound} # {text}\\n"),
        ("backend/splitllm/server/telemetry.py", "None if self.key is None else self.key.name", "str(self.key)"),
    ),
    "a key in a subprotocol is not logged by the WebSocket library": (
        (_APP, "if protocols and SUBPROTOCOL not in protocols:", "if False:"),
    ),
    "what a key may cost": ((_MACHINE, "if self._allow is not None:", "if False:"),),
    "how often a key may ask": (
        (_ACCESS, "0.0 if self._requests is None else self._requests.wait(now)", "0.0"),
        (_ACCESS, "            self._requests.delay(time.monotonic())\n", "            pass\n"),
    ),
    "with API keys, pages of allowed origins get the engine's code without one, and nothing else": (
        (_STATIC, 'and request.headers.get("Origin") in allowed_origins\n', "and True\n"),
        (_STATIC, "            and request.path.startswith(_CODE_PREFIXES)\n", ""),
        (_STATIC, 'return (\n            request.method in ("GET", "HEAD")', "return (\n            True"),
        (_STATIC, 'if not asks or request.headers.get("Origin") not in allowed_origins:', "if not asks:"),
    ),
    "the page uses no bundle but one signed with a key that it trusts": (
        (
            f"{_WEB}/bundle/manifest.ts",
            "if (trusted.length > 0) await checkSignature",
            "if (trusted.length > 9) await checkSignature",
        ),
        (
            f"{_WEB}/bundle/signature.ts",
            "if (!(await verify(spki, value, manifest))) throw",
            "if (value.length < 0) throw",
        ),
        (
            f"{_WEB}/bundle/signature.ts",
            "if (signature === null) throw refused('is not signed');",
            "if (signature === null) return;",
        ),
        (
            f"{_WEB}/bundle/signature.ts",
            "if (!canVerify()) throw unsupported('pages over plain http');",
            "if (!canVerify()) return;",
        ),
    ),
    "a bundle is signed with a trusted key, where one is asked for": (
        ("backend/splitllm/bundle.py", "        if trusted:\n", "        if trusted and signature is not None:\n"),
        ("backend/splitllm/signature.py", "        key.public.verify(value, manifest)\n", "        pass\n"),
        ("backend/splitllm/signature.py", "if each.id == claimed), None)", "), None)"),
        (_SERVE, "Bundle.open(source.folder, trusted=trusted)", "Bundle.open(source.folder)"),
    ),
    "the same over HTTP": ((_OPENAI, "            _check_allowance(key)\n", ""),),
    "who hangs up pays for the tick in work, too": (
        (
            "backend/splitllm/server/telemetry.py",
            "payer = self.payers.get(session)",
            "payer = account.key if account is not None else None",
        ),
    ),
    "metrics on a listener of the operator's own, if wanted": (
        (_APP, "    if config.admin_port is None:\n", "    if True:\n"),
    ),
    "default deny: a route is listed or refused, by method": (
        (
            _APP,
            'app.router.add_get("/bundle/{name}", bundle_handler(server.first.bundle))',
            'app.router.add_route("*", "/bundle/{name}", bundle_handler(server.first.bundle))',
        ),
        (
            _APP,
            '    app.router.add_get("/v1/session", server.session)\n',
            '    app.router.add_get("/v1/session", server.session)\n    app.router.add_get("/debug", server.health)\n',
        ),
    ),
    "CSP without inline script, COOP, COEP, CORP, nosniff on every answer": (
        (_STATIC, '    "Cross-Origin-Opener-Policy": "same-origin",\n', ""),
        (_STATIC, '    "Cross-Origin-Embedder-Policy": "require-corp",\n', ""),
        (_STATIC, '    "Cross-Origin-Resource-Policy": "same-origin",\n', ""),
        (_STATIC, '    "X-Content-Type-Options": "nosniff",\n', ""),
        (_STATIC, "script-src 'self' 'wasm-unsafe-eval';", "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval';"),
        (_STATIC, "in _HEADERS.items():\n", "in _HEADERS.items() if response.status < 400 else ():\n"),
    ),
    "only files of the page and of the manifest, however a path is written; no links": (
        (
            _STATIC,
            'path = files.get(request.match_info["path"] or "index.html")',
            'path = folder / (request.match_info["path"] or "index.html")',
        ),
        (_STATIC, "if path.is_file() and not path.is_symlink()", "if path.is_file()"),
        (_STATIC, "if name not in bundle.manifest.files:", "if not (bundle.folder / name).is_file():"),
    ),
    "no unverified copy in a file's place": (
        (_STATIC, '_COMPRESSED: Final = (".gz", ".br")', "_COMPRESSED: Final = ()"),
    ),
    "no link of a bundle leads out": ((_BUNDLE, "if not real.is_relative_to(root):", "if False:"),),
    "weights are verified by hash, on the server": ((_BUNDLE, "if digest != entry.sha256:", "if False:"),),
    "weights are verified by hash, in the browser": (
        (f"{_WEB}/bundle/files.ts", "if ((await sha256(bytes)) === hash) {", "if (bytes.length >= 0) {"),
        (
            f"{_WEB}/bundle/files.ts",
            "return bytes !== null && (await sha256(bytes)) === hash ? bytes : null;",
            "return bytes;",
        ),
    ),
    "what serving needs is installed by hash": (("Makefile", "--require-hashes ", ""),),
    "a fault's details stay on the server": (
        (_MACHINE, "told = error if error.code in WIRE_CODES else SplitLLMError(", "told = error or SplitLLMError("),
    ),
    "words of a conversation are in no log": (
        (_OPENAI, "body = await request.read()", "print(body := await request.read())"),
        (_MACHINE, 'decode_message(text, "client")', 'decode_message(print(text) or text, "client")'),
    ),
    "no pickle is read, and none is written": ((_BUNDLE, "import math\n", "import math\nimport pickle\n"),),
    "strangers write nothing into the log": (
        (
            f"{_SERVER}/http_log.py",
            "return not isinstance(error, HttpProcessingError | RequestPayloadError)",
            "return True",
        ),
    ),
    "nor those who go before their upgrade": ((_APP, "except ConnectionResetError:", "except ZeroDivisionError:"),),
    # -- between sessions
    "a row's keys and values are overwritten before another session gets it": (
        (
            "backend/splitllm/slots.py",
            "freed = self._used - kept - {move.target for move in moves}",
            "freed: set[int] = set()",
        ),
        (_RUNNER, "            self.engine.clear(row)", "            pass"),
        (
            "backend/splitllm/engines/onnx/engine.py",
            "        self._blocks.clear(row, self._written(row), int(self._lowest[row]))\n",
            "",
        ),
        (
            "backend/splitllm/engines/onnx/blocks.py",
            "            for rows in self.kv[block - self.span.start]:\n                rows.clear(row, length)\n",
            "            self.kv[block - self.span.start][0].clear(row, length)\n",
        ),
        (
            "backend/splitllm/engines/memory.py",
            "            self._zero_bytes(row * self._row_bytes, (row + 1) * self._row_bytes)",
            "            pass",
        ),
    ),
    "a seat that others used is like a new one": (
        (
            "backend/splitllm/engines/onnx/engine.py",
            "        self._blocks.clear(row, self._written(row), int(self._lowest[row]))\n",
            "",
        ),
    ),
    "neighbours in a batch do not change one bit": (
        (
            "backend/splitllm/engines/onnx/engine.py",
            "self._memory.upload(self._lengths[:count], self._lane.last)",
            "self._memory.upload(np.full_like(self._lengths[:count], self._lengths[:count].max()), self._lane.last)",
        ),
    ),
    "each session gets its own events": (
        (_RUNNER, "handler = self._handlers.get(event.session)", "handler = next(iter(self._handlers.values()), None)"),
    ),
    "names of sessions are 128 random bits": ((_LIVE, "secrets.token_hex(16)", "secrets.token_hex(8)"),),
    "a session is taken up by its token only: 256 random bits, compared in constant time, new at each resume": (
        (_HELD, "or not any(right)", "or False"),
        (_HELD, "request.token, secrets.token_hex(_TOKEN_BYTES)", "request.token, entry.token"),
        (_HELD, "hmac.compare_digest(token, request.token) for", "token == request.token for"),
        (_HELD, "_TOKEN_BYTES: Final = 32", "_TOKEN_BYTES: Final = 8"),
    ),
    "a token that has been replaced is worth nothing once the client was heard": (
        (_HELD, "            entry.former = None\n", "            pass\n"),
    ),
    "a session belongs to the API key that opened it": ((_HELD, "or entry.session.owner is not owner ", ""),),
    "a session goes to one connection: the former one loses it": (
        (_LIVE, "            former.moved()", "            pass"),
    ),
    "a session without connection ends with the time of grace, and counts until then": (
        (_HELD, ".call_later(self._grace_s, self._end, session)", ".call_later(3600, self._end, session)"),
    ),
    "nobody is evicted for somebody who would not fit even then": (
        (f"{_SERVER}/planning.py", "return has_place and others + budget", "return True or others + budget"),
    ),
    "what is rebuilt after an eviction is paid for once, and what was the client's is paid for": (
        (f"{_SERVER}/telemetry.py", "again = min(run, self.paid.get(session, 0))", "again = 0"),
        (_LIVE, "max(plan.split, self._evicted_split)", "plan.split"),
    ),
    "what nobody could want back is not held": (
        ("backend/splitllm/session/standing.py", " and self._last_turn > 0", ""),
    ),
    "no token is run or told twice, none is missing": (
        (_MACHINE, "if at >= request.position]", "if at > request.position]"),
        (_MACHINE, "            actions.append(Send(self._outcome))\n", "            pass\n"),
    ),
    # -- what fails on the way
    "messages lost, late, doubled, cut short or in the wrong order, "
    "and a silent network change no text and leave nothing": ((_CLIENT, "if losses > _MOST_LOSSES:", "if losses:"),),
    "a token that comes twice is taken once, one that is missing is asked for": (
        (_ROWS, "values[len(self.ids) - position :, 0]", "values[:, 0]"),
        (_ROWS, "        if position > len(self.ids):", "        if False:"),
    ),
    "who hears the end of a turn misses a token that did not come": (
        (
            _CLIENT,
            "if self._request is not None and len(self._rows.ids) <",
            "if False and len(self._rows.ids) <",
        ),
    ),
    "the page's engine says the same whatever happens to its messages": (
        (f"{_WEB}/worker/engine.ts", " || link.hasNews;", ";"),
    ),
    "the page, too": (
        (
            f"{_WEB}/session/session.ts",
            "if (!turn.cancelled && done.tokens > turn.tokens) throw",
            "if (turn.tokens < 0) throw",
        ),
    ),
    "a server that dies: another goes on with greedy and sampled answers": (
        (_LIVE, "    bits.advance(position)\n", ""),
    ),
    "a client that dies leaves nothing, and goes on with what it had kept": (
        (_HELD, "        self.forget(session)\n        session.end()", "        self.forget(session)"),
    ),
    "a full line keeps nobody from going on with a session": ((_CLIENT, "new=self._ticket is None)", "new=True)"),),
    "who is refused for now comes no sooner than it was told, and not together with all others": (
        (_CLIENT, " * random.uniform(1.0, 2.0)", ""),
        (_CLIENT, "asyncio.sleep(max(pause_s, after_s))", "asyncio.sleep(pause_s)"),
    ),
    "the page goes on after a cut and after a crash of the server": (
        (
            f"{_WEB}/worker/engine.ts",
            "if (losses > MOST_LOSSES || faults > 1) throw error;",
            "if (losses > 0 || faults > 1) throw error;",
        ),
    ),
    "what cannot be mended is told in a sentence": (
        ("backend/splitllm/client/link.py", "({error}); is the server running there?", "({error})"),
    ),
}
