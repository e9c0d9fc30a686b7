"""Flags are read as the scripts of guided-diffusion read them, and mistakes are named."""

from __future__ import annotations

import pytest

from diffusion.errors import InputError
from diffusion.exchange.adm_flags import CARDS, Flags, chosen, parse

PUBLISHED = (
    "--attention_resolutions 32,16,8 --class_cond False --diffusion_steps 1000 --image_size 256 --learn_sigma True "
    "--noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2 --resblock_updown True "
    "--use_fp16 True --use_scale_shift_norm True"
)


def test_a_published_line_is_read_with_what_it_says_of_sampling() -> None:
    flags = Flags(
        image_size=256, num_channels=256, attention_resolutions=(32, 16, 8), num_head_channels=64,
        resblock_updown=True, learn_sigma=True,
    )  # fmt: skip
    assert parse(PUBLISHED) == flags
    more = "--batch_size 4 --timestep_respacing 'ddim25' --model_path=models/a=b.pt --classifier_scale 10.0 --lr 1e-4"
    assert parse(f"{PUBLISHED} {more} --num_heads_upsample -1 --channel_mult ''") == flags
    assert flags.widths == (256, 256, 512, 512, 1024, 1024)
    assert flags.attending == (False, False, False, True, True, True)


@pytest.mark.parametrize("word", ["True", "true", "T", "yes", "y", "1"])
def test_true_has_many_spellings(word: str) -> None:
    assert parse(f"--learn_sigma {word}").learn_sigma and not parse(f"--learn_sigma={'no' if word else ''}").learn_sigma


def test_levels_follow_from_the_size_of_images_unless_they_are_given() -> None:
    assert parse("--image_size 512 --num_channels 256").widths == (128, 256, 256, 512, 512, 1024, 1024)
    assert parse("--image_size 32 --channel_mult 0.5,1.5,2 --num_channels 64").widths == (32, 96, 128)
    assert parse("--image_size 32 --channel_mult 1,2 --attention_resolutions 16,99").attending == (False, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--num_chanels 256", "'--num_chanels' is no flag of guided-diffusion; did you mean num_channels?"),
        ("num_channels 256", "'num_channels' is no flag"),
        ("--num_channels", "--num_channels: must be followed by its value, got none"),
        ("--num_channels --image_size 64", "--num_channels: must be followed by its value, got '--image_size'"),
        ("--num_channels many", "--num_channels: must be a whole number, got 'many'"),
        ("--num_channels 1e3", "--num_channels: must be a whole number"),
        ("--learn_sigma maybe", "--learn_sigma: must be True or False, got 'maybe'"),
        ("--channel_mult 1;2", "--channel_mult: must be numbers with commas between them"),
        ("--channel_mult nan,1", "--channel_mult: must be multiples"),
        ("--channel_mult 1,1e99", "--channel_mult: must be multiples"),
        ("--image_size 100", "--channel_mult: must be given for an --image_size other than 512, 256, 128, 64, got 100"),
        ("--image_size 0", "--image_size: must be a number from 1 to"),
        ("--num_channels 99999999999999999999", "--num_channels: must be a number from 2 to"),
        ("--num_head_channels 0", "--num_head_channels: must be -1 or at least 1"),
        ("--attention_resolutions 0", "--attention_resolutions: must be sides"),
        ("--diffusion_steps 1", "--diffusion_steps: must be from 2"),
        ("--diffusion_steps 4000 --rescale_timesteps True", "--diffusion_steps: must be 1000 with --rescale_timesteps"),
        ("--noise_schedule sqrt", "--noise_schedule: must be one of linear, cosine, got 'sqrt'"),
        ("--dropout 1", "--dropout: must be in [0, 1)"),
        ("--image_size '64", "cannot be read"),
    ],
)
def test_mistakes_name_the_flag(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert said in str(caught.value)


def test_flags_come_from_a_text_a_card_or_the_name_of_the_file() -> None:
    assert chosen(PUBLISHED, "", "x") == (parse(PUBLISHED), PUBLISHED)
    flags, text = chosen("", "", "64x64_diffusion")
    assert flags.use_new_attention_order and flags.noise_schedule == "cosine" and "README" in text
    assert chosen("", "lsun_cat", "x")[0].dropout == 0.1
    with pytest.raises(InputError, match=r"--card: must be one of .* did you mean lsun_cat"):
        chosen("", "lsun_cats", "x")
    with pytest.raises(InputError, match="--card: must be left out"):
        chosen(PUBLISHED, "lsun_cat", "x")


@pytest.mark.parametrize("card", CARDS)
def test_cards_are_read(card: str) -> None:
    flags = parse(CARDS[card].flags)
    assert flags.learn_sigma and flags.resblock_updown and flags.use_scale_shift_norm and any(flags.attending)
    assert CARDS[card].source.count("commit") == 1
    # Models of guided-diffusion but one have the order of the first version.
    assert flags.use_new_attention_order == (card == "64x64_diffusion")
