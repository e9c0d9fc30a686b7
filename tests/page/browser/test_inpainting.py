"""Inpainting in a browser: masks land where they are drawn, and results are those of `diffusion inpaint`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from playwright.sync_api import Locator, Page, expect

from diffusion import cli
from tests.page.browser.conftest import Opening

WIDTH, HEIGHT = 12, 8
SEED, N, STEPS = 3, 2, 2
KINDS = ("rgb.png", "transparent.png", "turned.jpg", "deep.png")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of four kinds, and a larger one to draw on."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    colors = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(colors).save(folder / "rgb.png")
    # Some is transparent, and has colors under its transparency.
    opacity = rng.choice(np.array([0, 3, 255], np.uint8), (HEIGHT, WIDTH, 1), p=(0.1, 0.1, 0.8))
    Image.fromarray(np.concatenate([colors, opacity], 2)).save(folder / "transparent.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colors).save(folder / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(rng.integers(0, 2**16, (HEIGHT, WIDTH), dtype=np.uint16)).save(folder / "deep.png")
    Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(folder / "large.png")
    return folder


def begun(window: Opening, path: Path, *, ratio: float = 1, touch: bool = False) -> Page:
    """A window in which a photograph is open."""
    page = window("/run/one/inpaint", ratio=ratio, touch=touch)
    page.locator(".drop input").set_input_files(path)
    canvas(page).wait_for()
    return page


def canvas(page: Page) -> Locator:
    return page.locator(".stage canvas").last


Point = tuple[float, float]


def on_screen(page: Page, size: tuple[int, int], point: Point) -> Point:
    """Where a place of an image of a size, which is seen whole, is in the window."""
    box = canvas(page).bounding_box()
    assert box is not None
    scale = min(box["width"] / size[0], box["height"] / size[1])
    left = box["x"] + (box["width"] - scale * size[0]) / 2
    top = box["y"] + (box["height"] - scale * size[1]) / 2
    return left + scale * point[0], top + scale * point[1]


def drawn(page: Page, size: tuple[int, int], start: Point, end: Point) -> None:
    """Draws a line by the mouse."""
    page.mouse.move(*on_screen(page, size, start))
    page.mouse.down()
    page.mouse.move(*on_screen(page, size, end), steps=5)
    page.mouse.up()


def saved(page: Page, path: Path) -> NDArray[np.bool_]:
    """Downloads the mask by its key, and returns what is hidden."""
    with page.expect_download() as download:
        page.keyboard.press("m")
    download.value.save_as(path)
    return ~np.array(Image.open(path))


def brush_of(page: Page, pixels: int) -> None:
    for _ in range(pixels - int(page.locator(".tools output").inner_text().split()[0])):
        page.keyboard.press("]")
    expect(page.locator(".tools output")).to_have_text(f"{pixels} px")


def filled(page: Page, n: int = N, steps: int = STEPS) -> None:
    """Asks for fillings."""
    page.locator("[name=n]").fill(str(n))
    page.locator("[name=seed]").fill(str(SEED))
    page.get_by_text("More settings").click()
    page.locator("[name=steps]").fill(str(steps))
    page.get_by_role("button", name="Fill").click()


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes as the server of these tests does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_the_command_with_the_downloaded_mask(
    kind: str, photographs: Path, runs: Path, window: Opening, tmp_path: Path
) -> None:
    image = photographs / kind
    page, upright = begun(window, image), ImageOps.exif_transpose(Image.open(image))
    drawn(page, upright.size, (2.5, 3.5), (5.5, 5.5))
    hidden = saved(page, tmp_path / "mask.png")
    assert 2 < hidden.sum() < 20
    filled(page)
    expect(page.locator(".outcome")).to_be_visible()
    found = {name: page.request.get(address).body() for name, address in results(page).items()}
    options = [str(runs / "one"), str(image), "--mask", str(tmp_path / "mask.png"), "--out", str(tmp_path / "out")]
    with one_thread():
        code = cli.main(["inpaint", *options, "--n", str(N), "--seed", str(SEED), "--steps", str(STEPS)])
    assert code == 0
    names = {f"{name}.png" for name in ("restored-0", "restored-1", "mean", "low", "high")}
    assert names == {*found}
    for name in names:
        (tmp_path / name).write_bytes(found[name])
        ours, theirs = Image.open(tmp_path / name), Image.open(tmp_path / "out" / name)
        assert ours.mode == theirs.mode
        np.testing.assert_array_equal(np.array(ours), np.array(theirs))
    original, restored = np.array(upright), np.array(Image.open(tmp_path / "restored-0.png"))
    if restored.ndim == 3:  # A model of colors colors what is gray.
        original = original if original.ndim == 3 else np.repeat(original[:, :, None], 3, 2)
        original, restored = original[:, :, :3], restored[:, :, :3]
    assert restored.dtype == original.dtype
    np.testing.assert_array_equal(restored[~hidden], original[~hidden])


def results(page: Page) -> dict[str, str]:
    """The addresses of the results that are shown, by their names."""
    addresses = page.locator(".outcome .thumb img").evaluate_all("images => images.map(image => image.src)")
    return {str(address).rpartition("/")[2].rpartition("%2F")[2]: str(address) for address in addresses}


@pytest.mark.parametrize(("ratio", "zoom"), [(1, 1), (2, 1), (1, 0.8), (1, 1.5), (2, 1.5)])
def test_masks_land_where_they_are_drawn(
    ratio: float, zoom: float, photographs: Path, window: Opening, tmp_path: Path
) -> None:
    page, size = begun(window, photographs / "large.png", ratio=ratio), (48, 32)
    page.evaluate("zoom => void (document.documentElement.style.zoom = zoom)", zoom)
    page.wait_for_timeout(100)
    canvas(page).scroll_into_view_if_needed()
    brush_of(page, 4)
    start, end = (10.2, 8.7), (18.6, 12.3)
    drawn(page, size, start, end)
    found = saved(page, tmp_path / "mask.png")
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    (dx, dy), (px, py) = (end[0] - start[0], end[1] - start[1]), start
    along = np.clip(((x - px) * dx + (y - py) * dy) / (dx * dx + dy * dy), 0, 1)
    distance = np.hypot(x - px - along * dx, y - py - along * dy)
    assert found[distance <= 1].all()
    assert not found[distance > 3].any()
    # Nearer than the pixel that is asked for: the area is that of the brush's way.
    assert abs(found.sum() - (distance <= 2).sum()) <= 4


def test_what_is_zoomed_to_is_drawn_on(photographs: Path, window: Opening, tmp_path: Path) -> None:
    page, size = begun(window, photographs / "large.png"), (48, 32)
    place = on_screen(page, size, (30.5, 20.5))
    page.mouse.move(*place)
    for _ in range(6):
        page.mouse.wheel(0, -120)
    page.keyboard.press("r")
    page.mouse.down()
    page.mouse.up()
    found = saved(page, tmp_path / "mask.png")
    assert np.argwhere(found).tolist() == [[20, 30]]
    page.keyboard.down(" ")
    page.mouse.down()
    page.mouse.move(place[0] + 40, place[1] + 30, steps=3)
    page.mouse.up()
    page.keyboard.up(" ")
    page.mouse.down()  # The same pixel has come along.
    page.mouse.up()
    np.testing.assert_array_equal(saved(page, tmp_path / "mask.png"), found)


def test_thirty_steps_are_undone_and_done_again(photographs: Path, window: Opening, tmp_path: Path) -> None:
    page, size = begun(window, photographs / "large.png"), (48, 32)
    for i in range(30):
        page.mouse.click(*on_screen(page, size, (4.5 + i, 4.5 + i % 7)))
    drawn_all = saved(page, tmp_path / "mask.png")
    for _ in range(30):
        page.keyboard.press("z")
    expect(page.locator(".told")).to_have_text("0 of 1,536 pixels are to be filled (0 %)")
    for _ in range(30):
        page.keyboard.press("Shift+Z")
    np.testing.assert_array_equal(saved(page, tmp_path / "mask.png"), drawn_all)


def test_a_finger_draws_and_two_zoom(photographs: Path, window: Opening, tmp_path: Path) -> None:
    page, size = begun(window, photographs / "large.png", touch=True), (48, 32)
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: Point) -> None:
        places = [
            dict(zip("xy", on_screen(page, size, point), strict=True)) | {"id": i} for i, point in enumerate(points)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (10.5, 10.5))
    touch("touchMove", (20.5, 10.5))
    touch("touchEnd")
    found = saved(page, tmp_path / "mask.png")
    assert found[10, 10:21].all()
    assert not found[13:].any()
    # The second finger takes back what the first began.
    touch("touchStart", (20.5, 20.5))
    touch("touchStart", (20.5, 20.5), (28.5, 20.5))
    touch("touchMove", (16.5, 20.5), (32.5, 20.5))
    touch("touchEnd")
    np.testing.assert_array_equal(saved(page, tmp_path / "mask.png"), found)
    # The middle between the fingers stayed, and what lies around it is twice as large.
    touch("touchStart", (28.5, 20.5))
    touch("touchEnd")
    more = saved(page, tmp_path / "mask.png") & ~found
    assert more.any()
    assert np.abs(np.argwhere(more).mean(0) + 0.5 - (20.5, 26.5)).max() < 1


def test_keys_alone_fill_a_part_and_go_on_from_a_result(window: Opening) -> None:
    page = window("/run/one/inpaint")
    page.locator(".thumb").first.wait_for()
    reached(page, ".thumb")
    page.keyboard.press("Enter")
    canvas(page).wait_for()
    reached(page, ".stage canvas")
    for key in ("ArrowLeft", "Enter", "Shift+ArrowUp"):
        page.keyboard.press(key)
    expect(page.locator(".told")).to_have_text("2 of 64 pixels are to be filled (3 %)")
    reached(page, "[name=n]")
    page.keyboard.press("Control+A")
    page.keyboard.type("2")
    reached(page, "summary")
    page.keyboard.press("Enter")
    reached(page, "[name=steps]")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    expect(page.locator(".outcome")).to_be_visible()
    original = page.get_by_alt_text("The image as it was")
    expect(original).to_be_hidden()
    reached(page, ".outcome .row > button")
    page.keyboard.down("c")
    expect(original).to_be_visible()
    page.keyboard.up("c")
    expect(original).to_be_hidden()
    reached(page, ".outcome .row > button:nth-of-type(2)")
    page.keyboard.press("Enter")
    expect(page.get_by_text("variant-1.png")).to_be_visible()
    expect(page.locator(".told")).to_have_text("0 of 64 pixels are to be filled (0 %)")


def reached(page: Page, selector: str) -> None:
    """Presses Tab until an element has the focus."""
    for _ in range(80):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"Tab does not reach {selector}")


def test_the_mask_stays_after_a_result_and_a_reload(photographs: Path, window: Opening, tmp_path: Path) -> None:
    page = begun(window, photographs / "rgb.png")
    drawn(page, (WIDTH, HEIGHT), (2.5, 3.5), (5.5, 5.5))
    filled(page)
    expect(page.locator(".outcome")).to_be_visible()
    canvas(page).focus()
    before = saved(page, tmp_path / "before.png")
    assert before.any()
    page.reload()
    expect(page.locator(".outcome")).to_be_visible()
    canvas(page).focus()
    np.testing.assert_array_equal(saved(page, tmp_path / "after.png"), before)


def test_transparency_and_files_become_masks(photographs: Path, window: Opening, tmp_path: Path) -> None:
    page = begun(window, photographs / "transparent.png")
    opacity = np.array(Image.open(photographs / "transparent.png"))[:, :, 3]
    page.get_by_role("button", name="From transparency").click()
    expect(page.locator(".told")).to_contain_text(f"{(opacity < 255).sum()} of 96")
    canvas(page).focus()
    np.testing.assert_array_equal(saved(page, tmp_path / "mask.png"), opacity < 255)
    page.keyboard.press("x")
    page.locator(".tools input[type=file]").set_input_files(tmp_path / "mask.png")
    expect(page.locator(".told")).to_contain_text(f"{(opacity < 255).sum()} of 96")
    Image.new("1", (5, 5)).save(tmp_path / "small.png")
    page.locator(".tools input[type=file]").set_input_files(tmp_path / "small.png")
    expect(page.get_by_role("alert")).to_have_text("The mask has 5 x 5 pixels, and the image 12 x 8.")


def test_a_cancelled_job_leaves_nothing_half_written(photographs: Path, runs: Path, window: Opening) -> None:
    page = begun(window, photographs / "rgb.png")
    drawn(page, (WIDTH, HEIGHT), (2.5, 3.5), (5.5, 5.5))
    filled(page, n=64, steps=1000)
    expect(page.locator(".making progress[value]")).to_be_visible()
    page.locator(".making").get_by_role("button", name="Cancel").click()
    expect(page.locator(".making [role=status]")).to_contain_text("cancelled")
    number = page.url.partition("job=")[2].partition("&")[0]
    assert {path.name for path in (runs / "one/page/jobs" / number).rglob("*")} <= {"job.json", "preview.png"}
    page.locator("[name=n]").fill("2")
    page.locator("[name=steps]").fill("2")
    page.get_by_role("button", name="Fill").click()
    expect(page.locator(".outcome")).to_be_visible()


def test_a_file_may_be_dropped_anywhere_on_the_place_for_it(photographs: Path, window: Opening) -> None:
    page = window("/run/one/inpaint")
    page.locator(".thumb").first.wait_for()
    box = page.locator(".drop").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(photographs / "rgb.png")], "dragOperationsMask": 1}
    place = {"x": box["x"] + box["width"] - 5, "y": box["y"] + box["height"] - 5, "data": data}
    for kind in ("dragEnter", "dragOver"):
        session.send("Input.dispatchDragEvent", {"type": kind, **place})
    expect(page.locator(".drop.over")).to_have_count(1)
    session.send("Input.dispatchDragEvent", {"type": "drop", **place})
    expect(page.get_by_text("rgb.png, 12 × 8 pixels")).to_be_visible()


def test_nothing_is_filled_without_a_mask(photographs: Path, window: Opening) -> None:
    page = begun(window, photographs / "rgb.png")
    filled(page)
    expect(page.get_by_role("alert")).to_have_text("Nothing is to be filled yet: brush over a part of the image.")
