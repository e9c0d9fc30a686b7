"""A short campaign: real kills of real runs, saving stopped at each of its operations, files mutated at random."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.faults import Outcome, forked, mutated, mutated_tree, pictures, state_of
from tests.forkserver import launch

FEW = ["--kills", "2", "--signals", "0", "--images", "200", "--files", "60", "--weights", "200"]
FEW += ["--no-border", "--no-processes"]


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """The table of a campaign that lost nothing."""
    out = tmp_path_factory.mktemp("campaign") / "record.json"
    done = launch(["-m", "benchmarks.campaign", *FEW, "--check", "--out", str(out)])
    text, errors = done.communicate()
    assert done.returncode == 0, text[-4000:] + errors[-2000:]
    return {row.pop("fault"): row for row in json.loads(out.read_text())["tables"]["Faults"]}


def tried(record: dict[str, dict[str, int]], fault: str) -> int:
    row = record[fault]
    assert row["lost"] == 0 and row["survived"] == row["tried"]
    return row["tried"]


def test_runs_killed_at_random_end_as_if_they_had_not_been(record: dict[str, dict[str, int]]) -> None:
    assert tried(record, "SIGKILL at a random moment of a run") >= 2
    assert tried(record, "runs that ended the same to the last bit") >= 1


def test_the_folder_of_images_is_left_alone(record: dict[str, dict[str, int]]) -> None:
    assert tried(record, "folders of images that were left alone") == 1


@pytest.mark.parametrize("how", ["killed", "failing"])
def test_saving_may_stop_at_any_of_its_operations(record: dict[str, dict[str, int]], how: str) -> None:
    # Three files opened, written and forced to disk, two of them by halves, folders made, renamed and removed.
    assert tried(record, f"saving {how} at each of its operations") >= 15


def test_saving_may_meet_a_limit_of_the_size_of_files(record: dict[str, dict[str, int]]) -> None:
    assert tried(record, "saving under a limit of the size of files") == 6


@pytest.mark.parametrize(
    ("what", "count"), [("images", 200), ("checkpoints", 30), ("configurations", 30), ("weights", 200)]
)
def test_mutated_files_are_read_or_refused_and_run_nothing(
    record: dict[str, dict[str, int]], what: str, count: int
) -> None:
    assert tried(record, f"mutated {what}") == count


WATCHED = """
import os, pickle, subprocess, sys
from pathlib import Path
from benchmarks.faults import watched

place = Path(sys.argv[1])
with watched(place) as seen:
    (place / "inside").write_text("x")
    (place.parent / "outside").write_text("x")
    pickle.loads(pickle.dumps(Path))
    subprocess.run(["true"])
(place.parent / "later").write_text("x")
print(*(line.partition(":")[0] + ":" + line.rpartition("/")[2] for line in seen), sep="\\n")
"""


def test_the_watch_sees_files_elsewhere_pickles_and_programs(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "watched.py").write_text(WATCHED)
    text, errors = launch([str(tmp_path / "watched.py"), str(tmp_path / "place")]).communicate()
    lines = text.splitlines()
    assert "open:outside" in lines and not any("inside" in line or "later" in line for line in lines)
    assert any(line.startswith("pickle.find_class") for line in lines)
    assert any(line.startswith("subprocess.Popen") for line in lines), errors


def pause() -> None:
    signal.pause()


def test_forked_work_tells_how_it_ended(tmp_path: Path) -> None:
    errors = tmp_path / "errors.txt"
    assert forked(lambda: None, errors) == 0 and forked(lambda: 5, errors) == 5
    assert forked(lambda: int(1 / 0), errors) == 1 and "ZeroDivisionError" in errors.read_text()
    assert forked(lambda: os.kill(os.getpid(), signal.SIGUSR1), errors) == -signal.SIGUSR1
    assert forked(pause, errors, after=0.05) == faults.KILLED
    assert forked(pause, errors, after=0.05, number=signal.SIGTERM) == -signal.SIGTERM


def test_mutations_change_most_and_are_the_same_for_a_seed(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "pictures")
    assert len(paths) >= 20 and len(state_of(tmp_path)) == len(paths)
    data, other = paths[0].read_bytes(), paths[-1].read_bytes()
    changed = [mutated(data, other, random.Random(seed)) for seed in range(100)]
    assert sum(new != data for new in changed) > 90 and len(set(changed)) > 90
    assert changed == [mutated(data, other, random.Random(seed)) for seed in range(100)]
    assert mutated(b"", b"", random.Random(0)) is not None
    tree = {"a": {"b": [1, 2]}, "c": "x"}
    trees = [mutated_tree(tree, random.Random(seed)) for seed in range(50)]
    assert tree == {"a": {"b": [1, 2]}, "c": "x"} and sum(repr(new) != repr(tree) for new in trees) > 45


def test_an_outcome_counts_what_was_lost() -> None:
    assert Outcome("x", 5, ("one",)).row() == {"fault": "x", "tried": 5, "survived": 4, "lost": 1}
