"""Reads images that hold measurements rather than pictures: NumPy arrays, DICOM, and TIFF of any type and bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from diffusion.data.images.bands import Bands, mode_of, turned
from diffusion.data.images.formats import needed
from diffusion.data.images.source import BinaryFile, Header, Source, check_size
from diffusion.data.images.tiff import PALETTE, RGB, Layout
from diffusion.data.spec import MAX_CHANNELS

Kind = Literal["gray", "rgb", "bands"]


@dataclass(frozen=True)
class Array(Source):
    """A file of one NumPy array, without pickled objects.

    Its axes are H x W, H x W x C, or C x H x W where the first axis has at most 16 places and the last has more. One
    band is gray, three are RGB. Any other number of bands is taken as it is: no band of an array is alpha.
    """

    file: BinaryFile

    def header(self) -> Header:
        """Reads the shape and type, which precede the values."""
        shape, dtype = self._described()
        height, width, count = _height_width_count(shape)
        return Header(width, height, mode_of(count, dtype), "NPY", 1)

    def bands(self, frame: int) -> Bands:
        """Reads the array."""
        if frame:
            raise EOFError("an array is one image")
        shape, _ = self._described()
        _height_width_count(shape)
        self.file.seek(0)
        values = np.load(self.file, allow_pickle=False)
        if len(shape) == 2:
            values = values[:, :, None]
        elif _channels_first(shape):
            values = values.transpose(1, 2, 0)
        return Bands(values, _kind(values.shape[2]))

    def _described(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        self.file.seek(0)
        version = np.lib.format.read_magic(self.file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(self.file)
        if dtype.hasobject:
            raise ValueError("an array of Python objects, which are never read; save it as one of numbers")
        if dtype.kind not in "biuf":
            raise ValueError(f"an array of {dtype}, which are no pixels; save whole or floating-point numbers")
        return shape, dtype


def _kind(count: int) -> Kind:
    return "gray" if count == 1 else "rgb" if count == 3 else "bands"


def _channels_first(shape: tuple[int, ...]) -> bool:
    return shape[0] <= MAX_CHANNELS < shape[2]


def _height_width_count(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) == 3:
        count, height, width = shape if _channels_first(shape) else (shape[2], *shape[:2])
    elif len(shape) == 2:
        count, height, width = 1, *shape
    if len(shape) not in (2, 3) or not 1 <= count <= MAX_CHANNELS or height * width == 0:
        raise ValueError(
            f"an array of the shape {shape}, no image: H x W, or with up to {MAX_CHANNELS} bands H x W x C or C x H x W"
        )
    check_size(width, height)
    return height, width, count


@dataclass(frozen=True)
class Tiff(Source):
    """A TIFF of a kind that Pillow cannot read, or reads in part, such as more bands or other types; by tifffile."""

    file: BinaryFile
    layout: Layout

    def header(self) -> Header:
        """Reads the tags of the first page."""
        check_size(self.layout.width, self.layout.height)
        sides = self.layout.width, self.layout.height
        width, height = sides[::-1] if self.layout.orientation >= 5 else sides
        with self._opened() as file:
            frames = len(file.pages)
        return Header(width, height, self.layout.mode, "TIFF", frames)

    def bands(self, frame: int) -> Bands:
        """Reads a page. Raises ValueError for one that is not an image of two axes and bands."""
        with self._opened() as file:
            if frame >= len(file.pages):
                raise EOFError(f"holds {len(file.pages)} pages")
            page = file.pages[frame]
            check_size(page.imagewidth, page.imagelength)
            end = self.file.seek(0, 2)
            if any(offset + count > end for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)):
                raise ValueError("the file is truncated")
            try:
                values = page.asarray()
            except Exception as error:
                raise ValueError(f"{self.layout}: {error}") from error
            values = _bands_last(values, page.axes)
            photometric = int(page.photometric)
            if photometric == PALETTE and values.shape[2] == 1:
                values, photometric = _of_palette(values, page.colormap), RGB
            samples, extra = values.shape[2], [int(sample) for sample in page.extrasamples]
            tag = page.tags.get(274)
        alpha = bool(extra) and extra[-1] in (1, 2)
        colors = samples - alpha
        kind: Kind = "rgb" if photometric == RGB and colors >= 3 else "gray" if colors == 1 else "bands"
        return Bands(
            turned(values, int(tag.value) if tag else 1),
            kind,
            alpha=alpha,
            premultiplied=alpha and extra[-1] == 1,
            inverted=photometric == 0,
        )

    @property
    def orientation(self) -> int:
        """The turn that the first page asks for."""
        return self.layout.orientation

    def _opened(self) -> Any:  # noqa: ANN401, tifffile is optional
        self.file.seek(0)
        return needed("tifffile", f"{self.layout}").TiffFile(self.file)


def _bands_last(values: npt.NDArray[Any], axes: str) -> npt.NDArray[Any]:
    """Moves the axis of samples to the end, or adds one."""
    if axes == "YX":
        return values[:, :, None]
    if sorted(axes) != ["S", "X", "Y"]:
        raise ValueError(f"a page of the axes {axes}, no image")
    return values.transpose([axes.index(axis) for axis in "YXS"])


def _of_palette(values: npt.NDArray[Any], palette: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the colors (H, W, 3) of 16 bits that numbers (H, W, 1) have in a palette (3, N)."""
    if values.max() >= palette.shape[1]:
        raise ValueError(f"{values.max()} is not among the {palette.shape[1]:,} colors of the palette")
    colors: npt.NDArray[Any] = palette.T[values[:, :, 0]]
    return colors


@dataclass(frozen=True)
class Dicom(Source):
    """A DICOM file; by pydicom. Its values are those of the modality, with the slope and intercept that it states.

    Palettes and YCbCr become RGB. MONOCHROME1, which shows the lowest value as white, is inverted within the range.
    """

    file: BinaryFile

    def header(self) -> Header:
        """Reads the elements before the pixels."""
        data = self._read(stop_before_pixels=True)
        if "Rows" not in data or "Columns" not in data:
            raise ValueError("a DICOM file without an image")
        check_size(data.Columns, data.Rows)
        return Header(data.Columns, data.Rows, self._mode(data), "DICOM", int(data.get("NumberOfFrames", 1) or 1))

    def bands(self, frame: int) -> Bands:
        """Reads a frame."""
        data = self._read(stop_before_pixels=False)
        check_size(data.Columns, data.Rows)
        pixels = needed("pydicom.pixels", "DICOM")
        if frame >= int(data.get("NumberOfFrames", 1) or 1):
            raise EOFError(f"holds {data.get('NumberOfFrames', 1)} frames")
        values = pixels.pixel_array(data, index=frame)
        if data.PhotometricInterpretation == "PALETTE COLOR":
            values = pixels.apply_color_lut(values, data)
        elif data.get("SamplesPerPixel", 1) == 1:
            values = _modality(values, data)
        values = values[:, :, None] if values.ndim == 2 else values
        own = values.dtype.kind == "u"
        return Bands(
            values,
            _kind(values.shape[2]),
            inverted=data.PhotometricInterpretation == "MONOCHROME1",
            white=2 ** int(data.BitsStored) - 1 if own and data.PhotometricInterpretation != "PALETTE COLOR" else None,
        )

    def _read(self, *, stop_before_pixels: bool) -> Any:  # noqa: ANN401, pydicom is optional
        self.file.seek(0)
        return needed("pydicom", "DICOM").dcmread(self.file, stop_before_pixels=stop_before_pixels)

    def _mode(self, data: Any) -> str:  # noqa: ANN401
        if data.PhotometricInterpretation == "PALETTE COLOR":
            return "P"
        slope, intercept = _rescale(data)
        if not (slope.is_integer() and intercept.is_integer()):
            return "F"
        if (slope, intercept) != (1, 0) or data.PixelRepresentation == 1:
            return "I"
        return mode_of(int(data.SamplesPerPixel), np.dtype(np.uint8 if data.BitsAllocated <= 8 else np.uint16))


def _rescale(data: Any) -> tuple[float, float]:  # noqa: ANN401
    return float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)


def _modality(values: npt.NDArray[Any], data: Any) -> npt.NDArray[Any]:  # noqa: ANN401
    """The values of the modality, whole numbers where slope and intercept are whole."""
    if "ModalityLUTSequence" in data:
        return np.asarray(needed("pydicom.pixels", "DICOM").apply_modality_lut(values, data))
    slope, intercept = _rescale(data)
    if (slope, intercept) == (1, 0):
        return values
    whole = slope.is_integer() and intercept.is_integer()
    return values.astype(np.int64 if whole else np.float64) * (int(slope) if whole else slope) + (
        int(intercept) if whole else intercept
    )
