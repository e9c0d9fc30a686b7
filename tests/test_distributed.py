"""Work is divided and results are gathered, in one process and in three that exchange them through gloo."""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion import distributed
from tests.conftest import finish, start, torchrun

EXCHANGE = """
import os
import torch
from diffusion import distributed

distributed.join()
rank = distributed.rank()
os.environ["LOCAL_RANK"] = str(rank % 2)  # As if the third were the first of another machine.
with distributed.main_first():
    open("order.txt", "a").write(str(rank))
for n in (0, 1, 2, 3, 7, 8):
    numbers = torch.tensor(list(distributed.share(n)), dtype=torch.int64)
    whole = distributed.gather(torch.stack([numbers, numbers**2], 1))
    assert whole.tolist() == [[i, i * i] for i in range(n)], (rank, n, whole)
assert distributed.gather(torch.full((1, 2, 2), rank, dtype=torch.uint8)).shape == (3, 2, 2)
assert distributed.largest(-rank) == 0 and distributed.largest(7 + rank) == 9
"""


def test_one_process_has_everything() -> None:
    rows = torch.arange(6).reshape(3, 2)
    distributed.join()
    with distributed.main_first():
        assert distributed.count() == 1 and distributed.rank() == 0 and distributed.is_main()
        assert distributed.share(5) == range(5) and distributed.largest(-3) == -3
        assert torch.equal(distributed.gather(rows), rows)


def test_three_processes_divide_everything_and_gather_it_in_order(tmp_path: Path) -> None:
    (tmp_path / "exchange.py").write_text(EXCHANGE)
    code, _, err = finish(start(torchrun(3), "exchange.py", folder=tmp_path))
    assert code == 0, err
    assert (tmp_path / "order.txt").read_text() == "021"
