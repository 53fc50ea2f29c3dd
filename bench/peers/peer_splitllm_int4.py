"""The same with int4 blocks."""

from __future__ import annotations

import peer_splitllm


class Peer(peer_splitllm.Peer):
    """See peer_splitllm."""

    variant = "int4"
