"""The device that a person asks for, on machines with and without GPUs."""

from __future__ import annotations

import pytest
import torch

from diffusion import devices
from diffusion.errors import InputError
from tests.machines import machine

BOTH, GPUS, MAC, PLAIN = {"cuda": 1, "mps": True}, {"cuda": 2}, {"mps": True}, {}


@pytest.mark.parametrize(
    ("devices_there", "word", "expected"),
    [
        (BOTH, "auto", "cuda"),
        (GPUS, "auto", "cuda"),
        (MAC, "auto", "mps"),
        (PLAIN, "auto", "cpu"),
        (GPUS, "cpu", "cpu"),
        (GPUS, "cuda", "cuda"),
        (GPUS, "cuda:1", "cuda:1"),
        (MAC, "mps", "mps"),
        (MAC, "mps:0", "mps:0"),
    ],
)
def test_a_word_names_a_device(
    monkeypatch: pytest.MonkeyPatch, devices_there: dict[str, int], word: str, expected: str
) -> None:
    machine(monkeypatch, **devices_there)  # type: ignore[arg-type]
    assert devices.named(word) == torch.device(expected)


@pytest.mark.parametrize("word", ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "mps:1", "", "CUDA", "cuda :0"])
def test_another_word_is_refused_with_those_that_there_are(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    machine(monkeypatch, cuda=2, mps=True)
    with pytest.raises(InputError, match=r"^--device: must be auto, cpu, cuda, cuda:N or mps, got '"):
        devices.named(word, "--device")


@pytest.mark.parametrize(
    ("devices_there", "variables", "word", "message"),
    [
        (GPUS, {}, "cuda:2", "DEVICE: must be a device of this machine, cpu, cuda:0, cuda:1, got cuda:2"),
        ({"cuda": 1}, {"CUDA_VISIBLE_DEVICES": "3"}, "cuda:3", "got cuda:3; CUDA_VISIBLE_DEVICES=3 hides all others"),
        (PLAIN, {}, "cuda", "must be a device of this machine, cpu, got cuda; this torch is built without CUDA: in"),
        (GPUS, {}, "mps", "cpu, cuda:0, cuda:1, got mps; this torch is not built for MPS"),
        (MAC, {}, "cuda:0", "must be a device of this machine, cpu, mps, got cuda:0; this torch is built without CUDA"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
    devices_there: dict[str, int],
    variables: dict[str, str],
    word: str,
    message: str,
) -> None:
    machine(monkeypatch, **devices_there, **variables)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        devices.named(word, "DEVICE")
    assert message in str(caught.value)


def test_a_driver_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(InputError, match=r"got cuda; diffusion doctor says what is wrong with the driver$"):
        devices.named("cuda")


def test_the_option_wins_over_the_variable_and_ends_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2)
    assert devices.wanted() == devices.Wanted("auto", "--device")
    monkeypatch.setenv("DIFFUSION_DEVICE", " cuda:1 ")
    assert devices.wanted() == devices.Wanted("cuda:1", "DIFFUSION_DEVICE")
    with devices.given("cpu"):
        assert devices.wanted() == devices.Wanted("cpu", "--device")
        with devices.given(None):
            assert devices.wanted().word == "cpu"
        with devices.given("auto"):
            assert devices.wanted().word == "auto"
    assert devices.wanted().word == "cuda:1"
    with pytest.raises(ZeroDivisionError), devices.given("cpu"):
        raise ZeroDivisionError
    assert devices.wanted().word == "cuda:1"


def test_an_option_that_cannot_be_used_is_refused_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    with pytest.raises(InputError, match=r"^--device: "), devices.given("cuda"):
        raise AssertionError("it went on")


def test_what_accelerate_launches_for_the_cpu_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2, ACCELERATE_USE_CPU="true")
    assert devices.wanted().word == "cpu"
    monkeypatch.setenv("DIFFUSION_DEVICE", "cuda")
    with pytest.raises(InputError, match=r"^DIFFUSION_DEVICE: must be cpu under accelerate launch --cpu, got cuda$"):
        devices.wanted()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")  # As accelerate writes it where the CPU was not asked for.
    assert devices.wanted().word == "cuda"
