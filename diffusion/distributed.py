"""Several processes as one: how they divide numbered work and bring the results together.

Processes are those of the group that torchrun or accelerate started, on one machine or many; without it there is one,
and every function here is the identity. Results are exchanged through gloo on the CPU, where they are written from,
whatever the devices use among themselves; the tensors are small and no step of training waits for the device.

A process that fails ends with an exit code other than 0, upon which the launcher ends those that wait for it.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import torch
from torch import Tensor
from torch import distributed as dist

# The first process may take hours to pack a folder while the others wait.
PATIENCE = timedelta(days=1)
# What gloo says of a peer; other backends raise DistError.
LOST = ("Connection closed by peer", "onnection reset by peer", "Timed out waiting")


def join() -> None:
    """Joins the processes that a launcher started, for the rest of this one's life."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
        atexit.register(dist.destroy_process_group)


def count() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank() == 0


def say(text: str) -> None:
    """Prints a text, once for all processes."""
    if is_main():
        print(text)


def device() -> torch.device:
    """A GPU of this process alone, if there are GPUs, or else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def share(n: int) -> range:
    """The numbers of 0, ..., n - 1 that this process works on: consecutive, and as many as any other's or one fewer."""
    return range(n * rank() // count(), n * (rank() + 1) // count())


def batches(n: int, batch: int, *, shared: bool) -> list[range]:
    """The numbers 0, ..., n - 1, or this process's share of them, in runs of at most `batch`."""
    mine = share(n) if shared else range(n)
    return [mine[start : start + batch] for start in range(0, len(mine), batch)]


def gather(part: Tensor) -> Tensor:
    """The rows (N, *) of all processes, in their order, from those of each, (N_rank, *), on the CPU.

    All processes must call it, with parts that differ in their number of rows alone, which may be 0.
    """
    part = part.detach().cpu().contiguous()
    if count() == 1:
        return part
    rows = [torch.zeros((), dtype=torch.int64) for _ in range(count())]
    dist.all_gather(rows, torch.tensor(len(part)), group=_exchange())
    # Every process sends as many rows as the longest part has; what is beyond its own is cut off again.
    padded = part.new_zeros(max(map(int, rows)), *part.shape[1:])
    if padded.numel() == 0:
        return part.new_zeros(sum(map(int, rows)), *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(parts, padded, group=_exchange())
    return torch.cat([other[: int(n)] for other, n in zip(parts, rows, strict=True)])


def largest(number: int) -> int:
    """The largest of the numbers that the processes call it with; all of them must."""
    value = torch.tensor(number)
    if count() > 1:
        dist.all_reduce(value, dist.ReduceOp.MAX, group=_exchange())
    return int(value)


def lost(error: RuntimeError) -> bool:
    """Whether it says that another process has ended or does not answer."""
    return count() > 1 and (isinstance(error, dist.DistError) or any(text in str(error) for text in LOST))


@contextmanager
def main_first() -> Iterator[None]:
    """A context that the main process goes through first, then the first one of each machine, whose disks may be its
    own, then all others.
    """
    turn = 0 if is_main() else 1 if int(os.environ.get("LOCAL_RANK", "0")) == 0 else 2
    largest(0)  # All make the group that they meet in before some have to wait.
    for _ in range(turn):
        largest(0)
    yield
    for _ in range(turn, 2):
        largest(0)


@cache
def _exchange() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, dist.ProcessGroup)  # It is a number for those left out, and nobody is.
    return group
