"""Freed memory stays with the process, and the automatic batch size follows from the device."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from diffusion import memory
from diffusion.memory import auto_batch_size, available, bytes_each, is_oom, none_if_oom

SCRIPT = """
import resource
import torch
from diffusion.memory import tune_malloc

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    y = x
    for _ in range(6):
        y = (y * 1.01).relu()
    y.sum().backward()

def faults_of_a_step(count):
    step()
    step()
    before = faults()
    for _ in range(count):
        step()
    return (faults() - before) // count

x = torch.ones(64, 32, 64, 64, requires_grad=True)
otherwise = faults_of_a_step(1)
print(int(tune_malloc()), faults_of_a_step(3), otherwise)
"""


def test_large_tensors_are_not_paged_in_again_and_again() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, count, otherwise = map(int, run.stdout.split())
    # Measured: at most 14,000 against 197,000 page faults.
    assert count < otherwise / 10 if kept else sys.platform != "linux"


def test_running_out_of_memory_gives_none_and_frees_what_was_held() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def exhaust() -> torch.Tensor:
        x = torch.zeros(1000)
        held.append(weakref.ref(x))
        return torch.cat([x, torch.empty(2**60)])

    assert none_if_oom(exhaust) is None and held[0]() is None
    assert none_if_oom(lambda: 3) == 3


def test_other_errors_are_raised() -> None:
    def fail() -> None:
        raise RuntimeError("the size of tensor a must match")

    with pytest.raises(RuntimeError, match="the size of tensor a must match"):
        none_if_oom(fail)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("Allocation on device"),
        torch.cuda.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB of which 1.14 GiB "
            "is free."
        ),
        torch.AcceleratorError(
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call, so "
            "the stacktrace below might be incorrect."
        ),
        torch.AcceleratorError(
            "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvid"
        ),
        RuntimeError("cudaErrorMemoryAllocation"),
        RuntimeError("CUDA ran out of memory outside PyTorch's allocator. If this workload uses many dynamic shapes, "),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("Not enough memory for workspace!"),
        RuntimeError("HIP out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 15.98 GiB"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        torch.distributed.DistBackendError(
            "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:317, unhandled cuda error, NCCL version "
            "2.27.5\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
            "Failed to CUDA calloc async 2432 bytes: Cuda failure 2 'out of memory'"
        ),
        RuntimeError(
            "MPS backend out of memory (MPS allocated: 9.57 GiB, other allocations: 17.35 GiB, max allowed: 27.20 GiB)."
            " Tried to allocate 292.50 MiB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper "
            "limit for memory allocations (may cause system failure)."
        ),
        RuntimeError("Invalid buffer size: 19.45 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 4611686018427387904 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to allocate "
            "137438953472 bytes."
        ),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:40],
)
def test_an_error_that_memory_has_run_out_is_understood(error: Exception) -> None:
    """The texts are those of libtorch_cuda.so and libc10 of torch 2.14, and of reports by its users."""
    assert is_oom(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the size of tensor a (4) must match the size of tensor b (3) at non-singleton dimension 0"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("out of resource: shared memory, Required: 270336, Hardware limit: 232448."),
        RuntimeError("Placeholder buffer size (14336) is not large enough to contain the Tensor storage"),
        torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error"),
        ValueError("an image was left out of memory"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_oom(error)


@pytest.mark.parametrize("gpu", ["cuda", "mps"])
def test_what_an_allocator_holds_is_given_back_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch, gpu: str) -> None:
    emptied: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: gpu == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: gpu == "mps")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    none_if_oom(lambda: 3)
    assert emptied == []
    assert none_if_oom(lambda: torch.empty(2**60)) is None and emptied == [gpu]


def test_a_cpu_is_given_as_many_pixels_whatever_the_size_without_trying() -> None:
    def call(n: int) -> object:
        raise AssertionError("nothing has to be tried")

    sizes = {1: 1024, 32: 128, 64: 32, 256: 2, 512: 1}
    found = {side: auto_batch_size(call, side * side, torch.device("cpu")) for side in sizes}
    assert found == sizes


class Card:
    """A GPU with 1,000 bytes in use, 500 more held by torch and `free` free, on which an example takes `each` bytes.

    `peak` is the largest number of bytes that were in use at a time, and `most` what can be.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, each: int, *, peak: int = 1000, free: int = 6000, most: int = 10**9
    ) -> None:
        self.each, self.peak, self.free, self.most = each, peak, free, most
        self.tried: list[int] = []

        def forbidden(device: object = None) -> None:
            raise AssertionError("the statistics of the user are reset")

        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forbidden)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1500)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (self.free, 8000))

    def call(self, n: int) -> None:
        self.tried.append(n)
        if 1000 + self.each * n > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.peak = max(self.peak, 1000 + self.each * n)


CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("each", "expected"),
    [(1, 1024), (10, 256), (100, 32), (110, 16), (10_000, 1)],
    ids=["at most 1024", "half of what is free", "a power of two", "rounded down", "at least one"],
)
def test_a_gpu_is_given_what_half_of_its_free_memory_holds(
    monkeypatch: pytest.MonkeyPatch, each: int, expected: int
) -> None:
    card = Card(monkeypatch, each)
    assert auto_batch_size(card.call, 64, CUDA) == expected and card.tried == [4]


def test_an_earlier_peak_does_not_hide_what_an_example_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch, 100, peak=3000)
    assert bytes_each(card.call, CUDA) == 100 and card.tried == [4, 16, 64]
    # If nothing shows, all of them together took at most what lies below the peak.
    card = Card(monkeypatch, 100, peak=10**6)
    assert 100 <= bytes_each(card.call, CUDA) == (10**6 - 1000) / 1024 < 1000 and card.tried[-1] == 1024
    # And if memory runs out first, those did that were tried before.
    card = Card(monkeypatch, 100, peak=9000, most=5000)
    assert 100 <= bytes_each(card.call, CUDA) == 8000 / 16 and card.tried == [4, 16, 64]


def test_memory_that_runs_out_at_once_leaves_one_example(monkeypatch: pytest.MonkeyPatch) -> None:
    card, network = Card(monkeypatch, 100, most=1100), torch.nn.Identity()
    for _ in range(2):  # It may be there another time, so that it is tried again.
        assert auto_batch_size(card.call, 64, CUDA, called=(network,)) == 1
    assert card.tried == [4, 4]


def test_the_same_is_measured_once_and_other_processes_count_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    card, network = Card(monkeypatch, 100), torch.nn.Identity()
    assert auto_batch_size(card.call, 64, CUDA, called=(network, "guided")) == 32
    card.free = 1000  # Another process has taken the rest.
    assert auto_batch_size(card.call, 64, CUDA, called=(network, "guided")) == 4
    assert card.tried == [4]
    other = torch.nn.Identity()
    for positions, device, called in (
        (64, CUDA, (network, "plain")),
        (65, CUDA, (network, "guided")),
        (64, torch.device("cuda:1"), (network, "guided")),
        (64, CUDA, (other, "guided")),
    ):
        card.tried, card.peak = [], 1000
        auto_batch_size(card.call, positions, device, called=called)
        assert card.tried == [4]


def test_what_was_measured_does_not_keep_a_network_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    card, network = Card(monkeypatch, 100), torch.nn.Identity()
    gone = weakref.ref(network)
    auto_batch_size(card.call, 64, CUDA, called=(network,))
    del network
    assert gone() is None


def test_apples_gpu_is_given_half_of_what_metal_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pool grows by 1,000 bytes at a time and shrinks when it is emptied alone; 2,000 bytes are in use."""
    pool, tried = [5000], []

    def call(n: int) -> None:
        tried.append(n)
        pool.append(max(pool[-1], -((-(2000 + 100 * n)) // 1000) * 1000))

    monkeypatch.setattr(torch.mps, "empty_cache", lambda: pool.append(2000))
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: pool[-1])
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 2000)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 34_000)
    assert auto_batch_size(call, 64, torch.device("mps")) == 64  # 4 examples take 1,000 bytes of the pool.
    assert tried == [4] and available(torch.device("mps")) == 32_000


def test_the_memory_of_a_container_is_what_its_group_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpu, (most, used) = torch.device("cpu"), (tmp_path / "max", tmp_path / "current")
    monkeypatch.setattr(memory, "GROUPS", ((str(most), str(used)),))
    whole = available(cpu)
    assert 2**20 < whole <= memory.ram()
    most.write_text("max\n")
    used.write_text("1000\n")
    assert available(cpu) > 2**20
    most.write_text(f"{2**20 + 1000}\n")
    assert available(cpu) == 2**20
