"""Several processes that work as one: they divide numbered work and gather the results.

The processes are those of the group that torchrun or accelerate started, on one machine or many. Without a group there
is one process, and every function here is the identity. Results are exchanged through gloo on the CPU, from where they
are written, whatever backend the devices use among themselves; the tensors are small, and no training step waits for
the device.

A process that fails ends with an exit code other than 0; the launcher then ends the processes that wait for it.
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

from diffusion import progress

# The main process may take hours to pack a folder while the others wait.
PATIENCE = timedelta(days=1)
# The messages of gloo about a lost process; other backends raise DistError.
LOST = ("Connection closed by peer", "onnection reset by peer", "Timed out waiting")


def join() -> None:
    """Joins the group of processes that a launcher started, until this process ends."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
        atexit.register(dist.destroy_process_group)


def count() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this process is the one that writes files and prints."""
    return rank() == 0


def say(text: str) -> None:
    """Prints a text in the main process alone (`progress.say`)."""
    if is_main():
        progress.say(text)


def device() -> torch.device:
    """Returns the GPU that belongs to this process alone, or the CPU if there are no GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def share(n: int) -> range:
    """Returns the numbers of 0, ..., n - 1 that this process works on: consecutive ones, whose count differs between
    processes by at most 1.
    """
    return range(n * rank() // count(), n * (rank() + 1) // count())


def batches(n: int, batch: int, *, shared: bool) -> list[range]:
    """Returns the numbers 0, ..., n - 1 in batches of at most `batch`; if `shared`, only the share of this process."""
    mine = share(n) if shared else range(n)
    return [mine[start : start + batch] for start in range(0, len(mine), batch)]


def gather(part: Tensor) -> Tensor:
    """Concatenates the rows `part` (N_rank, *) of all processes, in the order of the processes: (N, *), on the CPU.

    All processes must call it, with parts that differ only in their number of rows, which may be 0.
    """
    part = part.detach().cpu().contiguous()
    if count() == 1:
        return part
    rows = [torch.zeros((), dtype=torch.int64) for _ in range(count())]
    dist.all_gather(rows, torch.tensor(len(part)), group=_exchange())
    # Every process sends as many rows as the longest part has; the padding is cut off again.
    padded = part.new_zeros(max(map(int, rows)), *part.shape[1:])
    if padded.numel() == 0:
        return part.new_zeros(sum(map(int, rows)), *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in rows]
    dist.all_gather(parts, padded, group=_exchange())
    return torch.cat([other[: int(n)] for other, n in zip(parts, rows, strict=True)])


def largest(number: int) -> int:
    """Returns the largest of the numbers of all processes, each of which must call it."""
    value = torch.tensor(number)
    if count() > 1:
        dist.all_reduce(value, dist.ReduceOp.MAX, group=_exchange())
    return int(value)


def lost(error: RuntimeError) -> bool:
    """Whether an error says that another process has ended or does not answer."""
    return count() > 1 and (isinstance(error, dist.DistError) or any(text in str(error) for text in LOST))


@contextmanager
def main_first() -> Iterator[None]:
    """Enters the context in turns: the main process first, then the first process of each other machine, which may have
    disks of its own, then all others.
    """
    turn = 0 if is_main() else 1 if int(os.environ.get("LOCAL_RANK", "0")) == 0 else 2
    largest(0)  # All processes create their group before some of them have to wait.
    for _ in range(turn):
        largest(0)
    yield
    for _ in range(turn, 2):
        largest(0)


@cache
def _exchange() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, dist.ProcessGroup)  # It is a number in processes outside of the group; all are in it.
    return group
