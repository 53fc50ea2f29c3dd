"""Fixtures that every kind of test shares."""

from __future__ import annotations

import pytest
from splitllm.bundle import Bundle
from splitllm.resources import demo_bundle


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The committed bundle of tiny-chat: 8 blocks, hidden 128."""
    return Bundle.open(demo_bundle())
