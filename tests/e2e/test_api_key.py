"""The page of a server that wants an API key: the browser asks the person for it, and gives it with every request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from splitllm.bundle import Bundle
from tests.e2e.conftest import ChatPage
from tests.support import run_cli, running_server

pytestmark = pytest.mark.browser


def test_the_page_its_worker_and_its_websocket_are_let_in_with_the_key_as_a_password(
    browser: Browser, bundle: Bundle, tmp_path: Path
) -> None:
    made = run_cli("key", "alice", "--file", str(tmp_path / "keys"), "--json")
    with running_server(bundle.folder, "--api-key-file", str(tmp_path / "keys")) as server:
        key = json.loads(made.stdout)["key"]
        for password in ("wrong", key):
            credentials = {"username": "anybody", "password": password}
            with browser.new_context(http_credentials=credentials) as context:
                page = context.new_page()
                response = page.goto(f"{server.url}/?effort=0")
                assert response is not None
                if password != key:
                    assert response.status == 401
                    continue
                assert response.status == 200
                assert "Tokyo" in ChatPage(page).ask("What is the capital of Japan?")
