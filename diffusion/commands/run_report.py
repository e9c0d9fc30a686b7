"""What `diffusion inspect` says of a run: its model, its beginning, its data and their clocks, and its bounds."""

from __future__ import annotations

from pathlib import Path

from diffusion import checkpoint
from diffusion.backbones import Backbone
from diffusion.commands import clocks_report
from diffusion.config import REGISTRIES
from diffusion.errors import InputError
from diffusion.files import expanded
from diffusion.model import clocks, load, origin


def run_at(path: str) -> Path | None:
    """Returns the run folder, or RUN/step-N for a checkpoint, that a path means; None for anything else."""
    if "://" in path:
        return None
    try:
        found = checkpoint.named(expanded(path))
    except InputError:
        return None
    return found if checkpoint.folders(checkpoint.run_of(found)) else None


def lines(path: Path) -> list[str]:
    """Returns the report on a run, or on RUN/step-N, a line for each of its facts.

    Raises CheckpointError where no checkpoint can be used.
    """
    # They import accelerate, which a report on images need not wait for.
    from diffusion.training import metrics
    from diffusion.training.beginning import records

    model, run = load(path, device="cpu"), checkpoint.run_of(path)
    experiment, spec, data = model.config, model.spec, origin.recorded(run).get("data", {})
    kind = next(name for name, each in REGISTRIES["backbone"].items() if isinstance(experiment.backbone, each))
    assert isinstance(model.denoiser.backbone, Backbone)
    parameters = sum(each.numel() for each in model.denoiser.backbone.parameters())
    place = str(data.get("path") or experiment.data.path or experiment.data.source)
    examples = f", {data['examples']:,} examples" if "examples" in data else ""
    classes = f", {len(spec.classes)} classes: {', '.join(spec.classes)}" if spec.classes else ""
    found = [
        f"run       {path}, step {model.step:,} of {experiment.training.steps:,}",
        f"begun     from {origin.said_of_models(records(experiment, run))}",
        f"data      {place}{examples}",
        f"examples  {'x'.join(map(str, spec.shape))}{classes}",
        f"network   {kind}, {parameters / 1e6:.2f} M parameters",
    ]
    bounds = metrics.bounds(run / metrics.METRICS)
    if bounds:
        last, lowest = max(bounds), min(bounds, key=bounds.__getitem__)
        least = "" if last == lowest else f"; lowest at step {lowest:,}: {bounds[lowest]:.4f}"
        found.append(f"bound     {bounds[last]:.4f} on held-out examples at step {last:,}{least}")
    known = clocks.read(run)
    return found if known is None else [*found, *clocks_report.lines(known)]
