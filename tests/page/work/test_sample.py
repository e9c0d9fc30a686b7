"""Samples are those of `diffusion sample`, and the film has the log-SNR of its frames."""

from __future__ import annotations

import pytest

from diffusion import cli
from diffusion.errors import InputError
from diffusion.page.work import parse
from tests.conftest import image_of
from tests.page.bench import Bench


def test_samples_are_those_of_the_command(bench: Bench) -> None:
    job = bench.do("sample", n=3, seed=5, steps=4, label="square", sampler="ddpm", film=True)
    files = {role: [file for file in job.files if file["role"] == role] for role in ("sample", "frame", "film")}
    out = bench.run.parent / "by-command"
    options = ("--n", "3", "--seed", "5", "--steps", "4", "--label", "square", "--sampler", "ddpm")
    assert cli.main(["sample", str(bench.run), *options, "--out", str(out)]) == 0
    assert [file["index"] for file in files["sample"]] == [0, 1, 2]
    for number, file in enumerate(files["sample"]):
        assert image_of(bench.path(job, file["name"])).equal(image_of(out / f"{number:05d}.png"))
    levels = [file["log_snr"] for file in files["frame"]]
    assert len(levels) == 5 and levels == sorted(levels) and len(files["film"]) == 1
    assert (job.done, job.total, job.unit, job.title) == (3, 3, "image", "filming")
    assert {"role": "archive", "name": "all.zip"} in [dict(file) for file in job.files]
    assert job.preview >= 1 and str(bench.queue.preview(job.id)).endswith("preview.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 100_000}, "n: must be less than or equal to 1024, got 100000"),
        ({"n": 0}, "n: must be greater than or equal to 1, got 0"),
        ({"n": "3"}, "n: must be a valid integer, got '3'"),
        ({"n": True}, "n: must be a valid integer, got True"),
        ({"steps": 10**9}, "steps: must be less than or equal to 1000, got 1000000000"),
        ({"seed": -1}, "seed: must be greater than or equal to 0, got -1"),
        ({"seed": 2**70}, "seed: must be less than or equal to 9007199254740991, got "),
        ({"guidance": 1e300}, "guidance: must be less than or equal to 100, got 1e[+]300"),
        ({"sampler": "rm -rf"}, "sampler: must be 'ddpm', .*, got 'rm -rf'"),
        ({"label": "x" * 300}, "label: must have at most 200 characters, got 'xxx"),
        ({"out": "/tmp"}, "out: is no option of sample; there are seed, label"),
        ({"film": 1}, "film: must be a valid boolean, got 1"),
    ],
)
def test_hostile_values_are_refused_with_the_bound(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        parse("sample", options)


def test_a_class_that_the_model_does_not_know_fails_with_the_line_of_the_command(bench: Bench) -> None:
    assert "label" in bench.fails("sample", label="triangle")
