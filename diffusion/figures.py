"""Pictures of results: tiled images, trajectories, restorations and plots, saved as PNGs whose metadata tell their
origin.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from diffusion.data.images.encoding import png_text
from diffusion.data.images.encoding import read_info as read_info
from diffusion.files import replacing

# The functions that draw with matplotlib import it: it takes longer to import than this whole package, and neither the
# start of a training nor an evaluation needs it.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Images that are smaller than this side are enlarged: tiles, and panels of restorations.
SHOWN_SIDE = 64
PANEL_SIDE = 96
SHOWN_SAMPLES = 8
GAP = 4
# The channels of an image without its opacity, and with it.
COLORS, RGBA = 3, 4
# The grays of the checkerboard that stands for what nobody has seen, and how many of its squares an image is wide.
CHECKER, CHECKERS = (0.4, 0.6), 16
# Panels of restorations that are larger are shown smaller.
LARGEST_PANEL = 512
# A gray that is neither the white nor the black of a picture, so that its edges show.
PAPER = (228, 228, 228)


def shown(x: Tensor) -> Tensor:
    """Returns the channels of images (*, C, H, W) that pictures show: all of 1, 3 or 4, else those of `shown_bands`."""
    count = x.shape[-3]
    return x if count in (1, 3, 4) else x[..., : 1 if count == 2 else COLORS, :, :]


def shown_bands(channels: int) -> str:
    """Says which of the bands of an image its pictures show; empty where they show all of them."""
    if channels in (1, 3, 4):
        return ""
    return f"band 1 of {channels}" if channels == 2 else f"bands 1 to {COLORS} of {channels} as red, green and blue"


def to_image(x: Tensor) -> Image.Image:
    """Converts an image (C, H, W) in [0, 1] to one of Pillow, of the channels that are `shown`."""
    x = shown(x)
    # In place, as images may be large.
    array = x.detach().cpu().clamp(0, 1).mul_(255).round_().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def tile(x: Tensor, *, columns: int | None = None) -> Tensor:
    """Tiles images (N, C, H, W) row by row, with the channels that are `shown`: (3 or 4, H', W').

    By default there are about as many columns as rows. Small images are enlarged by an integer factor, so that their
    pixels keep their values. Several lie on paper, a single one has no edge.
    """
    scale = max(1, SHOWN_SIDE // max(x.shape[-2:]))
    x = _enlarged(shown(x), scale)
    if x.shape[1] == 1:
        x = x.expand(-1, COLORS, -1, -1)
    if len(x) == 1:
        return x[0]
    columns = min(columns or math.ceil(math.sqrt(len(x))), len(x))
    rows, gap, paper = math.ceil(len(x) / columns), max(2, scale // 2), PAPER[0] / 255
    # Each has its gap above and on the left, the whole on the right and below.
    x = F.pad(x, (gap, 0, gap, 0, 0, 0, 0, rows * columns - len(x)), value=paper)
    lines = x.reshape(rows, columns, *x.shape[1:]).permute(2, 0, 3, 1, 4)
    return F.pad(lines.flatten(3, 4).flatten(1, 2), (0, gap, 0, gap), value=paper)


def checkered(x: Tensor, seen: Tensor) -> Tensor:
    """Returns images x (N, C, H, W) with a gray checkerboard where nobody has seen them, `seen` (N, 1, H, W)."""
    rows, columns = (torch.arange(n) // max(1, max(x.shape[-2:]) // CHECKERS) for n in x.shape[-2:])
    board = torch.where((rows[:, None] + columns) % 2 == 0, *CHECKER).expand(x.shape).clone()
    if x.shape[1] == RGBA:
        board[:, -1] = 1
    return torch.where(seen.to(x.device), x, board.to(x))


def save_png(picture: Image.Image | Tensor, path: Path, info: Mapping[str, Any]) -> Path:
    """Writes a PNG in one step, with `info` as JSON in its text chunk "diffusion"."""
    image = to_image(picture) if isinstance(picture, Tensor) else picture
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=png_text(info))
    return path


def draw(x: Tensor, *, title: str = "", limit: float = 2.5) -> Image.Image:
    """Draws examples: images (N, C, H, W) as tiles, points (N, D) as a scatter plot of their first two coordinates.

    The axes of a scatter plot range from -limit to limit.
    """
    if x.ndim == 4:
        return to_image(tile(x))
    figure, (axes,) = blank(1)
    scatter(axes, x, limit)
    axes.set_title(title)
    return rendered(figure)


def film(frames: Sequence[Tensor], *, limit: float = 2.5) -> Image.Image:
    """Draws a trajectory with one column per frame: images (N, C, H, W) as tiles with one row per example, and points
    (N, D) as one row of scatter plots.
    """
    if frames[0].ndim == 4:
        x = torch.stack(list(frames), 1).flatten(0, 1)
        return to_image(tile(x, columns=len(frames)))
    figure, panels = blank(len(frames))
    for axes, x in zip(panels, frames, strict=True):
        scatter(axes, x, limit)
    return rendered(figure)


def save_animation(frames: Sequence[Tensor], path: Path, *, seconds: float = 2.0) -> Path:
    """Writes a trajectory as a looping GIF of about `seconds`, which then rests on its last frame."""
    pictures = [draw(x).convert("RGB") for x in frames]
    each = int(1000 * seconds / len(pictures))
    with replacing(path) as temporary:
        pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=[each] * (len(pictures) - 1) + [1500],
            loop=0,
        )
    return path


def restoration(
    damaged: Tensor,
    samples: Tensor,
    std: Tensor,
    *,
    mean: Tensor | None = None,
    known: Tensor | None = None,
    original: Tensor | None = None,
) -> Image.Image:
    """Draws a row of labeled panels: damaged, mask, restorations, their mean and standard deviation, original.

    `samples` are (N, C, H, W), of which the first few are shown; all other images are (C, H, W); values are in [0, 1].
    The damaged image may have another number of channels and be smaller by an integer factor. The standard deviation is
    scaled so that its largest value is white. Large images are shown smaller by an integer factor. Mask and original
    are left out if they are None, mean and standard deviation if there is one sample. `mean` is by default that of the
    samples, which may be some of all.
    """
    deviation = std.mean(0, keepdim=True)
    top = float(deviation.max())
    panels = [("damaged", _enlarged(damaged, max(1, samples.shape[-2] // damaged.shape[-2])))]
    if known is not None:
        panels.append(("mask", known.float().amin(0, keepdim=True)))
    panels += [(f"restored {i + 1}", sample) for i, sample in enumerate(samples[:SHOWN_SAMPLES])]
    if len(samples) > 1:
        panels += [
            ("mean", samples.mean(0) if mean is None else mean),
            (f"std (white {top:.2f})", deviation / max(top, 1e-9)),
        ]
    if original is not None:
        panels.append(("original", original))
    side = max(samples.shape[-2:])
    scale, factor = max(1, math.ceil(PANEL_SIDE / side)), math.ceil(side / LARGEST_PANEL)
    return captioned([(name, to_image(_enlarged(_reduced(_rgb(x), factor), scale))) for name, x in panels])


def stack(rows: Sequence[Image.Image]) -> Image.Image:
    """Puts pictures one below the other."""
    canvas = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), PAPER)
    top = 0
    for row in rows:
        canvas.paste(row, (0, top))
        top += row.height
    return canvas


def blank(panels: int, width: float = 2.4) -> tuple[Figure, list[Any]]:
    """Returns an empty plot of several panels side by side, each `width` inches wide, and its axes."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(width * panels, 2.6), dpi=130, layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
    return figure, list(axes)


def scatter(axes: Any, x: Tensor, limit: float) -> None:  # noqa: ANN401, matplotlib's axes are untyped
    """Draws the first two coordinates of points (N, D) into axes that range from -limit to limit."""
    points = x.detach().cpu()
    vertical = points[:, 1] if points.shape[1] > 1 else torch.zeros(len(points))
    axes.scatter(points[:, 0], vertical, s=2, color="black", linewidths=0, alpha=0.6)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])


def rendered(figure: Figure) -> Image.Image:
    """Renders a plot as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.print_figure(buffer := io.BytesIO(), format="png", dpi=figure.dpi)
    return Image.open(buffer).convert("RGB")


def _enlarged(x: Tensor, scale: int) -> Tensor:
    return x.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def _reduced(x: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(x[None], factor)[0] if factor > 1 else x


def _rgb(x: Tensor) -> Tensor:
    x = shown(x)[:COLORS]
    return x.expand(COLORS, -1, -1) if len(x) == 1 else x


def captioned(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Puts pictures side by side, each below its name, which has room of its own."""
    font = ImageFont.load_default(size=11)
    widths = [max(image.width, math.ceil(font.getlength(name))) for name, image in panels]
    height = max(image.height for _, image in panels)
    width = sum(each + GAP for each in widths) + GAP
    canvas = Image.new("RGB", (width, height + 16 + 2 * GAP), PAPER)
    pen, left = ImageDraw.Draw(canvas), GAP
    for (name, image), each in zip(panels, widths, strict=True):
        pen.text((left, GAP), name, fill="black", font=font)
        canvas.paste(image, (left, 16 + GAP))
        left += each + GAP
    return canvas
