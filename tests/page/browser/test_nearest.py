"""The training images nearest to a sample are shown beside it, with what a search for copies says of their ratio."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import expect

from tests.page.browser.conftest import Opening


def test_the_nearest_training_images_of_a_sample_are_shown_beside_it(runs: Path, window: Opening) -> None:
    measured = runs / "two" / "evaluation-memorization.json"
    found = {"pixels": {"threshold": 0.001}}
    measured.write_text(json.dumps({"step": 40, "found": found, "shares": {"flagged, unseen": {"value": 0.01}}}))
    page = window("/run/two/sample")
    page.get_by_label("Images").first.fill("2")
    page.get_by_role("button", name="Sample", exact=True).click()
    page.get_by_role("button", name="Image 2").click()
    dialog = page.get_by_role("dialog", name="Image 2")
    dialog.get_by_role("button", name="Nearest training images").click()
    expect(dialog.locator("figure img")).to_have_count(2)
    for image in dialog.locator("figure img").all():
        expect(image).to_have_js_property("complete", True)
        assert int(image.evaluate("image => image.naturalWidth")) > 0
    expect(dialog.locator("figcaption").first).to_contain_text(".png, distance 0.")
    expect(dialog).to_contain_text("Not flagged as a copy: not below 0.00100, as 1.0 % of unseen images are.")
    measured.unlink()
