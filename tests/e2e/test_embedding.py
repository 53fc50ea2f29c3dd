"""The engine in a page of another origin: the example, as it stands in the repository."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from splitllm.bundle import Bundle
from splitllm.cli.main import main
from splitllm.protocol import PROTOCOL_VERSION
from splitllm.resources import demo_bundle, page_folder
from tests.support import running_server

from .chats import ROOT
from .far import BYTE_S, far
from .sites import served

pytestmark = pytest.mark.browser
EXAMPLE = (ROOT / "web_client/examples/embedding.html").read_text("utf-8")
#: The server that the example names, and how it creates its engine.
NAMED, CREATED = "http://127.0.0.1:8000", "createEngine()"
#: What the documentation calls the module.
ADDRESS = "https://llm.example.org/engine/v1.js"
#: What lets wasm have threads.
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
LOAD_TIMEOUT_MS = 120_000


@contextmanager
def site(page_of: Callable[[], str], headers: dict[str, str] | None = None) -> Iterator[str]:
    """Another web site of one page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = page_of().encode() if self.path == "/" else b""
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as address:
        yield address


@pytest.mark.parametrize(
    ("backend", "headers", "guarded"),
    [("webgpu", {}, False), ("wasm", ISOLATED, True)],
    ids=["webgpu", "wasm, isolated, with an API key and a trusted key"],
)
def test_a_page_of_an_allowed_origin_runs_blocks_and_gets_answers(
    page: Page, backend: str, headers: dict[str, str], guarded: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    urls: list[str] = []
    folder, options, choices = demo_bundle(), [], {"split": 2, "backend": backend}
    if guarded:
        folder = Path(shutil.copytree(folder, tmp_path / "bundle"))
        assert main(["sign", str(folder), "--key", str(tmp_path / "release"), "--new", "--json"]) == 0
        choices["trustedKey"] = json.loads(capsys.readouterr().out)["trusted_key"]
        assert main(["key", "site", "--file", str(tmp_path / "keys"), "--json"]) == 0
        choices["apiKey"] = json.loads(capsys.readouterr().out)["key"]
        options = ["--api-key-file", str(tmp_path / "keys"), "--trusted-key", str(tmp_path / "release.pub")]
    embedded = f"createEngine(undefined, {json.dumps(choices)})"
    with (
        site(lambda: EXAMPLE.replace(NAMED, urls[0]).replace(CREATED, embedded), headers) as other,
        running_server(folder, "--allowed-origin", other, *options) as server,
    ):
        urls.append(server.url)
        page.goto(other)
        expect(page.get_by_text("2 of 8 blocks run in your browser.")).to_be_visible(timeout=LOAD_TIMEOUT_MS)
        question, answer = page.get_by_role("textbox", name="Question"), page.locator("#answer")
        question.fill("What is the capital of Japan?")
        page.get_by_role("button", name="Ask").click()
        expect(answer).to_have_text("The capital of Japan is Tokyo.", timeout=LOAD_TIMEOUT_MS)
        assert page.evaluate("crossOriginIsolated") is (headers == ISOLATED)
        assert errors == []
        assert str(choices.get("apiKey")) not in "".join(server.output)
        page.close()


def test_a_page_of_an_origin_that_is_not_allowed_gets_nothing(page: Page) -> None:
    with running_server(demo_bundle()) as server, site(lambda: EXAMPLE.replace(NAMED, server.url)) as other:
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/engine/v1.js")):
            page.goto(other)
        expect(page.get_by_text("Connecting…")).to_be_visible()
        page.close()


def test_an_answer_is_stopped_on_the_server_too_and_what_is_no_server_is_told(page: Page, endless: Bundle) -> None:
    """The module as others use it, in a page of its own server: what the example does not show."""
    with running_server(endless.folder) as talker, far(talker.url) as (proxy, url):
        page.goto(f"{url}/health")
        page.evaluate(
            """async () => {
              window.library = await import('/engine/v1.js');
              window.engine = library.createEngine(location.href, { backend: 'none' });
              await engine.answer('Hello!', { maxTokens: 4 }).result;
            }"""
        )
        proxy.byte_s = BYTE_S  # the answer still comes when it is stopped
        told = page.evaluate(
            """async () => {
              const { createEngine, SplitLLMError, ...others } = library;
              const answer = engine.answer([{ role: 'user', content: 'Tell me a story.' }], { maxTokens: 900 });
              let read = '';
              for await (const text of answer) if ((read += text).length > 20) break;
              const { finishReason, text } = await answer.result;
              engine.close();
              const closed = await engine.answer('Hello?').result.catch((error) => error.code);
              let refused = null;
              try {
                createEngine('no server');
              } catch (error) {
                refused = [error instanceof SplitLLMError, error.code];
              }
              return { finishReason, begins: text.startsWith(read), closed, refused, others };
            }"""
        )
        assert told == {
            "finishReason": "cancelled",
            "begins": True,
            "closed": "closed",
            "refused": [True, "server_address"],
            "others": {"PROTOCOL_VERSION": PROTOCOL_VERSION},
        }
        page.close()


def test_the_types_are_those_of_the_module_and_fit_what_the_documentation_shows(tmp_path: Path) -> None:
    declared = (page_folder() / "engine/v1.d.ts").read_text("utf-8")
    values = re.findall(r"^export declare (?:function|const|class) (\w+)", declared, re.MULTILINE)
    assert sorted(values) == ["PROTOCOL_VERSION", "SplitLLMError", "createEngine"]
    shown = re.findall(r"```ts\n(.*?)```", (ROOT / "docs/embedding.md").read_text("utf-8"), re.DOTALL)
    assert shown
    (tmp_path / "engine.d.ts").write_text(declared, "utf-8")
    for number, code in enumerate(shown):
        (tmp_path / f"shown{number}.ts").write_text(code.replace(ADDRESS, "./engine"), "utf-8")
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    compiler = ROOT / "web_client/node_modules/.bin/tsc"
    files = [path.name for path in tmp_path.glob("*.ts")]
    done = subprocess.run([compiler, *options, *files], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
