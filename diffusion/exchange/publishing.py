"""Puts the model of a run into a folder as it is published, and the folder on the Hugging Face hub.

    README.md           the model card
    config.json         the experiment
    model.safetensors   the averaged weights; with manifest.json this is a checkpoint, which `diffusion.load` takes
    manifest.json
    samples.png         samples, of models of images

Nothing else travels. Paths of this machine become their last parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, errors
from PIL import Image

from diffusion import checkpoint, config, figures
from diffusion.checkpoint import MANIFEST, Part, Retention
from diffusion.errors import InputError
from diffusion.exchange.card import PICTURE, Card
from diffusion.exchange.facts import facts_of
from diffusion.exchange.hub import of_network
from diffusion.exchange.private_paths import refuse_paths, without_paths
from diffusion.files import new_folder, write_text
from diffusion.model import Model
from diffusion.model.loading import describe, load
from diffusion.model.origin import RESOLVED

CARD, MODEL = "README.md", "model"
TRAVELS = (".md", ".json", ".safetensors", ".png")
# The samples of the picture, where the run has none of this step.
DRAWN = 16
# What is to be done where the hub refuses, by the status of its answer.
REFUSED = {
    401: "the hub asks who you are: log in by: hf auth login",
    403: "this token must not write there: log in by one that may (hf auth login), or take another OWNER",
    404: "no such repository or branch; check the name",
    412: "somebody else has changed the repository at the same time; try again",
    413: "a file is larger than the hub takes",
}
LICENSES = "https://huggingface.co/docs/hub/repositories-licenses"


@dataclass(frozen=True)
class Published:
    """A folder as it is published: its files by name with their sizes, lines about what was changed, and the step."""

    files: dict[str, int]
    lines: tuple[str, ...]
    step: int


def checked_license(text: str) -> str:
    """Returns the identifier of a license as the hub writes it. Raises InputError for what is none."""
    found = text.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", found):
        raise InputError(
            f"--license: must be an identifier such as mit, apache-2.0 or cc-by-4.0 ({LICENSES}), got {text!r}"
        )
    return found


def write(run: Path, folder: Path, *, repo: str, license: str) -> Published:
    """Writes the model of a run, or of RUN/step-N, into a new folder, which is whole or not there.

    Raises InputError where something lies at `folder`, for a run without a model, and where a path of this machine
    would be published.
    """
    found, _ = checkpoint.find(run)
    stored, model = checkpoint.read(found, MODEL), load(run, device="cpu")
    tree, lines = without_paths(config.to_dict(model.config))
    experiment = config.from_dict(tree, where="what is published")
    described = describe(experiment, model.spec, model.step)
    facts = facts_of(run, model.config, model.step)
    with new_folder(folder) as temporary:
        part = Part(stored.tensors, described)
        whole = checkpoint.write(temporary, model.step, {MODEL: part}, keep=Retention(1))
        for path in whole.iterdir():
            path.rename(temporary / path.name)
        whole.rmdir()
        whole.parent.rmdir()
        write_text(temporary / RESOLVED, json.dumps(config.to_dict(experiment), indent=1))
        if model.spec.is_image:
            _picture(run, model).save(temporary / PICTURE)
        write_text(temporary / CARD, Card(repo, license, model, facts, picture=model.spec.is_image).text())
        for name in (CARD, RESOLVED, MANIFEST):
            refuse_paths(name, (temporary / name).read_text(encoding="utf-8"))
        refuse_paths("model.safetensors", json.dumps(described))
        files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        assert all(name.endswith(TRAVELS) for name in files)
    return Published(files, tuple(lines), model.step)


def _picture(run: Path, model: Model) -> Image.Image:
    """The picture of samples that the run made at this step, or a new one, without what stands beside its pixels."""
    made = checkpoint.run_of(run) / "samples" / f"{checkpoint.PREFIX}{model.step:08d}.png"
    if made.is_file():
        with Image.open(made) as picture:
            return (
                Image.frombytes(picture.mode, picture.size, picture.tobytes())
                if picture.mode != "P"
                else picture.convert("RGB")
            )
    return figures.draw(model.sample(DRAWN, seed=0, label=model.in_turn(DRAWN)))


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turns errors of an upload into InputError that says what to do. Nothing that the library says gets out but what
    it says of the card.
    """
    try:
        yield
    except InputError:
        raise
    except errors.OfflineModeIsEnabled:
        raise InputError(f"{repo}: the hub is not asked, as HF_HUB_OFFLINE is set") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        why = REFUSED.get(status, f"the hub answers with status {status}; try again later")
        raise InputError(f"{repo}: {why}") from None
    except errors.HFValidationError:
        raise InputError(f"{repo}: is no name of a repository; it must be OWNER/NAME") from None
    except ValueError as error:
        raise InputError(f"{repo}: the hub does not take the card: {' '.join(str(error).split())}") from None
    except Exception as error:
        if not of_network(error) and not isinstance(error, OSError):
            raise
        # What the library says may have an address with a signature in it.
        raise InputError(f"{repo}: the hub cannot be reached, or the line was lost; try again") from None


def upload(folder: Path, files: Sequence[str], repo: str, *, private: bool, revision: str, message: str) -> str:
    """Uploads files of a folder to a repository on the hub, which is made if it is not there; returns the commit's URL.

    A `revision` is a branch, which is made likewise. Raises InputError, which says what to do.
    """
    api = HfApi()
    with _explained(repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and api.model_info(repo).private is False:
            raise InputError(
                f"{repo}: is there already, and public; make it private on its page first, or leave out --private"
            )
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(files),
            revision=revision or None,
            commit_message=message,
        )
    return str(done.commit_url)
