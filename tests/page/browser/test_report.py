"""report.html and the comparison of runs in a browser: from a file, in both colors, for people who cannot see them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from diffusion.reporting.html import write_comparison, write_report


@pytest.fixture(scope="module")
def reports(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a run, and the comparison of two."""
    folder = tmp_path_factory.mktemp("reports")
    written = write_report(runs / "one").replace(folder / "report.html")
    return {"report": written, "comparison": write_comparison([runs / "one", runs / "two"], folder / "compare.html")}


@pytest.mark.parametrize("colors", ["light", "dark"])
@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_it_comes_to_life_and_has_nothing_that_axe_finds(
    kind: str, colors: str, reports: dict[str, Path], runs: Path, browser: Browser
) -> None:
    for width in (1280, 360):
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if colors == "dark" else "light"
        )
        page, said = context.new_page(), []
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.goto(reports[kind].as_uri())
        # Tables of numbers have become charts, and sheets of pictures scrubbers.
        expect(page.locator(".chart svg").first).to_be_visible()
        expect(page.locator(".scrubber input").first).to_have_attribute("aria-valuetext", "step 40")
        clocks = json.loads((runs / "one" / "clocks.json").read_text())
        names = page.locator(".chart-mark text")
        expect(names).to_have_count(0 if kind == "comparison" else 2 + (clocks["classes"] is not None))
        places = names.evaluate_all(
            "all => all.map(one => one.getBBox()).map(({x, y, width, height}) => [x, y, width, height])"
        )
        assert all(x >= 0 and x + across <= width for x, _, across, _ in places)
        assert all(b[1] >= a[1] + 0.8 * a[3] for a, b in itertools.pairwise(places)), "names lie in rows of their own"
        paper = "rgb(18, 22, 23)" if colors == "dark" else "rgb(246, 247, 245)"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        context.close()
        assert said == []


def test_without_its_script_the_numbers_and_the_pictures_are_there(reports: dict[str, Path], browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(reports["report"].as_uri())
    expect(page.locator(".sheet img").last).to_be_visible()
    expect(page.locator("main")).to_contain_text("bits/dim")
    context.close()
