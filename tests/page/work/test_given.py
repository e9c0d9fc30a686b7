"""Options of jobs within their bounds, and images by their ids."""

from __future__ import annotations

import pytest

from diffusion.errors import InputError
from diffusion.page.work import parse
from diffusion.page.work.degrade import Degrade
from diffusion.page.work.given import Image
from diffusion.page.work.place import Place
from tests.page.bench import Bench, give

ID = "0123456789abcdef"


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        ("kernel:file=/etc/passwd", "kernel, which reads a file of this machine"),
        ("gray+ Kernel :file=x", "kernel, which reads a file of this machine"),
        ("blur:sigma=1e6", "numbers above 360"),
        ("blur:sigma=nan", "numbers above 360"),
        ("gray+blur:length=3,sigma=-999", "numbers above 360"),
        ("+".join(["gray"] * 9), "at most 8 parts"),
        ("x" * 501, "at most 500 characters"),
        ("", "at least 1 character"),
    ],
)
def test_operators_that_ask_for_too_much_are_refused(operator: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^operator: must .*{said}.*, got "):
        parse("degrade", {"upload": ID, "operator": operator})


def test_other_operators_are_taken() -> None:
    for operator in ("gray", "blur:sigma=2.5+downsample:factor=4,filter=bicubic", "jpeg:quality=10", "nothing known"):
        found = parse("degrade", {"upload": ID, "operator": operator})
        assert isinstance(found, Degrade) and found.operator == operator


@pytest.mark.parametrize("given", ["../../etc", "", "0123456789ABCDEF", f"{ID}\n", f"{ID}0", 3, [ID], {"a": ID}])
def test_an_id_is_nothing_but_hexadecimal_digits(given: object) -> None:
    for field in ("upload", "job", "mask"):
        with pytest.raises(InputError, match=f"^{field}: must be "):
            parse("inpaint", {field: given})


def test_an_image_is_an_upload_or_a_file_of_a_job(pretended: Bench, jpeg: str) -> None:
    upload, place = jpeg, Place(pretended.run, pretended.run)
    assert Image(upload).path(place, "a").name == "x.jpg"
    job = pretended.do("sample")
    assert Image(job=job.id, file="result/00000.png").path(place, "a").read_bytes() == b"whole"
    for wrong in (Image(), Image(upload, job.id, "x"), Image(job=job.id), Image(file="x"), Image(upload, file="x")):
        with pytest.raises(InputError, match=r"^a: must be the id of an upload, or a job"):
            wrong.path(place, "a")


@pytest.fixture
def jpeg(pretended: Bench) -> str:
    from PIL import Image as Pillow

    path = pretended.run.parent / "x.jpg"
    Pillow.new("RGB", (4, 4)).save(path)
    return give(pretended.run, path)
