"""Whether two peers can talk at all (PROTOCOL.md, section 3, steps 1 and 2)."""

from __future__ import annotations

from dataclasses import asdict

from ..errors import ProtocolError
from ..protocol import PROTOCOL_VERSION, Message
from .actions import Greeting


def welcome_to(hello: Message, greeting: Greeting) -> Message:
    """The answer to `hello`.

    Raises:
        ProtocolError: another version, model or bundle; the session ends.
    """
    if hello["protocol"] != PROTOCOL_VERSION:
        raise ProtocolError(
            f"The server speaks protocol {PROTOCOL_VERSION}, you speak {hello['protocol']}; reload the page or "
            "install the matching version.",
            code="protocol_version",
        )
    if hello["model"] not in (None, greeting.model):
        served = ", ".join(map(repr, (greeting.model, *greeting.others)))
        raise ProtocolError(
            f"This server has no model {hello['model'][:100]!r}; ask for {served}, or name none to get the first.",
            code="unknown_model",
        )
    if hello["bundle"] not in (None, greeting.bundle):
        raise ProtocolError(
            "Your copy of the model differs from the server's; load the manifest anew.", code="bundle_mismatch"
        )
    return {
        "type": "welcome",
        "protocol": PROTOCOL_VERSION,
        "agent": greeting.agent,
        "model": greeting.model,
        "bundle": greeting.bundle,
        "blocks": greeting.spec.blocks,
        "hidden_size": greeting.spec.hidden_size,
        "vocab_size": greeting.spec.vocab_size,
        "sla": {"ttft_ms": greeting.sla.ttft_ms, "tpot_ms": greeting.sla.tpot_ms},
        "limits": asdict(greeting.limits),
    }
