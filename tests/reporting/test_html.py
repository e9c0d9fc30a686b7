"""Reports hold what the run says, nothing that runs or is fetched, in bounded bytes, and are whole at any moment."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from diffusion import files
from diffusion.reporting import html
from diffusion.reporting.html import BUDGET, GRIDS, write_comparison, write_report
from diffusion.reporting.run_folder import RunFolder

HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u202e\x00"


class Reader(HTMLParser):
    """What a page says: its texts, its elements with their attributes, and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text, self._open = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = str(dict(attrs).get("type")) if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.scripts[self._open] = self.scripts.get(self._open, "") + data
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def drawn(self) -> dict[str, list[dict[str, object]]]:
        return json.loads(self.scripts["application/json"])  # type: ignore[no-any-return]


def noise(path: Path, side: int, seed: int, **facts: object) -> None:
    """Writes a picture that no encoder makes smaller, with metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    info.add_text("diffusion", json.dumps(facts))
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, pnginfo=info)


def made(run: Path, rows: int = 3, grids: int = 3, side: int = 16) -> Path:
    """Makes a run folder of generated numbers and pictures."""
    run.mkdir(parents=True)
    values = {"training": {"steps": rows, "batch": 8, "lr": 0.01}, "data": {"path": f"photos {HOSTILE}"}}
    (run / "config.json").write_text(json.dumps(values))
    lines = [
        {"step": i + 1, "loss": 1 / (i + 1), "images_per_s": 4.0, "held_out/total_bits_per_dim": 3 + 1 / (i + 1),
         "held_out/total_bits_per_dim_se": 0.01}
        for i in range(rows)
    ]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for i in range(grids):
        noise(run / "samples" / f"step-{i + 1:08d}.png", side, i, step=i + 1)
    noise(run / "samples" / "real.png", side, 0)
    noise(run / "film.png", side, 1)
    noise(run / "loss_by_log_snr.png", side, 2, step=rows, log_snr=[[-2, 0.5], [2, 0.25]], marks={"collapse": 1.5})
    return run


def test_a_report_shows_a_trained_run(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "birds")
    page = Reader(write_report(run).read_text())
    folder = RunFolder(run)
    assert folder.evaluation is not None
    total = folder.evaluation["terms"]["total"]
    assert f"{total['mean']:.2f}"[:4] in page.text and "bits/dim" in page.text
    for words in ("birds", "finished", "40 of 40", "8 × 8 pixels", "disk, square", "training.", "step 20", "step 40"):
        assert words.removesuffix(".") in page.text, words
    commands = ("diffusion sample", "--label disk", "diffusion inpaint", "diffusion evaluate")
    assert all(command in page.text for command in commands)
    # Every value of the configuration is there, and the pictures are.
    for section, values in folder.config.items():
        assert section in page.text and all(key in page.text for key in values)
    alts = [image["alt"] for image in page.of("img")]
    assert {"step 20", "step 40", "real examples", "From noise to samples"} <= set(alts)
    assert page.drawn["runs"][0]["curves"]["loss"]["x"] == [*range(1, 41)]  # type: ignore[index]
    clocks = json.loads((run / "clocks.json").read_text())
    assert {mark["name"]: mark["at"] for mark in page.drawn["marks"]}["speciation"] == clocks["speciation"][0]


def test_a_report_runs_and_fetches_nothing_but_itself(tmp_path: Path) -> None:
    text = write_report(made(tmp_path / "run")).read_text()
    page = Reader(text)
    policy = next(meta["content"] for meta in page.of("meta") if "http-equiv" in meta)
    assert policy is not None and "default-src 'none'" in policy and "unsafe" not in policy
    assert html._hash(page.scripts["module"]) in policy
    assert html._hash(re.findall(r"<style>(.*?)</style>", text, re.DOTALL)[0]) in policy
    assert [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "base", "form")] == []
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:image/", "data:", "#"))
    assert len(page.of("script")) == 2 and "import " not in page.scripts["module"].split("/**")[0]


@pytest.mark.parametrize("name", ["</title><script>alert(1)</script>", "a\udcffb", "b'\"&<i>"])
def test_hostile_names_are_text(tmp_path: Path, name: str) -> None:
    run = made(tmp_path / name.replace("/", "∕"))
    with (run / "incidents.jsonl").open("w") as file:
        file.write(json.dumps({"step": 1, "line": f"left out {HOSTILE}.png"}) + "\n")
    text = write_report(run).read_text(encoding="utf-8")
    page = Reader(text)
    assert len(page.of("script")) == 2 and page.of("i") == [] and "<!--" not in text
    assert not any(image["src"] == "x" for image in page.of("img"))
    shown = HOSTILE.replace("\u202e", "\ufffd").replace("\x00", "\ufffd")
    assert f"photos {shown}" in page.text and f"left out {shown}.png" in page.text
    assert page.drawn["runs"][0]["name"] == run.name.replace("\udcff", "\ufffd")


def test_a_thousand_reports_of_incompressible_grids_stay_in_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "run", rows=4000, grids=1, side=160)
    first = run / "samples" / "step-00000001.png"
    for step in range(2, 1001):
        os.link(first, run / "samples" / f"step-{step:08d}.png")
    for name in ("film.png", "restoration.png", "samples.png", "samples/real.png"):
        shutil.copy(first, run / name)
    with (run / "incidents.jsonl").open("w") as file:
        for step in range(1, 1001):
            file.write(json.dumps({"step": step, "line": f"step {step}: " + "long " * 500}) + "\n")
    # Every grid is of the same bytes, so that one of them is encoded for all.
    encoded = html.sections.pictures._embedded
    monkeypatch.setattr(html.sections.pictures, "_embedded", lambda path, *rest: encoded(_same(path, first), *rest))
    path = write_report(run)
    page = Reader(path.read_text())
    steps = [int(str(image["data-step"])) for image in page.of("img") if "data-step" in image]
    assert len(steps) == GRIDS and steps[0] == 1 and steps[-1] == 1000 and steps == sorted(set(steps))
    assert BUDGET / 3 < path.stat().st_size <= BUDGET
    curve = page.drawn["runs"][0]["curves"]["loss"]  # type: ignore[index]
    assert len(curve["x"]) <= 1000 and curve["x"][0] == 1 and curve["x"][-1] == 4000
    both = write_comparison([run, shutil.copytree(run, tmp_path / "other", copy_function=os.link)], tmp_path / "c.html")
    assert both.stat().st_size <= BUDGET


def _same(path: Path, first: Path) -> Path:
    return first if path.name.startswith("step-") else path


def moments(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Interrupts a write at each of its calls of the system, one after the other, until none is left to interrupt."""
    for last in range(100):
        count = itertools.count()
        with monkeypatch.context() as patch:
            for owner, name in ((files.os, "open"), (files.os, "fsync"), (Path, "write_text"), (Path, "replace")):
                patch.setattr(owner, name, _breaking(getattr(owner, name), count, last))
            yield last
        if next(count) <= last:
            return


def _breaking(call, count, last):  # noqa: ANN001, ANN202, a system call
    def broken(*args, **options):  # noqa: ANN002, ANN003, ANN202
        if next(count) == last:
            raise KeyboardInterrupt
        return call(*args, **options)

    return broken


def test_an_interruption_at_any_call_leaves_the_old_report_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path / "run", rows=2, grids=1)
    write_report(run, state="training")
    interrupted = 0
    for _ in moments(monkeypatch):
        try:
            write_report(run, state="stopped")
        except KeyboardInterrupt:
            interrupted += 1
        text = (run / "report.html").read_text(encoding="utf-8")
        assert text.endswith("</body></html>\n")
        assert [path.name for path in run.iterdir() if path.name.startswith(".tmp-")] == []
    assert interrupted >= 4


def is_whole(text: str) -> bool:
    """Whether a report ends, has its data, and its script and style are those that its policy names."""
    page = Reader(text)
    policy = str(next(meta["content"] for meta in page.of("meta") if "http-equiv" in meta))
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)[0]
    named = all(html._hash(part) in policy for part in (page.scripts["module"], style))
    return named and bool(page.drawn["runs"]) and text.endswith("</body></html>\n")


def test_a_report_is_whole_after_each_of_fifty_kills_while_it_is_rewritten(tmp_path: Path) -> None:
    run = made(tmp_path / "run", grids=1)
    write_report(run)
    path, wait, halves = run / "report.html", np.random.default_rng(0), 0
    began = time.perf_counter()
    write_report(run)
    takes = time.perf_counter() - began
    for _ in range(50):
        before, child = path.stat().st_mtime_ns, os.fork()
        if not child:
            while True:
                write_report(run)
        # At any moment of the writings that follow the first one of this process.
        while path.stat().st_mtime_ns == before:
            time.sleep(takes / 20)
        time.sleep(wait.uniform(0, 2 * takes))
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert is_whole(path.read_text(encoding="utf-8"))
        for left in run.glob(".tmp-*"):
            halves += 1
            left.unlink()
    assert halves, "some of the kills came while a file was being written"


def test_a_damaged_or_empty_run_has_a_report(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    assert "No samples yet" in Reader(write_report(run).read_text()).text
    made(broken := tmp_path / "broken")
    for name in ("config.json", "metrics.jsonl", "film.png", "samples/real.png", "samples/step-00000002.png"):
        (broken / name).write_bytes(b"\x89PNG\r\n{broken")
    page = Reader(write_report(broken).read_text())
    assert [image["alt"] for image in page.of("img")] == ["step 1", "step 3", "Loss by log-SNR"]


def test_a_comparison_shows_what_differs_and_only_that(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a" / "run"), made(tmp_path / "b" / "run", rows=5)
    page = Reader(write_comparison([first, second], tmp_path / "compare.html").read_text())
    assert [line["name"] for line in page.drawn["runs"]] == ["a/run", "b/run"]
    assert [line["name"] for line in page.drawn["levels"]] == ["a/run", "b/run"]
    assert page.drawn["marks"] == [], "those of several runs would stand over each other"
    assert "training.steps" in page.text and "training.lr" not in page.text and "data.path" not in page.text
    steps = [image["data-step"] for image in page.of("img") if "data-step" in image]
    assert steps == ["1", "2", "3"] * 2
