"""Results have places of their own: the same ones are found again, others are never mixed with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffusion.commands.options import DrawArguments, Inpaint, Restorations
from diffusion.commands.photographs.listing import ImageFile
from diffusion.commands.photographs.places import Places, Request
from diffusion.errors import InputError

COMMAND = Inpaint(Path("run"), (Path("x.png"),), options=Restorations(DrawArguments(n=2)))
REQUEST = Request.of(COMMAND, "weights")


def image(folder: Path, name: str, data: bytes = b"1", mask: bytes | None = None) -> ImageFile:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.png").write_bytes(data)
    if mask is not None:
        (folder / "mask.png").write_bytes(mask)
    return ImageFile(folder / f"{name}.png", folder / "mask.png" if mask is not None else None, Path(name))


def finish(place: Path, request: Request, file: ImageFile) -> None:
    place.mkdir(parents=True)
    (place / "restoration.json").write_text(json.dumps(request.record(file, 0)))


def changed(**options: object) -> Request:
    return Request.of(replace(COMMAND, **options), "weights")  # type: ignore[arg-type]


def test_the_same_results_are_found_again_wherever_the_files_lie_now(tmp_path: Path) -> None:
    file = image(tmp_path / "a", "x")
    root = tmp_path / "out"
    [place], line = Places(REQUEST, [file], root, alone=True)()
    assert place.path == root and not place.done and not line
    finish(root, REQUEST, file)
    moved = image(tmp_path / "b", "x")
    [place], line = Places(REQUEST, [moved], root, alone=True)()
    assert place.path == root and place.done and not line
    [place], _ = Places(REQUEST, [moved], root, alone=True, again=True)()
    assert place.path == root and not place.done


@pytest.mark.parametrize(
    ("request_now", "data", "mask", "what"),
    [
        (REQUEST, b"2", None, "restorations of another image"),
        (REQUEST, b"1", b"m", "restorations with another mask"),
        (changed(grow=2), b"1", None, "restorations with other settings"),
        (changed(options=Restorations(DrawArguments(n=2, seed=1))), b"1", None, "restorations with other settings"),
        (Request.of(COMMAND, "other weights"), b"1", None, "restorations by another model"),
    ],
)
def test_other_results_get_another_place_or_are_refused(
    tmp_path: Path, request_now: Request, data: bytes, mask: bytes | None, what: str
) -> None:
    root = tmp_path / "out"
    finish(root, REQUEST, image(tmp_path / "a", "x"))
    other = image(tmp_path / "b", "x", data, mask)
    [place], line = Places(request_now, [other], root, alone=True)()
    assert place.path == tmp_path / "out-2" and not place.done
    assert line == f"{root} holds {what}; these go to {tmp_path / 'out-2'}"
    with pytest.raises(InputError, match=f"--out: .*out holds {what}; name another folder"):
        Places(request_now, [other], root, alone=True, explicit=True)()


def test_where_the_run_lies_and_how_fast_it_goes_make_no_other_results(tmp_path: Path) -> None:
    same = replace(COMMAND, run=Path("elsewhere"), options=Restorations(DrawArguments(n=2, batch=7), out=Path("o")))
    assert Request.of(same, "weights").settings == REQUEST.settings


def test_pictures_of_unknown_origin_are_not_overwritten(tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    (root / "notes.txt").write_text("mine")
    assert Places(REQUEST, [image(tmp_path / "a", "x")], root, alone=True)()[0][0].path == root
    (root / "restored-0.png").write_bytes(b"x")
    [place], line = Places(REQUEST, [image(tmp_path / "a", "x")], root, alone=True)()
    assert place.path == tmp_path / "out-2" and "holds pictures of another origin" in line


def test_within_a_folder_of_results_a_changed_image_gets_a_place_beside(tmp_path: Path) -> None:
    files = [image(tmp_path / "a", name) for name in "xy"]
    root = tmp_path / "out"
    for file in files:
        finish(root / file.folder, REQUEST, file)
    changed_file = image(tmp_path / "a", "y", b"longer")
    first, second = Places(REQUEST, [files[0], changed_file], root, alone=False)()[0]
    assert first.done and first.path == root / "x" and not second.done and second.path == root / "y-2"
