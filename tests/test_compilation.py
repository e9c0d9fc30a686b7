"""Where networks are compiled, where that pays, and what happens where the compiler fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.testing import CompileCounter

from diffusion import compilation
from diffusion.backbones.mlp import MLP, MLPConfig
from diffusion.compilation import WORTH, compile_blocks, compile_for_sampling, is_of_compiler, obstacle, reason
from diffusion.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that can compile for its GPU."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name == "gcc" else None)
    monkeypatch.setattr(Path, "exists", lambda path: path.name == "Python.h")
    monkeypatch.delenv("CC", raising=False)
    return monkeypatch


def network() -> MLP:
    return MLPConfig(width=8, blocks=2).build(2, 2)


def refused(text: str) -> None:
    raise AssertionError(text)


def test_nothing_keeps_a_gpu_with_triton_and_a_c_compiler(gpu: pytest.MonkeyPatch) -> None:
    assert obstacle(CUDA) == ""
    gpu.setattr("shutil.which", lambda name: None)
    assert "C compiler" in obstacle(CUDA)
    gpu.setenv("CC", "icx")
    assert obstacle(CUDA) == ""
    gpu.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert "this GPU" in obstacle(CUDA)
    gpu.setattr("importlib.util.find_spec", lambda name: None)
    assert "Triton" in obstacle(CUDA)


def test_without_the_headers_of_python_nothing_is_compiled(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(Path, "exists", lambda path: False)
    assert "Python.h" in obstacle(CUDA)


def test_auto_compiles_on_a_gpu_alone_and_true_anywhere(gpu: pytest.MonkeyPatch) -> None:
    for device, setting, expected in [
        (CUDA, "auto", True),
        (CPU, "auto", False),
        (torch.device("mps"), "auto", False),
        (CUDA, False, False),
        (CPU, True, True),
    ]:
        found = network()
        assert compile_blocks(found, setting, device, "training.compile", refused, dynamic=False) is expected  # type: ignore[arg-type]
        assert found.compiled is expected


def fail(setting: str | bool, error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Evaluates a network whose compiler raises an error, and returns what was said."""
    torch.compiler.reset()

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        raise error

    found, said = network(), list[str]()
    real = found.compile_blocks
    monkeypatch.setattr(found, "compile_blocks", lambda **options: real(backend, **options))
    monkeypatch.setattr(compilation, "obstacle", lambda device: "")
    compile_blocks(found, setting, CPU, "training.compile", said.append, dynamic=False)  # type: ignore[arg-type]
    x, log_snr = torch.randn(4, 2), torch.zeros(4)
    assert torch.equal(found(x, log_snr), found(x, log_snr))
    return said


def test_auto_goes_on_without_compilation_and_says_why_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = fail("auto", RuntimeError("\nFailed to find C compiler.\nPlease specify"), monkeypatch)
    assert said == [
        "training.compile: the network runs without compilation, as the compiler failed: "
        "RuntimeError: Failed to find C compiler."
    ]


def test_true_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r'^training.compile: true, but .*: RuntimeError: no nvcc; .*"auto".*false'):
        fail(True, RuntimeError("no nvcc"), monkeypatch)


def test_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "obstacle", lambda device: "")
    found = network()
    compile_blocks(found, "auto", CPU, "training.compile", refused, dynamic=False)
    monkeypatch.setattr(found, "forward", lambda *arguments: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(torch.OutOfMemoryError):
        found(torch.randn(4, 2), torch.zeros(4))
    assert all(block._compiled_call_impl is not None for block in found.residual_blocks())


def test_errors_of_the_compiler_are_known() -> None:
    failed = BackendCompilerFailed(lambda: None, ValueError("a\nb"), None)
    assert is_of_compiler(failed) and reason(failed) == "ValueError: a"
    assert is_of_compiler(subprocess.CalledProcessError(1, "gcc")) and is_of_compiler(
        RuntimeError("Triton Error [CUDA]: x")
    )
    assert not is_of_compiler(RuntimeError("CUDA error")) and not is_of_compiler(torch.OutOfMemoryError("x"))
    assert len(reason(RuntimeError("x" * 1000))) < 250 and reason(RuntimeError()) == "RuntimeError: no reason given"


def test_sampling_compiles_where_it_pays_and_once(gpu: pytest.MonkeyPatch) -> None:
    found, calls = network(), list[object]()
    real = found.compile_blocks
    gpu.setattr(found, "compile_blocks", lambda **options: (calls.append(options["dynamic"]), real(CompileCounter())))
    compile_for_sampling(found, "auto", CUDA, WORTH - 1, refused)
    compile_for_sampling(found, "auto", CPU, WORTH, refused)
    compile_for_sampling(found, False, CUDA, WORTH, refused)
    compile_for_sampling(lambda *arguments: None, True, CUDA, WORTH, refused)
    assert calls == []
    compile_for_sampling(found, "auto", CUDA, WORTH, refused)
    compile_for_sampling(found, "auto", CUDA, WORTH, refused)
    assert calls == [True]
    small = network()
    compile_for_sampling(small, True, CPU, 1, refused)
    assert small.compiled, "who asks for it gets it"
