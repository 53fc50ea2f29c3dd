"""What others wrote steers nobody's terminal."""

from __future__ import annotations

import argparse

import pytest

from splitllm.cli import chat, main
from splitllm.cli.terminal import printable
from splitllm.errors import RemoteError


def test_words_of_all_languages_stay_and_control_characters_do_not() -> None:
    text = "Grüße,\tשלום, 你好 👩‍🚀\n"
    assert printable(text) == text
    assert printable("\x1b]0;title\x07\x9b2J\x7f\rgone") == "\ufffd]0;title\ufffd\ufffd2J\ufffd\ufffdgone"


def test_a_server_s_refusal_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_args: argparse.Namespace) -> int:
        raise RemoteError("full\x1b[2J", code="server_full")

    monkeypatch.setattr(chat, "run", refused)
    assert main(["chat", "http://127.0.0.1:1", "--prompt", "x"]) != 0
    assert capsys.readouterr().err == "splitllm: full\ufffd[2J\n"


def test_an_answer_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    chat._show("a\x1b[31mb\n", as_json=False)
    assert capsys.readouterr().out == "a\ufffd[31mb\n"
