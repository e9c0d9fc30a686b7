"""Files of a job by their roles, and what exit codes mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion.errors import InputError
from diffusion.page import work
from diffusion.page.work.kind import File, ended, named, numbered
from diffusion.page.work.place import Place


def test_files_are_numbered_by_the_end_of_their_names(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path / "job")
    place.out.mkdir(parents=True)
    for name in ("restored-10.png", "restored-2.png", "mean.png"):
        (place.out / name).write_text("")
    assert numbered(place, place.out.glob("restored-*"), "variant") == [
        File("result/restored-2.png", "variant", 2),
        File("result/restored-10.png", "variant", 10),
    ]
    assert named(place, {"std.png": "deviation", "mean.png": "mean"}) == [File("result/mean.png", "mean")]
    assert File("a", "frame", 0, 0.0).to_dict() == {"name": "a", "role": "frame", "index": 0, "log_snr": 0.0}
    assert File("a", "film").to_dict() == {"name": "a", "role": "film"}


def test_exit_codes_are_what_commands_have_caught() -> None:
    ended(0)
    with pytest.raises(KeyboardInterrupt):
        ended(130)
    with pytest.raises(InputError, match="not all of it"):
        ended(1)


@pytest.mark.parametrize("kind", sorted(work.KINDS))
def test_every_kind_names_options_that_it_does_not_have_and_makes_no_files_of_nothing(
    kind: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"^sed: is no option of {kind}"):
        work.parse(kind, {"sed": 1, **({"a": {}, "b": {}} if kind == "interpolate" else {})})
    made = work.parse(kind, {"a": {}, "b": {}} if kind == "interpolate" else {})
    assert made.files(Place(tmp_path, tmp_path)) == []


@pytest.mark.parametrize("kind", [None, 3, "", "Sample", ["sample"], "../sample"])
def test_other_kinds_are_refused(kind: object) -> None:
    with pytest.raises(InputError, match=r"^kind: must be one of degrade, .*, got "):
        work.parse(kind, {})
