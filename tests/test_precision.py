"""The precision of the network: which settings choose which, and which operations autocast runs in it."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from diffusion.data import DataSpec
from diffusion.denoiser import Denoiser, EDMPrecond
from diffusion.likelihood import bound, flow, importance
from diffusion.model.likelihood import Likelihood
from diffusion.precision import DTYPES, Autocast, Precision, exact_float32, in_precision, name_of, network_dtype
from diffusion.schedules import Cosine

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


class Recorder(nn.Module):
    """A convolution, a matrix product over channels and a sum, with the dtype of each result in `dtypes`."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 1, bias=False)
        self.linear = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.convolution.weight)
        nn.init.ones_(self.linear.weight)
        self.dtypes: list[torch.dtype] = []

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        convolved = self.convolution(x)
        multiplied = self.linear(x.movedim(1, -1)).movedim(-1, 1)
        added = x + log_snr.reshape(-1, 1, 1, 1)
        self.dtypes += [convolved.dtype, multiplied.dtype, added.dtype]
        return torch.cat([convolved, multiplied, added], 1)


@pytest.mark.parametrize(("dtype", "digits"), [(BF16, 8), (FP16, 11)])
def test_convolutions_and_matrix_products_run_in_it_and_the_rest_in_float32(dtype: torch.dtype, digits: int) -> None:
    network = Recorder()
    # With 8 significant bits 1 + 2^-9 rounds to 1: the products show the precision of their factors.
    x = torch.full((2, 1, 3, 3), 1 + 2.0 ** -(digits + 1))
    convolved, multiplied, added = Autocast(network, dtype)(x, torch.zeros(2)).unbind(1)
    assert network.dtypes == [dtype, dtype, torch.float32]
    assert (convolved == 1).all() and (multiplied == 1).all() and torch.equal(added, x[:, 0])
    one_digit_more = Autocast(network, dtype)(torch.full_like(x, 1 + 2.0 ** -(digits - 1)), torch.zeros(2))
    assert (one_digit_more != 1).all()
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    plain = network(x, torch.zeros(2))
    assert network.dtypes[6:] == [torch.float32] * 3, "autocast ends with the evaluation"
    assert (plain == x).all()


def test_the_arguments_are_those_of_the_network() -> None:
    seen: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def network(x: Tensor, log_snr: Tensor, label: Tensor | None = None, /) -> Tensor:
        seen.append((x, log_snr, label))
        return x

    x, log_snr, label = torch.randn(2, 1, 3, 3), torch.tensor([0.1, -3.7]), torch.tensor([4, -1])
    assert Autocast(network)(x, log_snr, label) is x and Autocast(network)(x, log_snr) is x
    assert all(a is b for a, b in zip(seen[0], (x, log_snr, label), strict=True)) and seen[1][2] is None


def test_the_algebra_around_an_autocast_network_keeps_the_precision_of_x_t() -> None:
    """The estimate is c_skip x_t + c_out F in float32, with F from bf16 autocast, to the last bit."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 3, padding=1).requires_grad_(False)
    schedule, t = Cosine(), torch.tensor([0.2, 0.7], dtype=torch.float64)
    x_t = torch.randn(2, 1, 8, 8)

    def backbone(x: Tensor, log_snr: Tensor, label: Tensor | None = None, /) -> Tensor:
        output: Tensor = network(x)
        return output

    autocast, plain = (Denoiser(f, schedule, EDMPrecond()) for f in (Autocast(backbone), backbone))
    output, _ = autocast.network(x_t, t)
    assert output.dtype == torch.float32 and torch.equal(output, output.bfloat16().float())
    mean = autocast(x_t, t).mean
    assert mean.dtype == torch.float32 and torch.equal(mean, autocast.combine(output, x_t, t))
    assert not torch.equal(mean, mean.bfloat16().float())
    difference = (output - plain.network(x_t, t)[0]).abs().max()
    # bf16 rounds factors and results by a relative error of at most 2^-9 each: 0.008 measured, for F of up to 1.2.
    assert 0 < float(difference) < 0.012


@pytest.mark.parametrize("device", [CPU, CUDA, torch.device("meta")], ids=str)
@pytest.mark.parametrize("supported", [False, True])
def test_a_precision_that_is_asked_for_does_not_depend_on_the_hardware(
    device: torch.device, supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(monkeypatch, "x86_64", cuda=supported, avx512_bf16=supported)
    assert {name: network_dtype(name, device) for name in DTYPES} == {"bf16": BF16, "fp16": FP16, "fp32": FP32}


def test_the_name_of_a_dtype_is_the_one_that_asks_for_it() -> None:
    assert [name_of(dtype) for dtype in (BF16, FP16, FP32)] == ["bf16", "fp16", "fp32"]


def test_a_network_in_float32_is_itself() -> None:
    network = Recorder()
    assert in_precision(network, FP32) is network and in_precision(network, FP16) == Autocast(network, FP16)


def hardware(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    *,
    mkldnn: bool = True,
    avx512_bf16: bool = False,
    amx: bool = False,
    arm_bf16: bool = False,
    cuda: bool = False,
    capability: tuple[int, int] = (0, 0),
) -> None:
    """Makes torch and Python report this hardware. Every GPU emulates bf16, whether or not it multiplies in it."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch._C, "_has_mkldnn", mkldnn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: arm_bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


@pytest.mark.parametrize(
    ("machine", "options", "expected"),
    [
        # On x86 oneDNN says that it supports bf16 on machines where it emulates it: `arm_bf16` is not asked.
        ("x86_64", {"arm_bf16": True}, False),
        ("x86_64", {"avx512_bf16": True}, True),
        ("AMD64", {"amx": True}, True),
        ("AMD64", {"arm_bf16": True}, False),
        ("aarch64", {"arm_bf16": True}, True),
        ("arm64", {"avx512_bf16": True, "amx": True}, False),
        ("x86_64", {"mkldnn": False, "avx512_bf16": True, "amx": True}, False),
        ("aarch64", {"mkldnn": False, "arm_bf16": True}, False),
    ],
)
def test_auto_on_a_cpu_is_bf16_where_its_instructions_multiply_in_it(
    machine: str, options: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(monkeypatch, machine, **options)
    assert network_dtype("auto", CPU) == (BF16 if expected else FP32), "never fp16, which CPUs emulate"


@pytest.mark.parametrize(
    ("capability", "supported", "expected"),
    [
        ((9, 0), True, BF16),  # H200
        ((7, 5), False, FP16),  # T4, RTX 20xx
        ((7, 0), False, FP16),  # V100
        ((6, 1), False, FP32),  # GTX 10xx, whose fp16 is slower than its float32
        ((11, 0), True, BF16),  # MI200: ROCm, which has its own numbers
    ],
)
def test_auto_on_a_gpu_is_bf16_where_it_is_not_emulated_else_fp16_where_it_has_tensor_cores(
    capability: tuple[int, int], supported: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(monkeypatch, "x86_64", avx512_bf16=not supported, cuda=supported, capability=capability)
    assert network_dtype("auto", CUDA) == expected


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_other_devices_run_in_float32_unless_another_is_asked_for(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(monkeypatch, "arm64", avx512_bf16=True, amx=True, arm_bf16=True, cuda=True)
    assert all(network_dtype(precision, torch.device(kind)) == FP32 for kind in ("mps", "meta"))


def test_likelihoods_multiply_float32_as_it_is_and_leave_the_settings_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [kind.fp32_precision for kind in kinds]
    try:
        kinds[1].fp32_precision = "tf32"
        with contextlib.suppress(KeyError), exact_float32():
            assert [kind.fp32_precision for kind in kinds] == ["ieee", "ieee"]
            raise KeyError
        assert [kind.fp32_precision for kind in kinds] == [before[0], "tf32"]
    finally:
        kinds[1].fp32_precision = before[1]
    assert torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32, "older names still answer"
    seen: list[list[str]] = []

    def noting(*arguments: object, **options: object) -> None:
        seen.append([kind.fp32_precision for kind in kinds])
        raise KeyError

    for module, name in (
        (bound, "bound"),
        (bound, "bound_2015"),
        (flow, "log_likelihood"),
        (importance, "path_weights"),
    ):
        monkeypatch.setattr(module, name, noting)
    measured = Likelihood(AnyModel(), DataSpec((2,), None))  # type: ignore[arg-type]
    for call in (measured.bound, measured.bound_2015, measured.flow, measured.path_weights):
        with contextlib.suppress(KeyError):
            call(torch.zeros(3, 2))
    assert seen == [["ieee", "ieee"]] * 4


class AnyModel:
    """A denoiser that is not evaluated."""

    schedule = Cosine()
