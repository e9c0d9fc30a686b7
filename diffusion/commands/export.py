"""`diffusion export`: writes a model in files that other programs read."""

from __future__ import annotations

from diffusion.commands.options import Export
from diffusion.errors import InputError
from diffusion.files import refuse_taken
from diffusion.model import load
from diffusion.progress import say


def export(options: Export) -> int:
    """Writes the files, says what was left out or changed, and returns the exit code."""
    if options.steps is not None and options.to != "onnx":
        raise InputError("--steps: needs --to onnx, as diffusers is told the steps when it samples")
    if options.label is not None and options.to != "diffusers":
        raise InputError("--label: needs --to diffusers; sample.py of --to onnx takes a label itself")
    out = options.out or options.run / options.to
    refuse_taken(out)
    model = load(options.run, device="cpu")
    if options.to == "onnx":
        from diffusion.exchange import to_onnx

        lines = to_onnx.write(model, out, steps=options.steps)
    else:
        from diffusion.exchange import to_diffusers

        lines = to_diffusers.write(model, out, label=options.label)
    for line in lines:
        say(line)
    say(f"{out}: written")
    return 0
