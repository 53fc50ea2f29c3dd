"""The main states of the page in four views, desktop and phone, light and dark: looked at by rules, and pictured.

`make pictures` writes the pictures of docs/screens.md; an ordinary run takes the same to a temporary folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Page

ROOT: Final = Path(__file__).parents[2]
AXE: Final = (ROOT / "web_client/node_modules/axe-core/axe.min.js").read_text("utf-8")
SCHEMES: Final[tuple[Any, ...]] = ("light", "dark")
DESKTOP: Final = (1280, 800)
PHONE: Final = (390, 844)
#: Text that does not show whole, though nothing is left to scroll; titles in the list of chats end in an ellipsis.
CUT: Final = """() => {
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (node.data.trim() === '' || parent.closest('pre, .table-box, .chat-open, select, noscript')) continue;
    if (!parent.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true })) continue;
    range.selectNodeContents(node);
    for (const text of range.getClientRects()) {
      if (text.width === 0) continue;
      let sideways = text.left < -1 || text.right > innerWidth + 1;
      let scrolls = false;
      for (let box = parent; box !== null; box = box.parentElement) {
        const { overflowX, overflowY, clipPath } = getComputedStyle(box);
        if (clipPath !== 'none') break;  // said to screen readers alone
        const edge = box.getBoundingClientRect();
        if (overflowX !== 'visible') sideways ||= text.left < edge.left - 1 || text.right > edge.right + 1;
        scrolls ||= overflowY === 'auto' || overflowY === 'scroll';
        const below = overflowY !== 'visible' && !scrolls && (text.top < edge.top - 1 || text.bottom > edge.bottom + 1);
        if (sideways || below) found.add(`${parent.className || parent.tagName}: ${node.data.trim().slice(0, 60)}`);
        if (sideways || below || box.matches(':popover-open, dialog')) break;
      }
    }
  }
  return [...found];
}"""


def violations(page: Page) -> list[str]:
    """What axe objects to, as the page is shown."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [f"{rule['id']}: {json.dumps(node['target'])}" for rule in result["violations"] for node in rule["nodes"]]


def violations_by_scheme(page: Page) -> list[str]:
    """What axe objects to in both colour schemes."""
    found = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found += [f"{scheme}: {violation}" for violation in violations(page)]
    return found


class Screens:
    """Looks at a state of the page and pictures it, `<name>-<device>-<scheme>.png` in a folder.

    Once a page was a phone, Chromium gives it no mouse again before the next load: desktops come first.
    """

    def __init__(self, folder: Path, to_keep: bool = False) -> None:
        self.folder, self.to_keep = folder, to_keep

    def __call__(self, page: Page, name: str) -> None:
        """On both devices."""
        self.on_desktop(page, name)
        self.on_phone(page, name)

    def on_desktop(self, page: Page, name: str) -> None:
        assert page.evaluate("matchMedia('(hover: hover) and (pointer: fine)').matches")
        self._look(page, f"{name}-desktop", DESKTOP)

    def on_phone(self, page: Page, name: str, arrange: Callable[[], object] = lambda: None) -> None:
        """`arrange` brings what a phone hides to light. The page is left as large as a desktop."""
        cdp = page.context.new_cdp_session(page)
        cdp.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
        page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        assert page.evaluate("matchMedia('(hover: none) and (pointer: coarse)').matches")
        arrange()
        self._look(page, f"{name}-phone", PHONE)
        cdp.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
        cdp.detach()
        page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})

    def _look(self, page: Page, name: str, size: tuple[int, int]) -> None:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            if size == DESKTOP or scheme == SCHEMES[-1]:  # a phone has the same colours
                assert violations(page) == [], f"{name}, {scheme}"
            file = self.folder / f"{name}-{scheme}.png"
            page.screenshot(animations="disabled", path=file)
            if self.to_keep:  # 256 colours are all that the page has, but for the edges of its letters
                Image.open(file).convert("RGB").quantize(256).save(file, optimize=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], f"{name} scrolls sideways"
        assert page.evaluate(CUT) == [], f"{name} cuts text"
