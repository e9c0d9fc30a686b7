"""Work is divided and results are gathered, in one process and in three that exchange them through gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion import distributed
from diffusion.errors import InputError
from tests.conftest import finish, start, torchrun
from tests.machines import machine

EXCHANGE = """
import os
import torch
from diffusion import distributed, launched

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
open(f"came-{rank}", "w").close()
distributed.barrier()
assert all(os.path.exists(f"came-{other}") for other in range(3))
launched.leave(0)
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


def test_each_process_takes_the_gpu_of_its_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2)
    assert distributed.device() == torch.device("cuda:0")
    machine(monkeypatch, cuda=2, WORLD_SIZE="4", LOCAL_WORLD_SIZE="2", LOCAL_RANK="1", RANK="3")
    for word in ("auto", "cuda"):
        monkeypatch.setenv("DIFFUSION_DEVICE", word)
        assert distributed.device() == torch.device("cuda:1")
    monkeypatch.setenv("DIFFUSION_DEVICE", "cpu")
    assert distributed.device() == torch.device("cpu")


@pytest.mark.parametrize("rank", [0, 3])
def test_more_processes_than_gpus_are_refused_in_each_of_them(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    machine(monkeypatch, cuda=2, WORLD_SIZE="4", LOCAL_WORLD_SIZE="4", LOCAL_RANK=str(rank))
    with pytest.raises(InputError, match=r"^processes: must be at most 2 .* cuda:1, got 4; start 2, or give"):
        distributed.device()
    # srun gives each process a GPU of its own, which it alone sees; the message says how to use it.
    machine(monkeypatch, cuda=1, WORLD_SIZE="4", LOCAL_RANK="3")
    with pytest.raises(InputError, match=r"got 4; .*--device cpu; where each process sees .*, set LOCAL_RANK=0$"):
        distributed.device()
    machine(monkeypatch, cuda=1, WORLD_SIZE="4", LOCAL_RANK="0")
    assert distributed.device() == torch.device("cuda:0")


def test_a_mac_has_one_gpu_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, mps=True)
    assert distributed.device() == torch.device("mps:0")
    machine(monkeypatch, mps=True, WORLD_SIZE="2", LOCAL_RANK="0", LOCAL_WORLD_SIZE="2")
    with pytest.raises(InputError, match=r"at most 1 on this machine, .* cpu, mps, got 2; start 1, or .* cpu$"):
        distributed.device()


def test_a_numbered_gpu_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2, DIFFUSION_DEVICE="cuda:1")
    assert distributed.device() == torch.device("cuda:1")
    machine(monkeypatch, cuda=2, DIFFUSION_DEVICE="cuda:1", WORLD_SIZE="1", LOCAL_RANK="1")
    assert distributed.device() == torch.device("cuda:1")
    # With accelerate one process of torchrun takes the GPU of its LOCAL_RANK all the same.
    for world, rank in (("2", "1"), ("1", "0")):
        machine(monkeypatch, cuda=2, DIFFUSION_DEVICE="cuda:1", WORLD_SIZE=world, LOCAL_RANK=rank)
        with pytest.raises(InputError, match=r"^DIFFUSION_DEVICE: must be cuda or auto .* got cuda:1; .*CUDA_VISIBLE"):
            distributed.device()


def test_the_device_becomes_the_current_one_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    current = machine(monkeypatch, cuda=2, DIFFUSION_DEVICE="cuda:1")
    distributed.join()
    assert current == [torch.device("cuda:1")]
    current = machine(monkeypatch, cuda=2, DIFFUSION_DEVICE="cpu")
    distributed.join()
    assert current == [] and distributed.take_device() == torch.device("cpu")
