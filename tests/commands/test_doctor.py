"""What the doctor finds on this machine, and on machines where something is broken."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffusion import cli
from diffusion.commands import doctor, hardware
from diffusion.commands.doctor import Finding
from diffusion.commands.hardware import Abilities
from tests.machines import machine

NMS = "operator torchvision::nms does not exist"


def by_name(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_sound_machine_is_reported_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "SHARED", 0.0)
    monkeypatch.setenv("DIFFUSION_CACHE", str(tmp_path / "not" / "there" / "yet"))
    code, text = cli.main(["doctor"]), capsys.readouterr().out
    assert code == 0, text
    for word in ("system", "python", "torch ", "torchvision", "cpu", "threads", "cache", "here", "trackers", "gloo"):
        assert word in text
    assert importlib.metadata.version("torch") in text and "nothing is broken" in text and "BROKEN" not in text
    assert not (tmp_path / "not").exists()


def test_a_torchvision_that_does_not_load_is_named_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise RuntimeError({NMS!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert NMS in text and doctor.SAME_SOURCE in text and "1 broken" in text
    # What comes after it is still there.
    assert "launchers" in text


def versions(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], needed: dict[str, list[str]]) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needed.get(name, []))


def test_versions_that_do_not_fit_together_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(
        monkeypatch,
        {"reverse-diffusion": "1.0", "torch": "2.13.0+cpu", "torchvision": "0.29.2", "pillow": "11.0.0"},
        {
            "reverse-diffusion": [
                "torch>=2.10",
                "torchvision>=0.25",
                "pillow>=12.2",
                "einops>=0.8",
                'ruff>=1; extra == "test"',
            ],
            "torchvision": ["torch (>=2.14.0)", 'gdown>=4; extra == "gdown"'],
        },
    )
    found = by_name(doctor._packages())
    assert found["reverse-diffusion"].text == "1.0" and not found["torch"].broken and "ruff" not in found
    assert found["torchvision"].broken and "0.29.2 needs torch>=2.14.0, but torch is 2.13.0+cpu" in str(
        found["torchvision"]
    )
    assert found["torchvision"].cure == doctor.SAME_SOURCE
    assert found["pillow"].broken and found["pillow"].cure == 'pip install --upgrade "pillow>=12.2"'
    assert found["einops"].broken and found["einops"].text == "not installed"


def test_a_checkout_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, {}, {})
    (found,) = doctor._packages()
    assert "not installed" in found.text and not found.broken


def test_a_check_that_fails_is_a_finding_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def _sick() -> Iterator[Finding]:
        yield Finding("first", "fine")
        raise ImportError("no such library")

    def _well() -> Iterator[Finding]:
        yield Finding("last", "fine")

    monkeypatch.setattr(doctor, "CHECKS", (_sick, _well))
    first, sick, last = doctor.examine()
    assert (first.name, last.name) == ("first", "last")
    assert sick.name == "sick" and sick.broken and "ImportError: no such library" in str(sick)
    assert doctor.report([first, sick, last]).endswith(f"{'verdict':{doctor.WIDTH}s}1 broken")


def test_little_space_is_noted_and_a_cache_that_cannot_be_written_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFUSION_CACHE", str(tmp_path / "cache"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: usage(10, 10, int(doctor.SPACE) - 1))
    found = by_name(doctor._disk())
    assert found["cache"].cure and not found["cache"].broken and "2.0 GB free" in found["cache"].text
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    assert all(finding.broken for finding in doctor._disk())


def test_the_home_of_the_user_does_not_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DIFFUSION_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert by_name(doctor._disk())["cache"].text.startswith("~/.cache/diffusion, ")


def test_shared_memory_of_a_container_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SHARED", 1e18)
    found = by_name(doctor._shared_memory())
    if Path("/dev/shm").is_dir():
        assert "--shm-size" in found["shm"].cure and not found["shm"].broken


def test_a_foreign_package_of_the_same_name_is_reported_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (doctor._packages, doctor._foreign))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "diffusion-6.12.2.dist-info").mkdir()
    (tmp_path / "diffusion-6.12.2.dist-info" / "METADATA").write_text("Name: diffusion\nVersion: 6.12.2\n")
    (tmp_path / "diffusion").mkdir()
    (tmp_path / "diffusion" / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    cli.main(["doctor"])
    text = capsys.readouterr().out
    assert (
        "diffusion 6.12.2 installs another package diffusion" in text and "-> pip uninstall diffusion, then: " in text
    )
    assert "~/diffusion/__init__.py is another package of this name" in text and str(tmp_path) not in text


def test_every_device_is_reported_with_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second GPU does not work, which hides neither the first nor the others."""
    machine(monkeypatch, cuda=2, mps=True)

    def abilities(device: torch.device) -> Abilities:
        if device.index == 1:
            raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nCompile with TORCH_USE")
        return Abilities((f"{device.type} memory", f"{device.type} precisions", "no compiler"), "install one")

    monkeypatch.setattr(hardware, "abilities", abilities)
    found = list(doctor._devices())[-10:]
    assert [(each.name, each.text) for each in found] == [
        *(("cpu", "cpu memory"), ("", "cpu precisions"), ("", "no compiler")),
        *(("cuda:0", "cuda memory"), ("", "cuda precisions"), ("", "no compiler")),
        ("cuda:1", "does not work: CUDA error: uncorrectable ECC error encountered"),
        *(("mps", "mps memory"), ("", "mps precisions"), ("", "no compiler")),
    ]
    assert [each.broken for each in found] == [False] * 6 + [True] + [False] * 3
    assert found[2].cure == "install one" and found[6].cure == "take another device by --device"


def test_the_device_that_commands_take_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2)
    assert by_name(doctor._chosen())["device"].text == "commands take cuda:0"
    monkeypatch.setenv("DIFFUSION_DEVICE", "cuda:1")
    assert by_name(doctor._chosen())["device"].text == "commands take cuda:1, as DIFFUSION_DEVICE asks"
    monkeypatch.setenv("DIFFUSION_DEVICE", "cuda:7")
    found = by_name(doctor._chosen())["device"]
    assert found.broken and "cpu, cuda:0, cuda:1, got cuda:7" in found.text and "unset DIFFUSION_DEVICE" in found.cure
