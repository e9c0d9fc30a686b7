"""Freed memory stays with the process, and the automatic batch size follows from the device."""

from __future__ import annotations

import subprocess
import sys
import weakref

import pytest
import torch

from diffusion.memory import auto_batch_size, is_oom, none_if_oom

SCRIPT = """
import resource
import torch
from diffusion.memory import tune_malloc

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    y = x
    for _ in range(6):
        y = (y * 1.01).sin()
    y.sum().backward()

def faults_of_steps():
    step()
    step()
    before = faults()
    for _ in range(3):
        step()
    return faults() - before

x = torch.randn(64, 32, 64, 64, requires_grad=True)
otherwise = faults_of_steps()
print(int(tune_malloc()), faults_of_steps(), otherwise)
"""


def test_large_tensors_are_not_paged_in_again_and_again() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, count, otherwise = map(int, run.stdout.split())
    # Measured: at most 49,000 against 737,000 page faults.
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
    assert not is_oom(RuntimeError("the size of tensor a must match"))
    assert is_oom(torch.OutOfMemoryError("CUDA out of memory."))


def test_a_cpu_is_given_as_many_pixels_whatever_the_size_without_trying() -> None:
    def call(n: int) -> object:
        raise AssertionError("nothing has to be tried")

    sizes = {1: 1024, 32: 128, 64: 32, 256: 2, 512: 1}
    found = {side: auto_batch_size(call, side * side, torch.device("cpu")) for side in sizes}
    assert found == sizes


@pytest.mark.parametrize(
    ("each", "expected"),
    [(1, 1024), (10, 256), (100, 32), (110, 16), (10_000, 1)],
    ids=["at most 1024", "half of what is free", "a power of two", "rounded down", "at least one"],
)
def test_a_gpu_is_given_what_half_of_its_free_memory_holds(
    monkeypatch: pytest.MonkeyPatch, each: int, expected: int
) -> None:
    """The device has 1,000 bytes in use, 500 more held by torch and 6,000 free; an example takes `each` bytes."""
    tried: list[int] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1500)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1000 + each * tried[-1])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6000, 8000))
    assert auto_batch_size(tried.append, 64, torch.device("cuda")) == expected
