"""The configuration that trains an imported model on, with images of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusion.commands.suggestion import toml
from diffusion.config import Config, to_dict
from diffusion.files import write_text

FILE = "finetune.toml"
# Imported networks are large and have learned for long: few images at a time, fewer steps, and an end where the
# held-out bound has improved no more in some validations.
TRAINING: dict[str, Any] = {"steps": 20_000, "batch": 16, "warmup": 500, "patience": 5}
REPORT: dict[str, Any] = {"samples": 500, "evaluate": 1000, "checkpoint": 500, "pictures": 16}


def configuration(experiment: Config, run: Path) -> dict[str, dict[str, Any]]:
    """Returns the sections of a configuration that begins from the weights of `run`, which is of an experiment: what
    the model is of, as far as that is no default, and how it is trained on.
    """
    plain = to_dict(Config())
    tree = {
        section: {
            key: value
            for key, value in values.items()
            if value is not None and (key == "name" or value != plain[section].get(key))
        }
        for section, values in to_dict(experiment).items()
    }
    tree["training"] |= {"init": str(run), **TRAINING}
    tree["report"] = REPORT
    return {
        section: values for section, values in tree.items() if values not in ({}, {"name": plain[section].get("name")})
    }


def write(experiment: Config, run: Path) -> Path:
    """Writes the configuration into the folder of `run`, and returns its path."""
    path = run / FILE
    comment = f"# Trains {run} on with a folder of images: diffusion train {path} data.path=FOLDER --out RUN\n"
    write_text(path, comment + "\n" + toml(configuration(experiment, run)))
    return path
