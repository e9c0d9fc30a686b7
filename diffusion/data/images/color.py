"""Color profiles: images are converted to sRGB by the profile that they carry, if it is another one.

A profile counts as sRGB where it changes no color by more than one level of 256, so that the pixels of such files stay
the file's own. A damaged profile, or one of another kind than its image, is passed over with a notice. The chunks gAMA
and cHRM of a PNG are not applied, as many programs write wrong ones; where they differ from those of sRGB a notice says
so. The chunk cICP is not read.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# The largest difference between colors that count as equal, in levels of 256, and steps between the colors compared.
SAME = 1
STEP = 17
# Those of sRGB, as a PNG states them, and how much they may differ: the stated numbers are rounded.
GAMMA = 0.45455
CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
ROUNDING = 0.005
# The color spaces of profiles, by the mode of the image.
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}


@dataclass(frozen=True)
class Profile:
    """What a profile does to images of one mode: a `transform` to sRGB, or None where nothing is to be done.

    `notice` says what is done, and is empty for sRGB.
    """

    transform: ImageCms.ImageCmsTransform | None
    notice: str


def to_srgb(image: Image.Image) -> Image.Image:
    """Returns an image in sRGB: RGB or RGBA where it was converted by its profile, else the image itself.

    Images in CIELAB, which Pillow does not convert, are converted too.
    """
    profile = _profile_of(image)
    if profile is None or profile.transform is None:
        return image
    colors, alpha = _parts(image)
    converted = ImageCms.applyTransform(colors.convert(profile.transform.input_mode), profile.transform)
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def notices(image: Image.Image) -> tuple[str, ...]:
    """Returns what is to be said of the colors of an image: of a conversion, or of what is passed over."""
    profile = _profile_of(image)
    if profile is not None:
        return (profile.notice,) if profile.notice else ()
    if "srgb" in image.info or not {"gamma", "chromaticity"} & image.info.keys():
        return ()
    gamma, primaries = image.info.get("gamma", GAMMA), image.info.get("chromaticity", CHROMATICITIES)
    same = abs(gamma - GAMMA) < ROUNDING and np.abs(np.subtract(primaries, CHROMATICITIES)).max() < ROUNDING
    return () if same else (f"a gamma of {gamma:.3g} or primaries that are not those of sRGB are not applied",)


def _profile_of(image: Image.Image) -> Profile | None:
    data = b"" if image.mode == "LAB" else image.info.get("icc_profile")
    if data is None or image.mode.startswith(("I", "F")):
        return None
    return _profile(data, _parts_mode(image.mode)) if data or image.mode == "LAB" else None


def _parts_mode(mode: str) -> str:
    """The mode of the colors of an image without its alpha."""
    return {"1": "L", "LA": "L", "La": "L", "CMYK": "CMYK", "L": "L", "LAB": "LAB"}.get(mode, "RGB")


def _parts(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colors of an image, and its alpha if it has any."""
    if not image.has_transparency_data:
        return image.convert(_parts_mode(image.mode)), None
    gray = _parts_mode(image.mode) == "L"
    whole = image.convert("LA" if gray else "RGBA")
    return whole.convert("L" if gray else "RGB"), whole.getchannel("A")


@lru_cache(maxsize=64)
def _profile(data: bytes, mode: str) -> Profile:
    """Reads a profile; no data stand for that of CIELAB."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(data)) if data else ImageCms.createProfile("LAB")
        profile = given if isinstance(given, ImageCms.ImageCmsProfile) else ImageCms.ImageCmsProfile(given)
        name = " ".join(ImageCms.getProfileDescription(profile).split()) or "unnamed"
        space = profile.profile.xcolor_space.strip()
        if mode == "L" and space == "RGB":
            mode = "RGB"
        if space != _SPACES[mode]:
            return Profile(None, f"a color profile for {space} in an image of mode {mode} is passed over")
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode in ("L", "RGB") and _changes_nothing(transform, mode):
            return Profile(None, "")
        return Profile(transform, f"colors are converted to sRGB from {name}")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return Profile(None, "a damaged color profile is passed over")


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.arange(0, 256, STEP, dtype=np.uint8)
    grid = (
        levels[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(len(levels), -1, 3)
    )
    probe = Image.fromarray(np.ascontiguousarray(grid))
    result = ImageCms.applyTransform(probe, transform)
    assert result is not None
    return int(np.abs(np.asarray(result).astype(int) - np.asarray(probe.convert("RGB"))).max()) <= SAME
