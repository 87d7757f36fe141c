"""A page in a headless Chromium, and the server that it comes from.

    python tests/support/browser.py site picture.png [#off=3]

takes a picture of a page that demo.py has written.
"""

import contextlib
import functools
import http.server
import shutil
import sys
import threading

CHROMIUM = shutil.which("chromium")


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Keeps the output quiet."""


@contextlib.contextmanager
def served(folder):
    """Serves a folder on the loopback; gives its address."""
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


@contextlib.contextmanager
def opened(**options):
    """A page of a browser.

    Args:
        options: Of Playwright's `new_page`.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox"],  # for root, as in containers
        )
        yield browser.new_page(**options)
        browser.close()


def ready(page):
    """Waits until what is shown is of what is chosen."""
    page.wait_for_selector("body[data-state=ready]", timeout=60_000)


def main(site, picture, state=""):
    size = {"width": 1280, "height": 1160}
    with served(site) as address, opened(viewport=size) as page:
        page.goto(address + state)
        ready(page)
        page.screenshot(path=picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
