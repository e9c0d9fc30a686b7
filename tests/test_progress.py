"""Progress is a bar on a terminal, and lines without carriage returns in files and pipes."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion import progress
from diffusion.progress import Lines, bar, duration, preview, say, told, track
from tests.conftest import HANGS_S

ROOT = Path(__file__).parents[1]


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_long_work_is_a_line_after_ten_seconds_one_every_minute_and_one_at_its_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with bar(2000, "sampling", "image", done=200) as moving:
        for _ in range(170):
            clock.now += 1
            moving.update(10)
        moving.update(0)
    text = capsys.readouterr().err
    assert text.splitlines() == [
        "sampling: image 300 of 2,000 (15%), 00:10 passed, 02:50 left, 10/s",
        "sampling: image 900 of 2,000 (45%), 01:10 passed, 01:50 left, 10/s",
        "sampling: image 1,500 of 2,000 (75%), 02:10 passed, 00:50 left, 10/s",
        "sampling: image 1,900 of 2,000 (95%), 02:50 passed, 00:10 left, 10/s",
    ]
    assert "\r" not in text and text.endswith("\n")


def test_short_work_says_nothing_unless_it_is_to_report(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert [*track(range(5), 5, "comparing", "image")] == [*range(5)]
    assert capsys.readouterr().err == ""
    with bar(4, "training", "step", report=True) as moving:
        for step in range(4):
            clock.now += 2
            moving.update()
            moving.set_postfix_str(f"loss {step}")
    assert capsys.readouterr().err.splitlines() == [
        "training: step 1 of 4 (25%), 00:02 passed, 00:06 left, 0.5/s, loss 0",
        "training: step 4 of 4 (100%), 00:08 passed, 00:00 left, 0.5/s, loss 3",
    ]


def test_a_total_that_is_not_known_is_left_out(clock: Clock) -> None:
    lines = Lines(None, "packing", "file")
    assert str(lines) == "packing: file 0, 00:00 passed"
    clock.now += 2
    lines.update(2500)
    assert str(lines) == "packing: file 2,500, 00:02 passed, 1,250/s"


def test_what_is_not_shown_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(10, "sampling", "image", show=False, report=True) as moving:
        moving.update(10)
        moving.set_postfix_str("x")
        assert [*track(range(3), 3, "comparing", "image", show=False)] == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_and_a_notebook_draw_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert progress.draws(Terminal()) and not progress.draws(io.StringIO()) and not progress.draws(None)
    monkeypatch.setattr(progress.auto, "notebook_tqdm", object())
    assert progress.draws(io.StringIO())
    monkeypatch.undo()
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with bar(2, "sampling", "image") as moving:
        moving.update(2)
    assert "\rsampling: 100%" in shown.getvalue()


def test_a_line_is_printed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("first")
    assert capsys.readouterr().out == "first\n"


SPEAK = """
import sys
from diffusion.progress import Lines, say
sys.stdin.readline()
for _ in range(3):
    say("x")
with Lines(1, "training", "step", report=True) as lines:
    lines.update()
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_where_nobody_reads_any_more_the_work_goes_on(terminal: bool) -> None:
    ours, theirs = pty.openpty() if terminal else os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", SPEAK], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, cwd=ROOT
    )
    os.close(theirs)
    os.close(ours)
    child.communicate(b"\n", timeout=HANGS_S)
    assert child.returncode == 0


def test_durations_are_told_in_the_unit_that_suits() -> None:
    durations = {
        **{0.0: "1 s", 1.4: "1 s", 59.4: "59 s", 59.6: "1.0 min", 600: "10 min", 5399: "1.5 h", 7300: "2.0 h"},
        **{172_799: "48 h", 3e5: "3.5 days", 864_000: "10 days", 1e9: "32 years"},
    }
    assert {seconds: duration(seconds) for seconds in durations} == durations


def test_who_listens_is_told_instead_of_anything_being_written(capsys: pytest.CaptureFixture[str]) -> None:
    moved: list[tuple[str, float, int | None, str]] = []
    looked: list[object] = []
    preview(lambda: pytest.fail("nobody listens"))
    with told(lambda *what: moved.append(what), lambda make: looked.append(make())):
        with bar(4, "sampling", "image", report=True) as moving:
            moving.set_postfix_str("fast")
            preview(lambda: "a picture", 0.5)
            moving.update(3)
            with bar(None, "inside", "tile") as inner:
                inner.update(2)
            moving.update(1)
        with bar(9, "hidden", "image", show=False) as hidden:
            hidden.update(9)
        preview(lambda: "another", 0.5)
    assert moved == [
        *(("sampling", done, 4, "image") for done in (0, 0.5, 3)),
        *(("inside", done, None, "tile") for done in (0, 2)),
        ("sampling", 4, 4, "image"),
    ]
    assert looked == ["a picture", "another"]
    with told(lambda *what: None), bar(1, "sampling", "image"):
        preview(lambda: pytest.fail("nobody looks"))
    assert capsys.readouterr() == ("", "")
    assert isinstance(bar(1, "sampling", "image"), Lines) and len(moved) == 6
