"""A real Chromium without a window, for tests of pages. They are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const over = (color, below) => {  // any CSS colour, laid over an opaque one, as sRGB bytes
    canvas.fillStyle = `rgb(${below.join(" ")})`;
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const light = (color) => {
    const [r, g, b] = color.map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const chain = [];
    for (let at = node; at; at = at.parentElement) chain.unshift(getComputedStyle(at));
    return chain.reduce((below, style) => over(style.backgroundColor, below), [255, 255, 255]);
  };
  const found = [];
  const seen = (node, color, what) => {
    const ground = behind(node);
    const [a, b] = [light(over(color, ground)), light(ground)].sort((x, y) => y - x);
    found.push([Math.round(100 * (a + 0.05) / (b + 0.05)) / 100, what]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const parent = node.parentElement;
    const shown = parent.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    if (node.data.trim() && shown && !parent.closest(".sr, option, script, noscript")) {
      seen(parent, getComputedStyle(parent).color, node.data.trim().slice(0, 40));
    }
  }
  for (const box of document.querySelectorAll("textarea, input, select")) {
    if (!box.checkVisibility({ visibilityProperty: true })) continue;
    seen(box, getComputedStyle(box).color, `text of #${box.id}`);
    seen(box, getComputedStyle(box, "::placeholder").color, `placeholder of #${box.id}`);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""
"""[WCAG 2.2 contrast ratio, what] of all text that is shown, the worst first."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of this machine; none is ever downloaded."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def contrasts(page: Any) -> list[tuple[float, str]]:
    """See CONTRASTS."""
    return [(ratio, what) for ratio, what in page.evaluate(CONTRASTS)]
