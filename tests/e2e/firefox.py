"""The system's Firefox, driven by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/): Playwright's own Firefox is a
patched one that no distribution has, and it speaks more of BiDi than the extended support release knows."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from websockets.exceptions import InvalidHandshake
from websockets.sync.client import ClientConnection, connect

NAMES: Final = ("firefox-esr", "firefox")
START_TIMEOUT_S: Final = 60.0
CALL_TIMEOUT_S: Final = 180.0
#: WebGPU is behind a preference on Linux, and software adapters are blocked; nothing is fetched from elsewhere.
PREFERENCES: Final = {
    "dom.webgpu.enabled": True,
    "gfx.webgpu.force-enabled": True,
    "gfx.webgpu.ignore-blocklist": True,
    "app.normandy.enabled": False,
    "app.update.auto": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


def firefox() -> str | None:
    """Path of the system's Firefox, or None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


class FirefoxError(Exception):
    """Firefox refused a command, or a script of the page threw."""


class FirefoxPage:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._send("session.new", capabilities={})
        self._context = self._send("browsingContext.getTree")["contexts"][0]["context"]

    def goto(self, url: str) -> None:
        """Open a page; returns when it has loaded."""
        self._send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """What an expression, or the promise that it is, comes to; anything JSON can say. Throws `FirefoxError`."""
        told = self._send(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        if told["type"] != "success":
            raise FirefoxError(told["exceptionDetails"]["text"])
        return json.loads(told["result"].get("value", "null"))

    def type(self, text: str) -> None:
        """Keys, one after the other, to what has the focus."""
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": keys}]
        self._send("input.performActions", context=self._context, actions=actions)

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message: dict[str, Any] = json.loads(self._connection.recv(timeout=CALL_TIMEOUT_S))
            if message.get("id") != number:
                continue
            if message["type"] == "error":
                raise FirefoxError(f"{method}: {message['error']}: {message['message']}")
            result: dict[str, Any] = message["result"]
            return result


@contextmanager
def firefox_page(program: str, profile: Path) -> Iterator[FirefoxPage]:
    """A headless Firefox with a profile of its own in an empty folder."""
    profile.mkdir()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines), "utf-8")
    log = profile / "stderr.txt"
    command = [program, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        with _connected(process, log) as connection:
            yield FirefoxPage(connection)
    finally:
        process.terminate()
        process.wait(20)


def _connected(process: subprocess.Popen[bytes], log: Path) -> ClientConnection:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"WebDriver BiDi listening on (ws://\S+)", log.read_text("utf-8", "replace"))
        if found:
            try:
                return connect(f"{found[1]}/session", max_size=None, compression=None)
            except (OSError, InvalidHandshake):
                pass  # it says so a little before it listens
        time.sleep(0.1)
    raise FirefoxError(f"Firefox did not start: {log.read_text('utf-8', 'replace')[-500:]}")
