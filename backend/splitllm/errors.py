"""The one error tree of SplitLLM.

    SplitLLMError
    ├── UsageError            wrong flag, file or call                      exit 2
    │   └── ProblemError      a planning problem that makes no sense
    ├── VerificationError     a promise that does not hold                  exit 3
    │   ├── BundleError       a bundle that is missing, damaged or foreign
    │   └── ExportError       a model that cannot become a correct bundle
    ├── MachineError          the machine lacks something (port, runtime)   exit 1
    ├── ProtocolError         the peer broke PROTOCOL.md; the connection ends
    ├── TurnError             this turn cannot go on; the session can  exit 2
    ├── CapacityError         the server is full; try again later
    │   └── NeverFitsError    more than an empty server has; ask for less
    └── RemoteError           an error the peer sent us

Every error has a `code` (what travels on the wire and what machines read, listed in PROTOCOL.md)
and a message of one line that says what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class SplitLLMError(Exception):
    """Root of the tree. `code` is stable; the message is for people."""

    default_code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    #: Whether a server closes the connection after sending this error.
    fatal: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code


def unread(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read, in a few words for people who know its name."""
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)


class UsageError(SplitLLMError):
    """The command, call or file is wrong; the message names the right form."""

    default_code = "usage"
    exit_code = 2


class ProblemError(UsageError):
    """A planning problem (DESIGN.md's JSON) that is malformed or contradicts itself."""

    default_code = "problem_invalid"


class VerificationError(SplitLLMError):
    """Something was checked and is not what it claims to be."""

    default_code = "verification_failed"
    exit_code = 3


class BundleError(VerificationError):
    """A bundle that is missing, damaged, incomplete or of another format version."""

    default_code = "bundle_damaged"


class ExportError(VerificationError):
    """A model that cannot be turned into a bundle that computes the same."""

    default_code = "export_refused"


class MachineError(SplitLLMError):
    """The machine lacks something: a free port, a runtime, a device."""

    default_code = "machine"


class ProtocolError(SplitLLMError):
    """The peer broke PROTOCOL.md. Raised by codecs and state machines; ends the connection."""

    default_code = "malformed_message"
    fatal = True


class TurnError(SplitLLMError):
    """A turn or frame that cannot be served; the session stays open.

    `expected_position` is set where the peer may continue by sending from that position.
    """

    default_code = "turn_refused"
    exit_code = 2

    def __init__(self, message: str, *, code: str | None = None, expected_position: int | None = None) -> None:
        super().__init__(message, code=code)
        self.expected_position = expected_position


class CapacityError(SplitLLMError):
    """The server has no slot or no KV memory left for what was asked."""

    default_code = "server_full"


class NeverFitsError(CapacityError):
    """Not even an empty server has the KV memory that was asked for: waiting does not help."""

    default_code = "kv_exhausted"


class RemoteError(SplitLLMError):
    """An error that came from the other side, code and sentence as it sent them.

    `retry_after_s` is when it said that another attempt may succeed; 0 where it did not.
    """

    default_code = "remote"
    _WRONG_USE = frozenset(
        {"split_unavailable", "variant_unavailable", "context_overflow", "turn_refused", "unknown_model"}
    )

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: float = 0.0) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # here it depends on what the server said
        """2 where another flag or a shorter prompt would help, else 1."""
        return 2 if self.code in self._WRONG_USE else 1


#: Wire code -> meaning. PROTOCOL.md lists the same codes (a test compares them).
WIRE_CODES: dict[str, str] = {
    "malformed_message": "text that is not JSON, or JSON that no schema admits",
    "malformed_frame": "a binary message whose header or length is wrong",
    "message_too_large": "a message over the limit that `welcome` gave",
    "protocol_version": "the peers speak different versions of this protocol",
    "unknown_model": "the server does not serve the model asked for",
    "bundle_mismatch": "the peers hold different bundles of the model",
    "unexpected_message": "a message that is not allowed in the present state",
    "split_unavailable": "a split outside 0..blocks, or beyond the blocks the client holds",
    "variant_unavailable": "a variant or wire dtype that the bundle or the session does not have",
    "server_full": "no session slot is free",
    "kv_exhausted": "not enough KV memory is left for the session's token limit",
    "rate_limited": "the API key's allowance is used up for now",
    "context_overflow": "prompt and answer do not fit the session's token limit",
    "resume_refused": "no session that this client could go on with: unknown, over, or another's",
    "turn_refused": "the turn's numbers contradict the session (turn order, start, sampling, seen ids)",
    "wrong_dtype": "a frame whose dtype is not the one agreed in `plan`",
    "wrong_shape": "a frame with the wrong number of rows or columns",
    "not_finite": "hidden states with NaN or infinity",
    "unknown_token": "a token id outside the vocabulary",
    "unknown_turn": "a frame of a turn that has not begun",
    "position_gap": "a frame that skips positions",
    "position_overlap": "a frame that covers positions both old and new",
    "unexpected_frame": "a frame although the server waits for none",
    "idle_timeout": "the session was silent for longer than the limit",
    "slow_reader": (
        "the client does not read what the server sends; where its session can be taken up again, only the connection"
        " is closed (1008)"
    ),
    "session_moved": "the session goes on over another connection",
    "shutting_down": "the server is stopping",
    "internal": "a fault of the server; its log has the details",
}
