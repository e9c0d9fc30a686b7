"""What is written of each image: a folder of restorations, a file of its own name and format, or one named file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from diffusion.commands.options import Restorations
from diffusion.commands.photographs.canvas import Canvas
from diffusion.commands.photographs.listing import ImageFile
from diffusion.commands.photographs.photograph import Photograph
from diffusion.commands.photographs.places import Place, Places, Request
from diffusion.commands.photographs.writing import Encoding
from diffusion.data.images.decoding import SUFFIXES
from diffusion.errors import InputError

# The number of restorations that are drawn when nothing is said of it.
DEFAULT_N = Restorations().draw.n
# Formats of measurements, of which values of any type come back as TIFF.
MEASURED = {".npy", ".dcm", ".dicom"}


@dataclass(frozen=True)
class Targets:
    """The results that are asked for. `file` is the one to write, where `--out` names a file of one image.

    `options` are those of the command, with the number of restorations that are drawn.
    """

    options: Restorations
    file: Path | None = None

    @classmethod
    def of(cls, options: Restorations) -> Targets:
        """The results that options ask for. Raises InputError for options that do not go together."""
        file = _file(options.out)
        if options.mean and not options.as_input:
            raise InputError("--mean: needs --as-input; without it the mean is written beside the restorations")
        if not options.as_input:
            return cls(options, file)
        if file is not None:
            raise InputError(f"--out: must be a folder with --as-input, got {options.out}")
        if options.mean:
            return cls(options)
        if options.draw.n not in (1, DEFAULT_N):
            raise InputError(
                f"--n: must be left out with --as-input, which writes one restoration, got {options.draw.n}; "
                "--mean writes the mean of them"
            )
        return cls(replace(options, draw=replace(options.draw, n=1)))

    @property
    def mean(self) -> bool:
        """Whether a file holds the mean of restorations, not one of them."""
        return self.options.mean or (self.file is not None and self.options.draw.n > 1)

    def places(
        self, request: Request, files: Sequence[ImageFile], run: Path, given: Sequence[Path], *, alone: bool
    ) -> tuple[list[Place], str]:
        """The place of the results of each file, and a line to print where it is not the one that one expects.

        `given` are the paths that the command was given, `alone` says that it is a single file.

        Raises InputError where `--out` names what holds anything else.
        """
        out = self.options.out
        _check_writable(out or run)
        if self.file is not None:
            if len(files) > 1:
                raise InputError(f"--out: {out} is one file, but there are {len(files)} images; name a folder")
            if self.file.exists():
                raise InputError(f"--out: {out} is there already; name another file, or remove it")
            return [Place(files[0], self.file)], ""
        if out is not None and out.exists() and not out.is_dir():
            raise InputError(f"--out: must be a folder or the name of an image, got the file {out}")
        root = out or run / _name(given, alone=alone)
        names = self._names(files, alone=alone) if self.options.as_input else None
        return Places(request, files, root, alone, explicit=out is not None, again=self.options.again, names=names)()

    def encoding(self, photograph: Photograph, canvas: Canvas, path: Path) -> tuple[Encoding | None, Canvas]:
        """How a file is written, None for a folder, and on what: without alpha where only the model has any.

        Raises InputError if its format cannot hold the image.
        """
        if self.file is None and not self.options.as_input:
            return None, canvas
        own, named = photograph.encoding, Encoding.by_suffix(path)
        encoding = own if own and (self.options.as_input or (named and named.kind == own.kind)) else named
        assert encoding is not None
        if canvas.alpha and photograph.alpha is None and not encoding.has_alpha:
            canvas = canvas.without_alpha()
        if reason := encoding.refuses(canvas.dtype, canvas.bands, alpha=canvas.alpha):
            raise InputError(f"{path}: {reason}; name a PNG or a TIFF, or leave --as-input out")
        return encoding, canvas

    def _names(self, files: Sequence[ImageFile], *, alone: bool) -> list[Path]:
        """The relative names of results under the names of their images. Formats that are not written become PNG."""
        names: list[Path] = []
        for file in files:
            name = (Path() if alone else file.folder.parent) / file.path.name
            if Encoding.by_suffix(name) is None:
                suffix = ".tif" if name.suffix.lower() in MEASURED else ".png"
                name = name.with_name(name.name + suffix)
            names.append(name)
        return names


def lost(canvas: Canvas, encoding: Encoding | None) -> tuple[str, ...]:
    """What a format cannot hold of the metadata of a photograph."""
    names = "" if encoding is None else canvas.metadata.lost_in(encoding.kind)
    return (f"its {names} cannot be kept in {encoding.kind}",) if names and encoding else ()


def _check_writable(path: Path) -> None:
    """Raises InputError for a path that cannot be made or written to, before hours of work are lost on it."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if there.is_dir() and not os.access(there, os.W_OK):
        raise InputError(f"--out: nothing can be written to {there}; name another folder")
    if not there.is_dir() and there != path:
        raise InputError(f"--out: {there} is no folder; name another one")


def _name(given: Sequence[Path], *, alone: bool) -> str:
    if alone:
        return f"restored-{given[0].stem}"
    return f"restored-{given[0].resolve().name}" if len(given) == 1 else "restored"


def _file(out: Path | None) -> Path | None:
    """The path `--out` if it names an image. Raises InputError for one of a format that is not written."""
    if out is None or out.is_dir():
        return None
    if Encoding.by_suffix(out) is not None:
        return out
    Image.init()
    if out.suffix.lower() in SUFFIXES | set(Image.registered_extensions()):
        raise InputError(f"--out: images are not written as {out.suffix}; name it {out.stem}.png, or name a folder")
    return None
