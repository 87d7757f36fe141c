"""How long a page takes: until it is seen, until it is ready, and a click.

    python tests/support/time_page.py site

It prints seconds of the clock, and of all of Chromium's processor time, which
does not depend on what else the machine does.
"""

import contextlib
import os
import pathlib
import statistics
import sys
import time

import browser


def processor_seconds():
    """What this process's children have used, theirs included."""
    parents, used = {}, {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, rest = path.read_text().split(" (", 1)
            fields = rest.rpartition(") ")[2].split()
            parents[int(pid)] = int(fields[1])
            used[int(pid)] = int(fields[11]) + int(fields[12])

    def is_ours(pid):
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    others = (pid for pid in used if pid != os.getpid() and is_ours(pid))
    return sum(used[pid] for pid in others) / os.sysconf("SC_CLK_TCK")


class Watch:
    def __enter__(self):
        self.begun = time.perf_counter(), processor_seconds()
        return self

    def __exit__(self, *_):
        self.clock = time.perf_counter() - self.begun[0]
        self.processor = processor_seconds() - self.begun[1]

    def __str__(self):
        return f"{self.clock:6.2f} s, {self.processor:6.2f} s of processor"


def main(site):
    with browser.served(site) as address, browser.opened() as page:
        with Watch() as seen:
            page.goto(address)
            page.wait_for_selector(".box")
        with Watch() as ready:
            browser.ready(page)
        print(f"first view: {seen}\nready after: {ready}")
        boxes = page.locator(".box")
        places = [*range(0, boxes.count(), max(1, boxes.count() // 9))]
        clicks = []
        for place in places:
            with Watch() as click:
                boxes.nth(place).click()
                browser.ready(page)
            print(f"box {place + 1:3}: {click}  {page.inner_text('#runtime')}")
            clicks.append(click)
            page.click("#restore")
            browser.ready(page)
        for name in ("clock", "processor"):
            median = statistics.median(getattr(x, name) for x in clicks)
            print(f"median click: {median:.2f} s ({name})")


if __name__ == "__main__":
    main(*sys.argv[1:])
