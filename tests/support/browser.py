"""A page of demo.py in a headless Chromium, and the server of its files.

    python tests/support/browser.py site picture.png

takes a picture of the page. `--state off=3` sets what is deleted, `--size
390x844` is a telephone, `--dark` and `--whole` (from top to bottom) are others.
The README's picture is of

    python training/demo.py weights/dmrnet_8_digits --out site
    python tests/support/browser.py site training/page/screenshot.png \\
        --state off=2.1
"""

import argparse
import contextlib
import functools
import http.server
import importlib.util
import shutil
import threading

import pytest

PICTURED = "off=2.1"  # in the README
CHROMIUM = shutil.which("chromium")
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
ISOLATED = {  # from other origins, which lets WebAssembly have threads
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


def require():
    """Skips a test where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("no playwright")


class Handler(http.server.SimpleHTTPRequestHandler):
    headers_sent = {}

    def end_headers(self):
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments):
        """Keeps the output quiet."""


@contextlib.contextmanager
def served(folder, headers=None):
    """Serves a folder on the loopback; gives its address.

    Args:
        headers: Dict. Headers of all answers. Defaults to `None`.
    """
    kind = type("Handler", (Handler,), {"headers_sent": headers or {}})
    handler = functools.partial(kind, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


@contextlib.contextmanager
def launched(*arguments):
    """A browser.

    Args:
        arguments: Of Chromium's command line.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield launch(playwright.chromium, *arguments)


def launch(browser_type, *arguments):
    return browser_type.launch(
        executable_path=CHROMIUM,
        args=["--no-sandbox", *arguments],  # for root, as in containers
    )


@contextlib.contextmanager
def opened(**options):
    """A page of a browser of its own.

    Args:
        options: Of Playwright's `new_page`.
    """
    with launched() as browser:
        yield browser.new_page(**options)
        browser.close()


def ready(page):
    """Waits until what is shown is of what is chosen."""
    page.wait_for_selector(
        "body:is([data-state=ready], [data-state=failed])", timeout=120_000
    )
    failure = page.inner_text("#failure")
    if failure:
        raise AssertionError(failure)


def error(page):
    """The error that the page shows, in percent."""
    ready(page)
    return float(page.inner_text("#error").removesuffix(" %"))


def go_to(page, state):
    """Changes what is behind the # of the address."""
    page.evaluate(
        """state => new Promise((resolve) => {
            if (location.hash === state) resolve();
            addEventListener("hashchange", resolve, { once: true });
            location.hash = state;
        })""",
        f"#{state}",
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("site")
    parser.add_argument("picture")
    parser.add_argument("--state", default="")
    parser.add_argument("--size", default="1280x1160")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    view = {
        "viewport": {"width": width, "height": height},
        "color_scheme": "dark" if options.dark else "light",
    }
    with served(options.site) as address, opened(**view) as page:
        page.goto(f"{address}#{options.state}")
        ready(page)
        # The time is of this machine.
        page.locator("#runtime").evaluate("line => (line.hidden = true)")
        page.screenshot(path=options.picture, full_page=options.whole)


if __name__ == "__main__":
    main()
