"""How soon a gallery opens in a browser, and how smoothly it scrolls.

python scripts/gallery_opening.py RUN/gallery.html [--repeats 5]

Needs `pip install playwright` and a chromium on the PATH.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

# Frames until the end of the page, 400 pixels each, and the time that each took.
SCROLL = """() => new Promise(done => {
  const times = []; let before = performance.now();
  const frame = now => {
    times.push(now - before); before = now;
    const last = scrollY; scrollBy({top: 400, behavior: 'instant'});
    scrollY > last ? requestAnimationFrame(frame) : done(times.slice(1));
  };
  requestAnimationFrame(frame);
})"""
PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        parser.exit(2, "needs chromium: install it, or put it on the PATH\n")
    if not given.page.is_file():
        parser.exit(2, f"{given.page} is no page: give the HTML file of `evojax-art gallery`\n")
    if given.repeats < 1:
        parser.exit(2, f"--repeats must be 1 or more, got {given.repeats}\n")
    seconds, frames = [], []
    with sync_playwright() as started:
        for _ in range(given.repeats):  # a browser each, so that nothing is left in memory
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            began = time.perf_counter()
            page.goto(given.page.resolve().as_uri())  # returns after the page's "load"
            page.evaluate(PAINTED)
            seconds.append(time.perf_counter() - began)
            if not page.query_selector("#count"):
                parser.exit(2, f"{given.page} is no page of `evojax-art gallery`\n")
            count = page.inner_text("#count")
            frames += page.evaluate(SCROLL)
            browser.close()
    megabytes = given.page.stat().st_size / 1e6
    print(
        f"{count}, {megabytes:.1f} MB: opens in {np.median(seconds):.2f} s (median of "
        f"{given.repeats}, longest {max(seconds):.2f})"
    )
    if frames:  # else it fits on a screen
        print(
            f"scrolling, a frame takes {np.median(frames):.0f} ms, 99 of 100 less than "
            f"{np.percentile(frames, 99):.0f}"
        )


if __name__ == "__main__":
    main()
