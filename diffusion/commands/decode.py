"""`diffusion decode`: makes images of latents."""

from __future__ import annotations

from diffusion.commands.options import Decode
from diffusion.commands.photographs.places import content
from diffusion.commands.samples.files import files_in, sweep
from diffusion.commands.samples.places import choose, opened
from diffusion.commands.samples.sampling import Job
from diffusion.commands.samples.ways import file_suffix, identity, read_latents, rows
from diffusion.errors import require
from diffusion.model import load


def decode(options: Decode) -> int:
    """Writes the image of each row of latents as a file of its number, as `diffusion sample` does.

    Raises InputError for a file that holds no latents of the model, and for a folder that holds other samples.
    """
    require(options.batch is None or options.batch >= 1, "batch", "at least 1", options.batch)
    model = load(options.run)
    z = read_latents(options.latents, model.spec)
    number = model.labels(options.label, 1)
    settings = {
        **identity(model),
        "decode": options.latents.name,
        "decode_sha256": content(options.latents),
        "label": None if number is None else model.spec.classes[int(number)],
        "guidance": options.guidance,
        "tolerance": options.tolerance,
        "format": file_suffix(options.format, model.spec),
    }
    model.decode(rows(z, range(1)), label=options.label, guidance=options.guidance, tolerance=1.0)  # It may refuse.
    folder, line = choose(options.run / f"decoded-{options.latents.stem}", options.out, settings)
    if line:
        print(line)
    numbers = range(len(z))
    record = opened(
        folder,
        settings,
        numbers,
        lambda: options.batch or model.batch_size(guidance=options.guidance, label=options.label),
    )
    sweep(folder)
    return Job(
        folder,
        files_in(folder, model.spec, settings["format"], record.width),
        numbers,
        options.batch or record.batch,
        lambda some: model.decode(
            rows(z, some),
            label=options.label,
            guidance=options.guidance,
            tolerance=options.tolerance,
            batch=len(some),
        ),
        model.spec,
        {"run": options.run.name, **settings},
        "images",
    ).run()
