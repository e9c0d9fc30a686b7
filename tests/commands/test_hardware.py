"""What is said of devices, on machines that this one is not."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

from diffusion.commands import hardware
from tests.machines import machine

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda:0"), torch.device("mps")


def card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], *, bf16: bool, kernel: int = 1) -> None:
    """A GPU of a compute capability, for which torch chooses a kernel of attention."""
    machine(monkeypatch, cuda=1)
    facts = SimpleNamespace(name="NVIDIA X", major=capability[0], minor=capability[1], total_memory=24 * 10**9)
    ones, empty = torch.ones, torch.empty
    for name, value in (
        ("get_device_properties", facts),
        ("get_device_capability", capability),
        ("is_bf16_supported", bf16),
        ("mem_get_info", (20 * 10**9, 24 * 10**9)),
        ("memory_reserved", 0),
        ("memory_allocated", 0),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value, **options: value)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape))
    monkeypatch.setattr(torch, "empty", lambda *shape, device, dtype: empty(*shape, dtype=dtype))
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda q, k, v: kernel)
    monkeypatch.setattr(hardware, "obstacle", lambda device: "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.mark.parametrize(
    ("capability", "bf16", "kernel", "precisions", "attention"),
    [
        ((9, 0), True, 1, "bf16, fp16, fp32, float64; networks take bf16", "the flash kernel"),
        ((7, 5), False, 2, "fp16, fp32, float64, not bf16; networks take fp16", "the memory-efficient kernel"),
        ((6, 1), False, 0, "fp32, float64, not bf16 or fp16; networks take fp32", "matrix products"),
    ],
    ids=["Hopper", "Turing", "Pascal"],
)
def test_a_gpu_is_described(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    bf16: bool,
    kernel: int,
    precisions: str,
    attention: str,
) -> None:
    card(monkeypatch, capability, bf16=bf16, kernel=kernel)
    number = ".".join(map(str, capability))
    assert hardware.abilities(CUDA) == hardware.Abilities(
        (
            f"NVIDIA X, capability {number}, 24 GB, 20.0 GB free",
            f"multiplies in {precisions}",
            f"attention by {attention}; networks are compiled",
        )
    )


def test_what_a_compiler_lacks_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, (8, 0), bf16=True)
    monkeypatch.setattr(hardware, "obstacle", lambda device: "there is no Triton")
    said, cure = hardware.compiler(CUDA)
    assert said == "networks are not compiled: there is no Triton" and cure.startswith("install it")
    monkeypatch.setattr(hardware, "obstacle", lambda device: "Triton does not know this GPU")
    assert hardware.compiler(CUDA) == ("networks are not compiled: Triton does not know this GPU", "")
    assert hardware.compiler(CPU)[0] == "torch.compile lacks a C++ compiler"
    assert "name one by CXX" in hardware.compiler(CPU)[1]
    monkeypatch.setenv("CXX", "clang++-20")
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}" if name == "clang++-20" else None)
    assert hardware.compiler(CPU) == ("torch.compile works with clang++-20", "")


def test_a_mac_has_no_float64_on_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, mps=True)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 11 * 10**9)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 10**9)
    assert hardware.capacity(MPS) == "Apple's GPU, 11 GB of the machine's at most, 10.0 GB free"
    said = hardware.precisions(MPS)
    assert "multiplies in bf16, fp16, fp32, not float64; networks take " in said
    assert said.endswith("; diffusion evaluate --float64 needs --device cpu")
    assert hardware.compiler(MPS) == ("torch.compile was not tried on it", "")
    assert hardware.compiler(CPU)[0].endswith(("clang++", "C++ compiler"))


def test_this_machine_is_described() -> None:
    found = hardware.abilities(CPU)
    assert f"{torch.get_num_threads()} threads, " in found.lines[0] and "fp32, float64" in found.lines[1]
    assert found.lines[2].startswith("attention by matrix products; torch.compile ")
