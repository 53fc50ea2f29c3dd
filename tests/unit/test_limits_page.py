"""The table of limits in docs/operating.md says what the code does, and says it of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitllm.protocol import text_limit
from splitllm.server import app, connection, openai_api, openai_schema, serve
from splitllm.server.config import ServerConfig

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
SECTION = PAGE.read_text("utf-8").split("\n## Limits\n")[1].split("\n## ")[0]
ROWS = {
    cells[0]: " | ".join(cells[1:])
    for line in SECTION.splitlines()
    if line.startswith("|") and not line.startswith(("| what", "|--"))
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}
CONFIG = ServerConfig()
_IDS = (text_limit(1000, between_turns=True) - text_limit(0, between_turns=True)) // 1000
#: What each row has to say; a row without figures of the code is named, so that a new one is thought about.
SAYS: dict[str, list[str]] = {
    "message from a client": [f"{CONFIG.max_rows} rows", "1009"],
    "characters of a text message": [
        f"{text_limit(0, between_turns=False):,}; between turns {text_limit(0, between_turns=True):,} and {_IDS} for",
        "`message_too_large`",
    ],
    "messages that feed the engine nothing": [
        f"{connection._TALK_BURST} at once, then {connection._TALK_PER_S:g} a second"
    ],
    "messages that wait for a client to take them": [f"{connection._OUTBOX_LIMIT},"],
    "tokens times blocks that the server runs for an API key": ["`rate_limited`", "429"],
    "turns and API requests of an API key": ["`rate_limited`", "429"],
    "new WebSockets": [
        f"`--max-sessions`, `--queue-length` and {app._WAITING_ROOM} at once, then {app._OPENINGS_PER_S:g} a second"
    ],
    "rows per frame": [str(CONFIG.max_rows), "`wrong_shape`"],
    "tokens per session": ["`max_context`", "`context_overflow`"],
    "sessions": ["`--max-sessions`", "`server_full`"],
    "memory for keys and values": ["`--kv-memory`", "`kv_exhausted`"],
    "memory for keys and values of a chat between turns": ["`--evict-idle-s`"],
    "who waits for room": ["`--queue-length`", "`--queue-s`", "`server_full`", "429"],
    "stop strings": [f"{openai_schema.STOP_STRINGS} of {openai_schema.STOP_CHARACTERS} characters"],
    "time for a client to take what it is sent": [f"{CONFIG.send_timeout_s:g} s"],
    "time for a client to answer a ping": [f"{connection._SILENT_S:g} s"],
    "silence while the server waits for the client": ["`--idle-timeout-s`", f"{connection._OPENING_S:g} s before"],
    "sessions without a connection": ["`--grace-s`", "`resume_refused`"],
    "connections with a WebSocket": [f"`--max-sessions`, `--queue-length` and {app._WAITING_ROOM} more", "503"],
    "connections of any kind": [f"{serve._OPEN_FILES:,} files", f"but {serve._OTHER_FILES}"],
    "ids in `seen_ids`": ["`turn_refused`"],
    "body of an API request": [
        f"{openai_api._BODY_BYTES >> 10} KiB and {openai_api._BODY_BYTES_PER_TOKEN} bytes",
        "`message_too_large`",
    ],
    "time for the body of an API request to arrive": [f"{CONFIG.body_timeout_s:g} s", "408"],
    "time for a connection to send a request's head": [f"{serve._SILENT_CONNECTION_S:g} s"],
    "time in which a client takes nothing of what waits for it, files included": [f"{serve._UNREAD_S:g} s"],
    "API requests at once": [f"`--max-sessions`, `--queue-length` and {openai_api._WAITING_ROOM} more", "429"],
}


def test_the_table_has_these_rows_and_no_other() -> None:
    assert list(ROWS) == list(SAYS)


@pytest.mark.parametrize("what", SAYS)
def test_a_row_says_what_the_code_does(what: str) -> None:
    for piece in SAYS[what]:
        assert piece in ROWS[what]
