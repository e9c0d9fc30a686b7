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

# The functions that draw with matplotlib and torchvision import them: both take longer to import than this whole
# package, and neither the start of a training nor an evaluation needs them.
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
Curve = Sequence[tuple[float, float]]


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
    pixels keep their values.
    """
    from torchvision.utils import make_grid

    scale = max(1, SHOWN_SIDE // max(x.shape[-2:]))
    x = _enlarged(shown(x), scale)
    picture: Tensor = make_grid(
        x, nrow=columns or math.ceil(math.sqrt(len(x))), padding=max(2, scale // 2), pad_value=PAPER[0] / 255
    )
    return picture


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
    figure, (axes,) = _figure(1)
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
    figure, panels = _figure(len(frames))
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


def loss_by_log_snr(curve: Curve, path: Path, step: int) -> Path:
    """Plots the weighted loss against log-SNR, from the points (log-SNR, loss) of `curve`.

    With the EDM parameterization and weighting, a network whose output is 0 has the loss 1.
    """
    figure, (axes,) = _figure(1, width=5.0)
    axes.plot([log_snr for log_snr, _ in curve], [value for _, value in curve], "o-", color="black", markersize=3)
    axes.set(
        xlabel="log-SNR (noise on the left, clean on the right)",
        ylabel="loss",
        title=f"loss by log-SNR, step {step}",
    )
    axes.set_ylim(bottom=0)
    return save_png(rendered(figure), path, {"step": step, "log_snr": [list(point) for point in curve]})


def by_log_snr(curves: Mapping[str, Sequence[tuple[float, float, float]]], path: Path, unit: str) -> Path:
    """Plots named curves of (log-SNR, value, standard error), with bands of two standard errors.

    They show how much each log-SNR adds to the bound, and where training and held-out data differ: what is memorized.
    """
    figure, (axes,) = _figure(1, width=5.0)
    for (name, rows), style in zip(curves.items(), ("-", "--", ":", "-."), strict=False):
        log_snrs, values, errors = zip(*rows, strict=True)
        axes.plot(log_snrs, values, style, color="black", linewidth=1, label=name)
        low, high = ([v + sign * 2 * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(log_snrs, low, high, color="black", alpha=0.15, linewidth=0)
    axes.set(xlabel="log-SNR (noise on the left, clean on the right)", ylabel=f"{unit} per unit of log-SNR")
    axes.set_title("the diffusion term by log-SNR")
    axes.legend(frameon=False)
    return save_png(
        rendered(figure), path, {"unit": unit, "curves": {k: [list(r) for r in v] for k, v in curves.items()}}
    )


def histogram(values: Sequence[float], path: Path, *, label: str, title: str) -> Path:
    """Plots the histogram and the mean of values, one for each example or for each path of an example."""
    figure, (axes,) = _figure(1, width=5.0)
    axes.hist(values, bins=min(50, max(5, len(values) // 8)), color="black", alpha=0.6)
    mean = sum(values) / len(values)
    axes.axvline(mean, color="black", linewidth=1, linestyle="--", label=f"mean {mean:.4g}")
    axes.set(xlabel=label, ylabel="count", title=title)
    axes.legend(frameon=False)
    return save_png(rendered(figure), path, {"label": label, "mean": mean, "count": len(values)})


def _figure(panels: int, width: float = 2.4) -> tuple[Figure, list[Any]]:
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
    """Puts pictures side by side, each below its name."""
    font = ImageFont.load_default(size=11)
    height = max(image.height for _, image in panels)
    width = sum(image.width + GAP for _, image in panels) + GAP
    canvas = Image.new("RGB", (width, height + 16 + 2 * GAP), PAPER)
    pen, left = ImageDraw.Draw(canvas), GAP
    for name, image in panels:
        pen.text((left, GAP), name, fill="black", font=font)
        canvas.paste(image, (left, 16 + GAP))
        left += image.width + GAP
    return canvas
