"""Image folders, tar shards, Hugging Face datasets, textures, dead leaves and point sets, and the order in which their
examples are seen.

`open_source` and `open_folder` are the ways to a Dataset; the other names are the steps they are made of.
"""

from diffusion.data.augment import augment
from diffusion.data.cache import Packed, pack
from diffusion.data.container import Problem
from diffusion.data.dataset import Dataset, standardized
from diffusion.data.dead_leaves import Leaves, dead_leaves
from diffusion.data.decoding import Header, ImageError, decode, fit, read_header
from diffusion.data.digits import write_digits
from diffusion.data.folder import open_folder
from diffusion.data.folders import FolderError, Scan, scan
from diffusion.data.index import Entry
from diffusion.data.points import SwissRoll, mixture, swiss_roll
from diffusion.data.report import table
from diffusion.data.sources import SOURCES, DataOptions, open_source
from diffusion.data.spec import DataSpec
from diffusion.data.stream import SampleStream
from diffusion.data.texture import texture

__all__ = [
    "SOURCES",
    "DataOptions",
    "DataSpec",
    "Dataset",
    "Entry",
    "FolderError",
    "Header",
    "ImageError",
    "Leaves",
    "Packed",
    "Problem",
    "SampleStream",
    "Scan",
    "SwissRoll",
    "augment",
    "dead_leaves",
    "decode",
    "fit",
    "mixture",
    "open_folder",
    "open_source",
    "pack",
    "read_header",
    "scan",
    "standardized",
    "swiss_roll",
    "table",
    "texture",
    "write_digits",
]
