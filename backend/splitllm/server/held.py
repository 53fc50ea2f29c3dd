"""Sessions whose client may come back: their tokens, and those that wait for it without a connection."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from dataclasses import dataclass
from typing import Final

from ..errors import TurnError
from ..protocol import ResumeRequest, Ticket
from .access import Key
from .live_session import LiveSession, Wire

log = logging.getLogger(__name__)

_TOKEN_BYTES: Final = 32
#: What a token is compared with where there is no session, so that an answer takes as long.
_NO_TOKEN: Final = secrets.token_hex(_TOKEN_BYTES)


@dataclass(slots=True)
class _Entry:
    session: LiveSession
    token: str
    #: The token of the resume before, good until the client has been heard: it may have missed the answer with the
    #: new one.
    former: str | None = None
    ends: asyncio.TimerHandle | None = None


class HeldSessions:
    """All sessions of one model that can be taken up again, by name."""

    def __init__(self, grace_s: float) -> None:
        """`grace_s`: how long a session waits for its client; 0 holds none."""
        self._grace_s = grace_s
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        """How many wait for their clients."""
        return sum(entry.ends is not None for entry in self._entries.values())

    def enter(self, session: LiveSession) -> Ticket | None:
        """What the client of a session that opens needs to come back; None where sessions are not held."""
        if self._grace_s <= 0:
            return None
        entry = self._entries[session.id] = _Entry(session, secrets.token_hex(_TOKEN_BYTES))
        return Ticket(entry.token, self._grace_s)

    def can_hold(self, session: LiveSession) -> bool:
        """Whether `hold` would keep it: its client can come back, and would find something."""
        return session.id in self._entries and not session.draining and session.machine.worth_holding

    def hold(self, session: LiveSession) -> bool:
        """Keep a session whose connection is gone for the time of grace; False if it is of no use to anybody."""
        if not self.can_hold(session):
            return False
        session.detach()
        entry = self._entries[session.id]
        entry.ends = asyncio.get_running_loop().call_later(self._grace_s, self._end, session)
        log.info("session %s: held for %g s", session.id[:8], self._grace_s)
        return True

    async def take(self, request: ResumeRequest, owner: Key | None, wire: Wire) -> tuple[LiveSession, Ticket]:
        """Attach the session that a client wants to go on with to its new connection; the ticket is the next one.

        Raises:
            TurnError: `resume_refused`, in the same words for all reasons.
        """
        await self._find(request, owner).session.settled()
        entry = self._find(request, owner)  # it may have ended, or moved on, meanwhile
        if entry.ends is not None:
            entry.ends.cancel()
            entry.ends = None
        entry.former, entry.token = request.token, secrets.token_hex(_TOKEN_BYTES)
        entry.session.attach(wire)
        return entry.session, Ticket(entry.token, self._grace_s)

    def heard(self, session: LiveSession) -> None:
        """The client spoke: it has the new token, and the one before is worth nothing any more."""
        entry = self._entries.get(session.id)
        if entry is not None:
            entry.former = None

    def forget(self, session: LiveSession) -> None:
        """A session that has ended cannot be taken up again."""
        entry = self._entries.pop(session.id, None)
        if entry is not None and entry.ends is not None:
            entry.ends.cancel()

    def end_all(self) -> None:
        """End all that wait: their clients cannot come back to this server."""
        for entry in list(self._entries.values()):
            if entry.ends is not None:
                self._end(entry.session)

    def _end(self, session: LiveSession) -> None:
        self.forget(session)
        session.end()

    def _find(self, request: ResumeRequest, owner: Key | None) -> _Entry:
        entry = self._entries.get(request.session)
        tokens = (_NO_TOKEN, _NO_TOKEN) if entry is None else (entry.token, entry.former or entry.token)
        right = [hmac.compare_digest(token, request.token) for token in tokens]
        if entry is None or not any(right) or entry.session.owner is not owner or not entry.session.is_open:
            raise TurnError(
                "There is no such session to go on with; open a new one and send the conversation again.",
                code="resume_refused",
            )
        return entry
