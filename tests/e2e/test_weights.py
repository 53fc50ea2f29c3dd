"""Weights are downloaded once: kept, resumed, shared by tabs, and removed when a person wants that."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, Request, expect

from splitllm.bundle import Bundle
from tests.integration.test_reality import Proxy
from tests.support import ServerProcess, running_server

from .conftest import QUIET, ChatPage, chromium
from .far import far
from .screens import Screens

pytestmark = pytest.mark.browser
QUESTION = "What is the capital of Japan?"
WASM = "backend=wasm&variant=float32"
#: Names and sizes of what the page keeps.
KEPT = """async () => {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle('splitllm-weights', { create: true });
  const files = {};
  for await (const [name, handle] of folder.entries()) {
    const file = await handle.getFile().catch(() => null);  // it may get its name just now
    if (file !== null) files[name] = file.size;
  }
  return files;
}"""
DAMAGE = """async (name) => {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle('splitllm-weights');
  const writable = await (await folder.getFileHandle(name)).createWritable({ keepExistingData: true });
  await writable.write({ type: 'write', position: 100, data: new Uint8Array([1, 2, 3]) });
  await writable.close();
}"""


class Downloads:
    """What a page, or all pages of a context, asked of the bundle: file names with the range that was asked for."""

    def __init__(self, page: Page) -> None:
        self.asked: list[tuple[str, str | None]] = []
        page.context.on("request", self._note)

    def _note(self, request: Request) -> None:
        _, found, name = request.url.partition("/bundle/")
        if found and name != "manifest.json":
            self.asked.append((name, request.headers.get("range")))

    @property
    def weights(self) -> list[str]:
        return [name for name, _ in self.asked if re.match(r"block\..*\.bin$", name)]


def visit(page: Page, url: str) -> None:
    """A new visit, with a new chat: what is kept is all that is left of the one before."""
    page.goto("about:blank")
    page.goto(url)


def hash_of(page: Page, name: str) -> str:
    manifest = page.evaluate("fetch('/bundle/manifest.json').then((response) => response.json())")
    return str(manifest["files"][name]["sha256"])


def runs_here(chat: ChatPage, split: int) -> None:
    """The answer is right, and `split` blocks in the browser had their part in it."""
    assert "Tokyo" in chat.ask(QUESTION)
    told = chat.diagnostics()
    assert told["split"] == split
    assert min(told["blockRuns"][:split]) > 0
    assert chat.errors == []


def test_a_second_visit_downloads_no_byte_of_the_model(page: Page, server: ServerProcess) -> None:
    chat, downloads = ChatPage(page), Downloads(page)
    visit(page, f"{server.url}/?{WASM}&split=3")
    runs_here(chat, 3)
    assert downloads.weights == [f"block.{index}.float32.bin" for index in range(3)]
    downloads.asked.clear()
    for split in (3, 2):
        visit(page, f"{server.url}/?{WASM}&split={split}")
        runs_here(chat, split)
    assert downloads.asked == []


def test_a_damaged_file_in_the_store_is_noticed_and_fetched_again(page: Page, server: ServerProcess) -> None:
    chat, downloads = ChatPage(page), Downloads(page)
    url = f"{server.url}/?{WASM}&split=2"
    visit(page, url)
    runs_here(chat, 2)
    page.evaluate(DAMAGE, hash_of(page, "block.1.float32.bin"))
    downloads.asked.clear()
    visit(page, url)
    runs_here(chat, 2)
    assert downloads.asked == [("block.1.float32.bin", None)]


class Stalling(Proxy):
    """Forwards HTTP, and of one file only so many bytes while `stalls` is true."""

    FILE, BYTES = b"GET /bundle/block.1.float32.bin", 300_000
    stalls = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        left: int | None = None

        async def up() -> None:
            nonlocal left
            while piece := await reader.read(1 << 16):
                left = self.BYTES if self.stalls and self.FILE in piece else None
                up_writer.write(piece)
            up_writer.close()

        async def down() -> None:
            nonlocal left
            while piece := await up_reader.read(1 << 14):
                if left is not None:
                    piece, left = piece[:left], max(0, left - len(piece))
                writer.write(piece)
                await writer.drain()
            writer.close()

        with contextlib.suppress(ConnectionError, asyncio.CancelledError):  # the test ends with connections open
            await asyncio.gather(up(), down())


def test_a_download_goes_on_by_range_after_a_reload(page: Page, server: ServerProcess) -> None:
    chat, downloads = ChatPage(page), Downloads(page)
    with far(server.url, Stalling) as (proxy, url):
        assert isinstance(proxy, Stalling)
        page.goto(f"{url}/?{WASM}&split=2")
        part = f"{hash_of(page, 'block.1.float32.bin')}.part"
        while page.evaluate(KEPT).get(part, 0) < 250_000:
            page.wait_for_timeout(50)
        assert ("block.1.float32.bin", None) in downloads.asked
        downloads.asked.clear()
        proxy.stalls = False
        page.reload()
        runs_here(chat, 2)
        name, asked = downloads.asked[0]
        found = re.fullmatch(r"bytes=(\d+)-\d+", asked or "")
        assert (name, downloads.weights) == ("block.1.float32.bin", [name])
        assert found, asked
        assert 250_000 < int(found[1]) < Stalling.BYTES
        assert not any(name.endswith(".part") for name in page.evaluate(KEPT))


def test_two_tabs_share_what_they_download(page: Page, server: ServerProcess) -> None:
    downloads, tabs = Downloads(page), [ChatPage(page), ChatPage(page.context.new_page())]
    for tab in tabs:
        tab.page.goto(f"{server.url}/?{WASM}&split=4")
    for tab in tabs:
        runs_here(tab, 4)
    assert sorted(downloads.weights) == [f"block.{index}.float32.bin" for index in range(4)]


def test_a_full_storage_is_said_and_the_model_runs_from_memory(page: Page, server: ServerProcess) -> None:
    chat = ChatPage(page)
    cdp = page.context.new_cdp_session(page)
    cdp.send("Storage.overrideQuotaForOrigin", {"origin": server.url, "quotaSize": 2_000_000})
    page.goto(f"{server.url}/?{WASM}&split=4")
    runs_here(chat, 4)
    expect(page.get_by_text("This browser has no room left for the model")).to_have_count(1)
    assert sum(page.evaluate(KEPT).values()) < 2_000_000


def test_what_is_kept_is_shown_and_removed(page: Page, server: ServerProcess) -> None:
    chat, downloads = ChatPage(page), Downloads(page)
    url = f"{server.url}/?{WASM}&split=2"
    visit(page, url)
    runs_here(chat, 2)
    settings = page.get_by_role("button", name="Settings")
    device = page.get_by_role("group", name="The model on this device")
    settings.click()
    expect(device).to_contain_text(re.compile(r"Kept: \d+\.\d MB of this model\. This browser has room for .* more\."))
    device.get_by_role("button", name="Remove it from this device").click()
    expect(device).to_contain_text("Kept: 0 B of this model.")
    assert page.evaluate(KEPT) == {}
    device.get_by_role("checkbox", name="Keep the model on this device").uncheck()
    expect(device).to_contain_text("Nothing of the model is kept on this device.")
    downloads.asked.clear()
    visit(page, url)
    runs_here(chat, 2)
    assert page.evaluate(KEPT) == {}
    assert downloads.weights == ["block.0.float32.bin", "block.1.float32.bin"]


def test_less_data_downloads_nothing_until_it_may(page: Page, server: ServerProcess) -> None:
    chat, downloads = ChatPage(page), Downloads(page)
    page.add_init_script("localStorage.setItem('splitllm.settings', JSON.stringify({ lessData: true }))")
    page.goto(f"{server.url}/?{WASM}")
    expect(page.get_by_text("Download paused")).to_be_visible()
    assert "Tokyo" in chat.ask(QUESTION)
    assert [name for name, _ in downloads.asked if name != "tokenizer.json"] == []
    page.get_by_role("button", name="Resume the download").click()
    expect(page.get_by_text("Ready", exact=True)).to_be_visible(timeout=120_000)
    assert downloads.weights != []


@pytest.fixture
def bulky(bundle: Bundle, tmp_path: Path) -> Bundle:
    """The model with much behind its last block's weights that no graph reads."""
    folder, name = Path(shutil.copytree(bundle.folder, tmp_path / "bulky")), "block.7.float32.bin"
    with (folder / name).open("r+b") as file:
        file.truncate(101_000_000)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    with (folder / name).open("rb") as file:
        manifest["files"][name] |= {"size": 101_000_000, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return Bundle.open(folder)


def test_a_big_download_waits_until_a_person_wants_it(page: Page, bulky: Bundle, screen: Screens) -> None:
    chat, downloads = ChatPage(page), Downloads(page)
    with running_server(bulky.folder) as server:
        page.goto(f"{server.url}/?{WASM}")
        expect(page.get_by_text("Download paused")).to_be_visible()
        expect(page.get_by_text(re.compile("106 MB have to be downloaded, and .* has room for"))).to_be_visible()
        assert "Tokyo" in chat.ask(QUESTION)
        assert downloads.weights == []
        screen(page, "big-download")
        with page.context.expect_event("request", lambda request: "/bundle/block.0." in request.url):
            page.get_by_role("button", name="Download", exact=True).click()
        expect(page.get_by_text("106 MB have to be downloaded")).to_have_count(0)


@pytest.fixture
def browser_without_file_system(playwright: Playwright) -> Iterator[Browser]:
    arguments = [*QUIET, "--disable-blink-features=FileSystemAccessOriginPrivate"]
    browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
    yield browser
    browser.close()


def test_without_a_private_file_system_the_cache_api_keeps_the_model(
    browser_without_file_system: Browser, server: ServerProcess
) -> None:
    page = browser_without_file_system.new_page()
    chat, downloads = ChatPage(page), Downloads(page)
    url = f"{server.url}/?{WASM}&split=2"
    visit(page, url)
    runs_here(chat, 2)
    assert not page.evaluate("'getDirectory' in navigator.storage")
    downloads.asked.clear()
    visit(page, url)
    runs_here(chat, 2)
    assert downloads.asked == []
