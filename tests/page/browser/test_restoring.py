"""Restoring in a browser: a chain of damages, what each of them does, and what may have been there before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.page.browser.conftest import Opening


@pytest.fixture
def page(window: Opening, tmp_path: Path) -> Page:
    """A window in which an image is open, and its first damage was done."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    opened = window("/run/one/restore")
    opened.locator(".drop input").set_input_files(tmp_path / "noise.png")
    expect(captions(opened)).to_have_count(2)
    return opened


def captions(page: Page) -> Locator:
    return page.locator(".pair figcaption")


def added(page: Page, name: str) -> None:
    page.get_by_label("Add a damage").select_option(name)


def test_each_link_of_a_chain_is_shown_and_can_be_moved_and_removed(page: Page) -> None:
    page.locator("[name=noise]").fill("0")
    added(page, "gray")
    added(page, "downsample")
    page.locator(".chain li").nth(2).get_by_label("factor").fill("4")
    expect(captions(page).nth(3)).to_contain_text("downsample:factor=4")
    sides = page.locator(".pair img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert sides[-1] == 2
    page.get_by_label("downsample earlier").click()
    expect(captions(page).nth(3)).to_have_text("After gray")
    expect(captions(page).nth(2)).to_contain_text("downsample:factor=4")
    page.get_by_label("Remove downsample").click()
    expect(captions(page)).to_have_count(3)
    page.get_by_label("The image is whole").uncheck()
    expect(captions(page)).to_have_count(1)


def test_a_damage_that_cannot_be_done_says_why(page: Page) -> None:
    page.get_by_label("sigma").fill("-1")
    expect(page.locator(".bench > div > .told")).to_contain_text("sigma")


def test_results_come_with_their_residual_and_what_it_means(page: Page) -> None:
    page.locator("[name=n]").fill("2")
    page.get_by_text("More settings").click()
    page.locator("[name=steps]").fill("2")
    page.get_by_role("button", name="Restore").click()
    outcome = page.locator(".outcome")
    expect(outcome).to_be_visible()
    expect(outcome.locator(".thumb")).to_have_text(
        ["Variant 1", "Variant 2", "Mean", "Lower 90 %", "Upper 90 %", "Damaged"]
    )
    expect(outcome).to_contain_text("times the noise")
    expect(outcome.locator(".lead").first).to_contain_text("the noise")
    image = outcome.locator(".shown img").first
    outcome.get_by_role("button", name="Mean").click()
    assert "mean.png" in str(image.get_attribute("src"))
    hold, before = outcome.get_by_role("button", name="Hold to compare"), page.get_by_alt_text("The image as it was")
    hold.hover()
    page.mouse.down()
    expect(before).to_be_visible()
    page.mouse.up()
    expect(before).to_be_hidden()
    outcome.get_by_label("Show where the variants differ").check()
    expect(outcome.locator(".deviation")).to_be_visible()
    outcome.get_by_role("button", name="Go on from this one").click()
    expect(page.get_by_text("mean.png, 8 × 8 pixels")).to_be_visible()
