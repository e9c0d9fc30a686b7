"""The views of runs in a browser: what they show, by mouse, by keys, in both colors, for people who cannot see them."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.page.browser.conftest import Opening

RUN = ("run/one", "run/one/sample", "run/one/inpaint", "run/one/restore", "run/one/likelihood", "run/one/data")
VIEWS = ("", "compare?runs=one,two", *RUN)


def settled(page: Page) -> Page:
    """Waits until what a view asks for after it is shown has come."""
    expect(page.get_by_text("Reading the examples")).to_have_count(0)
    return page


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_loads_without_errors_and_has_nothing_that_axe_finds(view: str, window: Opening) -> None:
    for colors, width in (("light", 1280), ("dark", 360)):
        page = settled(window(f"/{view}", colors=colors, width=width))
        expect(page.locator("main h1")).not_to_have_text("This does not work")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) == 0


def test_the_list_says_what_is_known_of_each_run_with_its_unit(window: Opening) -> None:
    page = window()
    cards = page.locator("[data-run]")
    expect(cards).to_have_count(2)
    expect(page.locator("[data-run=one]")).to_contain_text("finished")
    expect(page.locator("[data-run=one]")).to_contain_text("40 of 40")
    expect(page.locator("[data-run=one]")).to_contain_text("bits/dim")


def test_arrow_keys_go_through_the_grids_beside_real_images(window: Opening) -> None:
    page = window("/run/one")
    slider = page.get_by_role("slider", name="Samples by step", exact=True)
    expect(slider).to_have_attribute("aria-valuetext", "step 40")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "step 20")
    shown = page.locator(".scrubber-stage img")
    assert str(shown.get_attribute("src")).endswith("/grids/20")
    assert page.locator(".scrubber-beside img").evaluate("image => image.complete && image.naturalWidth") > 0


def test_runs_are_compared_where_they_differ(window: Opening) -> None:
    page = window()
    for name in ("one", "two"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("main").get_by_role("link", name="Compare", exact=True).click()
    table = page.get_by_role("table", name="Where configurations differ")
    expect(table.get_by_role("row")).to_have_count(2)
    expect(table).to_contain_text("training.lr")
    expect(table).to_contain_text("0.125")
    sliders = page.get_by_role("slider", name="Samples of")
    expect(sliders).to_have_count(2)
    sliders.first.focus()
    page.keyboard.press("Home")
    expect(sliders.last).to_have_attribute("aria-valuetext", "step 20")


def test_one_run_is_nothing_to_compare(window: Opening) -> None:
    page = window("/compare?runs=one")
    expect(page.get_by_text("Choose two runs or more")).to_be_visible()
    page.get_by_role("checkbox", name="two").check()
    expect(page.get_by_role("heading", name="Curves")).to_be_visible()
    assert page.url.endswith("runs=one%2Ctwo")


def test_keys_alone_reach_the_content_and_every_view(window: Opening) -> None:
    page = window("/run/one")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    tabs = page.get_by_role("navigation", name="Views of the run").get_by_role("link")
    assert tabs.all_inner_texts() == ["Overview", "Sample", "Inpaint", "Restore", "Likelihood", "Data"]
    tabs.nth(1).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Sample", exact=True)).to_be_visible()


def test_the_colors_that_were_chosen_stay(window: Opening) -> None:
    page = window()
    page.get_by_label("Colors").select_option("dark")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 23)"


def test_an_address_of_no_run_says_so_in_one_line(window: Opening) -> None:
    page = window("/nothing")
    expect(page.get_by_role("alert")).to_contain_text("There is no view called nothing")
