"""Memory: whether the C library keeps what tensors on the CPU free, which errors say that there is no more, how much a
device has left, and the batch size that suits it.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import weakref
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")

# From malloc.h of the GNU C library.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

# What the libraries say that allocate memory, within whatever else the error says: the allocators of CUDA, HIP and MPS,
# the CUDA runtime, NCCL and Triton ("out of memory"), the handles and work spaces of other libraries, Metal, whose
# buffers are limited in size, and the CPU's allocator on Unix and on Windows.
OUT_OF_MEMORY = (
    "out of memory",
    "cudaErrorMemoryAllocation",
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED"),
    "Not enough memory for workspace",
    "Invalid buffer size",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)

# The positions, such as pixels, of a batch on a CPU, and the most examples in a batch on any device.
POSITIONS, MAX_BATCH = 2**17, 1024
# How many times as many positions and examples a batch of fixed size has on a GPU: 2^20 and 2^18 positions.
TIMES = {"cuda": 8, "mps": 2}
# The batch whose memory is measured on a GPU, how many times larger the next one is if it does not show, and the share
# of the free memory that a batch may take.
PROBE_BATCH, LARGER, SHARE = 4, 4, 0.5
# What control groups allow a container, by their second and first version, and what it uses.
GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
# The bytes of an example in what was measured, so that it is measured once.
_measured: dict[Hashable, float] = {}


def tune_malloc() -> bool:
    """Makes the C library keep freed memory in the process, in one arena for all threads, instead of returning it to
    the system. Returns whether it can.

    A training step allocates and frees large tensors thousands of times. When memory returns to the system, it has to
    clear every page of it again each time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_ARENA_MAX: 1}
    done = [mallopt(option, value) for option, value in settings.items()]
    return all(done)


def is_oom(error: Exception) -> bool:
    """Whether an error says that a device, or this process, is out of memory.

    CUDNN_STATUS_NOT_SUPPORTED is none, although some take it for one: fewer examples would not help.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


def none_if_oom(call: Callable[[], Result]) -> Result | None:
    """Returns what a call returns, or None if memory runs out in it.

    The tensors of the call are freed before this function returns, and GPUs give back what their allocators hold of
    them; while an error is being handled, it holds them.
    """
    try:
        return call()
    except (RuntimeError, MemoryError) as error:
        if not is_oom(error):
            raise
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    return None


def available(device: torch.device) -> int:
    """Returns the bytes that tensors of this process may still take on a device, beside what others have taken.

    On the CPU of a container they are what its control group leaves. On MPS they are what Metal recommends at most.
    """
    if device.type == "cuda":
        # Memory that torch has reserved but does not use is free too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return min([_unused_ram(), *_left_by_groups()])


def _unused_ram() -> int:
    """The bytes that Linux calls available, which count caches of files; elsewhere all that the machine has."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:")))
    except (OSError, StopIteration):
        return ram()


def ram() -> int:
    """Returns the bytes of memory of this machine; 2^33 where the system does not say."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 2**33
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _left_by_groups() -> list[int]:
    """The bytes that the limits of control groups leave, of those that have one."""
    left = []
    for most, used in GROUPS:
        try:
            left.append(int(Path(most).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
        except (OSError, ValueError):  # No such group, or "max".
            continue
    return left


def auto_batch_size(
    call: Callable[[int], object], positions: int, device: torch.device, *, called: tuple[object, ...] = ()
) -> int:
    """Returns the batch size that suits a device, for examples of `positions` positions each, at least 1 and at most
    `MAX_BATCH`.

    On a CPU a batch has 2^17 positions, beyond which it hardly becomes faster (`benchmarks.sampling`). On a GPU it is
    the largest power of two that fits into `SHARE` of the free memory. To measure the memory of an example,
    `call(n)` has to evaluate the network on n examples. That is done once for equal `called`: what is evaluated, the
    first of them what holds the network. They are known by their hashes, and none of them is kept alive.
    """
    if device.type not in TIMES:
        return min(MAX_BATCH, max(1, POSITIONS // positions))
    key = (device, positions, *(weakref.ref(each) for each in called[:1]), *map(hash, called[1:])) if called else None
    each = _measured.get(key) if key else None
    if each is None:
        each = bytes_each(call, device)
        if key and math.isfinite(each):
            _measured[key] = each
    fitting = SHARE * available(device) / max(each, 1.0)
    return int(2 ** math.floor(math.log2(min(MAX_BATCH, max(1.0, fitting)))))


def bytes_each(call: Callable[[int], object], device: torch.device) -> float:
    """Returns the bytes that each example takes at most while `call(n)` evaluates n examples on a GPU, or what is above
    it; infinity if memory runs out with `PROBE_BATCH` of them.

    The peak of the memory in use, which belongs to the user, is not reset. Where an earlier peak hides that of the
    call, more examples are evaluated until they show. If they never do, the earlier peak is at least what all took.
    """
    if device.type == "mps":
        torch.mps.empty_cache()  # What the pool then grows by is the peak of the call: it gives nothing back by itself.
    held, before = _held(device), _peak(device)
    count, hidden = PROBE_BATCH, 0
    while count <= MAX_BATCH and none_if_oom(partial(_done, call, count)):
        if (peak := _peak(device)) > before:
            return (peak - held) / count
        count, hidden = LARGER * count, count
    return (before - held) / hidden if hidden else math.inf


def _done(call: Callable[[int], object], count: int) -> bool:
    call(count)
    return True


def _held(device: torch.device) -> int:
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device) -> int:
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return torch.cuda.max_memory_allocated(device)
