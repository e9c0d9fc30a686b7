from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from diffusion.page.answers import Refusal
from diffusion.page.site import Site
from tests.page.calls import make_run


def test_runs_have_their_paths_below_the_folder_as_names(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "deep" / "b c")
    site = Site(tmp_path)
    assert {*site.summaries()} == {*site.folders()} == {"a", "deep/b c"}
    assert site.run("deep/b c").path == tmp_path / "deep" / "b c"
    assert site.summaries()["deep/b c"]["name"] == "deep/b c"


def test_the_one_run_of_a_folder_that_is_a_run_has_its_name(tmp_path: Path) -> None:
    site = Site(make_run(tmp_path / "digits"))
    assert {*site.summaries()} == {"digits"} and site.run("digits").path == tmp_path / "digits"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/..", "../a", "/a", "a/", "a/samples", "b", "a\0", "x" * 5000, "\ud800"]
)
def test_other_names_lead_nowhere(tmp_path: Path, name: str) -> None:
    make_run(tmp_path / "root" / "a")
    make_run(tmp_path / "b")
    with pytest.raises(Refusal, match="there is no run"):
        Site(tmp_path / "root").run(name)


def test_links_that_lead_out_are_no_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere")
    make_run(tmp_path / "root" / "a")
    os.symlink(tmp_path / "elsewhere", tmp_path / "root" / "out")
    os.symlink(tmp_path / "root" / "a", tmp_path / "root" / "in")
    site = Site(tmp_path / "root")
    assert {*site.folders()} == {"a", "in"}
    with pytest.raises(Refusal):
        site.run("out")
    (tmp_path / "root" / "a" / "config.json").unlink()
    os.symlink(tmp_path / "elsewhere" / "config.json", tmp_path / "root" / "a" / "config.json")
    with pytest.raises(Refusal):
        site.run("a")


def test_a_run_that_begins_or_goes_is_known(tmp_path: Path) -> None:
    site = Site(tmp_path / "runs")
    assert site.summaries() == {}
    run = make_run(tmp_path / "runs" / "a")
    assert site.run("a").path == run
    (run / "config.json").unlink()
    assert site.summaries() == {}
    with pytest.raises(Refusal):
        site.run("a")


def test_a_summary_is_made_again_only_when_something_changed(tmp_path: Path) -> None:
    run, site = make_run(tmp_path / "a"), Site(tmp_path)
    first = site.summaries()["a"]
    assert site.summaries()["a"] is first and first["step"] == 30
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 40, "loss": 0.1, "lr": 0.1}) + "\n")
    assert site.summaries()["a"]["step"] == 40


def test_work_lies_within_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "root" / "a")
    site = Site(tmp_path / "root")
    assert site.workplace(site.run("a"), "page/uploads") == run / "page" / "uploads"
    (tmp_path / "outside").mkdir()
    (run / "page" / "uploads").rmdir()
    os.symlink(tmp_path / "outside", run / "page" / "uploads")
    with pytest.raises(Refusal, match="leads out") as caught:
        site.workplace(site.run("a"), "page/uploads/x")
    assert caught.value.status == 404 and [*(tmp_path / "outside").iterdir()] == []


def test_a_run_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    run, site = make_run(tmp_path / "a"), Site(tmp_path)
    (run / "page").write_text("a file is in the way")
    with pytest.raises(Refusal, match="cannot be written to") as caught:
        site.workplace(site.run("a"), "page/uploads")
    assert caught.value.status == 507
