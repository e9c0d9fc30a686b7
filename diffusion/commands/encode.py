"""`diffusion encode`: takes images to their latents, the noise that the probability flow of a model takes to them."""

from __future__ import annotations

import json

import numpy as np
import torch

from diffusion.commands.options import Encode
from diffusion.commands.photographs.listing import list_images
from diffusion.commands.samples.sized import read_sized
from diffusion.errors import InputError, require
from diffusion.files import replacing, write_text
from diffusion.model import load


def encode(options: Encode) -> int:
    """Writes the latents of images, (N, C, H, W) float32 in the order of the images, and beside them a list of these.

    One batch is held at a time. Raises InputError for images that cannot be read, before any is encoded, and for a file
    that exists.
    """
    out = options.out
    require(out.suffix.lower() == ".npy", "--out", "the name of a .npy file", out)
    if out.exists():
        raise InputError(f"--out: {out} exists; name another file, or remove it")
    require(options.batch is None or options.batch >= 1, "batch", "at least 1", options.batch)
    files = list_images(options.images)
    if problems := [file.problem for file in files if file.problem]:
        raise InputError("; ".join(problems))
    model = load(options.run)
    for file in files:
        if notice := read_sized(file.path, model)[1]:
            print(notice)
    batch = options.batch or model.batch_size(guidance=options.guidance, label=options.label)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        shape = (len(files), *model.spec.shape)
        z = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, len(files), batch):
            some = files[start : start + batch]
            x = torch.stack([read_sized(file.path, model)[0] for file in some])
            found = model.encode(
                x, label=options.label, guidance=options.guidance, tolerance=options.tolerance, batch=batch
            )
            z[start : start + len(some)] = found.numpy()
        z.flush()
    listed = {
        "run": options.run.name,
        "step": model.step,
        "label": options.label,
        "guidance": options.guidance,
        "images": [str(file.path) for file in files],
    }
    write_text(out.with_name(f"{out.name}.json"), json.dumps(listed, indent=1))
    print(f"{out}: latents of {len(files)} {'image' if len(files) == 1 else 'images'}, by step {model.step}")
    return 0
