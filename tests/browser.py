"""Opens pages in a real Chromium, headless, and tells what went wrong in them."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def chromium():
    """Returns where Chromium is; without one the test is skipped, with LA_TF_CHROMIUM set it fails."""
    named = os.environ.get("LA_TF_CHROMIUM")
    found = named or shutil.which("chromium") or shutil.which("chromium-browser")
    if named is not None and not (named and Path(named).exists()):
        pytest.fail(f"LA_TF_CHROMIUM={named}: there is no browser there")
    if not found:
        pytest.skip("there is no Chromium: apt-get install chromium, or name one by LA_TF_CHROMIUM")
    return found


@contextlib.contextmanager
def opened(path, width, height=900):
    """Yields the page at `path` as Playwright's Page, `width` px wide; afterwards fails for any error in it.

    Errors on the console and uncaught ones, dialogs, and requests for anything that is not on disk or in the page.
    """
    executable = chromium()
    if not os.environ.get("LA_TF_CHROMIUM"):
        pytest.importorskip("playwright", reason="playwright is not installed: requirements-dev.txt names it")
    from playwright.sync_api import sync_playwright

    wrong = []

    def dialog(box):
        wrong.append(f"dialog: {box.message}")
        box.dismiss()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*FLAGS])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: message.type == "error" and wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", dialog)
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or wrong.append(request.url))
        page.goto(Path(path).resolve().as_uri())
        yield page
        browser.close()
    assert wrong == []
