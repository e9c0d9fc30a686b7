"""The card as the library of the hub reads it: metadata from the facts, and no more."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from diffusion.config import DistillationConfig
from diffusion.data import DataSpec
from diffusion.exchange.card import Card
from diffusion.exchange.facts import Facts, Measured, Restored
from diffusion.model import Model
from tests.own_models import MEASURED, UNET, made

NOTHING = Facts("photos", "", None, "", (), ())
BOUND = Measured("bound", "upper bound on -log p", "bits/dim", 3.14159, 0.01234, 1024, "held-out")


@pytest.fixture(scope="module")
def model() -> Model:
    return replace(made(MEASURED, UNET), step=1234)


def parsed(card: Card) -> ModelCard:
    return ModelCard(card.text())


def test_a_model_that_measured_nothing_has_a_card_without_numbers(model: Model) -> None:
    card = Card("jane/shapes", "mit", model, NOTHING)
    found = parsed(card)
    assert found.data.to_dict() == {
        "license": "mit",
        "library_name": "reverse-diffusion",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["diffusion", "likelihood", "inpainting", "image-restoration"],
    }
    sections = re.findall(r"^#+ (.*)$", found.text, re.MULTILINE)
    assert [name for name in sections if name[0].isalpha()] == ["shapes", "Use", "Training"]
    assert "RGB images of 16 x 16 pixels" in found.text and "![samples](samples.png)" in found.text
    count = sum(value.numel() for value in model.denoiser.backbone.parameters())  # type: ignore[attr-defined]
    assert f"- Data: photos\n- Network: UNet, {count:,} parameters\n- Steps: 1,234, 64 examples each\n" in found.text


def test_what_was_measured_stands_in_the_metadata_and_in_tables(model: Model) -> None:
    estimate = Measured("ode", "estimate of -log p", "bits/vector", 2.0, None, 8, "test")
    restored = Restored("blur:sigma=1", "mmps", 16, 0.8912, 24.567), Restored("inpaint", "learned", 3, None, 31.0)
    facts = Facts("hf://owner/data:train", "owner/data", 5000, "google/ddpm-x", (BOUND, estimate), restored)
    found = parsed(Card("jane/shapes", "cc-by-4.0", model, facts))
    assert (found.data.datasets, found.data.base_model) == (["owner/data"], "google/ddpm-x")
    (result,) = found.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("bits_per_dim", 3.1416, "owner/data")
    assert result.metric_args == {"method": "bound", "half_width_of_95_percent_interval": 0.0123, "examples": 1024}
    for row in (
        "| upper bound on -log p, bits/dim | bound | 3.1416 | ± 0.0123 | 1,024 held-out |",
        "| estimate of -log p, bits/vector | ode | 2.0000 |  | 8 test |",
        "| blur:sigma=1 | mmps | 0.891 | 24.57 | 16 |",
        "| inpaint | learned |  | 31.00 | 3 |",
        "- Data: hf://owner/data:train, 5,000 examples, 10% of them held out",
        "- Began from: google/ddpm-x",
    ):
        assert f"{row}\n" in found.text, row


@pytest.mark.parametrize("kind", ["images", "classes", "student", "points"])
def test_the_code_is_that_of_the_model(kind: str, model: Model) -> None:
    spec = {"classes": replace(MEASURED, classes=("it's", "b")), "points": DataSpec((2,), None)}.get(kind, MEASURED)
    teacher = DistillationConfig("teacher" if kind == "student" else "")
    own = replace(model, spec=spec, config=replace(model.config, distillation=teacher))
    card = Card("jane/shapes", "mit", own, NOTHING, picture=spec.is_image)
    text = card.text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    assert ("model.inpaint" in calls) == (kind in ("images", "classes"))
    assert ('label="it\'s"' in code) == (kind == "classes")
    assert (card.metadata().pipeline_tag is None) == (kind == "points") == ("![samples]" not in text)
    assert ("distillation" in card.metadata().tags) == (kind == "student") == ("likelihood" not in card.metadata().tags)


def test_an_imported_model_says_nothing_of_data_and_steps_that_are_not_known(model: Model) -> None:
    facts = Facts("", "", None, "google/ddpm-x", (replace(BOUND, split="photos"),), ())
    card = Card("jane/shapes", "mit", replace(model, step=0), facts)
    lines = card.text().partition("## Training\n\n")[2].splitlines()
    assert [line.partition(":")[0] for line in lines] == ["- Network", "- Began from", "- Configuration"]
    (result,) = parsed(card).data.eval_results
    assert (result.dataset_name, result.dataset_type) == ("photos", "photos")
