"""What results are asked for, and under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion.commands.options import DrawArguments, Inpaint, Restorations
from diffusion.commands.photographs.listing import ImageFile
from diffusion.commands.photographs.places import Request
from diffusion.commands.photographs.targets import Targets
from diffusion.errors import InputError

REQUEST = Request.of(Inpaint(Path("run"), ()), "weights")


def options(**more: object) -> Restorations:
    return Restorations(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": True}, "--mean: needs --as-input"),
        ({"as_input": True, "out": Path("x.png")}, "--out: must be a folder with --as-input, got x.png"),
        ({"as_input": True, "draw": DrawArguments(n=8)}, "--n: must be left out with --as-input"),
        ({"out": Path("x.psd")}, "--out: images are not written as .psd; name it x.png, or name a folder"),
    ],
)
def test_options_that_do_not_go_together_are_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Targets.of(options(**given))


def test_one_restoration_is_drawn_under_the_name_of_an_image_and_all_for_their_mean() -> None:
    assert Targets.of(options(as_input=True)).options.draw.n == 1
    mean = Targets.of(options(as_input=True, mean=True, draw=DrawArguments(n=8)))
    assert mean.options.draw.n == 8 and mean.mean and not Targets.of(options(as_input=True)).mean


def test_a_named_file_holds_the_mean_of_several(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"1")
    file = ImageFile(path, None, Path("x"))
    named = Targets.of(options(out=tmp_path / "result.jpg"))
    assert named.mean and not Targets.of(options(out=tmp_path / "r.png", draw=DrawArguments(n=1))).mean
    [place], _ = named.places(REQUEST, [file], tmp_path, [path], alone=True)
    assert place.path == tmp_path / "result.jpg"
    with pytest.raises(InputError, match=r"result\.jpg is one file, but there are 2 images; name a folder"):
        named.places(REQUEST, [file, file], tmp_path, [tmp_path], alone=False)
    (tmp_path / "result.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"result\.jpg is there already; name another file"):
        named.places(REQUEST, [file], tmp_path, [path], alone=True)


def test_names_and_folders_are_those_of_the_images(tmp_path: Path) -> None:
    names = ("a.jpg", "in/b.tif", "c.gif", "d.npy")
    files = []
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(name.encode())
        files.append(ImageFile(path, None, Path(name).with_suffix("")))
    places, _ = Targets.of(options(as_input=True)).places(REQUEST, files, tmp_path, [tmp_path / "photos"], alone=False)
    found = [place.path.relative_to(tmp_path / "restored-photos").as_posix() for place in places]
    assert found == ["a.jpg", "in/b.tif", "c.gif.png", "d.npy.tif"]


def test_a_place_that_cannot_be_written_to_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after it."""
    file = ImageFile(tmp_path / "x.png", None, Path("x"))
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path / "notes.txt" / "in" / "it", tmp_path / "notes.txt" / "x.png"):
        with pytest.raises(InputError, match=r"--out: .*notes\.txt is no folder; name another one"):
            Targets.of(options(out=out)).places(REQUEST, [file], tmp_path, [file.path], alone=True)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    for out in (tmp_path / "new" / "folder", tmp_path / "new.png", None):
        with pytest.raises(InputError, match=r"--out: nothing can be written to .*; name another folder"):
            Targets.of(options(out=out)).places(REQUEST, [file], tmp_path, [file.path], alone=True)
