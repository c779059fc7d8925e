"""A real browser, Debian's chromium, in front of a real server in this process."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

from accord.feedback.store import start_session

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDED = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (Debian: apt-get install chromium)")


@contextmanager
def serving(app):
    """The address of a server that lives as long as the block."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@contextmanager
def launched():
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Desk:
    """Someone at a browser: `page` is the one they look at; what the console complains of is kept in `complaints`."""

    def __init__(self, browser, base: str, place, user_id: str, **options):
        self.base, self.place = base, place
        self.context = browser.new_context(base_url=base, **options)
        token, _ = place.store.run(start_session, user_id=user_id, now=place.now)
        self.context.add_cookies([{"name": "session", "value": token, "url": base, "httpOnly": True}])
        self.complaints: list[str] = []
        self.page = self.tab()

    def tab(self):
        page = self.context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        return page

    def open_task(self):
        self.page.goto(self.place.task_page)
        return self.page

    def submitted(self):
        """Wait for the page after a submission."""
        self.page.wait_for_url("**done=submitted**")

    def letters(self) -> dict[str, str]:
        """Text of a response -> its letter."""
        cards = self.page.query_selector_all(".response")
        return {card.query_selector(".text").inner_text().strip(): card.get_attribute("data-letter") for card in cards}
