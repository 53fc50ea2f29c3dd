"""Tokens of sessions that wait: looked at in constant time, whether there is such a session or not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from splitllm.errors import TurnError
from splitllm.protocol import ResumeRequest
from splitllm.server import held
from splitllm.server.held import HeldSessions


@pytest.mark.parametrize(
    ("name", "right"), [("a", True), ("a", False), ("b", False)], ids=["right", "wrong", "no session"]
)
async def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch, name: str, right: bool) -> None:
    """Two comparisons that look at every byte, in every case: time tells neither bytes of a token nor who is there."""
    compared: list[str] = []
    monkeypatch.setattr(held.hmac, "compare_digest", lambda one, other: compared.append(other) or one == other)

    async def settled() -> None:
        pass

    session: Any = SimpleNamespace(id="a" * 32, owner=None, is_open=True, settled=settled, attach=lambda _: None)
    sessions, wire = HeldSessions(60), SimpleNamespace()
    ticket = sessions.enter(session)
    assert ticket is not None
    token = ticket.token if right else ticket.token[:-1] + ("0" if ticket.token[-1] != "0" else "1")
    request = ResumeRequest(name * 32, token, None, 0)
    if right:
        taken, following = await sessions.take(request, None, wire)  # type: ignore[arg-type]  # nothing is sent over it
        assert taken is session
        assert following.token != token
        assert compared == [token] * 4  # found, and found again when its plans are made
    else:
        with pytest.raises(TurnError):
            await sessions.take(request, None, wire)  # type: ignore[arg-type]  # as above
        assert compared == [token] * 2
