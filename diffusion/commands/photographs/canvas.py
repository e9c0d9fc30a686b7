"""Composes restorations into the values of a photograph: what is known stays the file's own, to the last bit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from diffusion.commands.photographs.metadata import Metadata
from diffusion.commands.photographs.photograph import Photograph
from diffusion.commands.photographs.recolor import deepened, is_neutral, to_gray, to_rgb
from diffusion.commands.photographs.writing import Values
from diffusion.data import DataSpec
from diffusion.data.images.bands import LUMA
from diffusion.data.images.pixel_format import Color, Range
from diffusion.model.restoration import Restoration

# An image counts as cut out, not as an opaque one with transparent parts, where more of what is hidden is transparent.
CUT_OUT = 0.5


@dataclass(frozen=True)
class Canvas:
    """What a restoration is written into.

    `own` are the values (H, W, B) of the file where restorations have its size, and `known` (H, W, B or 1) says which
    of them are kept; None stands for none. Restored values in [0, 1] become those between `ends`. There are `colors`
    bands of color, after which alpha follows if `alpha`: that of `own`, unless the model restores it. What shows
    through is seen on a `background`. `gray` restorations are brought to equal colors.
    """

    dtype: np.dtype[np.generic]
    ends: Range
    colors: int
    alpha: bool
    metadata: Metadata
    own: Values | None = None
    known: Values | None = None
    background: Color = (255, 255, 255)
    gray: bool = False
    into_profile: ImageCms.ImageCmsTransform | None = None

    @property
    def bands(self) -> int:
        """The number of bands that are written."""
        return self.colors + self.alpha

    def values(self, x: Tensor) -> Values:
        """The values (H, W, B) of the file with those of a restoration x (C, H, W) in [0, 1] where nothing is known."""
        height, width = x.shape[-2:]
        hidden = np.ones((height, width), bool) if self.known is None else ~np.asarray(self.known.all(2))
        restored = x.detach().cpu().permute(1, 2, 0)[torch.from_numpy(hidden)]
        opacity = self._opacity(restored, hidden)
        made = self._colors(restored, opacity)
        if self.own is None or self.known is None:
            out = np.empty((height, width, self.bands), self.dtype)
        else:
            out = self.own.copy()
        if self.alpha:
            made = np.concatenate([made, opacity[:, None]], 1)
        if self.known is not None and self.known.shape[2] > 1:
            made = np.where(np.broadcast_to(self.known, out.shape)[hidden], out[hidden], made)
        out[hidden] = made
        return out

    def _opacity(self, restored: Tensor, hidden: Values) -> Values:
        """The opacity (M,) of what is restored, in the values of the file."""
        top = self._top
        if not self.alpha:
            return np.full(len(restored), top, self.dtype)
        if self._restores_alpha(restored):
            return np.asarray((restored[:, -1].clamp(0, 1) * top).round().numpy().astype(self.dtype))
        if self.own is None:
            return np.full(len(restored), top, self.dtype)
        kept: Values = self.own[hidden][:, -1]
        return kept

    def _colors(self, restored: Tensor, opacity: Values) -> Values:
        """The colors (M, colors) of what is restored (M, C), in the values of the file."""
        if restored.shape[1] == 4 and self.colors in (1, 3) and not self.alpha:
            restored = self._covered(restored)
        colors = restored[:, : self.colors] if restored.shape[1] >= self.colors else restored.expand(-1, self.colors)
        if self.colors == 1 and restored.shape[1] >= 3:
            colors = luma(restored[:, :3].T).T
        if self.alpha and not self._restores_alpha(restored):
            colors = self._uncovered(colors, torch.from_numpy(opacity / self._top))
        if self.into_profile is not None:
            colors = self._profiled(colors)
        return self._stored(colors)

    def _restores_alpha(self, restored: Tensor) -> bool:
        """Whether the last channel of restorations (M, C) is their opacity."""
        return self.alpha and restored.shape[1] in (2, 4, self.colors + 1)

    def _uncovered(self, shown: Tensor, opacity: Tensor) -> Tensor:
        """The colors that show as `shown` on the background, where they show at all."""
        behind = torch.tensor(self.background, dtype=torch.float32) / 255
        behind = luma(behind[:, None])[:, 0] if shown.shape[1] == 1 else behind
        part = opacity[:, None].to(shown)
        return torch.where(part > 0, (shown - (1 - part) * behind) / part.clamp_min(1e-3), shown).clamp(0, 1)

    def _covered(self, restored: Tensor) -> Tensor:
        """The colors (M, 3) that restorations with alpha (M, 4) show on the background."""
        behind, opacity = torch.tensor(self.background, dtype=torch.float32) / 255, restored[:, 3:].clamp(0, 1)
        return restored[:, :3] * opacity + behind * (1 - opacity)

    def without_alpha(self) -> Canvas:
        """The canvas for a file without alpha, for an image that has none of its own."""
        own = None if self.own is None else self.own[:, :, : self.colors]
        known = self.known if self.known is None or self.known.shape[2] == 1 else self.known[:, :, : self.colors]
        return replace(self, alpha=False, own=own, known=known)

    def _profiled(self, colors: Tensor) -> Tensor:
        """Colors of sRGB in those of the file, at 8 bits, for which alone there are transforms."""
        assert self.into_profile is not None
        rgb = (colors.expand(-1, 3).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        if not len(rgb):
            return colors
        converted = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(rgb[None])), self.into_profile)
        values = np.asarray(converted).reshape(len(rgb), -1)[:, : colors.shape[1]]
        return torch.tensor(values).expand(-1, colors.shape[1]).float() / 255

    def _stored(self, units: Tensor) -> Values:
        low, high = self.ends
        if self.dtype.kind == "f":
            return (low + units * (high - low)).numpy().astype(self.dtype)
        within = np.iinfo(self.dtype)  # type: ignore[type-var]
        values = (units.clamp(0, 1) * (high - low)).round().double() + low
        return values.numpy().clip(within.min, within.max).astype(self.dtype)

    @property
    def _top(self) -> float:
        return float(np.iinfo(self.dtype).max) if self.dtype.kind in "iu" else 1.0  # type: ignore[type-var]


def luma(x: Tensor) -> Tensor:
    """The luma of colors (3, *) as one channel (1, *)."""
    weights = torch.tensor(LUMA, dtype=x.dtype).reshape(3, *[1] * (x.ndim - 1))
    return (x * weights).sum(0, keepdim=True)


def canvas(
    photograph: Photograph,
    shape: tuple[int, ...],
    spec: DataSpec,
    *,
    known: Tensor | None,
    background: Color,
    keeps: bool | Tensor = True,
    colorizes: bool = False,
) -> tuple[Canvas, tuple[str, ...]]:
    """Prepares the canvas for restorations of a `shape` (C, H, W), and says what the results are not.

    `known` (1 or C, H, W) are the pixels that are not filled, None where there is nothing to fill. They are returned as
    they are if `keeps`, or those pixels alone that it is, (1 or C, H, W). `colorizes` says that colors are made of a
    gray image.
    """
    bands, channels, notices = photograph.bands, shape[0], []
    if spec.value_range is None and bands.white is not None:
        bands, told = deepened(bands, bands.white)
        notices += [told] * bool(told)
    same_size = photograph.size == shape[1:]
    metadata, into, own = photograph.metadata, photograph.into_profile, bands
    if bands.kind == "rgb" and channels == 1:
        own, into, metadata = to_gray(bands), None, metadata.in_srgb() if into else metadata
        notices.append("is in color, but the model knows gray alone: its results are gray")
    elif bands.kind == "gray" and channels >= 3 and colorizes:
        own, into, metadata = to_rgb(bands), None, metadata.in_srgb() if into else metadata
    colors = own.values.shape[2] - own.alpha
    seen = None if known is None or not same_size else known.permute(1, 2, 0).numpy()
    neutral = channels in (3, 4) and bands.kind != "bands" and not colorizes
    neutral = neutral and (colors == 1 or is_neutral(bands, seen))
    if neutral and colors > 1:
        notices.append("has no colored pixel: it is restored in gray")
    alpha = own.alpha or (channels == 4 and own.kind == "rgb" and colors == 3)
    if own.alpha and not same_size:
        alpha = channels == 4
        notices.append("is transparent in parts, its results are not, as they have another size")
    ends = spec.value_range or own.full or (0.0, 1.0)
    made = Canvas(
        own.values.dtype, ends, colors, alpha, metadata.sized(shape[2], shape[1]), background=background, gray=neutral
    )
    made = replace(made, into_profile=into)
    if not same_size:
        return made, tuple(notices)
    values = own.values
    if alpha and not own.alpha:
        top = np.full((*values.shape[:2], 1), made._top, values.dtype)
        values = np.concatenate([values, top], 2)
    if own.alpha and channels in (1, 3) and seen is not None:
        cut_out = _is_cut_out(photograph, seen)
        if cut_out:
            values = values.copy()
            values[~seen.all(2), -1] = made._top
        notices.append("is transparent in parts: " + ("what is filled becomes opaque" if cut_out else "that stays so"))
    if isinstance(keeps, Tensor):
        seen, keeps = keeps.permute(1, 2, 0).numpy(), True
    kept = _by_band(seen, colors, alpha) if keeps else None
    return replace(made, own=values, known=kept), tuple(notices)


def project(found: Restoration, canvas: Canvas) -> Restoration:
    """Restorations whose colors are their luma, where the canvas asks for that."""
    if not canvas.gray:
        return found
    if found.image is None or found.restored is None:
        part = found.part.clone()
        part[:, :3] = luma(part[:, :3].movedim(1, 0)).movedim(0, 1)
        return replace(found, part=part)
    if found.restored.shape[0] != 1:  # Channels that are known in part have colors of their own.
        return found
    part = found.part.reshape(len(found.part), found.shape[0], -1).clone()
    part[:, :3] = luma(part[:, :3].movedim(1, 0)).movedim(0, 1)
    return replace(found, part=part.flatten(1))


def _is_cut_out(photograph: Photograph, known: Values) -> bool:
    """Whether what is hidden in a photograph with alpha was made transparent."""
    alpha = photograph.alpha
    assert alpha is not None
    hidden = alpha[~known.all(2)]
    return not len(hidden) or float((hidden < alpha.max() / 2).mean()) > CUT_OUT


def _by_band(known: Values | None, colors: int, alpha: bool) -> Values | None:
    """Known pixels (H, W, 1 or C) by the bands that are written; all channels count where there are other ones."""
    if known is None or known.shape[2] == 1:
        return known
    whole = np.asarray(known.all(2, keepdims=True))
    if known.shape[2] < colors or colors == 1:
        return whole
    parts = [known[:, :, :colors], known[:, :, 3:4] if known.shape[2] == 4 else whole]
    return np.concatenate(parts[: 1 + alpha], 2)
