"""The speed of decoding images, against Pillow alone: decode, turn upright, convert, resize and crop.

    python -m benchmarks.decoding [--images 40] [--side 400] [--size 64] [--rounds 9] [--out FILE.json] [--check]

The images are generated: gradients with noise, as JPEG and PNG of 8 bits, each without a color profile, with one of
sRGB and with one of other primaries, which Pillow alone ignores, and as PNG and TIFF of 16 bits, which it clips. Both
sides decode the same bytes from memory, by turns, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps

from benchmarks import common
from benchmarks.common import Contestant, Goal, Rows
from diffusion.data.images.decoding import RGB, PixelFormat, decode_at
from tests.profiles import P3

# The goal: the speed of files of 8 bits without a profile as a share of that of Pillow, which needs two copies fewer.
SPEED = 0.8


@dataclass(frozen=True)
class Options:
    """The options of the benchmark. `side` is the shorter side of the files, `size` that of the decoded images."""

    images: int = 40
    side: int = 400
    size: int = 64
    rounds: int = 9


def picture(rng: np.random.Generator, side: int) -> npt.NDArray[np.float64]:
    """Makes a random gradient with noise, (side, 4/3 side, 3) in [0, 1]."""
    width = side * 4 // 3
    corners = rng.uniform(0, 1, (2, 2, 3))
    rows, columns = np.linspace(0, 1, side)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    top, bottom = (c[0] + columns * (c[1] - c[0]) for c in corners)
    return np.asarray((top + rows * (bottom - top) + rng.normal(0, 0.02, (side, width, 3))).clip(0, 1))


def files(options: Options) -> dict[str, tuple[PixelFormat, list[bytes]]]:
    """Encodes the same images as files of each kind, by the name of the kind, with the format to decode them to."""
    rng = np.random.default_rng(0)
    pictures = [picture(rng, options.side) for _ in range(options.images)]
    eight = [Image.fromarray((x * 255).astype(np.uint8)) for x in pictures]
    twelve = [Image.fromarray((x[:, :, 0] * 4095).astype(np.uint16)) for x in pictures]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profiles = {"": None, ", sRGB": srgb, ", other colors": P3}
    deep = PixelFormat(1, value_range=(0, 4095), levels=4096)
    return {
        **{
            f"{kind}{name}": (RGB, [_encoded(image, kind, profile) for image in eight])
            for kind in ("JPEG", "PNG")
            for name, profile in profiles.items()
        },
        **{f"{kind}, 12 bits": (deep, [_encoded(image, kind, None) for image in twelve]) for kind in ("PNG", "TIFF")},
    }


def _encoded(image: Image.Image, kind: str, profile: bytes | None) -> bytes:
    options = {} if profile is None else {"icc_profile": profile}
    image.save(buffer := BytesIO(), format=kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def plain(data: bytes, size: int, mode: str) -> npt.NDArray[np.uint8]:
    """Decodes an image as by hand with Pillow, which covers the size and crops it in one step."""
    with Image.open(BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert(mode)
        return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def ours(data: bytes, size: int, form: PixelFormat) -> npt.NDArray[np.generic]:
    """Decodes an image by this package."""
    return decode_at("image", form, (size, size), BytesIO(data))


def contestants(options: Options, form: PixelFormat, encoded: list[bytes]) -> dict[str, Contestant]:
    """Returns both sides, whose call decodes all images of a kind."""
    mode = "L" if form.channels == 1 else "RGB"

    def each(decode: Callable[[bytes], object]) -> Contestant:
        return Contestant(lambda: [decode(data) for data in encoded], len(encoded))

    return {
        "ours": each(lambda data: ours(data, options.size, form)),
        "Pillow": each(lambda data: plain(data, options.size, mode)),
    }


def measure(options: Options) -> tuple[list[Goal], dict[str, Rows]]:
    """Returns all goals and the table."""
    goals, rows = [], []
    for name, (form, encoded) in files(options).items():
        timings = common.alternate(contestants(options, form, encoded), rounds=options.rounds)
        ratio = timings["ours"].over(timings["Pillow"])
        rows.append({"files": name, **{side: timing.rate() for side, timing in timings.items()}, "ratio": ratio})
        if name in ("JPEG", "PNG"):
            goals.append(Goal(f"speed of {name} against Pillow", ratio.median, SPEED))
    return goals, {"Images per second": rows}


def main() -> None:
    parser = common.parser(__doc__, "decoding")
    for name, default in asdict(Options()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    goals, found = measure(Options(**{name: getattr(given, name) for name in asdict(Options())}))
    common.finish(goals, found, given.out, check=given.check)


if __name__ == "__main__":
    main()
