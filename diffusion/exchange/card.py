"""The model card of a published model: README.md, with the metadata that the Hugging Face hub reads.

It says what the run knows and nothing else. A number stands there with its interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from huggingface_hub import EvalResult, ModelCardData

from diffusion.exchange.facts import Facts, Measured, Restored
from diffusion.likelihood.units import DIM
from diffusion.model import Model

LIBRARY, PIPELINE = "reverse-diffusion", "unconditional-image-generation"
PICTURE = "samples.png"
COLORS = {1: "gray", 3: "RGB", 4: "RGB and alpha"}


@dataclass(frozen=True)
class Card:
    """What a card tells: the repository OWNER/NAME, the license of the model, the model, and the facts of its run."""

    repo: str
    license: str
    model: Model
    facts: Facts
    picture: bool = True

    @property
    def name(self) -> str:
        """The name of the repository without its owner."""
        return self.repo.rpartition("/")[2]

    def text(self) -> str:
        """Returns the card: its metadata, and its sections in Markdown."""
        parts = [
            f"---\n{self.metadata().to_yaml()}\n---",
            f"# {self.name}",
            self._summary(),
            *([f"![samples]({PICTURE})"] if self.picture else []),
            "## Use",
            self._use(),
            *(["## Measured", self._measured()] if self.facts.measured or self.facts.restored else []),
            "## Training",
            self._training(),
        ]
        return "\n\n".join(parts) + "\n"

    def metadata(self) -> ModelCardData:
        """Returns the metadata of the card."""
        facts, spec = self.facts, self.model.spec
        results = [self._result(each) for each in facts.measured if each.unit == DIM]
        return ModelCardData(
            license=self.license,
            library_name=LIBRARY,
            pipeline_tag=PIPELINE if spec.is_image else None,
            tags=[name for name, holds in self._tags().items() if holds],
            datasets=[facts.repository] if facts.repository else None,
            base_model=facts.base or None,
            model_name=self.name if results else None,
            eval_results=results or None,
        )

    def _tags(self) -> dict[str, bool]:
        """The tags, and whether each belongs to this model."""
        spec, own = self.model.spec, not self.model.teacher
        return {
            "diffusion": True,
            "likelihood": own,
            "inpainting": own and spec.is_image,
            "image-restoration": own and spec.is_image,
            "class-conditional": bool(spec.classes),
            "distillation": not own,
        }

    def _result(self, measured: Measured) -> EvalResult:
        name = self.facts.data or measured.split
        return EvalResult(
            task_type=PIPELINE,
            dataset_type=self.facts.repository or name,
            dataset_name=name,
            dataset_split=measured.split,
            metric_type="bits_per_dim",
            metric_name=f"{DIM}, {measured.kind}",
            metric_value=round(measured.value, 4),
            metric_args={
                "method": measured.method,
                "half_width_of_95_percent_interval": None
                if measured.half_width is None
                else round(measured.half_width, 4),
                "examples": measured.examples,
            },
        )

    def _summary(self) -> str:
        model, spec = self.model, self.model.spec
        classes = f" with {len(spec.classes)} classes" if spec.classes else ""
        kind = f", distilled to sample in {model.config.sampling.steps} evaluations" if model.teacher else ""
        what = _kind_of_examples(model)
        tail = "" if model.teacher else " It draws samples, restores damaged images and measures likelihoods."
        tail = tail if spec.is_image else ""
        return f"A diffusion model of {what}{classes}{kind}, made with [{LIBRARY}](https://pypi.org/project/{LIBRARY}/).{tail}"

    def _use(self) -> str:
        spec, model = self.model.spec, self.model
        label = f", label={spec.classes[0]!r}" if spec.classes else ""
        lines = [
            "import diffusion",
            "",
            f'model = diffusion.load("{self.repo}")',
            f"x = model.sample(16, seed=0{label})",
        ]
        if spec.is_image:
            lines += ['model.images(x)[0].save("sample.png")']
        if spec.is_image and not model.teacher:
            lines += [
                'restored = model.inpaint("damaged.png", "mask.png", n=4)  # white is known',
                "nats = model.log_likelihood(x)",
            ]
        code = "\n".join(lines)
        shell = f"pip install {LIBRARY}\ndiffusion sample hf://{self.repo} --n 16"
        return f"```bash\n{shell}\n```\n\n```python\n{code}\n```"

    def _measured(self) -> str:
        rows = [_measured_row(each) for each in self.facts.measured]
        tables = []
        if rows:
            head = "| measured | by | value | 95 % interval | examples |\n|---|---|---|---|---|"
            tables.append("\n".join([head, *rows]))
        if self.facts.restored:
            head = (
                "| restored | by | coverage of 90 % intervals | PSNR of the mean, dB | images |\n|---|---|---|---|---|"
            )
            tables.append("\n".join([head, *map(_restored_row, self.facts.restored)]))
        return "\n\n".join(tables)

    def _training(self) -> str:
        experiment, facts = self.model.config, self.facts
        examples = "" if facts.examples is None else f", {facts.examples:,} examples"
        held = f", {experiment.data.held_out:.0%} of them held out" if experiment.data.held_out and examples else ""
        count = sum(value.numel() for value in _parameters(self.model))
        network = type(experiment.backbone).__name__.removesuffix("Config")
        lines = {
            f"Data: {facts.data}{examples}{held}": bool(facts.data),
            f"Network: {network}, {count:,} parameters": True,
            f"Began from: {facts.base}": bool(facts.base),
            f"Steps: {self.model.step:,}, {experiment.training.batch} examples each": self.model.step > 0,
            "Configuration: `config.json`, with every value that was used": True,
        }
        return "\n".join(f"- {line}" for line, holds in lines.items() if holds)


def _parameters(model: Model) -> list[torch.Tensor]:
    network = model.denoiser.backbone
    return [*network.parameters()] if isinstance(network, torch.nn.Module) else []


def _kind_of_examples(model: Model) -> str:
    """Says what the examples are."""
    spec = model.spec
    if not spec.is_image:
        return f"points in {spec.dim} dimensions"
    channels, height, width = spec.shape
    depth = "" if spec.levels == 256 else f" of {spec.levels:,} levels" if spec.levels else " of continuous values"
    return f"{COLORS.get(channels, f'{channels}-band')} images of {height} x {width} pixels{depth}"


def _measured_row(each: Measured) -> str:
    width = "" if each.half_width is None else f"± {each.half_width:.4f}"
    return f"| {each.kind}, {each.unit} | {each.method} | {each.value:.4f} | {width} | {each.examples:,} {each.split} |"


def _restored_row(each: Restored) -> str:
    coverage = "" if each.coverage is None else f"{each.coverage:.3f}"
    psnr = "" if each.psnr is None else f"{each.psnr:.2f}"
    return f"| {each.operator} | {each.method} | {coverage} | {psnr} | {each.images:,} |"
