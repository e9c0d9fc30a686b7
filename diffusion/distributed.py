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

from diffusion import devices, launched, progress
from diffusion.errors import InputError

# The main process may take hours to pack a folder while the others wait.
PATIENCE = timedelta(days=1)
# The messages of gloo about a lost process; other backends raise DistError.
LOST = ("Connection closed by peer", "onnection reset by peer", "Timed out waiting")


def join() -> None:
    """Joins the group of processes that a launcher started, until this process ends, and takes its device.

    Raises InputError for a device that it cannot have.
    """
    take_device()
    if launched.several() and not dist.is_initialized():
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
    """Returns the device of this process: the one that is asked for (`devices.wanted`), or the GPU of this process
    alone.

    Raises InputError for a device that this machine does not have, and where processes would have to share one.
    """
    wanted = devices.wanted()
    chosen = devices.named(wanted.word, wanted.source)
    if chosen.type == "cuda" and _numbered(chosen) and _launched(chosen.index):
        raise InputError(
            f"{wanted.source}: must be cuda or auto for processes of a launcher, each of which takes a GPU of its own, "
            f"got {chosen}; to choose among the GPUs, set CUDA_VISIBLE_DEVICES"
        )
    return own(chosen)


def own(kind: torch.device) -> torch.device:
    """Returns the device of this process of a kind: cuda without a number is the GPU of its LOCAL_RANK.

    Raises InputError where there are more processes on this machine than devices of the kind.
    """
    if kind.type not in ("cuda", "mps") or _numbered(kind):
        return kind
    local = int(os.environ.get("LOCAL_RANK", 0))
    processes = max(local + 1, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    there = torch.cuda.device_count() if kind.type == "cuda" else 1
    if processes > there:
        alone = "; where each process sees a GPU of its own alone, set LOCAL_RANK=0" if kind.type == "cuda" else ""
        raise InputError(
            f"processes: must be at most {there} on this machine, whose devices are {', '.join(devices.present())}, "
            f"got {processes}; start {there}, or give {devices.OPTION} cpu{alone}"
        )
    return torch.device(kind.type, local)


def take_device() -> torch.device:
    """Returns `device()`, having made it the one that CUDA takes where none is named.

    Otherwise a library might make a context of half a gigabyte on the first GPU in every process.
    """
    chosen = device()
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen


def _numbered(chosen: torch.device) -> bool:
    return ":" in str(chosen)


def _launched(index: int) -> bool:
    """Whether a launcher started this process as one of several, or gave it another GPU than that of a number."""
    return launched.several() or int(os.environ.get("LOCAL_RANK", index)) != index


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


def barrier() -> None:
    """Waits until all processes are here, for as long as `PATIENCE`; the devices' own barriers end after minutes."""
    largest(0)


def lost(error: RuntimeError) -> bool:
    """Whether an error says that another process has ended or does not answer."""
    return count() > 1 and (isinstance(error, dist.DistError) or any(text in str(error) for text in LOST))


@contextmanager
def main_first() -> Iterator[None]:
    """Enters the context in turns: the main process first, then the first process of each other machine, which may have
    disks of its own, then all others.
    """
    turn = 0 if is_main() else 1 if int(os.environ.get("LOCAL_RANK", "0")) == 0 else 2
    barrier()  # All processes create their group before some of them have to wait.
    for _ in range(turn):
        barrier()
    yield
    for _ in range(turn, 2):
        barrier()


@cache
def _exchange() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, dist.ProcessGroup)  # It is a number in processes outside of the group; all are in it.
    return group
