"""The network of diffusers is a backbone like the others: it trains, compiles, takes labels, maps and conditions."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from diffusion.backbones import UNet2DConfig
from diffusion.backbones.unet2d_network import UNet2D
from tests.backbones.conftest import images, log_snrs

SMALL: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
}


def built(inputs: int = 3, classes: int = 0, beside: dict[str, Any] | None = None, **options: object) -> UNet2D:
    """A small network with random weights in all layers, those that begin at zero too."""
    torch.manual_seed(0)
    network = UNet2DConfig(**{**SMALL, **options}).build(inputs, inputs, classes, **(beside or {}))
    for name, parameter in network.named_parameters():
        if not parameter.detach().any() and "conv_in" not in name:
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


def gradients(network: UNet2D, precision: torch.dtype = torch.float32) -> list[Tensor]:
    network.zero_grad()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        output = network(images(4, 3, 12, 12), log_snrs(4))
    (output.float() * images(4, 3, 12, 12, seed=5)).sum().backward()
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def test_a_new_network_predicts_zero_and_learns_a_denoiser() -> None:
    """Of constant images under noise, of which the mean over all pixels takes away all but 1/64."""
    torch.manual_seed(0)
    network = UNet2DConfig(**SMALL).build(1, 1)
    assert not network(images(2, 1, 8, 8), log_snrs(2)).any()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for step in range(50):
        x = images(8, 1, 1, 1, seed=step).expand(-1, -1, 8, 8)
        noise = images(8, 1, 8, 8, seed=1000 + step)
        loss = (network((x + noise) / 2**0.5, torch.zeros(8)) - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        network.project_()
        losses.append(loss.item())
    # The best estimate from a pixel alone has an error of 0.5.
    assert sum(losses[:5]) / 5 > 0.7 and sum(losses[-10:]) / 10 < 0.2


def test_a_network_is_differentiable_in_everything() -> None:
    network = built(1, time="sigma", time_embedding_type="fourier").double()
    x = images(1, 1, 4, 6).double().requires_grad_()
    log_snr = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    # The frequencies of the embedding are large.
    assert torch.autograd.gradcheck(network, (x, log_snr), eps=1e-7, atol=1e-5, rtol=1e-4)


def test_checkpointed_and_compiled_blocks_compute_the_same() -> None:
    torch.compiler.reset()
    network, counter = built(dropout=0.2, layers_per_block=2).train(), CompileCounter()
    found = []
    for network.gradient_checkpointing in (False, True):
        torch.manual_seed(3)
        found.append(gradients(network))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    network.eval()
    expected = network(images(2, 3, 16, 16), log_snrs(2))
    network.compile_blocks(backend=counter)
    # Compiled blocks have the group normalization of torch.
    assert torch.allclose(network(images(2, 3, 16, 16), log_snrs(2)), expected, rtol=1e-4, atol=1e-5)
    first = counter.frame_count
    # 18 blocks of eight kinds, by widths and size, and whether they attend.
    assert first == 8 and len(network.residual_blocks()) == 18
    network(images(2, 3, 16, 16, seed=9), log_snrs(2) + 1)
    assert counter.frame_count == first, "nothing is compiled again for the next batch"
    torch.compiler.reset()


def test_everything_stays_in_channels_last_layout() -> None:
    network = built(down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"), downsample_padding=0)
    seen: list[bool] = []

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen.append(output.ndim == 4 and not output.is_contiguous(memory_format=torch.channels_last))

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    for block in network.residual_blocks():
        block.register_forward_hook(note)
    network(images(2, 3, 16, 16), log_snrs(2))
    assert len(seen) > 40 and not any(seen)


def test_bf16_keeps_outputs_and_gradients() -> None:
    """Measured: 0.010 of the outputs and 0.028 of the gradients."""
    network = built(layers_per_block=2)
    x, log_snr = images(8, 3, 16, 16), log_snrs(8)
    with torch.no_grad():
        exact = network(x, log_snr)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(x, log_snr).float()
    both = [torch.cat([g.flatten() for g in gradients(network, p)]) for p in (torch.float32, torch.bfloat16)]
    assert 1e-4 < (rounded - exact).norm() / exact.norm() < 0.03
    assert 1e-4 < (both[1] - both[0]).norm() / both[0].norm() < 0.1


def test_examples_do_not_mix_and_labels_matter() -> None:
    network, x = built(classes=3), images(4, 3, 8, 12)
    label = torch.tensor([0, 1, 2, -1])
    with torch.no_grad():
        whole = network(x, log_snrs(4), label)
        for i in range(4):
            alone = network(x[i : i + 1], log_snrs(4)[i : i + 1], label[i : i + 1])
            assert torch.allclose(alone[0], whole[i], rtol=1e-4, atol=1e-5)
        same, log_snr = x[:1].expand(4, -1, -1, -1), torch.zeros(4)
        labeled, plain = network(same, log_snr, label), network(same, log_snr)
    assert torch.allclose(labeled[3], plain[3], rtol=1e-5, atol=1e-6)
    distances = torch.cdist(labeled.flatten(1), labeled.flatten(1)) / labeled.flatten(1).norm(dim=1).mean()
    assert (distances + torch.eye(4)).min() > 1e-3, "four different outputs"


def test_the_last_vector_is_no_label_if_there_is_one_more_than_classes() -> None:
    network = built(classes=3, num_class_embeds=4)
    assert isinstance(network.class_embedding, nn.Embedding) and network.nameless
    x, log_snr = images(1, 3, 8, 8), torch.zeros(1)
    assert torch.equal(network(x, log_snr, torch.tensor([-1])), network(x, log_snr, torch.tensor([3])))
    assert torch.equal(network(x, log_snr, torch.tensor([-1])), network(x, log_snr))


@pytest.mark.parametrize("label", [None, torch.tensor([0, -1])], ids=["none", "hidden"])
@pytest.mark.parametrize("options", [{"num_class_embeds": 3}, {"class_embed_type": "timestep"}], ids=str)
def test_a_network_that_knows_no_examples_without_a_label_says_so(
    options: dict[str, Any], label: Tensor | None
) -> None:
    network = built(classes=3, **options)
    x = images(2, 3, 8, 8)
    assert network(x, log_snrs(2), torch.tensor([0, 2])).std() > 1e-3
    with pytest.raises(
        ValueError, match=r"^label: must be given, one of 0 to 2, as this network knows no examples wit"
    ):
        network(x, log_snrs(2), label)


@pytest.mark.parametrize("label", [None, torch.tensor([0, 1])], ids=["none", "numbers"])
def test_a_network_that_takes_embeddings_says_so(label: Tensor | None) -> None:
    network = built(class_embed_type="identity")
    x = images(2, 3, 8, 8)
    assert not torch.equal(*(network(x, log_snrs(2), images(2, 32, seed=seed)) for seed in (1, 2)))
    with pytest.raises(
        ValueError, match=re.escape("label: must be embeddings (2, 32), which a network with class_emb")
    ):
        network(x, log_snrs(2), label)


def test_labels_are_ignored_by_a_network_without_any() -> None:
    network, x = built(), images(2, 3, 8, 8)
    assert torch.equal(network(x, log_snrs(2), torch.tensor([-1, -1])), network(x, log_snrs(2)))


def test_a_map_and_a_condition_change_nothing_until_their_weights_are_learned() -> None:
    """A network of 3 channels beside which there are 1 + 2 more has the same weights otherwise, and their gradients."""
    plain, network = built(), built(beside={"mapped": True, "condition_channels": 2})
    tensors = plain.state_dict()
    own = network.state_dict()["conv_in.weight"]
    assert own.shape == (8, 6, 3, 3) and not own[:, 3:].any()
    tensors["conv_in.weight"] = torch.cat([tensors["conv_in.weight"], own[:, 3:]], dim=1)
    network.load_state_dict(tensors)
    x, log_snr, level, condition = images(2, 3, 8, 8), log_snrs(2), images(2, 1, 8, 8, seed=2), images(2, 2, 8, 8)
    found = network(x, log_snr, None, level, condition)
    # The convolution of six channels sums in another order than that of three.
    assert (found - plain(x, log_snr)).abs().max() < 1e-5 * found.abs().max()
    (found * images(2, 3, 8, 8, seed=3)).sum().backward()
    gradient = network.conv_in.weight.grad
    assert gradient is not None and all(gradient[:, i].norm() > 1e-3 for i in range(6))


def test_a_network_is_centered_before_what_is_beside_it() -> None:
    options = {"beside": {"condition_channels": 1}}
    plain, centered = built(**options), built(center_input_sample=True, **options)
    nn.init.normal_(plain.conv_in.weight)
    centered.load_state_dict(plain.state_dict())
    x, log_snr, condition = images(2, 3, 8, 8), log_snrs(2), images(2, 1, 8, 8, seed=2)
    expected = plain(2 * x - 1, log_snr, None, None, condition)
    assert torch.equal(centered(x, log_snr, None, None, condition), expected)
