"""The tensors of guided-diffusion say what network they are of, and each has one name in `UNet2DModel`."""

from __future__ import annotations

import pytest
import torch

from diffusion.errors import InputError
from diffusion.exchange.adm_flags import parse
from diffusion.exchange.adm_layout import Layout, layers, layout_of, renamed
from tests.guided import Guided

TEXT = "--image_size 8 --num_channels 32 --num_res_blocks 2 --channel_mult 1,2,2 --attention_resolutions 4,2"


def drawn(text: str = TEXT, channels: int = 3, classes: int = 0) -> dict[str, torch.Tensor]:
    return Guided(parse(text), channels, classes).draw("meta")


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_layout_is_that_of_the_flags(residual: bool, blocks: int) -> None:
    text = f"{TEXT} --num_res_blocks {blocks} --resblock_updown {residual} --learn_sigma True --use_scale_shift_norm 0"
    made = Layout(1, 2, 32, (32, 64, 64), (False, True, True), blocks, residual, False, 4)
    assert layout_of(drawn(text, 1, 4), "x") == made
    single = layout_of(drawn(f"{text} --channel_mult 2 --attention_resolutions 8"), "x")
    assert single.widths == (64,) and single.blocks == blocks and single.attending == (True,)


def test_every_layer_has_one_name() -> None:
    for text in (TEXT, f"{TEXT} --resblock_updown True"):
        tensors = drawn(text, classes=3)
        names = dict(layers(layout_of(tensors, "x")))
        assert len({*names.values()}) == len(names)
        found = {name.rpartition(".")[0] for name in tensors}
        # Blocks of equal widths have no skip_connection.
        assert found <= names.keys() and all("skip_connection" in name for name in names.keys() - found)


def test_rows_of_heads_come_apart_in_both_orders() -> None:
    layout = layout_of(drawn(), "x")
    rows = torch.arange(3 * 64)
    weight = rows[:, None, None].expand(-1, 64, 1)
    given = {"middle_block.1.qkv.weight": weight, "middle_block.1.qkv.bias": rows}
    made = renamed(given, layout, {64: 4}, new_order=True, where="x")
    assert [made[f"mid_block.attentions.0.to_{part}.bias"].tolist() for part in "qkv"] == rows.view(3, 64).tolist()
    made = renamed(given, layout, {64: 4}, new_order=False, where="x")
    for number, part in enumerate("qkv"):
        expected = [(3 * head + number) * 16 + row for head in range(4) for row in range(16)]
        assert made[f"mid_block.attentions.0.to_{part}.bias"].tolist() == expected
        assert made[f"mid_block.attentions.0.to_{part}.weight"].equal(torch.tensor(expected)[:, None].expand(64, 64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("time_embed.0.weight", None), "has no time_embed.0.weight of 2 axes"),
        (("out.2.weight", (3, 32)), "has no out.2.weight of 4 axes"),
        (("output_blocks.0.0.in_layers.0.weight", None), "output_blocks: must be"),
        (("output_blocks.8.0.in_layers.0.weight", None), "output_blocks: must be blocks of as many in each level"),
        (("input_blocks.4.0.out_layers.0.weight", None), "has no input_blocks.4.0.out_layers.0.weight"),
    ],
)
def test_tensors_of_other_networks_are_refused(change: tuple[str, tuple[int, ...] | None], said: str) -> None:
    tensors = drawn()
    name, shape = change
    del tensors[name]
    if shape:
        tensors[name] = torch.empty(shape)
    with pytest.raises(InputError) as caught:
        layout_of(tensors, "x.pt")
    assert str(caught.value).startswith("x.pt: ") and said in str(caught.value)


def test_classifiers_strangers_and_extra_tensors_are_refused() -> None:
    tensors = drawn()
    with pytest.raises(InputError, match="is a classifier"):
        layout_of({name: value for name, value in tensors.items() if "output_blocks" not in name}, "x")
    with pytest.raises(InputError, match="has no input_blocks"):
        layout_of({"conv_in.weight": torch.ones(1)}, "x")
    extra = {**tensors, "input_blocks.1.1.qkv.weight": torch.ones(96, 32, 1)}
    layout = layout_of(tensors, "x")
    with pytest.raises(InputError, match=r"input_blocks.1.1.qkv.weight is no part of the network"):
        renamed(extra, layout, {64: 1}, new_order=False, where="x")
    for shape in ((100,), (193,), ()):
        odd = {**tensors, "middle_block.1.qkv.bias": torch.ones(shape)}
        with pytest.raises(InputError, match=r"middle_block.1.qkv.bias: must be of 192 rows, got \("):
            renamed(odd, layout, {64: 1}, new_order=False, where="x")
