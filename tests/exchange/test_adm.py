"""Models of guided-diffusion, imported, compute what its paper says, with their own names and orders of tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import diffusion
from diffusion.denoiser import X0, Eps
from diffusion.errors import InputError
from diffusion.exchange import adm, imported
from diffusion.exchange.adm_flags import CARDS, Flags, parse
from diffusion.exchange.imported import Imported
from diffusion.model.loading import build
from diffusion.schedules import DiscreteBetas
from tests.guided import Guided

# The smallest flags with two levels, of which the second attends with four heads.
SMALL = (
    "--image_size 8 --num_channels 32 --num_res_blocks 1 --channel_mult 1,2 --attention_resolutions 4 "
    "--num_head_channels 16 --learn_sigma True --resblock_updown True "
)


def model_of(theirs: Guided) -> Imported:
    return adm.convert(theirs.draw(), theirs.flags, "x.pt", {})


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def furthest(theirs: Guided, model: Imported) -> float:
    """The largest difference of outputs in float64, in units of the largest output."""
    network = build(model.experiment, model.spec)
    network.load_state_dict(model.weights())
    network.double().eval()
    assert isinstance(model.process.schedule, DiscreteBetas)
    table, worst = model.process.schedule.table, 0.0
    network.clock.log_snrs = table
    for number, index in enumerate((0, 1, 77, len(table) - 1)):
        x, label = normal(2, theirs.channels, *model.shape[1:], seed=number), torch.tensor([0, theirs.classes - 1])
        expected = theirs(x, torch.full((2,), index), label)
        made = network(x, table[index].expand(2), label if theirs.classes else None)
        worst = max(worst, float((made - expected).abs().max() / expected.abs().max()))
    return worst


@pytest.mark.parametrize("new_order", [False, True], ids=["legacy", "new"])
@pytest.mark.parametrize(
    ("flags", "channels", "classes"),
    [
        ("", 3, 0),
        ("--class_cond True", 3, 5),
        ("--learn_sigma False --resblock_updown False", 3, 0),
        ("--use_scale_shift_norm False", 1, 0),
        ("--attention_resolutions 8,4 --num_res_blocks 2", 3, 0),
        ("--attention_resolutions 8 --resblock_updown False", 2, 0),
        ("--num_head_channels -1 --num_heads 2", 3, 0),
        ("--num_head_channels -1 --num_heads 1 --attention_resolutions 8,4", 3, 0),
        ("--channel_mult 1,1,2 --attention_resolutions 4,2 --noise_schedule cosine --diffusion_steps 200", 3, 3),
        ("--channel_mult 1 --attention_resolutions 8", 3, 0),
        # Heads of different widths, and more features of the time than channels: diffusers has no such networks.
        ("--num_head_channels -1 --num_heads 2 --attention_resolutions 8,4", 3, 0),
        ("--num_channels 64 --channel_mult 0.5,1", 3, 4),
    ],
)
def test_the_network_is_that_of_the_paper(flags: str, channels: int, classes: int, new_order: bool) -> None:
    meant = parse(f"{SMALL}{flags} --use_new_attention_order {new_order}{' --class_cond True' * (classes > 0)}")
    theirs = Guided(meant, channels, classes)
    model = model_of(theirs)
    assert model.classes == classes and model.shape == (channels, 8, 8)
    assert furthest(theirs, model) < 1e-10


def test_the_wrong_order_of_queries_keys_and_values_is_another_network() -> None:
    theirs = Guided(parse(SMALL))
    wrong = adm.convert(theirs.draw(), parse(f"{SMALL} --use_new_attention_order True"), "x.pt", {})
    assert furthest(theirs, wrong) > 1e-3
    # With one head both orders are the same.
    single = f"{SMALL} --num_head_channels 64"
    theirs = Guided(parse(single))
    same = adm.convert(theirs.draw(), parse(f"{single} --use_new_attention_order True"), "x.pt", {})
    assert furthest(theirs, same) < 1e-10


@torch.no_grad()
@pytest.mark.parametrize("start", [False, True], ids=["eps", "x0"])
def test_a_run_folder_gives_the_estimate_and_the_variance_of_the_paper(tmp_path: Path, start: bool) -> None:
    """x̂ = (x_t - √(1-ᾱ) ε)/√ᾱ, and (v + 1)/2 is the share of log β in the log of the variance."""
    text = f"{SMALL} --diffusion_steps 100 --predict_xstart {start} --use_new_attention_order {start}"
    theirs = Guided(parse(text))
    torch.save(theirs.draw(), tmp_path / "x.pt")
    imported.write(adm.read(tmp_path / "x.pt", flags=text), tmp_path / "run")
    model = diffusion.load(tmp_path / "run", device="cpu")
    assert isinstance(model.denoiser.parameterization, X0 if start else Eps)
    # The betas of 1000 steps, ten times as large.
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-3, 0.2, 100, dtype=torch.float64), 0)
    for index in (0, 40, 99):
        x = normal(2, 3, 8, 8, seed=index)
        made = model.denoiser(x.float(), torch.tensor(index / 99, dtype=torch.float64))
        output, v = theirs(x, torch.full((2,), index)).chunk(2, 1)
        noise = (1 - alpha_bar[index]).sqrt() * output
        mean = output if start else (x - noise) / alpha_bar[index].sqrt()
        assert float((made.mean - mean).abs().max() / mean.abs().max()) < 1e-5
        assert made.variance_interp is not None
        assert float((made.variance_interp - ((v + 1) / 2).clamp(0, 1)).abs().max()) < 1e-5


# Millions of values, as table 11 of the paper has them; that of FFHQ is counted from its file in papers that use it.
SIZES = {"64x64": 296, "128x128": 422, "256x256": 554, "512x512": 559, "lsun": 552}


def drawn(card: str) -> tuple[Flags, dict[str, Tensor]]:
    flags = parse(CARDS[card].flags)
    return flags, Guided(flags, classes=1000 if flags.class_cond else 0).draw("meta")


@pytest.mark.parametrize("card", {CARDS[name].flags: name for name in CARDS}.values())
def test_cards_are_of_networks_of_the_published_sizes(card: str) -> None:
    flags, tensors = drawn(card)
    model = adm.convert(tensors, flags, card, {})
    with torch.device("meta"):
        expected = build(model.experiment, model.spec).state_dict()
    expected.pop("clock.log_snrs")
    assert {name: value.shape for name, value in expected.items()} == {n: v.shape for n, v in model.tensors.items()}
    count = sum(value.numel() for value in tensors.values()) / 1e6
    published = next((size for name, size in SIZES.items() if card.startswith(name)), None)
    assert published is None or abs(count - published) < 1.5, count


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--num_channels 64", "--num_channels: must be 32, as time_embed.0.weight shows, got 64"),
        ("--num_res_blocks 2", "--num_res_blocks: must be 1, as output_blocks shows, got 2"),
        ("--channel_mult 1,1", "--channel_mult: must be 1,2, as out_layers of input_blocks show, got 1,1"),
        ("--channel_mult 1,2,2", "--channel_mult: must be 1,2"),
        ("--attention_resolutions 8", "--attention_resolutions: must be 4 with --image_size 8"),
        ("--image_size 16", "--attention_resolutions: must be 8 with --image_size 16"),
        ("--class_cond True", "--class_cond: must be False, as label_emb.weight shows, got True"),
        ("--learn_sigma False", "--learn_sigma: must be True, as out.2.weight shows, got False"),
        ("--use_scale_shift_norm False", "--use_scale_shift_norm: must be True"),
        ("--resblock_updown False", "--resblock_updown: must be True"),
        ("--num_head_channels 24", "--num_head_channels: must be a number that divides the width 64, got 24"),
        ("--num_head_channels -1 --num_heads 3", "--num_heads: must be a number that divides"),
        ("--num_head_channels -1 --num_heads_upsample 2", "--num_heads_upsample: must be -1 or --num_heads"),
    ],
)
def test_a_flag_that_the_tensors_contradict_is_named(flags: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        adm.convert(Guided(parse(SMALL)).draw("meta"), parse(f"{SMALL} {flags}"), "x.pt", {})
    assert str(caught.value).startswith("x.pt: ") and said in str(caught.value)


def test_a_file_is_named_by_its_card_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    torch.save({"state_dict": Guided(parse(SMALL)).draw(), "ema": {"x": torch.ones(1)}}, path)
    with pytest.raises(InputError, match=r"--flags: must be given .*256x256_diffusion_uncond"):
        adm.read(path)
    with pytest.raises(InputError, match="several dictionaries"):
        adm.read(path, flags=SMALL)
    with pytest.raises(InputError, match=r"mine.pt: --num_channels: must be 32"):
        adm.read(path, card="lsun_cat", within="state_dict")
    model = adm.read(path, flags=SMALL, within="state_dict")
    assert model.origin["flags"] == SMALL and [*model.origin["files"]] == ["mine.pt"]


def test_the_defaults_of_the_scripts_are_those_of_flags() -> None:
    assert parse("") == Flags() and Flags().attending == (False, False, True, True)
