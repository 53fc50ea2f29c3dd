"""The command line with wrong input: one line that says what to do, and the right exit code."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from splitllm.bundle import Bundle
from splitllm.cli.main import main
from splitllm.server.serve import address
from tests.support import ServerProcess, run_cli, running_server

COMMANDS = ("", "demo", "export", "verify", "sign", "serve", "key", "plan", "chat", "bench")
BENCHMARKS = ("engine", "planner", "paper", "capacity", "load")


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(bundle.folder, tmp_path / "copy"))


def refusal(code: int, *args: str) -> str:
    """The one line on stderr of a command that must fail with this exit code."""
    result = run_cli(*args)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("splitllm: ")
    return lines[0]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refusal` in this process, which is sooner; of wrong flags too, behind their usage."""

    def ask(code: int, *args: str) -> str:
        try:
            ended: object = main(args)
        except SystemExit as exit_:
            ended = exit_.code
        out, error = capsys.readouterr()
        assert (ended, out) == (code, "")
        line: str = error.strip().splitlines()[-1]
        assert line.startswith("splitllm")
        return line

    return ask


def test_an_unknown_folder(tmp_path: Path) -> None:
    assert "splitllm export" in refusal(2, "serve", str(tmp_path / "nowhere"))  # nothing was looked at: wrong use
    assert "splitllm export" in refusal(2, "verify", str(tmp_path / "nowhere"))
    assert "splitllm export" in refusal(3, "serve", str(tmp_path))
    assert "splitllm export" in refusal(3, "verify", str(tmp_path))


def test_a_damaged_manifest(copy: Path) -> None:
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8")[:-20], "utf-8")
    assert "manifest.json" in refusal(3, "serve", str(copy))


def test_one_byte_of_one_weight_changed(copy: Path) -> None:
    weights = copy / "block.3.float32.bin"
    data = bytearray(weights.read_bytes())
    data[1000] ^= 1
    weights.write_bytes(data)
    assert "block.3.float32.bin is damaged" in refusal(3, "serve", str(copy))
    result = run_cli("verify", str(copy), "--json")
    assert result.returncode == 3
    assert json.loads(result.stdout)["ok"] is False


def test_a_port_in_use(bundle: Bundle, told: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} is in use" in refusal(1, "serve", str(bundle.folder), "--port", port)

        admin = told(1, "serve", str(bundle.folder), "--port", "0", "--admin-port", port)
        assert f"port {port} is in use" in admin
        assert "--admin-port" in admin


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        (("--port", "8124", "--admin-port", "8124"), "two ports"),
        (("--allowed-origin", "example.org"), "https://chat.example.org"),
        (("--allowed-origin", "https://example.org/"), "https://chat.example.org"),
        (("--allowed-origin", "*"), "https://chat.example.org"),
        (("--allowed-origin", "https://Chat.example.org"), "https://chat.example.org"),
        (("--allowed-origin", "https://münchen.example"), "https://chat.example.org"),
        (("--allowed-origin", "https://example.org:443"), "https://chat.example.org"),
        (("--allowed-origin", "http://example.org:80"), "https://chat.example.org"),
        (("--threads", "5000"), "from 1 to 256"),
    ],
)
def test_a_server_that_cannot_be(
    bundle: Bundle, options: tuple[str, ...], way_out: str, told: Callable[..., str]
) -> None:
    # Too little memory: if nothing else refuses, that does, and no server stays.
    assert way_out in told(2, "serve", str(bundle.folder), "--kv-memory", "10", *options)


def test_listening_wider_must_be_asked_for_by_name(bundle: Bundle) -> None:
    assert "--without-api-key" in refusal(2, "serve", str(bundle.folder), "--host", "0.0.0.0")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("192.0.2.7", "http://192.0.2.7:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
    ],
)
def test_the_address_that_is_told_can_be_opened(host: str, url: str) -> None:
    assert address(host, 80) == url


def test_no_server_there() -> None:
    assert "is the server running there?" in refusal(1, "chat", "http://127.0.0.1:9", "--prompt", "Hi", "--json")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", "http://[::1", "http://h:x"])
def test_an_address_that_is_none(url: str) -> None:
    assert "http://127.0.0.1:8000" in refusal(2, "chat", url, "--prompt", "Hi")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--split", "9"), "8 blocks"),
        (("--variant", "int8"), "int8"),
        (("--prompt", " "), "empty"),
        (("--stop", ""), "--stop"),
        (("--prompt", "word " * 4000), "shorten it"),
    ],
)
def test_a_chat_that_cannot_be(server: ServerProcess, cache: Path, options: tuple[str, ...], told: str) -> None:
    prompt = () if "--prompt" in options else ("--prompt", "Hi")
    result = run_cli("chat", server.url, "--cache", str(cache), "--json", *prompt, *options)
    assert result.returncode in (2, 3)
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--split", "x"),
        ("--temperature", "nan"),
        ("--top-p", "0"),
        ("--max-tokens", "0"),
        ("--seed", "-1"),
        ("--wire", "f8"),
    ],
)
def test_flags_with_impossible_values(options: tuple[str, ...]) -> None:
    result = run_cli("chat", "http://127.0.0.1:9", *options)
    assert result.returncode == 2
    assert options[0] in result.stderr


def test_a_file_of_keys_that_is_none_is_named_with_the_way_out(tmp_path: Path, told: Callable[..., str]) -> None:
    (tmp_path / "keys").write_bytes(b"\xff")
    for path, cause in ((tmp_path, "Is a directory"), (tmp_path / "keys", "it is not UTF-8 text")):
        assert f"cannot be read ({cause}); make it with `splitllm key" in told(2, "key", "ada", "--file", str(path))


@pytest.mark.parametrize("content", [None, b"\xff", b"two words"])
def test_a_file_without_a_key_is_named_with_the_way_out(
    tmp_path: Path, content: bytes | None, told: Callable[..., str]
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    line = told(2, "chat", "http://127.0.0.1:9", "--prompt", "Hi", "--key-file", str(file))
    assert "that holds the key alone" in line
    assert not any(word in line for word in ("Errno", "codec"))


def test_a_cache_that_is_no_folder_is_named(server: ServerProcess, tmp_path: Path, told: Callable[..., str]) -> None:
    (tmp_path / "file").touch()
    chat = ("chat", server.url, "--prompt", "Hi", "--json", "--cache", str(tmp_path / "file"))
    assert "another folder with --cache" in told(1, *chat)


def test_chat_prints_one_object_per_turn(server: ServerProcess, cache: Path) -> None:
    result = run_cli(
        "chat", server.url, "--cache", str(cache), "--json", "--split", "2", "--max-tokens", "8",
        "--prompt", "Hello!", "--prompt", "What is the capital of Japan?",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    turns = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(turns) == 2
    for turn in turns:
        assert {
            "text",
            "split",
            "blocks",
            "ttft_ms",
            "tpot_ms",
            "server_blocks_run",
            "server_blocks_saved",
            "tokens",
        } <= set(turn)
        assert (turn["split"], turn["blocks"]) == (2, 8)


def test_chat_reads_questions_from_a_pipe(server: ServerProcess, cache: Path) -> None:
    result = run_cli("chat", server.url, "--cache", str(cache), "--max-tokens", "4", stdin="Hello!\n\nHi again\n")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("blocks here") == 2


def test_a_damaged_file_in_the_cache_is_fetched_again(server: ServerProcess, tmp_path: Path) -> None:
    ask = (
        "chat",
        server.url,
        "--cache",
        str(tmp_path),
        "--json",
        "--split",
        "1",
        "--max-tokens",
        "2",
        "--prompt",
        "Hi",
    )
    assert run_cli(*ask).returncode == 0
    [weights] = tmp_path.rglob("block.0.float32.bin")
    whole = weights.read_bytes()
    weights.write_bytes(b"\x00" * len(whole))
    assert run_cli(*ask).returncode == 0
    assert weights.read_bytes() == whole


def test_a_server_stops_cleanly_when_told(bundle: Bundle) -> None:
    with running_server(bundle.folder) as process:
        assert process.stop() == 0


@pytest.mark.parametrize("command", [(), ("demo",), ("export",), ("verify",), ("serve",), ("plan",), ("chat",)])
def test_help_teaches(command: tuple[str, ...]) -> None:
    result = run_cli(*command, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: splitllm")


@pytest.mark.parametrize("command", [*COMMANDS, *(f"bench {what}" for what in BENCHMARKS)])
def test_help_fits_a_terminal_and_says_what_each_option_is(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if len(line) > 80 and not line.startswith((" ", "{"))] == []
    assert "  default: " not in text, "a default of what?"
