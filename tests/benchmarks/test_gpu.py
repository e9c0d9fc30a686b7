"""The benchmark of a GPU runs to its end on a device that is not there, and its tables are complete whatever fails."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks import flops
from benchmarks.common import Contestant, Goal
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import matched, place, shipped, smoke, waits
from benchmarks.gpu.parts import UNREACHED, Finding, Part, apart, here, measured
from benchmarks.gpu.place import Place, Waits, caller, medians, sync_debug
from benchmarks.gpu.variants import ChannelsFirst, Variant, prepare
from benchmarks.peers import Peer
from benchmarks.training import Setting
from diffusion import distributed
from tests.benchmarks.conftest import WIDTHS
from tests.pretended import Ledger, pretended

CPU = Place(torch.device("cpu"), tiny=True)
GOAL = Goal("speed", math.nan, 2.0)


def pretend(ledger: Ledger) -> Place:
    """Returns a pretended device, whose ledger knows the waits."""

    @contextmanager
    def watch() -> Iterator[Waits]:
        before, found = ledger.waits.copy(), Waits()
        yield found
        for (_, where), count in (ledger.waits - before).items():
            found[where] += count

    return Place(ledger.device, tiny=True, watch=watch)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few samplers, methods, operators, steps and frames of films."""
    monkeypatch.setattr("diffusion.model.model.FILM_STEPS", 2)
    monkeypatch.setattr(waits, "FEW", 1)
    monkeypatch.setattr(waits, "MORE", 2)
    for module in (smoke, waits):
        monkeypatch.setattr(module, "SAMPLERS", {"dpmpp_2m": None})
        monkeypatch.setattr(module, "METHODS", {"replacement": None})
    monkeypatch.setattr(smoke, "OPERATORS", {"downsample": None})
    monkeypatch.setattr(smoke, "LIKELIHOODS", ("bound",))


def test_every_part_runs_on_a_pretended_gpu(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matched, "missing", lambda: ["diffusers"])  # Wherever it is, it is not for a pretended GPU.
    parts = ("smoke", "waits", "kernels", "folder64", "matched")
    with pretended("cuda") as ledger:
        words = ["--no-compile", "--rounds", "1", "--out", str(tmp_path / "gpu.json"), "--minutes", "60", "--parts"]
        gpu.main([*words, *parts], there=pretend(ledger), run=here)
    record = json.loads((tmp_path / "gpu.json").read_text())
    rows = [row for table in record["tables"].values() for row in table]
    notes = Counter(str(row.get("note", "")).partition(":")[0] for row in rows)
    graphs = [row for row in rows if "CUDA graphs" in str(row.values())]
    assert len(record["tables"]) >= 7 and notes.keys() <= {"", "failed", "not measured", "RuntimeError"}, rows
    assert notes["failed"] == len(graphs) == 3, "only what needs true kernels fails"
    (works,) = (table for title, table in record["tables"].items() if title == smoke.TITLE)
    assert [row["what"] for row in works if row["result"] != "works"] == []
    values = {goal["name"]: goal["value"] for goal in record["goals"]}
    assert values[smoke.GOAL.name] == 0 and values[waits.TRAINING.name] == 0


def test_a_machine_without_peers_says_so_and_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "missing", lambda: ["diffusers"])
    monkeypatch.setattr(matched, "missing", lambda: ["diffusers"])
    part = gpu.plan(CPU, rounds=1)[-1]
    tables, (goal,) = measured([part], CPU, 1, here)
    assert {row["note"] for rows in tables.values() for row in rows} == {"not measured: diffusers is not installed"}
    assert len(tables) == 2 and goal.outcome == "not measured" and "needs diffusers" in str(goal)


def test_ours_and_a_peer_of_equal_work_take_turns(
    setting: Setting, twin: type[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matched, "PEERS", {"diffusers": twin})
    monkeypatch.setattr(matched, "missing", lambda: [])
    # Those of the twin, which `test_training` finds; that they have its work is checked here too.
    monkeypatch.setattr(flops, "matched_widths", lambda cost, target: WIDTHS)
    found: dict[str, Any] = {}
    for finding in matched.measure([setting], CPU, time.monotonic() + 60, rounds=1):
        found |= {finding.name: finding} if isinstance(finding, Goal) else dict([finding])
    training, sampling = found["Training beside diffusers, 8x8x3"], found["Sampling beside diffusers, 8x8x3"]
    for rows in (training, sampling):
        assert [row["network"] for row in rows] == [matched.OURS, matched.PEER, matched.PEER_BF16]
        assert all("note" not in row for row in rows) and set(matched.RATIOS) <= rows[0].keys()
    goal = found[matched.goal(setting).name]
    assert goal.value == training[0]["times diffusers fp32"].median and goal.value > 0


def whole(place: Place, until: float) -> Iterator[Finding]:
    yield "A", [{"x": 1, "note": UNREACHED}, {"x": 2, "note": UNREACHED}]
    yield "A", [{"x": 1, "figure": 5.0}, {"x": 2, "note": UNREACHED}]
    yield Goal(GOAL.name, 3.0, GOAL.bound)


def other(place: Place, until: float) -> Iterator[Finding]:
    yield from (finding if isinstance(finding, Goal) else ("B", finding[1]) for finding in whole(place, until))


def failing(place: Place, until: float) -> Iterator[Finding]:
    yield from list(whole(place, until))[:2]
    raise ValueError("no such kernel\nand more")


def dying(place: Place, until: float) -> Iterator[Finding]:
    yield from list(whole(place, until))[:2]
    os._exit(7)


def hanging(place: Place, until: float) -> Iterator[Finding]:
    yield from list(whole(place, until))[:2]
    time.sleep(600)


def silent(place: Place, until: float) -> Iterator[Finding]:
    yield from ()
    raise RuntimeError("not here")


def test_a_part_that_fails_leaves_its_tables_and_the_next_one_runs() -> None:
    parts = [Part("first", 1, failing, (GOAL,)), Part("second", 1, silent), Part("third", 1, other, (GOAL,))]
    tables, goals = measured(parts, CPU, 5, here)
    why = "failed: ValueError: no such kernel"
    assert tables["A"] == [{"x": 1, "figure": 5.0}, {"x": 2, "note": why}]
    assert tables["Second"] == [{"note": "failed: not here"}]
    assert tables["B"][1] == {"x": 2, "note": UNREACHED} and [goal.outcome for goal in goals] == ["MISSED", "met"]


def test_a_part_that_dies_or_hangs_is_ended_with_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, _ = measured([Part("dies", 1, dying)], CPU, 5, apart)
    assert tables["A"] == [{"x": 1, "figure": 5.0}, {"x": 2, "note": "failed: its process ended with 7"}]
    # A fork starts at once; the first shows that a process which imports everything is ended in the same way.
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.gpu.parts.multiprocessing.get_context", lambda kind: get_context("fork"))
        with pytest.raises(RuntimeError, match=r"^ValueError: no such kernel$"):
            list(apart(Part("fails", 1, failing), CPU, 300))
    ends = iter([False])
    pipe = mock.Mock(poll=lambda seconds: next(ends))
    context = mock.Mock(Pipe=lambda duplex: (pipe, mock.Mock()))
    monkeypatch.setattr("benchmarks.gpu.parts.multiprocessing.get_context", lambda kind: context)
    with pytest.raises(TimeoutError, match="not done after 3 s"):
        list(apart(Part("hangs", 1, hanging), CPU, 3))
    context.Process.return_value.kill.assert_called_once()


def test_parts_share_the_time_by_their_weights_and_leave_what_they_do_not_need() -> None:
    given: list[float] = []

    def run(part: Part, place: Place, seconds: float) -> Iterator[Finding]:
        given.append(seconds)
        yield from ()

    measured([Part("a", 1, whole), Part("b", 2, whole), Part("c", 1, whole)], CPU, 1, run)
    assert given == pytest.approx([15, 40, 60], abs=0.5)


def test_the_waits_of_which_torch_warns_are_counted_by_the_line_that_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def wait() -> int:
        warnings.warn("called a synchronizing CUDA operation (Triggered internally)", UserWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
        return 1

    monkeypatch.setattr(distributed, "count", lambda: wait())
    with sync_debug() as found:
        for _ in range(3):
            distributed.share(6)
        wait()
    (line, count), (outside, once) = found.most_common()
    assert line.startswith("distributed.py:") and (count, outside, once) == (6, caller(), 1)
    assert modes == ["warn", 0]


def test_waits_of_a_step_are_the_difference_of_few_steps_and_more() -> None:
    class Watching:
        def __init__(self) -> None:
            self.found: Waits = Waits()

        @contextmanager
        def __call__(self) -> Iterator[Waits]:
            self.found = Waits()
            yield self.found

    watching = Watching()

    def steps(n: int) -> None:
        watching.found.update({"once": 5, "each": 3 * n, "at half of them": n // 2})

    there = Place(torch.device("cpu"), watch=watching)
    assert waits.per_step(there, steps) == {"each": 3.0, "at half of them": 0.5}


def test_clocks_and_power_are_medians_of_whole_lines() -> None:
    text = "1980, 400.5\n1500, 700.1\n1970, 650.0\n1200, [N/A]\n19"
    assert medians(text, ["clock", "power"]) == {"clock": "1970", "power": "650"}
    assert medians("", ["clock", "power"]) == {}
    with place.Meter(torch.device("cpu")) as meter:
        pass
    assert set(meter.found.values()) == {"not measured"}


def test_a_variant_that_fails_is_named_with_its_reason_and_the_others_go_on() -> None:
    calls: list[str] = []

    def fail() -> dict[str, Contestant]:
        raise ValueError("not here\nand more")

    def fail_later() -> None:
        raise NotImplementedError

    variants = {
        "broken": Variant(fail),
        "broken later": Variant(lambda: {"a": Contestant(fail_later)}),
        "slow": Variant(fail, 1000.0),
        "fine": Variant(lambda: {"a": Contestant(lambda: calls.append("x"), 2.0)}),
    }
    ready = prepare(variants, CPU.device, time.monotonic() + 500)
    assert ready.notes == {
        "broken": "failed: ValueError: not here",
        "broken later": "failed: NotImplementedError: ",
        "slow": "left out: fewer than 1000 s were left",
    }
    assert set(ready.contestants) == {"fine"} and calls == ["x"] * 3


def test_channels_first_ignores_every_wish_for_the_other_layout() -> None:
    x = torch.randn(2, 3, 4, 4)
    with ChannelsFirst():
        layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        assert x.contiguous(memory_format=torch.channels_last).is_contiguous()
    assert layer.weight.is_contiguous()
    assert x.contiguous(memory_format=torch.channels_last).stride() == (48, 1, 12, 3)


def test_compilation_is_left_out_where_it_has_no_time(tmp_path: Path) -> None:
    mine = shipped.ours("folder64", CPU, tmp_path)
    found = list(shipped.training("folder64", mine, time.monotonic() + 0.0, 1, compile=True))
    title, rows = next(finding for finding in reversed(found) if isinstance(finding, tuple))
    assert title.startswith("Training by folder64, batch 4") and len(rows) == 6
    assert {str(row["note"]).partition(":")[0] for row in rows} == {"left out"}


@pytest.mark.parametrize("size", matched.SETTINGS)
def test_every_setting_compares_with_diffusers(size: int) -> None:
    assert matched.SETTINGS[size].size == size
    assert [name for name, _ in matched.SETTINGS[size].widths] == ["diffusers"]
