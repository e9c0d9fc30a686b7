"""Configurations: what is accepted, what is said about the rest, and that nothing is lost on the way."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion import config
from diffusion.backbones import MLPConfig, UNetConfig
from diffusion.config import Config, ConfigError, from_dict, load, override, to_dict
from diffusion.noise_levels import LogitNormal, LogNormal, Uniform
from diffusion.objectives import Exact, SigmoidError, Weighting
from diffusion.samplers import DDIM, DPMSolver
from diffusion.schedules import EDM, Cosine

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))
# Sections that a component needs beside its own.
NEEDS: dict[str, dict[str, dict[str, object]]] = {
    "measured": {"weighting": {"name": "exact"}},
    "dissipation": {"weighting": {"name": "exact"}},
}
TEXT = """
[data]
path = "photos"
[backbone]
channels = [8, 16]
attention = []
[training]
batch = 4
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(TEXT)
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_survives_the_way_to_json_and_back(path: Path) -> None:
    loaded = load(path)
    tree = to_dict(loaded)
    assert from_dict(tree) == loaded
    assert from_dict(json.loads(json.dumps(tree))) == loaded
    assert to_dict(from_dict(json.loads(json.dumps(tree)))) == tree


@pytest.mark.parametrize(
    ("section", "name"), [(section, name) for section, registry in config.REGISTRIES.items() for name in registry]
)
def test_every_component_can_be_named_and_survives_the_way_to_json(section: str, name: str) -> None:
    built = from_dict({section: {"name": name}, **NEEDS.get(name, {})})
    assert type(getattr(built, section)) is config.REGISTRIES[section][name]
    assert from_dict(json.loads(json.dumps(to_dict(built)))) == built


def test_an_empty_config_is_the_default_one() -> None:
    assert from_dict({}) == Config()


def test_a_file_gives_its_values_and_defaults_for_the_rest(file: Path) -> None:
    loaded = load(file)
    assert loaded.data.path == "photos" and loaded.training.batch == 4
    assert loaded.backbone == UNetConfig(channels=(8, 16), attention=())
    assert loaded.schedule == EDM() and loaded.training.beta2 == Config().training.beta2


def test_overrides_replace_values_of_every_type(file: Path) -> None:
    loaded = load(
        file,
        [
            "training.batch=32",
            "training.lr=1e-3",
            "data.path=other folder/with spaces",
            "data.background=[0, 1, 2]",
            "data.flip=true",
            "backbone.channels=[4, 8, 16]",
            'report.tracker="wandb"',
            "sampling.interval=[-1, 2.5]",
        ],
    )
    assert loaded.training.batch == 32 and loaded.training.lr == 1e-3
    assert loaded.data.path == "other folder/with spaces"
    assert loaded.data.background == (0, 1, 2) and loaded.data.flip is True
    assert loaded.backbone == UNetConfig(channels=(4, 8, 16), attention=())
    assert loaded.report.tracker == "wandb" and loaded.sampling.interval == (-1.0, 2.5)


@pytest.mark.parametrize("name", ["2015", "2024-01-01", " 1e-3", "true", "[a]"])
def test_a_folder_may_be_called_like_a_number_or_a_date(file: Path, name: str) -> None:
    assert load(file, [f"data.path={name}"]).data.path == name.strip()


def test_another_component_drops_the_keys_of_the_first(file: Path) -> None:
    assert load(file, ["backbone.name=mlp"]).backbone == MLPConfig()


def test_naming_the_same_component_again_keeps_its_keys(file: Path) -> None:
    assert load(file, ["backbone.name=unet"]) == load(file)


def test_the_order_of_overrides_does_not_matter(file: Path) -> None:
    for overrides in (["sampler.name=ddim", "sampler.eta=0.5"], ["sampler.eta=0.5", "sampler.name=ddim"]):
        assert load(file, overrides).sampler == DDIM(eta=0.5)
    assert load(file, ["sampler.eta=0.5", "sampler.name=dpmpp_2m"]).sampler == DPMSolver(eta=0.5)
    assert load(file, ["schedule.shift=1", "schedule.name=cosine"]).schedule == Cosine(shift=1.0)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.bacth=3", ["training.bacth", "did you mean 'batch'?"]),
        ("trainign.batch=3", ["trainign", "did you mean 'training'?"]),
        ("schedule.name=cosin", ["schedule.name", "'cosin'", "did you mean 'cosine'?"]),
        ("training.precision=fp3", ["training.precision", "'fp32'", "did you mean fp32?"]),
        ("data.source=floder", ["data.source", "got 'floder'; did you mean folder?"]),
        ("backbone.design=groupnorm", ["backbone.design", "did you mean group_norm?"]),
        ("schedule.name=5", ["schedule.name", "one of linear, cosine", "got 5"]),
        ("schedule.name=['cosine']", ["schedule.name", "got ['cosine']"]),
        ("backbone.width=3", ["backbone.width", "no such key", "valid: channels"]),
        ("training.batch=0", ["training.batch", "greater than or equal to 1", "got 0"]),
        ("report.draws=0", ["report.draws", "greater than or equal to 2", "got 0"]),
        ("report.draws=3", ["report.draws", "multiple of 2", "got 3"]),
        ("training.batch=many", ["training.batch", "integer", "got 'many'"]),
        ("training.lr=-1", ["training.lr", "greater than 0", "got -1"]),
        ("training.precision=fp8", ["training.precision", "'bf16'", "got 'fp8'"]),
        ("backbone.channels=[8, 'x']", ["backbone.channels.1:", "got 'x'"]),
        ("backbone.channels=[8, 1]", ["backbone.channels:", "widths of 2 to", "got (8, 1)"]),
        ("backbone.attention=[2]", ["backbone.attention:", "stages from 0 to 1"]),
        ("data.size=large", ["data.size:", "got 'large'"]),
        ("data.size=0", ["data.size:", "positive", "got 0"]),
        ("data.source=foldr", ["data.source:", "folder", "got 'foldr'"]),
        ("noise_levels.std=-1", ["noise_levels.std: must be a positive number, got -1"]),
        ("schedule.sigma_min=-1", ["schedule.sigma_min", "0 < sigma_min < sigma_max"]),
        ("noise_levels.name=measured", ["weighting.name: must be exact", "noise_levels.name", "got edm"]),
        ("training.accumulate=3", ["training.accumulate", "divide", "4", "got 3"]),
        ("model.learned_variance=true", ["training.hybrid", "model.learned_variance"]),
        ("batch=3", ["'batch=3'", "section.key=value"]),
        ("training.batch", ["'training.batch'", "section.key=value"]),
        ("a.b.c=3", ["'a.b.c=3'", "section.key=value"]),
    ],
)
def test_a_mistake_is_named_with_its_key_and_value(file: Path, override: str, parts: list[str]) -> None:
    text = message(file, override)
    assert all(part in text for part in parts), text
    assert "\n" not in text and "pydantic" not in text


def test_a_mistake_in_the_file_names_the_file(file: Path) -> None:
    file.write_text("[training]\nbatch = 0\n")
    assert message(file).startswith(f"{file}: training.batch")
    file.write_text("training = 3\n")
    assert "training: must be a section" in message(file) and "got 3" in message(file)
    assert "training: must be a section" in message(file, "training.batch=3")


def test_a_missing_file_names_a_near_one(file: Path) -> None:
    text = message(file.with_name("smal.toml"))
    assert "smal.toml: no such config file" in text and f"did you mean {file}?" in text
    assert "did you mean" not in message(file.with_name("qqqq.toml"))


def test_a_file_that_is_not_toml_says_where(file: Path) -> None:
    file.write_text("[training]\nbatch = = 3\n")
    assert "not a TOML file" in message(file) and "line 2" in message(file)
    assert "not a TOML file" in message(file.parent)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_file_that_an_editor_of_windows_saved_is_read(file: Path, encoding: str) -> None:
    expected = load(file)
    file.write_bytes(TEXT.replace("\n", "\r\n").encode(encoding))
    assert load(file) == expected


def test_an_encoding_that_is_not_that_of_toml_is_named(file: Path) -> None:
    file.write_bytes(TEXT.encode("utf-16"))
    assert message(file) == f"{file}: is saved as UTF-16, as PowerShell and Notepad write it; save it as UTF-8"
    file.write_bytes(TEXT.replace("photos", "Größe").encode("cp1252"))
    assert "line 3 is not UTF-8 (byte 0xF6)" in message(file)


@pytest.mark.parametrize("path", [r"C:\photos", r"C:\Users\me", r"C:\xray"])
def test_a_backslash_of_windows_in_a_string_is_explained(file: Path, path: str) -> None:
    file.write_text(f'[data]\npath = "{path}"\n')
    text = message(file)
    assert "line 2" in text and text.endswith(r"written with / or in single quotes, as 'C:\photos'")
    file.write_text(f"[data]\npath = '{path}'\n")
    assert load(file).data.path == path


def test_a_path_of_a_config_may_begin_at_home(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert load(Path("~") / file.name) == load(file)
    assert load(Path("~/small")) == load(file)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("batch=3", "; did you mean training.batch?"),
        ("steps=3", "; did you mean training.steps or sampling.steps?"),
        ("training.steps", "; did you mean training.steps or sampling.steps?"),
        ("xyzzy=3", ""),
        ("a.training.batch=3", "; did you mean training.batch?"),
    ],
)
def test_an_override_without_its_section_names_those_that_have_the_key(file: Path, override: str, hint: str) -> None:
    form = "an override has the form section.key=value, as in training.batch=32"
    assert message(file, override) == f"{override!r}: {form}{hint}"


@pytest.mark.parametrize("key", ["data.path", "training.init", "distillation.teacher"])
def test_every_key_that_holds_text_may_look_like_a_number(file: Path, key: str) -> None:
    section, _, name = key.partition(".")
    assert getattr(getattr(load(file, [f"{key}=2015"]), section), name) == "2015"


def test_the_rules_hold_for_configs_made_in_code() -> None:
    with pytest.raises(ConfigError, match=r"training\.hybrid"):
        Config(training=replace(Config().training, hybrid=0.1))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"trajectory": 5}},
            "data.masks: must be unset with training.trajectory, whose bound",
        ),
        (
            {"training": {"hybrid": 0.1}, "model": {"learned_variance": True}},
            "data.masks: must be unset with training.hybrid, whose bound has one noise level for all pixels",
        ),
        (
            {"distillation": {"teacher": "runs/a"}},
            "data.masks: must be unset with distillation.teacher, as a student learns from whole images, got 'alpha'",
        ),
        ({"data": {"source": "digits"}}, "data.masks: must be unset for digits, got 'alpha'"),
        ({"data": {"source": "mixture"}}, "data.masks: must be unset for mixture, got 'alpha'"),
        ({"data": {"masks": "#f0f"}}, "data.masks: must be alpha, a folder, or a color such as #ff00ff, got '#f0f'"),
    ],
)
def test_masks_give_every_pixel_a_noise_level_where_that_can_be(sections: dict[str, Any], message: str) -> None:
    assert not from_dict({}).mapped and from_dict({"data": {"masks": "alpha"}}).mapped
    assert override(Config(), ["data.masks=#ff00ff"]).data.masks == "#ff00ff"
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_dict({**sections, "data": {"masks": "alpha", **sections.get("data", {})}})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"observed": {"share": 0.0}},
            "observed.share: must be above 0 with training.em, whose rounds",
        ),
        ({"data": {"held_out": 0.0}}, "data.held_out: must be above 0 with training.em"),
        ({"data": {"margin": 2}}, "data.margin: must be 0 with training.em"),
        ({"distillation": {"teacher": "runs/a"}}, "distillation.teacher: must be unset with training.em"),
    ],
)
def test_rounds_need_a_network_that_completes_and_examples_to_end_by(sections: dict[str, Any], message: str) -> None:
    tree = {"training": {"em": 2}, "observed": {"share": 0.5}}
    assert from_dict(tree).training.em == 2
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_dict({**tree, **sections})


def test_a_trajectory_trains_the_variance_with_the_mean_or_leaves_it() -> None:
    for learned in (False, True):
        tree = {"model": {"learned_variance": learned}, "training": {"trajectory": 5}}
        assert from_dict(tree).training.trajectory == 5
    with pytest.raises(ConfigError, match=r"training\.hybrid: must be 0 with training\.trajectory"):
        from_dict({"model": {"learned_variance": True}, "training": {"trajectory": 5, "hybrid": 0.1}})


@pytest.mark.parametrize("weighting", [Exact(), SigmoidError()])
def test_an_integral_over_log_snr_needs_draws_in_the_tails_of_log_normal_noise_levels(weighting: Weighting) -> None:
    name = {Exact: "exact", SigmoidError: "sigmoid"}[type(weighting)]
    with pytest.raises(ConfigError) as caught:
        config.refuse_undrawn_tails(Config(weighting=weighting))
    assert str(caught.value) == (
        f"noise_levels.uniform: must be positive where weighting.name is {name} and noise_levels.name is log_normal, "
        "as the weight of the log-SNRs in its tails is too large for any batch to estimate, got 0; set, for example, "
        "noise_levels.uniform = 0.1, or noise_levels.name = 'uniform'"
    )
    for noise_levels in (LogNormal(uniform=0.1), Uniform(), LogitNormal()):
        config.refuse_undrawn_tails(Config(weighting=weighting, noise_levels=noise_levels))
    config.refuse_undrawn_tails(Config())


def test_what_is_refused_is_an_estimate_that_misses_a_share_of_the_bound() -> None:
    """On Gaussian data of unit variance the exact denoiser has mmse 1 / (SNR + 1), and the bound has a closed form."""
    schedule = EDM()
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    ends = torch.tensor([schedule.log_snr_max, schedule.log_snr_min], dtype=torch.float64)
    exact = float(torch.nn.functional.softplus(ends).diff().abs() / 2)

    def estimate(noise_levels: LogNormal) -> float:
        log_snr = noise_levels.log_snr(u, schedule)
        weight = Exact()(log_snr, noise_levels.density(u, schedule))
        return float((weight / (log_snr.exp() + 1)).mean())

    assert estimate(LogNormal()) < 0.99 * exact
    assert estimate(LogNormal(uniform=0.1)) == pytest.approx(exact, rel=1e-3)


OLD_NAMES = [
    (section, old, new) for section, names in config.RENAMED.items() for old, new in names.items()
]  # fmt: skip
# A value of each key that differs from its default, and the component that has the key.
VALUES = {"pictures": 9, "init": "runs/a", "uniform": 0.25, "variance_interp": 0.5}
COMPONENTS = {"sampler": "ddpm"}


@pytest.mark.parametrize(("section", "old", "new"), OLD_NAMES)
def test_old_names_of_keys_still_load_and_override(file: Path, section: str, old: str, new: str) -> None:
    name = [f"{section}.name={COMPONENTS[section]}"] if section in COMPONENTS else []
    value, text = VALUES[new], json.dumps(VALUES[new])
    expected = load(file, [*name, f"{section}.{new}={value}"])
    assert getattr(getattr(expected, section), new) == value
    assert load(file, [*name, f"{section}.{old}={value}"]) == expected
    assert config.override(load(file, name), [f"{section}.{old}={value}"]) == expected
    tree = to_dict(expected)
    tree[section][old] = tree[section].pop(new)
    assert from_dict(tree) == expected

    header = "".join(f'name = "{COMPONENTS[section]}"\n' for _ in name)
    opened = "" if section == "training" else f"[{section}]\n{header}"  # It is the last section of the file.
    file.write_text(f"{TEXT}{opened}{old} = {text}\n")
    assert load(file) == expected
    assert load(file, [f"{section}.{new}={value}"]) == expected, "an override replaces the value of the file"


@pytest.mark.parametrize(("section", "old", "new"), OLD_NAMES)
def test_both_names_of_a_key_at_once_are_an_error_that_names_the_new_one(
    file: Path, section: str, old: str, new: str
) -> None:
    said = f"{section}.{old}: is called {section}.{new} now; give it once"
    assert message(file, f"{section}.{old}=1", f"{section}.{new}=1") == f"overrides: {said}"
    with pytest.raises(ConfigError) as caught:
        from_dict({section: {old: 1, new: 1}})
    assert str(caught.value) == f"config: {said}"
    file.write_text(f"[{section}]\n{old} = 1\n{new} = 1\n")
    assert message(file) == f"{file}: {said}"


def test_a_condition_adds_channels_to_the_network() -> None:
    plain, gray = Config(), from_dict({"condition": {"operator": "gray", "noise": 0.05}})
    assert not plain.conditioned and plain.condition_channels(3) == 0
    assert gray.conditioned and gray.condition_channels(3) == 4
    tree = {"condition": {"operator": "blur:sigma=1..3+jpeg:quality=20..90", "noise": [0.0, 0.1]}}
    ranged = from_dict(tree)
    assert ranged.condition_channels(3) == 7 and ranged.condition.noise == (0.0, 0.1)
    assert from_dict(json.loads(json.dumps(to_dict(ranged)))) == ranged
    assert override(gray, ["condition.operator=downsample:factor=4"]).condition.operator == "downsample:factor=4"
    pairs = from_dict({"data": {"condition": "sketches"}})
    assert pairs.conditioned and pairs.condition_channels(3) == 4
    assert override(pairs, ["data.condition_channels=1"]).condition_channels(3) == 2


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"condition": {"dropout": 0.0}}, "condition.dropout: must be between 0 and 1, got 0.0"),
        ({"condition": {"dropout": 1.5}}, "condition.dropout: must be between 0 and 1, got 1.5"),
        (
            {"condition": {"operator": "grey"}},
            "condition.operator: must be one of blur, box, denoise, downsample, gray",
        ),
        ({"condition": {"operator": "blur"}}, "condition.operator blur: must say how strong the damage was"),
        (
            {"condition": {"operator": "blur:sigma=3..1"}},
            "condition.operator: must be a range of numbers that increases",
        ),
        ({"condition": {"operator": "gray", "noise": [0.1, 0.0]}}, "condition.noise: must be a number from 0, or an"),
        (
            {"condition": {"operator": "gray"}, "data": {"channels": 1}},
            "condition.operator: gray: must be given 3 channels, got 1",
        ),
        (
            {"condition": {"operator": "downsample:factor=4"}, "data": {"size": 30}},
            "condition.operator: must be one that divides the size of the image, 30x30, into whole pixels",
        ),
        (
            {"condition": {"operator": "denoise"}, "data": {"source": "mixture"}},
            "condition.operator: must be empty with data.source = 'mixture', as operators act on images",
        ),
        (
            {"condition": {"operator": "gray"}, "data": {"condition": "sketches"}},
            "condition.operator: must be empty with data.condition = 'sketches', as the network is told either",
        ),
        (
            {"condition": {"operator": "gray"}, "data": {"masks": "alpha"}},
            "condition.operator: must be empty with data.masks = 'alpha', as an operator mixes pixels",
        ),
        ({"data": {"source": "digits", "condition": "sketches"}}, "data.condition: must be unset for digits"),
        ({"data": {"condition_channels": 1}}, "data.condition_channels: must be 1 to 16, with data.condition, got 1"),
    ],
)
def test_conditions_that_do_not_suit_the_data_are_named(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^config: {re.escape(message)}"):
        from_dict(sections)


def test_guidance_without_labels_begins_no_run() -> None:
    for tree, key in (({}, "data.labels is false"), ({"training": {"label_dropout": 0.0}}, "label_dropout is 0")):
        tree = {**tree, "data": {"labels": "dropout" in key}, "sampling": {"guidance": 2.0}}
        with pytest.raises(ConfigError, match=rf"^sampling\.guidance: must be 1 where .*{key}, as .* got 2$"):
            config.refuse_guidance_of_nothing(from_dict(tree))
    config.refuse_guidance_of_nothing(from_dict({"data": {"labels": True}, "sampling": {"guidance": 2.0}}))
    config.refuse_guidance_of_nothing(Config())
