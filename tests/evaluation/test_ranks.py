"""The rank of an example is counted by hand, and tables and pictures have the ends in their order."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch

from diffusion.evaluation import BoundEstimator, Evaluation, Setting, ranks
from diffusion.evaluation.ranks import HeldOut

HELD_OUT = HeldOut((1.0, 2.0, 2.0, 4.0), "bits/dim", {}, 7)
FOUND = Evaluation("bound", "upper bound", "bits/dim", 3, {}, (2.0, 9.0, 0.5), (), (0.25, 0.5, 0.125), ("a", "b", "c"))


@pytest.mark.parametrize(("value", "rank"), [(0.5, 1), (1.0, 1), (1.5, 2), (2.0, 2), (3.0, 4), (4.0, 4), (9.0, 5)])
def test_the_rank_is_one_more_than_the_number_with_fewer_bits(value: float, rank: int) -> None:
    assert HELD_OUT.rank(value) == rank


def test_the_table_has_the_least_likely_first_with_ranks_where_they_are_known() -> None:
    rows = list(csv.reader(io.StringIO(ranks.table(FOUND, HELD_OUT))))
    assert rows[0] == ["file", "bits/dim", "standard error", "rank among held-out", "held-out"]
    assert rows[1:] == [["b", "9.0", "0.5", "5", "4"], ["a", "2.0", "0.25", "2", "4"], ["c", "0.5", "0.125", "1", "4"]]
    without = list(csv.reader(io.StringIO(ranks.table(FOUND, None))))
    assert [row[3:] for row in without[1:]] == [["", ""]] * 3


@pytest.mark.parametrize("count", [1, 2, 3, 12, 40])
def test_both_ends_are_shown_and_nothing_twice(count: int) -> None:
    values = tuple(float((7 * i) % 41) for i in range(count))
    least, most = ranks.ends(Evaluation("bound", "", "bits/dim", count, {}, values))
    assert not {*least} & {*most} and len(least) + len(most) == min(
        count, 2 * ranks.SHOWN, 2 * (count // 2) + count % 2
    )
    assert values[least[0]] == max(values)
    if most:
        assert values[most[-1]] == min(values)
        assert min(values[i] for i in least) >= max(values[i] for i in most)


def test_the_picture_has_the_least_likely_above_the_most_likely() -> None:
    white, black = torch.ones(2, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    shown = ranks.picture(FOUND, white, black, HELD_OUT).convert("L")
    upper, lower = (shown.crop((0, top, shown.width, top + shown.height // 2)) for top in (0, shown.height // 2))
    assert upper.histogram()[255] >= 2 * 64 * 64 and lower.histogram()[255] == 0
    assert lower.histogram()[0] >= 64 * 64


def test_stored_values_count_only_where_they_were_measured_alike(tmp_path: Path) -> None:
    assert HeldOut.stored(tmp_path) is None
    settings = {"limit": 8, "guidance": 1.0, "float64": False, **BoundEstimator(draws=2, seed=5).settings}
    written = {"method": "bound", "unit": "bits/dim", "values": [3.0, 1.0], "settings": settings, "step": 7}
    (tmp_path / "evaluation.json").write_text(json.dumps(written))
    stored = HeldOut.stored(tmp_path)
    assert stored is not None and stored.values == (1.0, 3.0)
    assert stored.alike(BoundEstimator(), Setting(), 7), "draws and seeds change how well a value is known alone"
    assert not stored.alike(BoundEstimator(), Setting(), 8), "another model"
    assert not stored.alike(BoundEstimator(), Setting(guidance=2.0), 7)
    assert not stored.alike(BoundEstimator(continuous=True), Setting(), 7)
    for broken in ("[]", "{", '{"values": [], "method": "bound", "unit": "bits/dim"}', '{"values": ["x"]}'):
        (tmp_path / "evaluation.json").write_text(broken)
        assert HeldOut.stored(tmp_path) is None
