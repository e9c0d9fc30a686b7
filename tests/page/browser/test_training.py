"""A training of digits, as the page shows it and asks things of it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from diffusion.reporting.run_folder import RunFolder
from tests.conftest import ROOT, alone, finish
from tests.forkserver import Forked, launch
from tests.page.browser.conftest import Opening

NEVER = 10**6
SMALL = (
    *("backbone.channels=[8,16]", "backbone.attention=[]", f"training.steps={NEVER}", "training.batch=8"),
    *(f"report.samples={NEVER}", f"report.checkpoint={NEVER}", "report.log=1", "report.evaluate=10"),
    *("report.images=8", "report.draws=2", "report.pictures=4", "report.restored=1", "sampling.steps=4"),
)


@pytest.fixture
def training(runs: Path, tmp_path: Path) -> Iterator[Forked]:
    """A training that would not end, in the run called live."""
    out, data = f"--out={runs / 'live'}", f"data.path={tmp_path / 'digits'}"
    begun = launch(["train.py", "configs/digits.toml", out, data, *SMALL], folder=ROOT, env=alone())
    yield begun
    if begun.poll() is None:
        begun.terminate()
        finish(begun)
    shutil.rmtree(runs / "live")


def validations(run: RunFolder) -> int:
    return sum(any(key.startswith("held_out/") for key in row) for row in run.rows)


def test_a_grid_is_drawn_and_the_training_stops_when_it_is_asked(runs: Path, training: Forked, window: Opening) -> None:
    page, run = window(), RunFolder(runs / "live")
    page.get_by_role("link", name="live", exact=True).click()
    expect(page.locator("main h1")).to_contain_text("training")
    expect(page.locator("dl.facts")).to_contain_text("bits/dim")
    drawn, at = run.grids, run.rows[-1]["step"]
    asked(page, "Sample now", "The grid of this step")
    slider = page.get_by_role("slider", name="Samples by step")
    expect(slider).to_have_attribute("max", str(len(drawn)))
    assert at <= run.grids[-1] < NEVER and page.locator(".scrubber-stage img").evaluate("image => image.complete")
    asked(page, "Stop after saving", "The training saves")
    before = validations(run)
    expect(page.locator("main h1")).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Stop after saving")).to_have_count(0)
    code, out, _ = finish(training)
    assert code == 128 + signal.SIGTERM and "as a page asked" in out
    assert validations(run) - before <= 1, "one may have begun before it was asked"
    assert run.checkpoints[-1] == run.rows[-1]["step"] and run.state == "stopped"
    page.close()


def asked(page: Page, button: str, said: str) -> None:
    """Asks something of the training, and waits until the page says that it did."""
    page.get_by_role("button", name=button).click()
    expect(page.locator("main [role=status]").first).to_contain_text(f"Asked for. {said}")
