"""Features of images by networks with random weights: whatever file they are in, however images come, and errors."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffusion.errors import InputError
from diffusion.evaluation import features
from diffusion.evaluation.features import SOURCE, eight_bit, load
from tests.evaluation.test_dinov2 import random_weights


def images(count: int, channels: int = 3, side: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "dinov2.safetensors"
    save_file(random_weights(0, width=64, depth=1), path)
    return path


def test_both_formats_give_the_same_features_and_files_are_known_by_their_hash(weights: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "dinov2.pth"
    torch.save(OrderedDict(random_weights(0, width=64, depth=1)), pickled)
    first, second = load("dinov2", weights), load("dinov2", pickled)
    found = first(images(3))
    assert torch.equal(found, second(images(3)))
    assert found.shape == (3, 64) and found.dtype == torch.float64
    assert float(found.std(0).min()) > 0
    assert first.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest() != second.sha256
    assert first.note == f"dinov2: by the weights in dinov2.safetensors, sha256 {first.sha256}"


def test_features_do_not_depend_on_the_batch_and_gray_is_three_equal_channels(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load("dinov2", weights)
    gray = images(5, 1)
    found = network(gray)
    monkeypatch.setattr(features, "BATCH", 2)
    assert torch.allclose(network(gray.expand(-1, 3, -1, -1)), found, rtol=1e-5, atol=1e-6)
    assert network(gray[:0]).shape == (0, 64)


def test_a_batch_is_halved_while_memory_runs_out(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, forward = load("dinov2", weights), features.Dinov2.forward
    expected, most = network(images(5)), 2

    def scarce(self: features.Dinov2, x: torch.Tensor) -> torch.Tensor:
        if len(x) > most:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, x)

    monkeypatch.setattr(features.Dinov2, "forward", scarce)
    assert torch.allclose(network(images(5)), expected, rtol=1e-5, atol=1e-6)
    most = 0
    with pytest.raises(InputError, match="a network that cpu has memory for"):
        network(images(5))


def test_fid_is_named_by_the_hash_of_its_file_or_of_what_it_was_made_of(weights: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.safetensors"
    save_file(random_weights(0, width=64, depth=1), made, metadata={SOURCE: "6726825d0af5"})
    network = load("dinov2", made)
    assert network.source == "6726825d0af5" and network.note.endswith("made of a file with 6726825d0af5")
    assert not network.is_fid and not load("dinov2", weights).source
    inception = features.FeatureNetwork("inception", network.module, "a", "ff", "6726825d0af5", network.device)
    other = features.FeatureNetwork("inception", network.module, "a", "ff", "", network.device)
    assert inception.is_fid and not other.is_fid
    assert "they are not those of FID" in other.note and "not those" not in inception.note


def test_the_recipe_of_the_page_converts_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(features.__file__).parents[2] / "docs" / "quality.md").read_text()
    recipe = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    source = tmp_path / re.findall(r'Path\("(.*?)"\)', recipe)[0]
    torch.save(OrderedDict(random_weights(0, width=64, depth=1)), source)
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    converted = load("dinov2", tmp_path / "inception.safetensors")
    assert converted.source == hashlib.sha256(source.read_bytes()).hexdigest()
    assert torch.equal(converted(images(2)), load("dinov2", source)(images(2)))


def test_units_become_eight_bits_as_files_round_them() -> None:
    units = torch.tensor([-0.3, 0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.0, 2.0])
    assert eight_bit(units).tolist() == [0, 0, 0, 1, 255, 255, 255]


def test_what_is_missing_too_much_and_of_another_shape_is_one_error(weights: Path, tmp_path: Path) -> None:
    changed = random_weights(0, width=64, depth=1)
    for name in ("norm.bias", "norm.weight"):
        del changed[name]
    changed |= {f"head.{i}": torch.zeros(1) for i in range(5)}
    changed["blocks.0.ls1.gamma"] = torch.zeros(3)
    path = tmp_path / "other.safetensors"
    save_file(changed, path)
    with pytest.raises(InputError) as error:
        load("dinov2", path)
    assert str(error.value) == (
        f"--weights {path}: must be the 21 tensors of dinov2, got 2 missing (norm.bias, norm.weight), "
        "5 unknown (head.0, head.1, head.2, ...), 1 of another shape (blocks.0.ls1.gamma)"
    )
    with pytest.raises(InputError, match="must be the 472 tensors of inception, got 472 missing"):
        load("inception", weights)


def test_errors_say_what_to_do(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--features: must be one of inception, dinov2, got 'clip'"):
        load("clip", weights)
    with pytest.raises(InputError, match=r"--features dinov2: needs its weights, --weights FILE; docs/quality.md"):
        load("dinov2", None)
    with pytest.raises(InputError, match="--weights: must be a file that exists"):
        load("dinov2", tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(InputError, match=r"text\.pth: is no file of torch\.save, or damaged"):
        load("dinov2", tmp_path / "text.pth")
    with pytest.raises(InputError, match="neither gray nor RGB, which dinov2 does not take, got 4 channels"):
        load("dinov2", weights)(images(1, 4))
