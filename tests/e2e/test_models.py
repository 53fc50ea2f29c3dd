"""A server with two models: a person chooses who answers, each conversation remembers, and the weights of both stay."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from splitllm.resources import demo_bundle
from tests.support import running_server

from .conftest import ChatPage
from .screens import violations_by_scheme

pytestmark = pytest.mark.browser
LOAD_TIMEOUT_MS = 60_000
QUESTION = "What is the capital of Japan?"
OTHER = "Hello!"


def two_blocks(folder: Path) -> Path:
    """The first two blocks of tiny-chat, a little off, as a model of their own."""
    shutil.copytree(demo_bundle(), folder)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    blocks = [{"float32": block["float32"]} for block in manifest["blocks"][:2]]
    manifest["model"] |= {"name": "two-blocks", "blocks": len(blocks)}
    manifest["blocks"] = blocks
    for block in blocks:
        path = folder / block["float32"]["weights"]
        weights = np.fromfile(path, np.float32) * np.float32(1.001)
        weights.tofile(path)
        manifest["files"][path.name]["sha256"] = hashlib.sha256(weights.tobytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


def test_a_person_chooses_who_answers_and_both_models_stay_on_the_device(page: Page, tmp_path: Path) -> None:
    with running_server(demo_bundle(), str(two_blocks(tmp_path / "two"))) as server:
        chat = ChatPage(page)
        address = f"{server.url}/?backend=wasm&variant=float32&split=2&max_tokens=8"
        page.goto(address)
        picker = page.get_by_role("combobox", name="Model")
        expect(picker).to_have_value("tiny-chat")
        assert picker.get_by_role("option").all_text_contents() == ["tiny-chat", "two-blocks"]
        chat.ask(QUESTION)
        expect(chat.articles("Assistant")).to_contain_text("tiny-chat")
        expect(chat.split).to_have_text("2 of 8 blocks in your browser", timeout=LOAD_TIMEOUT_MS)

        chat.begin_anew()
        picker.focus()
        page.keyboard.press("ArrowDown")
        chat.ask(OTHER)
        expect(chat.articles("Assistant")).to_contain_text("two-blocks")
        expect(chat.split).to_have_text("2 of 2 blocks in your browser", timeout=LOAD_TIMEOUT_MS)
        # Who leaves a model frees what it held there, for the other one may need it.
        assert any('"model":"tiny-chat"' in line and '"reason":"closed"' in line for line in server.output)
        assert violations_by_scheme(page) == []

        fetched: list[str] = []
        page.on("request", lambda request: fetched.append(request.url))
        page.locator(".chat-open", has_text=QUESTION).click()
        expect(picker).to_have_value("tiny-chat")
        expect(chat.split).to_have_text("2 of 8 blocks in your browser", timeout=LOAD_TIMEOUT_MS)
        page.goto(address)
        expect(picker).to_have_value("two-blocks")
        expect(chat.split).to_have_text("2 of 2 blocks in your browser", timeout=LOAD_TIMEOUT_MS)
        for model in ("tiny-chat", "two-blocks"):
            assert f"{server.url}/models/{model}/manifest.json" in fetched
        assert [url for url in fetched if url.endswith(".bin")] == []
        assert chat.errors == []
