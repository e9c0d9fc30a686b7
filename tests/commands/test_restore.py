"""`diffusion inpaint` and `diffusion restore`: what they write, and what they say about input that cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import cli, figures
from diffusion.model import load
from diffusion.operators import GaussianBlur
from tests.conftest import fails, image_of

RESTORED = {"mean.png", "std.png", "low.png", "high.png", "restoration.png", "restoration.json"}
QUICK = ["--n", "2", "--steps", "2"]


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, Path, torch.Tensor]:
    """An image, its mask, and what is known (8, 8)."""
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    known = np.ones((8, 8), dtype=bool)
    known[2:5, 3:7] = False
    Image.fromarray(values).save(tmp_path / "photo.png")
    Image.fromarray(known.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    return tmp_path / "photo.png", tmp_path / "mask.png", torch.from_numpy(known)


def call(*arguments: object) -> None:
    assert cli.main([str(a) for a in arguments]) == 0


def check_restoration(out: Path, photo: Path, known: torch.Tensor, n: int) -> None:
    assert {p.name for p in out.iterdir()} == {*(f"restored-{i}.png" for i in range(n)), *RESTORED}
    restored = [image_of(out / f"restored-{i}.png") for i in range(n)]
    assert all(torch.equal(x[:, known], image_of(photo)[:, known]) for x in restored)
    assert torch.equal(image_of(out / "mean.png")[:, known], image_of(photo)[:, known])
    assert bool((image_of(out / "std.png")[:, known] == 0).all()) and int(image_of(out / "std.png").max()) == 255
    low, mean, high = (image_of(out / f"{name}.png") for name in ("low", "mean", "high"))
    assert bool((low <= mean).all() and (mean <= high).all()) and torch.equal(low[:, known], high[:, known])
    assert not torch.equal(restored[0], restored[1])
    assert figures.read_info(out / "low.png")["interval"] == pytest.approx((n - 1) / (n + 1))


@pytest.mark.parametrize("command", ["inpaint", "sample"])
def test_restoring_with_a_mask(
    trained: Path, damaged: tuple, tmp_path: Path, command: str, capsys: pytest.CaptureFixture
) -> None:
    photo, mask, known = damaged
    where = [photo] if command == "inpaint" else ["--image", photo]
    out = tmp_path / "out"
    call(command, trained, *where, "--mask", mask, "--n", 3, "--steps", 2, "--out", out)
    check_restoration(out, photo, known, 3)
    assert "19% filled" in capsys.readouterr().out
    info = figures.read_info(out / "restored-2.png")
    assert info["index"] == 2 and info["image"] == "photo.png" and info["method"] == "mmps" and info["seed"] == 0
    written = json.loads((out / "restoration.json").read_text())
    assert written["mask"] == "mask.png" and written["steps"] == 2 and written["n"] == 3
    assert written["diagnostics"]["nfe"] == 2 and written["diagnostics"]["seconds"] > 0


def written_image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_model_that_learned_to_restore_does_so_by_default(restorer: Path, damaged: tuple, tmp_path: Path) -> None:
    photo, mask, known = damaged
    call("inpaint", restorer, photo, "--mask", mask, "--n", 3, "--steps", 4, "--out", tmp_path / "out")
    check_restoration(tmp_path / "out", photo, known, 3)
    written = json.loads((tmp_path / "out" / "restoration.json").read_text())
    assert written["method"] == "learned" and written["diagnostics"]["backward"] == 0
    assert written["diagnostics"]["nfe"] == 4


@pytest.mark.parametrize("kind", ["gray", "floats"])
def test_noise_may_differ_from_pixel_to_pixel(
    restorer: Path, damaged: tuple, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the map says is exact comes back to the last bit, in images of any size; the rest is restored."""
    for path in damaged[:2]:
        Image.open(path).resize((24, 16), Image.Resampling.NEAREST).save(path)
    photo, mask, known = damaged
    known = known.repeat_interleave(2, 0).repeat_interleave(3, 1)
    shares = np.zeros((16, 24), np.uint8)
    shares[:, 18:] = 255
    shares[:4, 18:] = 128
    if kind == "gray":
        noise = ["--noise-map", tmp_path / "noise.png", "--noise", 0.2]
        Image.fromarray(shares).save(tmp_path / "noise.png")
    else:
        noise = ["--noise-map", tmp_path / "noise.npy"]
        np.save(tmp_path / "noise.npy", shares / 255 * 0.2)
    out, exact = tmp_path / "out", known & torch.from_numpy(shares == 0)
    call("inpaint", restorer, photo, "--mask", mask, *noise, *QUICK, "--out", out)
    assert "residual" in capsys.readouterr().out
    for found in (written_image(out / f"restored-{i}.png") for i in range(2)):
        same = (found == written_image(photo)).all(2)
        assert same[exact].all() and same[~exact].mean() < 0.2
    record = json.loads((out / "restoration.json").read_text())
    assert record["noise_map"] == Path(noise[1]).name and record["diagnostics"]["parts"] >= 1  # type: ignore[arg-type]
    call("inpaint", restorer, photo, "--mask", mask, *noise, *QUICK, "--out", out)
    assert "restored 2 times" not in capsys.readouterr().out, "results of the same map are there"
    call(
        "restore", restorer, photo, "--operator", "denoise", *noise, *QUICK, "--damage", "--out", tmp_path / "denoised"
    )
    same = (written_image(tmp_path / "denoised" / "restored-0.png") == written_image(photo)).all(2)
    assert same[shares == 0].all() and same[shares > 0].mean() < 0.2


def test_a_map_of_noise_that_cannot_be_used_is_named(
    trained: Path, restorer: Path, damaged: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, mask, _ = damaged
    np.save(tmp_path / "small.npy", np.full((4, 8), 0.1))
    values = np.linspace(0, 0.2, 64).reshape(8, 8)
    np.save(tmp_path / "map.npy", values)
    Image.fromarray((values * 255).astype(np.uint8)).save(tmp_path / "map.png")
    start = ["inpaint", restorer, photo, "--mask", mask, "--noise-map"]
    for rest, message in (
        ([tmp_path / "gone.png"], "--noise-map: .*gone.png is not there"),
        ([tmp_path / "map.npy", "--resize"], "--resize: must be left out with --noise-map"),
        ([tmp_path / "map.npy", "--feather", 1], "--feather: blends the filling into pixels that --noise restores too"),
    ):
        assert re.search(message, fails(capsys, *start, *rest))
    for run, rest, message in (
        (restorer, ["small.npy"], r"--noise-map: must be 8 x 8 \(height x width\) as photo.png, got .*\(4, 8\)"),
        (restorer, ["map.png"], "--noise: must be above 0, what white in a gray --noise-map stands for"),
        (restorer, ["map.npy", "--noise", 0.1], "--noise: must be left out with a --noise-map of floats"),
        (
            restorer,
            ["map.npy", "--method", "mmps"],
            "noise: must be a number for any method but learned, got a map; maps need",
        ),
        (trained, ["map.npy"], "noise: must be a number for any method but learned, got a map; maps need a model"),
    ):
        capsys.readouterr()
        options = [tmp_path / rest[0], *rest[1:], *QUICK, "--out", tmp_path / "out"]
        code = cli.main([str(a) for a in ("inpaint", run, photo, "--mask", mask, "--noise-map", *options)])
        assert code and re.search(message, capsys.readouterr().err), message


def test_restoring_what_is_transparent(run: Path, damaged: tuple) -> None:
    photo, _, known = damaged
    rgba = np.dstack([np.array(Image.open(photo)), known.numpy().astype(np.uint8) * 255])
    clear = photo.with_name("clear.png")
    Image.fromarray(rgba).save(clear)
    call("inpaint", run, clear, *QUICK, "--method", "pigdm")
    check_restoration(run / "restored-clear", photo, known, 2)


def test_an_image_of_another_size_is_covered_by_windows_or_resized(
    trained: Path, damaged: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in damaged[:2]:
        Image.open(path).resize((24, 16), Image.Resampling.NEAREST).save(path)
    photo, mask, known = damaged
    out, wanted = tmp_path / "out", ["--n", 2, "--steps", 1]
    call("inpaint", trained, photo, "--mask", mask, *wanted, "--out", out)
    assert "photo.png restored 2 times by mmps in 15 windows" in capsys.readouterr().out
    check_restoration(out, photo, known.repeat_interleave(2, 0).repeat_interleave(3, 1), 2)
    Image.open(photo).resize((72, 64)).save(photo)
    corner = np.full((64, 72), 255, np.uint8)
    corner[:4, :4] = 0
    Image.fromarray(corner).save(mask)
    call("inpaint", trained, photo, "--mask", mask, *wanted, "--out", tmp_path / "resized", "--resize")
    assert "photo.png: resized and cropped from 72 x 64 to the model's 8 x 8" in capsys.readouterr().out
    assert image_of(tmp_path / "resized" / "mean.png").shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("operator", "size"), [("downsample:factor=2", (24, 16)), ("gray", (10, 6)), ("jpeg:quality=10", (4, 9))]
)
def test_what_is_left_of_an_image_tells_its_size(
    trained: Path, damaged: tuple, tmp_path: Path, operator: str, size: tuple[int, int]
) -> None:
    photo, out, again = damaged[0], tmp_path / "out", tmp_path / "again"
    Image.open(photo).resize(size).save(photo)
    options = ["--operator", operator, "--noise", 0.05, *QUICK]
    call("restore", trained, photo, *options, "--damage", "--out", out)
    assert image_of(out / "restored-0.png").shape == image_of(photo).shape
    written = json.loads((out / "restoration.json").read_text())
    assert 0 < written["psnr_of_mean"] < 40 and "coverage_90" not in written
    call("restore", trained, out / "damaged.png", *options, "--out", again)
    assert image_of(again / "restored-0.png").shape == image_of(photo).shape


def test_of_enough_restorations_the_coverage_of_the_original_is_told(
    trained: Path, damaged: tuple, tmp_path: Path
) -> None:
    options = ["--operator", "denoise", "--noise", 0.3, "--steps", 4, "--n", 19, "--damage"]
    call("restore", trained, damaged[0], *options, "--out", tmp_path / "out")
    assert 0.3 < json.loads((tmp_path / "out" / "restoration.json").read_text())["coverage_90"] <= 1
    assert figures.read_info(tmp_path / "out" / "high.png")["interval"] == pytest.approx(0.9)


def test_a_folder_and_what_is_drawn_in_a_color(run: Path, damaged: tuple, tmp_path: Path) -> None:
    photo, mask, known = damaged
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("one", "two"):
        Image.open(photo).save(tmp_path / "photos" / f"{name}.png")
        Image.open(mask).save(tmp_path / "masks" / f"{name}.png")
    call("inpaint", run, tmp_path / "photos", "--mask", tmp_path / "masks", *QUICK)
    for name in ("one", "two"):
        check_restoration(run / "restored-photos" / name, photo, known, 2)
    (tmp_path / "masks" / "two.png").unlink()
    values = np.where(known[..., None], np.array(Image.open(photo)), np.array([255, 0, 255])).astype(np.uint8)
    Image.fromarray(values).save(drawn := tmp_path / "drawn.png")
    call("inpaint", run, drawn, "--unknown-color", "#ff00ff", "--grow", 0, *QUICK, "--out", tmp_path / "out")
    again = [image_of(folder / "restored-1.png") for folder in (tmp_path / "out", run / "restored-photos" / "one")]
    assert torch.equal(*again)


def test_a_damaged_image_is_restored_and_one_that_is_whole_damaged_first(
    trained: Path, damaged: tuple, tmp_path: Path
) -> None:
    photo, out = damaged[0], tmp_path / "out"
    options = ["--operator", "blur:sigma=0.8", "--noise", "0.02", *QUICK, "--steps", "8"]
    call("restore", trained, photo, *options, "--damage", "--out", out)
    assert {p.name for p in out.iterdir()} == {"restored-0.png", "restored-1.png", "damaged.png", *RESTORED}
    blurred = GaussianBlur(0.8)(image_of(photo)[None] / 255)[0]
    off = image_of(out / "damaged.png") / 255 - blurred
    assert 0.015 < float(off.square().mean().sqrt()) < 0.025
    call("restore", trained, out / "damaged.png", *options, "--out", tmp_path / "again")
    close = [(image_of(folder / "restored-0.png") / 255) for folder in (out, tmp_path / "again")]
    assert float((close[0] - close[1]).abs().mean()) < 0.05
    written = json.loads((tmp_path / "again" / "restoration.json").read_text())
    assert written["operator"] == "blur:sigma=0.8" and written["noise"] == 0.02 and written["method"] == "mmps"
    assert 0.1 < written["diagnostics"]["residual"] < 5


def test_without_a_word_the_noise_is_that_of_eight_bits(trained: Path, damaged: tuple, tmp_path: Path) -> None:
    model = load(trained)
    gray = (image_of(damaged[0])[None] / 255).mean(1, keepdim=True)
    figures.save_png(gray[0], tmp_path / "gray.png", {})
    call("restore", trained, tmp_path / "gray.png", "--operator", "gray", *QUICK, "--out", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "restoration.json").read_text())
    assert written["noise"] == pytest.approx(1 / 255 / 12**0.5)
    assert image_of(tmp_path / "out" / "restored-0.png").shape == model.spec.shape


def test_of_restorations_that_are_not_finite_nothing_is_written(
    trained: Path, damaged: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    drawn = ["--method", "zero", "--n", 2, "--steps", 16, "--out", tmp_path / "out"]
    options = ["--operator", "denoise", "--noise", 0.0011, *drawn]
    message = fails(capsys, "restore", trained, damaged[0], *options)
    assert f"error: {damaged[0]}: method: zero gave 2 of 2 restorations that are not finite; take more" in message
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_restored(trained: Path, damaged: tuple, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photo, mask, _ = damaged
    assert "nothing is transparent in it; say with --mask" in fails(capsys, "inpaint", trained, photo)
    assert "--mask: needs --image" in fails(capsys, "sample", trained, "--mask", mask)
    assert "gone.png" in fails(capsys, "inpaint", trained, tmp_path / "gone.png", "--mask", mask)
    (tmp_path / "text.png").write_text("text")
    assert "text.png: not an image" in fails(capsys, "inpaint", trained, tmp_path / "text.png")
    assert "noise" in fails(capsys, "inpaint", trained, photo, "--mask", mask, "--method", "zero")
    assert "n: must be at least 1, got 0" in fails(capsys, "inpaint", trained, photo, "--mask", mask, "--n", "0")
    assert "--resize: needs --damage" in fails(capsys, "restore", trained, photo, "--operator", "gray", "--resize")
    sized = fails(capsys, "restore", trained, photo, "--operator", "downsample:size=7x9")
    assert "downsample.size: must be at least 8x8, that of the small image, got 7x9" in sized
    damaged_to = fails(capsys, "restore", trained, photo, "--operator", "downsample:size=7x9", "--damage")
    assert "downsample.size: must be resolved by the size of the small image, or a factor" in damaged_to
    blind = fails(capsys, "restore", trained, photo, "--operator", "blur")
    assert "operator blur: must say how strong the damage was, as in blur:sigma=...; it is not estimated" in blind
    assert "got 'blurr'" in fails(capsys, "restore", trained, photo, "--operator", "blurr")
    assert "misses it by" in fails(
        capsys, "restore", trained, photo, "--operator", "blur:sigma=2,border=circular", "--noise", "0"
    )
    Image.open(mask).resize((9, 10)).save(mask)
    message = fails(capsys, "inpaint", trained, photo, "--mask", mask)
    assert f"{mask} is 9 x 10 pixels, but {photo} is 8 x 8" in message


@pytest.mark.parametrize(
    ("options", "size", "reason"),
    [
        (
            ["--operator", "blur:sigma=2,border=circular", "--noise", 0],
            (8, 8),
            "y: without noise it must be what the operator",
        ),
        (["--operator", "blur:sigma=3"], (5, 5), "blur: must be given an image larger than the kernel's reach"),
    ],
)
def test_of_a_folder_what_cannot_be_restored_is_named_and_the_rest_is_restored(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture, options: list, size: tuple[int, int], reason: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (16, 16), (9, 90, 200)).save(photos / "a.png")
    values = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(values).save(photos / "b.png")
    arguments = ["restore", trained, photos, *options, *QUICK, "--out", tmp_path / "out"]
    assert cli.main([str(a) for a in arguments]) == 1
    said = capsys.readouterr()
    assert f"error: 1 of 2 images were not restored:\n  {photos / 'b.png'}: {reason}" in said.err
    assert "1 restored" in said.out and (tmp_path / "out" / "a" / "restoration.json").exists()
    assert not (tmp_path / "out" / "b").exists()


def test_each_image_of_a_folder_is_damaged_by_noise_of_its_own(trained: Path, damaged: tuple, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    values = np.random.default_rng(0).integers(100, 150, (24, 24, 3), dtype=np.uint8)
    for name in ("a", "b"):
        Image.fromarray(values).save(photos / f"{name}.png")
    options = ["--operator", "denoise", "--noise", 0.1, "--damage", "--n", 1, "--steps", 1]
    for out in ("once", "again"):
        call("restore", trained, photos, *options, "--out", tmp_path / out)
    clean = torch.from_numpy(values).permute(2, 0, 1).flatten().double()
    first, second, again = (
        image_of(tmp_path / out / "damaged.png").flatten() - clean for out in ("once/a", "once/b", "again/b")
    )
    assert torch.equal(second, again)
    # The standard error is 1 / sqrt(1728) = 0.024.
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.1


def test_results_are_never_mixed_with_others_nor_replaced(
    run: Path, damaged: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A named folder is refused; without one another place is found and said; the same results are left as they are."""
    photo, out = damaged[0], tmp_path / "out"
    options = ["--operator", "denoise", "--noise", 0.1, "--steps", 1]
    call("restore", run, photo, *options, "--n", 4, "--out", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    message = fails(capsys, "restore", run, photo, *options, "--n", 2, "--out", out)
    assert f"--out: {out} holds restorations with other settings; name another folder" in message
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / photo.name
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(other)
    assert "holds restorations of another image" in fails(
        capsys, "restore", run, other, *options, "--n", 4, "--out", out
    )
    call("restore", run, photo, *options, "--n", 4, "--out", out)
    assert "is restored already and left as it is (--again restores it)" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    for seed in (0, 1, 0):
        call("restore", run, photo, *options, "--n", 1, "--seed", seed)
    first, second = run / f"restored-{photo.stem}", run / f"restored-{photo.stem}-2"
    assert [json.loads((folder / "restoration.json").read_text())["seed"] for folder in (first, second)] == [0, 1]
    assert not (run / f"restored-{photo.stem}-3").exists()


def test_an_image_that_lies_among_its_restorations_stays(
    trained: Path, damaged: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    options = ["--operator", "denoise", "--noise", 0.1, *QUICK, "--out", out]
    (tmp_path / "damaged.png").write_bytes(damaged[0].read_bytes())
    call("restore", trained, tmp_path / "damaged.png", *options, "--damage")
    before = (out / "damaged.png").read_bytes()
    assert "holds restorations with other settings" in fails(capsys, "restore", trained, out / "damaged.png", *options)
    assert (out / "damaged.png").read_bytes() == before


@pytest.mark.parametrize("command", ["inpaint", "restore"])
def test_noise_in_units_of_bytes_is_refused_before_the_work(
    command: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8), "gray").save(photo := tmp_path / "photo.png")
    mask = Image.new("L", (8, 8), 255)
    mask.putpixel((3, 3), 0)
    mask.save(tmp_path / "mask.png")
    how = ["--mask", tmp_path / "mask.png"] if command == "inpaint" else ["--operator", "denoise"]
    message = fails(capsys, command, trained, photo, *how, "--noise", "25", "--out", tmp_path / "out")
    assert "noise: must be at most 1 for values in [0, 1]; divide that of bytes by 255, got 25" in message
    assert not (tmp_path / "out").exists()


def test_what_is_found_about_masks_is_said_before_the_work(
    trained: Path, damaged: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photo, mask, known = damaged
    for folder in ("photos", "photos/masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(photo.read_bytes())
    (tmp_path / "photos" / "a_mask.png").write_bytes(mask.read_bytes())
    Image.open(photo).save(tmp_path / "photos" / "b.bmp")
    swapped = Image.fromarray((~known.numpy()).astype(np.uint8) * 255)
    swapped.save(tmp_path / "photos" / "masks" / "b.png")
    assert cli.main(["inpaint", str(trained), str(tmp_path / "photos"), "--out", str(tmp_path / "out"), *QUICK]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a", "b"}
    said = capsys.readouterr().out.splitlines()
    polarity = "b.png: black is to be filled, 81% of it; if the other part is meant, use --invert-mask"
    written = {name: next(i for i, line in enumerate(said) if f"{tmp_path / 'out' / name}:" in line) for name in "ab"}
    assert said.index("a.png: its mask is a_mask.png, beside it") < written["a"]
    assert said.index("b.bmp: its mask is masks/b.png, beside it") < said.index(polarity) < written["b"]
    restored = image_of(tmp_path / "out" / "a" / "restored-0.png")
    assert torch.equal(restored[:, known], image_of(photo)[:, known])
    call(
        "restore",
        trained,
        tmp_path / "photos",
        "--operator",
        "denoise",
        "--noise",
        "0.1",
        "--out",
        tmp_path / "r",
        *QUICK,
    )
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"a", "b"}
    assert "2 files are masks and left out, such as " in capsys.readouterr().out


def test_a_mask_from_another_program_is_inverted_by_an_option(trained: Path, damaged: tuple, tmp_path: Path) -> None:
    photo, mask, known = damaged
    swapped = tmp_path / "swapped.png"
    Image.fromarray((~known.numpy()).astype(np.uint8) * 255).save(swapped)
    call("inpaint", trained, photo, "--mask", swapped, "--invert-mask", "--out", tmp_path / "one", *QUICK)
    call("inpaint", trained, photo, "--mask", mask, "--out", tmp_path / "two", *QUICK)
    for name in ("restored-0.png", "mean.png"):
        assert torch.equal(image_of(tmp_path / "one" / name), image_of(tmp_path / "two" / name))


def test_a_feathered_seam_blends_what_is_restored_into_the_photograph(
    trained: Path, damaged: tuple, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photo, mask, known = damaged
    call("inpaint", trained, photo, "--mask", mask, "--feather", 1, "--out", tmp_path / "out", *QUICK)
    restored, original = image_of(tmp_path / "out" / "restored-0.png").float(), image_of(photo).float()
    ring = torch.nn.functional.max_pool2d((~known)[None].float(), 3, 1, 1)[0].bool() & known
    far = known & ~ring
    assert torch.equal(restored[:, far], original[:, far]) and not torch.equal(restored[:, ring], original[:, ring])
    # Half of what is shown is the photograph, so that no value is further from it than half of the range.
    assert float((restored - original)[:, ring].abs().max()) <= 128
    with_noise = ["inpaint", trained, photo, "--mask", mask, "--feather", 1, "--noise", 0.1]
    assert "--feather: blends the filling into pixels that --noise restores too" in fails(capsys, *with_noise)


def test_an_image_is_enlarged_and_its_new_part_filled(trained: Path, damaged: tuple, tmp_path: Path) -> None:
    photo = damaged[0]
    call("inpaint", trained, photo, "--pad", "left=4,bottom=2", "--out", tmp_path / "out", *QUICK)
    restored = [image_of(tmp_path / "out" / f"restored-{i}.png") for i in range(2)]
    assert restored[0].shape == (3, 10, 12) and torch.equal(restored[0][:, :8, 4:], image_of(photo))
    assert not torch.equal(restored[0], restored[1])
