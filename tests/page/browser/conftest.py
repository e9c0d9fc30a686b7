"""The real page in a real browser: a server on copies of a trained run, and windows that fail on errors they say.

All tests share one server, whose process for jobs takes seconds to start. The browser is opened anew for each file, as
its driver keeps an event loop, within which tests of other folders could not run theirs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import ROOT, alone

CHROMIUM = "/usr/bin/chromium"
# How long anything may take to appear, in milliseconds: a worker starts within a machine that runs other tests.
PATIENCE_MS = 90_000
expect.set_options(timeout=PATIENCE_MS)


def executable() -> str:
    """Returns the browser: that which CHROMIUM names, or that of the system. Fails where there is none."""
    path = os.environ.get("CHROMIUM") or CHROMIUM
    if not Path(path).is_file():
        pytest.fail(f"{path}: no browser; apt-get install chromium, or set CHROMIUM to the path of one", pytrace=False)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def runs(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two finished runs, one and two, the second of which was told to learn at another rate.

    Tests may add runs to it, which they remove.
    """
    folder = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        shutil.copytree(trained, folder / name)
    path = folder / "two" / "config.json"
    tree = json.loads(path.read_text())
    tree["training"]["lr"] = 0.125
    path.write_text(json.dumps(tree))
    return folder


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serves the page of a folder of runs by the command, and yields its address, which ends with a slash."""
    command = [sys.executable, "-m", "diffusion", "page", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=alone()) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), address
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def site(runs: Path) -> Iterator[str]:
    """The address of the page that shows the two runs."""
    with serving(runs) as address:
        yield address


Opening = Callable[..., Page]


@pytest.fixture
def window(browser: Browser, site: str) -> Iterator[Opening]:
    """Opens windows of their own, at #ADDRESS; the test fails if one says an error or asks anything outside."""
    said: list[str] = []
    contexts = []

    def opened(
        at: str = "/", *, width: int = 1280, colors: str = "light", ratio: float = 1, touch: bool = False
    ) -> Page:
        scheme = "dark" if colors == "dark" else "light"
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, device_scale_factor=ratio, has_touch=touch
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if inside(request.url, site) else said.append(request.url))
        page.goto(f"{site}#{at}")
        page.locator("main h1").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def inside(url: str, site: str) -> bool:
    """Whether an address is the page's own, or of something within a window."""
    return url.startswith((site, "data:", f"blob:{site}"))
