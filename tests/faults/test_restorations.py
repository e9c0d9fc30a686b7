"""What restoring survives: stops, bad files, its own results among the images, other results in the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from diffusion import cli, figures
from diffusion.commands.photographs import results
from tests.photographs import HEIGHT, WIDTH, exif, hole, photo

QUICK = ("--n", "1", "--steps", "1", "--method", "replacement")
KNOWN = np.asarray(hole()) > 0


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs in a folder, and beside it one mask for all."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        photo(seed=number).save(tmp_path / "photos" / f"{number}.png")
    hole().save(tmp_path / "mask.png")
    return tmp_path / "photos"


def inpaint(run: Path, images: Path, *options: object) -> int:
    mask = next(folder / "mask.png" for folder in images.parents if (folder / "mask.png").exists())
    return cli.main([str(a) for a in ("inpaint", run, images, "--mask", mask, *QUICK, *options)])


def times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.*")}


@pytest.mark.parametrize("options", [(), ("--as-input",)])
def test_a_stopped_batch_goes_on_where_it_stopped(
    trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple
) -> None:
    out = photos.parent / "out"
    writes = "write" if not options else "write_one"
    write, done = getattr(results, writes), []

    def stop(path: Path, *rest: object, **more: object) -> object:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(path)
        return write(path, *rest, **more)

    monkeypatch.setattr(results, writes, stop)
    assert inpaint(trained, photos, "--out", out, *options) == 130
    monkeypatch.undo()
    before = times(out)
    assert len([name for name in before if name.endswith("png")]) == (1 if options else 6) and not list(
        out.glob(".tmp-*")
    )
    assert inpaint(trained, photos, "--out", out, *options) == 0
    assert "1 of 3 images are restored already and left as they are (--again restores them)" in capsys.readouterr().out
    after = times(out)
    assert {name: when for name, when in after.items() if name in before and name.endswith("png")} == {
        name: when for name, when in before.items() if name.endswith("png")
    }
    assert inpaint(trained, photos, "--out", out, *options) == 0 and times(out) == after
    assert inpaint(trained, photos, "--out", out, *options, "--again") == 0
    again = times(out)
    assert again.keys() == after.keys() and all(again[name] > after[name] for name in after)


def test_of_a_folder_bad_files_are_named_together_and_the_rest_is_restored(
    trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo().save(photos / "cut.jpg")
    (photos / "cut.jpg").write_bytes((photos / "cut.jpg").read_bytes()[:700])
    (photos / "empty.png").touch()
    (photos / "old.psd").write_bytes(b"8BPS")
    photo().resize((30, 30)).save(photos / "small.png")
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    assert inpaint(trained, photos, "--out", photos.parent / "out") == 1
    said = capsys.readouterr()
    assert "error: 3 of 6 images were not restored:" in said.err and "3 restored" in said.out
    for name in (
        "cut.jpg: ",
        "empty.png: the file is empty",
        "small.png",
        "old.psd: 1 .psd image is not read",
        "gone.png",
    ):
        assert name in said.err
    assert said.out.index("empty.png: the file is empty") < said.out.index("out/0: 0.png restored"), "before the work"
    assert {path.name for path in (photos.parent / "out").iterdir()} == {"0", "1", "2"}


def test_results_among_the_images_are_not_restored_again(
    trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos / "out"
    for _ in range(2):
        assert inpaint(trained, photos, "--out", out) == 0
    assert len(list(out.rglob("*.png"))) == 18
    assert "out/0/high.png and 17 more are results of this package, and left out" in capsys.readouterr().out
    # Wherever they were moved to, and however they were made.
    (out / "0" / "mean.png").rename(photos / "moved.png")
    assert inpaint(trained, photos, "--out", photos.parent / "other") == 0
    assert {path.name for path in (photos.parent / "other").iterdir()} == {"0", "1", "2"}
    assert inpaint(trained, photos / "moved.png", "--out", photos.parent / "named") == 0


def test_results_under_the_names_of_images_are_not_restored_again(trained: Path, photos: Path) -> None:
    photo().save(photos / "3.jpg")
    assert inpaint(trained, photos, "--as-input", "--out", photos / "out") == 0
    assert inpaint(trained, photos, "--as-input", "--out", photos.parent / "other") == 0
    assert {path.name for path in (photos.parent / "other").iterdir()} == {
        "0.png", "1.png", "2.png", "3.jpg", "restorations.jsonl"
    }  # fmt: skip


def test_images_are_never_overwritten_by_their_results(
    trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    assert inpaint(trained, photos, "--as-input", "--out", photos) == 2
    assert f"--out: {photos} holds 0.png of another origin; name another folder" in capsys.readouterr().err
    assert inpaint(trained, photos / "0.png", "--out", photos / "1.png") == 2
    assert inpaint(trained, photos / "0.png", "--as-input", "--out", photos) == 2
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before


def test_photographs_of_one_name_and_other_settings_have_places_of_their_own(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos.parent / "in").mkdir()
    photo(seed=9).save(photos.parent / "in" / "0.png")
    made = [(photos / "0.png", 0), (photos.parent / "in" / "0.png", 0), (photos / "0.png", 1), (photos / "0.png", 0)]
    for image, seed in made:
        assert inpaint(run, image, "--seed", seed) == 0
    said = capsys.readouterr().out
    assert f"{run / 'restored-0'} holds restorations of another image; these go to {run / 'restored-0-2'}" in said
    assert f"{run / 'restored-0'} holds restorations with other settings; these go to {run / 'restored-0-3'}" in said
    records = [json.loads((run / f"restored-0{n}" / "restoration.json").read_text()) for n in ("", "-2", "-3")]
    assert [(Path(record["image_path"]), record["seed"]) for record in records] == made[:3]
    assert not (run / "restored-0-4").exists()


@pytest.mark.parametrize(("n", "what"), [(1, "restored-0"), (3, "mean")])
def test_a_named_file_is_the_restoration_or_the_mean(trained: Path, photos: Path, n: int, what: str) -> None:
    folder, options = photos.parent / "folder", ("--n", n, "--method", "pigdm")
    assert inpaint(trained, photos / "0.png", "--out", folder, *options) == 0
    assert inpaint(trained, photos / "0.png", "--out", photos.parent / "result.tif", *options) == 0
    with Image.open(photos.parent / "result.tif") as made, Image.open(folder / f"{what}.png") as expected:
        assert made.format == "TIFF" and np.array_equal(np.asarray(made), np.asarray(expected))
    assert inpaint(trained, photos / "0.png", "--out", photos.parent / "new" / "result.png", *options) == 0
    assert figures.read_info(photos.parent / "new" / "result.png")["n"] == n
    assert {path.name for path in (photos.parent / "new").iterdir()} == {"result.png"}


def test_a_jpeg_comes_back_in_its_own_name_and_format(trained: Path, photos: Path) -> None:
    turned = photo().transpose(Image.Transpose.ROTATE_90)
    turned.save(photos / "3.jpg", quality=90, exif=exif(orientation=6), dpi=(200, 100), comment=b"hello")
    assert inpaint(trained, photos / "3.jpg", "--as-input", "--out", photos.parent / "out") == 0
    with Image.open(photos / "3.jpg") as given, Image.open(photos.parent / "out" / "3.jpg") as made:
        assert made.size == (WIDTH, HEIGHT) and made.quantization == given.quantization
        assert made.info["dpi"] == (100, 200) and made.info["comment"] == b"hello" and 274 not in made.getexif()
        values = np.asarray(ImageOps.exif_transpose(given)).astype(int)
        far = np.ones((HEIGHT, WIDTH), bool)
        far[HEIGHT // 3 - 16 : HEIGHT * 7 // 12 + 16, WIDTH // 3 - 16 : WIDTH * 7 // 12 + 16] = False
        # Blocks that the filling does not reach are compressed by the same tables, so that they hardly change.
        assert np.abs(np.asarray(made) - values)[far].mean() < 1


def test_each_process_of_two_commands_at_once_keeps_what_it_wrote(
    trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found the folder free; the one that ends later gives way."""
    out, write = photos.parent / "out", results.write

    def overtaken(*rest: object, **more: object) -> Path:
        monkeypatch.undo()
        assert inpaint(trained, photos / "0.png", "--out", out, "--seed", 7) == 0
        return write(*rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(results, "write", overtaken)
    assert inpaint(trained, photos / "0.png", "--out", out) == 0
    seeds = [json.loads((folder / "restoration.json").read_text())["seed"] for folder in (out, out.with_name("out-2"))]
    assert seeds == [7, 0]


def test_a_mask_that_is_not_there_is_a_mistake_of_the_command(
    trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos.parent / "mask.png").rename(photos.parent / "masks.png")
    arguments = ["inpaint", trained, photos, "--mask", photos.parent / "mask.png", *QUICK]
    assert cli.main([str(a) for a in arguments]) == 2
    assert "--mask: " in (message := capsys.readouterr().err) and "mask.png is not there" in message
