"""Writes DICOM files of known values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset


def write_dicom(
    path: Path,
    values: npt.NDArray[Any],
    *,
    slope: float | None = None,
    intercept: float = 0,
    photometric: str = "MONOCHROME2",
    rows: int | None = None,
    columns: int | None = None,
) -> Path:
    """Write stored values, (H, W) or (N, H, W) of 12 bits or (H, W, 3) of 8, and return the path."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    color = photometric == "RGB"
    height, width = values.shape[:2] if color else values.shape[-2:]
    data.Rows, data.Columns = rows or height, columns or width
    data.SamplesPerPixel = 3 if color else 1
    data.PhotometricInterpretation = photometric
    data.BitsAllocated = 8 * values.dtype.itemsize
    data.BitsStored = 8 if values.dtype == np.uint8 else 12
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = 0
    if color:
        data.PlanarConfiguration = 0
    if values.ndim == 3 and not color:
        data.NumberOfFrames = len(values)
    if slope is not None:
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
    data.PixelData = values.tobytes()
    data.save_as(path, enforce_file_format=True)
    return path
