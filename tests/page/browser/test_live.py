"""What changes while a window is open: a training, its end, the queue of jobs, and what jobs make."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from diffusion.training import metrics
from tests.page.browser.conftest import Opening

# The button of a result, which shows it at large.
IMAGE = re.compile("^Image [0-9]")
# Holds the lock of a run as a training does, and nothing else, until it is killed.
HOLDING = """
import fcntl, os, socket, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(f"process {os.getpid()} on {socket.gethostname()}")
file.flush()
print("held", flush=True)
time.sleep(60)
"""


def fact(page: Page, name: str) -> str:
    return page.locator("dl.facts > div").filter(has_text=name).locator("dd").inner_text()


def test_a_training_is_shown_as_it_goes_and_when_it_is_killed(runs: Path, window: Opening) -> None:
    run = Path(shutil.copytree(runs / "one", runs / "three"))
    listed, page = window(), window("/run/three")
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(run / ".lock")], stdout=subprocess.PIPE) as training:
        assert training.stdout is not None
        training.stdout.readline()
        expect(page.locator("main h1")).to_contain_text("training")
        expect(page.get_by_role("button", name="Sample now")).to_be_visible()
        expect(listed.locator("[data-run=three]")).to_contain_text("training")
        metrics.append(run / "metrics.jsonl", {"step": 41, "loss": 0.03125, "images_per_s": 8.0, "lr": 0.1})
        shutil.copy(run / "samples" / "step-00000020.png", run / "samples" / "step-00000041.png")
        expect(page.locator("dl.facts")).to_contain_text("0.03125")
        expect(page.locator(".scrubber-stage figcaption")).to_have_text("step 41")
        expect(listed.locator("[data-run=three]")).to_contain_text("0.03125")
        training.kill()
    expect(page.locator("main h1")).to_contain_text("ended abruptly")
    expect(page.get_by_role("button", name="Sample now")).to_have_count(0)
    # A window on a run that is gone asks for it in vain, which its console says.
    page.close()
    shutil.rmtree(run)
    expect(listed.locator("[data-run=three]")).to_have_count(0)


def test_samples_are_made_and_shown_in_every_window(runs: Path, window: Opening) -> None:
    page, other = window("/run/one/sample"), window()
    page.get_by_label("Images").first.fill("3")
    page.get_by_label("Seed").first.fill("7")
    page.get_by_role("button", name="Sample", exact=True).click()
    images = page.get_by_role("button", name=IMAGE)
    expect(images).to_have_count(3)
    jobs = other.get_by_role("region", name="Jobs")
    jobs.locator("summary").click()
    expect(jobs.get_by_role("link", name="3 samples, one")).to_be_visible()
    folder = runs / "one" / "page" / "jobs" / page.url.partition("job=")[2] / "result"
    with Image.open(folder / "00000.png") as first:
        assert first.size == (8, 8)
    film = page.get_by_role("slider", name="The film by noise level")
    assert "log-SNR" in str(film.get_attribute("aria-valuetext"))
    images.first.click()
    dialog = page.get_by_role("dialog", name="Image 1")
    expect(dialog).to_contain_text("Seed")
    expect(dialog.get_by_role("link", name="Download")).to_be_visible()
    dialog.get_by_role("button", name="Use as A").click()
    expect(page.get_by_role("button", name="Vary A")).to_be_enabled()
    page.reload()
    expect(page.get_by_role("button", name=IMAGE)).to_have_count(3)
    expect(page.get_by_label("Seed").first).to_have_value("7")


def test_jobs_wait_in_one_queue_that_every_window_shows_and_can_cancel(window: Opening) -> None:
    page, other = window("/run/two/sample"), window("/run/one")
    page.get_by_label("Images").first.fill("200")
    page.get_by_label("Steps").first.fill("1000")
    for _ in range(2):
        page.get_by_role("button", name="Sample", exact=True).click()
    jobs = other.get_by_role("region", name="Jobs")
    jobs.locator("summary").click()
    expect(jobs.get_by_text("waiting").first).to_be_visible()
    cancel = jobs.get_by_role("button", name="Cancel: 200 samples, two")
    expect(cancel).to_have_count(2)
    for left in (1, 0):
        cancel.first.click()
        expect(cancel).to_have_count(left)
    expect(page.get_by_role("region", name="Jobs").locator("summary")).to_contain_text("none running")
