"""The precision of the network: which settings choose bf16, and which operations autocast runs in it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffusion.denoiser import Denoiser, EDMPrecond
from diffusion.precision import Autocast, Precision, use_bf16
from diffusion.schedules import Cosine

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


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


def test_convolutions_and_matrix_products_run_in_bf16_and_the_rest_in_float32() -> None:
    network = Recorder()
    # bf16 has 8 significant bits, so that 1 + 2^-9 rounds to 1: the products show the precision of their factors.
    x = torch.full((2, 1, 3, 3), 1 + 2.0**-9)
    convolved, multiplied, added = Autocast(network)(x, torch.zeros(2)).unbind(1)
    assert network.dtypes == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert (convolved == 1).all() and (multiplied == 1).all() and (added == 1 + 2.0**-9).all()
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    plain = network(x, torch.zeros(2))
    assert network.dtypes[3:] == [torch.float32] * 3, "autocast ends with the evaluation"
    assert (plain == 1 + 2.0**-9).all()


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
    assert use_bf16("bf16", device) and not use_bf16("fp32", device)


def hardware(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    *,
    mkldnn: bool = True,
    avx512_bf16: bool = False,
    amx: bool = False,
    arm_bf16: bool = False,
    cuda: bool = False,
) -> None:
    """Makes torch and Python report this hardware. Every GPU emulates bf16, whether or not it multiplies in it."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch._C, "_has_mkldnn", mkldnn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: arm_bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda or including_emulation)


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
    assert use_bf16("auto", CPU) == expected


@pytest.mark.parametrize("supported", [False, True])
def test_auto_on_a_gpu_is_bf16_where_it_is_not_emulated(supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(monkeypatch, "x86_64", avx512_bf16=not supported, cuda=supported)
    assert use_bf16("auto", CUDA) == supported


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_other_devices_run_in_float32_unless_bf16_is_asked_for(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(monkeypatch, "arm64", avx512_bf16=True, amx=True, arm_bf16=True, cuda=True)
    assert not use_bf16(precision, torch.device("mps")) and not use_bf16(precision, torch.device("meta"))
