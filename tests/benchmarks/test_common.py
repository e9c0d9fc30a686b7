from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.common import Contestant, Goal, Spread, Timing, alternate, apart, finish, machine, table


class Clock:
    """Seconds that pass only when a contestant is called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds
            self.calls.append(name)

        return run


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.25, 1.75)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)
    assert str(Spread(1234.5, 0.01234, 12.34)) == "1234 (0.0123-12.3)"


def test_a_rate_is_work_per_second_and_its_quartiles_those_of_the_rates() -> None:
    timing = Timing((1.0, 2.0, 4.0), work=8.0)
    assert timing.rate() == Spread(4.0, 3.0, 6.0)
    assert timing.rate(4.0) == Spread(2.0, 1.5, 3.0)
    assert timing.spread == Spread(2.0, 1.5, 3.0)


def test_a_ratio_pairs_the_calls_of_a_round() -> None:
    # The machine was three times slower in the second round; the pairs do not notice.
    ours, theirs = Timing((1.0, 3.0, 1.0), work=10.0), Timing((4.0, 12.0, 4.0), work=20.0)
    assert ours.over(theirs) == Spread(2.0, 2.0, 2.0)
    assert theirs.over(ours) == Spread(0.5, 0.5, 0.5)


def test_contestants_take_turns_back_and_forth_after_their_warm_up() -> None:
    clock = Clock()
    contestants = {"a": Contestant(clock.call("a", 1.0), 3.0), "b": Contestant(clock.call("b", 2.0))}
    timings = alternate(contestants, rounds=3, warmup=2, clock=clock)
    assert "".join(clock.calls) == "aabb" + "ab" + "ba" + "ab"
    assert timings == {"a": Timing((1.0,) * 3, 3.0), "b": Timing((2.0,) * 3, 1.0)}


@pytest.mark.parametrize(("budget", "rounds"), [(0.0, 3), (3.5, 4), (4.5, 5), (math.inf, 6)])
def test_a_budget_ends_the_rounds_but_not_before_the_third(budget: float, rounds: int) -> None:
    clock = Clock()
    timings = alternate({"a": Contestant(clock.call("a", 1.0))}, rounds=6, budget=budget, clock=clock)
    assert len(timings["a"].seconds) == rounds


def test_fewer_rounds_than_three_are_kept_to() -> None:
    clock = Clock()
    assert len(alternate({"a": Contestant(clock.call("a", 1.0))}, rounds=1, budget=0.0, clock=clock)["a"].seconds) == 1


def test_a_device_may_time_the_calls_itself() -> None:
    clock = Clock()
    timings = alternate({"a": Contestant(clock.call("a", 1.0))}, rounds=2, seconds=lambda call: call() or 0.25)
    assert timings["a"].seconds == (0.25, 0.25) and clock.calls == ["a"] * 3


def test_a_table_aligns_and_leaves_blank_what_a_row_does_not_have() -> None:
    assert table([{"name": "a", "value": 1.25}, {"name": "long", "more": Spread(2.0, 1.0, 3.0)}]).splitlines() == [
        "name  value  more",
        "----  -----  ----------------",
        "a     1.25",
        "long         2.00 (1.00-3.00)",
    ]


@pytest.mark.parametrize(
    ("value", "direction", "met"),
    [
        (3.0, "at least", True),
        (2.9, "at least", False),
        (3.0, "at most", True),
        (3.1, "at most", False),
        (math.nan, "at least", False),
        (math.nan, "at most", False),
    ],
)
def test_a_goal_is_met_on_its_bound_and_never_by_what_was_not_measured(value: float, direction: str, met: bool) -> None:
    assert Goal("speed", value, 3.0, direction).met is met  # type: ignore[arg-type]


GOALS = [Goal("speed", 2.5, 3.0), Goal("memory", 5.0, 4.0, "at most"), Goal("share", 0.7, 0.6)]


def test_the_check_exits_with_1_and_a_last_line_that_names_each_missed_goal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        finish(GOALS, {}, tmp_path / "out.json", check=True)
    assert exit.value.code == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "missed: speed 2.50 (at least 3.00); memory 5.00 (at most 4.00)"


def test_without_a_miss_or_a_check_nothing_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(GOALS[2:], {}, tmp_path / "met.json", check=True)
    finish(GOALS, {}, tmp_path / "missed.json", check=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [
        "MISSED speed 2.50 (at least 3.00)",
        "MISSED memory 5.00 (at most 4.00)",
        "met    share 0.700 (at least 0.600)",
    ]


def test_the_record_holds_the_machine_the_tables_and_the_goals(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "out.json"
    with pytest.raises(SystemExit):
        finish(GOALS, {"Training": [{"name": "a", "images/s": Spread(2.0, 1.0, 3.0)}]}, path, check=True)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["machine"] == machine()
    assert record["tables"] == {"Training": [{"name": "a", "images/s": {"median": 2.0, "low": 1.0, "high": 3.0}}]}
    assert [goal["met"] for goal in record["goals"]] == [False, False, True]
    speed = {"name": "speed", "value": 2.5, "bound": 3.0, "direction": "at least", "needs": "", "met": False}
    assert record["goals"][0] == speed
    assert [file.name for file in path.parent.iterdir()] == ["out.json"]


def test_a_goal_that_needs_what_is_not_here_is_neither_met_nor_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    goals = [Goal("speed", math.nan, 3.0, needs="diffusers"), *GOALS[2:]]
    finish(goals, {}, tmp_path / "out.json", check=True)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "not measured speed nan (at least 3.00, needs diffusers)",
        "met    share 0.700 (at least 0.600)",
    ]
    assert not json.loads((tmp_path / "out.json").read_text())["goals"][0]["met"]


def test_a_figure_that_was_not_measured_is_null_in_the_record(tmp_path: Path) -> None:
    finish([Goal("speed", math.nan, 3.0)], {}, tmp_path / "out.json", check=False)
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["goals"][0]["value"] is None


def test_the_machine_is_described_with_its_versions() -> None:
    found = machine()
    assert found["device"] == "cpu" and int(found["cores"]) >= 1
    assert {"date", "cpu", "python", "torch", "diffusion", "diffusers", "denoising-diffusion-pytorch"} <= found.keys()


def test_a_contestant_in_its_own_process_runs_and_reports_its_failures(tmp_path: Path) -> None:
    with apart(partial(partial, (tmp_path / "made").mkdir)) as call:
        assert not (tmp_path / "made").exists()
        call()
        assert (tmp_path / "made").is_dir()
        with pytest.raises(RuntimeError, match="FileExistsError"):
            call()
